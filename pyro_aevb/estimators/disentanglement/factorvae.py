r"""FactorVAE's metric: the dimension that varies least tells which factor is fixed.

A vote holds one factor :math:`y \sim U\{1, \dots, K\}` at a value and draws a batch of L data that
have it, all else drawn anew. Its dimension is the one whose variance within the batch, relative to
that over all data, is least,

.. math::
    i^* = \arg\min_i \frac{\mathrm{Var}_{l}(z_{li})}{\mathrm{Var}(z_i)} ,
    \qquad \hat y(i) = \arg\max_y \#\{\text{training votes } (i, y)\},

and the score the share in per cent of separately drawn votes for which :math:`\hat y(i^*) = y`.
A code with a dimension for each factor has 100, chance is 100 / K; from few data it is more, as the
data that share a value are the same in training and in test votes. Nothing is optimized, and no
scale enters. A constant dimension is left out, as rounding would win every vote. The paper leaves
out those that equal the prior, which libraries take to be those with a standard deviation below
0.05 of their means over data: that is ``collapsed=0.05``, which only makes sense where the prior
has variance 1. If no dimension is left, every vote is for the first.

References:
    | Disentangling by Factorising (Kim and Mnih, 2018), section 4
    | https://arxiv.org/abs/1802.05983
"""

import numpy as np

from pyro_aevb.errors import UsageError, at_least_one
from pyro_aevb.estimators.disentanglement.draws import Rows
from pyro_aevb.estimators.disentanglement.score import Score, average, checked

CONSTANT = 1e-6
r"""A dimension is constant if its standard deviation is below this share of its greatest size."""
CHUNK = 1000
r"""Votes that are drawn at once."""


def factorvae(
    codes: np.ndarray,
    factors: np.ndarray,
    batch: int = 64,
    collapsed: float = 0.0,
    train_points: int = 10_000,
    test_points: int = 5_000,
    repeats: int = 3,
    seed: int = 0,
) -> Score:
    r"""The score in per cent, with its standard error over repeats.

    Each repeat draws all votes anew. The error is of the draws and not of the codes.

    Arguments:
        codes: ``(N, d)``.
        factors: ``(N, K)``; :mod:`.draws` says what is drawn where they are no complete grid.
        batch: L, at least 2.
        collapsed: The standard deviation below which a dimension is left out.
        train_points: Votes that make the classifier.
        test_points: Votes that it is judged on.
        repeats: How often.
        seed: Fixes all draws.

    Raises:
        UsageError: A batch of one datum has no variance.
    """
    at_least_one("train_points", train_points)
    at_least_one("test_points", test_points)
    if batch < 2:
        raise UsageError(f"batch is {batch}; a variance takes at least 2 data")
    codes, factors = checked(codes, factors)
    rows, found = Rows(factors), []
    spread = codes.std(0)
    alive = np.flatnonzero((spread > CONSTANT * np.abs(codes).max(0)) & (spread >= collapsed))
    relative = codes[:, alive] / spread[alive]
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        votes = np.zeros((max(1, len(alive)), rows.k), np.int64)
        np.add.at(votes, _votes(relative, rows, rng, batch, train_points), 1)
        i, y = _votes(relative, rows, rng, batch, test_points)
        found.append(100 * float((votes.argmax(1)[i] == y).mean()))
    return average(found)


def _votes(
    relative: np.ndarray, rows: Rows, rng: np.random.Generator, batch: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    r"""The dimension of each vote, and its factor, ``(count,)``."""
    y = rng.integers(rows.k, size=count)
    i = np.zeros(count, np.int64)
    if not relative.shape[1]:
        return i, y
    for factor in range(rows.k):
        of = np.flatnonzero(y == factor)
        for start in range(0, len(of), CHUNK):
            part = of[start : start + CHUNK]
            drawn = relative[rows.batches(rng, factor, len(part), batch)]
            i[part] = drawn.var(1).argmin(1)
    return i, y
