r"""Squares, ellipses and hearts of all sizes, directions and places: the factors of dSprites.

References:
    | beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework
    | (Higgins et al., 2017)
    | https://openreview.net/forum?id=Sy2fzU9gl
    | dSprites: Disentanglement testing Sprites dataset (Matthey et al., 2017)
    | https://github.com/deepmind/dsprites-dataset
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from pyro_aevb.data.factors import HELD, combined
from pyro_aevb.data.split import REGENERATED, DataSet, FactorType, assemble
from pyro_aevb.data.sprites import Sprites

SHAPES = ("square", "ellipse", "heart")
r"""What the classes of the factor `shape` are."""
SIDE = 64
r"""Height and width of every image, in pixels."""
ROOM = 32
r"""Height and width of what any sprite lies in, in pixels."""
OFF = 0.25
r"""How far to the right of the middle of that the centre is, and how far below, in pixels.

About a corner or the middle of a pixel the edges of many squares would halve pixels, and twice as
many orientations look the same.
"""
FINE = 8
r"""A pixel is looked at in this many times this many points."""
SQUARE = 22.0
r"""The side of a square of scale 1, in pixels."""
ELLIPSE = (28.0, 16.0)
r"""The axes of an ellipse of scale 1, in pixels."""
HEART = 14.0
r"""The side of the square in a heart of scale 1, in pixels; the heart is 23.9 wide, 21.8 high."""

VALUES = {
    "shape": np.arange(3.0),
    "scale": np.arange(5, 11) / 10,
    "orientation": np.linspace(0, 2 * np.pi, 40),
    "x": np.linspace(0, 1, 32),
    "y": np.linspace(0, 1, 32),
}
r"""By factor, the value of each of its classes; orientations in radians, places from 0 to 1."""
TYPES: dict[str, FactorType] = {
    "shape": "categorical",
    "scale": "ordered",
    "orientation": "periodic",
    "x": "ordered",
    "y": "ordered",
}


def load(root: Path) -> DataSet:
    r"""All 3 · 6 · 40 · 32 · 32 = 737,280 combinations of the five factors, once each.

    The centre is 16.25 + i pixels from the left edge for the class i of `x`, and from the upper
    edge for `y`: one step is one pixel, and no sprite leaves the frame. A sprite is turned
    counter-clockwise. The first and the last orientation are the same, as in dSprites, and so are
    their images. A square repeats every quarter turn and an ellipse every half turn, which no two
    of the 40 orientations are apart; but three pairs of small squares have the same pixels.

    Arguments:
        root: Not looked at, as nothing is read.

    Returns:
        The set, as :func:`pyro_aevb.data.factors.combined` splits it: images (N, 1, 64, 64) of 0
        and 1, kept as 720 sprites, and the columns `shape`, `scale`, `orientation`, `x`, `y`.
    """
    framed = np.pad(_sprites(), ((0, 0), (0, SIDE - ROOM), (0, SIDE - ROOM)))
    sizes = [len(values) for values in VALUES.values()]
    classes = [torch.from_numpy(axis.ravel()) for axis in np.indices(sizes)]
    shape, scale, orientation, x, y = classes
    which = (shape * sizes[1] + scale) * sizes[2] + orientation
    images = Sprites.placed(torch.from_numpy(framed), which, y, x)
    how = f"{REGENERATED}, not the published data: the factors of dSprites rendered as shapes2d"
    columns = dict(zip(VALUES, classes, strict=True))
    tables = {name: torch.from_numpy(values) for name, values in VALUES.items()}
    return combined("shapes2d", how, images, columns, tables, TYPES)


@cache
def _sprites() -> np.ndarray:
    r"""All 720, uint8 ``(720, 32, 32)``, by shape, scale and orientation."""
    turned = [
        [[draw(shape, scale, angle) for angle in VALUES["orientation"][:-1]] for scale in scales]
        for shape, scales in ((shape, VALUES["scale"]) for shape in SHAPES)
    ]
    drawn = np.array(turned)
    # the last angle is the first
    return np.concatenate([drawn, drawn[:, :, :1]], 2).reshape(-1, ROOM, ROOM)


def load_held_out(root: Path) -> DataSet:
    r"""The images of :func:`load` without one combination, which is what is tested.

    No heart whose centre is in the lower right quarter (classes 16 to 31 of `x` and of `y`) is in
    the training or the validation data: 61,440 of the 737,280 images, while all its factors' values
    are there with others. The test data are 10,000 of these, drawn at random, the validation data
    5,000 of the others, which are not in the training data.

    Arguments:
        root: Not looked at, as nothing is read.
    """
    whole = load(root)
    known, every = whole.train.columns, whole.train
    held = (known["shape"] == SHAPES.index("heart")) & (known["x"] >= 16) & (known["y"] >= 16)
    rest, new = ((held == out).nonzero().squeeze(1) for out in (False, True))
    valid, test = HELD
    name = "shapes2d_held_out"
    how = (
        f"{REGENERATED}, not the published data: shapes2d shuffled, without {len(new):,} images of "
        "hearts in the lower right quarter, of which the test data are; the validation data are "
        "of the other combinations"
    )
    parts = (every.subset(part) for part in (rest[:-valid], rest[-valid:], new[:test]))
    data = assemble(name, how, "none", *parts)
    return replace(
        data,
        factors=whole.factors,
        factor_values=whole.factor_values,
        factor_types=whole.factor_types,
    )


def draw(
    shape: str, scale: float, angle: float, centre: tuple[float, float] = (OFF, OFF)
) -> np.ndarray:
    r"""A sprite: a pixel is white if more than half of its 64 points lie in the shape.

    Arguments:
        shape: One of :data:`SHAPES`.
        scale: Of its lengths.
        angle: In radians, counter-clockwise.
        centre: Where the shape's centre is, to the right of the middle and below it, in pixels.

    Returns:
        0 or 1, uint8, (32, 32).
    """
    points = (np.arange(ROOM * FINE) + 0.5) / FINE - ROOM / 2
    x, y = points - centre[0], centre[1] - points[:, None]  # to the right and up
    angle %= 2 * np.pi  # so that a whole turn is exactly none
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    inside = within(shape, cos * x + sin * y, cos * y - sin * x)
    counts = inside.reshape(ROOM, FINE, ROOM, FINE).sum((1, 3))
    white: np.ndarray = counts > FINE**2 / 2
    return white.astype(np.uint8)


def within(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    r"""Whether points lie in a shape of scale 1, not turned, with its centre of mass at 0.

    A heart is a square on its corner with half a disc on each of its upper sides, of area
    :math:`(1 + \pi / 4) s^2` for a side of s.

    Arguments:
        shape: One of :data:`SHAPES`.
        u: How far to the right they are, in pixels.
        v: How far up.

    Returns:
        bool, of the shape of `u` and `v`.
    """
    inside: np.ndarray
    if shape == "square":
        inside = np.maximum(abs(u), abs(v)) <= SQUARE / 2
    elif shape == "ellipse":
        inside = (u / ELLIPSE[0]) ** 2 + (v / ELLIPSE[1]) ** 2 <= 0.25
    else:
        # half a disc of radius r has its centre of mass 4 r / (3 pi) from its side
        half = HEART / 2
        mass = np.pi / 4 / (1 + np.pi / 4)
        v = v + mass * half * (1 + 4 / (3 * np.pi)) / np.sqrt(2)
        # along the sides of the square, from its centre
        a, b = (u + v) / np.sqrt(2), (v - u) / np.sqrt(2)
        inside = np.maximum(abs(a), abs(b)) <= half
        inside |= ((a - half) ** 2 + b**2 <= half**2) | (a**2 + (b - half) ** 2 <= half**2)
    return inside
