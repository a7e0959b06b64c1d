r"""The marginal likelihood of every datum, by importance sampling from a proposal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pyro_aevb.data.batches import Batches
from pyro_aevb.estimators.importance import Compile, Scorer, Scores
from pyro_aevb.pairs.pair import Pair

Proposal = Literal["laplace", "guide", "prior"]
PROPOSALS = ("laplace", "guide", "prior")


@dataclass
class Marginals:
    r"""Estimates of log p(x_n|w_s) in nats, of S draws of the weights and N data, ``(S, N)`` each."""

    proposal: str
    r"""What the latents were drawn from: ``laplace``, ``guide`` or ``prior``."""
    log_likelihood: np.ndarray
    r"""float64: the logarithm of the mean weight."""
    relative_variance: np.ndarray
    r"""float64: Var(mean weight) / (mean weight)²; its root is about the Monte Carlo standard error
    of ``log_likelihood``, and half of it about how much that is too low in expectation."""
    ess: np.ndarray
    r"""float64: the effective sample size of the weights."""
    pareto_k: np.ndarray
    r"""float64: the shape of the weights' tail; NaN where there is none to fit."""
    num_samples: np.ndarray
    r"""int64: how many weights; of an annealed datum, chains."""
    num_modes: np.ndarray
    r"""int64: modes of the posterior that the proposal holds; 0 for ``guide`` and ``prior``."""
    num_temperatures: np.ndarray
    r"""int64: of the annealing that starts at the proposal; 0 where none was needed."""

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
            1 / ess - 1 / K,
            ess,
            nan if scores.pareto_k is None else scores.pareto_k,
            none + K,
            none,
            none,
        )


class MarginalLikelihood:
    r"""Estimates log p(x|w) of every datum (interface; the Laplace proposals are not here yet)."""

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
        self.weight_samples = weight_samples
        self._scorer = Scorer(pair, num_samples, weight_samples, seed, memory, True, compile, say)

    def __call__(
        self,
        batches: Batches,
        progress: Callable[[int], None] | None = None,
        blocks: range | None = None,
    ) -> Marginals:
        return Marginals.of_guide(self._scorer(batches, progress, blocks))
