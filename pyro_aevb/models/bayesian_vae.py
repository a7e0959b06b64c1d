r"""The variational autoencoder with uncertain weights: the doubly stochastic hybrid."""

from pyro_aevb.models.bayesian import Bayesian
from pyro_aevb.models.vae import VAE


class BayesianVAE(Bayesian):
    r"""Full variational Bayes over codes and weights.

    Weights :math:`w` of the decoder (with ``bayesian="both"`` those of the encoder too) are drawn
    once for all data, and a code for each,

    .. math:: w \sim p(w), \qquad z_n \sim \mathcal{N}(0, I), \qquad
        x_n \mid z_n, w \sim p(x \mid z_n, w),

    and the guide is :math:`q(w) \prod_n q_\phi(z_n \mid x_n)`, amortized as that of
    :class:`~pyro_aevb.models.vae.VAE`. In nats per datum, training ascends

    .. math:: \frac{1}{N} \log p(\mathcal{D}) \geq \mathrm{E}_{q(w)}\Big[\frac{1}{B} \sum_{n=1}^{B}
        \mathrm{E}_{q(z_n|x_n)}[\log p(x_n|z_n, w)] - \mathrm{KL}(q(z_n|x_n) \| p(z))\Big]
        - \frac{1}{N} \mathrm{KL}(q(w) \| p(w)),

    in expectation over batches of B of the N data: the weights' term counts once per data set.
    Under ``--weight-noise local``, the default, each datum has weights of its own draw.

    The encoder's weights, where they are uncertain too, are an extension: they are in the model as
    well, where nothing depends on them but their prior.

    The arguments are those of :class:`~pyro_aevb.models.bayesian.Bayesian`.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix F
        | https://arxiv.org/abs/1312.6114
    """

    family = VAE
    uncertain = "decoder"
