"""Importance sampling and the quantities made of it, against closed forms and quadrature."""

import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from harness import summary
from linear_gaussian import (
    PPCA,
    BayesianPPCA,
    GaussianMean,
    Hierarchy,
    batches,
    matrix,
    ready,
)
from pyro import poutine
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal
from pyro.nn import PyroModule
from sklearn.decomposition import PCA

from pyro_aevb.engine.streams import seeded
from pyro_aevb.estimators.importance import Scores, score
from pyro_aevb.estimators.log_weights import LogWeights
from pyro_aevb.estimators.marginal import Marginals
from pyro_aevb.estimators.metrics import log_mean, weight_kl
from pyro_aevb.models import VAE


def close(actual, expected, error, most):
    """Within 4.5 standard errors each; the errors themselves are small enough to mean something."""
    assert np.max(error) < most
    np.testing.assert_array_less(np.abs(actual - expected), 4.5 * error)


def test_streams_of_different_keys_are_different():
    keys = [(7, 1), (7, 1, 0), (7, 1, 0, 0), (7, 0), (7, 0, 0), (7, 0, 0, 0), (7, 0, 1), (0, 7)]
    drawn = []
    for key in keys:
        with seeded(torch.device("cpu"), *key):
            drawn.append(float(torch.rand(1)))
    assert len(set(drawn)) == len(keys)


def test_the_error_of_few_draws_is_that_of_a_mean_and_of_one_is_unknown():
    """Of weights 1 and 3 the mean is 2, and its variance 2 / 2, so 1/4 of its square."""
    log_weights = LogWeights(2)
    log_weights.add(torch.tensor([[1.0], [3.0]]).log())
    ess = log_weights.effective_sample_size().reshape(1, 1).numpy()
    one = np.full((1, 1), math.log(2))
    scores = Scores(2, 1, one, log_weight=one, ess=ess)
    assert Marginals.of_guide(scores).relative_variance.item() == pytest.approx(0.25)
    source = PPCA()
    x = source.data(3)
    pair = ready(source, x)
    scores = score(pair, batches(x), 1)
    metric = summary(scores, scores, pair.description, None)["log_likelihood"]
    assert metric["monte_carlo_error"] is None and math.isfinite(metric["value"])


# Linear-Gaussian pairs


def test_ppca_log_likelihood_and_elbo_equal_their_closed_forms():
    source, K = PPCA(), 20_000
    x = source.data(130)
    scores = score(ready(source, x), batches(x), K)

    # The delta-method error of a log-mean-exp, from the effective sample size.
    error = np.sqrt(1 / scores.ess[0] - 1 / K)
    close(scores.log_weight[0], source.log_likelihood(x), error, 0.02)
    expected, kl = (value.detach().numpy() for value in source.closed_form(x))
    np.testing.assert_allclose(scores.kl[0], kl, rtol=1e-10)
    # Var of the Gaussian's quadratic form in z: at most this, by Monte Carlo over 3 data.
    spread = np.std(_reconstruction_draws(source, x), axis=0)
    close(scores.reconstruction[0], expected, spread / math.sqrt(K), 0.2)
    close(scores.elbo[0], expected - kl, 1.2 * spread / math.sqrt(K), 0.2)
    m = (x @ source.A.T + source.c).detach()
    at_mean = scipy.stats.norm((m @ source.W.T + source.mu).detach(), source.noise).logpdf(x)
    np.testing.assert_allclose(scores.reconstruction_mean, at_mean.sum(1), rtol=1e-10)
    np.testing.assert_allclose(scores.codes["z"], m, rtol=1e-10)


def _reconstruction_draws(source, x, draws=2000):
    m, s = (x @ source.A.T + source.c).detach().numpy(), source.log_s.detach().exp().numpy()
    z = m + s * np.random.default_rng(0).normal(size=(draws, *m.shape))
    loc = z @ source.W.detach().numpy().T + source.mu.detach().numpy()
    return scipy.stats.norm(loc, source.noise).logpdf(x.numpy()).sum(-1)


@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_a_guide_equal_to_the_posterior_gives_constant_weights(dtype, atol):
    source = PPCA(exact=True)
    x = source.data(30).to(dtype)
    pair = ready(source.to(dtype), x)
    scores = score(pair, batches(x), 40)
    np.testing.assert_allclose(scores.log_weight[0], source.log_likelihood(x), atol=atol)
    np.testing.assert_allclose(scores.elbo, scores.log_weight, atol=atol)
    np.testing.assert_allclose(scores.ess, 40, rtol=1e-5)
    metrics = summary(scores, scores, pair.description, None)
    assert abs(metrics["gap"]["value"]) < atol


