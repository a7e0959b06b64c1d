r"""The data set made of a user's own arrays or images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.disk import BLOCK, OnDisk
from pyro_aevb.data.files import SUFFIXES, channels_first, files_below, read_arrays, read_folder
from pyro_aevb.data.split import SEED, DataSet, Split, assemble, partition, shuffled
from pyro_aevb.errors import UsageError

SPLITS = TRAIN, VALID, TEST = ("train", "valid", "test")
WHOLE = "images"
r"""In place of a split, the name of data that are not split."""
ALIASES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("valid", "val", "validation", "dev"), VALID),
    **dict.fromkeys(("test", "testing"), TEST),
}
r"""What the splits are called, in any case, as folders and in the names of arrays."""
DATA, LABELS = {"images", "image", "x", "data"}, {"labels", "label", "y", "targets", "target"}
r"""What an array may be called besides its split, as in ``train_labels`` and ``y_train``."""
FACTORS = "factors"
r"""The array of names that says which columns are factors."""
ON_DISK = 1 << 30
r"""Bytes from which on an ``.npy`` file stays on the disk, unless the memory budget says."""
EXACT = 1 << 24
r"""Whole numbers up to this one are what float32 holds exactly."""

Arrays = dict[str, np.ndarray]


def read(name: str, memory: int | None = None) -> DataSet:
    r"""Make a data set of a user's own file or folder; it is presented as it is by default.

    An ``.npz`` file has the arrays ``train``, ``test`` and perhaps ``valid``, or one array
    (``images``, ``x``, or the only one), and perhaps labels (``labels``; ``train_labels`` and so
    on), integers or names. Further arrays of numbers with a row for each datum (``age``;
    ``train_age`` and so on) are columns, and an array ``factors`` of names says which of them are
    factors that the data were made of. Of a folder ``read_folder`` reads the images, or those of
    its folders ``train``, ``test`` and ``valid``; the subfolders they lie in are their labels.
    Splits have other usual names too (:data:`ALIASES`), and arrays (``x_train``, ``y_train``). What
    is not split is split 80/10/10 by a fixed shuffle; a missing ``valid`` or ``test`` is a tenth
    of ``train``, held out in the same way.

    Arrays are (N, D), (N, H, W), (N, C, H, W), or (N, H, W, C) where C is less than H and W.
    Integers of 8 bits without a sign (uint8) that are images are grey levels, of which 255 stands
    for 1, or binary data if none exceeds 1. All other integers, and floats, stay as they are.
    An ``.npy`` file of more bytes than `memory` stays on the disk, and batches are read from it.
    What was done is said in the description. What stands beside splits and looks like data, splits
    below the first level of a folder, and a set without training data are refused.

    Arguments:
        name: The path.
        memory: The largest ``.npy`` file that is read into memory, in bytes; default 1 GiB.

    Raises:
        UsageError: If the data are not usable; the line says which and why.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() == ".npy" and path.stat().st_size > (memory or ON_DISK):
        whole, notes = _on_disk(path)
        return _split(name, path, {WHOLE: whole}, notes)
    columns: dict[str, Arrays] = {}
    factors: list[str] = []
    if path.is_dir():
        data, labels, notes = _read_folders(path)
    elif path.suffix.lower() in (".npy", ".npz"):
        arrays = read_arrays(path)
        if FACTORS in arrays and arrays[FACTORS].dtype.kind == "U":
            factors = [str(factor) for factor in arrays.pop(FACTORS).ravel()]
        data, labels, columns, notes = _named(path, arrays)
    else:
        raise UsageError(f"{path} is neither an .npy or .npz file nor a folder of images")
    if TRAIN not in data and WHOLE not in data:
        raise UsageError(f"{path} has {' and '.join(data)} data and no training data")
    first, ends = next(iter(data)), []
    for key, array in data.items():
        data[key], said = channels_first(_numbers(f"{path} [{key}]", array))
        notes += said
        one, other = data[first], data[key]
        if one.shape[1:] != other.shape[1:] or (one.dtype.kind == "f") != (other.dtype.kind == "f"):
            raise UsageError(
                f"{path} has {one.dtype} data of shape {one.shape[1:]} in {first}"
                f" but {other.dtype} of shape {other.shape[1:]} in {key}"
            )
        ends += [other.min(), other.max()]
    kept, scale, levels = _levels({x.dtype for x in data.values()}, one.ndim, ends)
    classes, named = _classes(path, labels, data)
    splits = {}
    for key, array in data.items():
        further = {column: _column(values) for column, values in columns.get(key, {}).items()}
        images = torch.from_numpy(array.astype(kept, copy=False))
        splits[key] = Split(images, classes.get(key), scale, further)
    notes += [f"factors {', '.join(factors)}"] if factors else []
    data_set = _split(name, path, splits, list(dict.fromkeys([*notes, *named, levels])))
    return replace(data_set, factors={f: _size(f, splits.values()) for f in factors})


