"""Metrics of disentanglement against closed forms, loops, scikit-learn and another package."""

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import batches, ready
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, mutual_info_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import pyro_aevb
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.engine.processes import Alone
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.disentanglement import DISENTANGLEMENT
from pyro_aevb.estimators.disentanglement import dci as dci_file
from pyro_aevb.estimators.disentanglement import higgins as higgins_file
from pyro_aevb.estimators.disentanglement.codes import choose_factors, coded_split, mean_codes
from pyro_aevb.estimators.disentanglement.dci import completeness_of, dci, disentanglement_of
from pyro_aevb.estimators.disentanglement.draws import Rows, complete
from pyro_aevb.estimators.disentanglement.explicitness import auc, explicitness
from pyro_aevb.estimators.disentanglement.factorvae import factorvae
from pyro_aevb.estimators.disentanglement.few_labels import few_labels
from pyro_aevb.estimators.disentanglement.higgins import higgins
from pyro_aevb.estimators.disentanglement.information import Histograms
from pyro_aevb.estimators.disentanglement.mig import mig
from pyro_aevb.estimators.disentanglement.modularity import modularity, modularity_of
from pyro_aevb.estimators.disentanglement.record import scores
from pyro_aevb.estimators.disentanglement.sap import sap, score_table
from pyro_aevb.estimators.disentanglement.score import average, gaps, halves
from pyro_aevb.estimators.work import Work
from pyro_aevb.reports import plots
from pyro_aevb.reports.plots import canvas
from pyro_aevb.runs.prepare import restore
from pyro_aevb.studies.linear_codes import linear_codes

LOG2, LOG3 = math.log(2), math.log(3)
SIZES = (3, 4, 6, 10)
FEW = {"train_points": 1500, "test_points": 1500}


def grid(*sizes):
    """All combinations once: row r has the digits of r, (N, K)."""
    return np.stack(np.unravel_index(np.arange(math.prod(sizes)), sizes), 1)


def noise(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def turned(codes, i, j):
    """Two dimensions, scaled to variance 1, rotated by 45 degrees."""
    codes = codes / codes.std(0)
    one, other = codes[:, i].copy(), codes[:, j].copy()
    codes[:, i], codes[:, j] = (one + other) / math.sqrt(2), (one - other) / math.sqrt(2)
    return codes


def mixed(n=600, seed=3):
    """Codes that mix three factors."""
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(v, size=n) for v in (3, 4, 6)], 1)
    mix = np.array([[1.0, 0.2, 0.0, 0.5], [0.0, 1.0, 0.3, 0.5], [0.1, 0.0, 1.0, 0.0]])
    return factors @ mix + 0.3 * rng.normal(size=(n, 4)), factors


METRICS = {
    "higgins": lambda z, f: higgins(z, f, **FEW, repeats=2).value,
    "factorvae": lambda z, f: factorvae(z, f, **FEW, repeats=2).value,
    "mig": lambda z, f: mig(z, f, resamples=0).score.value,
    "modularity": lambda z, f: modularity(z, f, resamples=0).value,
    "disentanglement": lambda z, f: dci(z, f, 10, repeats=1).disentanglement.value,
    "completeness": lambda z, f: dci(z, f, 10, repeats=1).completeness.value,
    "informativeness": lambda z, f: dci(z, f, 10, repeats=1).informativeness.value,
    "thresholds": lambda z, f: sap(z, f, repeats=1).score.value,
    "correlation": lambda z, f: sap(z, f, "correlation", repeats=1).score.value,
    "explicitness": lambda z, f: explicitness(z, f, repeats=1).value,
}
PERFECT = {
    "higgins": 100,
    "factorvae": 100,
    "mig": 1,
    "modularity": 1,
    "disentanglement": 1,
    "completeness": 1,
    "informativeness": 100,
    "thresholds": 1 - np.mean([1 / v for v in SIZES]),
    "explicitness": 1,
}


@pytest.mark.parametrize("name", PERFECT)
def test_a_dimension_for_each_factor_has_the_best_value_in_any_order_sign_and_scale(name):
    factors = grid(*SIZES)
    codes = factors[:, [2, 0, 3, 1]] * np.array([1.0, -7.0, 0.3, -0.02]) + 5
    # a second best dimension is at chance: of trees fitted to halves, up to their noise
    tolerance = {"thresholds": 0.05, "explicitness": 0.001}.get(name, 1e-9)
    assert METRICS[name](codes, factors) == pytest.approx(PERFECT[name], abs=tolerance)


def test_correlations_of_a_dimension_for_each_factor_are_one_and_none():
    factors = grid(*SIZES)
    every = np.arange(len(factors))
    table = score_table(-2.0 * factors, factors, every, every, "correlation")
    np.testing.assert_allclose(table, np.eye(4), atol=1e-12)


def test_codes_of_nothing_are_at_chance():
    factors = grid(3, 6, 8, 8, 6)  # 6,912 rows
    codes = noise(len(factors), 6)
    for score in (higgins(codes, factors, repeats=2), factorvae(codes, factors, repeats=2)):
        binomial = 100 * math.sqrt(0.2 * 0.8 / 10_000)
        assert abs(score.value - 20) < 4 * binomial
    rows = np.random.default_rng(0).choice(len(codes), 2500, replace=False)
    few, of = codes[rows], factors[rows]
    assert 0 < mig(few, of, resamples=0).score.value < 0.01
    assert abs(sap(few, of).score.value) < 0.03
    assert sap(few, of, "correlation").score.value < 0.01
    found = dci(few, of, 10, repeats=1)
    assert found.disentanglement.value < 0.01 and found.completeness.value < 0.01
    chance = 100 * np.mean([1 / 3, 1 / 6, 1 / 8, 1 / 8, 1 / 6])
    assert found.informativeness.value == pytest.approx(chance, abs=2)
    assert explicitness(few, of).value == pytest.approx(0.5, abs=0.02)


def test_a_constant_code_says_nothing():
    factors = grid(*SIZES)
    codes = np.full((len(factors), 3), 0.7)
    for score in (higgins(codes, factors, **FEW), factorvae(codes, factors, **FEW)):
        assert abs(score.value - 25) < 4 * 100 * math.sqrt(0.25 * 0.75 / 4500)
    for name in ("mig", "modularity", "disentanglement", "completeness", "correlation"):
        assert METRICS[name](codes, factors) == 0
    assert METRICS["thresholds"](codes, factors) == 0
    assert METRICS["explicitness"](codes, factors) == 0.5


