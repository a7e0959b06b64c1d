r"""How well a classifier reads a factor from the code where few data have a label.

.. math::
    \text{accuracy} = 100 \cdot \frac{1}{N'} \sum_{n'} 1[\hat y(z_{n'}) = y_{n'}],

in per cent, on data that none of the labels is of, of softmax regression :math:`\hat y` that was
fitted to n codes and their labels. Chance is the share of the commonest value. It asks what the
code is worth to those who have few labels, and not how it is laid out: a rotation changes nothing
but the penalty's reach.
"""

import numpy as np

from pyro_aevb.errors import UsageError, at_least_one
from pyro_aevb.estimators.disentanglement.score import Codes, Score, average, numbered

REPEATS = 10
r"""Draws of the data that have labels."""
JUDGED = 10_000
r"""Data at most that a draw is judged on."""


def few_labels(codes: np.ndarray | Codes, labels: np.ndarray, count: int, seed: int = 0) -> Score:
    r"""The accuracy in per cent, with its standard error over draws of the data with labels.

    Each value has as many labels as another, up to one; scikit-learn's logistic regression with its
    penalty C = 1 is fitted to convergence, each dimension scaled to variance 1 over the data
    that are looked at, with labels or without.

    Arguments:
        codes: ``(N, d)``.
        labels: ``(N,)``, whole numbers.
        count: n, the number of data with labels.
        seed: Fixes the draws.

    Raises:
        UsageError: There are fewer labels than values, or no data that are left to judge on.
    """
    from sklearn.linear_model import LogisticRegression

    at_least_one("labels", count)
    labels = numbered(codes, np.stack([labels, labels], 1))[:, 0]
    values = int(labels.max()) + 1
    if count < values or count > len(labels) // 2:
        raise UsageError(
            f"{count} labels for {values} values of {len(labels):,} data; give at least a label to "
            "each value, and leave half of the data without"
        )
    found = []
    for repeat in range(REPEATS):
        rng = np.random.default_rng([seed, repeat])
        order = rng.permutation(len(labels))
        # The first of each value, then the second of each, ...: a stable sort by rank within it.
        rank = np.empty(len(labels), np.int64)
        for value in range(values):
            own = np.flatnonzero(labels[order] == value)
            rank[own] = np.arange(len(own))
        order = order[np.argsort(rank, kind="stable")]
        rows = np.concatenate([order[:count], rng.permutation(order[count:])[:JUDGED]])
        x, y = codes[rows], labels[rows]
        spread = x.std(0)
        x = (x - x.mean(0)) / np.where(spread > 0, spread, 1.0)
        model = LogisticRegression(max_iter=10_000).fit(x[:count], y[:count])
        found.append(100 * float((model.predict(x[count:]) == y[count:]).mean()))
    return average(found)
