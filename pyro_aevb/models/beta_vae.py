r"""The beta-VAE: a variational autoencoder whose KL is weighted in training."""

from __future__ import annotations

from typing import Any

from pyro_aevb.models.vae import VAE


class BetaVAE(VAE):
    r"""Beta-VAE: the VAE, trained with another weight on its KL.

    Model, guide and sites are those of :class:`~pyro_aevb.models.vae.VAE`. In place of its bound,
    training maximizes, in nats per datum,

    .. math:: \mathbb{E}_{q_\phi(z \mid x)}[\log p_\theta(x \mid z)]
        - \beta \, \mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z)).

    For :math:`\beta \geq 1` this too is a lower bound on :math:`\log p_\theta(x)`, a looser one;
    for :math:`\beta < 1` it is none. With :math:`\beta = 1` the pair is the VAE, with 0 its
    objective is the reconstruction alone. All scores, the validation and early stopping among them,
    are of the true bound, :math:`\beta = 1`, which training does not maximize.

    The weight is an attribute, ``beta``, that the training reads
    (:func:`~pyro_aevb.training.optimizers.latent_weight`) and applies by an effect handler
    (:class:`~pyro_aevb.pairs.handlers.ScaleSites`). Any pair takes one, by an attribute of that
    name or by the flag ``--beta``, which has the last word.

    Arguments:
        event_shape: The shape of one datum.
        beta: The weight :math:`\beta`, 0 or more.
        options: The other arguments of :class:`~pyro_aevb.models.encoder_decoder.EncoderDecoder`.

    References:
        | beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework
        | (Higgins et al., 2017)
        | https://openreview.net/forum?id=Sy2fzU9gl
    """

    def __init__(self, event_shape: tuple[int, ...], beta: float = 4.0, **options: Any) -> None:
        super().__init__(event_shape, **options)
        self.beta = beta
