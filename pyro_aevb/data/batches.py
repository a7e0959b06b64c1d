r"""Batches cut from a memory-resident split, binarized as asked."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

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
        device: Where they are kept and batches are made.

    Raises:
        UsageError: If `binarize` is not one of the three, or asks for pixels outside [0, 1].

    References:
        | On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov and Murray, 2008)
        | https://dl.acm.org/doi/10.1145/1390156.1390266
        | Importance Weighted Autoencoders (Burda et al., 2015)
        | https://arxiv.org/abs/1509.00519
    """

    def __init__(
        self, split: Split, binarize: Binarize, device: str | torch.device = "cpu"
    ) -> None:
        if binarize not in ("none", "dynamic", "fixed"):
            raise UsageError(f"binarize is {binarize!r}; it must be none, dynamic or fixed")
        if binarize != "none":
            low, high = (f().item() / split.scale for f in (split.images.min, split.images.max))
            if low < 0 or high > 1:
                raise UsageError(
                    f"binarize {binarize} needs data in [0, 1], these lie in"
                    f" [{low:.4g}, {high:.4g}]; use binarize none"
                )
        self.binarize = binarize
        self.scale = split.scale
        images = split.images
        if binarize == "fixed":
            images, self.scale = _draw_once(split), 1
        self.images = images.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> Batches:
        r"""The first data alone, presented as before.

        Arguments:
            n: How many.
        """
        few = copy.copy(self)
        few.images = self.images[:n]
        return few

    def take(self, index: Tensor) -> Tensor:
        r"""Make a batch.

        Arguments:
            index: The positions of its data in the split, int64, shape :math:`(B,)`.

        Returns:
            The batch :math:`x`, float32, shape :math:`(B, *event\_shape)`.
        """
        pixels = self.images.index_select(0, index.to(self.images.device)) / self.scale
        if self.binarize != "dynamic":
            return pixels
        return (_uniform16(pixels) < pixels * 65536).float()


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


def _draw_once(split: Split) -> Tensor:
    # on the CPU whatever the device, so that the bits are the same; in blocks, so that no float
    # copy of the split is held; the stream does not depend on the blocks
    generator = torch.Generator().manual_seed(FIXED_SEED)
    bits = torch.empty(split.images.shape, dtype=torch.uint8)
    blocks = zip(bits.split(1024), split.images.cpu().split(1024), strict=True)
    for drawn, images in blocks:
        drawn.copy_(torch.rand(images.shape, generator=generator) < images / split.scale)
    return bits


def order(n: int, seed: int, epoch: int) -> Tensor:
    r"""The order in which an epoch visits the data, a pure function of its arguments.

    Arguments:
        n: The number of data.
        seed: The seed of the run.
        epoch: The number of the epoch, 0 or more.

    Returns:
        A permutation of 0, ..., n - 1, int64, shape :math:`(n,)`.
    """
    generator = np.random.default_rng([seed % 2**64, epoch])
    return torch.from_numpy(generator.permutation(n))


def evaluation_binarization(binarize: Binarize) -> Binarize:
    r"""How data are presented when a pair trained under `binarize` is scored.

    Arguments:
        binarize: The binarization of the training data.

    Returns:
        ``"fixed"`` for ``"dynamic"``, so that a score is of definite data; otherwise the same.
    """
    return "fixed" if binarize == "dynamic" else binarize