def test_duplicated_dimensions_are_disentangled_and_not_complete():
    factors = grid(*SIZES)
    codes = np.hstack([factors, factors]).astype(float)
    for name in ("higgins", "factorvae", "modularity", "disentanglement"):
        assert METRICS[name](codes, factors) == pytest.approx(PERFECT[name], abs=1e-9)
    for name in ("mig", "thresholds", "correlation"):
        assert METRICS[name](codes, factors) == pytest.approx(0, abs=1e-12)
    # A tree takes either of two that are the same, as often: 1 - log 2 / log 8 of its importance.
    assert dci(codes, factors, 60).completeness.value == pytest.approx(2 / 3, abs=0.05)


def test_a_pair_of_dimensions_that_is_rotated_by_45_degrees():
    factors = grid(8, 16, 16)
    codes = turned(factors.astype(float), 1, 2)
    # Factor 0 has its dimension; the others are in two alike: (1 + 0 + 0) / 3.
    assert METRICS["mig"](codes, factors) == pytest.approx(1 / 3, abs=3e-3)  # but for edges of bins
    every = np.arange(len(factors))
    table = score_table(codes, factors, every, every, "correlation")
    expected = [[1, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]]
    np.testing.assert_allclose(table, expected, atol=1e-12)
    # Two of three factors cannot be told apart: they are guessed.
    for name in ("higgins", "factorvae"):
        assert METRICS[name](codes, factors) == pytest.approx(200 / 3, abs=4)
    information = Histograms(codes, factors).information()[0]
    assert information[1, 1] == pytest.approx(information[2, 1], rel=0.02) != 0
    # Dimension 0 is modular, and of the others each speaks of two factors alike: (1 + 2 / 2) / 3.
    assert METRICS["modularity"](codes, factors) == pytest.approx(2 / 3, abs=6e-3)
    factors = np.tile(grid(3, 8, 8), (16, 1))
    codes = turned(factors.astype(float), 1, 2)
    found = dci(codes, factors, 10, repeats=1)
    # Importances I and [[.5, .5], [.5, .5]]: D and C are 1/3 + 2/3 (1 - log 2 / log 3).
    for score in (found.disentanglement, found.completeness):
        assert score.value == pytest.approx(1 - 2 / 3 * LOG2 / LOG3, abs=0.03)
    assert METRICS["explicitness"](codes, factors) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", METRICS)
def test_order_sign_and_scale_of_dimensions_make_no_difference(name):
    codes, factors = mixed(400)
    codes = turned(codes, 0, 1)
    value = METRICS[name](codes, factors)
    # the same draws, but of the trees, and of the classifiers' last digits
    loose = {"higgins": 0.3, "disentanglement": 0.03, "completeness": 0.03, "informativeness": 3}
    changed = codes[:, [2, 0, 3, 1]] * np.array([-4.0, 2.0, 0.25, -0.5])
    assert METRICS[name](changed, factors) == pytest.approx(value, abs=loose.get(name, 1e-9))
    assert abs(value - PERFECT.get(name, 1)) > 0.005


# Information


def test_the_gap_of_codes_whose_information_is_known():
    factors = grid(3, 2)
    first, second = factors.T
    # I(v0; z1) = H(1/3), of log 3; no dimension says anything of v1
    codes = np.stack([first, first == 2], 1).astype(float)
    found = mig(codes, factors, resamples=0)
    share = (LOG3 - 2 / 3 * LOG2) / LOG3
    np.testing.assert_allclose(found.share, [[1, share], [0, 0]], atol=1e-12)
    assert found.score.value == pytest.approx((1 - share) / 2, abs=1e-12)
    # two coins and their sum: 0, 1, 2 with 1/4, 1/2, 1/4, half a bit of each
    factors = grid(2, 2)
    codes = np.stack([factors[:, 0], factors.sum(1)], 1).astype(float)
    found = mig(codes, factors, resamples=0)
    np.testing.assert_allclose(found.share, [[1, 0.5], [0, 0.5]], atol=1e-12)
    assert found.score.value == pytest.approx(0.5) and found.gaps == pytest.approx([0.5, 0.5])
    information, entropy = Histograms(codes, factors).information()
    np.testing.assert_allclose(information, [[LOG2, LOG2 / 2], [0, LOG2 / 2]], atol=1e-12)
    np.testing.assert_allclose(entropy, [LOG2, LOG2])  # nats


def test_bins_that_hold_two_values_halve_what_a_perfect_code_says():
    factors = grid(8, 4)
    found = mig(factors.astype(float), factors, bins=4, resamples=0)
    assert found.score.value == pytest.approx((2 / 3 + 1) / 2)  # 2 of 3 bits, and all 2 of 2


def by_loops(codes, factors, bins):
    """Mutual information by counting, (K, d), and entropies."""
    n = len(codes)
    table = np.zeros((factors.shape[1], codes.shape[1]))
    entropies = []
    for j in range(factors.shape[1]):
        of_value = Counter(factors[:, j].tolist())
        entropies.append(-sum(c / n * math.log(c / n) for c in of_value.values()))
        for i in range(codes.shape[1]):
            low, high = codes[:, i].min(), codes[:, i].max()
            number = [min(int((z - low) / (high - low) * bins), bins - 1) for z in codes[:, i]]
            of_bin, joint = Counter(number), Counter(zip(number, factors[:, j], strict=True))
            for (b, v), count in joint.items():
                table[j, i] += count / n * math.log(count * n / (of_bin[b] * of_value[v]))
    return table, np.array(entropies)


