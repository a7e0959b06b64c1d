r"""The objective of beta-TCVAE: the parts of the KL, each with a weight."""

from typing import Any

from torch import Tensor

from pyro_aevb.errors import UsageError
from pyro_aevb.training.objectives.decomposition import draw
from pyro_aevb.training.objectives.elbo import TraceELBO


class BetaTCVAE(TraceELBO):
    r"""The ELBO with weights on the three parts that its KL has over all data.

    .. math:: \mathcal{L} = \mathrm{E} \log p(x|z) - \alpha\, \text{information}
        - \beta\, \text{total correlation} - \gamma\, \text{dimension-wise KL},

    as :mod:`~pyro_aevb.training.objectives.decomposition` defines and estimates them, a sum over
    the data of the batch, in nats. With all three weights 1 it is the ELBO, exactly, whatever the
    batch: the estimates cancel. A warm-up of the KL, and ``--beta``, multiply all three.

    Valid for pairs with one code, of independent dimensions in the guide and the prior.

    Arguments:
        num_particles: Draws; 1.
        num_data: N, the number of training data.
        alpha, beta, gamma: The weights, 0 or more.

    Raises:
        UsageError: A number that is not possible; or, when called, a pair of another kind.

    References:
        | Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018)
        | https://arxiv.org/abs/1802.04942
    """

    couples = True

    def __init__(
        self,
        num_particles: int = 1,
        num_data: int = 0,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
    ) -> None:
        super().__init__(num_particles, analytic_kl=False)
        if num_particles != 1:
            raise UsageError(f"--num-particles is {num_particles}; beta_tcvae draws one code")
        if num_data < 2:
            raise UsageError(
                f"beta_tcvae: num_data is {num_data}; give the number of training data"
            )
        for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
            if not value >= 0:
                raise UsageError(f"beta_tcvae: {name} is {value}; it must be 0 or more")
        self.num_data, self.alpha, self.beta, self.gamma = num_data, alpha, beta, gamma

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        r"""Minus the estimate, differentiable."""
        one = draw(model, guide, args, kwargs)
        joint, product = one.aggregate(self.num_data)
        information = one.log_posterior - joint
        correlation, rest = joint - product, product - one.log_prior
        penalty = self.alpha * information + self.beta * correlation + self.gamma * rest
        loss: Tensor = (one.weight * penalty - one.reconstruction).sum() * one.scale
        return loss
