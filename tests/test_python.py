"""From Python: data that are in memory, runs that are used, what is refused in one line."""

import copy
import pickle
import re
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import refusal
from matplotlib.image import imread
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.data.own import of_object
from pyro_aevb.errors import UsageError
from pyro_aevb.fit import _settings_of_run
from pyro_aevb.runs.prepare import prepare

GENES = ["Ada", "Bex", "Cux", "Dll", "Eya"]
KINDS = np.array(["B", "T", "NK"])
CELLS = [f"cell{n}" for n in range(60)]
KIND = KINDS[np.arange(60) % 3]
MEANS = np.exp(np.random.default_rng(1).normal(1, 0.7, (3, 5)))
COUNTS = np.random.default_rng(0).poisson(MEANS[np.arange(60) % 3])
TABLE = pd.DataFrame(COUNTS, CELLS, GENES)
BATCH = np.arange(60) % 2


class Counts(nn.Module):
    r"""Poisson counts of a two-dimensional code."""

    def __init__(self, event_shape: tuple[int, ...], latent_dim: int = 2):
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = nn.Linear(event_shape[0], 2 * latent_dim)
        self.decoder = nn.Linear(latent_dim, event_shape[0])

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1).to_event(1))
            pyro.sample("x", dist.Poisson(self.decoder(z).exp()).to_event(1), obs=x)

    def guide(self, x):
        loc, log_scale = self.encoder(torch.log1p(x)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


QUICK = {"epochs": 2, "num_samples": 5, "proposal": "guide", "show": False, "batch_size": 20}


# Data that are in memory


def anndata_of():
    anndata = pytest.importorskip("anndata")
    obs = pd.DataFrame({"label": KIND, "batch": pd.Categorical(BATCH)}, CELLS)
    return anndata.AnnData(COUNTS.astype(np.float32), obs, pd.DataFrame(index=GENES))


@pytest.mark.parametrize(
    "make, known",
    [
        (lambda: COUNTS, ""),
        (lambda: torch.tensor(COUNTS), ""),
        (lambda: (COUNTS, KIND), "label"),
        (lambda: {"x": COUNTS, "label": pd.Series(KIND), "batch": BATCH}, "label batch"),
        (lambda: TensorDataset(torch.tensor(COUNTS), torch.arange(60) % 3), "number"),
        (lambda: random_split(TensorDataset(torch.tensor(COUNTS)), [60, 0])[0], "moved"),
        (lambda: TABLE, "rows features"),
        (lambda: TABLE.assign(label=KIND), "rows features label"),
        (
            lambda: {"x": TABLE, "y": pd.Categorical(KIND), "batch": BATCH},
            "rows features label batch",
        ),
        (anndata_of, "rows features label batch"),
    ],
)
def test_data_in_memory_are_what_a_file_of_them_is(make, known):
    data, known = of_object(make()), known.split()
    assert [len(part) for part in (data.train, data.valid, data.test)] == [48, 6, 6]
    rows = data.test.rows
    if "moved" in known:
        assert set(map(tuple, data.test.images.tolist())) <= set(map(tuple, COUNTS.tolist()))
        return
    places = TABLE.index.get_indexer(rows) if "rows" in known else rows
    np.testing.assert_array_equal(data.test.images, COUNTS[places])
    assert list(data.features) == (GENES if "features" in known else [])
    if "label" in known:
        assert data.classes == ("B", "NK", "T")
        assert list(data.called(data.test.labels)) == list(KIND[places])
    if "number" in known:
        assert data.called(data.test.labels).tolist() == (places % 3).tolist()
    if "batch" in known:
        assert data.test.columns["batch"].tolist() == BATCH[places].tolist()


def test_splits_in_memory_stay_as_they_are_given():
    train, test = TABLE.assign(label=KIND)[:40], TABLE.assign(label=KIND)[40:]
    unlabelled = test.assign(label=[None, *test["label"][1:]])
    data = of_object({"train": train, "valid": test[:8], "test": unlabelled})
    assert list(data.test.rows) == CELLS[40:] and list(data.train.rows) == CELLS[:40]
    assert list(data.called(data.test.labels)) == ["", *KIND[41:]]
    data = of_object({"x_train": TABLE[:40], "y_train": train["label"], "test": TABLE[40:]})
    assert len(data.valid) == 4 and data.test.labels is None
    assert set(data.train.rows) | set(data.valid.rows) == set(CELLS[:40])


@pytest.mark.parametrize(
    "data, words",
    [
        (None, "data is a NoneType; give a data set's name or path, an array"),
        ([[1.0, 2.0]] * 60, "data is a list"),
        (DataLoader(TensorDataset(torch.tensor(COUNTS))), "DataLoader; give its .dataset"),
        (TABLE["Ada"], r"shape \(60,\); data are \(N, D\)"),
        ({"train": TABLE, "test": TABLE[GENES[:4]]}, "the columns of test are not .*: Eya"),
        ({"train": TABLE, "test": TABLE[GENES[::-1]]}, "columns of test .*: their order"),
        ({"train": COUNTS, "tset": COUNTS}, "'tset', which is not known"),
        ((COUNTS, KIND[:9]), r"60 data in images but labels of .* shape \(9,\)"),
        (TensorDataset(torch.tensor(COUNTS), *[torch.rand(60)] * 2), "have 3 parts"),
        (Counts, "data is Counts, which is none: the pair comes first"),
    ],
)
def test_data_that_are_none_end_in_one_line(data, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        pyro_aevb.fit(Counts, data, out=str(tmp_path / "run"), **QUICK)
    assert not (tmp_path / "run").exists()


# Keywords


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: pyro_aevb.fit(Counts, COUNTS, epoch=3), r"fit .*'epoch' \(did you mean 'epochs'"),
        (lambda: pyro_aevb.fit(Counts, COUNTS, latent_dim=3), r"give pair_parameters=.*: 3\}"),
        (
            lambda: pyro_aevb.fit(Counts, COUNTS, amsgrad=True),
            r"optimizer_options={'amsgrad': True}",
        ),
        (
            lambda: pyro_aevb.check("VAE", latent_dims=3),
            r"check .* 'latent_dim' is a parameter of the",
        ),
        (lambda: pyro_aevb.fit(Counts, COUNTS, KIND), r"labels come with the data: data=\(x, "),
        (lambda: pyro_aevb.fit(Counts, COUNTS, on_epoch=3), "on_epoch is 3; it takes a function"),
        (lambda: pyro_aevb.fit(Counts, COUNTS, clip_norm="1"), "--clip-norm is '1'; it takes a nu"),
        (lambda: pyro_aevb.fit(Counts, COUNTS, clip_norm=0), "--clip-norm=0 is not possible"),
        (lambda: pyro_aevb.encode("run", COUNTS), "here is a str, and what is used is a run"),
        (lambda: pyro_aevb.evaluate("run", num_sample=3), "did you mean 'num_samples'"),
        (lambda: pyro_aevb.compare(["run"], foo=3), "no argument 'foo'; it has runs, out, export"),
    ],
)
def test_what_no_call_takes_is_said_in_one_line(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_what_on_epoch_raises_ends_a_run_that_goes_on_as_if_it_had_not(tmp_path):
    class Pruned(Exception):
        pass

    seen = []

    def look(history):
        seen.append(history)
        history[-1]["elbo"] = None  # its own
        if len(history) == 1:
            raise Pruned

    how = {**QUICK, "data": COUNTS, "pair": Counts}
    with pytest.raises(Pruned):
        pyro_aevb.fit(on_epoch=look, out=str(tmp_path / "a"), **how)
    run = pyro_aevb.fit(on_epoch=look, out=str(tmp_path / "a"), resume=True, **how)
    whole = pyro_aevb.fit(out=str(tmp_path / "b"), **how)
    assert [len(history) for history in seen] == [1, 2]
    assert "on_epoch" not in run.settings
    assert run.results["metrics"] == whole.results["metrics"]
    assert [row["elbo"] for row in run.history] == [row["elbo"] for row in whole.history]


# A run in memory, and from its directory

GIVEN = {"x": TABLE, "label": pd.Series(KIND)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "counts"
    return pyro_aevb.fit(Counts, GIVEN, out=str(out), **QUICK)


def means_of_codes(net, counts):
    with torch.no_grad():
        return net.encoder(torch.log1p(torch.tensor(counts, dtype=torch.float32)))[:, :2].numpy()


def test_codes_are_by_row_with_labels_by_name(run):
    assert type(run.module) is Counts and not run.module.training
    for of in ("train", "val", "test"):
        codes = run.codes(of)
        assert list(codes) == ["z[0]", "z[1]", "label"]
        found = means_of_codes(run.module, TABLE.loc[codes.index].to_numpy())
        np.testing.assert_allclose(codes[["z[0]", "z[1]"]], found, rtol=1e-5)
        assert (codes["label"] == pd.Series(KIND, CELLS)[codes.index]).all()
    new = run.codes(TABLE[GENES[::-1]].assign(label="other"))
    assert list(new.index) == CELLS
    np.testing.assert_allclose(new, means_of_codes(run.module, COUNTS), rtol=1e-5)
    np.testing.assert_array_equal(pyro_aevb.encode(run, COUNTS)["z"].numpy(), new)


def test_samples_and_reconstructions_have_the_columns_of_the_table(run):
    torch.manual_seed(3)
    means, draws = run.sample(3000, "means"), run.sample(3000)
    assert list(means) == list(draws) == GENES and (draws == draws.round()).all(axis=None)
    error = np.sqrt((means.var() + draws.var()) / 3000)
    assert ((means.mean() - draws.mean()).abs() < 4 * error).all()
    assert (draws.var() > means.var() + 0.5 * means.mean()).all()  # and Poisson noise
    rates = run.reconstruct("test", 4)
    codes = torch.tensor(run.codes("test")[["z[0]", "z[1]"]].to_numpy()[:4])
    assert list(rates.index) == list(run.data.test.rows[:4])
    np.testing.assert_allclose(rates, run.module.decoder(codes).exp().detach(), rtol=1e-5)
    np.testing.assert_allclose(pyro_aevb.decode(run, codes.tolist()), rates, rtol=1e-5)
    np.testing.assert_array_equal(pyro_aevb.reconstruct(run, TABLE.loc[rates.index]), rates)


def test_a_run_is_scored_by_its_checkpoint_whatever_has_become_of_the_object(run):
    metrics, how = run.results["metrics"], {"num_samples": 5, "proposal": "guide", "show": False}
    before = [p.clone() for p in run.module.parameters()]
    with torch.no_grad():
        for parameter in run.module.parameters():
            parameter += 1.0
    assert run.evaluate(**how)["metrics"] == metrics
    with torch.no_grad():
        for parameter, value in zip(run.module.parameters(), before, strict=True):
            parameter.copy_(value)
    there = pyro_aevb.Run(run.path)
    with pytest.raises(UsageError, match=r"Python object <Counts>; .* run.restore\(pair=\.\.\.\)"):
        there.codes()
    pd.testing.assert_frame_equal(there.restore(Counts, GIVEN).codes(), run.codes())
    assert there.evaluate(**how)["metrics"] == metrics


def test_tables_are_the_files_of_the_run(run):
    table, metrics = run.table(), run.results["metrics"]
    assert table["value"].dropna().to_dict() == {
        name: m["value"] for name, m in metrics.items() if m["value"] is not None
    }
    assert table.loc["gap", "reason"] == "" and "global" in table.loc["weight_kl", "reason"]
    assert run.table("history")["elbo"].to_dict() == {r["epoch"]: r["elbo"] for r in run.history}
    data = run.table("data")
    assert list(data.index) == list(run.data.test.rows)
    for name in ("elbo", "log_likelihood", "kl"):
        assert data[name].mean() == pytest.approx(metrics[name]["value"])
    shown = run._repr_html_()
    assert f"{metrics['elbo']['value']:.2f}" in shown and str(run.path) in shown


def test_figures_by_name_are_drawn_again_or_shown_as_they_were_written(run, rendered):
    pyro_aevb.evaluate(run, num_samples=5, proposal="guide", show=False)
    before = {path: path.read_bytes() for path in run.figures.iterdir()}
    (points, *_) = run.plot("latent").axes[0].collections
    codes = run.codes()[["z[0]", "z[1]"]].to_numpy()
    np.testing.assert_allclose(np.sort(points.get_offsets(), 0), np.sort(codes, 0), rtol=1e-5)
    assert [t.get_text() for t in run.plot("latent").legends[0].get_texts()] == ["B", "NK", "T"]
    # As a notebook shows it: the picture that was written, up to the scaling.
    shown = imread(BytesIO(run.plot("latent_kl")._repr_png_()))
    np.testing.assert_allclose(shown, imread(run.figures / "latent_kl.png"), atol=0.02)
    with pytest.raises(UsageError, match="no figure of counts 'laten' .did you mean 'latent'"):
        run.plot("laten")
    assert before == {path: path.read_bytes() for path in run.figures.iterdir()}


@pytest.mark.parametrize(
    "use, words",
    [
        (lambda run: run.codes("tset"), "no split 'tset' .did you mean 'test'"),
        (lambda run: run.codes("test", label=3), "test split has columns of its own"),
        (lambda run: run.codes(COUNTS, age=3), "Counts takes no 'age' beside x"),
        (
            lambda run: run.codes(COUNTS[:, :3]),
            r"shape \(60, 3\), and those of arrays are \(n, 5\)",
        ),
        (lambda run: run.codes(COUNTS[0]), r"list, x\[None\]"),
        (lambda run: run.codes(TABLE[GENES[:3]]), "have the columns Dll, Eya too"),
        (lambda run: run.reconstruct(COUNTS * np.nan), "missing values"),
        (lambda run: run.sample(0), "number of data is 0"),
        (lambda run: run.sample(2, "mean"), "choose one of draws, means"),
        (lambda run: run.table("datum"), "did you mean 'data'"),
        (lambda run: pyro_aevb.generate(run.pair, 3), "needs x, a batch"),
        (lambda run: pyro_aevb.decode(run.pair, {"z": [[0, 0]]}), "needs x, a batch"),
        (lambda run: pyro_aevb.Run(run.path.parent / "count").table(), "did you mean counts"),
        (lambda run: pyro_aevb.Run(run.path.parent / "count").plot("latent"), "is not a run"),
    ],
)
def test_what_a_run_cannot_give_is_said_in_one_line(run, use, words):
    with pytest.raises(UsageError, match=words):
        use(run)


class OfKind(Counts):
    r"""The decoder's rates are multiplied for the label 1."""

    def model(self, x, label):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1).to_event(1))
            rates = self.decoder(z).exp() * torch.where(label == 1, 1e4, 1.0)[:, None]
            pyro.sample("x", dist.Poisson(rates).to_event(1), obs=x)