def test_information_is_that_of_loops_and_of_scikit_learn():
    codes, factors = mixed(150)
    table, entropies = by_loops(codes, factors, 7)
    information, entropy = Histograms(codes, factors, 7).information()
    np.testing.assert_allclose(information, table, atol=1e-10)
    np.testing.assert_allclose(entropy, entropies, atol=1e-12)
    edges = [np.histogram_bin_edges(z, 7)[1:-1] for z in codes.T]
    for j, y in enumerate(factors.T):
        theirs = [
            mutual_info_score(np.digitize(z, e), y) for z, e in zip(codes.T, edges, strict=True)
        ]
        np.testing.assert_allclose(information[j], theirs, atol=1e-10)
    ordered = -np.sort(-table, axis=1)
    gap = np.mean((ordered[:, 0] - ordered[:, 1]) / entropies)
    assert mig(codes, factors, 7, 0).score.value == pytest.approx(gap, abs=1e-10)
    each = []
    for i in range(4):
        best = int(table[:, i].argmax())
        rest = sum(table[j, i] ** 2 for j in range(3) if j != best)
        each.append(1 - rest / (table[best, i] ** 2 * 2))
    assert modularity(codes, factors, 7, 0).value == pytest.approx(np.mean(each), abs=1e-10)
    # weights are rows that stand as often
    weights = np.random.default_rng(0).integers(0, 4, 150).astype(float)
    codes[0], codes[1], weights[:2] = codes.min(0), codes.max(0), 1  # the bins stay
    rows = np.repeat(np.arange(150), weights.astype(int))
    weighted = Histograms(codes, factors, 7).information(weights)[0]
    repeated = Histograms(codes[rows], factors[rows], 7).information()[0]
    np.testing.assert_allclose(weighted, repeated, atol=1e-10)


def test_modularity_by_hand():
    information = np.array([[3.0, 0.0, 1.0], [1.0, 0.0, 1.0], [2.0, 0.0, 0.0]])
    expected = ((1 - 5 / 18) + 0 + (1 - 1 / 2)) / 3
    assert modularity_of(information) == pytest.approx(expected)
    assert modularity_of(information / 7) == pytest.approx(expected)


def test_the_bootstrap_knows_the_spread_over_data():
    gap, modular = [], []
    for seed in range(40):
        codes, factors = mixed(2000, seed)
        gap.append(mig(codes, factors, resamples=0).score.value)
        modular.append(modularity(codes, factors, resamples=0).value)
    codes, factors = mixed(2000, 100)
    assert mig(codes, factors).score.standard_error == pytest.approx(np.std(gap), rel=0.45)
    error = modularity(codes, factors).standard_error
    assert error == pytest.approx(np.std(modular), rel=0.45)
    assert mig(codes, factors, resamples=0).score.standard_error is None


# Importances


def test_disentanglement_and_completeness_of_importances_by_hand():
    def bits(p):
        return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))

    importance = np.array([[3.0, 1.0], [0.0, 4.0]])
    assert disentanglement_of(importance) == pytest.approx(1 - 0.5 * bits(0.25))
    assert completeness_of(importance) == pytest.approx(1 - 5 / 8 * bits(0.2))
    # three dimensions, two factors: each has its own base of the logarithm
    importance = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    assert disentanglement_of(importance) == pytest.approx(1)
    assert completeness_of(importance) == pytest.approx(1 - 0.5 * LOG2 / LOG3)
    assert disentanglement_of(np.ones((3, 2))) == pytest.approx(0, abs=1e-12)
    assert completeness_of(np.ones((3, 2))) == pytest.approx(0, abs=1e-12)
    assert disentanglement_of(np.zeros((3, 2))) == 0
    # a dimension of no importance has no say
    assert disentanglement_of(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])) == 1


