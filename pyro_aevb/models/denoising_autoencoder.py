r"""The denoising autoencoder: an autoencoder that is trained on corrupted input."""

from __future__ import annotations

from typing import ClassVar

from pyro_aevb.data.corruption import Corruption, Masking
from pyro_aevb.models.autoencoder import Autoencoder


class DenoisingAutoencoder(Autoencoder):
    r"""Denoising autoencoder: reconstruct clean data from their corruption.

    Model, guide and sites are those of :class:`~pyro_aevb.models.autoencoder.Autoencoder`. In
    training the guide sees :math:`\tilde x` drawn from a corruption process
    :math:`c(\tilde x \mid x)`, anew each time, while the model observes the clean :math:`x`.
    What is maximized is, in nats per datum,

    .. math:: \mathbb{E}_{c(\tilde x \mid x)}\big[\log p_\theta(x \mid z = f_\phi(\tilde x))\big],

    the objective of Vincent et al., whose traditional losses are the Bernoulli likelihood (a
    cross-entropy) and the Gaussian one (a squared error). It is no bound on :math:`\log p(x)`,
    which the pair does not define: there is no density over codes, so no ELBO and no
    log-likelihood. The ``reconstruction`` that is reported, and validated, is that of clean input,
    :math:`\log p_\theta(x \mid z = f_\phi(x))`.

    The corruption is an attribute, by default :class:`~pyro_aevb.data.corruption.Masking` of a
    quarter of the components. Any pair takes one, by an attribute of that name or by the flags
    ``--corruption`` and ``--corruption-options``, which have the last word.

    Vincent et al. tie the decoder's weights to the encoder's, and their code is the one hidden
    layer, with a sigmoid. Here the weights are free, the code is linear, and `hidden` layers lie
    on both sides of it.

    The arguments are those of :class:`~pyro_aevb.models.encoder_decoder.EncoderDecoder`.

    References:
        | Extracting and Composing Robust Features with Denoising Autoencoders
        | (Vincent, Larochelle, Bengio and Manzagol, 2008)
        | https://doi.org/10.1145/1390156.1390294

        | Stacked Denoising Autoencoders: Learning Useful Representations in a Deep Network with a
        | Local Denoising Criterion (Vincent et al., 2010)
        | https://www.jmlr.org/papers/v11/vincent10a.html
    """

    corruption: ClassVar[Corruption] = Masking(0.25)
