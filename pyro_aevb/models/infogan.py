r"""InfoGAN: a generator whose codes can be read from what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from pyro_aevb.errors import at_least_one
from pyro_aevb.models import likelihoods, networks


class InfoGAN(nn.Module):
    r"""InfoGAN: codes and noise make data; a recognition net finds the codes again.

    .. math:: c \sim \mathrm{U}(-1, 1)^{L}, \qquad \epsilon \sim \mathcal{N}(0, I), \qquad
        x \mid c, \epsilon \sim p_\theta(x \mid c, \epsilon),

    with independent pixels. The guide is :math:`q_\phi(c|x)`, normal with a mean and a variance for
    each code, beside the noise's own prior. It is trained by
    :class:`~pyro_aevb.training.infogan.InfoGAN`: no bound on :math:`\log p(x)` is ascended, and as
    nothing infers the noise, none is defined: the codes' prior is masked, and the guide's site is
    marked as one whose codes follow it, so that the pair generates. What ``encode`` returns for
    ``"c"`` is the recognition net's means.

    Each weight matrix of the discriminator is divided by its largest singular value (spectral
    normalization), which a step of the power iteration at each call follows. With the exact value
    its logits change by no more than the data do, so that it gives the generator a slope to follow
    also where it tells made data from real ones.

    Sites: the latents ``"c"`` of event shape ``(latent_dim,)`` and ``"noise"`` of event shape
    ``(noise_dim,)``, and the observed ``"x"`` of event shape `event_shape`, in the plate
    ``"data"``.

    Arguments:
        event_shape: The shape of one datum.
        latent_dim: L, the number of codes.
        noise_dim: The number of dimensions of the noise.
        hidden: The widths of the hidden layers of the recognition net and of the discriminator,
            default [500]; with ``network="conv"`` the channels of the recognition net, default
            [32, 64], beside a discriminator of [500].
        network: ``"mlp"`` or ``"conv"``, of generator and recognition net; the discriminator is an
            MLP.
        activation: The non-linearity of generator and recognition net, by name; the discriminator's
            is the leaky ReLU, of slope 0.2 below 0.
        init: How the parameters are drawn (see :func:`pyro_aevb.models.networks.initialize`).
        decoder_hidden: The widths of the generator's hidden layers, from the data to the code as
            those of `hidden` are; default these.

    Raises:
        UsageError: When a value is not possible.

    References:
        | InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
        | Adversarial Nets (Chen, Duan, Houthooft, Schulman, Sutskever and Abbeel, 2016)
        | https://arxiv.org/abs/1606.03657
        | Spectral Normalization for Generative Adversarial Networks (Miyato, Kataoka, Koyama and
        | Yoshida, 2018)
        | https://arxiv.org/abs/1802.05957
    """

    algorithm = "infogan"

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 10,
        noise_dim: int = 10,
        hidden: Sequence[int] | None = None,
        network: networks.Network = "mlp",
        activation: str = "relu",
        init: networks.Init = "torch",
        decoder_hidden: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        at_least_one("noise_dim", noise_dim)
        self.latent_dim, self.noise_dim = latent_dim, noise_dim
        self.encoder = networks.Encoder(event_shape, latent_dim, 2, network, hidden, activation)
        whole, down = latent_dim + noise_dim, hidden if decoder_hidden is None else decoder_hidden
        self.decoder = networks.Decoder(event_shape, whole, network, down, activation, "decoder_")
        self.likelihood = likelihoods.build("bernoulli", self.decoder)
        judge = networks.Encoder(
            event_shape, 1, 1, "mlp", hidden if network == "mlp" else None, "leaky_relu"
        )
        self.discriminator = nn.Sequential(judge, _Only())
        networks.initialize(self, init)
        for layer in [*judge.modules()]:
            if isinstance(layer, nn.Linear):
                parametrizations.spectral_norm(layer)
            elif isinstance(layer, nn.LeakyReLU):
                layer.negative_slope = 0.2

    def model(self, x: Tensor) -> None:
        r"""The generator, with `x` of shape `(batch, *event_shape)` observed."""
        pyro.module("decoder", self.decoder)
        pyro.module("likelihood", self.likelihood)
        with pyro.plate("data", len(x), dim=-1):
            prior = dist.Uniform(-x.new_ones(self.latent_dim), 1.0, validate_args=False)
            c = pyro.sample("c", prior.expand([len(x), self.latent_dim]).to_event(1).mask(False))
            noise = pyro.sample("noise", self._noise(x))
            features = self.decoder(_beside(c, noise))
            pyro.sample("x", self.likelihood(features), obs=x)

    def guide(self, x: Tensor) -> None:
        r"""The codes that the recognition net finds, and any noise."""
        pyro.module("encoder", self.encoder)
        loc, log_variance = self.encoder(x)
        matched: Any = {"matched": True}
        with pyro.plate("data", len(x), dim=-1):
            posterior = dist.Normal(loc, (0.5 * log_variance).exp(), validate_args=False)
            pyro.sample("c", posterior.to_event(1), infer=matched)
            pyro.sample("noise", self._noise(x))

    def _noise(self, x: Tensor) -> dist.TorchDistribution:
        zero, one = x.new_zeros(self.noise_dim), x.new_ones(self.noise_dim)
        normal = dist.Normal(zero, one, validate_args=False).expand([len(x), self.noise_dim])
        fn: dist.TorchDistribution = normal.to_event(1)
        return fn


class _Only(nn.Module):
    r"""The single head of an encoder."""

    def forward(self, heads: tuple[Tensor, ...]) -> Tensor:
        return heads[0]


def _beside(c: Tensor, noise: Tensor) -> Tensor:
    lead = torch.broadcast_shapes(c.shape[:-1], noise.shape[:-1])
    return torch.cat([c.expand(*lead, -1), noise.expand(*lead, -1)], -1)