def test_log_likelihood_of_fitted_ppca_is_scikit_learns():
    x = PPCA().data(200)
    fitted = PCA(2).fit(x.numpy())
    source = PPCA(exact=True, noise=math.sqrt(fitted.noise_variance_))
    scale = np.sqrt(fitted.explained_variance_ - fitted.noise_variance_)
    source.W.data = torch.from_numpy(fitted.components_.T * scale)
    source.mu.data = torch.from_numpy(fitted.mean_)
    scores = score(ready(source, x), batches(x), 3)
    np.testing.assert_allclose(scores.log_weight[0], fitted.score_samples(x), atol=1e-9)


@pytest.mark.parametrize("widen", [1.0, 1.3])
def test_a_hierarchical_guide(widen):
    source, K = Hierarchy(widen), 40 if widen == 1 else 4000
    x = matrix(130, 4, seed=8)
    scores = score(ready(source, x), batches(x), K)
    truth = source.log_likelihood(x)
    if widen == 1:
        np.testing.assert_allclose(scores.log_weight[0], truth, atol=1e-10)
        np.testing.assert_allclose(scores.ess, K, rtol=1e-10)
    else:
        close(scores.log_weight[0], truth, np.sqrt(1 / scores.ess[0] - 1 / K), 0.02)
        # KL between Gaussians of one mean, three dimensions wider by 1.3, is the whole gap.
        gap = 3 * (0.5 * (1.3**2 - 1) - math.log(1.3))
        assert abs((truth - scores.elbo[0]).mean() - gap) < 0.01


# A Bernoulli VAE with a 2-D code


def test_bernoulli_vae_agrees_with_quadrature():
    torch.manual_seed(4)
    vae = VAE((6,), latent_dim=2, hidden=[5])
    for parameter in (*vae.decoder.parameters(), *vae.likelihood.parameters()):
        parameter.data *= 1.6
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
    scores = score(ready(vae, x), batches(x), 80_000)

    def log_p(z):  # log p(x|z) for every x and grid point
        with torch.no_grad():
            logits = vae.likelihood(vae.decoder(torch.from_numpy(z).float())).base_dist.logits
        logits = logits.double().numpy()
        return x.numpy() @ logits.T - np.logaddexp(0, logits).sum(1)

    grid = np.linspace(-7, 7, 201)
    z = np.array(list(itertools.product(grid, grid)))
    prior = scipy.stats.norm.logpdf(z).sum(1) + 2 * math.log(grid[1] - grid[0])
    truth = scipy.special.logsumexp(log_p(z) + prior, axis=1)
    assert abs(np.exp(truth).sum() - 1) < 1e-5
    assert np.ptp(truth) > 1.5  # the data differ, so that agreement is not by chance
    error = np.sqrt(1 / scores.ess[0] - 1 / scores.num_samples)
    close(scores.log_weight[0], truth, error, 0.01)
    assert np.abs(scores.log_weight[0] - truth).mean() < 0.005
    assert abs(np.exp(scores.log_weight[0]).sum() - 1) < 0.01

    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    eps = np.array(list(itertools.product(nodes, nodes)))
    w = np.outer(weights, weights).ravel() / (2 * math.pi)
    loc, log_variance = (value.detach().double().numpy() for value in vae.encoder(x))
    scale = np.exp(0.5 * log_variance)
    for n in range(0, 64, 7):
        values = log_p(loc[n] + scale[n] * eps)[n]
        mean = w @ values
        error = math.sqrt(w @ (values - mean) ** 2 / 80_000)
        close(scores.reconstruction[0, n], mean, error, 0.02)
        kl = 0.5 * (loc[n] ** 2 + scale[n] ** 2 - 1 - log_variance[n]).sum()
        # The log-weights' KL part is sampled, so the error is that of both parts.
        assert abs(scores.elbo[0, n] - (mean - kl)) < 6 * error + 0.005
        assert abs(scores.kl[0, n] - kl) < 1e-5


# Global latents


