r"""The data set made of a user's own arrays or images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.blocks import by_blocks
from pyro_aevb.data.disk import OnDisk
from pyro_aevb.data.files import channels_first
from pyro_aevb.data.folders import Named, read_splits
from pyro_aevb.data.formats import Arrays, is_zarr, read_file
from pyro_aevb.data.held import arrays_in, name_of
from pyro_aevb.data.naming import (
    ALIASES,
    DATA,
    LABELS,
    LENGTHS,
    ROWS,
    SEQUENCES,
    SPLIT,
    SPLITS,
    TEST,
    TRAIN,
    VALID,
    WHOLE,
    words,
)
from pyro_aevb.data.reading import Reading
from pyro_aevb.data.split import (
    SEED,
    DataSet,
    FactorType,
    Images,
    Split,
    assemble,
    partition,
    shuffled,
)
from pyro_aevb.data.stored import MappedArray, Stored
from pyro_aevb.data.tables import FEATURES, LEFT_OUT
from pyro_aevb.data.values import ends_of, ends_on_disk, levels_of, numbers, remedy
from pyro_aevb.errors import UsageError

FACTORS = "factors"
r"""The array of names that says which columns are factors."""
FACTOR_TYPES = "factor_types"
r"""The array that says how the classes of each of them lie."""
ON_DISK = 1 << 30
r"""Bytes from which on an array stays on the disk, unless the memory budget says."""


def read(name: str, memory: int | None = None, reading: Reading | None = None) -> DataSet:
    r"""Make a data set of a user's own file or folder; it is presented as it is by default.

    A file has arrays by name (:mod:`~pyro_aevb.data.formats`), see :func:`from_arrays`. Of a folder
    ``read_folder`` reads the images, or those of its folders ``train``, ``test`` and ``valid``; the
    subfolders they lie in are their labels.

    Arguments:
        name: The path.
        memory: The largest array that is read into memory, in bytes, of an ``.npy`` or HDF5 file or
            of Zarr; default 1 GiB. Batches of a larger one are read from the disk.
        reading: What was said of how it is to be read.

    Raises:
        UsageError: If the data are not usable; the line says which and why.
    """
    path, reading = Path(os.path.expanduser(name)), reading or Reading()
    if not path.is_dir() or is_zarr(path):
        if reading.size:
            raise UsageError(f"{path} is no folder of images, which alone are brought to a size")
        return _made(name, path, read_file(path, memory or ON_DISK), reading)
    if reading.missing or reading.sequences:
        raise UsageError(f"{path} is a folder of images; :nan and :sequences are for arrays")
    data, labels, notes = read_splits(path, reading.size)
    return _assembled(name, path, {**data}, labels, {}, notes, reading)


def from_arrays(
    name: str = "arrays",
    *,
    memory: int | None = None,
    missing: bool = False,
    sequences: bool = False,
    **arrays: Any,
) -> DataSet:
    r"""Make a data set of arrays by name, as a file of them is one.

    They are ``train``, ``test`` and perhaps ``valid``, or one array (``images``, ``x``, or the only
    one), and perhaps labels (``labels``; ``train_labels`` and so on), integers or names. Further
    arrays of numbers with a row for each datum (``age``; ``train_age`` and so on) are columns, and
    an array ``factors`` of names says which of them are factors that the data were made of, and
    perhaps ``factor_types`` of which type each is (:data:`~pyro_aevb.data.split.FactorType`).
    Splits have other usual names too (:data:`~pyro_aevb.data.naming.ALIASES`), and arrays
    (``x_train``, ``y_train``); in place of such names, an array ``split`` of words says which split
    each datum belongs to. What is not split is split 80/10/10 by a fixed shuffle; a missing
    ``valid`` or ``test`` is a tenth of ``train``, held out in the same way.

    Arrays are (N, D), (N, H, W), (N, C, H, W), or (N, H, W, C) where C is less than H and W.
    Sequences, (N, T, D) or of more axes, are those called ``sequences``, with a column ``length``,
    or said to be. Integers of 8 bits without a sign (uint8) that are images are grey levels, of
    which 255 stands for 1, or binary data if none exceeds 1. All other integers, and floats, stay
    as they are. What was done is said in the description. What stands beside splits and looks like
    data, and a set without training data are refused.

    Arguments:
        name: What the data set is called.
        memory: The largest :class:`numpy.memmap` that is read into memory, in bytes.
        missing: NaN stands for missing values, and is left in.
        sequences: Data of three axes or more are sequences, and no images.
        arrays: NumPy's or torch's, of any type of numbers, byte order and layout; as `x`, `train`,
            `test` and `valid` also what :func:`~pyro_aevb.data.own.of_object` takes.

    Raises:
        UsageError: If the data are not usable; the line says which and why.
    """
    return _in_memory(name, arrays, memory, Reading(missing, sequences))


def of_object(data: Any, memory: int | None = None) -> DataSet:
    r"""Make a data set of what Python holds, by the rules of :func:`from_arrays`.

    Arguments:
        data: An array, a tensor, a pandas DataFrame, an AnnData, a torch ``Dataset`` of data or of
            data with their labels, a pair (x, labels), or a mapping of such by name, as
            ``{"train": ..., "test": ...}`` or ``{"x": ..., "label": ..., "age": ...}``.
        memory: The largest :class:`numpy.memmap` that is read into memory, in bytes.

    Raises:
        UsageError: If the data are not usable; the line says which and why.
    """
    return _in_memory(name_of(data), data, memory, Reading())


def _in_memory(name: str, data: Any, memory: int | None, reading: Reading) -> DataSet:
    budget, found = memory or ON_DISK, Arrays()
    for key, array in arrays_in(data, budget).items():
        if isinstance(array, np.memmap) and array.nbytes > budget:
            found[key] = MappedArray.of(array)
        else:
            found[key] = np.asarray(array)
    for key, array in found.items():
        others = {len(other) for name, other in found.items() if name != key and other.ndim}
        if array.ndim == 1 and array.dtype.kind in "buif" and others and len(array) not in others:
            lengths = " and ".join(map(str, sorted(others)))
            raise UsageError(
                f"{key!r} has {len(array)} values, and the other arrays have {lengths}; a column "
                "has one for each datum"
            )
    return _made(name, Path(name), found, reading)


def _made(name: str, path: Path, arrays: Arrays, reading: Reading) -> DataSet:
    said: dict[str, list[str]] = {}  # in arrays of words
    for key in (FACTORS, FACTOR_TYPES, FEATURES, LEFT_OUT, SPLIT):
        array = arrays.get(key)
        if isinstance(array, np.ndarray) and array.dtype.kind == "U":
            said[key] = [str(word) for word in arrays.pop(key).ravel()]  # type: ignore[union-attr]
    places = {WHOLE: ROWS} | {split: f"{split}_{ROWS}" for split in SPLITS}
    rows = {k: np.asarray(arrays.pop(key)) for k, key in places.items() if key in arrays}
    data, labels, columns, notes = _named(path, arrays)
    if any(set(words(key)) & SEQUENCES for key in arrays) or any(
        column in LENGTHS for of_split in columns.values() for column in of_split
    ):
        reading = replace(reading, sequences=True)
    if LEFT_OUT in said:
        notes.insert(0, f"the columns {', '.join(said[LEFT_OUT])} left out")
    return _assembled(name, path, data, labels, columns, notes, reading, said, rows)


def _assembled(
    name: str,
    path: Path,
    data: Arrays,
    labels: Named,
    columns: Mapping[str, Named],
    notes: list[str],
    reading: Reading,
    said: Mapping[str, list[str]] | None = None,
    rows: Mapping[str, np.ndarray] | None = None,
) -> DataSet:
    said, rows = said or {}, rows or {}
    if TRAIN not in data and WHOLE not in data:
        raise UsageError(f"{path} has {' and '.join(data)} data and no training data")
    first, ends, shapes = next(iter(data)), [], {}
    for key, array in data.items():
        what = f"{path} [{key}]"
        if isinstance(array, Stored):
            checked = ends_on_disk(what, array, name, reading, said.get(FEATURES))
            few, axes = _arranged(array.read(0, 1), reading)
        else:
            whole = numbers(what, array, name, reading, said.get(FEATURES))
            checked = [ends_of(whole)]
            few, axes = _arranged(whole, reading)
            data[key] = few
        one, shapes[key] = data[first], few.shape[1:]
        array = data[key]
        if shapes[first] != shapes[key] or (one.dtype.kind == "f") != (array.dtype.kind == "f"):
            raise UsageError(
                f"{path} has {one.dtype} data of shape {shapes[first]} in {first}"
                f" but {array.dtype} of shape {shapes[key]} in {key}"
            )
        notes += axes
        ends += checked
    tables = reading.sequences or len(shapes[first]) == 1
    kept, scale, levels = levels_of({x.dtype for x in data.values()}, tables, ends)
    numbered, classes, named = _classes(path, labels, data)
    missing = sum(count for _, _, count in ends)
    splits = {}
    for key, array in data.items():
        further = {
            column: _column(f"{path} [{column}]", values, name, reading)
            for column, values in columns.get(key, {}).items()
        }
        if isinstance(array, Stored):
            dtype = torch.uint8 if kept is np.uint8 else torch.float32
            whole_file = np.arange(len(array))
            images: Images = OnDisk(array, dtype, whole_file, reading.sequences, bool(missing))
        else:
            images = torch.from_numpy(np.ascontiguousarray(array.astype(kept, copy=False)))
        places = rows.get(key, np.arange(len(images)))
        if len(places) != len(images):
            raise UsageError(f"{path} has {len(images)} data in {key} and {len(places)} {ROWS}")
        splits[key] = Split(images, numbered.get(key), scale, further, places)
    if reading.sequences:
        _check_lengths(path, splits)
    factors = said.get(FACTORS, [])
    types = said.get(FACTOR_TYPES, [])
    if types and len(types) != len(factors):
        raise UsageError(f"{path} has {len(types)} {FACTOR_TYPES} and {len(factors)} factors")
    notes += [f"factors {', '.join(factors)}"] if factors else []
    notes += [*named, levels]
    notes += [f"{missing:,} missing values (NaN) left in"] if missing else []
    if any(isinstance(array, Stored) for array in data.values()):
        notes.append("read from the disk")
    if SPLIT in said:
        splits = _by_words(path, splits, said[SPLIT])
    data_set = _split(name, path, splits, list(dict.fromkeys(notes)))
    features = said.get(FEATURES, [])
    return replace(
        data_set,
        factors={f: _size(f, splits.values()) for f in factors},
        factor_types=dict(zip(factors, cast("list[FactorType]", types), strict=False)),
        classes=classes,
        features=tuple(features if shapes[first] == (len(features),) else ()),
    )


def _arranged(array: np.ndarray, reading: Reading) -> tuple[np.ndarray, list[str]]:
    r"""Images with the channels first, and sequences and vectors as they are; how they are read."""
    if array.ndim == 2:
        return array, []
    if reading.sequences:
        return array, [f"sequences of shape {array.shape[1:]}"]
    images, notes = channels_first(array)
    return images, ["images of one channel"] if array.ndim == 3 else notes


def _check_lengths(path: Path, splits: Mapping[str, Split]) -> None:
    for key, split in splits.items():
        steps = split.images.shape[1]
        for name in LENGTHS:
            lengths = split.columns.get(name)
            if lengths is None:
                continue
            whole = lengths.dtype == torch.int64 and lengths.ndim == 1
            if not whole or int(lengths.min()) < 1 or int(lengths.max()) > steps:
                raise UsageError(
                    f"{path}: the column {name!r} of {key} has to be a whole number from 1 to "
                    f"{steps} for each sequence, which have {steps} steps"
                )


def _by_words(path: Path, splits: Mapping[str, Split], said: list[str]) -> dict[str, Split]:
    r"""The splits that a column of words says."""
    unknown = sorted({word for word in said if word.lower() not in ALIASES})
    if WHOLE not in splits or unknown or len(said) != len(splits[WHOLE]):
        why = f"has {unknown[0]!r}" if unknown else f"stands beside {' and '.join(splits)}"
        raise UsageError(
            f"{path}: the column {SPLIT!r} {why}; it says one of {', '.join(ALIASES)} for each "
            "datum, of data in one array"
        )
    parts = np.array([ALIASES[word.lower()] for word in said])
    return {
        part: splits[WHOLE].subset(torch.from_numpy(np.flatnonzero(parts == part)))
        for part in SPLITS
        if (parts == part).any()
    }


def _named(path: Path, arrays: Arrays) -> tuple[Arrays, Named, dict[str, Named], list[str]]:
    r"""A file's data, labels and columns by split, and what was left out."""
    data: dict[str, str] = {}
    labels: dict[str, str] = {}
    others = []
    for key in arrays:
        splits = [ALIASES[word] for word in words(key) if word in ALIASES]
        rest = [word for word in words(key) if word not in ALIASES]
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
    columns: dict[str, Named] = {split: {} for split in data}
    left = []
    for key in others:
        array = arrays[key]
        first, _, name = key.partition("_")  # train_age is the column age of train
        split = ALIASES.get(first.lower(), WHOLE) if name else WHOLE
        like = array.ndim > 1 and array.shape[1:] in events
        if like or (split == WHOLE and any(word in ALIASES for word in words(key))):
            raise UsageError(
                f"{path} holds {key!r}, which is not known; splits are named {', '.join(ALIASES)},"
                " their labels train_labels and so on; take other arrays out"
            )
        rows = arrays[data[split]].shape[:1] if split in data else (0,)
        if array.dtype.kind in "buif" and array.shape[:1] == rows != (0,):
            columns[split][key if split == WHOLE else name] = np.asarray(array)
        else:
            left.append(key)
    notes = [f"the arrays {', '.join(left)} left out"] if left else []
    named = sorted({name for of_split in columns.values() for name in of_split})
    notes += [f"columns {', '.join(named)}"] if named else []
    found = {split: arrays[key] for split, key in data.items()}
    classes = {split: np.asarray(arrays[key]) for split, key in labels.items()}
    return found, classes, columns, notes