def test_labels_are_given_by_name_and_images_as_they_were():
    held = prepare(OfKind, GIVEN, device="cpu")
    of_kind = SimpleNamespace(prepared=held)
    z = np.zeros((2, 2))
    few, many = (pyro_aevb.decode(of_kind, z, label=kind) for kind in ("T", ["B", "NK"]))
    torch.testing.assert_close(many[0], few[0])
    torch.testing.assert_close(many[1], few[0] * 1e4)
    assert (pyro_aevb.generate(of_kind, 3, label="NK") > 1e2).all()
    torch.testing.assert_close(
        pyro_aevb.reconstruct(of_kind, COUNTS, label=KIND),
        pyro_aevb.reconstruct(of_kind, {"x": TABLE, "y": KIND}),
    )
    with pytest.raises(UsageError, match="no class 'NKT' .did you mean 'NK'"):
        pyro_aevb.decode(of_kind, z, label="NKT")
    with pytest.raises(UsageError, match="takes 'label' beside x"):
        pyro_aevb.decode(of_kind, z)

    levels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    held = prepare("VAE", levels, {"hidden": [5], "likelihood": "gaussian"}, device="cpu")
    colours = SimpleNamespace(prepared=held)
    x = torch.from_numpy(levels).movedim(-1, 1) / 255
    expected = pyro_aevb.encode(held.pair, x)["z"]
    for given in (levels, x, x.double().numpy(), TensorDataset(torch.from_numpy(levels))):
        torch.testing.assert_close(pyro_aevb.encode(colours, given)["z"], expected)


