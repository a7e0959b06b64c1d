"""Evaluations of a run: what each adds to its results, what it leaves, what it refuses."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
import yaml
from linear_gaussian import PPCA
from sklearn.neighbors import KernelDensity

import pyro_aevb
import pyro_aevb.reports.assess as assess
from pyro_aevb.cli import run_command
from pyro_aevb.data import Batches, DataSet, Split
from pyro_aevb.data.corruption import GaussianNoise
from pyro_aevb.estimators.estimator import Estimator
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.marginal import Marginals
from pyro_aevb.estimators.other_data import auroc, scores_of
from pyro_aevb.estimators.parzen import PARZEN
from pyro_aevb.reports import plots
from pyro_aevb.reports.rescoring import other_data
from pyro_aevb.reports.text import show_added, show_results
from pyro_aevb.runs.netcdf import packed
from pyro_aevb.runs.prepare import restore

SMALL = {"num_samples": 30, "num_data": 20, "show": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vae"
    pyro_aevb.fit("VAE", "digits", {"latent_dim": 2}, epochs=2, out=str(out), **SMALL)
    return out


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return pyro_aevb.Run.open(tmp_path / "run")


def command(*words):
    run_command(pyro_aevb.evaluate, list(words), positional="run")


def test_estimators_add_to_results_and_leave_one_another(run):
    before = run.results
    stored = {name: run.per_datum("sample_stats", name) for name in ("elbo", "ess")}
    results = pyro_aevb.evaluate(run, "parzen", {"num_kernels": 300}, num_data=15, show=False)
    assert results == run.results
    parzen = results["metrics"].pop("parzen")
    settings = results["settings"].pop("parzen")
    assert results | {"arrays_sha256": before["arrays_sha256"]} == before
    assert parzen["estimator"] == "parzen" and parzen["num_data"] == 15
    assert (settings["num_kernels"], settings["seed"], settings["num_data"]) == (300, 0, 15)
    assert settings["seconds"] > 0 and "torch" in settings["environment"]
    per_datum = run.per_datum("parzen", "parzen")
    assert per_datum.shape == (15,) and parzen["value"] == pytest.approx(per_datum.mean())
    for name, values in stored.items():
        np.testing.assert_array_equal(run.per_datum("sample_stats", name), values)

    # Importance sampling again: its own numbers are replaced, the other's stay.
    again = pyro_aevb.evaluate(run, num_samples=60, num_data=20, show=False)
    assert again["metrics"]["parzen"] == parzen and again["settings"]["parzen"] == settings
    bound = again["metrics"]["iwae_bound"]
    assert bound["num_samples"] == 60
    assert again["settings"]["importance"]["num_samples"] == 60
    np.testing.assert_array_equal(run.per_datum("parzen", "parzen"), per_datum)
    assert bound["ess"] > before["metrics"]["iwae_bound"]["ess"]
    assert list(again["metrics"])[-1] == "parzen"

    # The same estimator again replaces what it found before.
    other = pyro_aevb.evaluate(run, "parzen", {"num_kernels": 200}, num_data=10, show=False)
    assert other["metrics"]["parzen"]["num_kernels"] == 200
    assert run.per_datum("parzen", "parzen").shape == (10,)


def test_the_parzen_window_is_around_grey_mean_images(run):
    prepared = restore(run)
    options = {"num_kernels": 400}
    metric = pyro_aevb.evaluate(run, "parzen", options, seed=5, show=False)["metrics"]["parzen"]
    with torch.random.fork_rng():
        from pyro_aevb.engine.streams import seeded

        like = prepared.test.take(torch.zeros(400, dtype=torch.int64))
        with seeded(like.device, 5, 1):
            samples = pyro_aevb.generate(prepared.pair, like).flatten(1).double()
    grey = prepared.data.test.images.flatten(1) / 16
    density = KernelDensity(bandwidth=metric["bandwidth"], leaf_size=1000).fit(samples)
    values = density.score_samples(grey.double())
    assert metric["num_data"] == len(grey) == 250
    assert metric["value"] == pytest.approx(values.mean(), rel=1e-4)
    assert metric["standard_error"] == pytest.approx(scipy.stats.sem(values), rel=1e-3)


def test_what_was_found_before_further_training_goes(run):
    pyro_aevb.evaluate(run, "parzen", {"num_kernels": 100}, num_data=15, show=False)
    pyro_aevb.evaluate(run, corruption="masking", num_noise=1, **SMALL)
    settings = yaml.safe_load((run.path / "settings.yaml").read_text())
    options = {k: settings[k] for k in ("pair", "data", "pair_parameters")}
    pyro_aevb.fit(**options, **SMALL, epochs=3, out=str(run.path), resume=True)
    assert "parzen" not in run.results["metrics"] and "corrupted" not in run.results
    assert set(run.results["settings"]) == {"importance"}
    with pytest.raises(pyro_aevb.UsageError, match="holds no per-datum parzen"):
        run.per_datum("parzen", "parzen")


def test_a_resumed_run_with_nothing_left_to_train_keeps_what_was_found(run):
    pyro_aevb.evaluate(run, "parzen", {"num_kernels": 50}, num_data=15, show=False)
    (run.figures / "against-noise.png").touch()
    before = run.results["metrics"]["parzen"]
    settings = {"num_samples": 30, "num_data": 20, "show": False, "out": str(run.path)}
    settings |= {"data": "digits", "pair_parameters": {"latent_dim": 2}, "resume": True}
    pyro_aevb.fit("VAE", epochs=2, **settings)
    assert run.results["metrics"]["parzen"] == before
    assert (run.figures / "against-noise.png").exists()
    pyro_aevb.fit("VAE", epochs=3, **settings)
    assert "parzen" not in run.results["metrics"]
    assert not (run.figures / "against-noise.png").exists()


def test_draws_of_the_weights_reach_the_estimator_and_only_equal_ones_are_compared(tmp_path):
    settings = {"num_samples": 20, "num_data": 12, "weight_samples": 3, "show": False}
    settings |= {"pair_parameters": {"hidden": [8]}, "epochs": 1, "out": str(tmp_path / "r")}
    run = pyro_aevb.fit("BayesianVAE", "digits", **settings)
    few = {"num_chains": 2, "num_temperatures": 4, "leapfrog_steps": 1}
    for draws, compared in ((None, False), (3, True)):
        results = pyro_aevb.evaluate(run, "ais", few, num_data=12, weight_samples=draws, show=False)
        metric = results["metrics"]["ais_lower"]
        assert metric["weight_samples"] == (draws or 1)
        assert ("above_log_likelihood" in metric) is compared


def test_annealing_that_has_not_arrived_is_warned_of(run, capsys):
    pyro_aevb.evaluate(run, "bdmc", {"num_chains": 2, "num_temperatures": 5}, num_data=10)
    few = {"num_chains": 1, "num_temperatures": 1, "leapfrog_steps": 1}
    pyro_aevb.evaluate(run, "ais", few, num_data=20)
    said = " ".join(capsys.readouterr().out.split())
    assert "ais_lower is below log_likelihood, which errs downwards" in said
    assert "bdmc_gap is of other settings than ais_lower" in said
    pyro_aevb.evaluate(run, "ais", {"num_chains": 2, "num_temperatures": 5}, num_data=20)
    assert "of other settings" not in capsys.readouterr().out


def test_results_older_than_the_checkpoint_are_not_added_to(run):
    results = run.results
    run.write_results({**results, "epochs": 1})
    for options in ({"estimator": "parzen"}, {"corruption": "masking"}, {"against": "noise"}):
        with pytest.raises(pyro_aevb.UsageError, match="trained further after its results"):
            pyro_aevb.evaluate(run, show=False, **options)
    assert pyro_aevb.evaluate(run, **SMALL)["epochs"] == 2
    (run.path / "results.json").unlink()
    with pytest.raises(pyro_aevb.UsageError, match="no results yet"):
        pyro_aevb.evaluate(run, "parzen", show=False)


def test_a_failure_leaves_the_results_as_they_were(run, monkeypatch):
    before = (run.path / "results.json").read_bytes(), run.arrays.read_bytes()

    def fails(*arguments, **options):
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError):
        pyro_aevb.evaluate(run, replace(PARZEN, run=fails), show=False)
    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(RuntimeError):
        run.add("other", {}, {"other": {"value": 1.0}}, {"other": np.zeros(3)})
    assert ((run.path / "results.json").read_bytes(), run.arrays.read_bytes()) == before


def test_an_estimate_of_the_log_likelihood_is_compared_datum_by_datum(run, capsys):
    log_likelihood = run.per_datum("predictive", "log_likelihood")
    values = log_likelihood[:12] + np.linspace(0.5, 1.7, 12)

    def ais(prepared, test, work, seed=0, num_chains=4):
        assert len(test) == 12
        metric = {"value": float(values.mean()), "standard_error": 1.0, "num_data": 12}
        return {"ais_lower": metric}, {"ais_lower": values}

    own = Estimator("ais", ais, estimates=("ais_lower",))
    results = pyro_aevb.evaluate(run, own, num_data=12, show=False)
    above = results["metrics"]["ais_lower"]["above_log_likelihood"]
    assert above["value"] == pytest.approx(1.1)
    error = scipy.stats.sem(values - log_likelihood[:12])
    assert above["standard_error"] == pytest.approx(error)
    count = results["metrics"]["log_likelihood"]["num_samples"]
    assert (above["num_data"], above["num_samples"]) == (12, count)
    show_added(results, "ais")
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"ais_lower is 1.10 ± {error:.2f} above log_likelihood (K = {count:,.0f}, n = 12)" in said
    )
    assert said.startswith("log p(x) = ") and "elbo" not in said
    # And again, when it is the other that has changed.
    many = {"num_samples": 60, "proposal": "guide", "num_data": 20}
    results = pyro_aevb.evaluate(run, **many, show=False)
    above = results["metrics"]["ais_lower"]["above_log_likelihood"]
    difference = values - run.per_datum("predictive", "log_likelihood")[:12]
    assert above["value"] == pytest.approx(difference.mean()) != pytest.approx(1.1)
    assert (above["num_data"], above["num_samples"]) == (12, 60) and results == run.results


class Shifted:
    """In place of a proposal: what the guide's draws give, and a quarter of a nat."""

    def __init__(self, pair, proposal, k, weight_samples, seed, *_, target, max_samples):
        self.weight_samples, self.proposal, self.most = weight_samples, proposal, max_samples
        self.scorer = Scorer(pair, k, weight_samples, seed)

    def __call__(self, *given):
        found = Marginals.of_guide(self.scorer(*given))
        drawn = np.full_like(found.num_samples, self.most)
        likely = found.log_likelihood + 0.25
        return replace(found, proposal=self.proposal, log_likelihood=likely, num_samples=drawn)


