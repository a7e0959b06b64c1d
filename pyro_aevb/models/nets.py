r"""The nets that the families share: an encoder, a decoder, and a likelihood on its output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from .. import likelihoods, networks


class EncoderDecoder(nn.Module):
    r"""What a pair with one code per datum is made of; a family adds ``model`` and ``guide``.

    The parameters are registered in Pyro's parameter store by the model and the guide
    (``pyro.module``), so that ``pyro.infer.SVI`` trains them too.

    Arguments:
        event_shape: The shape of one datum: :math:`(C, H, W)` for images, :math:`(D,)` for
            vectors.
        latent_dim: The number of dimensions of the code.
        hidden: The widths of the hidden layers of the encoder, mirrored by the decoder: units of
            an MLP (default [500]; an empty list is a linear code) or channels of a convolutional
            net (default [32, 64]).
        network: ``"mlp"``, or ``"conv"`` for images of any size.
        likelihood: ``"bernoulli"``, ``"gaussian"``, or ``"gaussian_sigmoid"``, the last with the
            mean in (0, 1) as in the AEVB paper.
        activation: The non-linearity of both nets, by name: one of tanh, relu, elu, leaky_relu,
            softplus, gelu, silu, sigmoid.
        init: How the parameters are drawn (see :func:`pyro_aevb.networks.initialize`).
        output_bias: Where the output starts (see
            :func:`pyro_aevb.likelihoods.set_output_bias`).
        data_mean: The mean of the training data, of shape `event_shape`.
        min_scale: The smallest standard deviation of a pixel under a Gaussian likelihood.

    Raises:
        UsageError: When a value is not possible.
    """

    heads: ClassVar[int]
    r"""How many vectors of the code's size the encoder returns."""

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 20,
        hidden: Sequence[int] | None = None,
        network: networks.Network = "mlp",
        likelihood: likelihoods.Likelihood = "bernoulli",
        activation: str = "tanh",
        init: networks.Init = "torch",
        output_bias: likelihoods.OutputBias = "data_mean",
        data_mean: Tensor | None = None,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = networks.Encoder(
            event_shape, latent_dim, self.heads, network, hidden, activation
        )
        self.decoder = networks.Decoder(event_shape, latent_dim, network, hidden, activation)
        self.likelihood = likelihoods.build(likelihood, self.decoder, min_scale)
        networks.initialize(self, init)
        likelihoods.set_output_bias(self.likelihood, output_bias, data_mean)

    def prior(self, x: Tensor) -> dist.Normal:
        r"""The standard normal over the codes of a batch, made from it to be on its device."""
        zero, one = x.new_zeros(self.latent_dim), x.new_ones(self.latent_dim)
        return dist.Normal(zero, one, validate_args=False).expand([len(x), self.latent_dim])

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        r"""The distribution of data given codes, ``(batch, *event_shape)``."""
        pyro.module("decoder", self.decoder)
        pyro.module("likelihood", self.likelihood)
        distribution: dist.TorchDistribution = self.likelihood(self.decoder(z))
        return distribution

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        r"""The heads of the encoder, ``(batch, latent_dim)`` each."""
        pyro.module("encoder", self.encoder)
        heads: tuple[Tensor, ...] = self.encoder(x)
        return heads
