r"""The objective of DIP-VAE: codes whose covariance over the data is the identity."""

from typing import Any, Literal

from torch import Tensor

from pyro_aevb.errors import UsageError, one_of
from pyro_aevb.training.objectives.decomposition import draw
from pyro_aevb.training.objectives.elbo import TraceELBO


class DIPVAE(TraceELBO):
    r"""The ELBO less a penalty on the covariance of the codes.

    .. math:: \mathcal{L} = \text{ELBO} - B \Big( \lambda_{od} \sum_{i \ne j} C_{ij}^2
        + \lambda_d \sum_i (C_{ii} - 1)^2 \Big),

    a sum over B data, in nats; so per datum the penalty stands beside the mean ELBO, as in the
    paper. C, ``(d, d)``, is of kind ``i`` the covariance of the guide's means over the batch,
    :math:`\mathrm{Cov}_x[\mu(x)]`; of kind ``ii`` that of the codes, :math:`\mathrm{Cov}_x[\mu(x)]
    + \mathrm{E}_x[\mathrm{diag}\, \sigma^2(x)]`. Both with 1/B.

    Valid for pairs with one code, whose dimensions are independent in the guide and have a mean and
    a variance there.

    Arguments:
        num_particles: Draws; 1.
        kind: ``"i"`` or ``"ii"``.
        off_diagonal: :math:`\lambda_{od}`, 0 or more.
        diagonal: :math:`\lambda_d`, 0 or more; the paper takes ten times `off_diagonal` for kind
            i and as much as it for kind ii, which None does.

    Raises:
        UsageError: A number or a kind that is not possible; or, when called, a pair of another
            kind.

    References:
        | Variational Inference of Disentangled Latent Concepts from Unlabeled Observations
        | (Kumar, Sattigeri and Balakrishnan, 2018)
        | https://arxiv.org/abs/1711.00848
    """

    couples = True

    def __init__(
        self,
        num_particles: int = 1,
        kind: Literal["i", "ii"] = "ii",
        off_diagonal: float = 10.0,
        diagonal: float | None = None,
    ) -> None:
        super().__init__(num_particles)
        one_of("kind", kind, ("i", "ii"))
        if num_particles != 1:
            raise UsageError(f"--num-particles is {num_particles}; dip_vae draws one code")
        if diagonal is None:
            diagonal = (10 if kind == "i" else 1) * off_diagonal
        for name, value in (("off_diagonal", off_diagonal), ("diagonal", diagonal)):
            if not value >= 0:
                raise UsageError(f"dip_vae: {name} is {value}; it must be 0 or more")
        self.kind, self.off_diagonal, self.diagonal = kind, off_diagonal, diagonal

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        r"""Minus the estimate, differentiable."""
        one = draw(model, guide, args, kwargs)
        kl = one.log_posterior - one.log_prior
        loss: Tensor = (one.weight * kl - one.reconstruction).sum()
        means = one.posterior.mean
        apart = means - means.mean(0)
        covariance = apart.T @ apart / len(means)
        own = apart.square().mean(0)
        off = covariance.square().sum() - own.square().sum()
        if self.kind == "ii":
            own = own + one.posterior.variance.mean(0)
        penalty = self.off_diagonal * off + self.diagonal * (own - 1).square().sum()
        return (loss + len(means) * penalty) * one.scale