@pytest.fixture
def shifted(monkeypatch):
    monkeypatch.setattr(assess, "MarginalLikelihood", Shifted)


def test_log_likelihood_is_by_the_proposal_beside_the_guides_bound(run, shifted, monkeypatch):
    levels = []
    real = plots.convergence
    monkeypatch.setattr(plots, "convergence", lambda *a: levels.append(a[2]) or real(*a))
    few = {"max_samples": 70, "monte_carlo_error": 0.5}
    results = pyro_aevb.evaluate(run, "importance", few, proposal="prior", **SMALL)
    settings, metrics = results["settings"]["importance"], results["metrics"]
    assert settings == {
        **few,
        **{k: SMALL[k] for k in ("num_samples", "num_data")},
        "weight_samples": 10,
        "seed": 0,
        "proposal": "prior",
    }
    likely, bound = metrics["log_likelihood"], metrics["iwae_bound"]
    assert likely["value"] == pytest.approx(bound["value"] + 0.25, rel=1e-9)
    assert (likely["proposal"], likely["num_samples"], likely["most_samples"]) == ("prior", 70, 70)
    assert metrics["gap"]["value"] == pytest.approx(likely["value"] - metrics["elbo"]["value"])
    assert levels == [{"log_likelihood": pytest.approx(likely["value"])}]
    for name in ("log_likelihood", "iwae_bound"):
        stored = run.per_datum("predictive", name)
        assert stored.mean() == pytest.approx(metrics[name]["value"], rel=1e-9)
    assert (run.per_datum("sample_stats", "num_samples") == 70).all()
    # The guide's own draws are not made twice.
    monkeypatch.setattr(assess, "MarginalLikelihood", None)
    metrics = pyro_aevb.evaluate(run, proposal="guide", **SMALL)["metrics"]
    assert metrics["log_likelihood"]["value"] == metrics["iwae_bound"]["value"] == bound["value"]
    assert "log_likelihood" not in levels[1]
    for options, said in (
        ({"proposal": "gide"}, "--proposal='gide' is unknown; choose one of laplace, guide"),
        ({"estimator_options": {"monte_carlo_error": 0.0}}, "give a number above 0"),
    ):
        with pytest.raises(pyro_aevb.UsageError, match=said):
            pyro_aevb.evaluate(run, **options, **SMALL)
    with pytest.raises(pyro_aevb.UsageError, match="no use for --proposal"):
        pyro_aevb.evaluate(run, "parzen", proposal="guide")


