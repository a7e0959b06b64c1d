r"""What the latent code says of the data, and what it costs.

With the aggregate posterior :math:`q(z) = \mathrm{E}_x\, q(z|x)`, the mean KL splits in two,

.. math::
    \mathrm{E}_x\, \mathrm{KL}(q(z|x) \| p(z)) =
    \underbrace{\mathrm{E}_x\, \mathrm{KL}(q(z|x) \| q(z))}_{\text{mutual information } I(x; z)}
    + \underbrace{\mathrm{KL}(q(z) \| p(z))}_{\text{aggregate KL}},

the information that a code holds on its datum, and how far the codes of all data together are from
the prior, from which the model generates. Of M data and a draw :math:`z_n \sim q(z|x_n)` of each,

.. math::
    \hat I = \frac{1}{M} \sum_n \log \frac{q(z_n|x_n)}{\frac{1}{M} \sum_m q(z_n|x_m)}, \qquad
    \hat I^+ = \frac{1}{M} \sum_n
    \log \frac{q(z_n|x_n)}{\frac{1}{M - 1} \sum_{m \ne n} q(z_n|x_m)} .

The first *leaves in* the datum's own component. It is without bias for these M data, whose
information cannot exceed :math:`\log M`; for the population that they were drawn from it is too
low, and the aggregate KL too high. The second *leaves it out*, and is too high for the population.
Both follow from Jensen's inequality, so the two enclose the population's value.

References:
    | ELBO Surgery: Yet Another Way to Carve Up the Variational Evidence Lower Bound
      (Hoffman and Johnson, 2016)
    | http://approximateinference.org/accepted/HoffmanJohnson2016.pdf
    | On Variational Bounds of Mutual Information (Poole et al., 2019), sections 2.1 and 2.2
    | https://arxiv.org/abs/1905.06922
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.streams import seeded
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.metrics import Metric, measured, undefined
from pyro_aevb.estimators.terms import Terms, weight_draw
from pyro_aevb.pairs.description import Description
from pyro_aevb.pairs.pair import Pair

DATA, CHAINED = 1000, 200
r"""Data that are looked at; and of a guide that has to run for every pair of a datum and a code."""
COLLAPSED = 0.01
r"""A latent dimension has collapsed if its mean KL, in nats, is below this."""


@dataclass
class LatentHealth:
    r"""Per-datum values in nats, float64, of M data under one draw of the global latents.

    Each is of one draw of the code, so that ``kl`` is ``information`` and ``aggregate`` together,
    datum by datum.
    """

    kl: np.ndarray
    r"""(M,): log q(z|x) - log p(z)."""
    information: np.ndarray
    r"""(M,): log q(z|x) - log q(z), the datum's own component left in."""
    information_above: np.ndarray
    r"""(M,): the same, left out."""
    by_dimension: dict[str, np.ndarray]
    r"""By the names of local sites, ``(M, d)``, what each dimension adds to KL(q(z|x) || p(z)).
    Empty where the dimensions of a site are not independent given what was drawn before it."""

    @property
    def aggregate(self) -> np.ndarray:
        r"""(M,): log q(z) - log p(z), the datum's own component left in."""
        difference: np.ndarray = self.kl - self.information
        return difference

    def collapsed(self) -> int:
        r"""The number of dimensions whose mean KL is below :data:`COLLAPSED`."""
        return sum(int((kl.mean(0) < COLLAPSED).sum()) for kl in self.by_dimension.values())


@torch.no_grad()
def latent_health(
    pair: Pair, batches: Batches, num_data: int = DATA, seed: int = 0
) -> LatentHealth:
    r"""Mutual information, aggregate KL, and the KL of every latent dimension.

    The guide's density is evaluated at every code for every datum, :math:`M^2` times.

    Arguments:
        pair: An inspected pair with local latents that have densities, and without auxiliary sites.
        batches: The data, of which the first are used.
        num_data: M at most; :data:`CHAINED` at most where the encoder has to run for every pair.
        seed: Fixes the draws.

    Raises:
        UsageError: There is no density of the code given a datum.
    """
    description = pair.description
    assert description is not None, "inspect the pair first"
    reason = no_density(description)
    if reason is not None:
        raise UsageError(f"{pair.name} has no mutual information: {reason}")
    if len(batches) < 2:
        raise UsageError("there is no mutual information of a single datum")
    with pair.running():
        x = batches.take(torch.arange(min(len(batches), num_data)))
        weights = weight_draw(pair, x, seed, 0)[0]
        with seeded(x.device, seed, 0):
            terms = Terms(pair, x[:2], weights)
        if not terms.independent:
            x = x[:CHAINED]
        with seeded(x.device, seed, 0, 0):
            drawn = terms.draw(1, x, *weights.values())[terms.closed_form + 1 :]
        values = [value[0] for value in drawn]
        return _health(terms, x, list(weights.values()), values)


def _health(terms: Terms, x: Data, weights: list[Tensor], values: list[Tensor]) -> LatentHealth:
    m = len(x)
    (of_model,) = terms.evaluate(x, *weights, *values)
    # Of the code of row n given the datum of column m.
    log_q = terms.log_q(x, *weights, *values).double()
    own = log_q.diagonal().clone()
    left_in = log_q.logsumexp(1) - math.log(m)
    left_out = log_q.fill_diagonal_(-math.inf).logsumexp(1) - math.log(m - 1)
    return LatentHealth(
        kl=(own - of_model[1, 0].double()).cpu().numpy(),
        information=(own - left_in).cpu().numpy(),
        information_above=(own - left_out).cpu().numpy(),
        by_dimension={
            name: value.double().cpu().numpy()
            for name, value in terms.kl_by_dimension(x, weights, values).items()
        },
    )


def no_density(description: Description) -> str | None:
    r"""Why there is no density of a code given a datum; None if there is one."""
    if not description.local_sites:
        return "the pair has no local latent sites"
    if description.auxiliary:
        return f"the guide makes its codes of the auxiliary site {description.auxiliary[0]!r}"
    return description.no_guide_density()


def summarize_latents(health: LatentHealth | None, reason: str | None) -> dict[str, Metric]:
    r"""``mutual_information``, ``aggregate_kl`` and ``collapsed_units``.

    The other side of each, from the datum left out, is ``at_most`` and ``at_least``; as neither
    part of the KL is negative, none is above the whole or below 0.

    Arguments:
        health: None where there is none.
        reason: Why.
    """
    if health is None:
        names = ("mutual_information", "aggregate_kl", "collapsed_units")
        return {name: undefined(reason or "not computed") for name in names}
    m, whole = len(health.kl), float(health.kl.mean())
    above = min(float(health.information_above.mean()), whole)
    information = measured(health.information, num_data=m) | {"at_most": above}
    aggregate = measured(health.aggregate, num_data=m) | {"at_least": whole - above}
    metrics = {"mutual_information": information, "aggregate_kl": aggregate}
    if not health.by_dimension:
        why = "the dimensions of the code are not independent under the guide or the prior"
        return metrics | {"collapsed_units": undefined(why)}
    units: Metric = {"value": health.collapsed(), "num_data": m}
    units["latent_dim"] = sum(kl.shape[1] for kl in health.by_dimension.values())
    units["kl"] = {name: kl.mean(0).tolist() for name, kl in health.by_dimension.items()}
    return metrics | {"collapsed_units": units}
