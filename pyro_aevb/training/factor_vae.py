r"""FactorVAE: a discriminator tells codes from codes whose dimensions were shuffled."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import run
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Phase, parted
from pyro_aevb.training.objectives.decomposition import draw


class FactorVAE(Algorithm):
    r"""The ELBO less :math:`\gamma` times an estimate of the total correlation of the codes.

    The total correlation :math:`\mathrm{KL}(q(z) \| \prod_d q(z_d))` of the aggregate posterior
    (:mod:`~pyro_aevb.training.objectives.decomposition`) has a density ratio that nobody knows; a
    discriminator D, from codes ``(B, d)`` to logits ``(B, 1)``, learns its logarithm. On each
    batch, in turn,

    1. the pair's parameters descend, in nats per datum, at draws :math:`z_n \sim q(z|x_n)`,

       .. math:: -\frac{1}{B} \sum_n \Big[ \log p(x_n|z_n) + \log p(z_n) - \log q(z_n|x_n) \Big]
           + \frac{\gamma}{B} \sum_n D(z_n);

    2. D descends, at codes :math:`z_n` and at codes :math:`\bar z_n` in which the values of each
       dimension were permuted over the batch, draws from :math:`\prod_d q(z_d)` as the batch is
       large,

       .. math:: \frac{1}{2B} \sum_n \Big[ \log(1 + e^{-D(z_n)}) + \log(1 + e^{D(\bar z_n)}) \Big].

       The paper takes another batch for the second term; here it is the same one.

    The run's ``objective`` is the first loss with the other sign; validation is of the true ELBO.

    Valid for pairs with one code, whose dimensions are independent in the guide and the prior, and
    with a module ``discriminator``.

    Arguments:
        pair: An inspected pair.
        data: The training data.
        gamma: :math:`\gamma`, 0 or more.
        discriminator_rate: The discriminator's learning rate, as a multiple of the run's.

    Raises:
        UsageError: The pair is not of this kind, or a number is not possible.

    References:
        | Disentangling by Factorising (Kim and Mnih, 2018)
        | https://arxiv.org/abs/1802.05983
    """

    name = "factor_vae"
    couples = True

    def __init__(
        self, pair: Pair, data: Batches, gamma: float = 35.0, discriminator_rate: float = 1.0
    ) -> None:
        description = pair.description
        assert description is not None, "inspect the pair first"
        discriminator = pair.attribute("discriminator")
        if not isinstance(discriminator, nn.Module):
            raise UsageError(
                f"factor_vae cannot train {pair.name}: it has no module `discriminator`, from "
                "codes (B, d) to logits (B, 1); FactorVAE shows how"
            )
        if not gamma >= 0:
            raise UsageError(f"--algorithm-options: gamma is {gamma}; it must be 0 or more")
        self.pair, self.gamma, self.discriminator = pair, gamma, discriminator
        judge, own = parted(pair, discriminator)
        adam = {"adam": {"betas": (0.5, 0.9)}}
        self.phases = [
            Phase("pair", self._pair, own),
            Phase("discriminator", self._judge, judge, 1, discriminator_rate, adam),
        ]

    def _pair(self, x: Data, index: Tensor) -> Tensor:
        one = draw(self.pair.model, self.pair.guide, (x,), {})
        elbo = one.reconstruction + one.log_prior - one.log_posterior
        loss: Tensor = (self.gamma * self.discriminator(one.z).squeeze(-1) - elbo).mean()
        return loss

    def _judge(self, x: Data, index: Tensor) -> Tensor:
        assert self.pair.description is not None
        with torch.no_grad():
            site = run(self.pair.guide, x)[self.pair.description.local_sites[0].name]
            z = site["value"]
            shuffled = z.gather(0, torch.rand_like(z).argsort(0))
        own, other = self.discriminator(z), self.discriminator(shuffled)
        loss: Tensor = 0.5 * (softplus(-own) + softplus(other)).mean()
        return loss