def test_a_look_at_fewer_data_leaves_what_is_of_more(run, capsys):
    before, arrays = run.results, run.arrays.read_bytes()
    figures = {path: path.stat().st_mtime_ns for path in run.figures.iterdir()}
    found = pyro_aevb.evaluate(run, num_samples=40, num_data=7)
    assert "7 data, binarization" in (said := " ".join(capsys.readouterr().out.split()))
    assert "of the first 7 data alone" in said
    looks = run.results["looks"]
    assert {**run.results, "looks": None} == {**before, "looks": None}
    assert looks["7"]["metrics"] == found["metrics"] and found["num_data"] == 7
    assert looks["7"]["settings"]["num_samples"] == 40
    assert run.arrays.read_bytes() == arrays
    assert {path: path.stat().st_mtime_ns for path in run.figures.iterdir()} == figures
    # Results of as many data, and of more, are new ones, and keep the look.
    results = pyro_aevb.evaluate(run, num_samples=40, num_data=22, show=False)
    assert results["num_data"] == 22 and results["looks"] == looks
    # After further training there are none of more data.
    pyro_aevb.fit(epochs=3, num_samples=30, num_data=9, show=False, out=str(run.path), resume=True)
    assert run.results["num_data"] == 9 and "looks" not in run.results


def made_before(run):
    """A run as it was written before there were proposals."""
    pyro_aevb.evaluate(run, proposal="guide", **SMALL)
    metrics = dict(run.results["metrics"])
    bound = metrics.pop("iwae_bound")
    names = ("value", "standard_error", "num_samples")
    metrics["log_likelihood"] = {name: bound[name] for name in names}
    arrays = {name: run.per_datum("predictive", name) for name in ("iwae_bound",)}
    curve = [run.per_datum("convergence", name) for name in ("num_samples", "iwae_bound")]
    groups = {
        "predictive": {"log_likelihood": (("datum",), arrays["iwae_bound"])},
        "convergence": {
            "num_samples": (("num_samples",), curve[0]),
            "log_likelihood": (("num_samples", "datum"), curve[1]),
        },
    }
    run.arrays.write_bytes(packed(run.arrays, groups))
    importance = {"num_samples": 30, "weight_samples": 10, "num_data": 20, "seed": 0}
    before = {**run.results, "metrics": metrics, "settings": {"importance": importance}}
    del before["arrays_sha256"]  # files had no digests then
    run.write_results(before)
    return bound, arrays["iwae_bound"]


