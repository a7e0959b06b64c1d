"""Log-likelihood against the number of draws, against sums made by hand and closed forms."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from harness import summary
from linear_gaussian import PPCA, BayesianPPCA, Hierarchy, batches, matrix, ready

from pyro_aevb.engine import streams
from pyro_aevb.estimators import importance
from pyro_aevb.estimators.convergence import against_samples, against_weights
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.log_weights import LogWeights, milestones
from pyro_aevb.estimators.metrics import log_mean
from pyro_aevb.reports import plots
from pyro_aevb.reports.text import CONVERGED, converged, warnings

pytestmark = pytest.mark.usefixtures("rendered")


@pytest.mark.parametrize(
    "K, looks",
    [
        (1, (1,)),
        (2, (1, 2)),
        (7, (1, 2, 3, 5, 7)),
        (10, (1, 2, 5, 10)),
        (5000, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 2500, 5000)),
    ],
)
def test_a_curve_looks_at_1_2_5_10_and_at_the_last_doubling(K, looks):
    assert milestones(K) == looks


@pytest.mark.parametrize("sizes", [[300], [1, 2, 97, 200], [7] * 42 + [6], [150, 150]])
def test_a_curve_holds_the_means_of_the_first_draws(sizes):
    rng = np.random.default_rng(0)
    log_w = rng.normal(size=(300, 4)) * [1.0, 30.0, 2.0, 1.0] + [0.0, -900.0, 700.0, 0.0]
    log_w[:40, 3] = -np.inf  # no weight yet
    weights = LogWeights(300, tail=True, looks=milestones(300))
    for block in torch.from_numpy(log_w).split(sizes):
        weights.add(block)
    expected = [scipy.special.logsumexp(log_w[:k], axis=0) - math.log(k) for k in milestones(300)]
    np.testing.assert_allclose(torch.stack(weights.curve), expected, rtol=1e-12)


def test_scores_keep_the_curve_of_their_own_draws(monkeypatch):
    monkeypatch.setattr(importance, "DRAW_BLOCK", 3000)  # several blocks of draws
    monkeypatch.setattr(streams, "DATA_BLOCK", 40)  # and of data
    x = matrix(70, 3, seed=13)
    pair = ready(BayesianPPCA(70), x)
    scores = score(pair, batches(x), 200, weight_samples=3)
    assert scores.looks == (1, 2, 5, 10, 20, 50, 100, 200)
    assert scores.curve.shape == (3, 8, 70)
    np.testing.assert_allclose(scores.curve[:, -1], scores.log_weight, rtol=1e-12)
    curve = against_samples(scores)
    np.testing.assert_allclose(curve.values[-1], log_mean(scores.log_weight), rtol=1e-12)
    mixture = scipy.special.logsumexp(scores.curve[:, 3], axis=0) - math.log(3)
    np.testing.assert_allclose(curve.values[3], mixture, rtol=1e-12)
    np.testing.assert_allclose(curve.rise(), curve.values[7] - curve.values[6])


def test_what_the_last_doubling_adds_is_what_is_missing():
    # Weights p/q of a guide whose scales are c times the posterior's have, in three dimensions,
    # the variance (c^2 / sqrt(2 c^2 - 1))^3 - 1 = V, and log of a mean of K the bias V / 2K.
    source, x, K = Hierarchy(widen=1.3), matrix(1, 4, seed=3).expand(40_000, -1), 40
    scores = score(ready(source, x), batches(x), K)
    rise = against_samples(scores).rise()
    V = (1.69 / math.sqrt(2.38)) ** 3 - 1
    error = scipy.stats.sem(rise)
    assert error < V / (2 * K) / 8
    assert abs(rise.mean() - V / (2 * K)) < 4 * error + 0.1 * V / (2 * K)
    missing = source.log_likelihood(x[:1]) - log_mean(scores.log_weight)
    assert abs(missing.mean() - rise.mean()) < 4 * error + 0.1 * V / (2 * K)


def test_the_curve_over_weights_averages_disjoint_groups():
    log_p = np.random.default_rng(0).normal(size=(7, 5)) * 3 - 800
    curve = against_weights(log_p)
    assert curve.counts == (1, 2, 3, 5, 7)
    p = np.exp(log_p + 800)
    for s, values in zip(curve.counts, curve.values, strict=True):
        groups = [np.log(p[g * s : (g + 1) * s].mean(0)) for g in range(7 // s)]
        np.testing.assert_allclose(values, np.mean(groups, axis=0) - 800, rtol=1e-12)
    np.testing.assert_allclose(curve.values[0], log_p.mean(0))
    assert against_weights(log_p[:1]) is None


def test_the_summary_says_how_far_it_has_moved():
    x = matrix(60, 3, seed=13)
    pair = ready(BayesianPPCA(60), x)
    test = score(pair, batches(x), 30, weight_samples=6)
    metrics = summary(test, test, pair.description, np.zeros(2))
    log_p = test.log_weight
    whole, half = (
        scipy.special.logsumexp(log_p, axis=0) - math.log(6),
        (scipy.special.logsumexp(log_p.reshape(2, 3, 60), axis=1) - math.log(3)).mean(0),
    )
    rise = metrics["weight_rise"]
    assert rise["value"] == pytest.approx((whole - half).mean(), rel=1e-9)
    assert rise["standard_error"] == pytest.approx(scipy.stats.sem(whole - half), rel=1e-9)
    assert rise["weight_samples"] == 6 and rise["curve"]["weight_samples"] == [1, 2, 3, 5, 6]
    assert rise["curve"]["value"][0] == pytest.approx(metrics["expected_log_likelihood"]["value"])
    assert rise["curve"]["value"][-1] == pytest.approx(metrics["log_likelihood"]["value"])
    error = metrics["log_likelihood"]["standard_error"]
    assert rise["curve"]["standard_error"][-1] == pytest.approx(error)
    variance = metrics["log_likelihood_variance"]
    assert variance["value"] == pytest.approx(np.var(log_p, axis=0, ddof=1).mean(), rel=1e-9)
    assert metrics["rise"]["value"] == pytest.approx(0, abs=1e-9)  # the guide of z is exact


@pytest.mark.parametrize("spoil, warned", [(0.0, False), (1.5, True)])
def test_a_spoiled_guide_is_warned_of(spoil, warned):
    source = PPCA()
    x = source.data(200)
    source.c.data += spoil  # its mean is off by several of its standard deviations
    pair = ready(source, x)
    test = score(pair, batches(x), 1000)
    metrics = summary(test, test, pair.description, None)
    said = [line for line in warnings(metrics) if "has not converged" in line]
    assert len(said) == warned == (not converged(metrics["rise"]))
    if warned:
        assert metrics["pareto_k"]["share_above_0.7"] > 0.5
        rise = metrics["rise"]["value"]
        assert f"from 500 to 1,000 raised it by {rise:.2f}" in said[0]
        truth = source.log_likelihood(x).mean()
        assert truth - metrics["log_likelihood"]["value"] > rise > CONVERGED
    else:
        assert abs(metrics["log_likelihood"]["value"] - source.log_likelihood(x).mean()) < 0.01


def test_an_estimate_has_converged_within_the_limit_or_its_error():
    for value, error, expected in (
        (0.04, 0.001, True),
        (0.06, 0.001, False),
        (0.06, 0.07, True),
        (0.06, None, False),
        (-0.3, 0.1, True),
    ):
        assert converged({"value": value, "standard_error": error}) is expected
    assert converged({"value": None, "reason": "K is 1"})


def test_the_figure_shows_means_and_what_has_moved(tmp_path, drawn):
    source = PPCA()
    x = source.data(50)
    curve = against_samples(score(ready(source, x), batches(x), 100))
    margins = {"ais_lower": ("bdmc_gap", 0.25)}
    curves = {("iwae_bound", "samples"): curve}
    plots.convergence(curves, tmp_path / "c.png", {"ais_lower": -3.0}, margins)
    (axes,) = drawn[0].axes
    points, _, (bars,) = axes.containers[0]
    np.testing.assert_allclose(points.get_xdata(), curve.counts)
    np.testing.assert_allclose(points.get_ydata(), curve.values.mean(1))
    heights = [np.ptp(bar[:, 1]) / 2 for bar in bars.get_segments()]
    expected = scipy.stats.sem(curve.values - curve.values[-1], axis=1)
    np.testing.assert_allclose(heights, expected, atol=1e-9)
    rise = curve.rise()
    text = f"from 50 to 100: {rise.mean():+.2f} ± {scipy.stats.sem(rise):.2f} nats"
    assert text in axes.get_title(loc="left")
    legend = [t.get_text() for t in axes.get_legend().get_texts()]
    assert legend == ["ais_lower -3.00", "plus the bdmc_gap of simulated data, 0.25"]
    band = axes.patches[-1].get_extents().transformed(axes.transData.inverted())
    np.testing.assert_allclose([band.y0, band.y1], [-3.0, -2.75])
    assert axes.get_ylabel() == "iwae_bound of 50 data, nats per datum"