def test_importance_has_a_row_for_each_dimension_and_is_that_of_the_factor():
    factors = grid(4, 5, 6)
    codes = np.hstack([noise(120, 1), factors[:, [1]], noise(120, 1, 1), factors[:, [0, 2]]])
    found = dci(codes, factors, 10)
    assert found.importance.shape == (5, 3)
    expected = [[0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(found.importance, expected, atol=0.25)
    np.testing.assert_allclose(found.importance.sum(0), 1)


# Prediction by single dimensions


def test_scores_of_single_dimensions_are_scikit_learns():
    codes, factors = mixed(400)
    (fitted, judged), *_ = halves(400, 1, 5)
    assert len(np.intersect1d(fitted, judged)) == 0 and len(fitted) == len(judged) == 200
    for predictor in ("thresholds", "svm", "correlation"):
        table = np.zeros((3, 4))
        for j in range(3):
            for i in range(4):
                z, y = codes[:, [i]], factors[:, j]
                if predictor == "correlation":
                    table[j, i] = np.corrcoef(z[judged, 0], y[judged])[0, 1] ** 2
                    continue
                size = {0: 3, 1: 4, 2: 6}[j]
                tree = DecisionTreeClassifier(
                    max_leaf_nodes=size, class_weight="balanced", random_state=0
                )
                svm = LinearSVC(C=0.01, class_weight="balanced", random_state=0)
                model = tree if predictor == "thresholds" else svm
                said = model.fit(z[fitted], y[fitted]).predict(z[judged])
                right = said == y[judged]
                table[j, i] = right.mean()
                if predictor == "thresholds":
                    table[j, i] = balanced_accuracy_score(y[judged], said)
        found = sap(codes, factors, predictor, repeats=1, seed=5)
        np.testing.assert_allclose(found.table, table, atol=1e-9)
        best = -np.sort(-table, axis=1)
        assert found.score.value == pytest.approx((best[:, 0] - best[:, 1]).mean(), abs=1e-9)


def test_halves_know_the_spread_over_data():
    values = [
        gaps(score_table(*mixed(300, seed), range(300), range(300), "correlation")).mean()
        for seed in range(60)
    ]
    found = sap(*mixed(300, 100), "correlation", repeats=60).score
    assert found.standard_error == pytest.approx(np.std(values), rel=0.45)
    assert average([1.0, 2.0, 6.0]).standard_error == pytest.approx(math.sqrt(7 / 3))
    assert average([1.0, 2.0, 6.0], halves=True).standard_error == pytest.approx(math.sqrt(7))
    assert average([2.0]) == (2.0, None, (2.0,))


def test_explicitness_is_the_area_of_scikit_learn():
    rng = np.random.default_rng(0)
    positive, probability = rng.random(80) < 0.3, rng.integers(0, 6, 80) / 5
    assert auc(probability, positive) == pytest.approx(roc_auc_score(positive, probability))
    codes, factors = mixed(300)
    (fitted, judged), *_ = halves(300, 1, 0)
    scaled = (codes - codes.mean(0)) / codes.std(0)
    each = []
    for y in factors.T:
        model = LogisticRegression(C=1000, max_iter=5000).fit(scaled[fitted], y[fitted])
        said = model.predict_proba(scaled[judged])
        areas = [roc_auc_score(y[judged] == v, said[:, v]) for v in range(said.shape[1])]
        each.append(np.mean(areas))
    found = explicitness(codes, factors, repeats=1).value
    assert found == pytest.approx(np.mean(each), abs=1e-9) and 0.8 < found < 0.999


def test_another_package_agrees(monkeypatch):
    """Constants: disent 0.8.0 (_compute_mig, _compute_sap, _compute_dci) on these codes, fitted to
    the first 300 rows and judged on the others; its correlations are those of all rows given."""
    codes, factors = mixed(600)
    first, others, every = np.arange(300), np.arange(300, 600), np.arange(600)
    found = mig(codes, factors, resamples=0).score.value
    assert found == pytest.approx(0.5679935173, abs=1e-8)
    table = score_table(codes, factors, every, every, "correlation")
    assert gaps(table).mean() == pytest.approx(0.6056824229, abs=1e-8)
    table = score_table(codes, factors, first, others, "svm")
    assert gaps(table).mean() == pytest.approx(0.1933333333, abs=1e-3)
    importance = np.array(
        [
            [0.914178, 0.027291, 0.040314],
            [0.003489, 0.947479, 0.080678],
            [0.045022, 0.011232, 0.842597],
            [0.037311, 0.013997, 0.036411],
        ]
    )
    assert disentanglement_of(importance) == pytest.approx(0.7190783620, abs=1e-4)
    assert completeness_of(importance) == pytest.approx(0.7063856176, abs=1e-4)
    # from end to end, its boosted trees under np.random.seed(0): one stream breaks all their ties
    stream, model = np.random.RandomState(0), dci_file._model
    alike = lambda *given: model(*given).set_params(random_state=stream)  # noqa: E731
    monkeypatch.setattr(dci_file, "_model", alike)
    monkeypatch.setattr(dci_file, "halves", lambda *given: [(first, others)])
    boosted = dci(codes, factors, 100, "boosting", repeats=1)
    assert boosted.disentanglement.value == pytest.approx(0.7178516615, abs=1e-4)
    assert boosted.completeness.value == pytest.approx(0.7055904231, abs=1e-4)
    assert boosted.informativeness.value == pytest.approx(87.88888889, abs=1e-3)


# Draws


def test_draws_of_a_complete_grid_are_uniform_over_all_other_factors():
    factors = grid(2, 3, 4)[np.random.default_rng(1).permutation(24)]
    rows = Rows(factors)
    assert rows.complete and complete(grid(2, 3)) and not complete(grid(2, 3)[1:])
    assert not complete(np.vstack([grid(2, 3)[1:], grid(2, 3)[1:2]]))
    one, other = rows.pairs(np.random.default_rng(0), 1, 60_000)
    assert (factors[one, 1] == factors[other, 1]).all()
    counts = np.bincount(24 * one + other, minlength=24 * 24)
    shared = counts[counts > 0]  # each of 24 rows with each of 8, itself among them
    assert len(shared) == 24 * 8 and (np.abs(shared - 312.5) < 5 * math.sqrt(312.5)).all()
    drawn = rows.batches(np.random.default_rng(0), 2, 2000, 30)
    assert (factors[drawn, 2] == factors[drawn[:, :1], 2]).all()
    counts = np.bincount(drawn.ravel(), minlength=24)
    assert (np.abs(counts - 2500) < 5 * math.sqrt(30 * 2500)).all()


def test_draws_of_other_data_pair_no_datum_with_itself_and_leave_out_values_that_stand_alone():
    factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 2]])
    rows = Rows(factors)
    assert not rows.complete
    one, other = rows.pairs(np.random.default_rng(0), 0, 20_000)
    pairs = Counter(zip(one.tolist(), other.tolist(), strict=True))
    assert set(pairs) == {(a, b) for a in range(5) for b in range(5)
                          if a != b and factors[a, 0] == factors[b, 0]}  # fmt: skip
    # rows alike, then partners alike: 1/5 each, and 1/5 by 1/2
    assert pairs[0, 1] == pytest.approx(4000, abs=300)
    assert pairs[2, 4] == pytest.approx(2000, abs=250)
    assert 5 not in rows.batches(np.random.default_rng(0), 0, 500, 4)
    with pytest.raises(UsageError, match="no two data share a value of factor 1"):
        Rows(np.array([[0, 0], [0, 1], [1, 2]]))


def test_no_pair_is_for_training_and_for_tests():
    factors = grid(3, 4, 5)
    rows = Rows(factors)
    sides = []
    for test in (False, True):
        rng, pairs = np.random.default_rng(3), set()
        for factor in range(3):
            one, other = rows.pairs_of(rng, factor, 4000, test, seed=9)
            low, high = np.minimum(one, other), np.maximum(one, other)
            pairs |= set(zip(low.tolist(), high.tolist(), strict=True))
        sides.append(pairs)
    assert not sides[0] & sides[1]
    assert len(sides[1]) / len(sides[0] | sides[1]) == pytest.approx(1 / 3, abs=0.06)
    with pytest.raises(UsageError, match="too few pairs of data share a value of factor"):
        few = Rows(np.array([[0, 0], [0, 1], [1, 1], [2, 0]]))
        for test in (False, True):
            few.pairs_of(np.random.default_rng(0), 0, 5, test, seed=1)


