"""An estimator of a user: active units at any threshold (Burda et al., 2016), in one function."""

import json
import shutil

import numpy as np
import pytest
import torch

import pyro_aevb
from pyro_aevb.estimators import ESTIMATORS, shipped
from pyro_aevb.runs.prepare import restore


def units_above(prepared, test, work, threshold: float = 0.01):
    codes = pyro_aevb.encode(prepared.pair, test.take(torch.arange(len(test))))
    moves = torch.cat([code.flatten(1).var(0) for code in codes.values()])
    value = {"value": (moves > threshold).sum(), "latent_dim": len(moves), "num_data": len(test)}
    return {"units_above": value}, {}


ACTIVE = pyro_aevb.Estimator("active", units_above)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    small = {"num_samples": 30, "num_data": 60, "show": False, "device": "cpu"}
    out = str(tmp_path_factory.mktemp("runs") / "vae")
    return pyro_aevb.fit("VAE", "digits", {"latent_dim": 5}, epochs=2, out=out, **small)


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    return pyro_aevb.Run.open(tmp_path / "run")


def evaluate(run, record, *options, **given):
    return pyro_aevb.evaluate(run, record, *options, show=False, device="cpu", **given)


def test_active_units_at_a_threshold_of_ones_own_are_numpys_and_stay_in_the_results(run):
    prepared = restore(run, "cpu")
    x = prepared.test.take(torch.arange(250))
    (codes,) = pyro_aevb.encode(prepared.pair, x).values()
    variances = np.sort(np.var(codes.double().numpy(), axis=0, ddof=1))
    for threshold in (0.02, float(variances[1:3].mean())):
        results = evaluate(run, ACTIVE, {"threshold": threshold})
        metric = json.loads((run.path / "results.json").read_text())["metrics"]["units_above"]
        assert metric == results["metrics"]["units_above"]
        assert metric["value"] == int((variances > threshold).sum())
        assert (metric["latent_dim"], metric["num_data"]) == (5, 250)
        assert results["settings"][metric["estimator"]]["threshold"] == threshold
    assert metric["value"] == 3
    again = pyro_aevb.evaluate(run, num_samples=30, num_data=60, show=False, device="cpu")
    assert again["metrics"]["units_above"] == metric


def test_a_bound_of_ones_own_is_compared_and_drawn_with_its_picture(run):
    values = run.per_datum("predictive", "log_likelihood")[:12] + 0.5

    def mine(prepared, test, work, seed: int = 0, mean: bool = True):
        return {"mine": {"value": np.float64(values.mean())}}, {"mine": values}

    def draw(plots, metrics, per_datum, path):
        assert metrics["mine"]["value"] == per_datum["mine"].mean() and hasattr(plots, "comparison")
        path.touch()

    record = pyro_aevb.Estimator("own", mine, first=12, estimates=("mine",), figure=draw)
    above = evaluate(run, record, {"mean": False})["metrics"]["mine"]["above_log_likelihood"]
    assert above["value"] == pytest.approx(0.5) and above["num_data"] == 12
    assert (run.figures / "estimator-own.png").exists()
    again = pyro_aevb.evaluate(run, num_samples=40, num_data=60, show=False, device="cpu")
    found = values - run.per_datum("predictive", "log_likelihood")[:12]
    above = again["metrics"]["mine"]["above_log_likelihood"]["value"]
    assert above == pytest.approx(found.mean())


def clash(prepared, test, work):
    return {"elbo": {"value": 1.0}}, {}


@pytest.mark.parametrize(
    "record, given, said",
    [
        (ACTIVE, {"estimator_options": {"treshold": 1.0}}, "takes no 'treshold'; it takes thresh"),
        (ACTIVE, {"estimator_options": {"threshold": "a"}}, "threshold is 'a'; its default is"),
        (ACTIVE, {"memory": 8}, "--estimator active has no use for --memory"),
        (pyro_aevb.Estimator("posterior", units_above), {}, "no estimator can be called 'posteri"),
        (pyro_aevb.Estimator("clash", clash), {}, "clash and importance both find 'elbo'"),
        ({"name": "ais"}, {}, "no estimator {'name': 'ais'}"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(run, record, given, said):
    before = (run.path / "results.json").read_bytes()
    with pytest.raises(pyro_aevb.UsageError) as error:
        evaluate(run, record, **given)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert (run.path / "results.json").read_bytes() == before


def test_the_records_are_named_as_the_table_says_and_have_plain_options():
    for name in ESTIMATORS:
        record = shipped(name)
        assert record.name == name and next(iter(record.options)) == "seed"
        kinds = {type(default) for default in record.options.values()}
        assert kinds <= {int, float, str, bool}
    assert shipped("ais").options["weight_samples"] == 1
    assert shipped("reciprocal").options["num_chains"] == 10
    assert "bdmc" in (pyro_aevb.evaluate.__doc__ or "")
