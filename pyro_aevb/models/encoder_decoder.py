r"""The nets that the families share: an encoder, a decoder, and a likelihood on its output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
from torch import Tensor, nn
from torch.func import functional_call

from pyro_aevb.models import likelihoods, networks


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
        likelihood: ``"bernoulli"``, ``"gaussian"``, ``"gaussian_sigmoid"`` with the mean in (0, 1)
            as in the AEVB paper, or ``"continuous_bernoulli"``, a density for grey levels.
        activation: The non-linearity of both nets, by name: one of tanh, relu, elu, leaky_relu,
            softplus, gelu, silu, sigmoid.
        init: How the parameters are drawn (see :func:`pyro_aevb.models.networks.initialize`).
        output_bias: Where the output starts (see
            :func:`pyro_aevb.models.likelihoods.set_output_bias`).
        data_mean: The mean of the training data, of shape `event_shape`.
        min_scale: The smallest standard deviation of a pixel under a Gaussian or continuous
            Bernoulli likelihood.
        decoder_hidden: The widths of the decoder's hidden layers, from the data to the code as
            those of `hidden` are; default these.
        decoder_activation: The decoder's non-linearity; default that of both.

    Raises:
        UsageError: When a value is not possible.
    """

    heads: ClassVar[int]
    r"""How many vectors of the code's size the encoder returns."""
    num_data: int | None = None
    r"""N, the number of training data, which only a pair with uncertain weights has to know."""

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
        decoder_hidden: Sequence[int] | None = None,
        decoder_activation: str | None = None,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder_shape, told = self.shapes(event_shape, latent_dim, network)
        self.encoder = networks.Encoder(
            self.encoder_shape, latent_dim, self.heads, network, hidden, activation
        )
        down = hidden if decoder_hidden is None else decoder_hidden
        self.decoder = networks.Decoder(
            event_shape, told, network, down, decoder_activation or activation, "decoder_"
        )
        self.likelihood = likelihoods.build(likelihood, self.decoder, min_scale)
        networks.initialize(self, init)
        likelihoods.set_output_bias(self.likelihood, output_bias, data_mean)
        self._drawn: Mapping[str, Mapping[str, Tensor]] = {}

    def shapes(
        self, event_shape: tuple[int, ...], latent_dim: int, network: str
    ) -> tuple[tuple[int, ...], int]:
        r"""The shape of what the encoder sees, and the number of values that the decoder does."""
        return event_shape, latent_dim

    def prior(self, x: Tensor) -> dist.Normal:
        r"""The standard normal over the codes of a batch, made from it to be on its device."""
        zero, one = x.new_zeros(self.latent_dim), x.new_ones(self.latent_dim)
        return dist.Normal(zero, one, validate_args=False).expand([len(x), self.latent_dim])

    def plate(self, x: Tensor) -> pyro.plate:
        r"""The plate over the data of a batch, which knows N if the pair does."""
        size = len(x) if self.num_data is None else self.num_data
        few = None if self.num_data is None else len(x)
        return pyro.plate("data", size, subsample_size=few, dim=-1)

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        r"""The distribution of data given codes, ``(batch, *event_shape)``."""
        distribution: dist.TorchDistribution = self.run("likelihood", self.run("decoder", z))
        return distribution

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        r"""The heads of the encoder, ``(batch, latent_dim)`` each."""
        heads: tuple[Tensor, ...] = self.run("encoder", x)
        return heads

    def run(self, name: str, input: Tensor) -> Any:
        r"""What one of the nets makes of an input, with its parameters known to Pyro."""
        net = self.get_submodule(name)
        pyro.module(name, net)
        if name in self._drawn:
            return functional_call(net, dict(self._drawn[name]), (input,))
        return net(input)

    @contextmanager
    def drawn(self, weights: Mapping[str, Mapping[str, Tensor]]) -> Iterator[None]:
        r"""Inside, nets run with other weights than their own, given by net and parameter."""
        self._drawn = weights
        try:
            yield
        finally:
            self._drawn = {}
