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

With ``laplace`` everything that depends on the datum is settled by *pilot* draws, which do not
count: the width of the normals (one for a block of data, the one of the smallest variance), how
many draws the target asks for, and whether importance sampling is enough. Where it is not, as the
pilots' weights have a heavy tail or would take too many draws, chains are annealed from the normals
to the posterior (:mod:`~.annealing`), in the frame in which the normal of the heaviest mode is a
standard one: a way so short that some tens of temperatures take the place of a thousand. Fresh
draws, or chains, are scored.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.batch import Data, repeated
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.policy import Policy
from pyro_aevb.engine.replay import Replay, Way
from pyro_aevb.engine.streams import (
    DATA_BLOCK,
    blocks_of,
    check_seed,
    even,
    few_rows,
    numbered,
    seeded,
)
from pyro_aevb.errors import UsageError, at_least_one, one_line
from pyro_aevb.estimators.annealing import LIMITS, STEP, Tuner, along, temperatures
from pyro_aevb.estimators.annealing import PILOTS as PILOT_CHAINS
from pyro_aevb.estimators.hmc import evaluate
from pyro_aevb.estimators.importance import CAPTURE_FROM, DRAW_BLOCK, Compile, Scorer, Scores
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.log_weights import LogWeights
from pyro_aevb.estimators.proposals import SHARE, WIDTH, Frame, Normals, Search
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.pairs.density import log_prob, run
from pyro_aevb.pairs.pair import Pair

Proposal = Literal["laplace", "guide", "prior"]
PROPOSALS = ("laplace", "guide", "prior")
PILOTS, CLOSER = 200, 800
r"""Draws for each datum that settle how it is scored; and for one of which they leave doubts."""
WIDTHS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
r"""The widths of which one is chosen; pilots have :data:`~.proposals.WIDTH`."""
LEAST = 360
r"""Draws of a datum, at least; fewer tell nothing of their tail."""
DOUBTFUL, HARD = 0.6, 0.6
r"""The k-hat of the first pilots from which on there are doubts; of the others, from which on a
datum is annealed."""
BENT, HARD_IF_BENT = 0.4, 0.45
r"""The share of doubtful data from which on all of a block are looked at again, and annealed from a
lower k-hat on: one k-hat is known to 0.15 only, and the others say where it is likely to be."""
CHAINS, TEMPERATURES, LEAPFROG = 64, 40, 3
ACCEPTANCE = 0.8
USUAL = 1000
r"""About how many draws a datum takes, with its pilots."""
DENSE = 1 << 25
r"""Numbers that the covariances of the data that are scored together may have."""


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
            1 / ess - 1 / K,
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
        at_least_one("max_samples", max_samples)
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
            with self.pair.running():
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
            return _Laplace(self, joint, x, weights, policy), None
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
        return {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}


def _found(log_weights: LogWeights, modes: Tensor, temperatures: int) -> dict[str, Tensor]:
    ess = log_weights.effective_sample_size()
    count = torch.full_like(modes, log_weights.count)
    return {
        "log_likelihood": log_weights.log_mean(),
        "relative_variance": 1 / ess - 1 / log_weights.count,
        "ess": ess,
        "pareto_k": log_weights.pareto_k(),
        "num_samples": count,
        "num_modes": modes,
        "num_temperatures": torch.full_like(modes, temperatures),
    }


