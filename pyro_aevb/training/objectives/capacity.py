r"""The ELBO whose KL is held at a capacity that grows."""

from typing import Any

from torch import Tensor
from torch.distributions import kl_divergence

from pyro_aevb.errors import UsageError
from pyro_aevb.training.objectives.decomposition import draw
from pyro_aevb.training.objectives.elbo import TraceELBO


class Capacity(TraceELBO):
    r"""Reconstruction, and a KL that is kept near C nats per datum.

    .. math:: \mathcal{L} = \sum_n \mathrm{E} \log p(x_n|z) - B\, \gamma\, \Big|
        \frac{1}{B} \sum_n \mathrm{KL}(q(z|x_n) \| p(z)) - C \Big|

    C rises with the warm-up of the KL, whose factor it takes for itself: the KL is not scaled. With
    E epochs of ``--kl-warm-up`` C is `capacity` times e / (E + 1) in epoch e, and all of it from
    epoch E + 1 on; without a warm-up from the start. The KL is in closed form where PyTorch knows
    it, else a draw.

    Valid for pairs with one code, of independent dimensions in the guide and the prior.

    Arguments:
        num_particles: Draws; 1.
        gamma: :math:`\gamma`, above 0.
        capacity: The last C, in nats per datum, 0 or more.

    Raises:
        UsageError: A number that is not possible; or, when called, a pair of another kind.

    References:
        | Understanding disentangling in beta-VAE (Burgess et al., 2018)
        | https://arxiv.org/abs/1804.03599
    """

    couples = True
    own_weight = True
    r"""It weighs the KL itself, and another weight would be one of C."""

    def __init__(
        self, num_particles: int = 1, gamma: float = 1000.0, capacity: float = 25.0
    ) -> None:
        super().__init__(num_particles)
        if num_particles != 1:
            raise UsageError(f"--num-particles is {num_particles}; capacity draws one code")
        if not (gamma > 0 and capacity >= 0):
            raise UsageError(
                f"capacity: gamma is {gamma} and capacity {capacity}; the one must be above 0, the "
                "other 0 or more"
            )
        self.gamma, self.capacity = gamma, capacity

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        r"""Minus the estimate, differentiable."""
        one = draw(model, guide, args, kwargs)
        try:
            kl = kl_divergence(one.posterior, one.prior).sum(-1)
        except NotImplementedError:
            kl = one.log_posterior - one.log_prior
        apart = (kl.mean() - self.capacity * one.weight).abs()
        loss: Tensor = (len(kl) * self.gamma * apart - one.reconstruction.sum()) * one.scale
        return loss
