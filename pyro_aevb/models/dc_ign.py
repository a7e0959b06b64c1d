r"""DC-IGN: a VAE whose code has a dimension for each factor that the data are known to vary in."""

from __future__ import annotations

from pyro_aevb.models.vae import VAE


class DCIGN(VAE):
    r"""Deep convolutional inverse graphics network: the VAE, trained on groups of data.

    Model, guide and sites are those of :class:`~pyro_aevb.models.vae.VAE`, and so are the
    arguments; what is convolutional in the name is ``network="conv"``. It is trained by
    :class:`~pyro_aevb.training.dc_ign.DCIGN`, on data whose factors are known: its options say
    which of them have the first dimensions of the code. All scores are of the true bound, which
    training does not maximize.

    References:
        | Deep Convolutional Inverse Graphics Network (Kulkarni, Whitney, Kohli and Tenenbaum, 2015)
        | https://arxiv.org/abs/1503.03167
    """

    algorithm = "dc_ign"
