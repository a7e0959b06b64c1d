r"""log p(x) from draws from the posterior: the reciprocal estimator of the AEVB paper, appendix D.

For any normalized density q whose tails are no heavier than those of the posterior,

.. math:: \mathrm{E}_{p(z|x)} \left[ \frac{q(z)}{p(z) \, p(x|z)} \right] = \frac{1}{p(x)},

with the global latents held fixed. So three steps lead to an estimate:

1. Draw L values from :math:`p(z|x)` by Hamiltonian Monte Carlo.
2. Fit a density q to them: here a normal of any covariance, by their mean and covariance.
3. Draw L *new* values :math:`z_l` from :math:`p(z|x)`;

.. math:: \log \hat p(x) = \log L - \log \sum_{l=1}^L \exp \bigl[
    \log q(z_l) - \log p(z_l) - \log p(x|z_l) \bigr].

The mean inside the logarithm is unbiased for :math:`1 / p(x)`, so by Jensen's inequality the
estimate is in expectation *too high*, about by :math:`V / 2L` where the summands have the relative
variance V: the other side of importance sampling and of annealing, which err downwards. That holds
for draws from the posterior itself. From chains that see only a part of it, which holds the share
a of its mass and in which q lies, the estimate is too low, by :math:`-\log a`.

Valid for few dimensions, according to the paper fewer than 5: in many, draws whose q is large
beside the posterior are too rare to be seen, and the estimate says nothing.

References:
    | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix D
    | https://arxiv.org/abs/1312.6114
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.streams import blocks_of, numbered, seeded
from pyro_aevb.errors import UsageError, at_least_one, one_of
from pyro_aevb.estimators.annealing import AIS, START, Annealer, Progress, made, over_weights
from pyro_aevb.estimators.estimator import Estimator, Found
from pyro_aevb.estimators.hmc import adapt, transition
from pyro_aevb.estimators.work import Work
from pyro_aevb.pairs.pair import Pair

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared

RELIABLE, MOST = 4, 10
r"""Dimensions up to which the paper relies on the estimate, and beyond which it is refused."""


def log_reciprocal(fitted: Tensor, fresh: Tensor, log_joint: Tensor) -> Tensor:
    r"""The estimate from two sets of draws from the posterior, in nats, float64.

    Arguments:
        fitted: The draws that the normal is fitted to, ``(L, n, d)``, more of them than d.
        fresh: New ones, ``(L', n, d)``.
        log_joint: :math:`\log p(x|z) + \log p(z)` of the new ones, ``(L', n)``.

    Returns:
        :math:`\log \hat p(x)`, ``(n,)``.

    Raises:
        UsageError: The first draws of a datum do not span d dimensions.
    """
    loc = fitted.double().mean(0)
    centred = (fitted.double() - loc).movedim(0, -1)
    root, failed = torch.linalg.cholesky_ex(centred @ centred.mT / (len(fitted) - 1))
    if failed.any():
        raise UsageError(
            f"the draws from the posterior of {int((failed > 0).sum())} data do not span "
            f"{loc.shape[1]} dimensions; raise num_samples and num_chains"
        )
    log_q = MultivariateNormal(loc, scale_tril=root, validate_args=False).log_prob(fresh.double())
    summands = log_q - log_joint.double()
    estimate: Tensor = np.log(len(fresh)) - summands.logsumexp(0)
    return estimate


class Reciprocal(Annealer):
    r"""The estimator for a pair with local latents, as its parameters are at each call.

    The chains are annealed from the prior to the posterior, so that they reach its modes whatever
    the guide; then moved on in it, first with a step size for each datum that is tuned to the
    acceptance, and from the end of this `burn_in` on with a fixed one. One half of the chains
    gives the draws of step 1, the other half those of step 3.

    Arguments:
        pair: An inspected pair.
        x: Some data, to look at the pair with.
        num_samples: L, the draws of either step; 50 in the paper's figure 3.
        num_chains: Chains that these come from, for either step.
        num_temperatures, burn_in: Trajectories until the first draw: to, and in the posterior.
        between: Trajectories from one draw of a chain to the next.
        leapfrog_steps: Steps of a trajectory; 4 in the paper.
        acceptance, seed, others: See :class:`~.annealing.Annealer`.

    Raises:
        UsageError: As an Annealer; and for latents of more than 10 dimensions, or draws too few
            for a covariance.
    """

    def __init__(
        self,
        pair: Pair,
        x: Data,
        num_samples: int = 50,
        num_chains: int = 10,
        num_temperatures: int = 200,
        burn_in: int = 50,
        between: int = 5,
        leapfrog_steps: int = 4,
        acceptance: float = 0.65,
        seed: int = 0,
        **others: Any,
    ) -> None:
        at_least_one("num_chains", num_chains)
        at_least_one("between", between)
        if burn_in < 0:
            raise UsageError(f"burn_in is {burn_in}; it must not be negative")
        one_of("start", others.get("start", "prior"), ("prior", "guide"))
        path = (2 * num_chains, num_temperatures, leapfrog_steps, acceptance)
        super().__init__(pair, x, *path, seed=seed, **others)
        if self.joint.dim > MOST:
            raise UsageError(
                f"the reciprocal estimator means nothing in the {self.joint.dim} dimensions of "
                f"{pair.name}'s codes (at most {MOST}; reliable up to {RELIABLE}): use ais"
            )
        if num_samples < self.joint.dim + 2:
            raise UsageError(
                f"num_samples is {num_samples}; a covariance in {self.joint.dim} dimensions takes "
                f"at least {self.joint.dim + 2}"
            )
        self.num_samples, self.burn_in, self.between = num_samples, burn_in, between
        self.steps = burn_in + -(-num_samples // num_chains) * between
        r"""Trajectories of each chain in the posterior."""

    @torch.no_grad()
    def estimate(self, batches: Batches, s: int = 0, progress: Progress = None) -> np.ndarray:
        r""":math:`\log \hat p(x)` of every datum, ``(N,)``, in nats.

        Arguments:
            batches: The data as they are presented; fixed ones, not dynamic binarization.
            s: The number of the draw of the global latents, see :class:`~.annealing.Annealer`.
            progress: Called at each of the `num_temperatures` and of the `steps` trajectories of a
                block of data with its length.
        """
        parts = []
        with self.pair.running():
            weights = [*self._weights(batches.take(torch.zeros(1, dtype=torch.int64)), s).values()]
            for block, x in blocks_of(batches, numbered(len(batches))):
                with seeded(x.device, self.seed, s, 1 + block):
                    draws = self._draws(x, weights, progress)
                halves = [
                    value.unflatten(1, (2, -1)).movedim(2, 1).flatten(0, 1)[: self.num_samples]
                    for value in draws
                ]
                (fitted, fresh), (_, log_joint) = (half.unbind(1) for half in halves)
                parts.append(log_reciprocal(fitted, fresh, log_joint).cpu().numpy())
        return np.concatenate(parts)

    def _draws(self, x: Data, weights: list[Tensor], progress: Progress) -> tuple[Tensor, Tensor]:
        r"""From the posterior, ``(draws, chains, n, d)``, and log p(x, z) there."""
        sizes: list[Tensor] = []
        _, point = self._there(x, weights, sizes, progress)
        size = (sizes[-1] if sizes else x.new_tensor(START)).expand(len(x))
        average = torch.full_like(size, self.target)
        at, joint = self._at(x, weights, self.num_chains), self.c + self.d
        draws = []
        for step in range(1, self.steps + 1):
            point, move = transition(at, point, joint, size, self.leapfrog_steps)
            if step <= self.burn_in:
                size, average = adapt(size, average, move.probability, self.target)
            elif (step - self.burn_in) % self.between == 0:
                draws.append((point.q, torch.tensordot(joint, point.terms, 1)))
            if progress is not None:
                progress(len(x))
        found, log_joint = (torch.stack(values) for values in zip(*draws, strict=True))
        return found, log_joint


def _reciprocal(
    prepared: "Prepared", test: Batches, work: Work, weight_samples: int = 1, **settings: Any
) -> Found:
    draws = made(Reciprocal, prepared.pair, test, work, **settings)
    counts = {name: settings[name] for name in ("num_samples", "num_chains")}
    bar = "posterior draws", settings["num_temperatures"] + draws.steps
    given = prepared, test, work, weight_samples
    found = over_weights("reciprocal", partial(draws.estimate, test), bar, *given, **counts)
    note = "errs upwards in expectation, log_likelihood and ais_lower downwards"
    if draws.joint.dim > RELIABLE:
        note += (
            f"; the codes have {draws.joint.dim} dimensions, and in more than {RELIABLE} it is not "
            "reliable (Kingma and Welling, 2014, appendix D)"
        )
    found[0]["reciprocal"]["note"] = note
    return found


RECIPROCAL = Estimator(
    "reciprocal",
    _reciprocal,
    onto=Reciprocal,
    first=1000,
    follows=AIS.follows,
    estimates=("reciprocal",),
    below=AIS.below,
)
