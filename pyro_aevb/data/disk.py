r"""Data that stay on the disk, of which each look reads what it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.files import channels_first

MAPPED = 100
r"""Rows that are read while the file is mapped once."""
BLOCK = 1 << 20
r"""About how many numbers of consecutive rows are in memory at once."""


@dataclass(frozen=True, eq=False)
class OnDisk:
    r"""The rows of an ``.npy`` file, or some of them, read when they are looked at.

    It answers what a :class:`~pyro_aevb.data.split.Split` asks of a tensor of images. The file is
    mapped for a few rows at a time: while it is, what has been read of it counts as memory of the
    process, with its neighbourhood.

    Arguments:
        path: The file, an array ``(N, ...)`` of numbers, not to be changed meanwhile.
        dtype: What rows are read as: ``torch.uint8`` or ``torch.float32``.
        rows: The positions in the file, int64, ``(n,)``.
    """

    path: Path
    dtype: torch.dtype
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        r"""``(n, *event_shape)``, of images with the channels first."""
        return torch.Size((len(self), *self._read(np.zeros(1, np.int64)).shape[1:]))

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

    def _read(self, rows: np.ndarray) -> Tensor:
        order, parts = np.argsort(rows, kind="stable"), []  # forwards through the file
        for few in np.split(rows[order], range(MAPPED, len(rows), MAPPED)):
            parts.append(np.load(self.path, mmap_mode="r", allow_pickle=False)[few])
        taken = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
        taken[order] = np.concatenate(parts)
        return torch.from_numpy(channels_first(taken)[0]).to(self.dtype)
