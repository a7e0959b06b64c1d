"""Successive halving on validation data, and scikit-learn's classifiers as cells of a study."""

import csv
import json
import re
import zlib
from base64 import b64encode
from dataclasses import replace
from math import comb
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image as plt
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from pyro_aevb.data import load
from pyro_aevb.engine.streams import seeded
from pyro_aevb.errors import UsageError
from pyro_aevb.models import RBM, DenoisingLayer
from pyro_aevb.pairs.predict import encode
from pyro_aevb.reports.comparison import wrong
from pyro_aevb.reports.plots import panels
from pyro_aevb.runs.prepare import restore
from pyro_aevb.runs.run import Run
from pyro_aevb.studies import classifiers, study
from pyro_aevb.studies.baselines import logistic_regression, support_vectors
from pyro_aevb.studies.classifiers import errors_along, filters
from pyro_aevb.studies.declare import Published
from pyro_aevb.studies.differences import paired_differences
from pyro_aevb.studies.known import Known, pack, read_cells, unpack, write_cells
from pyro_aevb.studies.search import Search, Trial, read_trials, run_search, search, winner
from pyro_aevb.studies.shipped import denoising, denoising_search

pytestmark = pytest.mark.usefixtures("rendered")

CALLS = []
LEVELS = [5, 3, 3, 8, 1, 4, 9, 2, 7]


def judged(data, level, order, out, **call):
    """A method whose error is known: of trial t on n data it is level + 100 / n."""
    CALLS.append((order, len(data.train)))
    assert data.test is data.valid
    error = level + 100 / len(data.train)
    run = SimpleNamespace(
        results={"metrics": {"classification_error": {"value": error}}, "parameters": 9 - order}
    )
    return run


def space(rng, data):
    order = space.order = getattr(space, "order", -1) + 1
    return {"by": "test_search:judged", "level": LEVELS[order], "order": order}


def searched(path, tmp_path, **change):
    space.order, said = -1, []
    asked = {"methods": {"m": space}, "data": {"digits": (40, 120, 400)}, "trials": 9, "minutes": 9}
    run_search(Search(**{**asked, **change}), path, tmp_path / "runs", say=said.append)
    return read_trials(path), said


def test_a_third_goes_on_to_three_times_the_data_and_the_best_wins(tmp_path):
    CALLS.clear()
    path = tmp_path / "trials.jsonl"
    trials, _ = searched(path, tmp_path)
    # Of levels 5, 3, 3, 8, 1, 4, 9, 2, 7 the trials 4, 7 and, being simpler than 1, 2 go on.
    assert CALLS == [(i, 40) for i in range(9)] + [(4, 120), (7, 120), (2, 120), (4, 400)]
    best = winner(trials, "digits", "m")
    assert (best.number, best.num_train) == (4, 400)
    assert best.validation_error == pytest.approx(1.25) and best.num_valid == 250
    # An end of Wilson's interval lies 1.96 of its own standard errors from what was found.
    for share in np.array(best.interval) / 100:
        assert abs(share - 3 / 250) == pytest.approx(
            1.96 * np.sqrt(share * (1 - share) / 250), rel=1e-4
        )
    # What is done is not done again, and what is missing is.
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]) + "\n")
    CALLS.clear()
    again, _ = searched(path, tmp_path)
    assert CALLS == [(2, 120), (4, 400)]
    assert [(t.number, t.num_train) for t in again] == [(t.number, t.num_train) for t in trials]
    _, said = searched(path, tmp_path)  # nothing is left to do, and what won is said
    assert len(CALLS) == 2 and said == [
        "digits/m: validation error 1.25 % (95 % interval 0.41 to 3.47) of trial 4 on 400, "
        "the best of 9 trials in 0.0 minutes"
    ]


def test_no_trial_begins_when_the_share_of_a_rung_is_over(tmp_path):
    CALLS.clear()
    searched(tmp_path / "trials.jsonl", tmp_path, minutes=0)
    assert CALLS == [(0, 40), (1, 40), (2, 40), (2, 120), (2, 400)]


def test_a_method_that_builds_upon_another_waits_for_it(tmp_path):
    trials, said = searched(
        tmp_path / "trials.jsonl", tmp_path, methods={"late": lambda rng, data: None}
    )
    assert trials == [] and "late waits" in said[0]


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    search = Search({"m": space}, {"digits": (40,)}, 1, 1)
    with pytest.raises(UsageError, match="--only digit/m matches no search .did you mean"):
        run_search(search, tmp_path / "trials.jsonl", tmp_path, "digit/m")