@pytest.mark.parametrize("features", ["standardized", "raw"])
def test_higgins_metric_is_that_of_loops_over_the_same_pairs(features, monkeypatch):
    codes, factors = mixed(300)
    calls, real = [], Rows.pairs_of

    def recorded(self, rng, factor, count, test, seed):
        calls.append((factor, test, *real(self, rng, factor, count, test, seed)))
        return calls[-1][2:]

    monkeypatch.setattr(Rows, "pairs_of", recorded)
    few = {"train_points": 400, "test_points": 300, "features": features}
    found = higgins(codes, factors, 4, **few, repeats=1, seed=2).value
    points = {False: ([], []), True: ([], [])}
    for factor, test, one, other in calls:
        for b in range(len(one) // 4):
            apart = np.zeros(4)
            for pair in range(4 * b, 4 * b + 4):
                assert factors[one[pair], factor] == factors[other[pair], factor]
                for i in range(4):
                    apart[i] += abs(codes[one[pair], i] - codes[other[pair], i]) / 4
            points[test][0].append(apart)
            points[test][1].append(factor)
    assert [len(points[test][1]) for test in (False, True)] == [400, 300]
    scaling = [StandardScaler()] if features == "standardized" else []
    model = make_pipeline(*scaling, LogisticRegression(max_iter=10_000, tol=1e-5))
    x, y = map(np.array, points[True])
    expected = 100 * (model.fit(*map(np.array, points[False])).predict(x) == y).mean()
    assert found == pytest.approx(expected, abs=1e-6) and 60 < found < 99.9


class Lazy:
    """Codes that are made when they are looked at."""

    def __init__(self, codes):
        self.codes, self.shape, self.most = codes, codes.shape, 0

    def __getitem__(self, rows):
        self.most = max(self.most, len(rows))
        return self.codes[rows]


def test_codes_may_be_made_when_they_are_looked_at_and_in_parts(monkeypatch):
    codes, factors = mixed(300)
    how = {"train_points": 400, "test_points": 300, "repeats": 1}
    expected = higgins(codes, factors, 5, **how)
    monkeypatch.setattr(higgins_file, "AT_ONCE", 4 * 5 * 7)  # of 4 numbers, 5 pairs, 7 points
    lazy = Lazy(codes)
    assert higgins(lazy, factors, 5, **how) == expected and lazy.most == 35
    measures = {**DISENTANGLEMENT.options, **FEW, "repeats": 1, "trees": 3, "measures": "mig,sap"}
    found, _ = scores(lazy, factors, measures, lambda n: None, chance=True)
    assert found["mig"] == mig(codes, factors, resamples=0).score and set(found) == {"mig", "sap"}


def test_few_labels_are_a_classifier_of_scikit_learn_on_as_many_of_each_value():
    rng = np.random.default_rng(1)
    labels = rng.choice([5, 7, 9], 4000, p=[0.7, 0.2, 0.1])
    codes = (labels[:, None] == [5, 7]) * [1.0, 40.0] + noise(4000, 2) * [0.7, 25.0]
    found = few_labels(codes, labels, 30, seed=4)
    own = []
    for _ in range(300):  # its draws are others, and so many that their error is small
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(labels == v), 10, False) for v in (5, 7, 9)]
        )
        rest = np.setdiff1d(np.arange(4000), rows)
        model = make_pipeline(StandardScaler().fit(codes), LogisticRegression())
        model[1].fit(model[0].transform(codes[rows]), labels[rows])
        own.append(100 * model[1].score(model[0].transform(codes[rest]), labels[rest]))
    error = math.hypot(found.standard_error, np.std(own) / math.sqrt(300))
    assert abs(found.value - np.mean(own)) < 3 * error and error < 2.5
    assert np.std(own) / math.sqrt(10) == pytest.approx(found.standard_error, rel=0.6)
    for count in (2, 2001):
        with pytest.raises(UsageError, match=f"{count} labels for 3 values of 4,000 data"):
            few_labels(codes, labels, count)


def test_codes_without_training_are_scikit_learns(tmp_path, monkeypatch):
    factors = grid(4, 5, 6)
    rng = np.random.default_rng(0)
    patterns = [rng.integers(0, most, (n, 42)) for n, most in ((4, 110), (5, 80), (6, 60))]
    images = sum(of[values] for of, values in zip(patterns, factors.T, strict=True))
    images = images.astype(np.uint8).reshape(120, 1, 6, 7)
    columns = {n: torch.from_numpy(f) for n, f in zip("abc", factors.T, strict=True)}
    part = Split(torch.from_numpy(images), None, 255, columns)
    sizes = {"a": 4, "b": 5, "c": 6}
    data = DataSet("grid", part, part, part, "none", "made here", factors=sizes)
    few = {"train_points": 300, "test_points": 300, "repeats": 1, "measures": "higgins"}
    how = {"train_points": 300, "test_points": 300, "repeats": 1}
    x = images.reshape(120, -1) / 255
    fitted = PCA(3).fit(x)
    for method, codes in (("pixels", x), ("pca", fitted.transform(x))):
        run = linear_codes(data, method, 3, options={**few, "curve": "2", "factors": "a,b"},
                           out=str(tmp_path / method))  # fmt: skip
        metrics = run.results["metrics"]
        for name, L in (("higgins_score", 10), ("higgins_L2", 2)):
            expected = higgins(codes, factors[:, :2], L, **how).value
            assert metrics[name]["value"] == pytest.approx(expected, abs=0.5), (method, name)
    share = 100 * fitted.explained_variance_ratio_.sum()
    assert metrics["explained_variance"]["value"] == pytest.approx(share, rel=1e-5)
    found = linear_codes(data, "ica", 3, options=few, out=str(tmp_path / "ica")).results["metrics"]
    assert 1 <= found["iterations"]["value"] <= 1000 and found["higgins_score"]["value"] > 40
    for given, said in (
        ({"method": "nmf"}, "method='nmf' is unknown"),
        ({"options": {"pair": 3}}, "has no option 'pair'"),
    ):
        with pytest.raises(UsageError, match=said):
            linear_codes(data, **{"out": str(tmp_path / "no"), **given})


