r"""Arrays that stay in a file, of which consecutive rows are read at a time."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.data.files import read_arrays


@dataclass(frozen=True)
class Stored(ABC):
    r"""An array ``(N, ...)`` of numbers in a file, which is not to be changed meanwhile.

    Arguments:
        path: The file, or what it is called there.
        key: Where in the file it is.
        shape: ``(N, ...)``.
        dtype: Of what its numbers are in the file.
        chunk: Rows that the file keeps, and so reads, together.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: int = 1

    @abstractmethod
    def opened(self) -> Any:
        r"""A context, in which slices of rows can be taken of what it gives."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        r"""Bytes of one row."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def read(self, start: int, stop: int) -> np.ndarray:
        r"""Consecutive rows in memory."""
        with self.opened() as rows:
            return np.asarray(rows[start:stop])


@dataclass(frozen=True)
class NpyArray(Stored):
    r"""The array of an ``.npy`` file, read and not mapped, as what is mapped counts as memory.

    Arguments:
        start: Where in the file the numbers begin, in bytes; None if they are not row by row.
    """

    start: int | None = None

    @classmethod
    def of(cls, path: Path) -> NpyArray:
        array = read_arrays(path, mapped=True)["images"]
        start = getattr(array, "offset", 0) if array.flags.c_contiguous else None
        return cls(path.resolve(), "", array.shape, array.dtype, 1, start)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        if self.start is None:
            yield _Copies(np.load(self.path, mmap_mode="r", allow_pickle=False))
            return
        with self.path.open("rb", buffering=0) as file:
            yield _Rows(self, file, self.start)


@dataclass
class _Rows:
    r"""Slices of the rows that lie one after another in a file from some byte on."""

    array: Stored
    file: Any
    start: int

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(len(self.array))
        self.file.seek(self.start + first * self.array.row_bytes)
        count = (last - first) * math.prod(self.array.shape[1:])
        flat = np.fromfile(self.file, self.array.dtype, count)
        return flat.reshape(last - first, *self.array.shape[1:])


@dataclass
class _Copies:
    r"""Slices of what is mapped, in memory."""

    mapped: np.ndarray

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.array(self.mapped[rows])


@dataclass(frozen=True)
class MappedArray(Stored):
    r"""An array that a user has mapped."""

    array: Any = None

    @classmethod
    def of(cls, array: np.memmap) -> MappedArray:
        return cls(Path(str(array.filename)), "", array.shape, array.dtype, 1, array)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        yield _Copies(self.array)


@dataclass(frozen=True)
class HDF5Array(Stored):
    r"""A data set of an HDF5 file."""

    @classmethod
    def of(cls, path: Path, data: Any) -> HDF5Array:
        chunk = data.chunks[0] if data.chunks else 1
        return cls(path.resolve(), data.name, data.shape, data.dtype, chunk)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        with importlib.import_module("h5py").File(self.path, "r") as file:
            yield file[self.key]


@dataclass(frozen=True)
class ZarrArray(Stored):
    r"""An array of a folder that Zarr wrote."""

    @classmethod
    def of(cls, path: Path, data: Any) -> ZarrArray:
        return cls(path.resolve(), data.path, data.shape, np.dtype(data.dtype), data.chunks[0])

    @contextmanager
    def opened(self) -> Iterator[Any]:
        opened = importlib.import_module("zarr").open(self.path, mode="r")
        yield opened[self.key] if self.key else opened
