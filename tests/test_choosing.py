"""Settings chosen by other data than the test split: scores of a split, many runs, a picture."""

import csv
import functools
import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from harness import refusal

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.engine.processes import Alone
from pyro_aevb.estimators import shipped
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.metrics import log_mean
from pyro_aevb.estimators.work import Work
from pyro_aevb.reports.plots import score_against_setting
from pyro_aevb.reports.settings import differing, repetitions
from pyro_aevb.runs.prepare import restore

SCORED = {"num_samples": 20, "proposal": "guide", "show": False}
TRIALS = {
    "a": (2, 1e-3, 0),
    "b": (2, 1e-3, 1),
    "c": (2, 3e-2, 0),
    "d": (2, 3e-2, 1),
    "e": (4, 3e-2, 0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five runs of three settings, that have seen no test data."""
    folder = tmp_path_factory.mktemp("runs")
    for name, (d, lr, seed) in TRIALS.items():
        how = {"lr": lr, "seed": seed, "epochs": 1, "out": str(folder / name)}
        size = {"latent_dim": d, "hidden": [16]}
        pyro_aevb.fit("VAE", "digits", size, no_score=True, show=False, **how)
        pyro_aevb.evaluate(folder / name, split="valid", **SCORED)
    return folder


def compared(folder, **options):
    given = {"split": "valid", "out": str(folder / "c"), "show": False, **options}
    return pyro_aevb.compare([folder / name for name in TRIALS], **given)


def test_a_split_has_the_scores_of_its_data_and_leaves_those_of_the_test_split(folder, tmp_path):
    shutil.copytree(folder / "c", tmp_path / "run")
    run = pyro_aevb.Run(tmp_path / "run")
    stored = json.loads((run.path / "results.json").read_text())
    assert set(stored) == {"splits", "sha256"} and not run.figures.exists()
    with pytest.raises(pyro_aevb.UsageError, match="no results yet"):
        run.results  # noqa: B018
    valid = run.on("valid").results
    prepared = restore(run)
    for split, data in (("valid", prepared.valid), ("train", prepared.fixed_train)):
        if split == "train":
            pyro_aevb.evaluate(run, split="train", num_data=40, **SCORED)
        seen, count = run.on(split), {"valid": len(prepared.valid), "train": 40}[split]
        scores = Scorer(prepared.pair, 20, 10, 0)(data.first(count))
        found = seen.results["metrics"]
        assert seen.results["num_data"] == count and seen.results["split"] == split
        assert found["elbo"]["value"] == pytest.approx(scores.elbo.mean(), rel=1e-5)
        bound = log_mean(scores.log_weight)
        assert found["log_likelihood"]["value"] == pytest.approx(bound.mean(), rel=1e-5)
        np.testing.assert_allclose(seen.per_datum("predictive", "iwae_bound"), bound, rtol=1e-4)
    # Of which training has left one draw of each datum.
    assert valid["validation"] == {
        k: run.history[0][k] for k in ("epoch", "elbo", "reconstruction", "kl")
    }
    assert valid["validation"]["elbo"] == pytest.approx(valid["metrics"]["elbo"]["value"], rel=0.02)
    test = pyro_aevb.evaluate(run, num_data=30, **SCORED)
    assert (test["split"], test["num_data"]) == ("test", 30) and test["splits"]["valid"] == valid
    assert len(run.per_datum("predictive", "iwae_bound")) == 30
    pyro_aevb.evaluate(run, split="valid", num_data=5, **SCORED)
    again = run.results
    assert again["splits"]["valid"].pop("looks")["5"]["settings"]["num_data"] == 5
    assert again == test and len(run.table("data")) == 30
    assert len(run.on("valid").table("data")) == valid["num_data"]
    # Trained further, the pair is another one.
    pyro_aevb.fit(epochs=2, resume=True, no_score=True, show=False, out=str(run.path))
    with pytest.raises(pyro_aevb.UsageError, match=r"evaluate \S+ --split valid"):
        run.on("valid").current_results()
    pyro_aevb.evaluate(run, num_data=30, **SCORED)
    assert "splits" not in run.results


def test_seeds_of_a_setting_are_one_row_with_paired_differences(folder, tmp_path):
    table = compared(folder, export=str(tmp_path / "t.csv"))
    metric = "log_likelihood"
    values = {
        n: pyro_aevb.Run(folder / n).on("valid").per_datum("predictive", metric) for n in TRIALS
    }
    means = {name: of.mean() for name, of in values.items()}
    assert [*table] == sorted(means, key=means.get, reverse=True)
    groups = sorted([("a", "b"), ("c", "d"), ("e",)], key=lambda g: -np.mean([means[n] for n in g]))
    best = groups[0]
    for place, group in enumerate(groups):
        for name in group:
            setting = table[name]["setting"]
            d, lr, _ = TRIALS[name]
            assert setting["place"] == place and {*setting["runs"]} == {*group}
            assert setting["settings"] == {"lr": lr, "pair.latent_dim": d}
        found = setting["metrics"][metric]
        each = [means[name] for name in group]
        assert found["value"] == pytest.approx(np.mean(each))
        spread = abs(each[0] - each[1]) / np.sqrt(2) if len(each) == 2 else None
        assert found["spread"] == (spread and pytest.approx(spread))
        if group == best:
            assert setting["paired"] == {}
            continue
        apart = sum(values[n] for n in group) / len(group) - sum(values[n] for n in best) / len(
            best
        )
        found = setting["paired"][metric]
        assert found["value"] == pytest.approx(apart.mean())
        assert found["standard_error"] == pytest.approx(apart.std(ddof=1) / np.sqrt(len(apart)))
        if len(group) == len(best) == 2:
            ends = [abs(means[g[0]] - means[g[1]]) / 2 for g in (group, best)]
            assert found["seeds_error"] == pytest.approx(np.hypot(*ends))
        else:
            assert found["seeds_error"] is None
    text = (folder / "c" / "comparison.md").read_text()
    assert "valid split" in text
    rows = [re.split(r" *\| *", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    head, _, *body = rows[: 2 + len(groups)]
    cells = [dict(zip(head, row, strict=True)) for row in body]
    for row, group in zip(cells, groups, strict=True):
        d, lr, _ = TRIALS[group[0]]
        assert (row["pair.latent_dim"], row["lr"]) == (str(d), f"{lr:g}")
        assert row["seeds"] == str(len(group)) and row["run"].split()[0] in group
        assert row[metric].startswith(f"{np.mean([means[n] for n in group]):.2f} ± ")
    assert cells[0]["difference"] == "reference"
    lines = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [line["lr"] for line in lines] == [f"{TRIALS[name][1]:g}" for name in table]


def test_a_picture_has_a_point_for_each_run_and_the_spread_over_seeds(folder, drawn):
    table = compared(folder, by="lr")
    axes = next(f for f in drawn if "lr" in f.axes[0].get_xlabel()).axes[0]
    points = sorted(
        tuple(xy) for line in axes.lines if line.get_alpha() == 0.45 for xy in line.get_xydata()
    )
    mine = [(TRIALS[n][1], row["metrics"]["log_likelihood"]["value"]) for n, row in table.items()]
    np.testing.assert_allclose(points, sorted(mine))
    assert "nats per datum" in axes.get_ylabel() and axes.get_xscale() == "log"
    bars = np.concatenate([[s[:, 1] for s in b.get_segments()] for b in axes.collections])
    for name in ("a", "c"):
        of = table[name]["setting"]["metrics"]["log_likelihood"]
        ends = [of["value"] - of["spread"], of["value"] + of["spread"]]
        assert np.isclose(np.sort(bars, 1), ends).all(1).any()
    assert (folder / "c" / "log_likelihood-by-lr.png").is_file()


def test_words_are_categories_of_a_picture(tmp_path, drawn):
    lines = {"": [(0, [1.0, 3.0]), (1, [2.0])]}
    score_against_setting("objective", "elbo", lines, tmp_path / "p.png", ["elbo", "iwae"])
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["elbo", "iwae"]
    assert axes.get_xscale() == "linear"


def test_what_the_pair_says_is_no_setting_of_its_own(tmp_path):
    """Defaults count as given; families differ in many parameters that nobody has chosen."""
    runs = {}
    for name, given in (
        ("plain", {"pair": "VAE"}),
        ("same", {"pair": "VAE", "pair_parameters": {"latent_dim": 20}, "seed": 1, "beta": None}),
        ("beta", {"pair": "BetaVAE", "optimizer_options": {"eps": 1e-4}}),
        ("noisy", {"pair": "DenoisingAutoencoder", "pair_parameters": {"latent_dim": 3}}),
        ("wide", {"pair": "/some/where.py:Mine", "pair_parameters": {"latent_dim": 3}}),
    ):
        (tmp_path / name).mkdir()
        settings = {"data": "digits", "optimizer_options": {"eps": 1e-8}, **given}
        (tmp_path / name / "settings.yaml").write_text(yaml.safe_dump(settings))
        runs[name] = pyro_aevb.Run(tmp_path / name)
    groups = repetitions(runs)
    assert groups == [["plain", "same"], ["beta"], ["noisy"], ["wide"]]
    names = ("pair", "pair.latent_dim", "optimizer_options.eps")
    assert differing(runs) == {
        "plain": dict(zip(names, ("VAE", 20, 1e-8), strict=True)),
        "same": dict(zip(names, ("VAE", 20, 1e-8), strict=True)),
        "beta": dict(zip(names, ("BetaVAE", 20, 1e-4), strict=True)),
        "noisy": dict(zip(names, ("DenoisingAutoencoder", 3, 1e-8), strict=True)),
        "wide": dict(zip(names, ("where.py:Mine", 3, 1e-8), strict=True)),
    }


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--by=pair.latent_dims"], "called so (did you mean 'pair.latent_dim'?)"),
        (["--by=batch-size"], "the runs do not differ in it; they differ in lr, pair.latent_dim"),
        (["--by=lr", "--split=valid", "--score=elb"], "no score 'elb' (did you mean 'elbo'?)"),
        (["--score=elbo"], "give --by SETTING too"),
        (
            ["--split=train"],
            "no results of the train split; score it first: python -m pyro_aevb.evaluate",
        ),
    ],
)
def test_mistakes_in_comparing_are_one_line(flags, said, folder, capsys):
    words = [*(str(folder / name) for name in TRIALS), f"--out={folder / 'm'}", *flags]
    error = refusal(partial(run_command, pyro_aevb.compare, words, positional="runs"), capsys)
    assert said in error


def test_other_evaluations_of_a_split_are_of_its_data(folder, tmp_path, capsys):
    shutil.copytree(folder / "d", tmp_path / "run")
    run = pyro_aevb.Run(tmp_path / "run").on("valid")
    prepared, few = restore(run), {"split": "valid", "num_data": 20}
    noise = ["--corruption=gaussian", "--corruption-options={std: 2.0}", "--num-noise=2"]
    noise.append("--num-samples=20")
    command = partial(run_command, pyro_aevb.evaluate, positional="run")
    words = [str(run.path), *(f"--{name.replace('_', '-')}={v}" for name, v in few.items())]
    command([*words, *noise])
    assert "validation data seen as" in " ".join(capsys.readouterr().out.split())
    data = prepared.valid.first(20)
    (entry,) = run.results["corrupted"].values()
    clean = Scorer(prepared.pair, 20, 10, 0)(data)
    found = entry["metrics"]["elbo"]
    assert found["clean"]["value"] == pytest.approx(clean.elbo.mean(), rel=1e-5)
    assert found["value"] < found["clean"]["value"] - 0.3  # a guide that sees noise is a worse one

    options = {"num_chains": 2, "num_temperatures": 5}
    pyro_aevb.evaluate(run.path, "ais", options, show=False, **few)
    _, arrays = shipped("ais").run(prepared, data, Work(Alone("cpu")), **options)
    np.testing.assert_allclose(run.per_datum("ais", "ais_lower"), arrays["ais_lower"], rtol=1e-6)
    metric = run.results["metrics"]["ais_lower"]
    assert metric["value"] == pytest.approx(arrays["ais_lower"].mean(), rel=1e-6)
    likely = run.per_datum("predictive", "log_likelihood")[:20]
    above = metric["above_log_likelihood"]["value"]
    assert above == pytest.approx((arrays["ais_lower"] - likely).mean(), rel=1e-4)
    stored = json.loads((run.path / "results.json").read_text())
    assert set(stored) == {"splits", "sha256"} and not run.figures.exists()

    for flags, said in (
        (["--estimator=parzen"], "--estimator parzen has no use for --split valid: its bandwidth"),
        (["--against=noise"], "--against has no use for --split valid: its test data"),
        (["--split=train", *noise], "evaluate RUN --split train"),
    ):
        error = refusal(partial(command, [*words, *flags]), capsys)
        assert said in error.replace(str(run.path), "RUN")


def test_the_commands_of_the_page_are_commands(tmp_path):
    """Bash runs the block, and says which calls it makes; every one is a call that can be made."""
    page = (Path(__file__).parents[1] / "docs" / "commands.md").read_text()
    block = page.partition("## Choosing settings")[2].partition("```shell")[2].partition("```")[0]
    for name in ("d2-seed0", "d2-seed1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    script = f'python() {{ echo "$@"; }}\n{block}'
    how = {"cwd": tmp_path, "text": True, "capture_output": True, "check": True}
    calls = [
        line.split() for line in subprocess.run(["bash", "-c", script], **how).stdout.splitlines()
    ]
    assert len(calls) == 2 * 9 + 2
    for _, module, *words in calls:
        command = getattr(pyro_aevb, module.removeprefix("pyro_aevb."))
        given = []
        seen = functools.wraps(command)(lambda given=given, **arguments: given.append(arguments))
        run_command(seen, words, {"evaluate": "run", "compare": "runs"}.get(command.__name__))
        (arguments,) = given
        if command is pyro_aevb.compare:
            assert arguments["runs"] == ["runs/d2-seed0", "runs/d2-seed1"]
            assert (arguments["split"], arguments["by"]) == ("valid", "pair.latent_dim")