def test_a_log_likelihood_of_before_is_read_as_the_bound_that_it_is(run, capsys):
    now = run.results["metrics"]
    bound, values = made_before(run)
    metrics = run.results["metrics"]
    assert metrics["iwae_bound"] == bound
    for name in ("log_likelihood", "gap", "ess", "pareto_k"):
        assert metrics[name]["value"] is None
        assert metrics[name]["reason"].startswith("scored before proposals were fitted")
    assert {n: metrics[n] for n in ("elbo", "kl", "rise")} == {
        n: now[n] for n in ("elbo", "kl", "rise")
    }
    np.testing.assert_array_equal(run.per_datum("predictive", "iwae_bound"), values)
    assert run.per_datum("convergence", "iwae_bound").shape[1] == 20
    for place in (("predictive", "log_likelihood"), ("log_likelihood", "x")):
        with pytest.raises(pyro_aevb.UsageError, match="before proposals were fitted"):
            run.per_datum(*place)
    # So it is after something else was added, and until it is scored again.
    few = {"num_chains": 2, "num_temperatures": 4, "leapfrog_steps": 1}
    results = pyro_aevb.evaluate(run, "ais", few, num_data=12)
    assert "above_log_likelihood" not in results["metrics"]["ais_lower"]
    assert run.results["metrics"]["iwae_bound"] == bound
    np.testing.assert_array_equal(run.per_datum("predictive", "iwae_bound"), values)
    other = shutil.copytree(run.path, run.path.with_name("other"))
    other = pyro_aevb.Run.open(other)
    pyro_aevb.evaluate(other, num_samples=60, num_data=20, show=False)
    table = pyro_aevb.compare([run, other], out=str(run.path / "c"))
    assert set(table["run"]["paired"]) | set(table["other"]["paired"]) >= {"iwae_bound", "elbo"}
    assert not {"log_likelihood"} & {*table["run"]["paired"], *table["other"]["paired"]}
    bounds = [table[name]["metrics"]["iwae_bound"]["value"] for name in table]
    assert bounds == sorted(bounds, reverse=True)  # both have it
    assert sum(row["weight"] for row in table.values()) == pytest.approx(1, abs=1e-6)
    said = " ".join(capsys.readouterr().out.split())
    assert "run: log_likelihood not defined, scored before proposals" in said
    assert "and iwae_bound rises with them" in said


