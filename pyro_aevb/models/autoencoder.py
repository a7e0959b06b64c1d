r"""The deterministic autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from .. import likelihoods, networks


class Autoencoder(nn.Module):
    r"""Deterministic autoencoder: the code is a function of the data and has no prior.

    The data are generated from a code by a decoder net,

    .. math:: x \mid z \sim p_\theta(x \mid z), \qquad z = f_\phi(x),

    with the pixels of :math:`x` independent given :math:`z` (see :mod:`pyro_aevb.likelihoods`).
    The prior of the code is masked, so that it adds nothing to any log-probability, and the guide
    is a point mass at the output of the encoder net, :math:`\delta(z - f_\phi(x))`. What Pyro
    calls the ELBO of this pair is then the reconstruction alone, in nats per datum,

    .. math:: \log p_\theta(x \mid z = f_\phi(x)).

    It is no bound on :math:`\log p(x)`, which the pair does not define: there is no density over
    codes. The masked site keeps the shape of the code and draws from :math:`\mathcal{N}(0, I)`,
    which says nothing about how codes of data are distributed.

    It is assumed that the data are independent and that the weights of both nets are points. A
    Bernoulli likelihood expects data in [0, 1] and makes the reconstruction a negative
    cross-entropy; a Gaussian one makes it a squared error weighted by a learned variance.

    The parameters are those of the module: give ``parameters()`` to a PyTorch optimizer. They are
    not registered in Pyro's parameter store.

    Sites: the latent ``"z"`` of event shape ``(latent_dim,)`` and the observed ``"x"`` of event
    shape `event_shape`, in the plate ``"data"`` over the batch.

    Arguments:
        event_shape: The shape of one datum: :math:`(C, H, W)` for images, :math:`(D,)` for
            vectors.
        latent_dim: The number of dimensions of the code.
        hidden: The widths of the hidden layers of the encoder, mirrored by the decoder: units of
            an MLP (default [500]; an empty list is a linear code) or channels of a convolutional
            net (default [32, 64]).
        network: ``"mlp"``, or ``"conv"`` for images of any size.
        likelihood: ``"bernoulli"``, ``"gaussian"``, or ``"gaussian_sigmoid"``, the last with the
            mean in (0, 1).
        activation: The non-linearity of both nets, by name: one of tanh, relu, elu, leaky_relu,
            softplus, gelu, silu, sigmoid.
        init: How the parameters are drawn (see :func:`pyro_aevb.networks.initialize`).
        output_bias: Where the output starts (see
            :func:`pyro_aevb.likelihoods.set_output_bias`).
        data_mean: The mean of the training data, of shape `event_shape`.
        min_scale: The smallest standard deviation of a pixel under a Gaussian likelihood.

    Raises:
        UsageError: When a value is not possible.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014)
        | https://arxiv.org/abs/1312.6114

        | Importance Weighted Autoencoders (Burda et al., 2016)
        | https://arxiv.org/abs/1509.00519
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 20,
        hidden: Sequence[int] | None = None,
        network: networks.Network = "mlp",
        likelihood: likelihoods.Likelihood = "bernoulli",
        activation: str = "tanh",
        init: networks.Init = "torch",
        output_bias: likelihoods.OutputBias = "data_mean",
        data_mean: Tensor | None = None,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = networks.Encoder(event_shape, latent_dim, 1, network, hidden, activation)
        self.decoder = networks.Decoder(event_shape, latent_dim, network, hidden, activation)
        self.likelihood = likelihoods.build(likelihood, self.decoder, min_scale)
        networks.initialize(self, init)
        likelihoods.set_output_bias(self.likelihood, output_bias, data_mean)

    def model(self, x: Tensor) -> None:
        r"""The decoder, with `x` of shape `(batch, *event_shape)` observed."""

        # Made from x, the prior is on its device; numbers would be tensors on the CPU.
        zero, one = x.new_zeros(self.latent_dim), x.new_ones(self.latent_dim)
        prior = dist.Normal(zero, one, validate_args=False).expand([len(x), self.latent_dim])
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", prior.to_event(1).mask(False))
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    def guide(self, x: Tensor) -> None:
        r"""The code of `x`, as a point mass."""

        (code,) = self.encoder(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Delta(code, validate_args=False).to_event(1))
