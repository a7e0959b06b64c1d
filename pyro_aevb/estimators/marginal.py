r"""The marginal likelihood of every datum, by importance sampling from a proposal made for it.

For each draw of the global latents :math:`w_s \sim q(w)` and each datum,

.. math:: \hat p(x_n|w_s) = \frac{1}{K} \sum_{k=1}^K \frac{p(x_n, z_k|w_s)}{r(z_k)}, \qquad
    z_k \sim r, \qquad \mathrm{E}[\hat p] = p(x_n|w_s),

so its logarithm is too low in expectation, by about half its relative variance, and above the truth
by more than c nats with probability less than :math:`e^{-c}`, whatever r. The proposal r is

- ``laplace``: normals at the modes of the datum's posterior (:mod:`~.proposals`), and a share of
  the guide, or where that has no density of the prior, so that no weight is more than
  :math:`1 / \alpha` times the guide's;
- ``guide``: :math:`q(z|x_n, w_s)`, the importance-weighted bound;
- ``prior``: :math:`p(z|w_s)`, plain Monte Carlo, of any use in a few dimensions only.

How many draws a datum gets, and whether it is annealed instead, is for :mod:`~.laplace` to say.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import Data, repeated
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.policy import Policy
from pyro_aevb.engine.streams import (
    DATA_BLOCK,
    blocks_of,
    check_seed,
    even,
    numbered,
    seeded,
)
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.estimators.importance import DRAW_BLOCK, Compile, Scorer, Scores
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.laplace import Laplace, found
from pyro_aevb.estimators.log_weights import LogWeights
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.pairs.density import log_joint
from pyro_aevb.pairs.pair import Pair

Proposal = Literal["laplace", "guide", "prior"]
PROPOSALS = ("laplace", "guide", "prior")


@dataclass
class Marginals:
    r"""Estimates of log p(x_n|w_s) in nats, of S draws of the weights and N data: ``(S, N)``."""

    proposal: str
    r"""What the latents were drawn from, one of ``laplace``, ``guide``, ``prior``."""
    log_likelihood: np.ndarray
    r"""The logarithm of the mean weight."""
    relative_variance: np.ndarray
    r"""Var(mean weight) / (mean weight)²; its root is about the Monte Carlo standard error
    of ``log_likelihood``, and half of it about how much that is too low in expectation."""
    ess: np.ndarray
    r"""The effective sample size of the weights."""
    pareto_k: np.ndarray
    r"""The shape of the weights' tail; NaN where there is none to fit."""
    num_samples: np.ndarray
    r"""How many weights; of an annealed datum, chains."""
    num_modes: np.ndarray
    r"""Modes of the posterior that the proposal holds; 0 for ``guide`` and ``prior``."""
    num_temperatures: np.ndarray
    r"""Temperatures of the annealing that starts at the proposal; 0 where none was needed."""

    @classmethod
    def of_guide(cls, scores: Scores) -> "Marginals":
        r"""Those that the guide's own draws give: the importance-weighted bound."""
        assert scores.log_weight is not None
        S, n = scores.log_weight.shape
        K = scores.num_samples
        ess = np.full((S, n), float(K)) if scores.ess is None else scores.ess
        none = np.zeros((S, n), dtype=np.int64)
        nan = np.full((S, n), np.nan)
        return cls(
            "guide",
            scores.log_weight,
            (1 / ess - 1 / K) * (K / max(1, K - 1)),
            ess,
            nan if scores.pareto_k is None else scores.pareto_k,
            none + K,
            none,
            none,
        )