def test_runs_by_different_proposals_are_warned_of(run, shifted, capsys):
    other = pyro_aevb.Run.open(shutil.copytree(run.path, run.path.with_name("other")))
    for one, proposal in ((run, "guide"), (other, "prior")):
        pyro_aevb.evaluate(one, proposal=proposal, **SMALL)
    table = pyro_aevb.compare([run, other], out=str(run.path / "c"))
    assert list(table) == ["other", "run"]
    said = " ".join(capsys.readouterr().out.split())
    assert "log_likelihood is by different proposals: prior in other, guide in run" in said


def test_parzen_is_printed_with_the_warning_it_earned(run, monkeypatch, capsys):
    def text():
        show_results(run.results, verbose=True)
        return " ".join(capsys.readouterr().out.split())

    assert "parzen" not in text()
    pyro_aevb.evaluate(run, "parzen", {"num_kernels": 100}, show=False)
    assert "it orders models wrongly (Wu et al., 2017); ais_lower has not been computed" in text()
    run.add("ais", {}, {"ais_lower": {"value": -20.0, "standard_error": 0.1}}, {})
    assert "wrongly (Wu et al., 2017); ais_lower says what the model is worth" in text()


def test_the_precision_of_products_is_named_and_given_back(run):
    before = run.results
    results = pyro_aevb.evaluate(run, matmul_precision="medium", **SMALL)
    assert results["environment"] == before["environment"] + (
        ", float32 products at medium precision"
    )
    for name in ("elbo", "log_likelihood"):
        assert results["metrics"][name]["value"] == pytest.approx(
            before["metrics"][name]["value"], abs=0.05
        )
    with pytest.raises(pyro_aevb.UsageError):
        pyro_aevb.evaluate(run, matmul_precision="medium", num_samples=0)
    assert torch.get_float32_matmul_precision() == "highest"


