"""Scores under corrupted input against closed forms of a linear-Gaussian pair."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from linear_gaussian import PPCA, BayesianPPCA, batches, matrix, ready

from pyro_aevb.data.corruption import GaussianNoise, Masking
from pyro_aevb.engine import inductor, streams
from pyro_aevb.estimators.corrupted import robustness
from pyro_aevb.estimators.importance import Scorer, score
from pyro_aevb.models import VAE, Autoencoder
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair

FIELDS = ["reconstruction", "reconstruction_mean", "kl", "elbo", "log_weight"]


def expected_under_noise(source, x, std):
    """Per datum: E[log p(x|z)] and E[KL] of codes of x + std N(0, I), in closed form."""
    reconstruction, kl = (value.detach().clone() for value in source.closed_form(x))
    # The mean A x~ + c of the code has covariance std^2 A A^T on top.
    A, W = source.A.detach(), source.W.detach()
    reconstruction -= std**2 * ((W @ A) ** 2).sum() / (2 * source.noise**2)
    return reconstruction, kl + std**2 * (A**2).sum() / 2


def corrupted(source, x, corruption, draws, **options):
    scorer = Scorer(ready(source, x), corruption=corruption, **options)
    return [scorer(batches(x), noise=draw) for draw in range(draws)]


@pytest.mark.parametrize("std", [0.3, 1.5])
def test_a_noisy_input_costs_what_the_closed_form_says(std):
    source = PPCA()
    x = source.data(4000)
    clean = score(ready(source, x), batches(x), 4)
    draws = corrupted(source, x, GaussianNoise(std), 6, num_samples=4)
    metrics = robustness(draws, clean, None)
    reconstruction, kl = expected_under_noise(source, x, std)
    for name, expected in (("reconstruction", reconstruction), ("kl", kl)):
        values = np.stack([getattr(scores, name)[0] for scores in draws]).mean(0)
        error = scipy.stats.sem(values - expected.numpy())
        before = metrics[name]["clean"]["value"]
        assert abs(expected.mean() - before) > 8 * error  # the noise matters
        assert abs(values.mean() - expected.mean()) < 4 * error
        assert metrics[name]["value"] == pytest.approx(values.mean(), rel=1e-12)
    bound = (reconstruction - kl).mean().item()
    assert metrics["elbo"]["value"] == pytest.approx(bound, abs=4 * metrics["elbo"]["spread"])


def test_the_clean_datum_is_what_is_scored():
    # Importance sampling with the guide of another input still estimates log p of this one.
    source = PPCA()
    x = source.data(30)
    (scores,) = corrupted(source, x, GaussianNoise(0.3), 1, num_samples=20_000)
    error = np.sqrt(1 / scores.ess[0] - 1 / 20_000)
    assert np.all(np.abs(scores.log_weight[0] - source.log_likelihood(x)) < 4.5 * error)
    # The mean codes are those of the corrupted input; the model scores x there.
    (whole,) = corrupted(source, x, torch.zeros_like, 1, num_samples=1)
    code = source.c.detach().expand(30, -1)
    np.testing.assert_allclose(whole.codes["z"], code)
    likelihood = torch.distributions.Normal(code @ source.W.T + source.mu, source.noise)
    expected = likelihood.log_prob(x).sum(1).detach()
    np.testing.assert_allclose(whole.reconstruction_mean, expected, rtol=1e-12)


def test_a_masked_input_is_encoded_as_zeros():
    torch.manual_seed(0)
    source = Autoencoder((6,), latent_dim=2, hidden=[4])
    x = (torch.rand(400, 6) > 0.4).float()
    (all_masked,) = corrupted(source, x, Masking(1.0), 1)
    logits = source.likelihood(source.decoder(source.encoder(0 * x)[0])).base_dist.logits
    exact = -torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    np.testing.assert_allclose(all_masked.reconstruction[0], exact.sum(1).detach(), rtol=1e-5)
    clean = score(ready(source, x), batches(x))
    metrics = robustness([all_masked], clean, "no density")
    assert metrics["elbo"] == {"value": None, "reason": "no density"}
    change = all_masked.reconstruction[0] - clean.reconstruction[0]
    assert metrics["reconstruction"]["change"]["value"] == pytest.approx(change.mean())
    error = scipy.stats.sem(change)
    assert metrics["reconstruction"]["change"]["standard_error"] == pytest.approx(error)
    assert metrics["reconstruction"]["spread"] is None  # one draw


def test_the_spread_is_over_draws_and_the_error_over_data():
    source = PPCA()
    x = source.data(50)
    clean = score(ready(source, x), batches(x), 10)
    draws = corrupted(source, x, GaussianNoise(1.0), 5, num_samples=10)
    values = np.stack([scores.elbo[0] for scores in draws])
    metric = robustness(draws, clean, None)["elbo"]
    assert metric["spread"] == pytest.approx(np.std(values.mean(1), ddof=1), rel=1e-9)
    assert metric["standard_error"] == pytest.approx(scipy.stats.sem(values.mean(0)), rel=1e-9)
    likely = robustness(draws, clean, None)["iwae_bound"]
    mean = np.mean([scores.log_weight[0] for scores in draws])
    assert likely["value"] == pytest.approx(mean, rel=1e-9)


def test_draws_of_noise_repeat_and_differ_and_are_shared_by_draws_of_weights(monkeypatch):
    monkeypatch.setattr(streams, "DATA_BLOCK", 30)
    source, x, seen = BayesianPPCA(70), matrix(70, 3, seed=13), []

    def record(x):
        seen.append(x + 0.5 * torch.randn_like(x))
        return seen[-1]

    pair = ready(source, x)
    scorer = Scorer(pair, 4, 3, seed=2, corruption=record)
    state = torch.get_rng_state()
    first = scorer(batches(x), noise=0)
    assert torch.equal(state, torch.get_rng_state())
    assert len(seen) == 3 * 4  # blocks, for each draw of the weights and for the means
    whole = [torch.cat(seen[i : i + 3]) for i in range(0, 12, 3)]
    assert all(torch.equal(one, whole[0]) for one in whole)
    assert len((whole[0] - x).unique()) == 70 * 3  # no two blocks, and no two data, share it
    again, other = scorer(batches(x), noise=0), scorer(batches(x), noise=1)
    for name in FIELDS:
        assert (getattr(again, name) == getattr(first, name)).all()
        assert (getattr(other, name) != getattr(first, name)).any()
    # Blocks that a process of several is given have the values that they have in the whole.
    part = scorer(batches(x), blocks=range(1, 2), noise=0)
    np.testing.assert_allclose(part.elbo, first.elbo[:, 30:60], rtol=1e-12)
    clean = score(pair, batches(x), 4, 3, seed=2)
    np.testing.assert_array_equal(scorer(batches(x)).elbo, clean.elbo)


def test_memory_does_not_change_scores_of_corrupted_data():
    source = PPCA()
    x = source.data(130)
    options = {"num_samples": 7, "corruption": GaussianNoise(0.5)}
    whole = Scorer(ready(source, x), **options)(batches(x), noise=1)
    small = Scorer(ready(source, x), memory=4 << 10, **options)(batches(x), noise=1)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(small, name), getattr(whole, name), rtol=1e-9)


@pytest.mark.skipif(inductor.missing() is not None, reason=str(inductor.missing()))
def test_a_compiled_scorer_sees_the_corrupted_data():
    torch.manual_seed(0)
    source = VAE((1, 6, 6), 3, [20])
    x = (torch.rand(40, 1, 6, 6) < 0.4).float()
    options = {"num_samples": 40, "corruption": GaussianNoise(0.7, clip=True)}
    eager = Scorer(ready(source, x), compile="off", **options)(batches(x), noise=0)
    scorer = Scorer(ready(source, x), compile="on", say=pytest.fail, **options)
    compiled = scorer(batches(x), noise=0)
    clean = score(ready(source, x), batches(x), 40, compile="off")
    for name in FIELDS:
        one, other = getattr(eager, name), getattr(compiled, name)
        np.testing.assert_allclose(other, one, 2e-5, 1e-5, err_msg=name)
        assert np.abs(one - getattr(clean, name)).max() > 0.01, name
    again = scorer(batches(x))  # without a number, the same functions score the clean data
    np.testing.assert_allclose(again.elbo, clean.elbo, 2e-5, 1e-5)


def test_weights_draw_what_they_draw_without_noise():
    path = Path(__file__).parents[1] / "examples" / "bayesian_decoder.py"
    pair = load_pair(f"{path}:BayesianDecoder", {"event_shape": (1, 6, 6), "num_data": 25})
    sys.modules.pop("pyro_aevb_pair_bayesian_decoder", None)
    x = (torch.rand(25, 1, 6, 6) < 0.4).float()
    inspect(pair, x)
    same = Scorer(pair, 5, 3, corruption=lambda x: x.clone())(batches(x), noise=0)
    clean = score(pair, batches(x), 5, 3)
    np.testing.assert_array_equal(same.log_weight, clean.log_weight)
    assert math.isfinite(clean.elbo.mean())