def test_of_equal_errors_the_simplest_wins_on_the_last_rung_alone():
    def trial(number, error, parameters, num_train=400):
        return Trial("d", "m", number, num_train, {}, error, 200, parameters, 1.0, "")

    trials = [trial(0, 2.0, 50), trial(1, 2.0, 30), trial(2, 2.5, 1), trial(3, 0.5, 1, 40)]
    assert winner(trials, "d", "m").number == 1
    assert winner(trials, "d", "other") is None


def test_a_damaged_file_of_trials_is_named(tmp_path):
    (tmp_path / "trials.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="damaged"):
        read_trials(tmp_path / "trials.jsonl")


def matrices():
    data = load("digits")
    parts = [data.train, data.valid, data.test]
    return [(p.images.float().flatten(1).numpy() / 16, p.labels.numpy()) for p in parts]


@pytest.mark.parametrize(
    "kernel, own",
    [
        ("rbf", {"gamma": 0.05}),
        ("poly", {"gamma": 0.02, "degree": 2, "coef0": 0.5}),
        ("linear", {}),
    ],
)
def test_support_vectors_are_scikit_learns(kernel, own, tmp_path):
    run = support_vectors("digits:300", kernel, C=3.0, out=tmp_path / "run", **own)
    (x, y), _, (test_x, test_y) = matrices()
    expected = SVC(C=3.0, kernel=kernel, **{"gamma": "scale", **own}).fit(x[:300], y[:300])
    np.testing.assert_array_equal(
        run.per_datum("classification", "predicted"), expected.predict(test_x)
    )
    error = 100 * (expected.predict(test_x) != test_y).mean()
    assert run.results["metrics"]["classification_error"]["value"] == pytest.approx(error)
    assert run.results["parameters"] == expected.n_support_.sum()


def test_corrupted_training_data_and_those_of_validation(tmp_path):
    """All but nothing is left of the first machine's data; the second one has more of them."""
    (x, y), (valid_x, valid_y), (test_x, _) = matrices()
    gone = support_vectors("digits", noise=0.98, gamma=0.05, C=3.0, out=tmp_path / "gone")
    whole = support_vectors("digits", with_valid=True, gamma=0.05, C=3.0, out=tmp_path / "whole")
    both = np.concatenate([x, valid_x]), np.concatenate([y, valid_y])
    expected = SVC(C=3.0, gamma=0.05).fit(*both).predict(test_x)
    np.testing.assert_array_equal(whole.per_datum("classification", "predicted"), expected)
    assert whole.results["num_train"] == len(x) + len(valid_x)
    errors = [r.results["metrics"]["classification_error"]["value"] for r in (gone, whole)]
    assert errors[0] > 60 and errors[1] < 5


def test_a_classifier_on_the_codes_of_a_net_that_is_trained_once(tmp_path):
    codes = {
        "pair": "StackedDenoisingAutoencoder",
        "pair_parameters": {"hidden": [12, 9]},
        "binarize": "none",
        "epochs": 3,
        "algorithm_options": {"pretraining_epochs": 1},
        "num_samples": 1,
    }
    run = support_vectors("digits", codes=codes, depth=1, gamma=0.1, C=10.0, out=tmp_path / "run")
    (folder,) = tmp_path.glob("codes-*")
    pair = restore(Run(folder), "cpu", data=load("digits")).pair
    (x, y), _, (test_x, _) = matrices()
    with torch.no_grad():
        z, test_z = (pair.attribute("codes")(torch.from_numpy(v), 1).numpy() for v in (x, test_x))
    expected = SVC(C=10.0, gamma=0.1).fit(z, y).predict(test_z)
    found = run.per_datum("classification", "predicted")
    assert (found != expected).mean() < 0.01  # float32 kernels: a tie may fall otherwise
    before = (folder / "checkpoint.pt").stat().st_mtime_ns
    logistic = logistic_regression("digits", codes=codes, depth=1, out=tmp_path / "other")
    assert (folder / "checkpoint.pt").stat().st_mtime_ns == before
    predicted = LogisticRegression(max_iter=5000).fit(z, y).predict(test_z)
    assert (logistic.per_datum("classification", "predicted") != predicted).mean() < 0.01


def test_decisions_are_averaged_over_draws_of_weights_and_codes(tmp_path):
    codes = {"pair": "BayesianAutoencoder", "epochs": 2, "binarize": "none", "num_samples": 1}
    codes["pair_parameters"] = {"hidden": [8], "latent_dim": 4}
    codes["weight_samples"] = 1
    settings = {"codes": codes, "gamma": 0.1, "C": 10.0}
    run = support_vectors("digits", draws=3, out=tmp_path / "run", **settings)
    (folder,) = tmp_path.glob("codes-*")
    pair = restore(Run(folder), "cpu", data=load("digits")).pair
    (x, y), _, (test_x, _) = matrices()
    x, test_x = (torch.from_numpy(v).view(-1, 1, 8, 8) for v in (x, test_x))
    machine = SVC(C=10.0, gamma=0.1).fit(encode(pair, x)["z"].numpy(), y)
    total = 0
    for draw in range(3):
        with seeded(x.device, 0, draw):
            drawn = encode(pair, test_x, sample=True)["z"]
        total = total + machine.decision_function(drawn.numpy())
    found = run.per_datum("classification", "predicted")
    assert (found != total.argmax(1)).mean() < 0.01
    assert (found != machine.decision_function(drawn.numpy()).argmax(1)).mean() > 0.05


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"draws": 3}, "draws and depth are of codes, and there are none"),
        ({"depth": 1}, "draws and depth are of codes, and there are none"),
        ({"codes": "Autoencoder", "depth": 1}, "Autoencoder has no layers: leave it out"),
        ({"codes": "StackedDenoisingAutoencoder", "draws": 2}, "draws no codes: leave it out"),
    ],
)
def test_draws_and_layers_of_codes_without_them_are_refused(settings, words, tmp_path):
    if "codes" in settings:
        net = {"pair": settings["codes"], "pair_parameters": {"hidden": [4]}, "epochs": 0}
        settings = {**settings, "codes": {**net, "num_samples": 1, "num_data": 2}}
    with pytest.raises(UsageError, match=words):
        support_vectors("digits", out=tmp_path / "run", **settings)


