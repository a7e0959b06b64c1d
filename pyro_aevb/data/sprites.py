r"""Black and white images that are a few sprites in many places, made when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import fft
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sprites:
    r"""Images of bits, each a window of one long vector of pixels, all in memory.

    A sprite that is moved down by i and to the right by j, without leaving its frame of height H
    and width W, is in the order of its pixels the same sprite :math:`i W + j` pixels later: what
    runs over the end of a row is black. So the sprites are kept as one vector, with as many black
    pixels before each as it can be moved by, and an image is the HW pixels from some place on:
    one copy of consecutive bytes, as of an image that is kept whole.

    It answers what a :class:`~pyro_aevb.data.split.Split` asks of a tensor of images. Places are
    a tensor beside the pixels, and nothing is read back of it, so that a batch is made on their
    device and within a captured step.

    Arguments:
        pixels: The sprites, 0 or 1, uint8, ``(L,)``.
        starts: Where in `pixels` each image begins, int64, ``(N,)``.
        stride: How many pixels there are from one sprite to the next; those of the image n begin
            within the sprite ``starts[n] // stride``.
        event_shape: ``(1, H, W)``.
    """

    pixels: Tensor
    starts: Tensor
    stride: int
    event_shape: tuple[int, int, int]

    @classmethod
    def placed(cls, sprites: Tensor, which: Tensor, down: Tensor, right: Tensor) -> Sprites:
        r"""Put sprites into places.

        Arguments:
            sprites: 0 or 1, uint8, ``(S, H, W)``, each in a frame of the images' size.
            which: The sprite of each image, int64, ``(N,)``.
            down: By how many rows it is moved, 0 or more, int64, ``(N,)``.
            right: By how many columns, int64, ``(N,)``.

        Raises:
            ValueError: A pixel is neither 0 nor 1, or a sprite would leave the frame.
        """
        count, height, width = sprites.shape
        if sprites.dtype != torch.uint8 or int(sprites.max()) > 1:
            raise ValueError("sprites are uint8, 0 or 1")
        for axis, moved in ((2, down), (1, right)):
            lines = sprites.amax(axis)  # those that are not black
            beyond = lines.flip(1).argmax(1) + lines.shape[1] * (lines.amax(1) == 0)
            if bool((moved < 0).any()) or bool((moved > beyond[which]).any()):
                raise ValueError("a sprite leaves the frame")
        shifts = down * width + right
        room = int(shifts.max())
        stride = room + height * width
        pixels = torch.cat([sprites.new_zeros(count, room), sprites.flatten(1)], 1).flatten()
        return cls(pixels, which * stride + room - shifts, stride, (1, height, width))

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def shape(self) -> torch.Size:
        r"""``(N, 1, H, W)``."""
        return torch.Size((len(self), *self.event_shape))

    @property
    def dtype(self) -> torch.dtype:
        return self.pixels.dtype

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def is_floating_point(self) -> bool:
        return False

    def to(self, device: str | torch.device) -> Sprites:
        return replace(self, pixels=self.pixels.to(device), starts=self.starts.to(device))

    def __getitem__(self, index: slice | Tensor) -> Sprites:
        return replace(self, starts=self.starts[index])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        r"""Some of the images, uint8, ``(B, 1, H, W)``; `dim` is 0."""
        return self._read(self.starts.index_select(0, index))

    def split(self, size: int) -> Iterator[Tensor]:
        r"""All images in order, at most `size` of them at once."""
        return map(self._read, self.starts.split(size))

    def different(self) -> Tensor:
        r"""The position of the first image of each sprite that occurs, int64, in rising order.

        All values, and all sums of the pixels of an image, are among those of these images.
        """
        first = np.unique((self.starts // self.stride).cpu().numpy(), return_index=True)[1]
        return torch.from_numpy(np.sort(first))

    def total(self) -> Tensor:
        r"""The sum of all images, float64, ``(1, H, W)``, exact below :math:`2^{40}` images.

        With :math:`c_l` images that begin at l it is :math:`t_k = \sum_l c_l p_{l + k}`, which is a
        correlation.
        """
        pixels, starts = self.pixels.cpu().numpy(), self.starts.cpu().numpy()
        length = fft.next_fast_len(len(pixels), real=True)
        counts = np.bincount(starts, minlength=length).astype(float)
        spectrum = fft.rfft(counts).conj() * fft.rfft(pixels, length)
        sums = fft.irfft(spectrum, length)[: int(np.prod(self.event_shape))]
        return torch.from_numpy(np.rint(sums)).reshape(self.event_shape)

    def _read(self, starts: Tensor) -> Tensor:
        _, height, width = self.event_shape
        windows = self.pixels.unfold(0, height * width, 1)  # a view
        return windows.index_select(0, starts).unflatten(1, self.event_shape)