def test_columns_of_linear_codes_that_are_not_there_are_named(tmp_path):
    n = 120
    factors = {"a": torch.arange(n) % 2, "b": torch.arange(n) // 60}
    part = Split(torch.rand(n, 1, 4, 4), torch.arange(n) % 3, 1, factors)
    data = DataSet("made", part, part, part, "none", "made here", factors={"a": 2, "b": 2})
    options = {"train_points": 20, "test_points": 20, "repeats": 1, "trees": 2, "num_codes": 120}
    options |= {"measures": "mig", "resamples": 0}
    for more, said in (
        ({"factors": "a,nope"}, "made has no column 'nope'; there are a, b"),
        ({"label": "size"}, "made has no column 'size'"),
    ):
        with pytest.raises(UsageError, match=said):
            linear_codes(data, "pca", 2, options={**options, **more}, out=tmp_path / "run")
    more = {"label": "label", "labels": "20"}
    run = linear_codes(data, "pca", 2, options={**options, **more}, out=tmp_path / "run")
    assert run.results["metrics"]["mig"]["value"] is not None


def test_the_papers_classifier_reaches_the_converged_one_and_two_factors_are_told_apart():
    factors = grid(6, 7, 8)
    codes = turned(factors.astype(float), 0, 1) + 0.3 * noise(336, 3)
    converged, sgd = (
        higgins(codes, factors, classifier=how, steps=2000, repeats=1, **FEW).value
        for how in ("converged", "sgd")
    )
    assert sgd == pytest.approx(converged, abs=5) and 60 < converged < 80
    factors = grid(12, 15)
    for how in ("converged", "sgd"):
        score = higgins(factors, factors, classifier=how, steps=800, repeats=1, **FEW)
        assert score == (100.0, None, (100.0,))


def test_more_pairs_make_the_metric_easier():
    codes, factors = mixed(600)
    scores = [higgins(codes, factors, pairs, repeats=1).value for pairs in (1, 2, 6)]
    assert scores[0] + 5 < scores[1] < scores[2] - 5


def test_the_votes_are_those_of_loops_over_the_same_batches(monkeypatch):
    codes, factors = mixed(300)
    codes = np.hstack([turned(codes, 0, 1), np.full((300, 1), 0.1), 0.01 * noise(300, 1)])
    calls, real = [], Rows.batches
    monkeypatch.setattr(Rows, "batches", lambda *a: calls.append((a[2], real(*a))) or calls[-1][1])
    found = factorvae(codes, factors, 8, 0.05, 200, 150, repeats=1, seed=4).value
    assert [sum(len(r) for _, r in part) for part in (calls[:3], calls[3:])] == [200, 150]

    def votes(part):
        for factor, drawn in part:
            for batch in drawn:
                ratio = [np.var(codes[batch, i]) / np.var(codes[:, i]) for i in range(4)]
                yield int(np.argmin(ratio)), factor

    table = Counter(votes(calls[:3]))
    guess = [max(range(3), key=lambda y, i=i: table[i, y]) for i in range(4)]
    expected = 100 * np.mean([guess[i] == y for i, y in votes(calls[3:])])
    assert found == pytest.approx(expected, abs=1e-9) and 50 < found < 99.9


def test_seeds_reproduce_and_differ():
    codes, factors = mixed(300)
    codes = turned(codes, 0, 1)
    for of in (
        lambda seed: higgins(codes, factors, **FEW, repeats=2, seed=seed),
        lambda seed: factorvae(codes, factors, **FEW, repeats=2, seed=seed),
        lambda seed: mig(codes, factors, resamples=10, seed=seed).score,
        lambda seed: dci(codes, factors, 5, seed=seed)[:3],
        lambda seed: sap(codes, factors, seed=seed).score,
        lambda seed: explicitness(codes, factors, seed=seed),
    ):
        assert of(1) == of(1) != of(2)


def rare_factors(n):
    """Two factors, each with a value that one datum has."""
    return (np.arange(n)[:, None] == [0, 1]).astype(int)


def test_what_cannot_be_says_why():
    codes, factors = mixed(100)
    rare = rare_factors(100)
    for call, said in (
        (lambda: mig(codes[:5], factors), "shapes .5, 4., .100, 3."),
        (lambda: mig(codes[:, :1], factors), "there are 1 and 3; it takes two of each"),
        (lambda: mig(codes, factors[:, :1]), "there are 4 and 1"),
        (lambda: mig(codes * math.nan, factors), "some codes are NaN"),
        (lambda: mig(codes, factors * [1, 0, 1]), "factor 1 has one value for all data"),
        (lambda: mig(codes, factors, bins=0), "bins is 0"),
        (lambda: higgins(codes, factors, classifier="svm"), "classifier='svm' is unknown"),
        (lambda: higgins(codes, factors, features="none"), "features='none' is unknown"),
        (lambda: higgins(codes, factors, pairs=0), "pairs is 0"),
        (lambda: factorvae(codes, factors, batch=1), "batch is 1"),
        (lambda: dci(codes, factors, model="lasso"), "model='lasso' is unknown"),
        (lambda: sap(codes, factors, "r2"), "predictor='r2' is unknown"),
        (lambda: explicitness(codes, rare), "of which two values are in each half"),
        (lambda: sap(codes, rare, "svm"), "sap by svm needs two values of each factor"),
        (
            lambda: dci(codes, rare, model="boosting"),
            "dci by boosting needs two values of each factor",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            call()


def test_a_value_of_one_datum_leaves_the_bootstrap_finite():
    """A third of the resamples lacks it, and they say nothing; of the others none is above 1."""
    codes, factors = mixed(1000)
    rare = np.column_stack([factors[:, :2], np.arange(1000) == 0]).astype(int)
    for seed in range(3):
        error = mig(codes, rare, seed=seed).score.standard_error
        assert 0 < error < 0.2
    for seed in range(3):
        assert np.isfinite(mig(codes[:100], rare_factors(100), seed=seed).score.standard_error)


def test_factors_that_no_training_point_is_of_are_not_predicted():
    rng = np.random.default_rng(0)
    y = np.array([1, 3, 4] * 20)
    x = np.eye(5)[y] + 0.01 * rng.normal(size=(60, 5))
    for fitted in ((x, y), (x[y != 4], y[y != 4]), (x[y == 3], y[y == 3])):
        weights, biases = higgins_file._converged(*fitted, 5, 0, 0)
        np.testing.assert_array_equal((fitted[0] @ weights.T + biases).argmax(1), fitted[1])


# Runs

OPTIONS = {"train_points": 500, "test_points": 400, "trees": 5, "resamples": 10}


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """1,500 images of a square by its place and size, with a column that is no factor."""
    rng = np.random.default_rng(0)
    x, y, size = (rng.integers(0, 5, 1500) for _ in range(3))
    images = np.zeros((1500, 9, 9), np.uint8)
    for image, i, j, s in zip(images, x, y, size % 4, strict=True):
        image[j : j + 2 + s, i : i + 2 + s] = 1
    path = tmp_path_factory.mktemp("data") / "squares.npz"
    columns = {"x_place": x, "y_place": y, "size": size % 4}
    np.savez(path, images=images, **columns, labels=size % 4, weight=rng.random(1500))
    return str(path)


@pytest.fixture(scope="module")
def run(squares, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("runs") / "vae")
    pair = {"latent_dim": 3, "hidden": [20]}
    return pyro_aevb.fit("VAE", squares, pair, epochs=3, num_samples=2, out=out, show=False,
                         device="cpu")  # fmt: skip


def evaluate(run, **options):
    return pyro_aevb.evaluate(
        run, "disentanglement", {**OPTIONS, **options}, show=False, device="cpu"
    )["metrics"]


def test_the_estimator_is_the_functions_of_the_guides_means(run, monkeypatch):
    drawn, real = [], plots.factors_in_codes
    monkeypatch.setattr(plots, "factors_in_codes", lambda *a: drawn.append(a) or real(*a))
    metrics = evaluate(run, seed=7)
    prepared = restore(run, "cpu")
    x = prepared.test.take(torch.arange(150))
    codes = pyro_aevb.encode(prepared.pair, x)["z"].numpy()
    names = ["x_place", "y_place", "size"]
    factors = np.stack([prepared.data.test.columns[n].numpy() for n in names], 1)
    assert metrics["higgins_score"]["factors"] == names
    points = {"train_points": 500, "test_points": 400, "seed": 7}
    expected = {
        "higgins_score": higgins(codes, factors, 10, **points),
        "factorvae_score": factorvae(codes, factors, **points),
        "mig": mig(codes, factors, 20, 10, 7).score,
        "modularity": modularity(codes, factors, 20, 10, 7),
        "dci_informativeness": dci(codes, factors, 5, seed=7).informativeness,
        "sap": sap(codes, factors, seed=7).score,
        "explicitness": explicitness(codes, factors, seed=7),
    }
    for name, score in expected.items():
        found = metrics[name]
        assert (found["value"], found["standard_error"]) == pytest.approx(score[:2], rel=1e-4), name
        assert found.get("repeats", []) == pytest.approx(list(score.repeats), rel=1e-4)
        assert found["num_data"] == 150 and found["split"] == "test"
        assert found["unit"] == ("%" if name in ("higgins_score", "factorvae_score",
                                                 "dci_informativeness") else "")  # fmt: skip
    assert metrics["higgins_score"]["chance"] == pytest.approx(100 / 3, abs=9)
    assert metrics["higgins_score"]["note"].startswith("chance 3")
    assert metrics["explicitness"]["chance"] == pytest.approx(0.5, abs=0.1)
    assert metrics["mig"]["chance"] < metrics["mig"]["value"]
    table = metrics["mig"]["by_factor"]
    np.testing.assert_allclose(list(table.values()), mig(codes, factors).share, rtol=1e-4)
    ((tables, path),) = drawn
    assert list(tables.values())[0] == table and path.exists()
    importance = metrics["dci_disentanglement"]["by_factor"]
    assert list(importance) == names and sum(importance["size"]) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["periodic", "categorical"])
def test_correlation_refuses_factors_that_are_no_places_on_a_line(run, kind):
    known = restore(run, "cpu")
    sizes, types = {"x_place": 5, "y_place": 5, "size": 4}, {"x_place": "ordered", "size": kind}
    prepared = replace(known, data=replace(known.data, factors=sizes, factor_types=types))
    with pytest.raises(UsageError, match=f"places on a line, and size is {kind}"):
        DISENTANGLEMENT.run(prepared, prepared.test, None, sap="correlation")
    options = {**OPTIONS, "measures": "sap", "sap": "correlation"}
    work = Work(Alone("cpu"))
    found, _ = DISENTANGLEMENT.run(
        prepared, prepared.test, work, factors="x_place,y_place", **options
    )
    assert found["sap"]["value"] > 0  # the other two are asked about, one of no declared type


def test_options_choose_factors_data_and_predictors(run):
    few = {"factors": "size, x_place", "split": "train", "num_codes": 200, "sap": "correlation"}
    metrics = evaluate(run, **few, repeats=2)
    assert list(metrics["mig"]["by_factor"]) == ["size", "x_place"]
    assert [metrics[name]["num_data"] for name in ("higgins_score", "mig")] == [1200, 200]
    assert "training data" in metrics["mig"]["note"]
    prepared = restore(run, "cpu")
    data, factors, split = coded_split(prepared, prepared.test, ["size", "x_place"], "train")
    codes = mean_codes(prepared.pair, data)
    assert split == "train" and codes.shape == (1200, 3)
    chosen = np.random.default_rng(0).choice(1200, 200, replace=False)
    expected = sap(codes[chosen], factors[chosen], "correlation", repeats=2).score
    assert metrics["sap"]["value"] == pytest.approx(expected.value, rel=1e-4)
    for given, said in (
        ({"factors": "sise,x_place"}, "no column 'sise' of whole numbers .did you mean 'size'"),
        ({"factors": "weight,size"}, "no column 'weight' of whole numbers"),
        ({"factors": "size"}, "needs two or more factors"),
        ({"split": "valid"}, "split='valid' is unknown; choose one of auto, test, train"),
        ({"batch": 1}, "batch is 1; a variance takes at least 2 data"),
        ({"sap": "r2"}, "disentanglement: sap='r2' is unknown"),
        ({"trees": 0}, "trees is 0"),
    ):
        with pytest.raises(UsageError, match=said):
            evaluate(run, **given)
    with pytest.raises(UsageError, match="50 data are too few"):
        pyro_aevb.evaluate(run, "disentanglement", num_data=50, show=False, device="cpu")


def test_other_protocols_are_the_metric_with_one_choice_changed(run):
    asked = {"curve": "1, 30", "choices": True, "labels": "8", "label": "size", "steps": 200}
    metrics = evaluate(run, **asked, factors="x_place,y_place", measures="higgins", repeats=1)
    prepared = restore(run, "cpu")
    data, factors, _ = coded_split(prepared, prepared.test, ["x_place", "y_place"])
    codes, how = mean_codes(prepared.pair, data), {"repeats": 1, **OPTIONS}
    how = {name: how[name] for name in ("repeats", "train_points", "test_points")}
    expected = {
        "higgins_score": higgins(codes, factors, **how),
        "higgins_L1": higgins(codes, factors, 1, **how),
        "higgins_L30": higgins(codes, factors, 30, **how),
        "higgins_sgd": higgins(codes, factors, classifier="sgd", steps=200, **how),
        "higgins_raw": higgins(codes, factors, features="raw", **how),
        "higgins_raw_sgd": higgins(codes, factors, features="raw", classifier="sgd", steps=200,
                                   **how),
        "accuracy_8": few_labels(codes, prepared.data.test.columns["size"].numpy(), 8),
    }  # fmt: skip
    assert {*expected, "higgins_sampled"} <= set(metrics) and "higgins_all_factors" not in metrics
    for name, score in expected.items():
        assert metrics[name]["value"] == pytest.approx(score.value, abs=0.1), name
    # A draw of a code is its mean and noise of the guide's scale, which hides what is shared.
    sampled = mean_codes(prepared.pair, data, sample=True)
    x = prepared.test.take(torch.arange(150))
    site = pyro.poutine.trace(prepared.pair.guide).get_trace(x).nodes["z"]["fn"].base_dist
    z = (sampled - site.loc.detach().numpy()) / site.scale.detach().numpy()
    assert abs(z.mean()) < 4 / math.sqrt(z.size) and z.std() == pytest.approx(1, abs=0.15)
    expected = higgins(sampled, factors, **how).value
    assert metrics["higgins_sampled"]["value"] == pytest.approx(expected, abs=0.1)
    for given, said in (
        ({"curve": "1,x"}, "curve: 'x' is no whole number"),
        ({"measures": "mig,migg"}, "measures='migg' is unknown"),
        ({"label": "sise"}, "no column 'sise'"),
    ):
        with pytest.raises(UsageError, match=said):
            evaluate(run, **given)


def test_all_combinations_are_taken_where_the_data_have_them_and_declared_factors_are_known():
    factors = torch.from_numpy(grid(10, 12))
    columns = {"a": factors[:, 0], "b": factors[:, 1], "id": torch.arange(120)}

    def prepared(test, **declared):
        split = type("Part", (), {"columns": columns, "__len__": lambda self: 120})()
        data = SimpleNamespace(name="made", train=split, test=split, **declared)
        return SimpleNamespace(data=data, test=test, fixed_train="all")

    test = range(120)
    known = prepared(test, factors={"a": 10, "b": 12})
    assert choose_factors(known) == ["a", "b"] and choose_factors(known, "b,a") == ["b", "a"]
    assert choose_factors(prepared(test)) == ["a", "b", "id"]
    known.fixed_train = range(120)
    found = coded_split(known, test, ["a", "b"])
    assert found[2] == "train" and np.array_equal(found[1], factors)
    assert coded_split(known, test[:110], ["a", "b"])[2] == "test"
    assert coded_split(prepared(test), test, ["a", "b"])[2] == "test"
    with pytest.raises(UsageError, match="column 'id' has another value for each datum"):
        coded_split(prepared(test), test, ["a", "b", "id"])
    columns["b"] = torch.ones(120, dtype=torch.int64)
    with pytest.raises(UsageError, match="column 'b' has one value"):
        coded_split(prepared(test), test, ["a", "b"])


def test_uncertain_weights_have_a_spread_over_draws(squares, tmp_path):
    run = pyro_aevb.fit(
        "BayesianAutoencoder", squares, {"latent_dim": 2, "hidden": [8]}, epochs=1, num_samples=2,
        weight_samples=1, out=str(tmp_path / "run"), show=False, device="cpu",
    )  # fmt: skip
    metrics = evaluate(run, weight_samples=2, repeats=1, seed=3)
    prepared = restore(run, "cpu")
    names = ["x_place", "y_place", "size"]
    factors = np.stack([prepared.data.test.columns[n].numpy() for n in names], 1)
    draws = [mean_codes(prepared.pair, prepared.test, 3, s) for s in range(2)]
    assert not np.allclose(*draws)
    values = [mig(codes, factors, resamples=0).score.value for codes in draws]
    found = metrics["mig"]
    assert found["value"] == pytest.approx(np.mean(values), rel=1e-4)
    assert found["spread"] == pytest.approx(np.std(values, ddof=1), rel=1e-3)
    assert found["weight_samples"] == 2 and "over draws of the weights" in found["note"]


class Clusters(nn.Module):
    """A code that is the number of a cluster, with a dimension beside it if asked for."""

    def __init__(self, beside=False):
        super().__init__()
        self.beside, self.logits = beside, nn.Parameter(torch.zeros(3))

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=self.logits))
            z = pyro.sample("z", dist.Normal(0.0, 1.0)) if self.beside else 0.0
            loc = (c + z)[..., None].expand(x.shape)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(logits=self.logits.expand(len(x), 3)))
            if self.beside:
                pyro.sample("z", dist.Normal(x.sum(1), 1.0))


