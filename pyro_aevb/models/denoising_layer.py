r"""The denoising autoencoder of one hidden layer, which stacked ones are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pyro_aevb.data.corruption import OF_PAIR, make_corruption
from pyro_aevb.errors import at_least_one, one_of
from pyro_aevb.models.networks import ACTIVATIONS

Loss = Literal["cross_entropy", "squared_error"]


class DenoisingLayer(nn.Module):
    r"""A hidden layer y that is learnt by reconstructing x from a corrupted :math:`\tilde x`.

    .. math:: y = s(W \tilde x + b), \qquad \hat x = g(W' y + b'), \qquad
        \tilde x \sim c(\tilde x \mid x),

    with :math:`W' = W^\top` where the weights are tied. As a pair it is the generative view of
    Vincent et al. (2008): the model draws a code y from a prior that is uniform, and so adds a
    constant, here masked out, and observes x given it; the guide is the point
    :math:`\delta(y - s(W \tilde x + b))`. What training minimizes is minus the ELBO of that pair in
    nats per datum, up to the constant,

    .. math:: \mathbb{E}_{c(\tilde x \mid x)}\Big[ -\log p(x \mid y) \Big],

    with g the sigmoid and ``loss="cross_entropy"``
    :math:`-\sum_i x_i \log \hat x_i + (1 - x_i) \log(1 - \hat x_i)`, for x in [0, 1]; with g the
    identity and ``"squared_error"`` :math:`\frac{1}{2} \sum_i (x_i - \hat x_i)^2`, a normal of
    standard deviation 1 without its constant :math:`\frac{D}{2} \log 2 \pi`, which is there, too.
    The ``reconstruction`` that is reported is of clean input.

    Sites: the latent ``"y"`` of event shape ``(hidden,)`` and the observed ``"x"`` of event shape
    `event_shape`, in the plate ``"data"``.

    Arguments:
        event_shape: The shape of one datum; it is flattened.
        hidden: The number of units.
        activation: The non-linearity s, by name: one of tanh, relu, elu, leaky_relu, softplus,
            gelu, silu, sigmoid.
        loss: ``"cross_entropy"`` or ``"squared_error"``.
        tied: Whether the decoder has the transposed weights of the encoder.
        corruption: c, a name or a callable, see
            :func:`~pyro_aevb.data.corruption.make_corruption`; ``"none"`` makes it an ordinary
            autoencoder.
        corruption_options: Its arguments; masking hits a quarter of the components, the same
            number in each datum, unless they say otherwise.

    Raises:
        UsageError: When a value is not possible.

    References:
        | Extracting and Composing Robust Features with Denoising Autoencoders
        | (Vincent, Larochelle, Bengio and Manzagol, 2008), section 4.2
        | https://doi.org/10.1145/1390156.1390294
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        hidden: int = 500,
        activation: str = "sigmoid",
        loss: Loss = "cross_entropy",
        tied: bool = True,
        corruption: Any = "masking",
        corruption_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        at_least_one("hidden", hidden)
        one_of("activation", activation, ACTIVATIONS)
        one_of("loss", loss, get_args(Loss))
        if corruption == "masking":
            corruption_options = {"exact": True, **(corruption_options or {})}
        self.corruption = make_corruption(corruption, corruption_options, flags=OF_PAIR)
        self.event_shape, self.hidden, self.loss = tuple(event_shape), hidden, loss
        self.encoder = nn.Linear(math.prod(event_shape), hidden)
        self.activation = ACTIVATIONS[activation]()
        self.bias = nn.Parameter(torch.zeros(self.event_shape))
        self.weight = None if tied else nn.Parameter(torch.empty(math.prod(event_shape), hidden))
        nn.init.zeros_(self.encoder.bias)
        for weight in [self.encoder.weight, *([] if self.weight is None else [self.weight])]:
            bound = 1 / math.sqrt(weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)

    def code(self, x: Tensor) -> Tensor:
        r"""The layer's units at data as they are, ``(B, hidden)``."""
        y: Tensor = self.activation(self.encoder(x.flatten(1)))
        return y

    def decode(self, y: Tensor) -> dist.TorchDistribution:
        r"""The distribution of data given codes, ``(*, hidden)``."""
        weight = self.encoder.weight.mT if self.weight is None else self.weight
        h = linear(y, weight, self.bias.flatten()).reshape(*y.shape[:-1], *self.event_shape)
        fn: dist.TorchDistribution
        if self.loss == "cross_entropy":
            fn = dist.Bernoulli(logits=h, validate_args=False)
        else:
            fn = dist.Normal(h, h.new_ones(()), validate_args=False)
        return fn.to_event(len(self.event_shape))

    def model(self, x: Tensor) -> None:
        r"""Codes without a prior, and `x`, ``(B, *event_shape)``, observed given them."""
        pyro.module("layer", self)
        with pyro.plate("data", len(x), dim=-1):
            prior = dist.Normal(x.new_zeros(self.hidden), 1.0, validate_args=False)
            y = pyro.sample("y", prior.expand([len(x), self.hidden]).to_event(1).mask(False))
            pyro.sample("x", self.decode(y), obs=x)

    def guide(self, x: Tensor) -> None:
        r"""The code of `x`, as a point."""
        pyro.module("layer", self)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Delta(self.code(x), validate_args=False).to_event(1))
