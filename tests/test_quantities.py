"""Scores do not depend on chunks; their summaries equal other implementations'."""

import importlib
import math
from dataclasses import replace

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
import torch
from harness import summary
from linear_gaussian import PPCA, BayesianPPCA, Hierarchy, batches, matrix, ready, with_data
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoNormal

from pyro_aevb.engine import streams
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators import importance
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.log_weights import LogWeights
from pyro_aevb.estimators.marginal import Marginals
from pyro_aevb.estimators.metrics import (
    active_units,
    log_mean,
    measured,
    summarize,
    weight_kl,
)
from pyro_aevb.estimators.reliability import reliability
from pyro_aevb.models import VAE, Autoencoder
from pyro_aevb.reports.text import lead

FIELDS = ["reconstruction", "reconstruction_mean", "kl", "elbo", "log_weight", "ess"]


def assert_same(one, other, rows=slice(None)):
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(one, name)[..., rows], getattr(other, name), rtol=1e-6, atol=1e-6
        )


# Chunks


def vae():
    torch.manual_seed(0)
    return VAE((1, 4, 4), latent_dim=3, hidden=[8])


@pytest.mark.parametrize("kind", [PPCA, Hierarchy, vae, lambda: BayesianPPCA(130)])
def test_scores_do_not_depend_on_the_memory_budget(kind, monkeypatch):
    monkeypatch.setattr(streams, "DATA_BLOCK", 100)
    source, features = kind(), {Hierarchy: 4, PPCA: 4}.get(kind, 3)
    x = matrix(130, features, seed=4)
    if kind is vae:
        x = (matrix(130, 1, 4, 4, seed=4) > 0).float()
    pair, options = ready(source, x), {"num_samples": 7, "weight_samples": 2}
    whole = score(pair, batches(x), **options)
    bare = score(pair, batches(x), details=False, **options)
    assert (bare.log_weight == whole.log_weight).all() and bare.ess is None and not bare.codes
    for memory in (4 << 10, 50_000, 1 << 20):
        assert_same(whole, score(pair, batches(x), memory=memory, **options))
    assert_same(whole, score(pair, batches(x[:100]), **options), slice(100))


def test_the_budget_bounds_the_rows_that_the_model_sees():
    source, x, pair = with_data(PPCA(), 100)
    largest = []
    for memory in (20_000, 200_000):
        source.rows.items.clear()
        score(pair, batches(x), 500, memory=memory)
        largest.append(max(source.rows.items[:-1]))
        # z and x in float64 are the least a row takes.
        assert largest[-1] * (2 + 4) * 8 <= max(memory, 100 * 48)
    assert largest[1] > largest[0]


def test_draws_in_several_blocks_are_all_used(monkeypatch):
    monkeypatch.setattr(importance, "DRAW_BLOCK", 1000)
    for source in (PPCA(exact=True), Hierarchy()):
        x = matrix(130, 4, seed=4)
        scores = score(ready(source, x), batches(x), 37)
        np.testing.assert_allclose(scores.ess, 37, rtol=1e-9)
        np.testing.assert_allclose(scores.log_weight[0], source.log_likelihood(x), atol=1e-9)


