r"""Batches of what a net makes of data, such as the codes of a layer below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from pyro_aevb.data.batch import data_of
from pyro_aevb.data.batches import Batches

MOST = 2 << 30
r"""Bytes above which codes are computed anew for each batch, and not kept."""
BLOCK = 1000
r"""Data that are coded at once."""


class Coded(Batches):
    r"""Codes of data, ``(N, *code_shape)`` float32, without the columns of the data.

    They are computed when a batch is taken; from :meth:`keep` on, which computes all of them once,
    they are in memory. The code must not depend on which data stand beside one another.

    Arguments:
        source: The data; not binarized anew at each look.
        code: From a batch ``(B, *event_shape)`` to codes ``(B, *code_shape)``; called without
            gradients.
    """

    def __init__(self, source: Batches, code: Callable[[Tensor], Tensor]) -> None:
        self.source, self.code = source, code
        self.binarize, self.scale = "none", 1
        self.columns, self.factors = {}, {}
        self.device, self.resident, self.own_rows = source.device, False, False
        few = self._coded(torch.arange(min(2, len(source)), device=self.device))
        self.event_shape = tuple(few.shape[1:])

    def __len__(self) -> int:
        return len(self.images) if self.resident else len(self.source)

    def keep(self) -> None:
        if self.resident or 4 * len(self) * torch.Size(self.event_shape).numel() > MOST:
            return
        blocks = torch.arange(len(self), device=self.device).split(BLOCK)
        self.images = torch.cat([self._coded(block) for block in blocks])
        self.resident = True

    def order(self, batch_size: int, seed: int, epoch: int) -> Tensor:
        return self.source.order(batch_size, seed, epoch)

    def ahead(self, coming: Sequence[Tensor]) -> AbstractContextManager[None]:
        return nullcontext() if self.resident else self.source.ahead(coming)

    def first(self, n: int) -> Batches:
        return super().first(n) if self.resident else Coded(self.source.first(n), self.code)

    def take(self, index: Tensor) -> Tensor:
        if self.resident:
            assert isinstance(self.images, Tensor)
            return self.images.index_select(0, index.to(self.device))
        return self._coded(index)

    @torch.no_grad()
    def _coded(self, index: Tensor) -> Tensor:
        return self.code(data_of(self.source.take(index)))