def test_a_conjugate_mean_gives_the_exact_predictive_density():
    train, test, S = matrix(5, 2, seed=11), matrix(7, 2, seed=12), 1000
    source = GaussianMean(train)
    pair = ready(source, train)
    scores = score(pair, batches(test), 50, weight_samples=S)
    assert scores.num_samples == 1 and scores.log_weight.shape == (S, 7)
    p = np.exp(scores.log_weight - scores.log_weight.max(0))
    error = p.std(0) / p.mean(0) / math.sqrt(S)
    truth = source.log_predictive(test)
    close(log_mean(scores.log_weight), truth, error, 0.04)
    expected = scipy.stats.norm(source.loc, source.noise).logpdf(test).sum(1)
    expected -= len(source.loc) * float(source.scale) ** 2 / 2  # E_q log p(x|w), exactly
    assert (truth - expected).min() > 0.05
    close(scores.log_weight.mean(0), expected, scores.log_weight.std(0) / math.sqrt(S), 0.05)

    kl = weight_kl(pair, train[:2], 4, seed=0)
    np.testing.assert_allclose(kl, source.weight_kl() / 5, rtol=1e-10)
    trained = score(pair, batches(train), 1, weight_samples=S)
    metrics = summary(scores, trained, pair.description, kl)
    # The guide is exact, so the bound on log p(D) is log p(D).
    error = trained.elbo.mean(1).std() / math.sqrt(S)
    close(metrics["training_elbo"]["value"], source.log_evidence() / 5, error, 0.02)
    assert metrics["log_likelihood"]["weight_samples"] == S
    assert metrics["log_likelihood"]["value"] == pytest.approx(truth.mean(), abs=0.02)
    assert metrics["kl"]["value"] is None and "no local" in metrics["kl"]["reason"]


def test_local_and_global_latents_together():
    x = matrix(130, 3, seed=13)
    source = BayesianPPCA(len(x))
    pair = ready(source, x)
    source.seen.clear()
    scores = score(pair, batches(x), 30, weight_samples=4)
    draws = list({W.numpy().tobytes(): W for W in source.seen}.values())
    draws = [W for W in draws if not torch.equal(W, source.loc)]
    assert len(draws) == 4  # one draw per s, the same for every block of data
    exact = np.stack([source.log_likelihood(x, W) for W in draws])
    np.testing.assert_allclose(scores.log_weight, exact, atol=1e-9)
    np.testing.assert_allclose(scores.ess, 30, rtol=1e-9)
    np.testing.assert_allclose(
        log_mean(scores.log_weight), scipy.special.logsumexp(exact, axis=0) - math.log(4), atol=1e-9
    )

    few, S = x[:20], 300
    scores = score(pair, batches(few), 1, weight_samples=S, seed=5)
    rng = np.random.default_rng(0)
    other = source.loc.numpy() + source.spread * rng.normal(size=(4000, 3, 2))
    exact = np.stack([source.log_likelihood(few, torch.from_numpy(W)) for W in other])
    truth = scipy.special.logsumexp(exact, axis=0) - math.log(4000)
    p = np.exp(exact - truth)
    close(log_mean(scores.log_weight), truth, p.std(0) * math.sqrt(1 / S + 1 / 4000), 0.1)
    close(scores.log_weight.mean(0), exact.mean(0), exact.std(0) / math.sqrt(S) * 1.1, 0.1)


class AutoPPCA(PyroModule):
    """As BayesianPPCA, with an automatic guide for the weights."""

    def __init__(self, autoguide, **options):
        super().__init__()
        self.inner = BayesianPPCA(25)
        self.weights = autoguide(
            poutine.block(self.model, hide=["z"]),
            init_loc_fn=lambda site: self.inner.loc.clone(),
            **options,
        )

    def model(self, x):
        self.inner.model(x)

    def guide(self, x):
        self.inner.code(x, self.weights(x)["W"])


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoLowRankMultivariateNormal])
def test_an_automatic_guide_of_the_weights_scores(autoguide):
    x = matrix(25, 3, seed=13)
    source = AutoPPCA(autoguide, init_scale=1e-6)
    pair = ready(source, x)
    scores = score(pair, batches(x), 3, weight_samples=2)
    truth = source.inner.log_likelihood(x, source.inner.loc)
    np.testing.assert_allclose(log_mean(scores.log_weight), truth, atol=1e-3)

    wide = ready(AutoPPCA(autoguide, init_scale=0.3), x)
    kl = weight_kl(wide, x[:2], 400, seed=0)
    loc = source.inner.loc.numpy()
    if autoguide is AutoNormal:
        truth = 0.5 * (loc**2 + 0.09 - 1 - math.log(0.09)).sum() / 25
        close(kl.mean(), truth, kl.std() / 20, 0.01)
