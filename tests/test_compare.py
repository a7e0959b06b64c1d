"""Runs side by side: paired differences against SciPy's, exported files read back."""

import csv
import math
import re
import shutil
from functools import partial

import numpy as np
import pyro
import pytest
import scipy.stats
import torch
from harness import refusal

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.models import AdversarialAutoencoder
from pyro_aevb.pairs.predict import reconstruct
from pyro_aevb.reports import plots
from pyro_aevb.reports.comparison import over_seeds, paired
from pyro_aevb.reports.tables import csv_table, latex_table, markdown_table, rows_of
from pyro_aevb.reports.text import show_comparison, show_results
from pyro_aevb.runs.prepare import restore
from pyro_aevb.studies.baselines import logistic_regression

SMALL = {"num_samples": 40, "num_data": 25, "show": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, pair, options in (
        ("small", "VAE", {"seed": 0}),
        ("again", "VAE", {"seed": 1}),
        ("wide", "VAE", {"pair_parameters": {"latent_dim": 5}}),
        ("plain_ae", "Autoencoder", {}),
    ):
        settings = {"pair_parameters": {"latent_dim": 2}, "epochs": 1, **options}
        pyro_aevb.fit(pair, "digits", out=str(folder / name), **settings, **SMALL)
    noise = {"corruption": "gaussian", "corruption_options": {"std": 0.4, "clip": True}}
    for name in ("small", "again"):
        pyro_aevb.evaluate(folder / name, num_noise=2, **noise, **SMALL)
    return folder


def compared(folder, *names, **options):
    runs = [pyro_aevb.Run.open(folder / name) for name in names]
    out = folder / ("c-" + "-".join(names))
    return pyro_aevb.compare(runs, out=str(out), **{"show": False, **options}), out


def values_of(folder, name, metric):
    group, variable = {
        "iwae_bound": ("predictive", "iwae_bound"),
        "log_likelihood": ("predictive", "log_likelihood"),
        "elbo": ("sample_stats", "elbo"),
        "reconstruction": ("sample_stats", "reconstruction"),
        "reconstruction_mean": ("predictive", "reconstruction_mean"),
    }[metric]
    return pyro_aevb.Run.open(folder / name).per_datum(group, variable).reshape(25)


@pytest.mark.parametrize("metric", ["log_likelihood", "iwae_bound", "elbo", "reconstruction"])
def test_a_paired_error_is_that_of_the_paired_t_test(metric, folder):
    table, _ = compared(folder, "small", "wide", "again")
    first, *others = table
    assert table[first]["paired"] == {}
    for name in others:
        found = table[name]["paired"][metric]
        mine, theirs = values_of(folder, name, metric), values_of(folder, first, metric)
        test = scipy.stats.ttest_rel(mine, theirs)
        assert found["value"] == pytest.approx((mine - theirs).mean(), rel=1e-9)
        assert found["value"] / found["standard_error"] == pytest.approx(test.statistic, rel=1e-9)
        # Paired, and so smaller than that of two independent sets.
        apart = np.hypot(scipy.stats.sem(mine), scipy.stats.sem(theirs))
        assert found["standard_error"] < 0.8 * apart


def test_the_best_run_stands_first_and_arviz_agrees(folder):
    table, _ = compared(folder, "wide", "small", "again")
    means = [table[name]["metrics"]["log_likelihood"]["value"] for name in table]
    assert means == sorted(means, reverse=True)
    for name, row in table.items():
        if row["paired"]:
            mine = row["paired"]["log_likelihood"]
            assert row["difference"] == pytest.approx(mine["value"], rel=1e-6), name
            assert row["standard_error"] == pytest.approx(mine["standard_error"], rel=1e-6)
        else:
            assert row["difference"] == 0
    assert sum(row["weight"] for row in table.values()) == pytest.approx(1, abs=1e-6)


def test_parameters_and_seconds_of_training_are_shown(folder, tmp_path):
    table, _ = compared(folder, "small", "wide", export=str(tmp_path / "t.csv"))
    lines = {
        line["run"]: line for line in csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    }
    for name, d in (("small", 2), ("wide", 5)):
        run = pyro_aevb.Run.open(folder / name)
        counted = (64 + 1) * 500 + (500 + 1) * 2 * d + (d + 1) * 500 + (500 + 1) * 64
        assert table[name]["parameters"] == counted == int(lines[name]["parameters"])
        seconds = run.results["num_train"] / run.history[0]["images_per_second"]
        assert table[name]["seconds_per_epoch"] == pytest.approx(seconds)
        assert float(lines[name]["seconds_per_epoch"]) == pytest.approx(seconds)
    labels = {row[0]: row[1:] for row in rows_of(table)}
    assert labels["parameters"] == [f"{row['parameters']:,}" for row in table.values()]


def test_classifiers_are_compared_on_the_data_that_one_alone_gets_wrong(tmp_path):
    """The paired error of SciPy's t-test, and McNemar's exact p-value."""
    net = {"pair_parameters": {"hidden": [12]}, "epochs": 4, "show": False}
    net |= {"algorithm_options": {"pretraining_epochs": 0}, "binarize": "none", "lr": 0.01}
    runs = [
        pyro_aevb.fit("StackedDenoisingAutoencoder", "digits", out=str(tmp_path / "net"), **net),
        logistic_regression("digits", C=1e-3, out=tmp_path / "weak"),
        logistic_regression("digits", out=tmp_path / "strong"),
    ]
    wrong = {}
    for run in runs:
        variable = "log_prob" if run is runs[0] else "predicted"
        given = run.per_datum("classification", variable)
        predicted = given.argmax(1) if given.ndim == 2 else given
        wrong[run.name] = 1.0 * (predicted != run.per_datum("classification", "label"))
    table = pyro_aevb.compare(runs, out=str(tmp_path / "c"), export=str(tmp_path / "t.csv"))
    first, *others = table
    assert (first, others) == ("strong", ["weak", "net"])  # by the error, as one alone has more
    for name in others:
        entry = table[name]["paired"]["classification_error"]
        test = scipy.stats.ttest_rel(wrong[name], wrong[first])
        assert entry["value"] == pytest.approx(100 * (wrong[name] - wrong[first]).mean())
        assert entry["value"] / entry["standard_error"] == pytest.approx(test.statistic)
        b, c = ((wrong[name] - wrong[first] == sign).sum() for sign in (1, -1))
        tail = sum(math.comb(b + c, k) for k in range(max(b, c), b + c + 1)) / 2 ** (b + c)
        assert entry["p_value"] == pytest.approx(min(1, 2 * tail))
    lines = {line[0]: line[1:] for line in rows_of(table)}
    assert lines["calibration_error"][:2] == ["", ""]  # which classes alone do not have
    assert lines["classification_error difference"][0] == "reference"


def test_fewer_data_are_compared_with_the_same_ones():
    a, b = np.random.default_rng(0).normal(size=(2, 30))
    found = paired(a, b[:20])
    test = scipy.stats.ttest_rel(b[:20], a[:20])
    assert found["num_data"] == 20
    assert found["value"] / found["standard_error"] == pytest.approx(test.statistic)


def test_points_and_draws_of_codes_are_compared_at_their_means(folder):
    """A reconstruction at a point and one at draws differ by what the draws cost, not in worth."""
    table, out = compared(folder, "small", "plain_ae")
    means = [row["metrics"]["reconstruction_mean"]["value"] for row in table.values()]
    assert means == sorted(means, reverse=True)
    assert all("weight" not in row for row in table.values())
    (first, _), (second, row) = table.items()
    assert set(row["paired"]) == {"reconstruction_mean"}
    mine, theirs = (values_of(folder, name, "reconstruction_mean") for name in (second, first))
    assert row["paired"]["reconstruction_mean"]["value"] == pytest.approx((mine - theirs).mean())
    run = pyro_aevb.Run.open(folder / "small")
    prepared = restore(run)
    x = prepared.test.take(torch.arange(25))
    logits = torch.logit(reconstruct(prepared.pair, x).double())
    exact = torch.distributions.Bernoulli(logits=logits).log_prob(x.double()).sum((1, 2, 3))
    np.testing.assert_allclose(values_of(folder, "small", "reconstruction_mean"), exact, rtol=1e-4)
    assert not (out / "pairwise.png").exists() and (out / "comparison.png").is_file()
    text = (out / "comparison.md").read_text()
    assert "not defined" in text and "plain_ae: log_likelihood not defined" in text
    assert "at the codes themselves in plain_ae" in text
    assert "| reconstruction_mean difference |" in text
    assert "| reconstruction difference |" not in text
    alike, _ = compared(folder, "small", "wide")
    assert {"reconstruction", "reconstruction_mean"} <= set(list(alike.values())[1]["paired"])


def test_codes_that_are_drawn_without_a_density_are_no_points(folder):
    """A Gaussian encoder matched to a prior of bounded support: no KL, and codes that are drawn."""
    within = pyro.distributions.Uniform(-torch.ones(2), torch.ones(2)).to_event(1)
    pair = AdversarialAutoencoder((1, 8, 8), 2, [8], prior=within, encoder="gaussian")
    drawn = pyro_aevb.fit(pair, "digits", out=str(folder / "drawn"), epochs=0, **SMALL)
    assert drawn.results["metrics"]["kl"]["value"] is None
    table, out = compared(folder, "plain_ae", "drawn")
    (first, _), (second, row) = table.items()
    assert set(row["paired"]) == {"reconstruction_mean"}
    mine, theirs = (values_of(folder, name, "reconstruction_mean") for name in (second, first))
    assert row["paired"]["reconstruction_mean"]["value"] == pytest.approx((mine - theirs).mean())
    # The codes of the one cost something by being drawn, those of the other nothing.
    for name, cost in (("plain_ae", False), ("drawn", True)):
        sampled, mean = (
            values_of(folder, name, m) for m in ("reconstruction", "reconstruction_mean")
        )
        assert (np.abs(sampled - mean).max() > 0.01) == cost
        assert table[name]["points"] != cost
    assert "at the codes themselves in plain_ae" in (out / "comparison.md").read_text()


def test_repetitions_of_one_training_are_averaged_over_seeds(folder, capsys):
    table, out = compared(folder, "small", "wide", "again", show=True)
    assert "over_seeds" not in table["wide"]
    group = table["small"]["over_seeds"]
    assert group == table["again"]["over_seeds"] and set(group["runs"]) == {"small", "again"}
    for metric in ("elbo", "iwae_bound", "log_likelihood", "active_units"):
        values = [table[name]["metrics"][metric]["value"] for name in ("small", "again")]
        found = group["metrics"][metric]
        assert found["value"] == pytest.approx(np.mean(values))
        assert found["spread"] == pytest.approx(np.std(values, ddof=1))
    noisy = "GaussianNoise(std=0.4, clip=True)"
    values = [
        table[name]["corrupted"][noisy]["metrics"]["elbo"]["value"] for name in ("small", "again")
    ]
    found = group["metrics"][f"elbo, {noisy}"]
    assert found["spread"] == pytest.approx(np.std(values, ddof=1)) and found["spread"] > 0
    text = (out / "comparison.md").read_text()
    assert f"| elbo, {noisy} | {found['value']:.2f} | {found['spread']:.2f} |" in text
    assert "over 2 training seeds" in " ".join(capsys.readouterr().out.split())


def test_what_only_some_runs_have_is_not_averaged():
    def row(**values):
        return {"metrics": {k: {"value": v} for k, v in values.items()}, "corrupted": {}}

    found = over_seeds({"a": row(elbo=1.0, kl=2.0), "b": row(elbo=4.0, kl=None)})
    assert set(found["metrics"]) == {"elbo"}
    assert found["metrics"]["elbo"]["value"] == 2.5
    assert found["metrics"]["elbo"]["spread"] == pytest.approx(np.std([1, 4], ddof=1))


@pytest.mark.parametrize("suffix", ["csv", "md", "tex"])
def test_an_exported_table_read_back_equals_the_results(suffix, folder, tmp_path):
    path = tmp_path / "tables" / f"table.{suffix}"
    runs = [str(folder / name) for name in ("wide", "small")]
    words = [*runs, f"--export={path}", "--show=false", f"--out={tmp_path / 'c'}"]
    run_command(pyro_aevb.compare, words, positional="runs")
    table, _ = compared(folder, "wide", "small")
    text = path.read_text()
    if suffix == "csv":
        rows = {row["run"]: row for row in csv.DictReader(text.splitlines())}
        assert list(rows) == list(table)
        for name, row in table.items():
            for metric, entry in row["metrics"].items():
                stored = rows[name][metric]
                assert (float(stored) if stored else None) == entry["value"]
                if "standard_error" in entry:
                    assert float(rows[name][f"{metric} standard_error"]) == entry["standard_error"]
            for metric, entry in row["paired"].items():
                assert float(rows[name][f"{metric} difference"]) == entry["value"]
                error = rows[name][f"{metric} difference standard_error"]
                assert float(error) == entry["standard_error"]
        return
    if suffix == "md":
        lines = [line.strip("| ").split(" | ") for line in text.splitlines() if "|" in line]
        found = {line[0]: line[1:] for line in lines[2:]}
        names = [cell.strip() for cell in lines[0] if cell.strip()]
    else:
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
        lines = [line[:-3].split(" & ") for line in body.splitlines() if line.endswith(r"\\")]
        found = {line[0].replace(r"\_", "_"): line[1:] for line in lines}
        names = lines[0][1:]
    assert names == list(table)
    for metric in ("elbo", "iwae_bound", "log_likelihood", "gap", "reconstruction", "kl"):
        for name, cell in zip(names, found[metric], strict=True):
            value, error = map(float, re.findall(r"-?\d+\.\d+", cell))
            entry = table[name]["metrics"][metric]
            assert value == pytest.approx(entry["value"], abs=0.00501)
            assert error == pytest.approx(entry["standard_error"], abs=0.00501)
    difference = table[names[1]]["paired"]["elbo"]
    value, error = map(float, re.findall(r"-?\d+\.\d+", found["elbo difference"][1]))
    assert value == pytest.approx(difference["value"], abs=0.00501)
    assert error == pytest.approx(difference["standard_error"], abs=0.00501)


def test_data_that_each_model_simulated_are_not_paired(folder, tmp_path):
    runs = []
    for i, name in enumerate(("small", "wide")):
        runs.append(tmp_path / name)
        shutil.copytree(folder / name, runs[-1])
        few = {"num_chains": 2 + i, "num_temperatures": 3, "leapfrog_steps": 1}
        for estimator in ("ais", "bdmc"):
            pyro_aevb.evaluate(runs[-1], estimator, few, num_data=10, show=False)
    table = pyro_aevb.compare(runs, out=str(tmp_path / "c"), show=False)
    last = list(table.values())[-1]["paired"]
    assert "ais_lower" in last and not last.keys() & {"bdmc_lower", "bdmc_upper", "bdmc_gap"}
    assert "ais_lower is of different settings" in (tmp_path / "c" / "comparison.md").read_text()
    with (runs[0] / "history.csv").open("a") as history:
        history.write((runs[0] / "history.csv").read_text().splitlines()[-1] + "\n")
    with pytest.raises(pyro_aevb.UsageError, match="was trained further after its results"):
        pyro_aevb.compare(runs, out=str(tmp_path / "c"), show=False)


def test_no_number_is_broken_on_a_narrow_terminal(folder, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "70")
    names = [f"run-{i}-{'x' * i}" for i in range(9)]
    cells = [f"-{100 + i}.25 ± 0.{i}5" for i in range(9)]
    show_comparison("Many", ["", *names], [["elbo", *cells], ["kl", *cells]], ["a note"])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 70
    for i in range(9):
        assert said.count(f" {names[i]} ") == 1 and said.count(f" {cells[i]} ") == 2
    assert said.count("Many") == said.count("a note") == 1
    # A long remark on a value goes into further lines; the value does not.
    results = pyro_aevb.Run.open(folder / "small").results
    long = {"num_chains": 16, "num_temperatures": 1_000, "num_data": 100, "estimator": "ais"}
    ais = {"value": -1086.7234, "standard_error": 12.25, **long}
    show_results({**results, "metrics": {**results["metrics"], "ais_lower": ais}}, verbose=True)
    said = capsys.readouterr().out
    assert " -1086.7 │ " in said and "chains = 16" in said
    assert max(map(len, said.splitlines())) <= 70


def test_latex_survives_the_names_of_runs():
    text = latex_table(
        "100% of a_b",
        ["", "run_1 & co"],
        [["x^2 ~ {y}", "-1.50 ± 0.10"], ["k", ""]],
        ["* k: see c_d"],
    )
    assert r"run\_1 \& co" in text and r"$-1.50 \pm 0.10$" in text
    assert r"x\textasciicircum{}2 \textasciitilde{} \{y\}" in text
    assert text.count(r"\\") == 3 and r"\begin{tabular}{lr}" in text
    assert text.endswith("\\end{tabular}\n\\par\\noindent{\\footnotesize * k: see c\\_d}\n")


def test_csv_has_a_column_for_every_name():
    rows = list(csv.reader(csv_table([{"a": 1, "b": 2.5}, {"a": "x, y", "c": None}]).splitlines()))
    assert rows == [["a", "b", "c"], ["1", "2.5", ""], ["x, y", "", ""]]
    assert markdown_table("t", ["", "a"], [["b", "1"]]) == "t\n\n|  | a |\n|---|--:|\n| b | 1 |\n"


def test_estimators_that_a_run_has_are_shown_and_drawn(folder, tmp_path, monkeypatch):
    for name in ("small", "wide"):
        shutil.copytree(folder / name, tmp_path / name)
    run = pyro_aevb.Run.open(tmp_path / "wide")
    values = run.per_datum("predictive", "log_likelihood")[:9] + 0.5
    metric = {"value": float(values.mean()), "standard_error": 0.25, "num_data": 9}
    run.add("ais", {}, {"ais_lower": metric}, {"ais_lower": values})
    drawn, real = [], plots.comparison
    monkeypatch.setattr(plots, "comparison", lambda *a: drawn.append(a) or real(*a))
    table, out = compared(tmp_path, "small", "wide")
    names, metrics, _ = drawn[0]
    value, error = (column[names.index("wide")] for column in metrics["ais_lower"])
    assert (value, error) == (metric["value"], 0.25)
    assert metrics["ais_lower"][0][names.index("small")] is None
    rows = {row[0]: row[1:] for row in rows_of(table)}
    assert rows["ais_lower"][names.index("wide")] == f"{value:.2f} ± 0.25"
    assert rows["ais_lower"][names.index("small")] == ""
    assert "ais_lower difference" not in rows  # only one run has it


def test_an_export_of_an_unknown_kind_is_refused_before_any_work(folder, capsys):
    words = ["nowhere", "--export=table.xlsx"]
    error = refusal(partial(run_command, pyro_aevb.compare, words, positional="runs"), capsys)
    assert "--export table.xlsx: end the name in .csv, .md, .tex" in error
