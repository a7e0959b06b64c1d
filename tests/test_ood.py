"""Scores that tell data sets apart: each against its definition, the AUROC against theory."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from linear_gaussian import PPCA, GaussianMean, batches, ready
from scipy.special import logsumexp

from pyro_aevb.estimators.importance import Scores, score
from pyro_aevb.estimators.other_data import auroc, scores_of, separation
from pyro_aevb.models import Autoencoder
from pyro_aevb.reports import plots

pytestmark = pytest.mark.usefixtures("rendered")


def of(log_p):
    """Scores whose weight draws give these log-likelihoods, (S, N)."""
    return Scores(1, len(log_p), log_p - 1.0, elbo=log_p - 2.0, log_weight=log_p)


def test_every_score_is_its_definition():
    log_p = np.random.default_rng(0).normal(size=(6, 4)) * [0.0, 1.0, 3.0, 300.0] - 700
    values = scores_of(of(log_p))
    for n in range(4):
        p = [math.exp(value - log_p[:, n].max()) for value in log_p[:, n]]
        weights = [one / sum(p) for one in p]
        mean = sum(log_p[:, n]) / 6
        variance = sum((value - mean) ** 2 for value in log_p[:, n]) / 5
        expected = {
            "iwae_bound": math.log(sum(p) / 6) + log_p[:, n].max(),
            "expected_log_likelihood": mean,
            "log_likelihood_variance": variance,
            "waic": mean - variance,
            "disagreement": sum(weight**2 for weight in weights),
            "elbo": mean - 2,
            "reconstruction": mean - 1,
        }
        assert set(expected) == set(values)
        for name, value in expected.items():
            assert values[name][n] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert values["disagreement"][0] == pytest.approx(1 / 6)  # all draws agree
    assert values["disagreement"][3] == pytest.approx(1)  # one draw is all


def test_point_weights_leave_the_scores_that_need_no_draws():
    x = PPCA().data(20)
    scores = score(ready(PPCA(), x), batches(x), 5)
    assert set(scores_of(scores)) == {"iwae_bound", "elbo", "reconstruction"}
    metrics = separation(scores, scores, "points")
    assert metrics["waic"] == {"value": None, "reason": "points"}
    assert metrics["elbo"]["value"] == pytest.approx(0.5)  # a set against itself


def test_codes_without_a_density_are_judged_by_reconstruction():
    x = (torch.rand(30, 5) > 0.5).float()
    scores = score(ready(Autoencoder((5,), latent_dim=2, hidden=[4]), x), batches(x))
    assert set(scores_of(scores)) == {"reconstruction"}
    rng = np.random.default_rng(0)
    several = Scores(1, 4, rng.normal(size=(4, 9)))
    values = scores_of(several)
    np.testing.assert_allclose(values["waic"] + values["log_likelihood_variance"],
                               several.reconstruction.mean(0))  # fmt: skip
    assert "iwae_bound" not in values
    mixture = logsumexp(several.reconstruction, axis=0) - math.log(4)
    np.testing.assert_allclose(values["reconstruction_mixture"], mixture)


def test_the_area_under_the_curve_is_that_of_two_normals():
    rng = np.random.default_rng(0)
    usual, foreign = rng.normal(size=3000), rng.normal(1.0, 2.0, size=2000)
    area, error = auroc(usual, foreign)
    exact = scipy.stats.norm.cdf(1.0 / math.sqrt(1 + 4))
    assert 0.003 < error < 0.01 and abs(area - exact) < 4 * error
    reverse, same = auroc(foreign, usual)
    assert reverse == pytest.approx(1 - area) and same == pytest.approx(error)


def test_its_standard_error_is_that_of_repeated_data():
    rng = np.random.default_rng(0)
    found = [
        auroc(rng.normal(size=60), np.round(rng.normal(0.7, 1.5, size=40), 1)) for _ in range(1500)
    ]
    areas, errors = np.array(found).T
    # The standard deviation over 1500 repetitions is known to 1.8 percent.
    assert np.sqrt((errors**2).mean()) == pytest.approx(areas.std(ddof=1), rel=0.07)
    m, n = [1.0, 2.0, 2.0], [2.0, 3.0]
    pairs = [[(f > u) + 0.5 * (f == u) for f in n] for u in m]
    assert auroc(np.array(m), np.array(n))[0] == pytest.approx(np.mean(pairs))
    by_hand = np.var(np.mean(pairs, 1), ddof=1) / 3 + np.var(np.mean(pairs, 0), ddof=1) / 2
    assert auroc(np.array(m), np.array(n))[1] == pytest.approx(math.sqrt(by_hand))
    assert auroc(np.array([1.0]), np.array(n)) == (1.0, None)


def test_scores_of_data_without_a_density_rank_last_and_those_of_none_have_no_rank():
    usual, foreign = np.array([1.0, 3.0, -np.inf, np.inf]), np.array([np.inf, 2.0, np.inf])
    pairs = [[(f > u) + 0.5 * (f == u) for f in foreign] for u in usual]
    area, error = auroc(usual, foreign)
    assert area == pytest.approx(np.mean(pairs))
    by_hand = np.var(np.mean(pairs, 1), ddof=1) / 4 + np.var(np.mean(pairs, 0), ddof=1) / 3
    assert error == pytest.approx(math.sqrt(by_hand))
    area, error = auroc(usual, np.array([2.0, np.nan]))
    assert math.isnan(area) and error is None


def test_foreign_data_are_found_by_every_score():
    # The posterior of the mean is wide, so far from the data the draws of it disagree.
    torch.manual_seed(0)
    train = torch.randn(20, 3).double()
    pair = ready(GaussianMean(train), train)
    test, other = torch.randn(400, 3).double(), 4 + torch.randn(300, 3).double()
    ours, theirs = (score(pair, batches(x), 1, weight_samples=40) for x in (test, other))
    metrics = separation(ours, theirs, "")
    assert set(metrics) == set(scores_of(ours)) and "disagreement" in metrics
    for name, metric in metrics.items():
        assert metric["value"] > 0.97, name
        assert metric["test"]["value"] == pytest.approx(scores_of(ours)[name].mean())
        assert metric["other"]["value"] == pytest.approx(scores_of(theirs)[name].mean())
        swapped = separation(theirs, ours, "")[name]
        assert swapped["value"] == pytest.approx(1 - metric["value"])


def test_the_figure_shows_both_sets(tmp_path, drawn):
    a, b = np.random.default_rng(0).normal(size=(2, 500)) * 3 + [[-90], [-120]]
    plots.against(("mnist", "other"), (a, b), "log_likelihood", 0.987, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert "0.987" in axes.get_title(loc="left")
    for bars, values in zip(axes.containers, (a, b), strict=True):
        left = np.array([bar.get_x() for bar in bars])
        width, height = (np.array([getattr(bar, f"get_{k}")() for bar in bars]) for k in
                         ("width", "height"))  # fmt: skip
        assert (width * height).sum() == pytest.approx(1)
        mean = (width * height * (left + width / 2)).sum()
        assert mean == pytest.approx(values.mean(), abs=width[0])
