r"""Separated attribute predictability: one dimension against the second best, by prediction.

.. math::
    \text{sap} = \frac{1}{K} \sum_j \Big( S_{j i^*} - \max_{i \ne i^*} S_{ji} \Big), \qquad
    i^* = \arg\max_i S_{ji},

with a score :math:`S_{ji}` between 0 and 1 of how well dimension i alone predicts factor j:

``thresholds``
    the mean over values v of the share of held-out data with v that are found by thresholds on
    the dimension (a decision tree with as many leaves as the factor has values, values weighted
    alike, split by split): the paper's for discrete factors. A code with a
    dimension for each factor has :math:`1 - \frac{1}{K} \sum_j 1 / V_j`, as the second best is at
    chance.
``svm``
    the accuracy on held-out data of a linear support vector machine, C = 0.01, classes weighted
    alike: what a widely used library takes. Each value is told from all others by one threshold, so
    that of an ordered factor with many values it finds the first and the last; even a code with a
    dimension for each factor has little more than :math:`1 / V_j` then.
``correlation``
    the squared correlation: the paper's for continuous factors. A code with a dimension
    proportional to each factor has 1, less the correlation of the factors.

Chance is near 0 for all. No unit.

References:
    | Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar,
      Sattigeri and Balakrishnan, 2018), section 3
    | https://arxiv.org/abs/1711.00848
"""

from typing import NamedTuple

import numpy as np

from pyro_aevb.errors import one_of
from pyro_aevb.estimators.disentanglement.score import (
    Score,
    average,
    check_varied,
    checked,
    gaps,
    halves,
)

PREDICTORS = ("thresholds", "svm", "correlation")


class Sap(NamedTuple):
    r"""The score and what it is made of."""

    score: Score
    table: np.ndarray
    r"""``(K, d)``: S, the mean over halves."""


def sap(
    codes: np.ndarray,
    factors: np.ndarray,
    predictor: str = "thresholds",
    repeats: int = 3,
    seed: int = 0,
) -> Sap:
    r"""The score, with its standard error over halves (:mod:`.score`).

    Arguments:
        codes: ``(N, d)``.
        factors: ``(N, K)``.
        predictor: ``thresholds``, ``svm`` or ``correlation``; of the last the squared correlation
            is that of the half that is judged.
        repeats: How many halves.
        seed: Fixes them.
    """
    one_of("predictor", predictor, PREDICTORS)
    codes, factors = checked(codes, factors)
    tables = [
        score_table(codes, factors, fitted, judged, predictor)
        for fitted, judged in halves(len(codes), repeats, seed)
    ]
    score = average([float(gaps(table).mean()) for table in tables], halves=True)
    return Sap(score, np.mean(tables, axis=0))


def score_table(
    codes: np.ndarray,
    factors: np.ndarray,
    fitted: np.ndarray,
    judged: np.ndarray,
    predictor: str = "thresholds",
) -> np.ndarray:
    r"""S, ``(K, d)``, of some rows by predictors that were fitted to others."""
    if predictor == "svm":
        check_varied(factors, fitted, "sap by svm")
    table = np.zeros((factors.shape[1], codes.shape[1]))
    for j, y in enumerate(factors.T):
        for i, z in enumerate(codes.T):
            of = z[fitted, None], y[fitted], z[judged, None], y[judged]
            table[j, i] = (
                _squared(z[judged], y[judged])
                if predictor == "correlation"
                else (_by_thresholds(*of) if predictor == "thresholds" else _by_svm(*of))
            )
    return table


def _squared(z: np.ndarray, y: np.ndarray) -> float:
    z, y = z - z.mean(), y - y.mean()
    both = float((z**2).sum() * (y**2).sum())
    # of a constant but for rounding there is nothing to correlate
    return float((z * y).sum()) ** 2 / both if both > 1e-20 * len(z) ** 2 else 0.0


def _by_thresholds(z: np.ndarray, y: np.ndarray, z_new: np.ndarray, y_new: np.ndarray) -> float:
    from sklearn.tree import DecisionTreeClassifier

    leaves = max(2, len(np.unique(y)))
    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, class_weight="balanced", random_state=0)
    right = tree.fit(z, y).predict(z_new) == y_new
    return float(np.mean([right[y_new == value].mean() for value in np.unique(y_new)]))


def _by_svm(z: np.ndarray, y: np.ndarray, z_new: np.ndarray, y_new: np.ndarray) -> float:
    from sklearn.svm import LinearSVC

    machine = LinearSVC(C=0.01, class_weight="balanced", random_state=0, max_iter=10_000)
    return float((machine.fit(z, y).predict(z_new) == y_new).mean())