def _on_disk(path: Path) -> tuple[Split, list[str]]:
    r"""The data of a file that stays on the disk, looked at once from the beginning to the end."""
    mapped = read_arrays(path, mapped=True)["images"]
    ends: list[np.ndarray] = []
    step = max(1, BLOCK // max(1, mapped[:1].size))
    for start in range(0, max(1, len(mapped)), step):  # once where there are none
        where = f"{path} [from datum {start}]"
        block = _numbers(where, np.array(read_arrays(path, mapped=True)["images"][start:][:step]))
        ends += [block.min(), block.max()]
    kept, scale, levels = _levels({mapped.dtype}, mapped.ndim, ends)
    notes = channels_first(np.array(mapped[:1]))[1]
    dtype = torch.uint8 if kept is np.uint8 else torch.float32
    images = OnDisk(path.resolve(), dtype, np.arange(len(mapped)))
    return Split(images, None, scale), [*notes, levels, "read from the disk"]


def _read_folders(folder: Path) -> tuple[Arrays, Arrays, list[str]]:
    r"""Images and the names of their classes by split, and what a reader should know."""
    parts = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.lower() in ALIASES]
    files = (p.relative_to(folder) for p in files_below(folder))
    images = sorted(p for p in files if p.suffix.lower() in SUFFIXES)
    names = [part.name for part in parts]
    others = [p.parts[0] for p in images if p.parts[0] not in names]
    # A class may be called train. What stands beside another split, or has classes, is a split.
    if len(parts) == 1 and others and all(len(p.parts) == 2 for p in images if p.parts[0] in names):
        parts = []
    elif parts and others:
        what = "the folder" if (folder / others[0]).is_dir() else "the image"
        raise UsageError(
            f"{folder} holds {what} {others[0]} beside {' and '.join(names)}; keep the splits, "
            f"{', '.join(SPLITS)}, alone there"
        )
    _no_inner_splits(folder, images)
    arrays, labels, said = {}, {}, []
    for part in parts or [folder]:
        key = ALIASES[part.name.lower()] if parts else WHOLE
        if key in arrays:
            raise UsageError(f"{folder} holds two folders for {key}, one of them {part.name}")
        arrays[key], found, notes = read_folder(part)
        said += notes
        if found is not None:
            labels[key] = found
    # one folder for all says nothing; of one split alone it may be the only class there
    several = len({name for found in labels.values() for name in found}) > 1
    return arrays, labels if several else {}, said


def _no_inner_splits(folder: Path, images: list[Path]) -> None:
    places = {place for image in images for place in image.parents[:-2]}
    splits = sorted(place for place in places if place.name.lower() in ALIASES)
    for place in splits:
        names = [other.name for other in splits if other.parent == place.parent]
        if len({ALIASES[name.lower()] for name in names}) > 1:
            raise UsageError(
                f"{folder / place.parent} holds the splits {' and '.join(names)}: give --data that"
                f" folder, or put the splits above the classes"
            )


def _named(path: Path, arrays: Arrays) -> tuple[Arrays, Arrays, dict[str, Arrays], list[str]]:
    r"""A file's data, labels and columns by split, and what was left out."""
    data: dict[str, str] = {}
    labels: dict[str, str] = {}
    others = []
    for key in arrays:
        words = _words(key)
        splits = [ALIASES[word] for word in words if word in ALIASES]
        rest = [word for word in words if word not in ALIASES]
        if len(splits) > 1 or len(rest) > 1 or not set(rest) <= DATA | LABELS:
            others.append(key)
            continue
        kind, split = labels if set(rest) & LABELS else data, splits[0] if splits else WHOLE
        if split in kind:
            raise UsageError(f"{path} holds {kind[split]} and {key}, which are the same thing")
        kind[split] = key
    if not data and len(others) == 1:
        data[WHOLE] = others.pop()
    elif not data or (WHOLE in data and len(data) > 1):
        raise UsageError(
            f"{path} holds the arrays {', '.join(arrays) or '(none)'};"
            " name them train and test (and valid), or one of them images"
        )
    if WHOLE in labels:
        (split, *several), key = data, labels.pop(WHOLE)
        if several:
            raise UsageError(f"{path} holds {key}, of one split of several; name it train_{key}")
        if split in labels:
            raise UsageError(f"{path} holds {labels[split]} and {key}, which are the same thing")
        labels[split] = key
    for split, key in labels.items():
        if split not in data:
            raise UsageError(f"{path} holds {key}, and no data that these are the labels of")
    # beside splits, what looks like data of another is not left out
    events = {arrays[key].shape[1:] for split, key in data.items() if split != WHOLE}
    columns: dict[str, Arrays] = {split: {} for split in data}
    left = []
    for key in others:
        array = arrays[key]
        first, _, name = key.partition("_")  # train_age is the column age of train
        split = ALIASES.get(first.lower(), WHOLE) if name else WHOLE
        like = array.ndim > 1 and array.shape[1:] in events
        if like or (split == WHOLE and any(word in ALIASES for word in _words(key))):
            raise UsageError(
                f"{path} holds {key!r}, which is not known; splits are named {', '.join(ALIASES)},"
                " their labels train_labels and so on; take other arrays out"
            )
        rows = arrays[data[split]].shape[:1] if split in data else (0,)
        if array.dtype.kind in "buif" and array.shape[:1] == rows != (0,):
            columns[split][key if split == WHOLE else name] = array
        else:
            left.append(key)
    notes = [f"the arrays {', '.join(left)} left out"] if left else []
    named = sorted({name for of_split in columns.values() for name in of_split})
    notes += [f"columns {', '.join(named)}"] if named else []
    found, classes = ({k: arrays[key] for k, key in kind.items()} for kind in (data, labels))
    return found, classes, columns, notes