# Copies


class Params:
    r"""No module: nets and numbers by ``pyro.module`` and ``pyro.param``."""

    def __init__(self):
        self.net = nn.Linear(2, 5)

    def model(self, x):
        pyro.module("net", self.net)
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), scale).to_event(1), obs=x)

    def guide(self, x):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc.expand(len(x), 2), 1).to_event(1))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("make, data", [(OfKind, GIVEN), (Params, COUNTS.astype(np.float32))])
def test_a_pair_is_copied_and_pickled(make, data, copied):
    held = prepare(make, data, device="cpu")
    x = held.test.take(torch.arange(4))
    expected, again = pyro_aevb.reconstruct(held.pair, x), copied(held.pair)
    torch.testing.assert_close(pyro_aevb.reconstruct(again, x), expected, rtol=0, atol=0)
    assert list(again.trainable()) == list(held.pair.trainable())
    with torch.no_grad():
        for value in again.trainable().values():
            value += 1.0
    assert not torch.equal(pyro_aevb.reconstruct(again, x), expected)
    torch.testing.assert_close(pyro_aevb.reconstruct(held.pair, x), expected, rtol=0, atol=0)


NET = Counts((5,))


def functions_model(x):
    NET.model(x)


def functions_guide(x):
    NET.guide(x)


