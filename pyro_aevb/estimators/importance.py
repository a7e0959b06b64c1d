r"""Per-datum importance sampling with the guide: ELBO and log-likelihood from the same draws.

For each draw of the global latents :math:`w_s \sim q(w)` and each datum,

.. math::
    \log \omega_{snk} = \log p(x_n|z_{snk}, w_s) + \log p(z_{snk}|w_s) - \log q(z_{snk}|x_n, w_s),
    \qquad z_{snk} \sim q(z|x_n, w_s), \quad k = 1, \dots, K,

at plate scale 1: the data axis and the particle axis are kept apart, and no term is multiplied
by N/B. Draws are made in blocks of fixed size under seeds of their own, while the memory
budget only decides how many rows the model sees at once, so the values do not depend on it. Of a
block of draws only sums are kept (:class:`~pyro_aevb.estimators.log_weights.LogWeights`), so memory
does not grow with K.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pyro
import torch
from torch import Tensor

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import Data, data_of, with_data
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.policy import Policy
from pyro_aevb.engine.replay import Replay, Way
from pyro_aevb.engine.streams import (
    Rows,
    blocks_of,
    check_seed,
    even,
    few_rows,
    numbered,
    seeded,
)
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.estimators.log_weights import LogWeights, milestones
from pyro_aevb.estimators.terms import Terms, weight_draw
from pyro_aevb.pairs.density import log_joint
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.predict import latents
from pyro_aevb.pairs.state.python import Reading, changed, rebound, untouched

DRAW_BLOCK = 1 << 22
r"""About how many numbers are drawn at once."""
FEW_DATA = 100
r"""Data that a chunk holds many draws of; their pixels stay in a cache."""
COMPILE_FROM = 2e12
r"""Multiplications from which on compiling, which takes about 5 s, pays where no clock tells."""
CAPTURE_FROM = 50
r"""Calls of the pair's functions from which on capturing, which takes about 0.3 s, pays."""

Compile = Literal["auto", "on", "off"]


@dataclass
class Scores:
    r"""Per-datum values in nats, float64, of S weight draws and N data; None if not defined."""

    num_samples: int
    weight_samples: int
    reconstruction: np.ndarray
    r"""(S, N): mean over draws of log p(x|z, w)."""
    reconstruction_mean: np.ndarray | None = None
    r"""(N,): log p(x|z, w) at the guide's means."""
    kl: np.ndarray | None = None
    r"""(S, N): KL(q(z|x) || p(z)), closed form if there is one, else from the draws."""
    elbo: np.ndarray | None = None
    r"""(S, N): mean over draws of the log-weights."""
    log_weight: np.ndarray | None = None
    r"""(S, N): log p(x|w_s) by importance sampling, the log of the mean weight."""
    ess: np.ndarray | None = None
    r"""(S, N): effective sample size of the weights."""
    pareto_k: np.ndarray | None = None
    r"""(S, N): shape of the weights' tail, by Pareto-smoothed importance sampling."""
    looks: tuple[int, ...] = ()
    r"""L numbers of draws, the last being K."""
    curve: np.ndarray | None = None
    r"""(S, L, N): ``log_weight`` from the first so many draws alone."""
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    r"""By the names of local sites E_q[z|x], ``(N, d)``, at the mean weights."""
    shares: dict[str, np.ndarray] = field(default_factory=dict)
    r"""By the names of the observed sites, where there are several, the part of ``reconstruction``
    that each has, ``(S, N)``."""


def score(
    pair: Pair,
    batches: Batches,
    num_samples: int = 1000,
    weight_samples: int = 10,
    seed: int = 0,
    memory: int | None = None,
    progress: Callable[[int], None] | None = None,
    details: bool = True,
    compile: Compile = "auto",
    say: Callable[[str], None] | None = None,
    blocks: range | None = None,
) -> Scores:
    r"""Importance-sample every datum, once; a :class:`Scorer` does it again and again.

    Arguments:
        pair: An inspected pair.
        batches: The data as they are presented; fixed ones, not dynamic binarization.
        num_samples, weight_samples, seed, memory, details, compile, say: See :class:`Scorer`.
        progress: Called with the number of data done.
        blocks: Score the data of these blocks of :data:`~pyro_aevb.engine.streams.DATA_BLOCK`
        alone.

    Returns:
        The per-datum values.
    """
    scorer = Scorer(pair, num_samples, weight_samples, seed, memory, details, compile, say)
    return scorer(batches, progress, blocks)