def test_corrupted_scores_are_those_of_a_corrupted_scorer(run, capsys):
    options = ["--corruption=gaussian", "--corruption-options={std: 0.5, clip: true}"]
    command(str(run.path), *options, "--num-noise=3", "--num-samples=10", "--num-data=20")
    text = " ".join(capsys.readouterr().out.split())
    name = "GaussianNoise(std=0.5, clip=True)"
    entry = run.results["corrupted"][name]
    assert f"seen as {name}, 3 draws, K = 10, S = 1, n = 20" in text
    assert (entry["num_noise"], entry["num_data"], entry["seed"]) == (3, 20, 0)
    prepared = restore(run)
    scorer = Scorer(prepared.pair, 10, corruption=GaussianNoise(0.5, clip=True))
    draws = [scorer(prepared.test.first(20), noise=i) for i in range(3)]
    means = [scores.elbo.mean() for scores in draws]
    metric = entry["metrics"]["elbo"]
    assert metric["value"] == pytest.approx(np.mean(means), rel=1e-6)
    assert metric["spread"] == pytest.approx(np.std(means, ddof=1), rel=1e-5)
    assert metric["clean"]["value"] == pytest.approx(
        Scorer(prepared.pair, 10)(prepared.test.first(20)).elbo.mean(), rel=1e-6
    )
    assert metric["change"]["value"] < -0.3  # half a pixel's range of noise does harm
    pyro_aevb.evaluate(run, corruption="masking", num_noise=1, **SMALL)
    assert set(run.results["corrupted"]) == {name, "Masking(rate=0.25, exact=False)"}
    pyro_aevb.evaluate(run, corruption=torch.zeros_like, num_noise=1, **SMALL)
    assert "zeros_like" in run.results["corrupted"]
    with pytest.raises(pyro_aevb.UsageError, match="has corrupted results of 20 data for Gaussian"):
        of = {"corruption": "gaussian", "corruption_options": {"std": 0.5, "clip": True}}
        pyro_aevb.evaluate(run, num_data=10, show=False, **of)
    # As many as the results beside them are of, if nothing is said
    pyro_aevb.evaluate(run, corruption=torch.ones_like, num_noise=1, num_samples=2, show=False)
    assert run.results["corrupted"]["ones_like"]["num_data"] == run.results["num_data"]
    # Scoring the clean data anew leaves them.
    assert set(pyro_aevb.evaluate(run, **SMALL)["corrupted"]) == set(run.results["corrupted"])


def test_other_data_are_scored_as_the_own_are(run, capsys):
    command(str(run.path), "--against=noise", "--num-samples=10", "--num-data=50")
    text = " ".join(capsys.readouterr().out.split())
    assert "test data against noise, K = 10, S = 1, n = 50, 50 others" in text
    prepared = restore(run)
    noise = other_data(prepared, "noise")
    assert len(noise) == 250 and noise.binarize == "fixed"
    bits = noise.take(torch.arange(250))
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    scorer = Scorer(prepared.pair, 10)
    ours, theirs = (scores_of(scorer(b.first(50))) for b in (prepared.test, noise))
    for name, metric in run.results["against"]["noise"]["metrics"].items():
        if metric["value"] is not None:
            area, error = auroc(-ours[name], -theirs[name])
            assert metric["value"] == pytest.approx(area)
            assert metric["standard_error"] == pytest.approx(error, abs=1e-6)
    assert (run.figures / "against-noise.png").is_file()


def test_noise_is_uniform_over_the_range_of_the_training_data():
    rng = np.random.default_rng(0)
    vectors = Split(torch.from_numpy(rng.normal(size=(400, 6))).float(), None, 1)
    data = DataSet("vectors", vectors, vectors, vectors, "", "none")
    pair = SimpleNamespace(columns_in=lambda split: [], tables={}, attribute=lambda name: None)
    prepared = SimpleNamespace(data=data, test=Batches(vectors, "none"), pair=pair)
    noise = other_data(prepared, "noise").take(torch.arange(400)).numpy()
    low, high = vectors.images.min().item(), vectors.images.max().item()
    uniform = scipy.stats.uniform(low, high - low)
    assert scipy.stats.kstest(noise.ravel(), uniform.cdf).pvalue > 0.01
    assert np.abs(np.corrcoef(noise.T) - np.eye(6)).max() < 0.2
    whole = Split((16 * torch.rand(300, 4)).to(torch.uint8), None, 16)
    data = DataSet("levels", whole, whole, whole, "", "none")
    prepared = SimpleNamespace(data=data, test=Batches(whole, "none"), pair=pair)
    levels = (16 * other_data(prepared, "noise").take(torch.arange(300))).numpy()
    counts = np.bincount(levels.ravel().round().astype(int))
    assert len(counts) == 16 and scipy.stats.chisquare(counts).pvalue > 0.01


