"""Every example: its header's command is run as written, on little data, and its claims hold."""

import ast
import dataclasses
import importlib.util
import math
import shlex
from pathlib import Path

import numpy as np
import pyro
import pytest
import scipy.special
import scipy.stats
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.sets import load
from pyro_aevb.fit import fit
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.predict import encode, reconstruct
from pyro_aevb.runs.checkpoint import load_checkpoint
from pyro_aevb.runs.prepare import restore
from pyro_aevb.runs.run import Run
from pyro_aevb.training.objectives.iwae import IWAE

EXAMPLES = Path(__file__).parents[1] / "examples"
POINT_WEIGHTS = {
    *("weight_kl", "expected_log_likelihood", "log_likelihood_variance", "weight_rise"),
}
UNDEFINED = {
    "two_functions.py": POINT_WEIGHTS,
    "my_vae.py": POINT_WEIGHTS | {"collapsed_units"},
    "bayesian_decoder.py": {"mutual_information", "aggregate_kl", "collapsed_units"},
    "classic_vae.py": POINT_WEIGHTS,
    "conditional_vae.py": POINT_WEIGHTS,
    "hierarchical.py": POINT_WEIGHTS,
}
"""The pairs, and which quantities are not defined for them."""
SCRIPTS = {"compare_two_pairs.py", "denoising_views.py"}
K, TEST, WEIGHTS = 30, 20, 4
pairs = pytest.mark.parametrize("example", UNDEFINED)


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*UNDEFINED, *SCRIPTS}


@pytest.fixture(scope="module")
def few():
    """The first few data of the default data set."""

    whole = load("mnist5k")
    sizes = {"train": 400, "valid": 20, "test": TEST}
    splits = {k: getattr(whole, k).subset(slice(n)) for k, n in sizes.items()}
    return dataclasses.replace(whole, **splits)


@pytest.fixture(scope="module")
def runs(few, tmp_path_factory):
    """Each example's own command, run once: the run, and the trained pair loaded from it."""

    folder, done = tmp_path_factory.mktemp("runs"), {}

    def run(example):
        if example not in done:
            out = folder / example
            words = [*command(example), "--epochs=4", "--batch-size=20", f"--num-samples={K}"]
            words += [f"--weight-samples={WEIGHTS}"]
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(EXAMPLES.parent)
                patch.setattr("pyro_aevb.runs.prepare.load", lambda *_: few)
                run_command(fit, [*words, "--device=cpu", "--show=false", f"--out={out}"])
            done[example] = Run.open(out), trained_pair(Run.open(out), few)
        return done[example]

    return run


def command(example):
    """The arguments of the command in the header."""

    header = ast.get_docstring(ast.parse((EXAMPLES / example).read_text()))
    words = shlex.split(header[header.index("python -m") :].replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "pyro_aevb.fit"]
    return words[3:]


def trained_pair(run, data):
    settings = run.settings
    pair = load_pair(settings["pair"], settings["pair_parameters"], data)
    seen = pair.columns_in(data.train)
    inspect(pair, Batches(data.train, "dynamic", columns=seen).take(torch.arange(5)))
    pair.load_tensors(load_checkpoint(run.checkpoint)["tensors"], "the run")
    return pair.eval()


@pytest.fixture
def x(few):
    pyro.set_rng_seed(0)
    return Batches(few.test, "fixed").take(torch.arange(TEST))


def value(run, name):
    return run.results["metrics"][name]["value"]


@pairs
def test_training_raises_the_objective(example, runs, few, tmp_path):
    run, _ = runs(example)
    settings = run.settings
    before = pyro_aevb.fit(
        settings["pair"],
        few,
        settings["pair_parameters"],
        epochs=0,
        num_samples=K,
        weight_samples=WEIGHTS,
        proposal="guide",
        device="cpu",
        out=tmp_path / "untrained",
        show=False,
    )
    margin = 5 * math.hypot(
        *(r.results["metrics"]["training_elbo"]["standard_error"] for r in (run, before))
    )
    assert value(run, "training_elbo") > value(before, "training_elbo") + margin
    after = run.per_datum("sample_stats", "elbo").mean((0, 1))
    gain = after - before.per_datum("sample_stats", "elbo").mean((0, 1))
    assert gain.mean() > 5 * gain.std() / math.sqrt(TEST)


