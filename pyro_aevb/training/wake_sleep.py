r"""The wake-sleep algorithm."""

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_aevb.data.batch import Data, with_data
from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import log_prob, run
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Phase, reached


class WakeSleep(Algorithm):
    r"""Two phases on each batch: the model learns from the data, the guide from its own dreams.

    With :math:`\theta` the parameters of the model and :math:`\phi` those of the guide, for a
    batch of B data the losses, in nats per datum, are

    .. math::
        \text{wake:} \quad -\frac{1}{B} \sum_n \log p_\theta(x_n, z_n),
        \quad z_n \sim q_\phi(z \mid x_n)
        \qquad
        \text{sleep:} \quad -\frac{1}{B} \sum_n \log q_\phi(z_n \mid x_n),
        \quad (z_n, x_n) \sim p_\theta(x, z),

    with the draws held fixed, so that each phase has a gradient for its own side alone. Wake is
    the ascent of :math:`\mathrm{E}_q[\log p_\theta(x, z)]`, hence of the ELBO, in
    :math:`\theta`; sleep descends :math:`\mathrm{E}_{p(x)} \mathrm{KL}(p(z|x) \Vert q(z|x))` in
    :math:`\phi`, the divergence the other way round: together they follow no one objective, and
    need no reparameterization. The run's ``objective`` is the mean of :math:`\log p(x, z)` in
    wake, which is no bound.

    Both phases take the optimizer, the rate and the batch size of the run. A dream is drawn from
    the observed site: of a Bernoulli it is binary, also where the data are grey and the guide
    sees grey pixels when awake (the paper does not say what it did); ``--binarize dynamic`` gives
    both the same.

    Valid for pairs whose latents are local and have densities, with no parameter on both sides,
    and whose model draws data by one call.

    Arguments:
        pair: An inspected pair.
        data: The training data.

    Raises:
        UsageError: The pair is not of this kind.

    References:
        | The wake-sleep algorithm for unsupervised neural networks (Hinton, Dayan, Frey and Neal,
          1995)
        | https://doi.org/10.1126/science.7761831
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), sections 4 and 5
        | https://arxiv.org/abs/1312.6114
    """

    name = "wake_sleep"

    def __init__(self, pair: Pair, data: Batches) -> None:
        description = pair.description
        assert description is not None, "inspect the pair first"
        reason = description.undefined() or description.no_simulation()
        if reason is None and description.global_sites:
            reason = f"{description.global_sites[0].name!r} is a global latent site"
        if reason is None and description.auxiliary:
            reason = f"{description.auxiliary[0]!r} is an auxiliary guide site, which no dream has"
        if reason is None and not description.local_sites:
            reason = "it has no latent site"
        if reason is not None:
            raise UsageError(
                f"wake_sleep cannot train {pair.name}: {reason}; it needs local latent sites with "
                "densities in model and guide, as VAE has: use --algorithm svi"
            )
        self.pair, self.observed = pair, description.observed
        theta, phi = (reached(pair, data, loss) for loss in (self._wake, self._sleep))
        for name in theta:
            if name in phi:
                raise UsageError(
                    f"wake_sleep cannot train {pair.name}: its model and its guide share the "
                    f"parameter {name!r}, and each has a loss of its own; give each side its own"
                )
        self.phases = [Phase("wake", self._wake, theta), Phase("sleep", self._sleep, phi)]

    def _wake(self, x: Data, index: Tensor) -> Tensor:
        with torch.no_grad():
            codes = _values(run(self.pair.guide, x))
        return _minus_log_prob(run(self.pair.model, x, codes)) / len(x)

    def _sleep(self, x: Data, index: Tensor) -> Tensor:
        with torch.no_grad():
            dream = _values(run(poutine.uncondition(self.pair.model), x))
        seen = with_data(x, dream.pop(self.observed).reshape(x.shape))
        return _minus_log_prob(run(self.pair.guide, seen, dream)) / len(x)


def _values(sites: dict[str, Any]) -> dict[str, Tensor]:
    return {name: site["value"] for name, site in sites.items()}


def _minus_log_prob(sites: dict[str, Any]) -> Tensor:
    r"""Minus the log-probability of all sites of all data, at plate scale 1."""
    return -torch.stack([log_prob(site, 1.0).sum() for site in sites.values()]).sum()
