r"""InfoGAN: a generator against a discriminator, whose codes a recognition net must find."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import parametrize

from pyro_aevb.data.batch import Data, data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.pairs.density import base, log_prob, run
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Phase, Row, adam, parted

DRAWS = 500
r"""Data that the generator makes for a validation, where there are as many to validate on."""


class InfoGAN(Algorithm):
    r"""A generative adversarial net with a bound on the information of its codes.

    With data :math:`\tilde x = \mathrm{E}[x \mid c, \epsilon]` that the model makes of codes and
    noise from their priors, and a discriminator D from data ``(B, *event_shape)`` to logits
    ``(B, 1)``, on each batch, in turn, each with data made anew, in nats per datum,

    1. model and guide descend :math:`\frac{1}{B} \sum_n \log(1 + e^{-D(\tilde x_n)}) -
       \lambda \log q(c_n | \tilde x_n)`;
    2. D descends :math:`\frac{1}{B} \sum_n \log(1 + e^{-D(x_n)}) + \log(1 + e^{D(\tilde x_n)})`.

    :math:`\mathrm{H}(c) + \mathrm{E} \log q(c | \tilde x)` is a lower bound on the information
    :math:`I(c; \tilde x)`; of at most :data:`DRAWS` draws it is the column ``information_bound`` of
    ``history.csv``, which validation watches. It is high for a generator that shows its codes, and
    says nothing of how like the data what it makes is. The recognition net is a net of its own; the
    paper's shares layers with the discriminator.

    Valid for pairs with a module ``discriminator`` on data whose guide marks a code as one that
    follows the prior (``infer={"matched": True}``), with a prior of finite entropy.

    Arguments:
        pair: An inspected pair.
        data: The training data.
        information: :math:`\lambda`, 0 or more.
        discriminator_rate: The discriminator's learning rate, as a multiple of the run's.
        momentum: Adam's first decay rate, where the run leaves it open.

    Raises:
        UsageError: The pair is not of this kind, or a number is not possible.

    References:
        | InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
        | Adversarial Nets (Chen et al., 2016)
        | https://arxiv.org/abs/1606.03657
    """

    name = "infogan"

    def __init__(
        self,
        pair: Pair,
        data: Batches,
        information: float = 1.0,
        discriminator_rate: float = 0.2,
        momentum: float = 0.5,
    ) -> None:
        description = pair.description
        assert description is not None, "inspect the pair first"
        discriminator = pair.attribute("discriminator")
        matched = [site.name for site in description.local_sites if site.matched]
        if not isinstance(discriminator, nn.Module) or len(matched) != 1:
            raise UsageError(
                f"infogan cannot train {pair.name}: it needs a module `discriminator`, from data "
                "to logits (B, 1), and one code that the guide marks as matched; InfoGAN shows how"
            )
        if (reason := description.no_simulation()) is not None:
            raise UsageError(f"infogan cannot train {pair.name}: {reason}")
        if not information >= 0:
            raise UsageError(
                f"--algorithm-options: information is {information}; it must be 0 or more"
            )
        self.pair, self.discriminator, self.information = pair, discriminator, information
        self.code, self.observed = matched[0], description.observed
        judge, own = parted(pair, discriminator)
        low = adam(momentum)
        self.phases = [
            Phase("generator", self._generator, own, optimizer_options=low),
            Phase("discriminator", self._judge, judge, 1, discriminator_rate, low),
        ]

    def make(self, x: Data) -> tuple[Tensor, Tensor, Tensor]:
        r"""As many data as a batch has, made from the prior; the codes, and their log-density."""
        sites = run(self.pair.model, x)
        code = sites[self.code]
        made = base(sites[self.observed]["fn"]).mean.reshape(data_of(x).shape)
        density = base(code["fn"]).log_prob(code["value"])
        return made, code["value"], density.reshape(len(made), -1).sum(1)

    def found(self, made: Tensor, code: Tensor) -> Tensor:
        r""":math:`\log q(c|\tilde x)`, ``(B,)``."""
        site = run(self.pair.guide, made, {self.code: code})[self.code]
        return log_prob(site, 1.0).reshape(-1, len(made)).sum(0)

    def _generator(self, x: Data, index: Tensor) -> Tensor:
        made, code, _ = self.make(x)
        loss = softplus(-self.discriminator(made)).mean()
        return loss - self.information * self.found(made, code).mean()

    def _judge(self, x: Data, index: Tensor) -> Tensor:
        with torch.no_grad():
            made, _, _ = self.make(x)
        with parametrize.cached():  # one normalization of the weights for both
            own, other = self.discriminator(data_of(x)), self.discriminator(made)
        return (softplus(-own) + softplus(other)).mean()

    def validate(self, valid: Batches, scorer: Scorer) -> tuple[Row, str]:
        r"""``reconstruction`` from found codes and any noise, and ``information_bound``."""
        row, _ = super().validate(valid, scorer)
        x = valid.take(torch.arange(len(valid))[:DRAWS])
        with self.pair.running():
            made, code, density = self.make(x)
            bound = float((self.found(made, code) - density).mean())
        return {**row, "information_bound": bound}, "information_bound"