@pairs
def test_the_bound_is_the_one_of_pyro(example, runs, few):
    run, pair = runs(example)
    x = Batches(few.test, "fixed", columns=pair.columns_in(few.test)).take(torch.arange(TEST))
    pyro.set_rng_seed(0)
    num_data = pair.description.plate_size or len(x)
    with pair.active(), torch.no_grad():
        loss = Trace_ELBO().loss
        bounds = -np.array([loss(pair.model, pair.guide, x) for _ in range(50)]) / num_data
    expected = value(run, "elbo") - (value(run, "weight_kl") or 0.0)
    # The run's own value has K draws, and the Bayesian pair's those of the weights.
    draws = K if value(run, "weight_kl") is None else WEIGHTS
    error = bounds.std(ddof=1) * math.sqrt(1 / len(bounds) + 1 / draws)
    assert abs(bounds.mean() - expected) < 4 * error
    assert error < 0.02 * abs(expected)


@pairs
def test_quantities_are_defined_where_they_should_be(example, runs):
    metrics = runs(example)[0].results["metrics"]
    assert {name for name, metric in metrics.items() if metric["value"] is None} == (
        UNDEFINED[example]
    )
    for name in UNDEFINED[example] & POINT_WEIGHTS:
        assert "weights are points" in metrics[name]["reason"]


def test_two_functions_reconstruct_with_the_nets_of_the_file(runs, x):
    _, pair = runs("two_functions.py")
    encoder, decoder = pair.sources["encoder"], pair.sources["decoder"]
    with torch.no_grad():
        expected = decoder(encoder(x)[:, :20]).sigmoid()
    torch.testing.assert_close(reconstruct(pair, x), expected)


def test_my_vae_takes_its_flag_and_has_a_mixture_prior(runs, x):
    run, pair = runs("my_vae.py")
    assert run.settings["pair_parameters"] == {"latent_dim": 3}
    codes = encode(pair, x)["z"]
    assert codes.shape == (TEST, 3)

    named = {name: p.detach().double().numpy() for name, p in pair.sources.named_parameters()}
    logits, locs, log_scales = (named[f"pair.{k}"] for k in ("logits", "locs", "log_scales"))
    assert logits.any()  # zero at the start: the weights of the mixture are trained too
    normal = scipy.stats.norm(locs, np.exp(log_scales))
    terms = normal.logpdf(codes.double().numpy()[:, None]).sum(-1)
    expected = scipy.special.logsumexp(scipy.special.log_softmax(logits) + terms, axis=1)
    model = poutine.trace(poutine.condition(pair.model, {"z": codes})).get_trace(x)
    model.compute_log_prob()
    found = model.nodes["z"]["log_prob"].detach()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


def test_bayesian_decoder_has_the_closed_form_weight_kl(runs, few):
    run, pair = runs("bayesian_decoder.py")
    named = {name: p.detach().double().numpy() for name, p in pair.tensors().items()}
    start, total, count = "pair.weights.locs.", 0.0, 0
    for name in [name for name in named if name.startswith(start)]:
        site = name.removeprefix(start).removesuffix("_unconstrained")
        m = named[name]
        s = np.log1p(np.exp(named[f"pair.weights.scales.{site}_unconstrained"]))
        p = 1.0 if m.ndim == 1 else m.shape[1] ** -0.5
        total += (np.log(p / s) + (s**2 + m**2) / (2 * p**2) - 0.5).sum()
        count += m.size
    assert count == 10 * 100 + 100 + 100 * 784 + 784
    metric = run.results["metrics"]["weight_kl"]
    assert abs(metric["value"] - total / len(few.train)) < 4 * metric["standard_error"]
    assert metric["standard_error"] < 0.01 * metric["value"]


def test_classic_vae_observes_flat_images_and_gives_back_square_ones(runs, x):
    _, pair = runs("classic_vae.py")
    vae = pair.sources["pair"]
    with torch.no_grad():
        loc, _ = vae.encoder(x)
        expected = vae.decoder(loc).view(TEST, 1, 28, 28)
    assert pair.description.event_shape == (784,)
    torch.testing.assert_close(reconstruct(pair, x), expected)


