r"""The eight data sets of Larochelle et al.: as published where the user has them, else drawn anew.

References:
    | An Empirical Evaluation of Deep Architectures on Problems with Many Factors of Variation
    | (Larochelle et al., 2007)
    | https://dl.acm.org/doi/10.1145/1273496.1273556
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pyro_aevb.data import originals, photographs, shapes
from pyro_aevb.data.files import channels_first, named_arrays
from pyro_aevb.data.split import REGENERATED, SEED, DataSet, Split, assemble, partition
from pyro_aevb.errors import UsageError

VERSION = 1
r"""The version of the rules; what an earlier one has left on the disk is not read."""

SIZES = {
    **dict.fromkeys(
        ("mnist_basic", "mnist_rot", "mnist_bg_rand", "mnist_bg_img", "mnist_rot_bg_img"),
        (10_000, 2_000, 50_000),
    ),
    "rectangles": (1_000, 200, 50_000),
    "rectangles_img": (10_000, 2_000, 50_000),
    "convex": (6_500, 1_500, 50_000),
}
r"""By set, the numbers of training, validation and test data."""

NAMES = tuple(SIZES)
r"""What the eight sets are called."""

_BANK = "20 images of 16 photographs in scikit-image and scikit-learn"
_FLAT = f"patches of standard deviation {photographs.LEAST_DEVIATION:.0f} of 255 or more"
_RULES = {
    "mnist_basic": "62,000 of the 70,000 MNIST digits",
    "mnist_rot": "MNIST digits turned by an angle uniform in [0, 2 pi), bilinear",
    "mnist_bg_rand": "the larger of an MNIST digit and grey levels uniform on 0, ..., 255",
    "mnist_bg_img": f"the larger of an MNIST digit and a patch of {_BANK}; {_FLAT}",
    "mnist_rot_bg_img": f"as mnist_rot, then the larger of it and a patch of {_BANK}; {_FLAT}",
    "rectangles": "outlines, sides uniform on 4, ..., 28 that differ by 3 or more; 1 is tall",
    "rectangles_img": (
        f"a patch of {_BANK} within another, sides of 10 or more that differ by 5 or more,"
        f" 25 to 75 % of the image; {_FLAT}; 1 is tall"
    ),
    "convex": "intersections of half-planes (1) and unions of 2 to 4 that are not convex (0)",
}

logger = logging.getLogger(__name__)

Digits = tuple[np.ndarray, np.ndarray]
r"""uint8 images, (N, 28, 28), and their int64 labels, (N,)."""


def load(name: str, mnist: Callable[[Path], DataSet], root: Path) -> DataSet:
    r"""Load one of the eight sets.

    The published files are looked for in the folder ``larochelle`` of the data root
    (:func:`pyro_aevb.data.originals.find`). Where there are none the set is drawn anew by the
    published rules and a fixed seed, and kept in the folder ``generated`` if that can be written
    to; what is damaged there is drawn again. The description says which, and
    :attr:`pyro_aevb.data.split.DataSet.regenerated` tells.

    Arguments:
        name: One of :data:`NAMES`.
        mnist: Loads MNIST from a data root; only the sets of digits call it.
        root: The data root.

    Returns:
        The set, with images (N, 1, 28, 28), uint8 of scale 255, or 1 for `rectangles` and `convex`;
        published grey levels are float32 in [0, 1]. Labels are the digit, or 1 for tall and 0 for
        wide, or 1 for convex and 0 for not, int64.

    Raises:
        UsageError: The published files are damaged; or MNIST, or a package with photographs, is
            needed and cannot be had.
    """
    train, valid, test = SIZES[name]
    classes = 10 if name.startswith("mnist") else 2
    folder = root / "larochelle"
    if found := originals.find(name, folder, classes, (train + valid, test)):
        (first, second), known = found
        learned, held = partition(_split(*first), train, valid)
        how = f"{name}, {known}; validation the last {valid:,} of the training file"
        if name == "convex":
            how += ", test sorted by label"
        return assemble(name, how, "none", learned, held, _split(*second))
    path = root / "generated" / f"{name}-{VERSION}.npz"
    drawn = _read(path, train + valid + test)
    if drawn is None:
        logger.info("drawing %s, to be kept in %s", name, path)
        drawn = generate(name, train + valid + test, lambda: _pool(mnist(root)))
        _keep(path, *drawn)
    how = f"{REGENERATED}, not the published data: {name}, {_RULES[name]}; seed {SEED}"
    return assemble(name, how, "none", *partition(_split(*drawn), train, valid, test))


def generate(name: str, n: int, digits: Callable[[], Digits]) -> Digits:
    r"""Draw a set by the published rules; the same each time.

    Digits are drawn without replacement, in the same order for all five sets of them, so that no
    two of n come from one digit. Each set has a stream of random numbers of its own.

    Arguments:
        name: One of :data:`NAMES`.
        n: How many data.
        digits: Gives all digits there are, at least n; only the sets of digits call it.

    Returns:
        Images, uint8, (n, 28, 28), and labels, int64, (n,).

    Raises:
        UsageError: There are fewer digits than n, or no photographs.
    """
    # NumPy guarantees the streams of RandomState for good
    rng = np.random.RandomState([SEED, VERSION, NAMES.index(name)])
    if name == "rectangles":
        return shapes.rectangles(rng, n)
    if name == "convex":
        return shapes.convex(rng, n)
    if name == "rectangles_img":
        return framed(rng, photographs.bank(name), n)
    bank = photographs.bank(name) if name.endswith("bg_img") else []
    images, labels = digits()
    if len(images) < n:
        raise UsageError(f"{name} needs {n:,} digits of MNIST; there are {len(images):,}")
    order = np.random.RandomState(SEED).permutation(len(images))[:n]
    images, labels = images[order], labels[order].astype(np.int64)
    if "rot" in name:
        images = turned(images, 2 * np.pi * rng.random_sample(n))
    if name == "mnist_bg_rand":
        images = np.maximum(images, rng.randint(256, size=images.shape, dtype=np.uint8))
    if bank:
        images = np.maximum(images, photographs.patches(rng, bank, n))
    return images, labels


def turned(images: np.ndarray, angles: np.ndarray) -> np.ndarray:
    r"""Images turned counter-clockwise about their centre, bilinear, black beyond their edges.

    Arguments:
        images: uint8, (n, H, W).
        angles: In radians, (n,).

    Returns:
        uint8, (n, H, W), rounded.
    """
    height, width = images.shape[1:]
    cos, sin = np.cos(angles), np.sin(angles)
    # where each pixel comes from, with axes x and y that run over the image from -1 to 1
    ratio = (height - 1) / (width - 1)
    zero = np.zeros_like(cos)
    rows = [[cos, -sin * ratio, zero], [sin / ratio, cos, zero]]
    matrices = torch.from_numpy(np.array(rows).transpose(2, 0, 1).copy())
    done = []
    for block, matrix in zip(
        torch.from_numpy(images).split(4096), matrices.split(4096), strict=True
    ):
        size = [len(block), 1, height, width]
        grid = torch.nn.functional.affine_grid(matrix, size, align_corners=True)
        values = torch.nn.functional.grid_sample(block[:, None].double(), grid, align_corners=True)
        done.append(values[:, 0].round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(done)


def framed(rng: np.random.RandomState, bank: list[np.ndarray], n: int) -> Digits:
    r"""Rectangles filled with one patch on the background of another.

    Height and width are uniform among the pairs of 10 to 28 pixels that differ by 5 at least and
    whose product is 25 to 75 % of the image; the place is uniform.

    Returns:
        Images, uint8, (n, 28, 28), and labels, int64, (n,), 1 where taller than wide.
    """
    height, width = shapes.sizes(rng, n, 10, 5, (0.25, 0.75))
    inside = shapes.boxes(rng, height, width)
    within, around = photographs.patches(rng, bank, n), photographs.patches(rng, bank, n)
    return np.where(inside, within, around), (height > width).astype(np.int64)


def _pool(mnist: DataSet) -> Digits:
    # in MNIST's own order: the validation split is the first of its training images
    parts = (mnist.valid, mnist.train, mnist.test)
    images = torch.cat([torch.as_tensor(part.images) for part in parts])[:, 0].numpy()
    return images, torch.cat([p.labels for p in parts if p.labels is not None]).numpy()


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    scale = 255 if images.dtype == np.uint8 and images.max() > 1 else 1
    return Split(torch.from_numpy(channels_first(images)[0]), torch.from_numpy(labels), scale)


def _read(path: Path, n: int) -> Digits | None:
    r"""What :func:`_keep` has left, or None where there is nothing of use."""
    if not path.exists():
        return None
    try:
        images, labels = named_arrays(path, "images", "labels")
    except (UsageError, OSError) as error:
        logger.warning("drawn again: %s", error)
        return None
    if images.dtype != np.uint8 or images.shape != (n, 28, 28) or labels.shape != (n,):
        logger.warning("drawn again: %s holds other data", path)
        return None
    return images, labels.astype(np.int64)


def _keep(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    r"""Write a set whole or not at all; where that is not possible it is drawn at each load."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".tmp", path.stem, path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                save = np.savez_compressed if images.max() <= 1 else np.savez
                save(file, images=images, labels=labels.astype(np.uint8))
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        logger.info("%s cannot be kept (%s)", path, error.strerror or error)
