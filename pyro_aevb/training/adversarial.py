r"""Adversarial training of an autoencoder: a discriminator makes codes look like the prior."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.runtime import NonlocalExit
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import log_prob, run, run_both
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Phase, adam, parted, reached


class Adversarial(Algorithm):
    r"""Three phases on each batch: reconstruction, discriminator, generator.

    With codes :math:`z_n \sim q(z \mid x_n)` of B data, codes :math:`z'_n \sim p(z)` of the
    prior, and a discriminator whose logit :math:`d(z)` says how much a code looks like one of the
    prior, the losses, in nats per datum, are

    .. math::
        \text{reconstruction:} &\quad -\frac{1}{B} \sum_n \log p(x_n \mid z_n) \\
        \text{discriminator:} &\quad -\frac{1}{B} \sum_n
        \big[ \log \sigma(d(z'_n)) + \log (1 - \sigma(d(z_n))) \big] \\
        \text{generator:} &\quad -\frac{1}{B} \sum_n \log \sigma(d(z_n)).

    The first changes encoder and decoder, the second the discriminator alone, the third the
    encoder alone; each has an optimizer of its own. The discriminator is at its optimum where
    :math:`d(z) = \log p(z) - \log q(z)`, with the aggregate posterior
    :math:`q(z) = \mathrm{E}_x\, q(z \mid x)`; where that equals the prior, d is 0 and the last
    two losses are :math:`2 \log 2` and :math:`\log 2`. The generator's loss is the
    non-saturating one.

    Two optimizers that pull at one encoder can run away from each other, and did in 20 dimensions
    with Adam's usual momentum; hence a lower one in all phases.

    Which parameters are whose is found from the gradients: the discriminator's are those of its
    module, the encoder's those that the code depends on, and the reconstruction's those that
    :math:`\log p(x \mid z)` depends on.

    Valid for pairs with one local latent site of shape ``(d,)`` and a reparameterized (or Delta)
    guide, whose object has an ``nn.Module`` named ``discriminator``, from codes ``(B, d)`` to
    logits ``(B, 1)``. The prior need have no density: it may be masked, if the guide's site
    is marked ``infer={"matched": True}``.

    Arguments:
        pair: An inspected pair.
        data: The training data.
        discriminator_rate: The learning rate of the discriminator, as a multiple of the run's.
        generator_rate: That of the generator phase.
        momentum: :math:`\beta_1` of ``adam``, unless the run's optimizer options have ``betas``.

    Raises:
        UsageError: The pair is not of this kind, or a number is not possible.

    References:
        | Adversarial Autoencoders (Makhzani, Shlens, Jaitly, Goodfellow and Frey, 2016)
        | https://arxiv.org/abs/1511.05644
        | Generative Adversarial Nets (Goodfellow et al., 2014)
        | https://arxiv.org/abs/1406.2661
        | Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
          Networks (Radford, Metz and Chintala, 2016), for the momentum
        | https://arxiv.org/abs/1511.06434
    """

    name = "adversarial"

    def __init__(
        self,
        pair: Pair,
        data: Batches,
        discriminator_rate: float = 1.0,
        generator_rate: float = 1.0,
        momentum: float = 0.5,
    ) -> None:
        description = pair.description
        assert description is not None, "inspect the pair first"
        self.pair, self.observed = pair, description.observed_sites
        local, discriminator = description.local_sites, pair.attribute("discriminator")
        reason = None
        if not isinstance(discriminator, nn.Module):
            reason = "it has no module `discriminator`, from codes (B, d) to logits (B, 1)"
        elif description.global_sites or description.enumerated or description.auxiliary:
            reason = "its latent sites are not one code alone"
        elif len(local) != 1 or len(local[0].event_shape) != 1:
            reason = "it needs one local latent site of shape (d,)"
        elif local[0].masked and not local[0].matched:
            reason = (
                f"the prior of {local[0].name!r} is masked; say in the guide that codes are to "
                'follow it, pyro.sample(..., infer={"matched": True})'
            )
        if reason is not None:
            raise UsageError(
                f"adversarial cannot train {pair.name}: {reason}; AdversarialAutoencoder shows how"
            )
        self.site, self.discriminator = local[0].name, discriminator
        judge, _ = parted(pair, discriminator)
        encoder = reached(pair, data, lambda x, index: self.encode(x).sum())
        both = reached(pair, data, self._reconstruction)
        if not encoder:
            raise UsageError(
                f"adversarial cannot train {pair.name}: no gradient passes through its code; its "
                "guide has to draw it from a reparameterized distribution or a Delta"
            )
        for name in judge:
            if name in both or name in encoder:
                raise UsageError(
                    f"adversarial cannot train {pair.name}: {name!r} belongs to its discriminator, "
                    "and the code or the data depend on it; give the discriminator its own"
                )
        low = adam(momentum)
        self.phases = [
            Phase("reconstruction", self._reconstruction, both, optimizer_options=low),
            Phase("discriminator", self._discriminator, judge, 1, discriminator_rate, low),
            Phase("generator", self._generator, encoder, 1, generator_rate, low),
        ]

    def encode(self, x: Data) -> Tensor:
        r"""Codes of data as the guide draws them, ``(B, d)``."""
        code: Tensor = run(self.pair.guide, x)[self.site]["value"]
        return code

    def prior(self, x: Data) -> Any:
        r"""The distribution that the model draws the codes of a batch from; runs it no further."""
        model = poutine.escape(self.pair.model, escape_fn=lambda site: site["name"] == self.site)
        try:
            model(x)
        except NonlocalExit as left:
            return left.site["fn"]
        raise AssertionError(f"the model has no site {self.site!r}")

    def _reconstruction(self, x: Data, index: Tensor) -> Tensor:
        _, model = run_both(self.pair, x)
        terms = [log_prob(model[name], 1.0).sum() for name in self.observed]
        return -torch.stack(terms).sum() / len(x)

    def _discriminator(self, x: Data, index: Tensor) -> Tensor:
        with torch.no_grad():
            code, prior = self.encode(x), self.prior(x)
            # Of the same numbers in any number of processes, where they can be told apart.
            drawn = prior.rsample() if prior.has_rsample else prior.sample()
        return (softplus(self.discriminator(code)) + softplus(-self.discriminator(drawn))).mean()

    def _generator(self, x: Data, index: Tensor) -> Tensor:
        return softplus(-self.discriminator(self.encode(x))).mean()
