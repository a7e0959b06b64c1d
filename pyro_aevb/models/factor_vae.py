r"""FactorVAE: a VAE beside a discriminator that keeps its code's dimensions apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from pyro_aevb.models.vae import VAE


class FactorVAE(VAE):
    r"""FactorVAE: the VAE, trained with a penalty on the total correlation of its codes.

    Model, guide and sites are those of :class:`~pyro_aevb.models.vae.VAE`. A discriminator net on
    codes, which no density depends on, is trained beside it by
    :class:`~pyro_aevb.training.factor_vae.FactorVAE`, whose option ``gamma`` is the weight of the
    penalty. All scores are of the true bound, which training does not maximize.

    Arguments:
        event_shape: The shape of one datum.
        discriminator_hidden: The widths of the discriminator's hidden layers, of leaky ReLUs; by
            default six of 1,000, those of the paper.
        options: The other arguments of :class:`~pyro_aevb.models.encoder_decoder.EncoderDecoder`.

    References:
        | Disentangling by Factorising (Kim and Mnih, 2018)
        | https://arxiv.org/abs/1802.05983
    """

    algorithm = "factor_vae"

    def __init__(
        self,
        event_shape: tuple[int, ...],
        discriminator_hidden: Sequence[int] = (1000,) * 6,
        **options: Any,
    ) -> None:
        super().__init__(event_shape, **options)
        widths, layers = [self.latent_dim, *discriminator_hidden], []
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
        self.discriminator = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
