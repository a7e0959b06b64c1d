"""The estimator of the AEVB paper's appendix D against exact log-likelihoods."""

import numpy as np
import pytest
import scipy.stats
import torch
from linear_gaussian import PPCA, BayesianPPCA, Hierarchy, batches, matrix, posterior, ready
from scipy.special import logsumexp

import pyro_aevb
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.reciprocal import Reciprocal, log_reciprocal
from pyro_aevb.runs.prepare import restore


def by_hand(draws, fresh, log_joint):
    """One datum, SciPy's density, NumPy's covariance."""
    q = scipy.stats.multivariate_normal(draws.mean(0), np.cov(draws.T))
    return np.log(len(fresh)) - logsumexp(q.logpdf(fresh) - log_joint)


def exact_draws(source, x, count, rng):
    """From p(z|x), (count, n, d)."""
    gain, covariance = (value.detach().numpy() for value in posterior(source.W, source.noise))
    mean = (x - source.mu.detach()).numpy() @ gain.T
    z = rng.normal(size=(count, *mean.shape))
    return mean + z @ np.linalg.cholesky(covariance).T


def log_joint(source, x, z):
    W, mu = source.W.detach().numpy(), source.mu.detach().numpy()
    likelihood = scipy.stats.norm(z @ W.T + mu, source.noise).logpdf(x.numpy()).sum(-1)
    return likelihood + scipy.stats.norm.logpdf(z).sum(-1)


def test_the_estimate_is_the_formula():
    source, rng = PPCA(features=5, latent=3), np.random.default_rng(0)
    x = source.data(6)
    fitted, fresh = exact_draws(source, x, 40, rng), exact_draws(source, x, 25, rng)
    joint = log_joint(source, x, fresh)
    found = log_reciprocal(*(torch.from_numpy(value) for value in (fitted, fresh, joint)))
    expected = [by_hand(fitted[:, n], fresh[:, n], joint[:, n]) for n in range(6)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_it_converges_from_above_at_the_rate_of_exact_draws():
    """400 data that are alike, and so 400 estimates of one number from draws of their own."""
    source, rng = PPCA(), np.random.default_rng(1)
    x = source.data(1).expand(400, -1)
    pair, exact = ready(source, x[:5]), float(source.log_likelihood(x[:1]))
    bias = {}
    for L in (6, 50):
        found = Reciprocal(pair, x[:5], L, L, num_temperatures=20, burn_in=20).estimate(batches(x))
        fitted, fresh = (exact_draws(source, x, L, rng) for _ in range(2))
        joint = log_joint(source, x, fresh)
        expected = [by_hand(fitted[:, n], fresh[:, n], joint[:, n]) for n in range(len(x))]
        bias[L], error = found.mean() - exact, np.hypot(*map(scipy.stats.sem, (found, expected)))
        assert found.mean() == pytest.approx(np.mean(expected), abs=3.5 * error)
        assert scipy.stats.ks_2samp(found, expected).pvalue > 0.01
        assert error < 0.05
    assert bias[6] > 0.1 and abs(bias[50]) < 0.01


def test_many_draws_give_the_exact_log_likelihood():
    source = PPCA()
    x = source.data(20)
    source.c.data += 3.0  # it has no use for the guide
    pair = ready(source, x[:5])
    found = Reciprocal(pair, x[:5], 1000, num_chains=100, num_temperatures=60).estimate(batches(x))
    np.testing.assert_allclose(found, source.log_likelihood(x), atol=0.01)


def test_two_layers_of_codes_and_draws_of_the_weights():
    source, x = Hierarchy(), matrix(20, 4, seed=3)
    few = {"num_samples": 200, "num_chains": 100, "num_temperatures": 40, "burn_in": 20}
    drawn = Reciprocal(ready(source, x), x[:5], **few)
    np.testing.assert_allclose(drawn.estimate(batches(x)), source.log_likelihood(x), atol=0.05)
    weighted = BayesianPPCA(num_data=900, spread=0.4)
    x = x[:, :3]
    pair = ready(weighted, x)
    drawn = Reciprocal(pair, x[:5], **few, seed=4)
    sampled = score(pair, batches(x), 3000, 2, seed=4).log_weight
    for s in range(2):  # each draw is the one that importance sampling scores with
        np.testing.assert_allclose(drawn.estimate(batches(x), s), sampled[s], atol=0.1)
    assert np.abs(sampled[0] - sampled[1]).mean() > 0.5


def test_too_many_dimensions_and_too_few_draws_are_refused():
    source = PPCA(features=13, latent=11)
    x = source.data(4)
    with pytest.raises(UsageError, match="nothing in the 11 dimensions of PPCA's codes"):
        Reciprocal(ready(source, x), x)
    pair = ready(PPCA(), source.data(4)[:, :4])
    for settings, said in (
        ({"num_samples": 3}, "num_samples is 3; a covariance in 2 dimensions takes at least 4"),
        ({"num_chains": 0}, "num_chains is 0"),
        ({"num_temperatures": 0}, "num_temperatures is 0"),
        ({"between": 0}, "between is 0"),
        ({"burn_in": -5}, "burn_in is -5"),
        ({"start": "laplace"}, "start='laplace' is unknown"),
    ):
        with pytest.raises(UsageError, match=said):
            Reciprocal(pair, x[:, :4], **settings)
    with pytest.raises(UsageError, match="of 4 data do not span 2 dimensions; raise num_samples"):
        z = torch.ones(9, 4, 2)
        log_reciprocal(z, z, z[..., 0])


def test_evaluate_adds_it_to_the_results(tmp_path, capsys, monkeypatch):
    few = {"num_samples": 12, "num_chains": 4, "num_temperatures": 20, "burn_in": 5, "between": 2}
    run = pyro_aevb.fit(
        "VAE",
        data="digits",
        pair_parameters={"hidden": [8], "latent_dim": 6},
        epochs=1,
        num_samples=30,
        num_data=20,
        proposal="guide",
        device="cpu",
        out=str(tmp_path / "run"),
        show=False,
    )
    prepared = restore(run, "cpu")
    first = prepared.test.first(12)
    drawn = Reciprocal(prepared.pair, first.take(torch.arange(5)), **few)
    direct = drawn.estimate(first)
    assert drawn.steps == 5 + 3 * 2
    for reliable in (4, 6):
        monkeypatch.setattr("pyro_aevb.estimators.reciprocal.RELIABLE", reliable)
        results = pyro_aevb.evaluate(run, "reciprocal", few, num_data=12, device="cpu")
        said = " ".join(capsys.readouterr().out.split())
        assert "note: reciprocal: errs upwards in expectation" in said
        assert ("have 6 dimensions, and in more than 4 it is not" in said) == (reliable == 4)
    metric = results["metrics"]["reciprocal"]
    np.testing.assert_array_equal(run.per_datum("reciprocal", "reciprocal"), direct)
    assert metric["value"] == pytest.approx(direct.mean())
    assert (metric["num_samples"], metric["num_chains"], metric["num_data"]) == (12, 4, 12)
    above = direct - run.per_datum("predictive", "log_likelihood")[:12]
    assert metric["above_log_likelihood"]["value"] == pytest.approx(above.mean())
