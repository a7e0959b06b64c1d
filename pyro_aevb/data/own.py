r"""The data set made of a user's own arrays or images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.disk import BLOCK, OnDisk
from pyro_aevb.data.files import SUFFIXES, channels_first, files_below, read_arrays, read_folder
from pyro_aevb.data.split import SEED, DataSet, Split, assemble, partition, shuffled
from pyro_aevb.errors import UsageError

SPLITS = ("train", "valid", "test")


TRAIN, VALID, TEST = SPLITS
ALIASES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("valid", "val", "validation", "dev"), VALID),
    **dict.fromkeys(("test", "testing"), TEST),
}
r"""What the splits are called, in any case, as folders and in the names of arrays."""
DATA, LABELS = {"images", "image", "x", "data"}, {"labels", "label", "y", "targets", "target"}
r"""What an array may be called besides its split, as in ``train_labels`` and ``y_train``."""
COLUMN = "/"
r"""Between a split and the name of one of its columns."""
ON_DISK = 1 << 30
r"""Bytes from which on an ``.npy`` file stays on the disk, unless the memory budget says."""
EXACT = 1 << 24
r"""Whole numbers up to this one are what float32 holds exactly."""


def read(name: str, memory: int | None = None) -> DataSet:
    r"""Make a data set of a user's own file or folder.

    An ``.npz`` file has the arrays ``train``, ``test`` and perhaps ``valid``, or one array
    (``images``, ``x``, or the only one), and perhaps labels (``labels``; ``train_labels`` and so
    on), integers or names. Further arrays of numbers with a row for each datum (``age``;
    ``train_age`` and so on) are columns. Of a folder ``read_folder`` reads the images, or those of
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

    Returns:
        The data set; it is presented as it is unless asked otherwise.

    Raises:
        UsageError: If the data are not usable; the line says which and why.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() == ".npy" and path.stat().st_size > (memory or ON_DISK):
        whole, notes = _on_disk(path)
        return _split(name, path, {"images": whole}, notes)
    if path.is_dir():
        arrays, notes = _read_folders(path)
    elif path.suffix.lower() in (".npy", ".npz"):
        arrays, notes = _named(path, read_arrays(path))
    else:
        raise UsageError(f"{path} is neither an .npy or .npz file nor a folder of images")
    columns = {key: x for key, x in arrays.items() if COLUMN in key}
    arrays = {key: x for key, x in arrays.items() if key not in columns}
    labels = {key.removesuffix("_labels"): x for key, x in arrays.items() if key.endswith("labels")}
    found = {key: x for key, x in arrays.items() if not key.endswith("labels")}
    if TRAIN not in found and "images" not in found:
        raise UsageError(f"{path} has {' and '.join(found)} data and no training data")
    for key, array in found.items():
        found[key], said = channels_first(_numbers(f"{path} [{key}]", array))
        notes += said
    data, scale, levels = _stored(path, found)
    labels = {key if key in data else next(iter(data)): x for key, x in labels.items()}
    classes, named = _classes(path, labels, data)
    splits = {
        key: Split(x, classes.get(key), scale, _columns(path, key, len(x), columns))
        for key, x in data.items()
    }
    return _split(name, path, splits, list(dict.fromkeys([*notes, *named, levels])))