def test_a_pair_of_functions_is_not_copied_in_part_and_is_scored_in_memory(tmp_path):
    run = pyro_aevb.fit(
        (functions_model, functions_guide), COUNTS, out=str(tmp_path / "r"), **QUICK
    )
    with pytest.raises(UsageError, match="cannot be copied or pickled, as its model and guide are"):
        copy.deepcopy(run.pair)
    again = run.evaluate(num_samples=5, proposal="guide", show=False)
    assert again["metrics"] == run.results["metrics"]


# Runs that have moved, or are only trained

SOURCE = """
from test_python import Counts


class Mine(Counts):
    pass
"""
FLAGS = ["--num-samples=5", "--proposal=guide", "--show=false", "--batch-size=20"]


def fit(*words):
    run_command(pyro_aevb.fit, [*FLAGS, *words], resume_from=_settings_of_run, hidden=("on_epoch",))


def evaluate(*words):
    run_command(pyro_aevb.evaluate, [*FLAGS[:3], *words], positional="run")


def test_a_run_that_moved_is_trained_and_scored_where_it_is(tmp_path, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "mine.py").write_text(SOURCE)
    np.savez(old / "counts.npz", x=COUNTS, y=KIND)
    named = [f"--pair={old}/mine.py:Mine", f"--data={old}/counts.npz"]
    fit(*named, "--epochs=3", f"--out={tmp_path}/whole")
    fit(*named, "--epochs=3", "--stop-after=1", "--no-score", f"--out={old}/run")
    assert not (old / "run" / "results.json").exists()
    with pytest.raises(UsageError, match="no results yet; evaluate it first"):
        pyro_aevb.Run(old / "run").table()
    old.rename(new)
    run, there = f"{new}/run", [f"--pair={new}/mine.py:Mine", f"--data={new}/counts.npz"]
    line = refusal(lambda: evaluate(run, there[0]), capsys)
    assert "old/counts.npz, which is not here; say where it is now: --data PATH" in line
    evaluate(run, *there)
    assert pyro_aevb.Run(run).results["epochs"] == 1

    resume = ["--resume", "--epochs=3", f"--out={run}"]
    (new / "other.py").write_text(SOURCE + "\n# changed\n")
    np.savez(new / "others.npz", x=COUNTS[::-1], y=KIND)
    line = refusal(lambda: fit(*resume, f"--pair={new}/other.py:Mine", there[1]), capsys)
    assert "pair is" in line and "leave it out, or start a new run" in line
    line = refusal(lambda: fit(*resume, there[0], f"--data={new}/others.npz"), capsys)
    assert "data is" in line and "others.npz' here; leave it out" in line
    fit(*resume, *there)
    moved, whole = pyro_aevb.Run(run), pyro_aevb.Run(tmp_path / "whole")
    assert moved.settings["data"] == f"{new}/counts.npz"
    assert moved.results["metrics"] == whole.results["metrics"]
    evaluate(run, f"--data={new}/others.npz")
    assert any("not those that the pair was trained on" in n for n in moved.results["notes"])