def test_hierarchical_is_trained_on_the_importance_weighted_bound(runs, x):
    run, pair = runs("hierarchical.py")
    assert (run.settings["objective"], run.settings["num_particles"]) == ("iwae", 5)
    net, particles, repeats = pair.sources["pair"], 5, 150
    with torch.no_grad():
        # Without Pyro: K draws of z1, then z2, for every datum and repetition.
        q1 = net.q_z1(x.flatten(1))
        z1 = q1.sample((repeats, particles))
        q2 = net.q_z2(z1)
        z2 = q2.sample()
        logits = net.p_x(z1.flatten(0, 2)).view(*z1.shape[:-1], -1)
        log_x = -torch.nn.functional.binary_cross_entropy_with_logits(
            logits, x.flatten(1).expand(logits.shape), reduction="none"
        ).sum(-1)
        log_z2 = -0.5 * (z2**2).sum(-1) - 0.5 * z2.shape[-1] * math.log(2 * math.pi)
        weights = log_x + net.p_z1(z2).log_prob(z1) + log_z2 - q1.log_prob(z1) - q2.log_prob(z2)
        expected = (weights.logsumexp(1) - math.log(particles)).sum(-1).numpy()
        with pair.active():
            objective = IWAE(num_particles=particles)
            found = [-objective.loss(pair.model, pair.guide, x) for _ in range(repeats)]
        error = math.hypot(expected.std(), np.std(found)) / math.sqrt(repeats)
    assert abs(np.mean(found) - expected.mean()) < 4 * error
    elbo = float(weights.mean((0, 1)).sum())
    assert np.mean(found) > elbo + 20 * error  # so the ELBO is not what this is


def script_of(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_denoising_sends_corrupted_points_to_the_curve(tmp_path, rendered):
    script = script_of("denoising_views")
    script.manifold(40, tmp_path)
    script.bent(3, tmp_path)
    script.information(3, tmp_path)
    assert {path.stem for path in tmp_path.glob("*.png")} == {"manifold", "information", "bent"}
    run = Run.open(tmp_path / "manifold")
    points, _ = script.curve(3000, 0)
    data = script.data_set("arc", points, np.zeros(3000, int))
    pair = restore(run, "cpu", data=data).pair
    clean = torch.from_numpy(script.curve(500, 1)[0]).float()
    torch.manual_seed(0)
    corrupted = clean + 0.3 * torch.randn_like(clean)
    curve = torch.from_numpy(points).float()

    def apart(x):
        return float(torch.cdist(x, curve).min(1).values.mean())

    # 0.3 E|N(0, 1)| = 0.24 from a line; half of that is left, or less
    assert apart(corrupted) > 0.15
    assert apart(reconstruct(pair, corrupted)) < 0.5 * apart(corrupted)


def test_compare_two_pairs_runs_and_draws(few, tmp_path, monkeypatch, capsys):
    script = script_of("compare_two_pairs")
    monkeypatch.setattr("pyro_aevb.runs.prepare.load", lambda *_: few)
    script.main(epochs=1, out=str(tmp_path))
    found = {name: Run.open(tmp_path / name) for name in script.PAIRS}
    for run in found.values():
        pair = trained_pair(run, few)
        assert encode(pair, torch.zeros(2, 1, 28, 28))["z"].shape == (2, 2)
    assert {path.name for path in tmp_path.glob("*.png")} == {"comparison.png", "pairwise.png"}

    table = capsys.readouterr().out.rpartition("figures/")[2]
    assert all(name in table for name in found)
    per_datum = {n: run.per_datum("predictive", "log_likelihood") for n, run in found.items()}
    worse, best = sorted(per_datum, key=lambda name: per_datum[name].mean())
    gap = per_datum[worse] - per_datum[best]
    error = scipy.stats.sem(gap)
    assert abs(gap.mean()) > 0.01
    assert f"{gap.mean():.2f} ± {error:.2f}" in table
    for values in per_datum.values():
        assert f"{values.mean():.2f} ± {scipy.stats.sem(values):.2f}" in table
