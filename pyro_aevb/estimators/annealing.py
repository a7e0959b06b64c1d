r"""Annealed importance sampling and bidirectional Monte Carlo: log p(x) from below and from above.

For one datum, with the global latents w held fixed, a path of densities leads from one that can be
drawn from to the joint density with x,

.. math:: f_b(z) = f_0(z)^{1-b} \, p(x, z|w)^b, \qquad 0 = b_0 < b_1 < \dots < b_T = 1,

where :math:`f_0` is the prior :math:`p(z|w)` or the guide :math:`q(z|x, w)`. A chain starts at
:math:`z_0 \sim f_0` and is moved by one trajectory of Hamiltonian Monte Carlo at each of
:math:`b_1, \dots, b_{T-1}`, and its weight is

.. math:: \log \omega = \sum_{t=1}^T (b_t - b_{t-1})
    \bigl[\log p(x, z_{t-1}|w) - \log f_0(z_{t-1})\bigr], \qquad \mathrm{E}[\omega] = p(x|w).

So :math:`\log \frac{1}{K} \sum_k \omega_k` over K chains is a *stochastic lower bound* on
:math:`\log p(x|w)`: below it in expectation (Jensen), and above it by more than c nats with
probability less than :math:`e^{-c}` (Markov). It rises to :math:`\log p(x|w)` with T and with K,
however far the guide is from the posterior.

A datum that was simulated, :math:`z^* \sim p(z|w), x \sim p(x|z^*, w)`, comes with one exact draw
from its posterior. From there the same chains backwards give weights of which
:math:`\mathrm{E}[1/\omega] = 1/p(x|w)`, so that :math:`-\log \frac{1}{K} \sum_k 1/\omega_k` is a
*stochastic upper bound*. How far apart the two are on simulated data says how well the chains mix,
and bounds the error of both.

The step size has to be tuned on the way, yet the expectations above hold only if it does not
depend on the chains that it moves. So it is tuned by the acceptance of further chains, the
*pilots*, whose weights are not used, and the way back takes the step sizes of the way there.

References:
    | Annealed importance sampling (Neal, 2001)
    | https://arxiv.org/abs/physics/9803008
    | Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani and
      Adams, 2015)
    | https://arxiv.org/abs/1511.02543
    | On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017)
    | https://arxiv.org/abs/1611.04273
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.policy import Policy
from pyro_aevb.engine.replay import Replay
from pyro_aevb.engine.streams import (
    Rows,
    blocks_of,
    check_seed,
    even,
    few_rows,
    numbered,
    seeded,
)
from pyro_aevb.errors import UsageError, at_least_one, one_of
from pyro_aevb.estimators.estimator import Estimator, Found
from pyro_aevb.estimators.hmc import Evaluate, Move, Point, evaluate
from pyro_aevb.estimators.importance import Compile
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.metrics import measured
from pyro_aevb.estimators.path import (
    LIMITS,
    PILOTS,
    STEP,
    Progress,
    Tuner,
    along,
    temperatures,
)
from pyro_aevb.estimators.proposals import WIDTH, Frame, Search
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.estimators.work import Work
from pyro_aevb.pairs.pair import Pair

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared

START = 0.1
r"""The first step size."""
COMPILE_FROM = 1e12
r"""Multiplications for 100 data from which on compiling, which takes about 7 s, pays."""


@dataclass
class Annealed:
    r"""What annealing found of N data under one draw of the global latents."""

    log_weights: np.ndarray
    r"""``(K, N)``, float64, in nats: of every chain."""
    acceptance: np.ndarray
    r"""``(T - 1,)``: of their proposals, at each temperature."""

    def lower(self) -> np.ndarray:
        r"""The stochastic lower bound on log p(x|w), ``(N,)``."""
        return np.logaddexp.reduce(self.log_weights, 0) - math.log(len(self.log_weights))

    def upper(self) -> np.ndarray:
        r"""The upper one, of chains that came from exact draws from the posterior, ``(N,)``."""
        return math.log(len(self.log_weights)) - np.logaddexp.reduce(-self.log_weights, 0)


class Bracket(NamedTuple):
    r"""Both ways along the path for data that the model simulated."""

    x: Data
    r"""The data."""
    there: Annealed
    r"""The way there; its :meth:`Annealed.lower` bounds their log p(x|w) from below."""
    back: Annealed
    r"""The way back; its :meth:`Annealed.upper` bounds it from above."""


class Annealer:
    r"""Anneals a pair with local latents, as its parameters are at each call.

    Arguments:
        pair: An inspected pair.
        x: Some data, to look at the pair with.
        num_chains: K, chains per datum whose weights count; pilots come on top.
        num_temperatures: T.
        leapfrog_steps: L, of each of the T - 1 trajectories of a chain.
        acceptance: To which the pilots tune the step size.
        schedule: See :func:`~.path.temperatures`.
        start: ``prior``, ``guide`` or ``laplace``: :math:`f_0`. From a guide that is near the
            posterior the way is shorter; from one that is too narrow some of the posterior may
            never be reached. The normals at each datum's modes (:mod:`~.proposals`) are so near,
            and the chains move in their frame, that tens of temperatures do for a thousand; a mode
            that they lack stays unseen.
        seed: Fixes all draws; every call makes the same ones.
        memory: Bytes that evaluating the pair may take at once, see
            :class:`~.importance.Scorer`. Changes speed only.
        compile: ``on`` captures and compiles the log-density and its gradient, or fails; ``off``
            runs the pair's handlers every time; ``auto`` decides by the work, and where a pair
            cannot be captured runs it eagerly.
        say: Told why the pair is run eagerly, where it cannot be captured.

    Raises:
        UsageError: A number or a name that cannot be; a pair without real-valued local latents
            with a prior density, or a guide without one.
    """

    def __init__(
        self,
        pair: Pair,
        x: Data,
        num_chains: int = 16,
        num_temperatures: int = 1000,
        leapfrog_steps: int = 10,
        acceptance: float = 0.65,
        schedule: str = "sigmoid",
        start: Literal["prior", "guide", "laplace"] = "prior",
        seed: int = 0,
        memory: int | None = None,
        compile: Compile = "auto",
        say: Callable[[str], None] | None = None,
    ) -> None:
        assert pair.description is not None, "inspect the pair first"
        check_seed(seed)
        policy = Policy(compile, pair.name, "annealed", say)
        at_least_one("num_chains", num_chains)
        at_least_one("leapfrog_steps", leapfrog_steps)
        if not 0 < acceptance < 1:
            raise UsageError(f"acceptance is {acceptance}; it must lie between 0 and 1")
        one_of("start", start, ("prior", "guide", "laplace"))
        self.pair, self.seed, self.start = pair, seed, start
        self.num_chains, self.leapfrog_steps, self.target = num_chains, leapfrog_steps, acceptance
        self.path = temperatures(num_temperatures, schedule)
        # Of the terms log p(x|z), log p(z), or log p(x, z), log q(z|x), log f_b takes c + b d.
        with self.pair.running():
            weights = self._weights(x, 0)
            self.joint = Joint(pair, x, weights, start == "guide")
            few = x[:2]
            with seeded(x.device, seed):
                q = self.joint.draw(pair.model, few, *weights.values())
            self.c = q.new_tensor([0.0, 1.0])
            self.d = q.new_tensor([1.0, 0.0] if start == "prior" else [1.0, -1.0])
            self._dtype = q.dtype
            rows = few_rows(memory, few, partial(self._terms, few, q, *weights.values()))
            self._rows = Rows(rows, policy.in_smaller_parts)
            if start == "laplace":
                self._search = Search(self.joint, few, [*weights.values()], self._rows)
                self.c, self.d = self.c.double(), self.d.double()
        # A gradient is worth two evaluations, a transcendental function 100 multiplications.
        each = 3 * (pair.description.num_parameters + 100 * x.shape[1:].numel())
        work = 100 * num_chains * num_temperatures * leapfrog_steps * each
        way = policy.way(work >= COMPILE_FROM)
        self._evaluate = Replay(self._gradients, way, policy.eagerly, pair.python)

    @torch.no_grad()
    def __call__(
        self,
        batches: Batches,
        s: int = 0,
        progress: Progress = None,
        blocks: range | None = None,
    ) -> Annealed:
        r"""Anneal every datum: :meth:`Annealed.lower` bounds its log p(x|w) from below.

        Arguments:
            batches: The data as they are presented; fixed ones, not dynamic binarization.
            s: The number of the draw of the global latents, the one that a
                :class:`~.importance.Scorer` of the same seed scores with.
            progress: Called at each of the T temperatures of a block of data with its length.
            blocks: Anneal the data of these blocks of :data:`~pyro_aevb.engine.streams.DATA_BLOCK`
            alone.
        """
        chosen = numbered(len(batches)) if blocks is None else blocks
        parts = []
        with self.pair.running():
            weights = [*self._weights(batches.take(torch.zeros(1, dtype=torch.int64)), s).values()]
            for block, x in blocks_of(batches, chosen):
                with seeded(x.device, self.seed, s, 1 + block):
                    parts.append(self._there(x, weights, [], progress)[0])
        return Annealed(
            np.concatenate([part.log_weights for part in parts], 1),
            np.average(
                [part.acceptance for part in parts],
                axis=0,
                weights=[part.log_weights.shape[1] for part in parts],
            ),
        )

    @torch.no_grad()
    def bracket(self, x: Data, s: int = 0, progress: Progress = None) -> Bracket:
        r"""Bidirectional Monte Carlo on data that the model simulates.

        Arguments:
            x: As many data as are to be simulated; only their shape is used.
            s, progress: See a call of the annealer; progress is told of both ways.

        """
        step_sizes: list[Tensor] = []
        with self.pair.running(), seeded(x.device, self.seed, s, 0):
            weights = [*self._weights(x[:1], s).values()]
            x, exact = self.joint.simulate(x, *weights)
            frame = self._frame(x, weights)  # fitted to the data alone, not to what made them
            there, _ = self._there(x, weights, step_sizes, progress, frame)
            chains = exact.expand(self.num_chains, *exact.shape)
            path = self.path.flip(0)
            back, _ = self._along(
                path, x, weights, chains, lambda move: step_sizes.pop(), 0, progress, frame
            )
        return Bracket(x, there, back)

    def _there(
        self,
        x: Data,
        weights: list[Tensor],
        step_sizes: list[Tensor],
        progress: Progress,
        frame: Frame | None = None,
    ) -> tuple[Annealed, Point]:
        r"""Along the path from :math:`f_0`, and where it ends; fills the list of step sizes."""
        pilots = -(-PILOTS // len(x))
        count = pilots + self.num_chains
        frame = self._frame(x, weights) if frame is None else frame
        if frame is not None:
            start = frame.normals.sample(count, frame.width)
            tuned = Tuner(pilots, start.new_tensor(STEP), self.target, LIMITS)
        else:
            side = self.pair.guide if self.start == "guide" else self.pair.model
            start = torch.stack([self.joint.draw(side, x, *weights) for _ in range(count)])
            tuned = Tuner(pilots, start.new_tensor(START), self.target)
        tuned.sizes = step_sizes
        return self._along(self.path, x, weights, start, tuned, pilots, progress, frame)

    def _frame(self, x: Data, weights: list[Tensor]) -> Frame | None:
        r"""Where the chains move, if they start at fitted normals."""
        return Frame(self._search(x, weights), WIDTH) if self.start == "laplace" else None

    def _along(
        self,
        path: Tensor,
        x: Data,
        weights: list[Tensor],
        chains: Tensor,
        step_size: Callable[[Move | None], Tensor],
        pilots: int,
        progress: Progress,
        frame: Frame | None,
    ) -> tuple[Annealed, Point]:
        r"""Move chains along a path, each step of the size that the last move leads to, and weigh
        all but the first few; with where these are in the end."""
        at = self._at(x, weights, len(chains))
        if frame is not None:
            at, chains = partial(frame.at, _one(at, self._dtype)), frame.into(chains)
        ends = self.c, self.c + self.d
        log_weights, acceptance, point = along(
            at, chains, path, ends, step_size, self.leapfrog_steps, pilots, progress
        )
        end = Point(point.q[pilots:], point.terms[:, pilots:], point.gradients[:, pilots:])
        return Annealed(as_numpy(log_weights[pilots:]), as_numpy(acceptance)), end

    def _at(self, x: Data, weights: list[Tensor], count: int) -> Callable[[Tensor], Point]:
        r"""The log-densities of a block of data, of a few data at a time.

        All parts have the same shape; the last is filled up with the block's last datum.
        """
        n = len(x)

        @cache
        def parts(number: int) -> list[tuple[Data, Tensor]]:
            few = even(n, number // count)
            index = torch.arange(-(-n // few) * few, device=x.device).clamp(max=n - 1)
            return [(x[i], i) for i in index.split(few)]

        def in_parts(q: Tensor) -> list[list[Tensor]]:
            some = parts(self._rows.number)
            return [self._evaluate(rows, q[:, i].contiguous(), *weights) for rows, i in some]

        def at(q: Tensor) -> Point:
            found = self._rows.run(x.device, lambda: in_parts(q))
            terms = torch.cat([terms for terms, _ in found], -1)[..., :n]
            gradients = torch.cat([gradients for _, gradients in found], -2)[..., :n, :]
            return Point(q, terms, gradients)

        return at

    def _terms(self, x: Data, q: Tensor, *weights: Tensor) -> Tensor:
        both = self.joint.terms(x, q, *weights)
        if self.start == "prior":
            return both
        if self.start == "laplace":
            return both.sum(0, keepdim=True)
        return torch.stack([both.sum(0), self.joint.log_guide(x, q, *weights)])

    def _gradients(self, x: Data, q: Tensor, *weights: Tensor) -> list[Tensor]:
        return list(evaluate(lambda q: self._terms(x, q, *weights), q)[1:])

    def _weights(self, x: Data, s: int) -> dict[str, Tensor]:
        return weight_draw(self.pair, x, self.seed, s)[0]


def _one(at: Evaluate, dtype: torch.dtype) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    r"""The one term of a log-density, in float64, evaluated in the precision of the data."""

    def joint(q: Tensor) -> tuple[Tensor, Tensor]:
        point = at(q.to(dtype))
        return point.terms[0].double(), point.gradients[0].double()

    return joint


def made(make: Callable[..., Any], pair: Pair, test: Batches, work: Work, **settings: Any) -> Any:
    r"""An annealer of that kind for test data."""
    few = test.take(torch.arange(min(5, len(test))))
    return make(pair, few, **settings, memory=work.memory, compile=work.compile, say=work.say)


def over_weights(
    name: str,
    estimate: Callable[[int, Progress], np.ndarray],
    bar: tuple[str, int],
    prepared: "Prepared",
    test: Batches,
    work: Work,
    draws: int,
    **counts: int,
) -> Found:
    r"""log of the mean of p(x|w) over draws of the weights, an estimate by the number of each."""
    draws = draws if prepared.description.global_sites else 1
    with work.progress(bar[0], draws * bar[1] * len(test), "step") as step:
        values = np.stack([estimate(s, step) for s in range(draws)])
    mixture: np.ndarray = np.logaddexp.reduce(values, 0) - math.log(draws)
    if prepared.description.global_sites:
        counts["weight_samples"] = draws
    return {name: measured(mixture, **counts, num_data=len(mixture))}, {name: mixture}


def _ais(
    prepared: "Prepared", test: Batches, work: Work, weight_samples: int = 1, **settings: Any
) -> Found:
    anneal = made(Annealer, prepared.pair, test, work, **settings)
    counts = {name: settings[name] for name in ("num_chains", "num_temperatures")}
    bar, given = ("annealing", counts["num_temperatures"]), (prepared, test, work, weight_samples)
    return over_weights(
        "ais_lower", lambda s, step: anneal(test, s, step).lower(), bar, *given, **counts
    )


def _bdmc(prepared: "Prepared", test: Batches, work: Work, **settings: Any) -> Found:
    anneal = made(Annealer, prepared.pair, test, work, **settings)
    with work.progress("annealing", 2 * settings["num_temperatures"] * len(test), "step") as step:
        bracket = anneal.bracket(test.take(torch.arange(len(test))), progress=step)
    found = {"bdmc_lower": bracket.there.lower(), "bdmc_upper": bracket.back.upper()}
    every = {**found, "bdmc_gap": found["bdmc_upper"] - found["bdmc_lower"]}
    counts = {name: settings[name] for name in ("num_chains", "num_temperatures")}
    metrics = {n: measured(v, **counts, num_data=len(test)) for n, v in every.items()}
    metrics["bdmc_gap"]["note"] = (
        "between bounds on log p(x) of data that the model simulated: about how far ais_lower may "
        "be too low at these settings, as far as the test data are like them"
    )
    return metrics, found


AIS = Estimator(
    "ais",
    _ais,
    onto=Annealer,
    first=100,
    follows=("memory", "compile"),
    estimates=("ais_lower",),
    below="its chains have not arrived, and say nothing; raise num_temperatures",
    shown=True,
)
BDMC = replace(AIS, name="bdmc", run=_bdmc, estimates=(), margin=("bdmc_gap", "ais_lower"))
