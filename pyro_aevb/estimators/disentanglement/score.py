r"""What a metric of disentanglement gives, and how its error is found.

Codes are ``(N, d)``, real, one row per datum, and factors ``(N, K)``, whole numbers: what datum n
was made of. Two kinds of standard errors are used, each named where it is:

*over halves*, where something is fitted: it is fitted to a random half of the rows and judged on
the other, R times. The value is the mean over halves, the error their standard deviation, which as
half of the rows are left out each time is the delete-half jackknife's error of a metric of all.

*bootstrap*, of sums over rows: the standard deviation of the metric over resampled rows.

References:
    | A General Theory for Jackknife Variance Estimation (Shao and Wu, 1989)
    | https://doi.org/10.1214/aos/1176347263
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from pyro_aevb.errors import UsageError


class Score(NamedTuple):
    r"""The value of a metric and its standard error."""

    value: float
    standard_error: float | None
    r"""None of a single draw."""
    repeats: tuple[float, ...] = ()
    r"""The values of independent draws that it is the mean of, where there are any."""


class Codes(Protocol):
    r"""Codes that are made when they are looked at, such as the pixels of many images."""

    shape: tuple[int, int]
    r"""N and d."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        r"""The codes of some rows ``(M,)``, real, ``(M, d)``."""
        ...


def whole(codes: Codes | np.ndarray) -> np.ndarray:
    r"""All codes, ``(N, d)``."""
    return codes if isinstance(codes, np.ndarray) else codes[np.arange(codes.shape[0])]


def checked(codes: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Codes in float64, and factors whose values are numbered 0, 1, ... in their order.

    Arguments:
        codes: ``(N, d)``.
        factors: ``(N, K)``.

    Raises:
        UsageError: Shapes that do not belong together, fewer than two dimensions or factors, a
            factor with one value, or codes that are not finite.
    """
    codes = np.asarray(codes, np.float64)
    factors = numbered(codes, factors)
    if not np.isfinite(codes).all():
        raise UsageError("some codes are NaN or infinite")
    return codes, factors


def numbered(codes: Codes | np.ndarray, factors: np.ndarray) -> np.ndarray:
    r"""The factors of some codes as :func:`checked` has them, which looks at no code."""
    factors = np.asarray(factors)
    if len(codes.shape) != 2 or factors.ndim != 2 or codes.shape[0] != len(factors):
        raise UsageError(
            f"codes are (N, d) and factors (N, K); they have shapes {codes.shape}, {factors.shape}"
        )
    if min(codes.shape[1], factors.shape[1]) < 2:
        raise UsageError(
            f"disentanglement compares dimensions and factors with one another, and there are "
            f"{codes.shape[1]} and {factors.shape[1]}; it takes two of each"
        )
    found = np.stack([np.unique(column, return_inverse=True)[1] for column in factors.T], 1)
    if (constant := np.flatnonzero(found.max(0) == 0)).size:
        raise UsageError(f"factor {constant[0]} has one value for all data; leave it out")
    return found


def average(values: list[float], halves: bool = False) -> Score:
    r"""The mean of R values, and its standard error.

    Arguments:
        values: Of R independent draws, or of R random halves of the same rows.
        halves: Which: :math:`s / \sqrt{R}` of draws, and s of halves, where s is the standard
            deviation with R - 1.
    """
    mean, repeats = float(np.mean(values)), () if halves else tuple(values)
    if len(values) < 2:
        return Score(mean, None, repeats)
    spread = float(np.std(values, ddof=1))
    return Score(mean, spread if halves else spread / math.sqrt(len(values)), repeats)


def halves(n: int, repeats: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    r"""R times two disjoint halves of n rows, drawn at random.

    Arguments:
        n: How many rows there are.
        repeats: R.
        seed: Fixes the draws.
    """
    for repeat in range(repeats):
        order = np.random.default_rng([seed, repeat]).permutation(n)
        yield order[: n // 2], order[n // 2 :]


def check_varied(factors: np.ndarray, fitted: np.ndarray, what: str) -> None:
    r"""Raise a UsageError where a classifier would see one value of a factor alone.

    Arguments:
        factors: ``(N, K)``.
        fitted: The rows that it sees.
        what: Which metric asks.
    """
    for number, values in enumerate(factors[fitted].T):
        if len(np.unique(values)) < 2:
            raise UsageError(
                f"{what} needs two values of each factor in each half of the data, and factor "
                f"{number} has one: leave it out"
            )


def bootstrap(
    of: Callable[[np.ndarray], np.ndarray], n: int, count: int, seed: int
) -> np.ndarray | None:
    r"""The standard deviation of a statistic over resampled rows, of those in which it is a number;
    None of fewer than two.

    Arguments:
        of: The statistic, from how often each of the rows stands, ``(n,)``, float64.
        n: How many rows there are.
        count: How many resamples.
        seed: Fixes the draws.
    """
    rng = np.random.default_rng([seed, 1])
    drawn = np.array(
        [
            of(np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64))
            for _ in range(count)
        ]
    )
    drawn = drawn[~np.isnan(drawn).reshape(count, -1).any(1)] if count else drawn
    return np.std(drawn, axis=0, ddof=1) if len(drawn) > 1 else None


def gaps(scores: np.ndarray) -> np.ndarray:
    r"""For each factor, how far the best dimension is ahead of the second, ``(K,)``.

    Arguments:
        scores: Of each factor by each dimension, ``(K, d)``, more is better.
    """
    ordered = np.sort(scores, axis=1)
    difference: np.ndarray = ordered[:, -1] - ordered[:, -2]
    return difference
