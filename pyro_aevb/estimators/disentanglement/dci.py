r"""Disentanglement, completeness and informativeness, from what a predictor of factors looks at.

A predictor of each factor j from the code gives the importances :math:`R_{ij} \ge 0` of the d
dimensions. With :math:`P_{ij} = R_{ij} / \sum_{j'} R_{ij'}` and
:math:`\tilde P_{ij} = R_{ij} / \sum_{i'} R_{i'j}`,

.. math::
    D &= \sum_i \rho_i \Big( 1 + \frac{\sum_j P_{ij} \log P_{ij}}{\log K} \Big), \qquad
    \rho_i = \frac{\sum_j R_{ij}}{\sum_{ij} R_{ij}}, \\
    C &= \sum_j \tilde\rho_j \Big( 1 + \frac{\sum_i \tilde P_{ij} \log \tilde P_{ij}}{\log d}
    \Big), \qquad \tilde\rho_j = \frac{\sum_i R_{ij}}{\sum_{ij} R_{ij}} .

D is 1 if each dimension matters for one factor, C if for each factor one dimension matters, and
both 0 if all matter for all alike. Informativeness is here the predictors' mean accuracy on held
out data in per cent; the paper's is an error. A code with a dimension for each factor has 1, 1 and
100 per cent. Chance is found by permuting the codes: near 0 for D and C, for the accuracy the share
of a factor's most frequent value, averaged.

The predictor is a random forest, one of the paper's two. The other, the lasso, is linear, takes
values of a factor for distances, and finds little of a factor such as a rotation. Boosted trees
(``boosting``), what a widely used library takes, fit a tree to every value in every round, which is
slow for factors of 32 to 40 values. Every split looks at all dimensions and leaves 5 data at least:
where a split has to choose among few, dimensions of no use become important for want of others.

References:
    | A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood and
      Williams, 2018), section 2
    | https://openreview.net/forum?id=By-7dz-AZ
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import xlogy

from pyro_aevb.errors import at_least_one, one_of
from pyro_aevb.estimators.disentanglement.score import Score, average, check_varied, checked, halves

MODELS = ("forest", "boosting")
LEAF = 5
r"""Data in a leaf of the forest, at least."""


class Dci(NamedTuple):
    r"""The three scores, and what two of them are made of."""

    disentanglement: Score
    completeness: Score
    informativeness: Score
    r"""In per cent."""
    importance: np.ndarray
    r"""``(d, K)``: R, the mean over halves; a predictor's add up to 1."""


def disentanglement_of(importance: np.ndarray) -> float:
    r"""D of importances ``(d, K)``; 0 where nothing is important."""
    total = importance.sum()
    if not total > 0:
        return 0.0
    of = importance.sum(1)
    p = importance / np.where(of > 0, of, 1.0)[:, None]
    each = 1 + xlogy(p, p).sum(1) / np.log(importance.shape[1])
    return float((each * of).sum() / total)


def completeness_of(importance: np.ndarray) -> float:
    r"""C of importances ``(d, K)``; 0 where nothing is important."""
    return disentanglement_of(importance.T)


def dci(
    codes: np.ndarray,
    factors: np.ndarray,
    trees: int = 30,
    model: str = "forest",
    repeats: int = 3,
    seed: int = 0,
) -> Dci:
    r"""All three, with their standard errors over halves (:mod:`.score`).

    Arguments:
        codes: ``(N, d)``.
        factors: ``(N, K)``.
        trees: Of the forest, or rounds of boosting.
        model: ``forest`` or ``boosting``, of scikit-learn.
        repeats: How many halves.
        seed: Fixes them, and the trees.
    """
    one_of("model", model, MODELS)
    at_least_one("trees", trees)
    codes, factors = checked(codes, factors)
    tables, accuracy = [], []
    for repeat, (fitted, judged) in enumerate(halves(len(codes), repeats, seed)):
        if model == "boosting":
            check_varied(factors, fitted, "dci by boosting")
        fits = [
            _model(model, trees, (seed + repeat) % 2**32).fit(codes[fitted], y[fitted])
            for y in factors.T
        ]
        tables.append(np.stack([fit.feature_importances_ for fit in fits], 1))
        right = [
            fit.predict(codes[judged]) == y[judged] for fit, y in zip(fits, factors.T, strict=True)
        ]
        accuracy.append(100 * float(np.mean(right)))
    return Dci(
        average([disentanglement_of(table) for table in tables], halves=True),
        average([completeness_of(table) for table in tables], halves=True),
        average(accuracy, halves=True),
        np.mean(tables, axis=0),
    )


def _model(model: str, trees: int, seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

    if model == "boosting":
        return GradientBoostingClassifier(n_estimators=trees, random_state=seed)
    return RandomForestClassifier(
        trees, max_features=None, min_samples_leaf=LEAF, random_state=seed
    )