def _on_disk(path: Path) -> tuple[Split, list[str]]:
    r"""The data of a file that stays on the disk, looked at once from the beginning to the end."""
    mapped = read_arrays(path, mapped=True)["images"]
    ends: list[np.ndarray] = []
    step = max(1, BLOCK // max(1, mapped[:1].size))
    for start in range(0, len(mapped), step):
        where = f"{path} [from datum {start}]"
        block = _numbers(where, np.array(read_arrays(path, mapped=True)["images"][start:][:step]))
        ends += [block.min(), block.max()]
    small = np.stack(ends).reshape(1, 1, -1) if mapped.ndim > 2 else np.stack(ends).reshape(1, -1)
    data, scale, levels = _stored(path, {"images": small.astype(mapped.dtype)})
    notes = channels_first(np.array(mapped[:1]))[1]
    kept = data["images"].dtype if mapped.dtype.kind in "bui" else torch.float32
    images = OnDisk(path.resolve(), kept, np.arange(len(mapped)))
    return Split(images, None, scale), [*notes, levels, "read from the disk"]


def _columns(path: Path, split: str, n: int, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    r"""The columns of a split: int64 where they are whole numbers, else float32."""
    found = {}
    for key, array in arrays.items():
        of, _, name = key.partition(COLUMN)
        if of not in ("", split):
            continue
        if len(array) != n:
            raise UsageError(f"{path} has {n} data in {split}, but {len(array)} rows of {name!r}")
        whole = array.dtype.kind in "bui"
        found[name] = torch.from_numpy(array.astype(np.int64 if whole else np.float32))
    return found


def _read_folders(folder: Path) -> tuple[dict[str, np.ndarray], list[str]]:
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
        key = ALIASES[part.name.lower()] if parts else "images"
        if key in arrays:
            raise UsageError(f"{folder} holds two folders for {key}, one of them {part.name}")
        arrays[key], found, notes = read_folder(part)
        said += notes
        if found is not None:
            labels[f"{key}_labels"] = found
    # one folder for all says nothing; of one split alone it may be the only class there
    several = len({name for found in labels.values() for name in found}) > 1
    return arrays | (labels if several else {}), said


def _no_inner_splits(folder: Path, images: list[Path]) -> None:
    inner: dict[Path, set[str]] = {}
    for place in (place for image in images for place in image.parents[:-2]):
        if place.name.lower() in ALIASES:
            inner.setdefault(place.parent, set()).add(place.name)
    for place, names in inner.items():
        if len({ALIASES[name.lower()] for name in names}) > 1:
            raise UsageError(
                f"{folder / place} holds the splits {' and '.join(sorted(names))}: give --data that"
                f" folder, or put the splits above the classes"
            )


def _named(path: Path, arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    r"""A file's arrays by the names that they have here, and what was left out."""
    found: dict[str, str] = {}
    unknown = []
    for key in arrays:
        role = _role(key)
        if role is None:
            unknown.append(key)
        elif role in found:
            raise UsageError(f"{path} holds {found[role]} and {key}, which are the same thing")
        else:
            found[role] = key
    data = [role for role in found if not role.endswith("labels")]
    if not data and len(unknown) == 1:
        found["images"] = unknown.pop()
    elif not data or ("images" in data and len(data) > 1):
        raise UsageError(
            f"{path} holds the arrays {', '.join(arrays) or '(none)'};"
            " name them train and test (and valid), or one of them images"
        )
    for role, key in found.items():
        of = role.removesuffix("_labels")
        if role.endswith("_labels") and of not in found:
            raise UsageError(f"{path} holds {key}, and no data that these are the labels of")
        if role == "labels" and len(data) > 1:
            raise UsageError(f"{path} holds {key}, of one split of several; name it train_{key}")
    # beside splits, what looks like data of another is not left out
    events = {arrays[found[role]].shape[1:] for role in data if role != "images"}
    for key in unknown:
        like = arrays[key].ndim > 1 and arrays[key].shape[1:] in events
        of_split = any(token in ALIASES for token in _tokens(key)) and not _column(key)[0]
        if like or of_split:
            raise UsageError(
                f"{path} holds {key!r}, which is not known; splits are named {', '.join(ALIASES)},"
                " their labels train_labels and so on; take other arrays out"
            )
    columns = {}
    for key in unknown:
        split, name = _column(key)
        of = f"images{COLUMN}" if not split and "images" in data else f"{split}{COLUMN}"
        rows = arrays.get(found.get(split or "images", ""), np.empty(0)).shape[:1]
        if arrays[key].dtype.kind in "buif" and arrays[key].shape[:1] == rows != (0,):
            columns[of + name] = arrays[key]
    left = [key for key in unknown if not any(arrays[key] is x for x in columns.values())]
    notes = [f"the arrays {', '.join(left)} left out"] if left else []
    named = {name.partition(COLUMN)[2] for name in columns}
    notes += [f"columns {', '.join(sorted(named))}"] if named else []
    return {role: arrays[key] for role, key in found.items()} | columns, notes


def _column(key: str) -> tuple[str, str]:
    r"""``("train", "age")`` for ``train_age``, and ``("", "age")`` for ``age``."""
    first, _, rest = key.partition("_")
    return (ALIASES[first.lower()], rest) if first.lower() in ALIASES and rest else ("", key)


def _role(key: str) -> str | None:
    r"""``train`` for ``x_train``, ``test_labels`` for ``y_test``, ``images`` for ``x``, and so on;
    None for a name that says nothing."""
    tokens = _tokens(key)
    splits = [ALIASES[token] for token in tokens if token in ALIASES]
    rest = [token for token in tokens if token not in ALIASES]
    if len(splits) > 1 or len(rest) > 1 or not set(rest) <= DATA | LABELS:
        return None
    if rest and rest[0] in LABELS:
        return f"{splits[0]}_labels" if splits else "labels"
    return splits[0] if splits else "images"


def _tokens(key: str) -> list[str]:
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


def _stored(path: Path, arrays: dict[str, np.ndarray]) -> tuple[dict[str, Tensor], int, str]:
    r"""The data as tensors, uint8 or float32; the integer that stands for 1; and what they are."""
    (first, one), *others = arrays.items()
    whole = one.dtype.kind in "bui"
    for key, other in others:
        if other.shape[1:] != one.shape[1:] or (other.dtype.kind in "bui") != whole:
            raise UsageError(
                f"{path} has {one.dtype} data of shape {one.shape[1:]} in {first}"
                f" but {other.dtype} of shape {other.shape[1:]} in {key}"
            )
    if not whole:
        return {key: torch.from_numpy(x) for key, x in arrays.items()}, 1, "real values as they are"
    low, high = (int(f([f(x) for x in arrays.values()])) for f in (np.min, np.max))
    small = np.uint8 if low >= 0 and high <= 255 else np.float32
    data = {key: torch.from_numpy(x.astype(small)) for key, x in arrays.items()}
    if low >= 0 and high <= 1:
        return data, 1, "binary"
    if one.ndim > 2 and all(x.dtype == np.uint8 for x in arrays.values()):
        return data, 255, "8-bit levels divided by 255"
    levels = f"integers {low} to {high} as they are"
    if all(x.dtype == np.uint8 for x in arrays.values()):
        levels += " (grey levels come as images, (N, H, W))"
    return data, 1, levels


def _classes(
    path: Path, labels: dict[str, np.ndarray], data: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
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
    key, whole = next(iter(wholes.items())) if TRAIN not in wholes else (TRAIN, wholes[TRAIN])
    missing = [part for part in (VALID, TEST) if part not in wholes]
    tenth = len(whole) // 10
    if missing and tenth == 0:
        raise UsageError(f"{path} has {len(whole)} data in {key}, too few to split; 10 will do")
    how = "its own splits"
    if len(missing) == 2:
        how = f"shuffled (seed {SEED}) and split 80/10/10"
    elif missing:
        own, held = ("test", "") if missing == [VALID] else ("validation", " as test split")
        how = (
            f"its own {own} split, a tenth of its train split held out{held} (shuffle seed {SEED})"
        )
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