def test_a_seed_repeats_its_scores_and_leaves_the_generator_alone():
    source, x, pair = with_data(PPCA(), 130)
    state = torch.get_rng_state()
    one = score(pair, batches(x), 200, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(7)
    assert_same(one, score(pair, batches(x), 200, seed=3))
    other = score(pair, batches(x), 200, seed=4)
    difference = (one.log_weight - other.log_weight)[0]
    error = np.sqrt(1 / one.ess[0] + 1 / other.ess[0] - 2 / 200)
    assert np.all(difference != 0) and np.all(np.abs(difference) < 5 * error)
    # No two blocks of data, and no two data, share their draws.
    same = score(pair, batches(x[:1].expand(200, -1)), 5).log_weight[0]
    assert len(np.unique(same)) == 200


def test_a_guide_may_draw_its_local_latents_first():
    source = BayesianPPCA(130, local_first=True)
    x = matrix(130, 3, seed=13)
    pair = ready(source, x)
    source.seen.clear()
    score(pair, batches(x), 3, weight_samples=4)
    assert len({W.numpy().tobytes() for W in source.seen}) == 4 + 1  # and the mean


# Diagnostics and summaries


def weights(K=2000, N=6):
    rng = np.random.default_rng(0)
    tails = np.array([0.05, 0.2, 0.5, 0.8, 1.2, 2.0][:N])
    return tails * rng.exponential(size=(K, N)) + np.arange(N) * 300.0 - 900


def added(log_weights):
    sums = LogWeights(len(log_weights), tail=True)
    sums.add(torch.as_tensor(log_weights))
    return sums


def test_effective_sample_size_is_kishs():
    log_w = weights()
    w = np.exp(log_w - log_w.max(0))
    expected = w.sum(0) ** 2 / (w**2).sum(0)
    np.testing.assert_allclose(added(log_w).effective_sample_size(), expected, rtol=1e-8)


def test_pareto_k_is_arvizs_and_finds_the_tails():
    log_w = weights()
    k = added(log_w).pareto_k().numpy()
    for n in range(log_w.shape[1]):  # one datum at a time
        if hasattr(arviz, "psislw"):
            expected = arviz.psislw(log_w[:, n].copy())[1]
        else:  # ArviZ 1.x takes log-likelihoods, the negative of log-weights
            array_stats = importlib.import_module("arviz_stats.base").array_stats
            expected = array_stats.psislw(-log_w[:, n])[1]
        np.testing.assert_allclose(k[n], expected, rtol=1e-10)
    # exp(c E) of an exponential E is Pareto of shape c.
    np.testing.assert_allclose(k, [0.05, 0.2, 0.5, 0.8, 1.2, 2.0], atol=0.4)
    assert added(log_w[:24]).pareto_k().isnan().all()
    assert added(torch.zeros(400, 3)).pareto_k().isnan().all()


def test_active_units_counts_variances_above_the_threshold():
    codes = np.random.default_rng(0).normal(size=(5000, 4)) * [0.08, 0.12, 1.0, 0.0] + 9.0
    assert active_units(codes) == 2
    edge = np.array([[0.1], [-0.1], [0.0]])  # variance 0.01 with n - 1, 0.0067 with n
    assert active_units(0.999 * edge) == 0 and active_units(1.001 * edge) == 1


def test_standard_errors_are_scipys():
    values = np.random.default_rng(0).normal(size=(5, 40)) * 3
    result = measured(values, num_samples=7)
    assert result["standard_error"] == pytest.approx(scipy.stats.sem(values.mean(0)), rel=1e-12)
    assert result["value"] == pytest.approx(values.mean(), rel=1e-12)
    assert result["num_samples"] == 7
    assert measured(values[0])["standard_error"] == pytest.approx(scipy.stats.sem(values[0]))


def test_the_summary_combines_the_scores():
    x = matrix(60, 3, seed=13)
    pair = ready(BayesianPPCA(60), x)
    test = score(pair, batches(x[:40]), 30, weight_samples=5)
    train = score(pair, batches(x), 1, weight_samples=5, seed=1)
    kl = weight_kl(pair, x[:2], 5, seed=0)
    metrics = summary(test, train, pair.description, kl)
    mixture = scipy.special.logsumexp(test.log_weight, axis=0) - math.log(5)
    np.testing.assert_allclose(log_mean(test.log_weight), mixture, rtol=1e-12)
    expected = {
        "reconstruction": test.reconstruction.mean(),
        "reconstruction_mean": test.reconstruction_mean.mean(),
        "kl": test.kl.mean(),
        "elbo": test.elbo.mean(),
        "iwae_bound": mixture.mean(),
        "log_likelihood": mixture.mean(),
        "expected_log_likelihood": test.log_weight.mean(),
        "training_elbo": train.elbo.mean() - kl.mean(),
        "gap": (mixture - test.elbo.mean(0)).mean(),
        "ess": 30.0,
    }
    for name, value in expected.items():
        assert metrics[name]["value"] == pytest.approx(value, rel=1e-9), name
    assert metrics["gap"]["standard_error"] == pytest.approx(
        scipy.stats.sem(mixture - test.elbo.mean(0))
    )
    source = BayesianPPCA(60)
    q, p = dist.Normal(source.loc, source.spread), dist.Normal(0.0, 1.0)
    exact = torch.distributions.kl_divergence(q, p).sum() / 60
    assert metrics["weight_kl"]["value"] == pytest.approx(float(exact), rel=1e-9)
    assert metrics["pareto_k"]["value"] is None and "25" in metrics["pareto_k"]["reason"]


def made_up(S, n):
    """Estimates of log p(x|w), and what is known of them, of nothing in particular."""
    rng = np.random.default_rng(0)
    log_p, tails = rng.normal(-800, 3, size=(S, n)), rng.uniform(0, 0.69, size=(S, n))
    counts = np.full((S, n), 300)
    squares = rng.uniform(0, 1e-4, size=(S, n))
    return Marginals(
        "laplace", log_p, squares, 1 / (squares + 1 / 300), tails, counts, counts // 300, 0 * counts
    )


def test_the_likelihood_is_of_the_marginals_and_the_bound_of_the_guide():
    x = matrix(60, 3, seed=13)
    pair = ready(BayesianPPCA(60), x)
    test = score(pair, batches(x), 30, weight_samples=5)
    found = made_up(5, 60)
    found.num_samples[:, :30] = 400
    metrics = summarize(test, found, test, pair.description, np.zeros(2))
    mixture = scipy.special.logsumexp(found.log_likelihood, axis=0) - math.log(5)
    likely = metrics["log_likelihood"]
    assert likely["value"] == pytest.approx(mixture.mean(), rel=1e-12)
    assert likely["standard_error"] == pytest.approx(scipy.stats.sem(mixture), rel=1e-9)
    assert (likely["num_samples"], likely["most_samples"]) == (350, 400)
    assert metrics["gap"]["value"] == pytest.approx((mixture - test.elbo.mean(0)).mean())
    assert metrics["iwae_bound"]["value"] == pytest.approx(log_mean(test.log_weight).mean())
    assert metrics["ess"]["value"] == pytest.approx(found.ess.mean())
    # The Monte Carlo error is how much the mean moves with estimates of such variances.
    noise = np.random.default_rng(1).normal(size=(4000, 5, 60))
    again = found.log_likelihood + np.log1p(np.sqrt(found.relative_variance) * noise)
    moved = scipy.special.logsumexp(again, axis=1).mean(1)
    assert likely["monte_carlo_error"] == pytest.approx(moved.std(), rel=0.05)


def test_what_speaks_against_relying_on_the_likelihood():
    def said(spot_check=None, **other):
        likely = {"value": -101.274, "standard_error": 1.2, "monte_carlo_error": 0.021}
        entry = likely | reliability(replace(made_up(2, 40), **other), spot_check)
        return entry["reliable"], lead({"log_likelihood": entry})

    assert said() == (
        True,
        "log p(x) = -101.27 ± 1.20 over data, ± 0.02 Monte Carlo "
        "(reliable: k-hat < 0.7 for 100 % of the data)",
    )
    tails = made_up(2, 40).pareto_k
    tails[1, :2] = 0.9  # the worse draw of the weights counts
    assert said(pareto_k=tails)[1].endswith("(reliable: k-hat < 0.7 for 95 % of the data)")
    tails[0, 7] = 0.9
    believed, line = said(pareto_k=tails)
    assert not believed
    assert line.endswith("(not reliable: k-hat > 0.7 for 8 % of the data, so it is likely too low)")
    none = {"pareto_k": np.full((2, 40), np.nan)}
    assert said(**none)[0]  # of weights that are all equal there is no tail
    few = np.full((2, 40), 20)
    assert said(**none, num_samples=few)[1].endswith("too few for a k-hat for 100 % of the data)")
    assert said(**none, num_samples=few, num_temperatures=few)[0]
    for value, believed in ((0.3, False), (0.09, True)):
        check = {"value": value, "standard_error": 0.05, "num_data": 16}
        assert said(check)[0] == believed
    assert "annealing is 0.30 ± 0.05 above it (n = 16)" in said({**check, "value": 0.3})[1]


# Undefined quantities


def test_an_autoencoder_has_no_bounds_and_says_why():
    source = Autoencoder((5,), latent_dim=2, hidden=[4])
    x = (torch.rand(30, 5) > 0.5).float()
    pair = ready(source, x)
    scores = score(pair, batches(x), 100)
    metrics = summary(scores, scores, pair.description, None)
    logits = source.likelihood(source.decoder(source.encoder(x)[0])).base_dist.logits
    expected = -torch.nn.functional.binary_cross_entropy_with_logits(logits, x) * 5
    for name in ("reconstruction", "reconstruction_mean"):
        assert metrics[name]["value"] == pytest.approx(expected.item(), rel=1e-5)
    bounds = {"kl", "elbo", "training_elbo", "iwae_bound", "log_likelihood", "gap"}
    bounds |= {"ess", "pareto_k"}
    for name in bounds | {"expected_log_likelihood", "weight_kl"}:
        assert set(metrics[name]) == {"value", "reason"} and metrics[name]["value"] is None
        assert "global" in metrics[name]["reason"] or "'z'" in metrics[name]["reason"]


def two_weights(x):
    a, b = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in "ab")
    with pyro.plate("data", size=20, subsample_size=len(x)):
        pyro.sample("x", dist.Normal(a + b, 1.0).expand([3]).to_event(1), obs=x)