def test_a_pair_from_python_is_evaluated_in_every_way(tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        source = PPCA()
        x = source.data(90).float()
    finally:
        torch.set_default_dtype(torch.float32)
    source = source.float()
    split = Split(x, None, 1)
    data = DataSet("gaussian", split, split, split, "drawn", "none")
    given = {"pair": source, "data": data}
    out = str(tmp_path / "r")
    run = pyro_aevb.fit(source, data, epochs=0, out=out, num_samples=200, show=False)
    exact = PPCA().log_likelihood(x.double())
    metrics = pyro_aevb.evaluate(run, "parzen", {"num_kernels": 4000}, show=False, **given)[
        "metrics"
    ]
    assert metrics["log_likelihood"]["value"] == pytest.approx(exact.mean(), abs=0.05)
    assert metrics["parzen"]["value"] == pytest.approx(exact.mean(), abs=0.25)
    results = pyro_aevb.evaluate(
        run, corruption="gaussian", corruption_options={"std": 1.0}, show=False, **given
    )
    (entry,) = results["corrupted"].values()
    assert entry["num_noise"] == 5 and entry["metrics"]["reconstruction"]["change"]["value"] < -0.1


MISTAKES = [
    (["--estimator=parsen"], "no estimator 'parsen' (did you mean 'parzen'?); use importance"),
    (["--estimator=parzen", "--estimator-options={kernels: 3}"], "takes no 'kernels'; it takes"),
    (["--estimator=parzen", "--estimator-options={num_kernels: 0}"], "num_kernels is 0"),
    (["--estimator=parzen", "--estimator-options={num_kernels: many}"], "num_kernels is 'many'"),
    (["--estimator=parzen", "--against=noise"], "run evaluate once for each"),
    (["--estimator=parzen", "--seed=-1"], "--seed is -1"),
    (["--estimator=ais", "--num-samples=9"], "--estimator ais has no use for --num-samples"),
    (["--estimator=gap", "--memory=99"], "--estimator gap has no use for --memory"),
    (["--estimator=parzen", "--compile=off"], "--estimator parzen has no use for --compile"),
    (["--estimator=ais", "--estimator-options={num_chains: true}"], "num_chains is True"),
    (["--num-noise=3"], "--num-noise counts draws of a corruption: give --corruption too"),
    (["--corruption=masking", "--against=noise"], "run evaluate once for each"),
    (["--corruption=maskin"], "did you mean 'masking'"),
    (["--corruption=none"], "leave it out"),
    (["--corruption-options={rate: 0.5}"], "add --corruption"),
    (["--corruption=masking", "--num-noise=0"], "--num-noise is 0"),
    (["--corruption=masking", "--corruption-options={rate: 7}"], "rate 7"),
    (["--against=mnist5k"], "its data have shape (1, 28, 28), those of digits (1, 8, 8)"),
    (["--against=nowhere"], "no data set"),
    (["--num-samples=0"], "--num-samples is 0"),
]  # fmt: skip


@pytest.mark.parametrize("words, said", MISTAKES, ids=[" ".join(w) for w, _ in MISTAKES])
def test_a_mistake_is_one_line_and_changes_nothing(words, said, trained, capsys):
    before = (trained / "results.json").read_bytes()
    with pytest.raises(SystemExit) as exit:
        command(str(trained), "--show=false", *words)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and said in error, error
    assert (trained / "results.json").read_bytes() == before


def test_estimators_of_one_process_refuse_several(run):
    from pyro_aevb.estimators.work import Work
    from pyro_aevb.reports.estimation import estimate

    class Two:
        rank, size = 0, 2

    with pytest.raises(pyro_aevb.UsageError, match="runs in one process"):
        estimate(run, None, None, PARZEN, {}, Work(Two()))


def test_results_are_plain_json(run):
    pyro_aevb.evaluate(run, corruption="masking", num_noise=2, **SMALL)
    pyro_aevb.evaluate(run, against="noise", **SMALL)
    text = (run.path / "results.json").read_text()
    whole = json.loads(text)
    assert {name: value for name, value in whole.items() if name != "sha256"} == run.results
    assert "NaN" not in text and "Infinity" not in text
