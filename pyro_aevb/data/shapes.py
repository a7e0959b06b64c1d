r"""Rectangles and convex sets in black and white: two sets of Larochelle et al., drawn anew."""

from __future__ import annotations

import numpy as np
from scipy import fft

SIDE = 28
r"""Height and width of every image, in pixels."""
OUTER = 1.5 * SIDE
r"""Side of the square about the image that lines of convex sets pass through, in pixels."""
_GRID = np.arange(SIDE) - (SIDE - 1) / 2
_PIXELS = np.stack(np.meshgrid(_GRID, _GRID, indexing="ij"), -1).reshape(-1, 2)
_BLOCK = 4096


def rectangles(rng: np.random.RandomState, n: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Outlines of rectangles, one white pixel wide, on black.

    Height and width are uniform on 4, ..., 28 and differ by 3 at least; the place is uniform among
    those where the rectangle lies within the image.

    Returns:
        Images of 0 and 1, uint8, (n, 28, 28), and labels, int64, (n,), 1 where taller than wide.
    """
    height, width = sizes(rng, n, 4, 3, (0.0, 1.0))
    outer, tall = boxes(rng, height, width), height > width
    # what has all four neighbours in the rectangle is not on its border
    within = np.pad(outer, ((0, 0), (1, 1), (1, 1)))
    inner = within[:, :-2, 1:-1] & within[:, 2:, 1:-1] & within[:, 1:-1, :-2] & within[:, 1:-1, 2:]
    return (outer & ~inner).astype(np.uint8), tall.astype(np.int64)


def sizes(
    rng: np.random.RandomState, n: int, least: int, apart: int, area: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    r"""Heights and widths of rectangles, in pixels, uniform among the pairs that are allowed.

    Arguments:
        rng: The source of random numbers.
        n: How many.
        least: The least height and width; the largest is 28.
        apart: By how much they differ at least.
        area: Between which fractions of the image the product lies, both included.

    Returns:
        The heights and the widths, int64, (n,) each.
    """
    side = np.arange(least, SIDE + 1)
    height, width = (axis.ravel() for axis in np.meshgrid(side, side, indexing="ij"))
    fraction = height * width / SIDE**2
    allowed = np.abs(height - width) >= apart
    allowed &= (area[0] <= fraction) & (fraction <= area[1])
    chosen = np.flatnonzero(allowed)[rng.randint(allowed.sum(), size=n)]
    return height[chosen], width[chosen]


def boxes(rng: np.random.RandomState, height: np.ndarray, width: np.ndarray) -> np.ndarray:
    r"""Filled rectangles of some heights and widths at uniform places, bool, (n, 28, 28)."""
    spans = []
    for length in (height, width):
        start = (rng.random_sample(len(length)) * (SIDE + 1 - length)).astype(int)[:, None]
        spans.append((np.arange(SIDE) >= start) & (np.arange(SIDE) < start + length[:, None]))
    inside: np.ndarray = spans[0][:, :, None] & spans[1][:, None]
    return inside


def convex(rng: np.random.RandomState, n: int) -> tuple[np.ndarray, np.ndarray]:
    r"""White sets on black, convex or not, a fair coin each.

    Published are these rules. A convex set is the intersection of k half-planes,
    :math:`k \sim Geometric(0.195)` on 1, 2, ..., of more than 19 pixels. What is not convex is the
    union of 2, 3 or 4 (uniform) such sets with :math:`k \sim Geometric(0.07)` and more than 10
    pixels each, if it fails a test of convexity over all pairs of pixels. How half-planes are drawn
    is not said in full, and is here as in :func:`intersections`; the test is :func:`is_convex`.

    Returns:
        Images of 0 and 1, uint8, (n, 28, 28), and labels, int64, (n,), 1 where convex.
    """
    labels = rng.randint(2, size=n)
    images = np.empty((n, SIDE, SIDE), bool)
    images[labels == 1] = intersections(rng, rng.geometric(0.195, labels.sum()), 20)
    images[labels == 0] = _unions(rng, n - labels.sum())
    return images.astype(np.uint8), labels.astype(np.int64)


def _unions(rng: np.random.RandomState, n: int) -> np.ndarray:
    parts = [np.zeros((0, SIDE, SIDE), bool)]
    while (missing := n - sum(map(len, parts))) > 0:
        count = rng.randint(2, 5, size=missing)
        pieces = intersections(rng, rng.geometric(0.07, count.sum()), 11)
        union = np.logical_or.reduceat(pieces, np.cumsum(count) - count, axis=0)
        parts.append(union[~is_convex(union)])
    return np.concatenate(parts)


def intersections(rng: np.random.RandomState, counts: np.ndarray, least: int) -> np.ndarray:
    r"""Intersections of the image with half-planes, one after another.

    A line has a direction uniform in :math:`[0, 2\pi)` and passes through a point uniform in the
    square of side 42 (:data:`OUTER`) about the centre; one that does not divide what is left is
    drawn again. Of two parts of :math:`m_1` and :math:`m_2` pixels the first stays with probability
    :math:`m_1^2 / (m_1^2 + m_2^2)`. A half-plane that would leave less than `least` pixels is not
    taken, and is the last.

    That the odds are squares, the size of the outer square, and that the set ends there, are found
    by comparison with the published images. These agree with no independent half-planes whose
    location and direction are uniform: one set in five would then be a single half-plane, small as
    often as large, and of the single half-planes there few are small.

    Arguments:
        rng: The source of random numbers.
        counts: How many half-planes each set is the intersection of, at most; int64, (n,).
        least: The least number of pixels of a set.

    Returns:
        bool, (n, 28, 28).
    """
    blocks = [counts[start : start + _BLOCK] for start in range(0, len(counts), _BLOCK)]
    sets = [_intersections(rng, block, least) for block in blocks]
    return np.concatenate([np.zeros((0, SIDE, SIDE), bool), *sets])


def _intersections(rng: np.random.RandomState, counts: np.ndarray, least: int) -> np.ndarray:
    sets, left = np.ones((len(counts), SIDE * SIDE), bool), counts.copy()
    # a disc around each set: most lines that miss a small one are seen to, without its pixels
    centre, radius = np.zeros((len(counts), 2)), np.full(len(counts), float(SIDE))
    while len(open_ := np.flatnonzero(left)):
        angle = 2 * np.pi * rng.random_sample(len(open_))
        normal = np.stack([np.cos(angle), np.sin(angle)], 1)
        point = OUTER * (rng.random_sample((len(open_), 2)) - 0.5)
        offset, chance = (normal * point).sum(1), rng.random_sample(len(open_))
        near = np.abs((normal * centre[open_]).sum(1) - offset) <= radius[open_]
        rows, normal, offset, chance = (v[near] for v in (open_, normal, offset, chance))
        above = normal[:, :1] * _PIXELS[:, 0] + normal[:, 1:] * _PIXELS[:, 1] > offset[:, None]
        whole = sets[rows]
        first, total = (whole & above).sum(1), whole.sum(1)
        divides = (0 < first) & (first < total)
        odds = first**2 / (first**2 + (total - first) ** 2)
        kept = whole & (above ^ (chance >= odds)[:, None])
        enough = kept.sum(1) >= least
        left[rows[divides & ~enough]] = 0
        rows, kept = rows[divides & enough], kept[divides & enough]
        sets[rows] = kept
        left[rows] -= 1
        centre[rows], radius[rows] = _discs(kept.reshape(-1, SIDE, SIDE))
    return sets.reshape(-1, SIDE, SIDE)


def _discs(sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # centre and radius of the circle through the corners of each set's bounding box
    ends = []
    for axis in (2, 1):
        some = sets.max(axis)
        ends.append((_GRID[some.argmax(1)], _GRID[::-1][some[:, ::-1].argmax(1)]))
    low, high = np.stack([e[0] for e in ends], 1), np.stack([e[1] for e in ends], 1)
    return (low + high) / 2, np.linalg.norm(high - low, axis=1) / 2 + 1e-9


def is_convex(sets: np.ndarray) -> np.ndarray:
    r"""Whether each set has, for every two of its pixels, the pixel half-way if there is one.

    The number of pairs of pixels with midpoint m is the convolution of the set with itself at 2m.

    Arguments:
        sets: bool, (n, 28, 28).

    Returns:
        bool, (n,).
    """
    found = []
    for block in np.split(sets, range(1024, len(sets), 1024)):
        spectrum = fft.rfft2(block.astype(np.float32), s=(2 * SIDE, 2 * SIDE))
        pairs = fft.irfft2(spectrum**2, s=(2 * SIDE, 2 * SIDE))[:, ::2, ::2]
        found.append(~((pairs > 0.5) & ~block).any((1, 2)))
    return np.concatenate(found)
