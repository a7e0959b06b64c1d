r"""Data that stay on the disk, of which each look reads what it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.files import channels_first
from pyro_aevb.data.stored import Stored

BLOCK = 1 << 20
r"""About how many numbers, or bytes of a file, of consecutive rows are in memory at once."""
WINDOW = 32 << 20
r"""Bytes of data, of many blocks, that an epoch shuffles among themselves."""
GAP = 1 << 16
r"""Bytes between two rows that are read with them, as this is quicker than to read twice."""


@dataclass(frozen=True, eq=False)
class OnDisk:
    r"""The rows of an array in a file, or some of them, read when they are looked at.

    It answers what a :class:`~pyro_aevb.data.split.Split` asks of a tensor of images.

    Arguments:
        stored: The array, ``(N, ...)``.
        dtype: What rows are read as: ``torch.uint8`` or ``torch.float32``.
        rows: The positions in the file, int64, ``(n,)``.
        plain: Whether rows have the axes that they have in the file, and are no images.
        missing: Whether a value of the file is NaN.
    """

    stored: Stored
    dtype: torch.dtype
    rows: np.ndarray
    plain: bool = False
    missing: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        r"""``(n, *event_shape)``, of images with the channels first."""
        none = np.empty((0, *self.stored.shape[1:]), self.stored.dtype)
        return torch.Size((len(self), *self._tensor(none).shape[1:]))

    @property
    def window(self) -> int:
        r"""Data that an epoch shuffles among themselves, and that are read ahead at once."""
        return max(1, WINDOW // (self.shape[1:].numel() * self.dtype.itemsize))

    @property
    def blocks(self) -> np.ndarray:
        r"""The number of the block of consecutive rows that each datum lies in, int64, ``(n,)``."""
        return self.rows // self._block

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def __getitem__(self, index: slice | Tensor) -> OnDisk:
        chosen = index if isinstance(index, slice) else index.cpu().numpy()
        return replace(self, rows=self.rows[chosen])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        r"""Some of the rows in memory, ``(B, *event_shape)``; `dim` is 0."""
        return self._read(self.rows[index.cpu().numpy()])

    def split(self, size: int) -> Iterator[Tensor]:
        r"""All rows in order, at most `size` of them, and a MiB or so, in memory at once."""
        size = min(size, max(1, BLOCK // self.shape[1:].numel()))
        for start in range(0, len(self), size):
            yield self._read(self.rows[start : start + size])

    @property
    def _block(self) -> int:
        # whole chunks, as a file that keeps its rows in chunks reads no less
        rows, chunk = max(1, BLOCK // self.stored.row_bytes), self.stored.chunk
        return -(-rows // chunk) * chunk

    def _read(self, rows: np.ndarray) -> Tensor:
        order = np.argsort(rows, kind="stable")  # forwards through the file
        forwards = rows[order]
        steps = np.diff(forwards)
        far = (steps * self.stored.row_bytes > GAP) & (np.diff(forwards // self.stored.chunk) > 0)
        cuts = np.flatnonzero(far | (np.diff(forwards // self._block) > 0)) + 1
        taken = np.empty((len(rows), *self.stored.shape[1:]), self.stored.dtype)
        with self.stored.opened() as file:
            for places, some in zip(np.split(order, cuts), np.split(forwards, cuts), strict=True):
                if len(some):
                    taken[places] = file[int(some[0]) : int(some[-1]) + 1][some - some[0]]
        return self._tensor(taken)

    def _tensor(self, rows: np.ndarray) -> Tensor:
        arranged = rows if self.plain else channels_first(rows)[0]
        kept = np.uint8 if self.dtype == torch.uint8 else np.float32
        return torch.from_numpy(np.ascontiguousarray(arranged, kept))