def some_points():
    guide = AutoGuideList(two_weights)
    guide.append(AutoNormal(poutine.block(two_weights, expose=["a"])))
    guide.append(AutoDelta(poutine.block(two_weights, expose=["b"])))
    return guide


@pytest.mark.parametrize("make, site", [(lambda: AutoDelta(two_weights), "a"), (some_points, "b")])
def test_point_weights_have_no_density(make, site):
    x = matrix(6, 3).float()
    pair = ready((two_weights, make()), x)
    scores = score(pair, batches(x), 1)
    metrics = summary(scores, scores, pair.description, None)
    for name in ("weight_kl", "training_elbo"):
        assert metrics[name]["value"] is None and f"'{site}'" in metrics[name]["reason"]


def test_a_random_auxiliary_site_beside_a_density_is_no_bound():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            wide = dist.Normal(torch.zeros(3), 10.0).to_event(1)
            a = pyro.sample("a", wide, infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(x / 2 + 0 * a, 0.7).to_event(1))

    with pytest.raises(UsageError, match="'a' is not what a Delta site is made of"):
        ready((model, guide), matrix(6, 3).float())


@pytest.mark.parametrize("trained", [True, False])
def test_a_code_made_of_an_auxiliary_draw_has_a_density(trained):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        gain = pyro.param("gain", x.new_tensor(0.5)) if trained else 0.5
        with pyro.plate("data", len(x)):
            noise = dist.Normal(gain * x, 2.0).to_event(1)
            a = pyro.sample("a", noise, infer={"is_auxiliary": True})
            scale = math.sqrt(0.5) / 2  # z = gain x + scale (a - gain x) is the exact posterior
            z = gain * x + scale * (a - gain * x)
            log_density = x.new_tensor(-3 * math.log(scale))
            pyro.sample("z", dist.Delta(z, log_density=log_density, event_dim=1))

    x = matrix(130, 3)
    truth = scipy.stats.norm(0, math.sqrt(2)).logpdf(x).sum(1)
    scores = score(ready((model, guide), x), batches(x), 30)
    assert scores.log_weight is not None
    np.testing.assert_allclose(scores.log_weight[0], truth, atol=1e-9)
    np.testing.assert_allclose(scores.ess, 30, rtol=1e-9)
