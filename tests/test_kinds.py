"""Every kind of pair trains and scores, and its number is right; or one line refuses it."""

import itertools
import math

import numpy as np
import pytest
import torch
from harness import bound
from kinds import table
from kinds.row import failing, loaded, tried
from kinds.truth import log_evidence
from scipy.stats import multivariate_normal
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.estimators.metrics import weight_kl
from pyro_aevb.training.objectives.iwae import IWAE

pytestmark = pytest.mark.filterwarnings("ignore")  # what Pyro says of its own distributions
ROWS = table()
KINDS = {f"{kind.family}: {kind.name}": kind for kind in ROWS}
QUICK = [name for name, kind in KINDS.items() if not kind.slow]
UNREACHED = {
    "flow of the guide: guide through LeakyReLUTransform",
    "flow of the guide: guide through leaky_relu",
    "flow of the guide: guide through elu",
    "flow of the guide: guide through block_autoregressive",
    "construct: uniform inside uniform",
}
"""Kinds whose guide as it starts leaves out a part of the posterior, so that its draws miss it."""
DRAWS = 2000


def estimated(pair, batches, draws=DRAWS):
    """log p(x) from the guide's draws, and about its standard error, by datum."""
    scores = Scorer(pair, draws, 1, compile="off")(batches)
    return torch.from_numpy(scores.log_weight[0]), torch.from_numpy(scores.ess[0]).rsqrt()


def test_the_table_has_every_kind_once_and_nine_in_ten_work():
    assert len(KINDS) == len(ROWS) >= 200
    assert sum(not kind.refused for kind in ROWS) >= 0.9 * len(ROWS)


@pytest.mark.parametrize("name", QUICK)
def test_a_kind_works_or_one_line_says_why_not(name):
    kind = KINDS[name]
    outcome = tried(kind)
    assert kind.refused in outcome.line and bool(kind.refused) == bool(outcome.line), outcome.line
    assert "\n" not in outcome.line and len(outcome.line) < 500
    if outcome.line:
        return
    assert not failing(outcome)
    x = outcome.test.take(torch.arange(6))
    known = log_evidence(outcome.pair, x)
    if known is None or name in UNREACHED:
        return
    found, error = estimated(outcome.pair, outcome.test)
    if error.isfinite().all() and error.max() < 0.1:
        difference = (found - known[0]).mean().abs()
        assert difference < 0.02 + 4 * error.square().mean().sqrt() / math.sqrt(len(x))


# With the proposal that is fitted to every datum, and annealed


@pytest.mark.parametrize(
    "name",
    [
        "flow of the guide: guide through planar",
        "flow of the guide: guide through conditional_radial",
        "flow of the prior: prior through affine_autoregressive",
        "likelihood: MultivariateNormal of x",
        "construct: autoregressive prior",
        "construct: MixtureOfDiagNormals as guide",
        "latent: RelaxedBernoulliStraightThrough of z",
        "latent: Gamma of z",
    ],
)
def test_log_likelihood_is_the_integral(name):
    prepared = loaded(KINDS[name])
    x = prepared.test.take(torch.arange(6))
    known, _ = log_evidence(prepared.pair, x)
    marginal = MarginalLikelihood(prepared.pair, num_samples=4000, compile="off", target=0.05)
    found = marginal(prepared.test).log_likelihood[0]
    np.testing.assert_allclose(found, known, atol=0.2)
    assert abs((found - known.numpy()).mean()) < 0.07


# Linear Gaussian pairs in closed form


def affine(name):
    """W, b and the noise of x = W z + b + noise, z standard normal, of a construct's pair."""
    source = loaded(KINDS[f"construct: {name}"])
    pair = source.pair
    net = pair.attribute("decoder") if hasattr(pair._origin[0], "decoder") else None
    if net is not None:
        noise = {"pyro.factor as likelihood": 0.8, "a distribution's mask": 0.8}.get(name, 0.7)
        return source, net.weight, net.bias, noise
    if name == "tied weights, a constructor without annotation":
        return source, pair.attribute("weight").T, torch.zeros(3), 0.8
    likelihood = pair.attribute("likelihood")
    return source, likelihood.net.weight, likelihood.net.bias, likelihood.log_scale.exp()


