r"""The deterministic autoencoder."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from torch import Tensor

from pyro_aevb.models.encoder_decoder import EncoderDecoder


class Autoencoder(EncoderDecoder):
    r"""Deterministic autoencoder: the code is a function of the data and has no prior.

    The data are generated from a code by a decoder net,

    .. math:: x \mid z \sim p_\theta(x \mid z), \qquad z = f_\phi(x),

    with the pixels of :math:`x` independent given :math:`z` (see
    :mod:`pyro_aevb.models.likelihoods`). The prior of the code is masked, so that it adds nothing
    to any log-probability, and the guide is a point mass at the output of the encoder net,
    :math:`\delta(z - f_\phi(x))`. What Pyro calls the ELBO of this pair is then the reconstruction
    alone, in nats per datum,

    .. math:: \log p_\theta(x \mid z = f_\phi(x)).

    It is no bound on :math:`\log p(x)`, which the pair does not define: there is no density over
    codes. The masked site keeps the shape of the code and draws from :math:`\mathcal{N}(0, I)`,
    which says nothing about how codes of data are distributed.

    It is assumed that the data are independent and that the weights of both nets are points. A
    Bernoulli likelihood expects data in [0, 1] and makes the reconstruction a negative
    cross-entropy; a Gaussian one makes it a squared error weighted by a learned variance.

    Sites: the latent ``"z"`` of event shape ``(latent_dim,)`` and the observed ``"x"`` of event
    shape `event_shape`, in the plate ``"data"`` over the batch.

    The arguments are those of :class:`~pyro_aevb.models.encoder_decoder.EncoderDecoder`.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014)
        | https://arxiv.org/abs/1312.6114

        | Importance Weighted Autoencoders (Burda et al., 2016)
        | https://arxiv.org/abs/1509.00519
    """

    heads = 1

    def model(self, x: Tensor) -> None:
        r"""The decoder, with `x` of shape `(batch, *event_shape)` observed."""
        with self.plate(x):
            z = pyro.sample("z", self.prior(x).to_event(1).mask(False))
            pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x: Tensor) -> None:
        r"""The code of `x`, as a point mass."""
        (code,) = self.encode(x)
        with self.plate(x):
            pyro.sample("z", dist.Delta(code, validate_args=False).to_event(1))