def test_data_without_a_label_are_left_out_of_training_and_of_the_error(tmp_path):
    whole = load("digits")
    train, test = whole.train.subset(slice(200)), whole.test.subset(slice(20))
    few = [replace(part, labels=part.labels.clone()) for part in (train, test)]
    few[0].labels[50:] = few[1].labels[:5] = -1
    settings = {"C": 3.0, "gamma": 0.05}
    data = replace(whole, train=few[0], test=few[1])
    found = support_vectors(data, out=tmp_path / "a", **settings)
    known = replace(whole, train=train.subset(slice(50)), test=test.subset(slice(5, 20)))
    expected = support_vectors(known, out=tmp_path / "b", **settings)
    for name in ("num_data", "num_train"):
        assert (
            found.results[name] == expected.results[name] == {"num_data": 15, "num_train": 50}[name]
        )
    error = (run.results["metrics"]["classification_error"] for run in (found, expected))
    assert next(error) == next(error)


def test_the_search_of_the_documentation_runs_and_its_study_has_what_won(tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()
    (source,) = re.findall(r"```python\n(# depths.py\n.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("depths.py").write_text(source.replace("(400, 1200)", "(60,)"))
    search("depths.py", "digits/SVM", trials=2)
    outcome = study("depths.py", scale="smoke", out="out", show=False)
    (failed,) = outcome.failed
    assert "python -m pyro_aevb.studies.search depths.py --only 'digits/SdA'" in failed
    best = winner(search("depths.py", trials=1), "digits", "SVM")
    outcome = study("depths.py", scale="smoke", out="out", show=False)
    assert not outcome.failed
    run = Run(Path("out/cells/errors/digits/SVM/seed0"))
    assert run.settings["gamma"] == best.settings["gamma"]


STUDY = """
from pyro_aevb.studies import Grid, Study, Table

VECTORS = {"by": "pyro_aevb.studies.baselines:support_vectors", "gamma": 0.05, "C": 3.0}
NET = {"pair": "StackedDenoisingAutoencoder", "pair_parameters": {"hidden": [9]}, "epochs": 2,
       "binarize": "none", "algorithm_options": {"pretraining_epochs": 1}, "num_samples": 1}
GONE = {"by": "pyro_aevb.studies.search:not_searched", "search": "digits/other"}
grid = Grid("errors", {"digits": {}}, {"SVM": VECTORS, "net": NET, "other": GONE}, "nothing was.",
            settings={}, smoke={"data": "digits:100"})
STUDY = Study("Errors", "Two classifiers.", [grid],
              [Table("Error", "errors", "test/classification_error", lower_is_better=True)])
"""


def test_cells_of_other_makers_stand_beside_those_of_fit(tmp_path):
    (tmp_path / "errors.py").write_text(STUDY)
    outcome = study(
        str(tmp_path / "errors.py"), scale="smoke", out=str(tmp_path / "out"), show=False
    )
    assert len(outcome.failed) == 1 and "--only 'digits/other'" in outcome.failed[0]
    run = Run(tmp_path / "out" / "cells" / "errors" / "digits" / "SVM" / "seed0")
    error = run.results["metrics"]["classification_error"]["value"]
    page = outcome.page.read_text()
    row = next(line for line in page.splitlines() if line.startswith("| digits"))
    assert f"{error:.2f}" in row and len(row.split("|")) == 6
    kept = (outcome.page.with_suffix("") / "cells.jsonl").read_text().splitlines()
    lines = {Path(line["cell"]).parent.name: line for line in map(json.loads, kept)}
    assert lines.keys() == {"SVM", "net"}
    flags = unpack(lines["SVM"]["wrong"])
    np.testing.assert_array_equal(flags, wrong(run))
    assert 100 * flags.mean() == pytest.approx(error)


def test_a_maker_that_is_not_there_is_refused_before_any_work(tmp_path):
    (tmp_path / "errors.py").write_text(STUDY.replace("baselines:support", "baselines:supporting"))
    with pytest.raises(UsageError, match="is to be module:function"):
        study(str(tmp_path / "errors.py"), scale="smoke", out=str(tmp_path / "out"), show=False)


def test_flags_of_each_datum_are_packed_and_read_with_care():
    rng = np.random.default_rng(0)
    for count, share in ((1, 1.0), (8, 0.5), (9, 0.0), (1000, 0.1)):
        flags = rng.random(count) < share
        np.testing.assert_array_equal(unpack(pack(flags)), flags)
    good, bomb = pack(np.ones(9, bool)), b64encode(zlib.compress(bytes(10**8), 9)).decode()
    for text in (
        "",
        "9",
        f"8{good[1:]}",
        f"17{good[1:]}",
        "9:!",
        "9:AAAA",
        f"-{good}",
        f"9:{bomb}",
    ):
        with pytest.raises(ValueError):
            unpack(text)
    with pytest.raises(ValueError, match="no number of data"):
        unpack(f"{10**12}:{bomb}")


def test_flags_outlive_the_run_they_are_of(tmp_path):
    known = Known({}, {}, {"1": {"test/elbo": -1.0}}, 1.0, "", [], wrong=pack(np.ones(9, bool)))
    path, cell = tmp_path / "cells.jsonl", Path("cells/a")
    for numbers, kept in ((known.numbers, known.wrong), ({"1": {"test/elbo": -2.0}}, None)):
        write_cells(path, "s", "full", {cell: known})
        write_cells(path, "s", "full", {cell: replace(known, wrong=None, numbers=numbers)})
        assert read_cells(path, "s", "full")[cell].wrong == kept


class Cells:
    """What pictures ask of the finished cells of a study: here runs by row and column."""

    def __init__(self, runs):
        self.runs, self.errors, self.known = runs, {}, {}
        self.study = SimpleNamespace(grid=lambda name: SimpleNamespace(row_title="set"))
        self.read()

    def read(self):
        for key, run in self.runs.items():
            flags = wrong(SimpleNamespace(per_datum=lambda group, name, run=run: run[name]))
            self.known[key] = SimpleNamespace(wrong=pack(flags))

    def keys(self, grid):
        return list(self.runs)

    def of(self, grid, row, column):
        found = self.known.get((row, column))
        return [] if found is None else [SimpleNamespace(path=(row, column), seed=0)]

    def number(self, cell, quantity):
        assert quantity == "test/classification_error"
        return self.errors.get(cell.path)


def test_classifiers_are_compared_on_the_same_images(tmp_path):
    """30 images that only the one gets wrong and 12 that only the other does, of 400."""
    label = np.zeros(400, int)
    one, other = label.copy(), np.tile([0.9, 0.1], (400, 1))
    one[:30] = 1
    other[20:32] = [0.2, 0.8]  # log-probabilities or not, the larger one counts
    other[30:50] = [0.3, 0.7]
    runs = {
        ("a", "net"): {"predicted": one, "label": label},
        ("a", "reference"): {"log_prob": other, "label": label},
        ("b", "reference"): {"log_prob": other, "label": label},
    }

    class Missing(dict):
        def __missing__(self, key):
            raise UsageError(key)

    cells = Cells({key: Missing(value) for key, value in runs.items()})
    published = Published("p", {("a", "net"): 5.0, ("a", "reference"): 3.5})
    path = tmp_path / "paired.png"
    paired_differences(cells, path, "reference", published, grid="errors")
    (line,) = csv.DictReader(path.with_suffix(".curves.csv").read_text().splitlines())
    # the net alone: 0-19; the reference alone: 30-49
    assert (line["only_column_wrong"], line["only_reference_wrong"]) == ("20", "20")
    other[30:42] = [0.9, 0.1]
    cells.read()
    paired_differences(cells, path, "reference", published, grid="errors")
    (line,) = csv.DictReader(path.with_suffix(".curves.csv").read_text().splitlines())
    assert (line["only_column_wrong"], line["only_reference_wrong"]) == ("20", "8")
    assert float(line["difference"]) == pytest.approx(3.0)
    assert float(line["standard_error"]) == pytest.approx(100 * np.sqrt(28) / 400)
    # The exact test: twice the probability of 20 heads or more of 28.
    tail = sum(comb(28, k) for k in range(20, 29)) / 2**28
    assert float(line["p_value"]) == pytest.approx(2 * tail)
    assert float(line["published"]) == pytest.approx(1.5)
    assert plt.imread(path).std() > 0.05

    # Cells that were finished before their errors were kept: what was compared stays as long as
    # the numbers do.
    path.with_suffix(".curves.csv").rename(tmp_path / "earlier.curves.csv")
    path.unlink()
    cells.known = dict.fromkeys(cells.runs, SimpleNamespace(wrong=None))
    cells.errors = {("a", "net"): 12.25, ("a", "reference"): 9.25}
    paired_differences(cells, path, "reference", published, grid="errors")
    (kept,) = csv.DictReader(path.with_suffix(".curves.csv").read_text().splitlines())
    assert kept == line
    assert plt.imread(path).std() > 0.05
    for after in ({**cells.errors, ("a", "net"): 12.5}, {("a", "net"): 12.25}):
        path.unlink(missing_ok=True)
        cells.errors = after
        paired_differences(cells, path, "reference", published, grid="errors")
        assert not path.is_file()


def test_errors_are_drawn_for_each_seed_that_all_columns_of_a_line_have(monkeypatch, tmp_path):
    runs = {("a", column): {} for column in ("1", "2", "1, plain")}
    monkeypatch.setattr(Cells, "read", lambda self: None)
    cells = Cells(runs)
    errors = {("a", "1"): [5.0, 6.0], ("a", "2"): [3.0, 2.5, 9.0], ("a", "1, plain"): [None, 8.0]}
    cells.of = lambda grid, row, column: [
        SimpleNamespace(path=(row, column), seed=seed) for seed in range(len(errors[row, column]))
    ]
    cells.number = lambda cell, quantity: errors[cell.path][cell.seed]
    cells.reached = lambda cell: True
    shown = []
    monkeypatch.setattr(panels, "curves", lambda drawn, *about: shown.append(drawn))
    groups = {"pretrained": {"2": 2.0, "1": 1.0}, "plain": {"1, plain": 1.0}}
    errors_along(cells, tmp_path / "x.png", groups, "layers", grid="layers")
    (lines,) = shown[0].values()
    np.testing.assert_array_equal(lines["pretrained"][0], [1, 2])
    np.testing.assert_array_equal(lines["pretrained"][1], [[5, 3], [6, 2.5]])
    np.testing.assert_array_equal(lines["plain"][1], [[8]])


def test_filters_are_of_the_units_with_the_largest_norms(monkeypatch, tmp_path):
    """Of a machine, whose weights are (visible, hidden), and of a layer, (hidden, visible)."""
    weights = torch.tensor([[3.0, 0.0, -1.0, 0.0], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, -2.0]])
    machine, net = RBM((1, 2, 2), hidden=3), DenoisingLayer((1, 2, 2), hidden=3)
    machine.weight.data, net.encoder.weight.data = weights.T.clone(), weights.clone()
    pairs = {"machine": SimpleNamespace(attribute={"layers": [machine]}.get)}
    pairs["net"] = SimpleNamespace(attribute={"layers": [net]}.get)
    pairs["none"] = SimpleNamespace(attribute={"encoder": torch.nn.Tanh()}.get)
    data = SimpleNamespace(event_shape=(1, 2, 2))
    found = {name: SimpleNamespace(pair=pair, data=data) for name, pair in pairs.items()}
    which = ["machine", "net"]
    monkeypatch.setattr(classifiers, "trained", lambda *a, **k: ((n, found[n]) for n in which))
    shown = {}
    monkeypatch.setattr(panels, "mosaics", lambda drawn, path: shown.update(drawn))
    filters(None, tmp_path / "x.png", units=2)
    expected = [[[[1, 0.5], [1 / 3, 0.5]]], [[[0.5, 0.5], [0.5, 0]]]]
    for name in which:
        np.testing.assert_allclose(shown[name], expected, rtol=1e-6)
    which[:] = ["none"]
    with pytest.raises(UsageError, match="none has no first layer"):
        filters(None, tmp_path / "x.png")


def test_a_net_with_fewer_labels_has_as_many_steps_of_fine_tuning():
    net = {
        "data": "rectangles",
        "pair_parameters": {"hidden": [5, 5, 5], "corruption_options": {"rate": 0.4}},
        "algorithm_options": {"pretraining_epochs": 100},
        "epochs": 300 + 1500,
        "patience": 150,
    }
    for labels, times in ((500, 2), (300, 10 / 3), (20, denoising.AS_MANY)):
        few = denoising._with(net, {"algorithm_options": {"num_labels": labels}})
        assert few["epochs"] == 300 + round(times * 1500)
        assert few["patience"] == round(times * 150)
        assert few["algorithm_options"]["num_labels"] == labels
    assert denoising._with(net, {"algorithm_options": {"num_labels": 1000}}) == net
    two = denoising._with(net, {"layers": 2})
    assert two["pair_parameters"]["hidden"] == [5, 5] and two["epochs"] == 200 + 1500
    none = denoising._with(net, {"pair_parameters": {"corruption": "none"}})
    assert none["pair_parameters"] == {"hidden": [5, 5, 5], "corruption": "none"}


def test_what_was_destroyed_and_tried_is_that_of_the_trials(monkeypatch):
    def trial(method, number, num_train, error, settings, data="convex", seconds=30.0):
        return Trial(data, method, number, num_train, settings, error, 100, 5, seconds, "")

    masked = {"pair_parameters": {"corruption_options": {"rate": 0.25}}}
    other = {"pair_parameters": {"corruption_options": {"rate": 0.1}}}
    trials = [
        trial("SdA-3", 0, 1000, 30.0, masked),
        trial("SdA-3", 1, 1000, 20.0, other),
        trial("SdA-3", 1, 6500, 18.0, other),
        trial("SdA-3", 0, 6500, 16.0, masked),
        trial("SVM, corrupted", 3, 6500, 20.0, {"noise": 0.4, "C": 1.0}),
        trial("SdA-3", 0, 1000, 3.0, other, data="mnist_rot"),  # has not come to all data
    ]
    monkeypatch.setattr(denoising_search, "read_trials", lambda path: trials)
    assert denoising_search.destroyed("SdA-3") == {"convex": 0.25}
    assert denoising_search.destroyed("SVM, corrupted") == {"convex": 0.4}
    said = denoising_search.tried()
    assert said["convex", "SdA-3"] == "2 trials in 2.0 min, 2 of them on all training images"
    assert said["rot, regenerated", "SdA-3"].startswith("1 trials in 0.5 min, 0 of them")
    assert denoising_search.minutes() == 3.0


def test_a_search_whose_space_has_changed_is_not_gone_on_with(tmp_path):
    path = tmp_path / "trials.jsonl"
    searched(path, tmp_path, trials=2)
    path.write_text(path.read_text().replace('"level": ', '"was": '))
    with pytest.raises(
        UsageError, match="trial 0 of digits/m has settings that its space does not"
    ):
        searched(path, tmp_path, trials=3)


def test_shipped_trials_are_those_that_the_spaces_draw(monkeypatch):
    trials = read_trials(denoising_search.TRIALS)
    monkeypatch.setattr(denoising_search, "read_trials", lambda path: trials)  # it is read for each
    for trial in trials:
        draw = denoising_search.METHODS[trial.method]
        drawn = draw(np.random.default_rng(trial.number), trial.data)
        assert json.loads(json.dumps(drawn)) == trial.settings, (trial.data, trial.method)
