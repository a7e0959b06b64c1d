r"""The published file of dSprites, kept as its sprites and their places.

References:
    | dSprites: Disentanglement testing Sprites dataset (Matthey et al., 2017)
    | https://github.com/deepmind/dsprites-dataset
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pyro_aevb.data.downloads import absent
from pyro_aevb.data.factors import combined
from pyro_aevb.data.files import damaged
from pyro_aevb.data.shapes2d import TYPES
from pyro_aevb.data.split import DataSet
from pyro_aevb.data.sprites import Sprites
from pyro_aevb.errors import UsageError

FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
r"""What the file is called."""
FACTORS = ("color", "shape", "scale", "orientation", "x", "y")
r"""What the columns of its classes are; there is one colour."""
BLOCK = 4096
r"""Images that are read at once."""


def load(root: Path) -> DataSet:
    r"""Read the file in the folder ``dsprites`` of the data root.

    Its arrays ``imgs``, (N, 64, 64) of 0 and 1, ``latents_classes``, integers (N, 6), and
    ``latents_values``, (N, 6), are read; its ``metadata``, Python objects, are not. How many
    classes a factor has is taken from the file. Images that differ by a shift alone are kept as one
    sprite; nothing else is taken of what they look like, and each image is the one in the file.

    Returns:
        The set, as :func:`pyro_aevb.data.factors.combined` splits it, with the columns `shape`,
        `scale`, `orientation`, `x` and `y`.

    Raises:
        UsageError: There is no such file, or it is not what it should be.
    """
    path = root / "dsprites" / FILE
    if not path.exists():
        source = "github.com/deepmind/dsprites-dataset"
        why = f"is not downloaded for you; put {FILE} of {source} there, or use shapes2d"
        raise absent("dsprites", path.parent, why)
    try:
        with path.open("rb") as file:
            return _read(path, zipfile.ZipFile(file))
    except UsageError:
        raise
    except (EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, "it is not a complete .npz file with the arrays of dSprites") from error


def _read(path: Path, archive: zipfile.ZipFile) -> DataSet:
    latents = []
    for name in ("latents_classes.npy", "latents_values.npy"):
        with archive.open(name) as file:
            latents.append(np.lib.format.read_array(file, allow_pickle=False))
    classes, values = latents
    n = len(classes)
    if classes.shape != (n, len(FACTORS)) or classes.dtype.kind not in "iu":
        raise damaged(path, f"its classes are {classes.dtype} of shape {classes.shape}")
    if values.shape != classes.shape or values.dtype.kind != "f":
        raise damaged(path, f"its values are {values.dtype} of shape {values.shape}")
    classes = classes.astype(np.int64)
    sizes = tuple(int(size) for size in classes.max(0) + 1)
    if classes.min() < 0 or sizes[0] != 1 or math.prod(sizes) != n:
        raise damaged(path, f"its {n} data are not all combinations of classes {sizes}")
    numbers = np.ravel_multi_index(tuple(classes.T), sizes)
    if (np.bincount(numbers, minlength=n) != 1).any():
        raise damaged(path, "a combination of classes occurs twice")
    images = _sprites(path, _blocks(archive, "imgs.npy"))
    if len(images) != n:
        raise damaged(path, f"it has {len(images)} images and {n} rows of classes")
    columns, tables = {}, {}
    for i, name in enumerate(FACTORS[1:], 1):
        table = np.empty(sizes[i])
        table[classes[:, i]] = values[:, i]
        if (table[classes[:, i]] != values[:, i]).any():
            raise damaged(path, f"a class of {name} has two values")
        columns[name] = torch.from_numpy(np.ascontiguousarray(classes[:, i]))
        tables[name] = torch.from_numpy(table)
    return combined("dsprites", "dsprites, as published", images, columns, tables, TYPES)


def _blocks(archive: zipfile.ZipFile, name: str) -> Iterator[np.ndarray]:
    r"""The rows of an array of numbers in an archive, some at a time: whole, it may be 3 GB."""
    formats = np.lib.format
    with archive.open(name) as file:
        version = formats.read_magic(file)
        first = formats.read_array_header_1_0
        read = first if version == (1, 0) else formats.read_array_header_2_0
        shape, columns_first, dtype = read(file)
        if dtype.hasobject or columns_first or not shape:
            raise ValueError(f"{name} is no array of numbers, row by row")
        size = dtype.itemsize * math.prod(shape[1:])
        for start in range(0, shape[0], BLOCK):
            rows = min(BLOCK, shape[0] - start)
            raw = file.read(rows * size)
            yield np.frombuffer(raw, dtype).reshape(rows, *shape[1:])


def _sprites(path: Path, blocks: Iterator[np.ndarray]) -> Sprites:
    r"""Images as sprites in the upper left corner, in the order in which they occur, and places."""
    known: dict[bytes, int] = {}
    which, down, right = [], [], []
    side = 64
    for block in blocks:
        if block.dtype != np.uint8 or block.shape[1:] != (side, side) or block.max() > 1:
            raise damaged(path, f"its images are {block.dtype} of shape {block.shape[1:]}")
        top, left = block.any(2).argmax(1), block.any(1).argmax(1)
        # with as many black pixels after each image as it may be moved back by
        flat = torch.from_numpy(np.pad(block.reshape(len(block), -1), ((0, 0), (0, side * side))))
        starts = torch.from_numpy(np.arange(len(block)) * 2 * side * side + top * side + left)
        corner = flat.flatten().unfold(0, side * side, 1).index_select(0, starts).numpy()
        for bits in np.packbits(corner, axis=1):
            which.append(known.setdefault(bits.tobytes(), len(known)))
        down.append(top)
        right.append(left)
    bits = np.frombuffer(b"".join(known), np.uint8)
    sprites = torch.from_numpy(np.unpackbits(bits).reshape(-1, side, side))
    places = (torch.from_numpy(np.concatenate(parts)) for parts in (down, right))
    return Sprites.placed(sprites, torch.tensor(which), *places)