def test_data_without_factors_and_codes_without_means_are_one_line():
    columns = {"label": torch.arange(9), "age": torch.ones(9)}
    data = SimpleNamespace(name="digits", test=SimpleNamespace(columns=columns))
    with pytest.raises(UsageError, match="needs two or more factors.* digits has none; say") as e:
        choose_factors(SimpleNamespace(data=data))
    assert "\n" not in str(e.value)
    x = torch.from_numpy(noise(20, 3)).float()
    with pytest.raises(UsageError, match="Clusters has no codes .* no local latent site") as e:
        mean_codes(ready(Clusters(), x), batches(x))
    assert "\n" not in str(e.value)
    codes = mean_codes(ready(Clusters(beside=True), x), batches(x))
    np.testing.assert_allclose(codes, x.sum(1, keepdim=True), rtol=1e-6)


def test_the_picture_shows_each_table_as_it_is(tmp_path, monkeypatch, rendered):
    figures, real = [], canvas.save
    monkeypatch.setattr(canvas, "save", lambda f, path: figures.append(f) or real(f, path))
    tables = {
        "information": {"x$": [0.0, 0.5, 1.0], "y": [0.2, 0.0, 0.1]},
        "importance": {"x$": [1.0, 0.0, 0.0], "y": [0.0, 0.0, 1.0]},
    }
    assert plots.factors_in_codes(tables, tmp_path / "a.png").stat().st_size > 1000
    maps = [axes for axes in figures[0].axes if axes.get_title(loc="left")]
    for axes, (title, table) in zip(maps, tables.items(), strict=True):
        assert axes.get_title(loc="left") == title
        np.testing.assert_array_equal(axes.images[0].get_array(), list(table.values()))
        assert axes.images[0].get_clim() == (0, 1)
        assert [label.get_text() for label in axes.get_yticklabels()] == [r"x\$", "y"]


def test_the_record_has_a_figure_and_options_of_plain_types():
    assert DISENTANGLEMENT.options["pairs"] == 10 and DISENTANGLEMENT.options["factors"] == ""
    assert DISENTANGLEMENT.figure is not None
