r"""The autoencoder with uncertain weights."""

from __future__ import annotations

from .autoencoder import Autoencoder
from .bayesian import Bayesian


class BayesianAutoencoder(Bayesian):
    r"""Bayesian autoencoder: a deterministic code, and a distribution over all weights.

    A datum is generated from the code that the encoder gives it, by weights that have a prior,

    .. math:: w \sim p(w), \qquad z = f_w(x), \qquad x \mid z, w \sim p(x \mid z, w),

    where :math:`w` holds all weights and biases of the encoder and the decoder. The guide is
    :math:`q(w)`, with a point mass at :math:`f_w(x)` for the code. What is maximized is

    .. math:: \mathcal{L} = \mathrm{E}_{q(w)}\Big[\sum_{n=1}^{N} \log p(x_n \mid f_w(x_n), w)\Big]
        - \mathrm{KL}(q(w) \,\|\, p(w)),

    in a step from a batch of B data, whose sum is multiplied by N/B. That is Bayesian
    regression with the data as inputs and as targets, and a bound on the evidence of the targets
    given the inputs. It is no bound on :math:`\log p(x)`, which the pair does not define: there is
    no density over codes. ``reconstruction``, ``reconstruction_mixture`` and ``weight_kl`` are
    defined.

    It is assumed that the data are independent given the weights. Predictions average over draws
    of :math:`w`.

    Sites: the global weights ``"encoder. ..."``, ``"decoder. ..."``, ``"likelihood. ..."``, one for
    each tensor; the latent ``"z"`` of event shape ``(latent_dim,)`` and the observed ``"x"`` of
    event shape `event_shape`, in the plate ``"data"`` of size `num_data`.

    The arguments are those of :class:`~pyro_aevb.models.bayesian.Bayesian`.

    References:
        | Weight Uncertainty in Neural Networks (Blundell et al., 2015)
        | https://arxiv.org/abs/1505.05424

        | Model Selection for Bayesian Autoencoders (Tran et al., 2021)
        | https://arxiv.org/abs/2106.06245
    """

    family = Autoencoder
    uncertain = "both"
