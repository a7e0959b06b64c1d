r"""Straight walks through the space of codes: between data, and along what a column stands for."""

from collections.abc import Mapping, Sequence

import numpy as np

STEPS = 9
FACTOR_ROWS = 6
r"""Walks at most in a picture."""


def between(codes: np.ndarray, steps: int = STEPS) -> np.ndarray:
    r"""From each code of the first half to the one in its place in the second half.

    Arguments:
        codes: ``(2 n, d)``, or one more, which is left out.
        steps: s, both ends included.

    Returns:
        ``(n, s, d)``, evenly spaced.
    """
    half = len(codes) // 2
    one, other = codes[:half, None], codes[half : 2 * half, None]
    share = np.linspace(0, 1, steps)[:, None]
    walk: np.ndarray = one + share * (other - one)
    return walk


def along_columns(
    codes: np.ndarray,
    columns: Mapping[str, np.ndarray],
    steps: int = STEPS,
    names: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, np.ndarray]:
    r"""From the first datum of a class, in the direction of the mean code of another.

    The direction is :math:`\bar z_b - \bar z_a`, the difference of the classes' mean codes (the
    arithmetic of attributes), and the walk :math:`z_n + t (\bar z_b - \bar z_a)` for t from 0 to 1,
    with the first datum n of class a. Of one column the walks are from each class to the next, of
    several from the first class of each to its last.

    Arguments:
        codes: ``(N, d)``.
        columns: Whole numbers by name, ``(N,)``; one with a single class is left out.
        steps: s.
        names: Of some columns, what their numbers 0, 1, ... are called; -1 is unknown.

    Returns:
        By the name of the walk ``(s, d)``, :data:`FACTOR_ROWS` at most.
    """
    several = len(columns) > 1
    walks: dict[str, np.ndarray] = {}
    share = np.linspace(0, 1, steps)[:, None]
    for name, values in columns.items():
        classes, called = np.unique(values), (names or {}).get(name)
        ends = [(classes[0], classes[-1])] if several else zip(classes, classes[1:], strict=False)
        for a, b in ends:
            if a == b:
                continue
            direction = codes[values == b].mean(0) - codes[values == a].mean(0)
            start = codes[np.flatnonzero(values == a)[0]]
            one, other = (called[i] if called and i >= 0 else i for i in (a, b))
            walks[f"{name} {one} to {other}"] = start + share * direction
    return dict(list(walks.items())[:FACTOR_ROWS])