def test_data_from_python_that_differ_are_not_trained_on(run):
    with pytest.raises(UsageError, match="with its own data, and these are others"):
        pyro_aevb.fit(Counts, COUNTS + 1, out=str(run.path), resume=True, show=False)


# The documentation

ROOT = Path(__file__).parents[1]


def snippets(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


RECIPES = {"optuna": "optuna", "wandb": "wandb", "mlflow": "mlflow"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the names of the page stand for after its sessions, with few epochs and draws."""
    few = {**QUICK, "num_data": 20, "pair_parameters": {"latent_dim": 2}}
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        whole = pyro_aevb.fit
        patch.setattr(pyro_aevb, "fit", lambda *a, **k: whole(*a, **{**few_of(a, few), **k, **one}))
        one = {"epochs": 2, "show": False}
        patch.setenv("WANDB_MODE", "offline")
        for source in snippets("docs/python.md"):
            if not source.startswith(tuple(f"import {name}" for name in RECIPES)):
                exec(source, found)
                found.setdefault("runs", []).append(found["run"])
        yield found


def few_of(given, few):
    return {name: v for name, v in few.items() if name != "pair_parameters" or len(given) < 3}


def test_the_sessions_of_the_page_run(page):
    images, counts, opened = (page["runs"][at] for at in (1, 2, 3))
    assert images.sample(16).shape == (16, 1, 8, 8) and images.data.num_classes == 10
    assert images.results["metrics"]["parzen"]["num_kernels"] == 1000
    assert type(images.module) is page["MyVAE"] and counts.data.classes == ("B", "NK", "T")
    codes = page["codes"]
    assert list(codes) == ["z[0]", "z[1]", "label"]
    assert (codes["label"] == page["y"][codes.index]).all()
    pd.testing.assert_frame_equal(opened.codes("test"), counts.codes("test"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", RECIPES)
def test_the_recipes_of_the_page_run(page, library):
    pytest.importorskip(library, reason=f"{library} is not installed")
    (source,) = (s for s in snippets("docs/python.md") if s.startswith(f"import {library}"))
    exec(source.replace("n_trials=20", "n_trials=3"), page)
    if library == "optuna":
        (*others, last) = page["study"].trials
        assert last.intermediate_values[2] == last.value if last.value else len(others) == 2


def test_the_session_of_the_readme_runs(tmp_path, monkeypatch):
    pair, session = (s for s in snippets("README.md"))
    monkeypatch.chdir(tmp_path)
    Path("my_pair.py").write_text(pair)
    quick = 'epochs=1, num_samples=2, proposal="guide", num_data=20, show=False'
    session = session.replace("mnist5k", "mnist5k:200").replace("epochs=20", quick)
    exec(session, found := {})
    assert len(found["run"].codes("test")) == 500
