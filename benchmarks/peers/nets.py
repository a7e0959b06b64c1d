r"""The nets in plain PyTorch, which the PyTorch, Pyro and pythae contenders share."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.networks import Network
from benchmarks.peers import Values

STRIDED = {"kernel_size": 3, "stride": 2, "padding": 1}


class PixelBias(nn.Module):
    r"""A transposed convolution with a bias for every pixel, as the project's has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 28, 28))
        self.layer = nn.ConvTranspose2d(channels, 1, **STRIDED, output_padding=1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.layer(h) + self.bias


def _dense(sizes: Iterable[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return layers[:-1]


def encoder(network: Network, heads: int = 2) -> nn.Sequential:
    r"""Images to the mean and the log-variance, side by side."""
    if network.kind == "conv":
        a, b = network.hidden
        convolutions = (nn.Conv2d(1, a, **STRIDED), nn.Tanh(), nn.Conv2d(a, b, **STRIDED))
        return nn.Sequential(
            *convolutions, nn.Tanh(), nn.Flatten(), nn.Linear(b * 49, heads * network.latent)
        )
    return nn.Sequential(
        nn.Flatten(), *_dense([network.pixels, *network.hidden, heads * network.latent])
    )


def decoder(network: Network) -> nn.Sequential:
    r"""Codes of any leading shape (one of two dimensions, if convolutional) to logits."""
    if network.kind == "conv":
        a, b = network.hidden
        return nn.Sequential(
            nn.Linear(network.latent, b * 49),
            nn.Tanh(),
            nn.Unflatten(-1, (b, 7, 7)),
            nn.ConvTranspose2d(b, a, **STRIDED, output_padding=1),
            nn.Tanh(),
            PixelBias(a),
            nn.Flatten(),
        )
    return nn.Sequential(*_dense([network.latent, *reversed(network.hidden), network.pixels]))


class TorchParameters:
    r"""The parameters of a peer that holds torch's, in the order of all peers."""

    def tensors(self) -> Iterable[Tensor]:
        r"""Encoder, decoder, output."""
        raise NotImplementedError

    def parameters(self) -> Values:
        return [p.detach().cpu().numpy().copy() for p in self.tensors()]

    @torch.no_grad()
    def load(self, values: Values) -> None:
        for parameter, value in zip(self.tensors(), values, strict=True):
            if parameter.shape != value.shape:
                raise ValueError(f"a parameter of {tuple(parameter.shape)} is given {value.shape}")
            parameter.copy_(torch.from_numpy(value))


def pixels(images: np.ndarray, device: str) -> Tensor:
    r"""Grey levels in [0, 1], float32."""
    return torch.from_numpy(images).to(device).float() / 255
