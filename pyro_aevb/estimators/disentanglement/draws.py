r"""Rows that share the value of a factor, drawn at random.

Where the rows are all combinations of the factors' values, once each, uniform draws of rows are
uniform draws of the factors' values, and a row that shares the value of one factor with another is
a draw of all other factors: codes of every combination are looked up, none is computed twice.
Where they are not, draws follow the factors of the data at hand: values that are frequent are drawn
as often, factors that depend on one another in the data do so in the draws, and a value that one
row alone has is not drawn. There a row is no partner of itself, since the chance of that would
differ from factor to factor and give the factor away.
"""

import numpy as np

from pyro_aevb.errors import UsageError

ROUNDS = 1000
r"""How often a draw that is not wanted is made again."""
TEST = 1 / 3
r"""The share of all pairs that are for tests."""


class Rows:
    r"""The rows of N data by the values of their K factors.

    Arguments:
        factors: ``(N, K)``, numbered from 0.

    Raises:
        UsageError: No two data share a value of some factor.
    """

    def __init__(self, factors: np.ndarray) -> None:
        self.factors = factors
        self.n, self.k = factors.shape
        self.complete = complete(factors)
        r"""Whether the rows are all combinations of the factors' values, once each."""
        self._order = np.argsort(factors, axis=0, kind="stable")
        self._place = np.empty_like(self._order)
        self._sizes = [np.bincount(column) for column in factors.T]
        self._starts = [np.cumsum(sizes) - sizes for sizes in self._sizes]
        self._first = []
        for k, sizes in enumerate(self._sizes):
            self._place[self._order[:, k], k] = np.arange(self.n)
            self._first.append(np.flatnonzero(sizes[factors[:, k]] > 1))
            if not len(self._first[k]):
                raise UsageError(
                    f"no two data share a value of factor {k}, so that none can be held fixed"
                )

    def pairs(
        self, rng: np.random.Generator, factor: int, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        r"""Pairs of rows that share the value of a factor, ``(count,)`` each."""
        one = self._first[factor][rng.integers(len(self._first[factor]), size=count)]
        value = self.factors[one, factor]
        start, size = self._starts[factor][value], self._sizes[factor][value]
        if self.complete:
            return one, self._order[start + rng.integers(size), factor]
        place = start + rng.integers(size - 1)
        return one, self._order[place + (place >= self._place[one, factor]), factor]

    def pairs_of(
        self, rng: np.random.Generator, factor: int, count: int, test: bool, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        r"""As :meth:`pairs`, of the pairs that are for tests, or of the others.

        A hash decides of each pair, in either order, which of the two it is.

        Raises:
            UsageError: There are hardly any.
        """
        one, other = self.pairs(rng, factor, count)
        for _ in range(ROUNDS):
            wrong = np.flatnonzero(self._for_tests(one, other, seed) != test)
            if not len(wrong):
                return one, other
            one[wrong], other[wrong] = self.pairs(rng, factor, len(wrong))
        raise UsageError(f"too few pairs of data share a value of factor {factor}; use more data")

    def batches(self, rng: np.random.Generator, factor: int, count: int, size: int) -> np.ndarray:
        r"""Batches of rows, with replacement, that share the value of a factor: (count, size)."""
        one = self._first[factor][rng.integers(len(self._first[factor]), size=count)]
        value = self.factors[one, factor]
        start, sizes = self._starts[factor][value], self._sizes[factor][value]
        place = start[:, None] + rng.integers(sizes[:, None], size=(count, size))
        rows: np.ndarray = self._order[place, factor]
        return rows

    def _for_tests(self, one: np.ndarray, other: np.ndarray, seed: int) -> np.ndarray:
        # SplitMix64 of the number of the pair
        low, high = np.minimum(one, other), np.maximum(one, other)
        stream = np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        x = (low * self.n + high).astype(np.uint64) + stream
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        chosen: np.ndarray = (x ^ (x >> np.uint64(31))) < np.uint64(int(TEST * 2**64))
        return chosen


def complete(factors: np.ndarray) -> bool:
    r"""Whether rows ``(N, K)``, numbered from 0, are all combinations of values, once each."""
    sizes = [int(size) + 1 for size in factors.max(0)]
    total = 1
    for size in sizes:
        total *= size
    if total != len(factors):
        return False
    numbers = np.ravel_multi_index(tuple(factors.T), tuple(sizes))
    return bool((np.bincount(numbers, minlength=total) == 1).all())