@pytest.mark.parametrize(
    "name",
    [
        "normals",
        "float64",
        "tied weights, a constructor without annotation",
        "a code of shape ()",
        "a code of the shape of an image",
        "pyro.factor as likelihood",
        "a distribution's mask",
    ],
)
def test_linear_gaussian_kinds_have_the_evidence_of_a_normal(name):
    source, W, b, noise = affine(name)
    x = source.test.take(torch.arange(6)).double().numpy()
    W, b = (value.detach().double().numpy() for value in (W, b))
    spread = np.diag(np.broadcast_to(np.asarray(torch.as_tensor(noise).detach()), 3) ** 2.0)
    covariance = W @ W.T + spread
    expected = []
    for row in x:
        seen = row > -1 if name == "a distribution's mask" else np.ones(3, dtype=bool)
        normal = multivariate_normal(b[seen], covariance[np.ix_(seen, seen)]) if any(seen) else None
        expected.append(normal.logpdf(row[seen]) if normal else 0.0)
    found = MarginalLikelihood(source.pair, compile="off", target=0.03)(source.test)
    np.testing.assert_allclose(found.log_likelihood[0], expected, atol=0.1)


# Discrete codes by enumeration


def test_several_discrete_sites_are_summed_over():
    source = loaded(KINDS["construct: several discrete sites"])
    x, decoder = source.test.take(torch.arange(6)), source.pair.attribute("decoder")
    W = decoder.weight.T
    rows = [
        W[k] + b3 * W[3] + b4 * W[4] + W[5 + o]
        for k, b3, b4, o in itertools.product(range(3), (0, 1), (0, 1), (0, 1))
    ]
    loc = decoder.bias + torch.stack(rows)
    log_p = Normal(loc, 0.8).log_prob(x.unsqueeze(1)).sum(-1).logsumexp(1) - math.log(24)
    found, _ = estimated(source.pair, source.test, 8000)
    torch.testing.assert_close(found.float(), log_p, atol=0.06, rtol=0)


@pytest.mark.parametrize("bits", [False, True])
def test_several_discrete_numbers_of_a_site_are_summed_over(bits):
    name = "four bits in one site" if bits else "four classes in one site"
    source = loaded(KINDS[f"construct: {name}"])
    x, decoder = source.test.take(torch.arange(6)), source.pair.attribute("decoder")
    codes = torch.tensor([*itertools.product(range(2 if bits else 3), repeat=4)]).float()
    log_p = Normal(decoder(codes), 0.8).log_prob(x.unsqueeze(1)).sum(-1)
    log_p = log_p.logsumexp(1) - math.log(len(codes))
    found, _ = estimated(source.pair, source.test, 8000)
    torch.testing.assert_close(found.float(), log_p, atol=0.1, rtol=0)


# Objectives whose value is log p(x) at many draws


@pytest.mark.parametrize("guide", ["planar", "mixture", "straight-through"])
def test_iwae_of_many_draws_is_the_evidence(guide):
    # Wherever draws of several data were mixed, or a density were another draw's, it would not be.
    source = loaded(KINDS[f"objective: {guide} guide by iwae"])
    x = source.test.take(torch.arange(6))
    known, _ = log_evidence(source.pair, x)
    with torch.no_grad(), source.pair.evaluating():
        value = bound(IWAE(num_particles=4000), source.pair, x) / len(x)
    assert value.item() == pytest.approx(known.mean().item(), abs=0.06)


# Weights under autoguides


@pytest.mark.parametrize("name", ["AutoNormal", "AutoDiagonalNormal", "AutoMultivariateNormal"])
def test_the_kl_of_an_autoguide_is_that_of_normals(name):
    source = loaded(KINDS[f"autoguide: {name}"])
    few = source.test.take(torch.arange(2))
    guide = source.pair.attribute("guide")
    # The weights are normal, and so is the logarithm of the scale.
    draws = torch.stack([_flat(guide(few)) for _ in range(600)])
    moments = MultivariateNormal(draws.mean(0), torch.cov(draws.T))
    prior = MultivariateNormal(torch.zeros(4), torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.25])))
    expected = kl_divergence(moments, prior).item()
    draws_of_kl = weight_kl(source.pair, few, 150, 0)
    found = 40 * float(np.mean(draws_of_kl))
    assert found == pytest.approx(expected, rel=0.05, abs=0.1)


def _flat(drawn):
    return torch.cat([drawn["w"].detach(), drawn["scale"].detach().log().reshape(1)])
