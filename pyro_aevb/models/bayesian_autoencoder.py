r"""The autoencoder with uncertain weights: a Bayesian neural network."""

from pyro_aevb.models.autoencoder import Autoencoder
from pyro_aevb.models.bayesian import Bayesian


class BayesianAutoencoder(Bayesian):
    r"""An autoencoder whose weights, all of both nets, are random variables.

    .. math:: w \sim p(w), \qquad x_n \mid w \sim p(x \mid z = f_w(x_n), w),

    with a guide :math:`q(w)` over the weights. The code is a function of the datum and the weights,
    and its prior is masked, as that of :class:`~pyro_aevb.models.autoencoder.Autoencoder`. In nats
    per datum, training ascends

    .. math:: \mathrm{E}_{q(w)}\Big[\frac{1}{B} \sum_{n=1}^{B} \log p(x_n \mid f_w(x_n), w)\Big]
        - \frac{1}{N} \mathrm{KL}(q(w) \| p(w)),

    in expectation over batches of B of the N data. It bounds the evidence of a regression of the
    data on themselves, and no :math:`\log p(x)`, which the pair does not define:
    ``reconstruction``, ``reconstruction_mixture`` and ``weight_kl`` are what is reported.

    The arguments are those of :class:`~pyro_aevb.models.bayesian.Bayesian`.

    References:
        | Weight Uncertainty in Neural Networks (Blundell et al., 2015)
        | https://arxiv.org/abs/1505.05424
        | Model Selection for Bayesian Autoencoders (Tran et al., 2021)
        | https://arxiv.org/abs/2106.06245
    """

    family = Autoencoder
