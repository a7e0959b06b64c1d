r"""Explicitness: whether a linear classifier finds the factors' values in the whole code.

.. math::
    \text{explicitness} = \frac{1}{K} \sum_j \frac{1}{V_j} \sum_v \mathrm{AUC}_{jv},

where :math:`\mathrm{AUC}_{jv}` is the probability that a datum with value v of factor j is given a
higher probability of v than one with another value (ties count half), by softmax regression of
factor j on the code, fitted to other data. No unit; between 0.5, chance, and 1, which a code with a
dimension for each factor has, and so have its rotations: it judges what the code holds and not how
it is laid out. The paper fits each value against the rest; softmax regression of all values
together is linear too, and can find a value between two others in one dimension.

References:
    | Learning Deep Disentangled Embeddings With the F-Statistic Loss (Ridgeway and Mozer, 2018),
      section 2
    | https://arxiv.org/abs/1802.05312
"""

import numpy as np
from scipy.stats import rankdata

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.disentanglement.score import Score, average, checked, halves

PENALTY = 1000.0
r"""The inverse of the penalty, scikit-learn's C. It is small, and not none, as classes that a plane
divides would have no best one."""


def auc(probability: np.ndarray, positive: np.ndarray) -> float:
    r"""The probability that a positive has the higher one, ties half; both kinds must be there.

    Arguments:
        probability: ``(n,)``.
        positive: Which are, boolean, ``(n,)``.
    """
    count = int(positive.sum())
    ranks = rankdata(probability)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(positive) - count)))


def explicitness(codes: np.ndarray, factors: np.ndarray, repeats: int = 3, seed: int = 0) -> Score:
    r"""Explicitness, with its standard error over halves (:mod:`.score`).

    Values that a half has none of are left out of its mean.

    Arguments:
        codes: ``(N, d)``; each dimension is scaled to variance 1.
        factors: ``(N, K)``.
        repeats: How many halves.
        seed: Fixes them.
    """
    from sklearn.linear_model import LogisticRegression

    codes, factors = checked(codes, factors)
    spread = codes.std(0)
    codes = (codes - codes.mean(0)) / np.where(spread > 0, spread, 1.0)
    found = []
    for fitted, judged in halves(len(codes), repeats, seed):
        means = []
        for y in factors.T:
            if len(np.unique(y[fitted])) < 2:
                continue
            model = LogisticRegression(C=PENALTY, max_iter=5000).fit(codes[fitted], y[fitted])
            probability = model.predict_proba(codes[judged])
            there = [y[judged] == value for value in model.classes_]
            areas = [
                auc(p, of)
                for p, of in zip(probability.T, there, strict=True)
                if 0 < of.sum() < len(of)
            ]
            if areas:
                means.append(np.mean(areas))
        if not means:
            raise UsageError(
                "explicitness needs a factor of which two values are in each half of the data"
            )
        found.append(float(np.mean(means)))
    return average(found, halves=True)