def _column(what: str, values: np.ndarray, name: str, reading: Reading) -> Tensor:
    r"""A column as a pair sees it: truth values as they are, whole numbers int64, else float32."""
    if values.dtype.kind == "f" and not reading.missing and bool(np.isnan(values).any()):
        first = int(np.isnan(values).reshape(len(values), -1).any(1).argmax())
        raise UsageError(f"{what} has missing values (NaN), first in datum {first}; {remedy(name)}")
    _check_whole(what, values)
    kinds = {"b": np.bool_, "u": np.int64, "i": np.int64}
    return torch.from_numpy(values.astype(kinds.get(values.dtype.kind, np.float32)))


def _check_whole(what: str, values: np.ndarray) -> None:
    r"""Refuse whole numbers that 64 bits with a sign do not hold."""
    if values.dtype == np.uint64 and values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise UsageError(f"{what} has {int(values.max())}, and whole numbers go up to 2^63 - 1")


def _size(factor: str, splits: Iterable[Split]) -> int:
    r"""One more than the greatest class of a factor; the data set refuses what is none."""
    columns = [split.columns[factor] for split in splits if factor in split.columns]
    return 1 + max((int(c.max()) for c in columns if c.dtype == torch.int64), default=0)


def _classes(
    path: Path, labels: Named, data: Arrays
) -> tuple[dict[str, Tensor], tuple[str, ...], list[str]]:
    r"""The number of each datum's class by split, -1 where none is known; what the classes are
    called, if they are words; and notes."""
    notes: list[str] = []
    called: tuple[str, ...] = ()
    labels = {k: a[:, 0] if a.ndim == 2 and a.shape[1] == 1 else a for k, a in labels.items()}
    for key, array in labels.items():
        if array.dtype.kind == "f" and (array == np.round(array)).any():
            known = ~np.isnan(array)
            whole = (array[known] == np.round(array[known])) & (np.abs(array[known]) < 2**53)
            if whole.all():
                labels = {**labels, key: np.where(known, array, -1).astype(np.int64)}
    for key, array in labels.items():
        if array.shape != (len(data[key]),) or array.dtype.kind not in "buiU":
            raise UsageError(
                f"{path} has {len(data[key])} data in {key} but labels of type {array.dtype} and"
                f" shape {array.shape}; labels are integers or names, one for each datum (what is "
                "none has another name than y or label, and is then a column)"
            )
    if any(array.dtype.kind == "U" for array in labels.values()):
        # numbered in sorted order over all splits, so that a name has one number
        names = np.unique(np.concatenate(list(labels.values())))
        names = names[names != ""]
        labels = {
            key: np.where(array == "", -1, np.searchsorted(names, array))
            for key, array in labels.items()
        }
        called = tuple(map(str, names))
        first = ", ".join(called[:5]) + (", and so on" if len(names) > 5 else "")
        notes.append(f"{len(names)} classes: {first}")
    for key, array in labels.items():
        _check_whole(f"{path}: {key}", array)
    numbers = {key: torch.from_numpy(array.astype(np.int64)) for key, array in labels.items()}
    unknown = sum(int((array == -1).sum()) for array in numbers.values())
    notes += [f"{unknown:,} labels are not known (-1)"] if unknown else []
    return numbers, called, notes


def _together(part: Split) -> Split:
    r"""A part drawn from a file that stays there, so that neighbours in it are read together."""
    if not isinstance(part.images, OnDisk) or len(part) <= part.images.window:
        return part
    order = by_blocks(part.images.blocks, np.random.default_rng(SEED))
    return part.subset(torch.from_numpy(order))


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
        wholes = wholes | dict(zip([TRAIN, *missing], map(_together, cut), strict=True))
    train, valid, test = (wholes[part] for part in SPLITS)
    first = train.images.index_select(0, torch.zeros(1, dtype=torch.int64))
    if all(bool((block == first).all()) for block in train.images.split(4096)):
        raise UsageError(f"{path}: all {len(train)} training data are the same; look at the file")
    description = "; ".join([f"{path.name}, {how}", *notes])
    return assemble(name, description, "none", train, valid, test)