class MarginalLikelihood:
    r"""Estimates log p(x|w) of every datum of a pair, as its parameters are at each call.

    Arguments:
        pair: An inspected pair whose local latents have densities.
        proposal: See the module. ``laplace`` is for local latents that are real-valued after
            Pyro's transforms, as many as :mod:`~.curvature` takes, and a model that can be
            differentiated forwards; for others the guide takes its place, and `say` is told why.
        num_samples: K of ``guide`` and ``prior``.
        weight_samples: S, draws of the global latents. 1 if there are none.
        seed: Fixes the draws; every call makes the same ones.
        memory: Bytes that evaluating the model may take at once, see :class:`~.importance.Scorer`.
        compile: See :class:`~.importance.Scorer`.
        say: Told once why another proposal is taken, or why the pair is run eagerly.
        target: The Monte Carlo standard error, in nats, that a datum's estimate is to have;
            ``laplace`` makes as many draws as that takes.
        max_samples: At most so many; a datum that needs more is annealed.

    Raises:
        UsageError: A number that cannot be; or, when called, the pair fails.
    """

    def __init__(
        self,
        pair: Pair,
        proposal: Proposal = "laplace",
        num_samples: int = 500,
        weight_samples: int = 10,
        seed: int = 0,
        memory: int | None = None,
        compile: Compile = "auto",
        say: Callable[[str], None] | None = None,
        target: float = 0.1,
        max_samples: int = 5000,
    ) -> None:
        assert pair.description is not None, "inspect the pair first"
        check_seed(seed)
        if not target > 0:
            raise UsageError(f"monte_carlo_error is {target}; it must be above 0")
        self.pair, self.proposal, self.num_samples = pair, proposal, num_samples
        self.weight_samples = weight_samples if pair.description.global_sites else 1
        self.seed, self.memory, self.compile, self.say = seed, memory, compile, say
        if max_samples < 2:
            raise UsageError(f"max_samples is {max_samples}; it must be at least 2")
        self.target, self.max_samples = target, max_samples

    @torch.no_grad()
    def __call__(
        self,
        batches: Batches,
        progress: Callable[[int], None] | None = None,
        blocks: range | None = None,
    ) -> Marginals:
        r"""Estimate log p(x|w) of every datum.

        Arguments:
            batches: The data as they are presented; fixed ones, not dynamic binarization.
            progress: Called with the number of data done, for each draw of the weights.
            blocks: Those of these blocks of :data:`~pyro_aevb.engine.streams.DATA_BLOCK` alone.
        """
        chosen = numbered(len(batches)) if blocks is None else blocks
        if self.proposal == "guide":
            return self._by_guide(batches, progress, chosen)
        try:
            with self.pair.running(), _forward_mode(self.pair):
                x = batches.take(torch.arange(min(2, len(batches))))
                with seeded(x.device, self.seed):
                    way, reason = self._way(x)
                if reason is not None:
                    if self.say is not None:
                        self.say(f"{self.pair.name}: drawn from the guide: {reason}")
                    return self._by_guide(batches, progress, chosen)
                if self.proposal == "laplace":
                    way.expect(self.weight_samples * len(batches))
                found = [
                    self._weight_draw(way, batches, chosen, s, progress)
                    for s in range(self.weight_samples)
                ]
        except torch.linalg.LinAlgError as error:  # of a covariance, at a draw that is far out
            if self.proposal != "laplace":
                raise UsageError(f"{self.pair.name} cannot be scored: {one_line(error)}") from error
            if self.say is not None:
                self.say(f"{self.pair.name}: drawn from the guide: {one_line(error)}")
            return self._by_guide(batches, progress, chosen)
        except UsageError:
            raise
        except Exception as error:  # of a pair's code
            raise UsageError(
                f"{self.pair.name} cannot be scored: {type(error).__name__}: {one_line(error)}"
            ) from error
        return Marginals(
            self.proposal, *(np.stack([one[name] for one in found]) for name in found[0])
        )

    def _by_guide(
        self, batches: Batches, progress: Callable[[int], None] | None, blocks: range
    ) -> Marginals:
        how = (self.memory, True, self.compile, self.say)
        scorer = Scorer(self.pair, self.num_samples, self.weight_samples, self.seed, *how)
        return Marginals.of_guide(scorer(batches, progress, blocks))

    def _way(self, x: Data) -> tuple[Any, str | None]:
        r"""What scores a block of data; or why the proposal is not for this pair."""
        weights = weight_draw(self.pair, x[:1], self.seed, 0)[0]
        if self.proposal == "prior":
            return _Prior(self.pair, list(weights), self.num_samples), None
        try:
            joint = Joint(self.pair, x, weights)
        except UsageError as error:
            return None, one_line(error)
        policy = Policy(self.compile, self.pair.name, "scored", self.say)
        try:
            return Laplace(
                joint, x, weights, policy, self.target, self.max_samples, self.memory
            ), None
        except UsageError as error:
            return None, one_line(error)
        except Exception as error:  # of a pair's code under automatic differentiation
            return None, f"it cannot be differentiated: {type(error).__name__}: {one_line(error)}"

    def _weight_draw(
        self,
        way: Any,
        batches: Batches,
        blocks: range,
        s: int,
        progress: Callable[[int], None] | None,
    ) -> dict[str, np.ndarray]:
        first = batches.take(torch.zeros(1, dtype=torch.int64))
        weights = [*weight_draw(self.pair, first, self.seed, s)[0].values()]
        parts = []
        for block, x in blocks_of(batches, blocks):
            with seeded(x.device, self.seed, s, 1 + block, 1):
                parts += [way(x[i], weights) for i in torch.arange(len(x)).split(way.together)]
            if progress is not None:
                progress(len(x))
        return {name: as_numpy(torch.cat([p[name] for p in parts])) for name in parts[0]}


@contextmanager
def _forward_mode(pair: Pair) -> Iterator[None]:
    r"""Differentiate forwards inside this: recurrent nets run without oneDNN, whose layers cannot,
    and what PyTorch says of its own rules when it loads them is not for users."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in pair.modules())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script.* is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "TF32 acceleration", UserWarning)
        with torch.backends.mkldnn.flags(enabled=False) if recurrent else nullcontext():
            yield


class _Prior:
    r"""Plain Monte Carlo: the mean of p(x|z, w) over draws of the prior."""

    together = DATA_BLOCK

    def __init__(self, pair: Pair, names: list[str], num_samples: int) -> None:
        self.pair, self.names, self.num_samples = pair, names, num_samples

    def __call__(self, x: Data, weights: list[Tensor]) -> dict[str, Tensor]:
        n, K = len(x), self.num_samples
        log_weights = LogWeights(K, tail=True)
        named = dict(zip(self.names, weights, strict=True))
        k = even(K, DRAW_BLOCK // (4 * n * x.shape[1:].numel()))
        for start in range(0, K, k):
            rows = repeated(x, k)
            likelihood = torch.stack([*log_joint(self.pair, rows, named)[0].values()]).sum(0)
            log_weights.add(likelihood.view(k, n)[: K - start])
        return found(log_weights, torch.zeros(n, dtype=torch.int64, device=x.device), 0)