def _column(values: np.ndarray) -> Tensor:
    r"""A column as a pair sees it: int64 where it has whole numbers, else float32."""
    return torch.from_numpy(values.astype(np.int64 if values.dtype.kind in "bui" else np.float32))


def _size(factor: str, splits: Iterable[Split]) -> int:
    r"""One more than the greatest class of a factor; the data set refuses what is none."""
    columns = [split.columns[factor] for split in splits if factor in split.columns]
    return 1 + max((int(c.max()) for c in columns if c.dtype == torch.int64), default=0)


def _words(key: str) -> list[str]:
    # the words of train_x, train-x, trainX and XTrain
    words = re.split(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])|(?<=^[A-Z])(?=[A-Z][a-z])", key)
    return [word.lower() for word in words if word]


def _numbers(what: str, array: np.ndarray) -> np.ndarray:
    r"""The data as (N, *event_shape), whole numbers or finite float32."""
    if array.ndim < 2:
        raise UsageError(f"{what} has shape {array.shape}; data are (N, D) or (N, H, W) or more")
    if array.size == 0:
        raise UsageError(f"{what} is empty, of shape {array.shape}")
    if array.dtype.kind in "bui":
        low, high = int(array.min()), int(array.max())
        if max(-low, high) > EXACT:
            raise UsageError(
                f"{what} has integers from {low} to {high}; above 2^24 float32 does not hold them "
                "exactly: rescale them, as floats"
            )
        return array
    if array.dtype.kind != "f":
        raise UsageError(f"{what} is of type {array.dtype}; data are integers or floats")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    finite = np.isfinite(array).reshape(len(array), -1).all(1)
    if not finite.all():
        raise UsageError(f"{what} has NaN or infinite values, first in datum {np.argmin(finite)}")
    return array


def _levels(dtypes: set[np.dtype], axes: int, ends: list[Any]) -> tuple[type, int, str]:
    r"""The type that data are kept as, the integer that stands for 1, and what their values are."""
    if any(dtype.kind == "f" for dtype in dtypes):
        return np.float32, 1, "real values as they are"
    low, high = int(min(ends)), int(max(ends))
    kept = np.uint8 if low >= 0 and high <= 255 else np.float32
    if low >= 0 and high <= 1:
        return kept, 1, "binary"
    of_bytes = dtypes == {np.dtype(np.uint8)}
    if of_bytes and axes > 2:
        return kept, 255, "8-bit levels divided by 255"
    remedy = " (grey levels come as images, (N, H, W))" if of_bytes else ""
    return kept, 1, f"integers {low} to {high} as they are{remedy}"


def _classes(path: Path, labels: Arrays, data: Arrays) -> tuple[dict[str, Tensor], list[str]]:
    r"""The number of each datum's class by split, and the names of the classes."""
    notes = []
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
        first = ", ".join(map(str, names[:5])) + (", and so on" if len(names) > 5 else "")
        notes.append(f"{len(names)} classes: {first}")
    numbers = {key: torch.from_numpy(array.astype(np.int64)) for key, array in labels.items()}
    return numbers, notes


def _split(name: str, path: Path, wholes: dict[str, Split], notes: list[str]) -> DataSet:
    # either the whole set, or its train split beside others of its own
    key = TRAIN if TRAIN in wholes else next(iter(wholes))
    whole = wholes[key]
    missing = tuple(part for part in (VALID, TEST) if part not in wholes)
    tenth = len(whole) // 10
    if missing and tenth == 0:
        raise UsageError(f"{path} has {len(whole)} data in {key}, too few to split; 10 will do")
    held_out = f"a tenth of its train split held out{{}} (shuffle seed {SEED})"
    how = {
        (): "its own splits",
        (VALID,): "its own test split, " + held_out.format(""),
        (TEST,): "its own validation split, " + held_out.format(" as test split"),
        (VALID, TEST): f"shuffled (seed {SEED}) and split 80/10/10",
    }[missing]
    if missing:
        sizes = [len(whole) - len(missing) * tenth, *(tenth for _ in missing)]
        cut = partition(shuffled(whole), *sizes)
        wholes = wholes | dict(zip([TRAIN, *missing], cut, strict=True))
    train, valid, test = (wholes[part] for part in SPLITS)
    first = train.images.index_select(0, torch.zeros(1, dtype=torch.int64))
    if all(bool((block == first).all()) for block in train.images.split(4096)):
        raise UsageError(f"{path}: all {len(train)} training data are the same; look at the file")
    description = "; ".join([f"{path.name}, {how}", *notes])
    return assemble(name, description, "none", train, valid, test)