class _Prior:
    r"""Plain Monte Carlo: the mean of p(x|z, w) over draws of the prior."""

    together = DATA_BLOCK

    def __init__(self, pair: Pair, names: list[str], num_samples: int) -> None:
        self.pair, self.names, self.num_samples = pair, names, num_samples

    def __call__(self, x: Data, weights: list[Tensor]) -> dict[str, Tensor]:
        assert self.pair.description is not None
        n, K = len(x), self.num_samples
        log_weights = LogWeights(K, tail=True)
        named = dict(zip(self.names, weights, strict=True))
        k = even(K, DRAW_BLOCK // (4 * n * x.shape[1:].numel()))
        for start in range(0, K, k):
            rows = repeated(x, k)
            site = run(self.pair.model, rows, named)[self.pair.description.observed]
            likelihood = log_prob(site, 1.0).reshape(-1, len(rows)).sum(0)
            log_weights.add(likelihood.view(k, n)[: K - start])
        return _found(log_weights, torch.zeros(n, dtype=torch.int64, device=x.device), 0)


class _Laplace:
    r"""Importance sampling from normals at the modes, annealed from there where it is hard."""

    def __init__(
        self,
        settings: MarginalLikelihood,
        joint: Joint,
        x: Data,
        weights: dict[str, Tensor],
        policy: Policy,
    ) -> None:
        self.target, self.max_samples = settings.target, settings.max_samples
        self.joint, self.pair = joint, joint.pair
        assert self.pair.description is not None
        values = [*weights.values()]
        q = joint.draw(self.pair.model, x, *values)
        self.dtype = q.dtype
        self.rows = few_rows(settings.memory, x, partial(joint.terms, x, q, *values))
        self.search = Search(joint, x, values, self.rows)
        self.together = max(1, DENSE // joint.dim**2)
        self.guided = self.search.guided
        self.policy = policy

    def expect(self, data: int) -> None:
        r"""Say how many data are to be scored, for whether capturing and compiling pay."""
        calls = data * USUAL // self.rows
        way = self.policy.way(False, Way.GRAPH if calls >= CAPTURE_FROM else Way.EAGER)
        self._terms, self._slopes, self._defence = (
            Replay(function, way, self.policy.eagerly, self.pair.python)
            for function in (self._log_joint, self._gradient, self._log_defence)
        )
        self._terms.expected = calls if self.policy.compile == "auto" else 0

    def __call__(self, x: Data, weights: list[Tensor]) -> dict[str, Tensor]:
        n = len(x)
        normals = self.search(x, weights)
        width, counts, hard = self._pilots(x, weights, normals)
        modes = normals.modes()
        found: list[dict[str, Tensor]] = []
        order: list[Tensor] = []
        for count in counts[~hard].unique().tolist():
            index = ((counts == count) & ~hard).nonzero().squeeze(1)
            some = normals[index]
            log_weights = self._importance(x[index], weights, some, width, int(count))
            found.append(_found(log_weights, modes[index], 0))
            order.append(index)
        index = hard.nonzero().squeeze(1)
        if len(index):
            log_weights = self._anneal(x[index], weights, normals[index], width)
            found.append(_found(log_weights, modes[index], TEMPERATURES))
            order.append(index)
        back = torch.cat(order).argsort()
        assert len(back) == n
        return {name: torch.cat([part[name] for part in found])[back] for name in found[0]}

    def _pilots(
        self, x: Data, weights: list[Tensor], normals: Normals
    ) -> tuple[float, Tensor, Tensor]:
        r"""The width for a block, and for each datum how many draws it needs, and if it is hard.

        With pilots from r the second moment of the weights of a proposal s is

        .. math:: \mathrm{E}_s[(p/s)^2] = \mathrm{E}_r[p^2 / (s r)],

        so that pilots of one width tell it for all. Chosen is the next above the width of the
        smallest variance, as what pilots do not see lies in the tails. What looks hard in the first
        pilots is looked at again, more closely.
        """
        q, guide = self._draw(x, weights, normals, WIDTH, PILOTS)
        log_p = self._log_p(x, q, weights)
        log_r, *others = [
            _mixed(log_s, guide, PILOTS) for log_s in normals.log_probs(q, [WIDTH, *WIDTHS])
        ]
        squares = torch.stack(
            [(2 * log_p - log_s - log_r).logsumexp(0) - math.log(PILOTS) for log_s in others]
        )
        seen = LogWeights(PILOTS, tail=True)
        seen.add(log_p - log_r)
        excess = (squares - 2 * seen.log_mean()).clamp_min(0)  # log of 1 + relative variance
        best = int(excess.nan_to_num(50, 50, 50).mean(1).argmin())
        best = min(best + 1, len(WIDTHS) - 1) if best else best
        needed, shape = excess[best].expm1() / self.target**2, seen.pareto_k().nan_to_num(0.0)
        doubtful = (shape > DOUBTFUL) | ~(needed <= self.max_samples)
        bent = float(doubtful.double().mean()) > BENT
        index = (doubtful | bent).nonzero().squeeze(1)
        if len(index):
            closer = self._importance(x[index], weights, normals[index], WIDTHS[best], CLOSER)
            needed[index] = (closer.count / closer.effective_sample_size() - 1) / self.target**2
            # What is near the limit gets at least as many draws as told that it is below it.
            needed[index] = needed[index].clamp_min(CLOSER)
            shape[index] = closer.pareto_k().nan_to_num(0.0)
        hard = (shape > (HARD_IF_BENT if bent else HARD)) | ~(needed <= self.max_samples)
        # Powers of the root of 2, so that few groups of data are scored at their own number.
        counts = (((needed.clamp_min(LEAST).log2() * 2).ceil() / 2).exp2()).nan_to_num(math.inf)
        return WIDTHS[best], counts.clamp_max(self.max_samples).ceil().long(), hard

    def _importance(
        self, x: Data, weights: list[Tensor], normals: Normals, width: float, count: int
    ) -> LogWeights:
        n, d = len(x), self.joint.dim
        blocks = -(-count // max(20, DRAW_BLOCK // (n * d)))
        k = -(-count // blocks)
        log_weights = LogWeights(k * blocks, tail=True)
        for _ in range(blocks):
            q, guide = self._draw(x, weights, normals, width, k)
            log_r = _mixed(normals.log_prob(q, width), guide, k)
            log_weights.add(self._log_p(x, q, weights) - log_r)
        return log_weights

    def _draw(
        self, x: Data, weights: list[Tensor], normals: Normals, width: float, k: int
    ) -> tuple[Tensor, Tensor]:
        r"""k draws of each datum, ``(k, n, d)``, the first few of them from the guide; and the
        guide's density at all, ``(k, n)``, or where there is none both of the prior."""
        few = _few(k)
        side = self.pair.guide if self.guided else self.pair.model
        rows = repeated(x, few)
        first = self.joint.draw(side, rows, *weights).unflatten(0, (few, len(x)))
        q = torch.cat([first, normals.sample(k - few, width).to(first.dtype)])
        if self.guided and len(self.joint.shapes) == 1:  # the encoder runs once for all draws
            return q, self.joint.log_guide(x, q, *weights).double()
        return q, self._by_rows(self._defence, self.rows, x, q, weights)[0].double()

    def _anneal(self, x: Data, weights: list[Tensor], normals: Normals, width: float) -> LogWeights:
        r"""Chains from the normals to the posterior, in the frame of the heaviest mode."""
        pilots = -(-PILOT_CHAINS // len(x))
        frame = Frame(normals, width)
        into = frame.into(normals.sample(pilots + CHAINS, width))

        def joint(q: Tensor) -> tuple[Tensor, Tensor]:
            # A gradient holds about three times as much as a value.
            found = self._by_rows(self._slopes, self.rows // 3, x, q.to(self.dtype), weights)
            return _low(found[0]), found[1].double()

        at = partial(frame.at, joint)
        tuned = Tuner(pilots, into.new_tensor(STEP), ACCEPTANCE, LIMITS)
        ends = into.new_tensor([0.0, 1.0]), into.new_tensor([1.0, 0.0])
        path = temperatures(TEMPERATURES, "linear")
        found, _, _ = along(at, into, path, ends, tuned, LEAPFROG, pilots)
        log_weights = LogWeights(CHAINS, tail=True)
        log_weights.add(found[pilots:])
        return log_weights

    def _log_p(self, x: Data, q: Tensor, weights: list[Tensor]) -> Tensor:
        r"""log p(x, q|w) at ``(k, n, d)``, ``(k, n)``, float64."""
        return _low(self._by_rows(self._terms, self.rows, x, q, weights)[0])

    def _by_rows(
        self, function: Replay, most: int, x: Data, q: Tensor, weights: list[Tensor]
    ) -> list[Tensor]:
        r"""What a function of rows is at latents ``(k, n, d)``, ``(k, n, ...)`` each.

        Rows are evaluated in parts of one length, at most so many, which the last row fills up.
        """
        k, n, d = q.shape
        # Of few lengths, as each has a graph of its own.
        few = max(1, min(most, 1 << 2 * math.ceil(math.log2(k * n) / 2)))
        index = torch.arange(-(-k * n // few) * few, device=q.device).clamp(max=k * n - 1)
        flat = q.reshape(k * n, d)
        parts = [
            function(x[i.remainder(n)], flat[i].contiguous(), *weights) for i in index.split(few)
        ]
        return [torch.cat(part)[: k * n].unflatten(0, (k, n)) for part in zip(*parts, strict=True)]

    def _log_joint(self, x: Data, q: Tensor, *weights: Tensor) -> list[Tensor]:
        return [self.joint.terms(x, q, *weights).sum(0)]

    def _log_defence(self, x: Data, q: Tensor, *weights: Tensor) -> list[Tensor]:
        if self.guided:
            return [self.joint.log_guide(x, q, *weights)]
        return [self.joint.terms(x, q, *weights)[1]]

    def _gradient(self, x: Data, q: Tensor, *weights: Tensor) -> list[Tensor]:
        _, terms, slopes = evaluate(lambda q: self.joint.terms(x, q, *weights).sum(0)[None], q)
        return [terms[0], slopes[0]]


def _low(value: Tensor) -> Tensor:
    r"""A log-density in float64, zero where it is not a number."""
    return value.double().nan_to_num(-math.inf, math.inf, -math.inf)


def _mixed(log_normals: Tensor, log_guide: Tensor, k: int) -> Tensor:
    r"""The density of the mixture in which the guide has the share of its draws."""
    few = _few(k)
    parts = log_normals + math.log((k - few) / k), log_guide + math.log(few / k)
    return torch.logaddexp(*parts)


def _few(k: int) -> int:
    return max(1, round(SHARE * k))
