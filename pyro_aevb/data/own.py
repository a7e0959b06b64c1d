r"""The data set made of a user's own arrays or images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.files import channels_first, read_arrays, read_folder
from pyro_aevb.data.splits import SEED, DataSet, Split, assemble, partition, shuffled
from pyro_aevb.errors import UsageError

SPLITS = ("train", "valid", "test")


def read(name: str) -> DataSet:
    r"""Make a data set of a user's own file or folder.

    An ``.npz`` file has ``train``, ``test`` and perhaps ``valid``, or one array (``images``, ``x``,
    or the only one), and perhaps labels (``labels``; ``train_labels`` and so on), integers or
    names. A folder has images, or folders ``train``, ``test`` and perhaps ``valid`` of images; the
    subfolders they lie in are their labels. What is not split is split 80/10/10 by a fixed shuffle;
    without ``valid``, a tenth of ``train`` is held out in the same way.

    Arrays are (N, D), (N, H, W), (N, C, H, W), or (N, H, W, C) with 1 or 3 channels. Integers
    0..255 are grey levels, or binary data if none exceeds 1; floats stay as they are.

    Arguments:
        name: The path.

    Returns:
        The data set; it is presented as it is unless asked otherwise.

    Raises:
        UsageError: If the data are not usable; the line says which and why.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        arrays = _read_folders(path)
    elif path.suffix.lower() in (".npy", ".npz"):
        arrays = read_arrays(path)
    else:
        raise UsageError(f"{path} is neither an .npy or .npz file nor a folder of images")
    if "train" in arrays and "test" in arrays:
        images = {key: arrays[key] for key in SPLITS if key in arrays}
        labels = {key: arrays[f"{key}_labels"] for key in images if f"{key}_labels" in arrays}
    else:
        key = _only_key(path, arrays)
        images = {key: arrays[key]}
        labels = {key: arrays["labels"]} if "labels" in arrays else {}
    data = _data(path, images)
    classes = _classes(path, labels, data)
    # one scale for all splits: a split may by chance have no level above 1
    grey = any(x.dtype == torch.uint8 and x.max() > 1 for x in data.values())
    return _split(
        name, path, {k: Split(x, classes.get(k), 255 if grey else 1) for k, x in data.items()}
    )


def _read_folders(folder: Path) -> dict[str, np.ndarray]:
    parts = {key: folder / key for key in SPLITS if (folder / key).is_dir()}
    if "train" not in parts or "test" not in parts:
        images, labels = read_folder(folder)
        return {"images": images} | ({} if labels is None else {"labels": labels})
    arrays = {}
    for key, part in parts.items():
        arrays[key], labels = read_folder(part)
        if labels is not None:
            arrays[f"{key}_labels"] = labels
    return arrays


def _only_key(path: Path, arrays: dict[str, np.ndarray]) -> str:
    candidates = [key for key in arrays if not key.endswith("labels")]
    for key in ("images", "x"):
        if key in candidates:
            return key
    if len(candidates) != 1:
        raise UsageError(
            f"{path} holds the arrays {', '.join(arrays) or '(none)'};"
            " name them train and test (and valid), or one of them images"
        )
    return candidates[0]


def _data(path: Path, images: dict[str, np.ndarray]) -> dict[str, Tensor]:
    data = {key: torch.from_numpy(_numbers(f"{path} [{key}]", x)) for key, x in images.items()}
    (first, one), *others = data.items()
    for key, other in others:
        if other.shape[1:] != one.shape[1:] or other.dtype != one.dtype:
            raise UsageError(
                f"{path} has {one.numpy().dtype} data of shape {tuple(one.shape[1:])} in {first}"
                f" but {other.numpy().dtype} of shape {tuple(other.shape[1:])} in {key}"
            )
    return data


def _numbers(what: str, array: np.ndarray) -> np.ndarray:
    # to (N, *event_shape), uint8 or finite float32
    if array.ndim < 2:
        raise UsageError(f"{what} has shape {array.shape}; data are (N, D) or (N, H, W) or more")
    if array.size == 0:
        raise UsageError(f"{what} is empty, of shape {array.shape}")
    if array.dtype.kind in "bui":
        if array.min() < 0 or array.max() > 255:
            raise UsageError(
                f"{what} has integers from {array.min()} to {array.max()};"
                " grey levels are 0..255, other real data floats"
            )
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        finite = np.isfinite(array).reshape(len(array), -1).all(1)
        if not finite.all():
            raise UsageError(
                f"{what} has NaN or infinite values, first in datum {np.argmin(finite)}"
            )
    else:
        raise UsageError(f"{what} is of type {array.dtype}; data are integers or floats")
    return channels_first(array)


def _classes(
    path: Path, labels: dict[str, np.ndarray], data: dict[str, Tensor]
) -> dict[str, Tensor]:
    for key, array in labels.items():
        if array.shape != (len(data[key]),) or array.dtype.kind not in "buiU":
            raise UsageError(
                f"{path} has {len(data[key])} data in {key} but labels of type {array.dtype} and"
                f" shape {array.shape}; labels are integers or names, one for each datum"
            )
    if any(array.dtype.kind == "U" for array in labels.values()):
        # numbered in sorted order over all splits, so that a name has one number
        names = np.unique(np.concatenate(list(labels.values())))
        labels = {key: np.searchsorted(names, array) for key, array in labels.items()}
    return {key: torch.from_numpy(array.astype(np.int64)) for key, array in labels.items()}


def _split(name: str, path: Path, wholes: dict[str, Split]) -> DataSet:
    if "valid" in wholes:
        return assemble(
            name, f"{path.name}, its own splits", "none", *(wholes[key] for key in SPLITS)
        )
    # either the whole set, or its train split beside a test split of its own
    key, whole = next(iter(wholes.items()))
    tenth = len(whole) // 10
    if tenth == 0:
        raise UsageError(f"{path} has {len(whole)} data in {key}, too few to split; 10 will do")
    if "test" in wholes:
        train, valid = partition(shuffled(whole), len(whole) - tenth, tenth)
        test = wholes["test"]
        how = f"its own test split, a tenth of its train split held out (shuffle seed {SEED})"
    else:
        train, valid, test = partition(shuffled(whole), len(whole) - 2 * tenth, tenth, tenth)
        how = f"shuffled (seed {SEED}) and split 80/10/10"
    return assemble(name, f"{path.name}, {how}", "none", train, valid, test)