class Scorer:
    r"""Scores a pair, as its parameters are at each call; keeps what it has captured and compiled.

    Arguments:
        pair: An inspected pair.
        num_samples: K, draws per datum and weight draw. 1 if the latents have no density.
        weight_samples: S, draws of the global latents. 1 if there are none.
        seed: Fixes the draws; every call makes the same ones.
        memory: Bytes that evaluating the model may take at once; by default 32 MiB on a CPU and
            4 GiB on a GPU. Changes speed only.
        details: Compute ``ess``, ``pareto_k``, ``curve``, ``reconstruction_mean`` and the codes
            too.
        compile: ``on`` captures and compiles what is run over and over; ``off`` runs the pair's
            handlers every time; ``auto`` decides by the work ahead, and where a pair cannot be
            captured runs it eagerly. All from the same draws, so the values differ by rounding.
        say: Told once why the pair is run eagerly, where it cannot be captured.
        calls: How many calls on so many data are to be expected, for ``auto``.
        corruption: From a batch x to what the guide sees in its place, with torch's generators, in
            calls that number a draw of it; the model still scores x. The values are then those of
            :math:`q(z|\tilde x)` as a guide for x: ``elbo`` stays a bound on :math:`\log p(x)`,
            ``log_weight`` an estimate of it.

    Raises:
        UsageError: The seed is out of range; or, when called, the pair fails, or compiling was
            asked for and does.
    """

    def __init__(
        self,
        pair: Pair,
        num_samples: int = 1000,
        weight_samples: int = 10,
        seed: int = 0,
        memory: int | None = None,
        details: bool = True,
        compile: Compile = "auto",
        say: Callable[[str], None] | None = None,
        calls: int = 1,
        corruption: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        assert pair.description is not None, "inspect the pair first"
        check_seed(seed)
        self.pair = pair
        self.description = pair.description
        self.defined = self.description.undefined() is None
        sampled = self.defined and self.description.local_sites
        self.num_samples = num_samples if sampled else 1
        self.weight_samples = weight_samples if self.description.global_sites else 1
        self.seed, self.memory, self.details = seed, memory, details
        self.policy, self.calls = Policy(compile, pair.name, "scored", say), calls
        self.corruption = corruption
        self._plans: dict[int, _Plan] = {}
        self._python: Reading = {}

    @torch.no_grad()
    def __call__(
        self,
        batches: Batches,
        progress: Callable[[int], None] | None = None,
        blocks: range | None = None,
        noise: int | None = None,
    ) -> Scores:
        r"""Importance-sample every datum.

        Arguments:
            batches: The data as they are presented; fixed ones, not dynamic binarization.
            progress: Called with the number of data done.
            blocks: Score the data of these blocks alone; their values are those that they have
                in the whole.
            noise: The number of the corruption's draw, which all draws of the latents share; None
                leaves the data clean.
        """
        chosen = numbered(len(batches)) if blocks is None else blocks
        self._drop_stale()
        try:
            with self.pair.active(), self.pair.evaluating(), WholeBatch():
                plan = self._plan(batches)
                # Checks of distributions' arguments read values back from tensors.
                captured = plan.draw.way is not Way.EAGER
                with pyro.validation_enabled(False) if captured else nullcontext():
                    draws = [
                        self._weight_draw(plan, batches, chosen, s, noise, progress)
                        for s in range(self.weight_samples)
                    ]
                means: dict[str, Any] = {}
                if self.details:
                    with pyro.validation_enabled(False):  # the mean of whole numbers is none
                        means = _joined(
                            self._at_means(plan, x, self._seen(x, noise, block))
                            for block, x in blocks_of(batches, chosen)
                        )
        except UsageError:
            raise
        except Exception as error:  # of a pair's code
            raise UsageError(
                f"{self.pair.name} cannot be scored: {type(error).__name__}: {one_line(error)}"
            ) from error
        values: dict[str, Any] = {
            name: np.stack([draw[name] for draw in draws]) for name in draws[0]
        }
        shares = {name: values.pop(_share(name)) for name in plan.terms.shares}
        if "curve" in values:
            values["curve"] = values["curve"].swapaxes(1, 2)
            values["looks"] = milestones(self.num_samples)
        return Scores(
            num_samples=self.num_samples,
            weight_samples=self.weight_samples,
            reconstruction_mean=means.pop("reconstruction_mean", None),
            codes=means,
            shares=shares,
            **values,
        )

    def _drop_stale(self) -> None:
        r"""Capture anew where Python values, which graphs hold, have changed since."""
        now = self.pair.python.read()
        if self._plans and (changed(self._python, now) or rebound(self._python, now)):
            self._plans.clear()
            self.calls = 1  # as they may have at each
        self._python = now

    def _weight_draw(
        self,
        plan: "_Plan",
        batches: Batches,
        blocks: range,
        s: int,
        noise: int | None,
        progress: Callable[[int], None] | None,
    ) -> dict[str, np.ndarray]:
        weights = [*self._weights(batches, s).values()]
        return _joined(
            self._block(plan, x, self._seen(x, noise, block), weights, (s, 1 + block), progress)
            for block, x in blocks_of(batches, blocks)
        )

    def _seen(self, x: Data, noise: int | None, block: int) -> Data:
        r"""What the guide sees of a block of data, the same for every draw of the weights."""
        if self.corruption is None or noise is None:
            return x
        with seeded(x.device, self.seed, 0, 1 + block, 1 + noise):
            return with_data(x, self.corruption(data_of(x)).contiguous())

    def _weights(self, batches: Batches, s: int) -> dict[str, Tensor]:
        first = batches.take(torch.zeros(1, dtype=torch.int64))
        return weight_draw(self.pair, first, self.seed, s)[0]

    def _block(
        self,
        plan: "_Plan",
        x: Data,
        seen: Data,
        weights: list[Tensor],
        key: tuple[int, int],
        progress: Callable[[int], None] | None,
    ) -> dict[str, Tensor]:
        r"""Score one block of data under one draw of the weights."""
        K, n = self.num_samples, len(x)
        health = self.details and K > 1
        log_weights = LogWeights(K, health, milestones(K) if health else ())
        names = plan.terms.shares
        likelihood, difference = x.new_zeros(2, n, dtype=torch.float64)
        shares = x.new_zeros(len(names), n, dtype=torch.float64)
        kl = None
        with seeded(x.device, self.seed, *key):
            for start in range(0, K, plan.draws):
                log_q, *values = plan.draw(seen, *weights)
                if plan.terms.closed_form:
                    kl, *values = values
                terms = plan.model_terms(x, weights, values)
                terms[1] -= log_q
                terms = terms[:, : K - start]  # the last block may hold more draws than are left
                likelihood += terms[0].sum(0)
                difference += terms[1].sum(0)
                shares += terms[2:].sum(1)
                log_weights.add(terms[:2].sum(0))
                if progress is not None:
                    stop = min(start + plan.draws, K)
                    progress(n * stop // K - n * start // K)
        result = {"reconstruction": likelihood / K}
        result |= {_share(name): part / K for name, part in zip(names, shares, strict=True)}
        if not self.defined:
            return result
        result |= {"elbo": (likelihood + difference) / K, "log_weight": log_weights.log_mean()}
        if self.description.local_sites:
            result["kl"] = -difference / K if kl is None else kl.double()
            if health:
                result["ess"] = log_weights.effective_sample_size()
                result["pareto_k"] = log_weights.pareto_k()
                result["curve"] = torch.stack(log_weights.curve, 1)
        return result

    def _at_means(self, plan: "_Plan", x: Data, seen: Data) -> dict[str, Tensor]:
        values = latents(self.pair, seen)
        local = {site.name: values[site.name] for site in self.description.local_sites}
        parts = []
        for start in range(0, len(x), plan.rows.number):
            rows = slice(start, start + plan.rows.number)
            few = values | {name: value[rows] for name, value in local.items()}
            observed, _ = log_joint(self.pair, x[rows], few)
            parts.append(sum(observed.values(), x.new_zeros(len(x[rows]))))
        codes = {name: value.reshape(len(x), -1) for name, value in local.items()}
        return {"reconstruction_mean": torch.cat(parts).double(), **codes}

    def _plan(self, batches: Batches) -> "_Plan":
        _, x = next(blocks_of(batches, range(1)))
        n = len(x)
        if n not in self._plans:
            with seeded(x.device, self.seed), untouched(self.pair.python):
                weights = self._weights(batches, 0)
                terms = Terms(self.pair, x, weights)
                few = x[:2]
                drawn = terms.draw(1, few, *weights.values())[terms.closed_form + 1 :]
                values = [*weights.values(), *(value[0] for value in drawn)]
                rows = few_rows(self.memory, few, partial(terms.evaluate, few, *values))
            numbers = terms.numbers if terms.independent else terms.numbers + x.shape[1:].numel()
            draws = even(self.num_samples, DRAW_BLOCK // (n * numbers))
            repeats = self.weight_samples * self.calls * len(numbered(len(batches)))
            calls = repeats * max(1, n * self.num_samples // rows)
            plan = _Plan(terms, n, draws, rows, self._way(batches, calls), self.policy)
            plan.evaluate.expected = calls if self.policy.compile == "auto" else 0
            self._plans[n] = plan
        return self._plans[n]

    def _way(self, batches: Batches, calls: int) -> Way:
        r"""How so many calls are run; on a CPU the first of a graph tell whether compiling pays."""
        # A transcendental function of a pixel costs as much as about 100 multiplications.
        per_row = self.description.num_parameters + 100 * math.prod(batches.event_shape)
        work = self.weight_samples * self.calls * len(batches) * self.num_samples * per_row
        small = Way.GRAPH if calls >= CAPTURE_FROM else Way.EAGER
        return self.policy.way(batches.device.type != "cpu" and work >= COMPILE_FROM, small)


class _Plan:
    r"""How blocks of n data are scored: in which chunks, by which functions.

    A chunk is `few` data at `times` draws each; all chunks have the same shape, and the last one
    overlaps the one before it where they do not fit.
    """

    def __init__(
        self,
        terms: Terms,
        n: int,
        draws: int,
        rows: int,
        way: Way,
        policy: Policy,
    ) -> None:
        self.terms, self.draws, self.n = terms, draws, n
        self.rows = Rows(rows, policy.in_smaller_parts)
        fallback, python = policy.eagerly, terms.pair.python
        self.draw = Replay(partial(terms.draw, draws), way, fallback, python)
        self.evaluate = Replay(terms.evaluate, way, fallback, python)

    @property
    def times(self) -> int:
        r"""At how many draws a chunk's data are evaluated."""
        return even(self.draws, self.rows.number // min(self.n, FEW_DATA))

    @property
    def few(self) -> int:
        r"""How many data a chunk has."""
        return even(self.n, self.rows.number // self.times)

    def model_terms(self, x: Data, weights: list[Tensor], values: list[Tensor]) -> Tensor:
        r"""What :meth:`in_chunks` gives, of half as many rows at a time where memory ends."""
        return self.rows.run(x.device, lambda: self.in_chunks(x, weights, values))

    def in_chunks(self, x: Data, weights: list[Tensor], values: list[Tensor]) -> Tensor:
        r"""What :meth:`~.terms.Terms.evaluate` gives of a block of data at its draws, float64."""
        n, k, few, times = len(x), self.draws, self.few, self.times
        result = x.new_empty(2 + len(self.terms.shares), k, n, dtype=torch.float64)
        for start in range(0, n, few):
            # A block of fewer data is filled up with its last one.
            index = torch.arange(few, device=x.device)
            index = (index + max(0, min(start, n - few))).clamp(max=n - 1)
            some, drawn = x[index], [value[:, index] for value in values]
            for first in range(0, k, times):
                chosen = slice(min(first, k - times), min(first, k - times) + times)
                (terms,) = self.evaluate(some, *weights, *(v[chosen].flatten(0, 1) for v in drawn))
                result[:, chosen, index] = terms.double()
        return result


def _share(name: str) -> str:
    return f"share of {name}"


def _joined(parts: Iterable[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    parts = list(parts)
    return {name: as_numpy(torch.cat([p[name] for p in parts])) for name in parts[0]}
