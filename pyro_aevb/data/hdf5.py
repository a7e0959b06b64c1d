r"""HDF5 files of other programs, MATLAB's of version 7.3 among them.

Such a file may name other files, link to itself, and claim sizes of which it holds nothing. Only
what lies in the file itself is read, each group once, and no array that is far larger than its part
of the file.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from struct import unpack_from
from typing import Any

import numpy as np

from pyro_aevb.data.files import damaged
from pyro_aevb.data.stored import HDF5Array, Stored
from pyro_aevb.errors import UsageError

SMALL = 64 << 20
r"""Bytes that an array may claim whatever the file holds of it, and words be in any memory."""
COLLECTION = b"GCOL\1\0\0\0"
r"""How a collection of words begins."""
SEARCHED = 4 << 30
r"""Bytes of a file that are searched for collections."""
UNPACKED = 2000
r"""How many times as many bytes as in the file compressed numbers may be; zlib's are up to 1032."""


def check_heaps(path: Path) -> None:
    r"""Refuse words of which the HDF5 library would read one for ever.

    Words of any length lie in collections, ``GCOL``, in which each object says where the next one
    begins; the free space at the end, of index 0, counts its own header of 16 bytes. Of a file of
    more than :data:`SEARCHED` bytes the first are looked at.

    Raises:
        UsageError: An object is followed by itself, or is larger than its collection.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        start = content.find(COLLECTION, 0, SEARCHED)
        while start >= 0:
            (size,) = unpack_from("<Q", content[start + 8 : start + 16].ljust(8, b"\0"))
            place, end = start + 16, min(start + size, len(content))
            while place + 16 <= end:
                index, length = unpack_from("<H6xQ", content[place : place + 16])
                step = length if index == 0 else 16 + (length + 7) // 8 * 8
                if step == 0 or place + step > start + size:  # more, modulo 2^64, may be none
                    raise damaged(path, "it cannot be read as HDF5")
                place += step
            start = content.find(COLLECTION, start + 1, SEARCHED)


def read_hdf5(path: Path, memory: int) -> dict[str, np.ndarray | Stored]:
    r"""The arrays of a file by name; of groups within it, the names are joined by ``/``.

    Arguments:
        path: The file.
        memory: Bytes; numbers beyond, of all arrays together, stay on the disk.

    Raises:
        UsageError: Something lies in another file, is larger than the file can hold, or is words
            that are larger than the memory.
        Exception: It is damaged.
    """
    check_heaps(path)
    h5py, found, total = importlib.import_module("h5py"), {}, 0
    with h5py.File(path, "r") as file:
        for key, data in _datasets(path, h5py, file, set()):
            if data.shape is None:
                continue
            total += data.nbytes
            if data.dtype.kind in "biuf":
                found[key] = HDF5Array.of(path, data) if total > memory else data[()]
                continue
            if data.nbytes > max(SMALL, memory):
                raise UsageError(f"{path}: {key} is {data.nbytes >> 20:,} MiB of no numbers")
            if data.dtype.kind == "O" and h5py.check_string_dtype(data.dtype):
                found[key] = np.array(data.asstr()[()], dtype=str)
            elif data.dtype.kind == "S":
                found[key] = np.char.decode(data[()], "utf-8")
            else:
                found[key] = data[()]
    return found


def read_matlab(path: Path) -> dict[str, np.ndarray]:
    r"""The variables of a MATLAB file of version 7.3, whose axes are in the order of Fortran.

    A group, or a cell of something else than words, is an array of no numbers.

    Raises:
        UsageError, Exception: See :func:`read_hdf5`.
    """
    check_heaps(path)
    h5py, found = importlib.import_module("h5py"), {}
    with h5py.File(path, "r") as file:
        for key in file:
            found[key] = np.array(None)
        for key, data in _datasets(path, h5py, file, set()):
            if key in found and data.shape is not None:
                found[key] = _variable(file, data)
    return found


def _variable(file: Any, data: Any) -> np.ndarray:
    if data.attrs.get("MATLAB_class") == b"cell":  # references to words, each letter a number
        held = [file[place] for place in np.ravel(data[()])]
        if any(word.attrs.get("MATLAB_class") != b"char" for word in held):
            return np.array(None)
        return np.array(["".join(map(chr, np.ravel(word[()]))) for word in held])
    array: np.ndarray = data[()].T
    return array


def _datasets(
    path: Path, h5py: Any, group: Any, seen: set[int], above: str = ""
) -> Iterator[tuple[str, Any]]:
    r"""The data sets below a group, each with its path, checked."""
    for name in group:
        key, link = above + name, group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise _elsewhere(path, key)
        value = group[name]
        if isinstance(value, h5py.Group):
            place = h5py.h5o.get_info(value.id).addr
            if place not in seen:
                seen.add(place)
                yield from _datasets(path, h5py, value, seen, f"{key}/")
        elif isinstance(value, h5py.Dataset):
            _check(path, key, value)
            yield key, value


def _check(path: Path, key: str, data: Any) -> None:
    if data.external or data.is_virtual:
        raise _elsewhere(path, key)
    held = data.id.get_storage_size()
    packed = data.id.get_create_plist().get_nfilters() > 0
    if data.shape is not None and data.nbytes > max(SMALL, held * (UNPACKED if packed else 1)):
        raise UsageError(
            f"{path}: {key} claims {data.nbytes >> 20:,} MiB, of which the file holds {held:,} "
            "bytes; write all of its numbers"
        )


def _elsewhere(path: Path, key: str) -> UsageError:
    return UsageError(
        f"{path}: {key} lies in another file, and only what a file itself holds is read; copy it "
        "into the file"
    )
