r"""Encoders, from data to a code, and decoders, from a code to features of the data.

Both come as a multilayer perceptron (``network="mlp"``) and as a convolutional net
(``network="conv"``), the decoder being the mirror image of the encoder. Every net accepts any
leading shape, so that many codes of each datum are decoded at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pyro_aevb.errors import UsageError, one_of

Network = Literal["mlp", "conv"]
Init = Literal["torch", "aevb", "aevb_std0.1", "glorot"]

ACTIVATIONS = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}

# The one kernel with which a stride of 2 takes n pixels to ceil(n / 2) for every n >= 1, and back.
_STRIDED: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1}


class Heads(nn.Module):
    r"""The last layer of a net: `count` tensors of one `shape` from a single product.

    Arguments:
        layer: The layer that gives the numbers of all heads, `count * prod(shape)` of them.
        count: The number of heads.
        shape: The shape of the output of each.
    """

    def __init__(self, layer: nn.Linear | PixelOutput, count: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = layer
        self.count = count
        self.shape = shape

    def forward(self, h: Tensor) -> tuple[Tensor, ...]:
        y: Tensor = self.layer(h)
        lead = y.shape[: -1 if isinstance(self.layer, nn.Linear) else -3]
        return y.reshape(*lead, self.count, *self.shape).unbind(-1 - len(self.shape))

    def weights(self) -> tuple[Tensor, ...]:
        r"""Returns, for each head, a view of the weights that are its own."""
        if isinstance(self.layer, nn.Linear):
            return self.layer.weight.chunk(self.count, 0)
        return next(self.layer[0].parameters()).chunk(self.count, 1)

    def biases(self) -> tuple[Tensor, ...]:
        r"""Returns, for each head, a view of the bias of each of its outputs, in their `shape`."""
        return self.layer.bias.view(self.count, *self.shape).unbind(0)


class OverImages(nn.Sequential):
    r"""Layers that take images :math:`(N, C, H, W)`, applied over any leading shape."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x.reshape(-1, *x.shape[-3:]))
        return y.reshape(*x.shape[:-3], *y.shape[1:])


class PixelOutput(OverImages):
    r"""A transposed convolution with a learned bias for every pixel instead of every channel.

    The bias per pixel is what lets the output start at the mean image, as it does for an MLP.

    Arguments:
        channels: The number of channels of the features.
        out_channels: The number of channels of the output.
        size: The height and width of the output; the input has half, rounded up.
    """

    def __init__(self, channels: int, out_channels: int, size: Sequence[int]) -> None:
        super().__init__(_upsample(channels, out_channels, size, bias=False))
        self.bias = nn.Parameter(torch.zeros(out_channels, *size))

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h) + self.bias


def _upsample(
    channels: int, out_channels: int, size: Sequence[int], bias: bool = True
) -> nn.ConvTranspose2d:
    # From h = ceil(n / 2) pixels a transposed convolution makes 2 h - 1, plus the output padding.
    padding = (1 - size[0] % 2, 1 - size[1] % 2)
    return nn.ConvTranspose2d(channels, out_channels, **_STRIDED, output_padding=padding, bias=bias)


def dense(sizes: Sequence[int], activation: str) -> nn.Sequential:
    r"""Linear layers from each of some sizes to the next, a non-linearity after each."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    r"""Maps data to `heads` tensors of the size of the code.

    The layers are `hidden` wide, then one linear layer gives all heads. With ``hidden=[]`` a head
    is an affine map of the data, :math:`W x + b`. With ``network="conv"``, `hidden` are the
    numbers of channels of convolutions (kernel 3, stride 2) that each halve the image, rounding
    up, whatever its size.

    Shapes: `x` is :math:`(*, D_1, ..., D_n)` with the event shape :math:`D`; each result is
    :math:`(*, latent\_dim)`.

    Arguments:
        event_shape, latent_dim, network, hidden, activation: See
            :class:`~pyro_aevb.models.encoder_decoder.EncoderDecoder`.
        heads: The number of tensors to give: 2 for a mean and a log-variance.

    Raises:
        UsageError: When a size is not positive, a name is unknown, or a convolutional net is
            asked for data that are no images.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int,
        heads: int = 1,
        network: Network = "mlp",
        hidden: Sequence[int] | None = None,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        widths = _check_sizes(event_shape, latent_dim, network, hidden, activation)
        if network == "mlp":
            sizes = [math.prod(event_shape), *widths]
            self.body = nn.Sequential(nn.Flatten(-len(event_shape)), *dense(sizes, activation))
            features = sizes[-1]
        else:
            layers: list[nn.Module] = []
            for a, b in pairwise([event_shape[0], *widths]):
                layers += [nn.Conv2d(a, b, **_STRIDED), ACTIVATIONS[activation]()]
            self.body = nn.Sequential(OverImages(*layers), nn.Flatten(-3))
            features = widths[-1] * math.prod(_halvings(event_shape, len(widths))[-1])
        self.heads = Heads(nn.Linear(features, heads * latent_dim), heads, (latent_dim,))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.heads(self.body(x))


