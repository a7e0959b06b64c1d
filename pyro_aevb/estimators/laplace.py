r"""How a datum is scored with normals at its posterior's modes: settled by draws that do not count.

*Pilot* draws settle everything that depends on the datum: the width of the normals (one for a
block of data, the one of the smallest variance), how many draws the target asks for, and whether
importance sampling is enough. Where it is not, as the pilots' weights have a heavy tail or would
take too many draws, chains are annealed from the normals to the posterior (:mod:`~.path`), in the
frame in which the normal of the heaviest mode is a standard one: a way so short that some tens of
temperatures take the place of a thousand. Fresh draws, or chains, are scored.
"""

import math
from functools import partial

import torch
from torch import Tensor

from pyro_aevb.data.batch import Data, repeated
from pyro_aevb.engine.policy import Policy
from pyro_aevb.engine.replay import Replay, Way
from pyro_aevb.engine.streams import Rows, few_rows
from pyro_aevb.estimators.hmc import evaluate
from pyro_aevb.estimators.importance import CAPTURE_FROM, DRAW_BLOCK
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.log_weights import LogWeights
from pyro_aevb.estimators.path import LIMITS, STEP, Tuner, along, temperatures
from pyro_aevb.estimators.path import PILOTS as PILOT_CHAINS
from pyro_aevb.estimators.proposals import SHARE, WIDTH, Frame, Normals, Search

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


def found(log_weights: LogWeights, modes: Tensor, temperatures: int) -> dict[str, Tensor]:
    r"""What :class:`~.marginal.Marginals` has of each of n data, ``(n,)`` by name."""
    ess, k = log_weights.effective_sample_size(), log_weights.count
    count = torch.full_like(modes, k)
    return {
        "log_likelihood": log_weights.log_mean(),
        "relative_variance": (1 / ess - 1 / k) * (k / max(1, k - 1)),
        "ess": ess,
        "pareto_k": log_weights.pareto_k(),
        "num_samples": count,
        "num_modes": modes,
        "num_temperatures": torch.full_like(modes, temperatures),
    }


class Laplace:
    r"""Importance sampling from normals at the modes, annealed from there where it is hard.

    Arguments:
        joint: The pair's joint density.
        x: Some data, to look at the pair with.
        weights: Values of the global sites, by name.
        policy: Whether calls are captured.
        target: The Monte Carlo error in nats that a datum should have.
        max_samples: The most draws that it may take.
        memory: Bytes that evaluating the model may take at once.
    """

    def __init__(
        self,
        joint: Joint,
        x: Data,
        weights: dict[str, Tensor],
        policy: Policy,
        target: float,
        max_samples: int,
        memory: int | None,
    ) -> None:
        self.target, self.max_samples = target, max_samples
        self.joint, self.pair = joint, joint.pair
        assert self.pair.description is not None
        values = [*weights.values()]
        q = joint.draw(self.pair.model, x, *values)
        self.dtype = q.dtype
        rows = few_rows(memory, x, partial(joint.terms, x, q, *values))
        self.rows = Rows(rows, policy.in_smaller_parts)
        self.search = Search(joint, x, values, self.rows)
        self.together = max(1, DENSE // joint.dim**2)
        self.guided = self.search.guided
        self.policy = policy

    def expect(self, data: int) -> None:
        r"""Say how many data are to be scored, for whether capturing and compiling pay."""
        calls = data * USUAL // self.rows.number
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
        parts: list[dict[str, Tensor]] = []
        order: list[Tensor] = []
        for count in counts[~hard].unique().tolist():
            index = ((counts == count) & ~hard).nonzero().squeeze(1)
            some = normals[index]
            log_weights = self._importance(x[index], weights, some, width, int(count))
            parts.append(found(log_weights, modes[index], 0))
            order.append(index)
        index = hard.nonzero().squeeze(1)
        if len(index):
            log_weights = self._anneal(x[index], weights, normals[index], width)
            parts.append(found(log_weights, modes[index], TEMPERATURES))
            order.append(index)
        back = torch.cat(order).argsort()
        assert len(back) == n
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}

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
        return q, self._by_rows(self._defence, x, q, weights)[0].double()

    def _anneal(self, x: Data, weights: list[Tensor], normals: Normals, width: float) -> LogWeights:
        r"""Chains from the normals to the posterior, in the frame of the heaviest mode."""
        pilots = -(-PILOT_CHAINS // len(x))
        frame = Frame(normals, width)
        into = frame.into(normals.sample(pilots + CHAINS, width))

        def joint(q: Tensor) -> tuple[Tensor, Tensor]:
            # A gradient holds about three times as much as a value.
            found = self._by_rows(self._slopes, x, q.to(self.dtype), weights, times=3)
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
        return _low(self._by_rows(self._terms, x, q, weights)[0])

    def _by_rows(
        self, function: Replay, x: Data, q: Tensor, weights: list[Tensor], times: int = 1
    ) -> list[Tensor]:
        r"""What a function of rows is at latents ``(k, n, d)``, ``(k, n, ...)`` each.

        Arguments:
            function: Holds so many `times` as much as a value of the density.
        """
        return self.rows.run(q.device, lambda: self._in_parts(function, x, q, weights, times))

    def _in_parts(
        self, function: Replay, x: Data, q: Tensor, weights: list[Tensor], times: int
    ) -> list[Tensor]:
        r"""Rows in parts of one length, at most as many as fit, which the last row fills up."""
        k, n, d = q.shape
        # Of few lengths, as each has a graph of its own.
        few = max(1, min(self.rows.number // times, 1 << 2 * math.ceil(math.log2(k * n) / 2)))
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
