"""The best q of each datum and the gaps it explains, against closed forms and quadrature."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from linear_gaussian import (
    PPCA,
    BayesianPPCA,
    GaussianMean,
    Hierarchy,
    batches,
    matrix,
    posterior,
    ready,
)
from torch.distributions import kl_divergence

import pyro_aevb
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.engine.replay import Way
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators import ascent
from pyro_aevb.estimators.ascent import Ascent
from pyro_aevb.estimators.gap import GAP, InferenceGap, inference_gap
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.variational import Flow, normal
from pyro_aevb.models import VAE, Autoencoder
from pyro_aevb.pairs.handlers import WholeBatch


@pytest.fixture
def short(monkeypatch):
    """Fewer steps: the pairs are small."""
    monkeypatch.setattr(ascent, "CHECK", 25)
    monkeypatch.setattr(ascent, "RATE", 0.01)


def found(pair, x, family, start, way=Way.GRAPH):
    """Parameters of the best members in the frame N(0, I)."""
    with torch.no_grad(), pair.active(), WholeBatch(), pyro.validation_enabled(False):
        search = Ascent(Joint(pair, x), family, way, pytest.fail)
        frame = [x.new_zeros(len(x), start[0].shape[1]), x.new_ones(len(x), start[0].shape[1])]
        return search.maximize([x, *frame], start)[0]


def best_normal(source, x):
    """Mean, scale and bound of the best diagonal normal of a linear-Gaussian pair."""
    gain, covariance = (value.detach() for value in posterior(source.W, source.noise))
    precision = torch.linalg.inv(covariance)
    scale = precision.diagonal() ** -0.5
    lost = 0.5 * (precision.diagonal().log().sum() + torch.logdet(covariance))
    bound = source.log_likelihood(x) - float(lost)
    return (x - source.mu.detach()) @ gain.T, scale, bound


# Families


def test_flows_start_at_the_normal_and_have_the_density_of_their_draws():
    torch.manual_seed(0)
    loc, log_scale = matrix(3, 5, seed=2), 0.3 * matrix(3, 5, seed=3)
    flow = Flow(layers=2, hidden=4)
    start = flow.start(loc, log_scale)
    z = matrix(7, 3, 5, seed=4)
    expected = normal(loc, log_scale).log_prob(z)
    np.testing.assert_allclose(flow(*start).log_prob(z), expected, rtol=1e-10)

    moved = [value + 0.3 * torch.randn_like(value) for value in start]
    q = flow(*moved)
    z = q.rsample((7,))
    np.testing.assert_allclose(flow(*moved).log_prob(z), q.log_prob(z), rtol=1e-9)  # by inverses
    u = q.base_dist.sample((1,))

    def transform(u):
        for layer in q.transforms:
            u = layer(u)
        return u

    jacobian = torch.autograd.functional.jacobian(transform, u)[0, :, :, 0]
    assert jacobian[0, :, 1].abs().max() == 0  # the data share nothing
    for n in range(3):
        log_det = torch.linalg.slogdet(jacobian[n, :, n])[1]
        expected = dist.Normal(0.0, 1.0).log_prob(u[0, n]).sum() - log_det
        assert float(flow(*moved).log_prob(transform(u))[0, n]) == pytest.approx(float(expected))
    # Every coordinate is bent by others.
    assert (jacobian[0, :, 0].fill_diagonal_(0).abs() > 1e-3).any(1).all()


@pytest.mark.parametrize("d", [1, 3])
def test_without_layers_a_flow_is_any_normal(d):
    loc, log_scale, lower = matrix(2, d, seed=5), matrix(2, d, seed=6), matrix(2, d, d, seed=7)
    layers = 0 if d > 1 else 3  # one dimension has no halves
    flow = Flow(layers)
    assert len(flow.start(loc, log_scale)) == 3
    tril = lower.tril(-1) + torch.diag_embed(log_scale.exp())
    z = matrix(4, 2, d, seed=8)
    for n in range(2):
        expected = scipy.stats.multivariate_normal(loc[n], tril[n] @ tril[n].T).logpdf(z[:, n])
        np.testing.assert_allclose(flow(loc, log_scale, lower).log_prob(z)[:, n], expected)


# The best q


def lost(source, x, loc, tril):
    """KL(q || p(z|x)) of normals, whose means and Cholesky factors these are, for each datum."""
    gain, covariance = (value.detach() for value in posterior(source.W, source.noise))
    p = dist.MultivariateNormal((x - source.mu.detach()) @ gain.T, covariance)
    return kl_divergence(dist.MultivariateNormal(loc, scale_tril=tril), p)


def test_the_best_normal_is_the_closed_form(short, monkeypatch):
    monkeypatch.setattr(ascent, "CHECK", 50)
    source = PPCA(features=5, latent=3)
    x = source.data(12)
    zero = x.new_zeros(12, 3)
    loc, log_scale = found(ready(source, x), x, normal, [zero, zero])
    mean, scale, bound = best_normal(source, x)
    reached = source.log_likelihood(x) - lost(source, x, loc, log_scale.exp().diag_embed()).numpy()
    assert np.all(reached < bound) and np.all(bound - reached < 1e-3)
    np.testing.assert_allclose(loc, mean, atol=0.02)
    np.testing.assert_allclose(log_scale.exp(), scale.expand(12, 3), rtol=0.02)


def test_a_normal_of_any_covariance_is_the_posterior(short, monkeypatch):
    monkeypatch.setattr(ascent, "CHECK", 50)
    source = PPCA(features=5, latent=3)
    x = source.data(12)
    flow, zero = Flow(0), x.new_zeros(12, 3)
    pair = ready(source, x)
    loc, log_scale, lower = found(pair, x, flow, flow.start(zero, zero))
    tril = lower.tril(-1) + torch.diag_embed(log_scale.exp())
    assert lost(source, x, loc, tril).max() < 1e-3
    _, covariance = posterior(source.W.detach(), source.noise)
    assert covariance[1, 0].abs() > 0.02
    np.testing.assert_allclose(tril @ tril.mT, covariance.expand(12, 3, 3), atol=2e-3)


def bernoulli():
    torch.manual_seed(4)
    vae = VAE((6,), latent_dim=2, hidden=[5]).double()
    for parameter in (*vae.decoder.parameters(), *vae.likelihood.parameters()):
        parameter.data *= 2.5
    return vae, torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))[::13].double()


def test_bounds_of_a_bernoulli_vae_by_quadrature(short, monkeypatch):
    vae, x = bernoulli()
    pair = ready(vae, x)
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    u = np.array(list(itertools.product(nodes, nodes)))
    weights = np.outer(weights, weights).ravel() / (2 * math.pi)

    def log_joint(z):
        with torch.no_grad():
            logits = vae.likelihood(vae.decoder(torch.from_numpy(z))).base_dist.logits.numpy()
        likelihood = x.numpy() @ logits.T - np.logaddexp(0, logits).sum(1)
        return likelihood + scipy.stats.norm.logpdf(z).sum(1)

    def bound(parameters, n):
        loc, log_scale = parameters[:2], parameters[2:]
        entropy = log_scale.sum() + 1 + math.log(2 * math.pi)
        return weights @ log_joint(loc + np.exp(log_scale) * u)[n] + entropy

    best = [
        -scipy.optimize.minimize(lambda p, n=n: -bound(p, n), np.zeros(4), tol=1e-8).fun
        for n in range(len(x))
    ]
    grid = np.linspace(-7, 7, 281)
    z = np.array(list(itertools.product(grid, grid)))
    truth = scipy.special.logsumexp(log_joint(z), axis=1) + 2 * math.log(grid[1] - grid[0])
    zero = x.new_zeros(len(x), 2)
    parameters = torch.cat(found(pair, x, normal, [zero, zero]), 1).numpy()
    reached = [bound(p, n) for n, p in enumerate(parameters)]
    np.testing.assert_allclose(reached, best, atol=5e-4)

    monkeypatch.setattr(ascent, "HALVINGS", 4)
    gap = inference_gap(pair, batches(x), 4000, flow=Flow(1, 16), say=pytest.fail, seed=1)
    assert gap.best == "laplace"
    np.testing.assert_allclose(gap.log_likelihood["flow"], truth, atol=0.03)
    np.testing.assert_allclose(gap.elbo["normal"], best, atol=0.05)
    approximation = truth - best
    assert approximation.mean() > 0.03
    closed = gap.elbo["flow"] - gap.elbo["normal"]
    assert 0.7 * approximation.mean() < closed.mean() < 1.1 * approximation.mean()


# The gaps


def spoiled(how):
    source = PPCA()
    gain, covariance = (value.detach() for value in posterior(source.W, source.noise))
    source.A.data, source.c.data = gain, -gain @ source.mu.detach()
    source.log_s.data = -0.5 * torch.linalg.inv(covariance).diagonal().log()  # the best normal
    if how == "shifted":
        source.c.data += torch.tensor([0.3, -0.2])
    elif how != "best":
        source.log_s.data += {"halved": -math.log(2), "doubled": math.log(2)}[how]
    return source


@pytest.mark.parametrize("how", ["best", "halved", "doubled", "shifted"])
def test_a_spoiled_guide_has_the_amortization_gap_it_was_given(how, short):
    source = spoiled(how)
    x = source.data(40)
    gap = inference_gap(ready(source, x), batches(x), 4000, flow=Flow(0))
    expected = {  # of KL(q || p(z|x)) in two dimensions; the best normal has the posterior's mean
        "best": 0.0,
        "halved": 2 * (0.5 * (0.25 - 1) + math.log(2)),
        "doubled": 2 * (0.5 * (4 - 1) - math.log(2)),
        "shifted": 0.0,
    }[how]
    if how == "shifted":
        delta = torch.tensor([0.3, -0.2]).double()
        _, covariance = posterior(source.W.detach(), source.noise)
        expected = float(0.5 * delta @ torch.linalg.solve(covariance, delta))
        assert expected > 0.1
    _, _, bound = best_normal(source, x)
    truth = source.log_likelihood(x)
    assert gap.family == "normal"
    np.testing.assert_allclose(gap.elbo["flow"], truth, atol=1e-3)
    np.testing.assert_allclose(gap.log_likelihood["flow"], truth, atol=1e-4)
    np.testing.assert_allclose(gap.elbo["normal"], bound, atol=0.05)  # 4,000 draws
    kinds = ("approximation_gap", "amortization_gap", "inference_gap")
    family, amortization, whole = (gap.per_datum()[name] for name in kinds)
    assert family.mean() == pytest.approx((truth - bound).mean(), abs=0.003)
    assert amortization.mean() == pytest.approx(expected, abs=0.03 if expected > 1 else 0.01)
    assert whole.mean() == pytest.approx((truth - bound).mean() + expected, abs=0.03)
    np.testing.assert_allclose(family + amortization, whole)
    metric = gap.metrics()["amortization_gap"]
    error = scipy.stats.sem(amortization)
    assert metric["standard_error"] == pytest.approx(error) and metric["num_data"] == 40


def test_a_hierarchical_guide_of_two_sites(short):
    source = Hierarchy(1.3)
    x = matrix(6, 4, seed=8)
    truth, wide = source.log_likelihood(x), 3 * (0.5 * (1.3**2 - 1) - math.log(1.3))
    gap = inference_gap(ready(source, x), batches(x), 3000, flow=Flow(0))
    gap.log_likelihood["another"] = truth + 0.5
    assert gap.family == "flow"  # sites that depend on one another are no diagonal normal
    np.testing.assert_allclose(gap.elbo["flow"], truth, atol=1e-3)
    np.testing.assert_allclose(gap.log_likelihood["flow"], truth, atol=1e-3)
    assert gap.per_datum()["amortization_gap"].mean() == pytest.approx(wide, abs=0.03)
    drawn = []
    plots = SimpleNamespace(inference_gap=lambda bounds, path: drawn.extend(bounds))
    GAP.figure(plots, gap.metrics(), gap.per_datum(), None)
    assert drawn == ["elbo_guide", "elbo_flow", "log_likelihood_best"]
    assert gap.metrics()["log_likelihood_best"]["by"] == "another"
    np.testing.assert_allclose(gap.per_datum()["approximation_gap"], 0.5, atol=1e-3)


def test_all_bounds_are_of_one_draw_of_the_global_latents(short):
    source = BayesianPPCA(60)
    x = matrix(5, 3, seed=13)
    pair = ready(source, x)
    gap = inference_gap(pair, batches(x), 40, seed=3, flow=Flow(0))
    seen = {W.numpy().tobytes(): W for W in source.seen}.values()
    truths = [source.log_likelihood(x, W) for W in seen]
    (truth,) = [t for t in truths if np.abs(t - gap.elbo["flow"]).max() < 1e-3]
    np.testing.assert_allclose(gap.elbo["guide"], truth, atol=1e-9)  # the posterior given W


def test_blocks_of_data_are_each_optimized(short, monkeypatch):
    from pyro_aevb.estimators import gap as module

    monkeypatch.setattr(module, "DATA", 4)
    monkeypatch.setattr(ascent, "HALVINGS", 2)
    source, done = PPCA(), []
    x = source.data(10)
    state = torch.get_rng_state()
    gap = inference_gap(
        ready(source, x), batches(x), 60, flow=Flow(0), progress=done.append, say=pytest.fail
    )
    assert done == [4, 4, 4, 4, 2, 2] and torch.equal(state, torch.get_rng_state())
    np.testing.assert_allclose(gap.elbo["flow"], source.log_likelihood(x), atol=1e-3)
    assert all(len(values) == 10 for values in gap.per_datum().values())


def test_the_best_estimate_is_the_highest_beyond_its_noise():
    rng = np.random.default_rng(0)
    truth = rng.normal(-90, 20, 50)
    gap = InferenceGap(10, "normal")
    gap.elbo = {"guide": truth - 3, "normal": truth - 2, "flow": truth - 0.5}
    noise = rng.normal(0, 0.3, 50)
    noise -= noise.mean() - 0.05  # 0.05 above with a standard error of 0.04
    gap.log_likelihood = {"guide": truth + noise, "normal": truth - 1, "flow": truth}
    assert gap.best == "flow"
    np.testing.assert_allclose(gap.per_datum()["inference_gap"], 3)
    gap.log_likelihood["ais_lower"] = truth + 0.1 + noise
    assert gap.best == "ais_lower"


# What cannot be done


def reads_back(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        shift = 1.0 if float(z.sum()) > 1e9 else 0.0
        pyro.sample("x", dist.Normal(z + shift, 1.0).to_event(1), obs=x)


def halves(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)).to_event(1))


def test_what_cannot_be_captured_runs_eagerly_and_says_so_once(short, monkeypatch):
    monkeypatch.setattr(ascent, "HALVINGS", 0)
    x, said = matrix(3, 2), []
    pair = ready((reads_back, halves), x)
    gap = inference_gap(pair, batches(x), 30, flow=Flow(0), say=said.append)
    truth = scipy.stats.norm(0, math.sqrt(2)).logpdf(x).sum(1)
    np.testing.assert_allclose(gap.elbo["flow"], truth, atol=1e-3)
    assert len(said) == 1 and "optimized eagerly" in said[0] and "reads a value back" in said[0]
    with pytest.raises(UsageError, match="--compile on: q of .* has to be optimized eagerly"):
        inference_gap(pair, batches(x), 30, compile="on")


@pytest.mark.parametrize(
    "estimator, options", [("gap", {"num_samples": 20}), ("ais", {"num_temperatures": 5})]
)
def test_evaluate_follows_compile_and_says_what_runs_eagerly(
    estimator, options, short, monkeypatch, tmp_path, capfd
):
    monkeypatch.setattr(ascent, "HALVINGS", 0)
    source, split = (reads_back, halves), Split(matrix(12, 2).float(), None, 1)
    data = DataSet("normal", split, split, split, "", "none")
    fitted = {"epochs": 0, "num_samples": 10, "compile": "off", "show": False}
    run = pyro_aevb.fit(source, data, out=str(tmp_path / "r"), **fitted)
    given = {"num_data": 2, "pair": source, "data": data}
    with pytest.raises(UsageError, match="--compile on: .* eagerly"):
        pyro_aevb.evaluate(run, estimator, options, compile="on", show=False, **given)
    capfd.readouterr()
    pyro_aevb.evaluate(run, estimator, options, **given)
    assert capfd.readouterr().err.count("reads a value back") == 1


def test_pairs_without_a_bound_are_refused():
    x = (torch.rand(9, 5) > 0.5).float()
    pair = ready(Autoencoder((5,), latent_dim=2, hidden=[4]), x)
    with pytest.raises(
        UsageError, match="no bound to optimize: latent site 'z' carries no density"
    ):
        inference_gap(pair, batches(x))
    x = matrix(9, 2)
    with pytest.raises(UsageError, match="no latent site inside the data plate"):
        inference_gap(ready(GaussianMean(x), x), batches(x))


def test_evaluate_adds_the_gap_to_a_run(short, tmp_path, monkeypatch):
    monkeypatch.setattr(ascent, "HALVINGS", 0)
    settings = {"num_samples": 30, "num_data": 25, "compile": "off", "show": False}
    pair = {"latent_dim": 2, "hidden": [8]}
    run = pyro_aevb.fit("VAE", "digits", pair, epochs=1, out=str(tmp_path / "run"), **settings)
    before = run.results["metrics"]
    given = {"num_samples": 50}
    results = pyro_aevb.evaluate(run, "gap", given, num_data=12, compile="off", show=False)
    assert {name: results["metrics"][name] for name in before} == before
    assert (results["settings"]["gap"]["num_data"], results["settings"]["gap"]["seed"]) == (12, 0)
    best, guide = (run.per_datum("gap", n) for n in ("log_likelihood_best", "elbo_guide"))
    metric = results["metrics"]["inference_gap"]
    assert metric["value"] == pytest.approx((best - guide).mean())
    assert (metric["num_samples"], metric["num_data"], metric["estimator"]) == (50, 12, "gap")
    assert "above_log_likelihood" in results["metrics"]["log_likelihood_best"]
    assert (run.figures / "inference_gap.png").is_file()