class Decoder(nn.Module):
    r"""Maps a code to features from which a likelihood makes its parameters.

    The mirror image of :class:`Encoder`: the hidden layers in reverse order. The last layer, from
    the features to the data, belongs to the likelihood, which asks for it with :meth:`output`.
    A convolutional decoder retraces the sizes of the encoder, so the size of the image is met
    exactly, odd or even.

    Shapes: `z` is :math:`(*, latent\_dim)`; the result is :math:`(*, features)` for an MLP and
    :math:`(*, channels, h, w)` for a convolutional net.

    The arguments are those of :class:`Encoder`; `hidden` too is given from the data to the code,
    and `prefix` is what its name begins with in error messages.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int,
        network: Network = "mlp",
        hidden: Sequence[int] | None = None,
        activation: str = "tanh",
        prefix: str = "",
    ) -> None:
        super().__init__()
        widths = _check_sizes(event_shape, latent_dim, network, hidden, activation, prefix)[::-1]
        self.event_shape = tuple(event_shape)
        self.network = network
        self.features = [latent_dim, *widths][-1]
        if network == "mlp":
            self.body = dense([latent_dim, *widths], activation)
        else:
            act = ACTIVATIONS[activation]
            layers: list[nn.Module] = []
            images = _halvings(event_shape, len(widths))[::-1]
            for (a, b), size in zip(pairwise(widths), images[1:-1], strict=True):
                layers += [_upsample(a, b, size), act()]
            self.body = nn.Sequential(
                nn.Linear(latent_dim, widths[0] * math.prod(images[0])),
                act(),
                nn.Unflatten(-1, (widths[0], *images[0])),
                OverImages(*layers),
            )

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)

    def output(self, count: int) -> Heads:
        r"""Makes a last layer, from the features to `count` tensors of the shape of a datum."""
        if self.network == "mlp":
            linear = nn.Linear(self.features, count * math.prod(self.event_shape))
            return Heads(linear, count, self.event_shape)
        channels, *size = self.event_shape
        return Heads(PixelOutput(self.features, count * channels, size), count, self.event_shape)


def _halvings(event_shape: Sequence[int], times: int) -> list[tuple[int, int]]:
    r"""The height and width of the image, and after each of the convolutions."""
    _, height, width = event_shape
    return [(-(-height // 2**i), -(-width // 2**i)) for i in range(times + 1)]


def _check_sizes(
    event_shape: tuple[int, ...],
    latent_dim: int,
    network: str,
    hidden: Sequence[int] | None,
    activation: str,
    prefix: str = "",
) -> list[int]:
    r"""The widths of the hidden layers, once what both nets are built from is checked."""
    one_of("network", network, get_args(Network))
    one_of(f"{prefix}activation", activation, ACTIVATIONS)
    widths = list(hidden) if hidden is not None else {"mlp": [500], "conv": [32, 64]}[network]
    named = f"{prefix}hidden"
    sizes = {"event_shape": event_shape, "latent_dim": (latent_dim,), named: widths}
    for option, numbers in sizes.items():
        if not all(isinstance(n, int) and n >= 1 for n in numbers):
            raise UsageError(f"{option} must be whole numbers of at least 1, not {list(numbers)}")
    if not event_shape:
        raise UsageError("event_shape=() has no dimensions; give (D,) or (C, H, W)")
    if network == "conv" and len(event_shape) != 3:
        raise UsageError(
            f'network="conv" needs images (C, H, W), not {event_shape}; use network="mlp"'
        )
    if network == "conv" and not widths:
        raise UsageError(f'{named}=[] leaves no convolution; for a linear code use network="mlp"')
    return widths


@torch.no_grad()
def initialize(net: nn.Module, init: Init) -> None:
    r"""Draws the parameters of all layers of a net afresh, of linear layers and convolutions.

    - ``"torch"`` leaves PyTorch's own initialization;
    - ``"aevb"`` draws every weight and bias from :math:`\mathcal{N}(0, 0.01)`, as the AEVB paper
      says, with 0.01 read as the standard deviation;
    - ``"aevb_std0.1"`` is the same with 0.01 read as the variance;
    - ``"glorot"`` draws the weights of the IWAE paper, uniform within
      :math:`\pm \sqrt{6 / (n_{in} + n_{out})}`, and sets the biases to 0. Heads that share a
      layer count as layers of their own; for a convolution, :math:`n` counts channels times the
      pixels of the kernel.

    Raises:
        UsageError: When the name is none of these.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014)
        | https://arxiv.org/abs/1312.6114

        | Importance Weighted Autoencoders (Burda et al., 2016)
        | https://arxiv.org/abs/1509.00519
    """
    one_of("init", init, get_args(Init))
    if init in ("aevb", "aevb_std0.1"):
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.01 if init == "aevb" else 0.1)
    elif init == "glorot":
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)
        for heads in net.modules():
            for weight in heads.weights() if isinstance(heads, Heads) else ():
                nn.init.xavier_uniform_(weight)
