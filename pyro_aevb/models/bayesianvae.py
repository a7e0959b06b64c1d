r"""The variational autoencoder with uncertain weights."""

from __future__ import annotations

from .bayesian import Bayesian
from .vae import VAE


class BayesianVAE(Bayesian):
    r"""Doubly stochastic variational autoencoder: full variational Bayes over codes and weights.

    The weights of the decoder have a prior, and are common to all data,

    .. math:: w \sim p(w), \qquad z_n \sim \mathcal{N}(0, I), \qquad
        x_n \mid z_n, w \sim p(x_n \mid z_n, w).

    The guide is :math:`q(w) \prod_n q_\phi(z_n \mid x_n)`, with the encoder of
    :class:`~pyro_aevb.models.vae.VAE`. Jensen's inequality, for the weights and given them for
    every code, gives the bound

    .. math:: \log p(\mathcal{D}) \geq \mathrm{E}_{q(w)}\Big[\sum_{n=1}^{N}
        \mathrm{E}_{q_\phi(z_n \mid x_n)}[\log p(x_n \mid z_n, w)]
        - \mathrm{KL}(q_\phi(z_n \mid x_n) \,\|\, p(z_n))\Big] - \mathrm{KL}(q(w) \,\|\, p(w)).

    In a step the sum over data is estimated from a batch, times N/B; the term of the weights is
    subtracted once for the data set. A datum, with ``--weight-noise shared`` a batch, has a draw of
    the weights of its own. With ``bayesian="both"`` the encoder's weights :math:`v` are uncertain
    too: they have a prior and a guide :math:`q(v)`, and the data do not depend on them, so that
    this is a bound on the same evidence, lower by :math:`\mathrm{KL}(q(v) \,\|\, p(v))`.

    It is assumed that the data are independent given the weights. The predictive density of new
    data, ``log_likelihood``, averages :math:`p(x \mid w)` over draws of the weights, each by
    importance samples of the code.

    Sites: the global weights ``"decoder. ..."``, ``"likelihood. ..."`` and, of both nets,
    ``"encoder. ..."``, one for each tensor; the latent ``"z"`` of event shape ``(latent_dim,)`` and
    the observed ``"x"`` of event shape `event_shape`, in the plate ``"data"`` of size `num_data`.

    The arguments are those of :class:`~pyro_aevb.models.bayesian.Bayesian`.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), appendix F
        | https://arxiv.org/abs/1312.6114

        | Variational Dropout and the Local Reparameterization Trick (Kingma et al., 2015)
        | https://arxiv.org/abs/1506.02557
    """

    family = VAE
    uncertain = "decoder"
