r"""Batches cut from a split, binarized as asked, with the columns that are asked for."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.ahead import Ahead
from pyro_aevb.data.batch import Batch, Data
from pyro_aevb.data.blocks import in_windows
from pyro_aevb.data.disk import OnDisk
from pyro_aevb.data.split import Binarize, Split
from pyro_aevb.errors import UsageError

FIXED_SEED = 777
r"""Seed of the fixed binarization, the one of the VampPrior protocol."""


class Batches:
    r"""A split on a device and the way it is presented.

    With pixels :math:`p = images / scale`, a batch is :math:`x = p` (``"none"``) or
    :math:`x = 1[u < p]`, :math:`u \sim U[0, 1)`. The uniforms are drawn either once, here, over
    the whole split in order and from a seed of their own (``"fixed"``), so that the first `n` data
    are the same whether or not others follow; or at each :meth:`take` from torch's global
    generator (``"dynamic"``), so that a restored random state gives the same batches again.

    Arguments:
        split: The data.
        binarize: How they are presented.
        device: Where batches are made, and data that are in memory are kept.
        columns: The names of the columns that come with the data.
        factors: Those that say what the data were made of, which come with no batch.

    Raises:
        UsageError: If `binarize` is not one of the three, asks for pixels outside [0, 1], of
            missing values, or for bits that are drawn once of data that stay on the disk; or a
            column is missing.

    References:
        | On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov and Murray, 2008)
        | https://dl.acm.org/doi/10.1145/1390156.1390266
        | Importance Weighted Autoencoders (Burda et al., 2015)
        | https://arxiv.org/abs/1509.00519
    """

    def __init__(
        self,
        split: Split,
        binarize: Binarize,
        device: str | torch.device = "cpu",
        columns: Sequence[str] = (),
        factors: Iterable[str] = (),
    ) -> None:
        if binarize not in ("none", "dynamic", "fixed"):
            raise UsageError(f"binarize is {binarize!r}; it must be none, dynamic or fixed")
        if binarize != "none":
            low, high = split.range()
            if low < 0 or high > 1:
                raise UsageError(
                    f"binarize {binarize} needs data in [0, 1], these lie in"
                    f" [{low:.4g}, {high:.4g}]; use binarize none"
                )
            if split.missing:
                raise UsageError(
                    f"binarize {binarize} makes bits of missing values (NaN) too; use binarize none"
                )
        self.binarize = binarize
        self.scale = split.scale
        images, self.device = split.images, torch.device(device)
        self.resident = not isinstance(images, OnDisk)
        r"""Whether the data are in memory, so that a batch can be made within a captured step."""
        self.own_rows = isinstance(images, OnDisk) and binarize == "none"
        r"""Whether of several processes each reads its rows of a batch alone."""
        self._ahead: Ahead | None = None
        if not isinstance(images, OnDisk):
            if binarize == "fixed" and isinstance(images, Tensor):  # sprites are bits already
                images, self.scale = _draw_once(images, split.scale), 1
            images = images.to(self.device)
            self.device = images.device  # with its number
        elif binarize == "fixed":
            raise UsageError(
                f"these {len(split)} data stay on the disk, and bits that are drawn once stay in "
                "memory: use binarize none, or more --memory than the file has"
            )
        self.images = images
        self.event_shape = tuple(images.shape[1:])
        factors = list(factors)
        for name in (*columns, *factors):
            if name not in split.columns:
                raise UsageError(
                    f"the data have no column {name!r}; they have "
                    f"{', '.join(split.columns) or 'none'}"
                )
        self.columns = {name: split.columns[name].to(self.device) for name in columns}
        self.factors = {name: split.columns[name] for name in factors}

    def __len__(self) -> int:
        return len(self.images)

    def keep(self) -> None:
        r"""Hold batches that have to be computed in memory; here they are, or are read."""

    def order(self, batch_size: int, seed: int, epoch: int) -> Tensor:
        r"""The order in which an epoch visits the data, see :func:`order`.

        Of data that stay on the disk, and are more than a window, it is one of shuffled blocks
        (:func:`~pyro_aevb.data.blocks.in_windows`).
        """
        images, n = self.images, len(self)
        if not isinstance(images, OnDisk) or n <= images.window:
            return order(n, seed, epoch)
        generator = np.random.default_rng([seed % 2**64, epoch])
        return torch.from_numpy(in_windows(images.blocks, batch_size, images.window, generator))

    def ahead(self, coming: Sequence[Tensor]) -> AbstractContextManager[None]:
        r"""Read what stays on the disk before it is asked for, while the context is open.

        Arguments:
            coming: The positions that will be taken, each int64, ``(B,)``, in this order.
        """
        images = self.images
        return self._reading(images, coming) if isinstance(images, OnDisk) else nullcontext()

    @contextmanager
    def _reading(self, images: OnDisk, coming: Sequence[Tensor]) -> Iterator[None]:
        self._ahead = Ahead(images, [index.cpu() for index in coming])
        try:
            yield
        finally:
            self._ahead.close()
            self._ahead = None

    def first(self, n: int) -> Batches:
        r"""The first `n` data alone, presented as before."""
        few = copy.copy(self)
        few.images = self.images[:n]
        few.columns = {name: values[:n] for name, values in self.columns.items()}
        few.factors = {name: values[:n] for name, values in self.factors.items()}
        return few

    def take(self, index: Tensor) -> Data:
        r"""Make a batch :math:`x`, float32, ``(B, *event_shape)``, with its columns if any.

        Arguments:
            index: The positions of its data in the split, int64, ``(B,)``.
        """
        index = index.to(self.device)
        found = self._ahead.take(index.cpu()) if self._ahead else None
        x = (self.images.index_select(0, index) if found is None else found).to(self.device)
        counts = self.scale == 1 and not x.is_floating_point()
        x = x.float() if counts else x / self.scale  # dividing by 1 takes twice the time
        if self.binarize == "dynamic":
            x = (_uniform16(x) < x * 65536).float()
        if not self.columns:
            return x
        columns = {name: values.index_select(0, index) for name, values in self.columns.items()}
        return Batch(x, columns)


def _uniform16(like: Tensor) -> Tensor:
    r"""Uniform on 0.5, 1.5, ..., 65535.5, four from each draw of a generator.

    So :math:`P(u < 65536 p)` is p rounded to 16 bits: 0 and 1 are exact, and of the grey levels
    in between none is off by more than :math:`2^{-17}`.
    """
    limits = torch.iinfo(torch.int64)
    count = -(-like.numel() // 4)
    draws = torch.randint(limits.min, limits.max, (count,), device=like.device)
    words = draws.view(torch.int16)[: like.numel()].view(like.shape)
    return words + 32768.5


def _draw_once(images: Tensor, scale: int) -> Tensor:
    # on the CPU whatever the device, so that the bits are the same; in blocks, so that no float
    # copy of the split is held; the stream does not depend on the blocks
    generator = torch.Generator().manual_seed(FIXED_SEED)
    bits = torch.empty(images.shape, dtype=torch.uint8)
    for drawn, block in zip(bits.split(1024), images.cpu().split(1024), strict=True):
        drawn.copy_(torch.rand(block.shape, generator=generator) < block / scale)
    return bits


def order(n: int, seed: int, epoch: int) -> Tensor:
    r"""The order in which an epoch visits n data, a pure function of its arguments.

    Arguments:
        n: The number of data.
        seed: The seed of the run.
        epoch: The number of the epoch, 0 or more.

    Returns:
        A permutation of 0, ..., n - 1, int64, ``(n,)``.
    """
    return torch.from_numpy(np.random.default_rng([seed % 2**64, epoch]).permutation(n))


def evaluation_binarization(binarize: Binarize) -> Binarize:
    r"""How data are presented when a pair trained under `binarize` is scored.

    ``"dynamic"`` becomes ``"fixed"``, so that a score is of definite data.
    """
    return "fixed" if binarize == "dynamic" else binarize
