r"""Per-datum importance sampling with the guide: ELBO and log-likelihood from the same draws.

For each draw of the global latents :math:`w_s \sim q(w)` and each datum,

.. math::
    \log \omega_{snk} = \log p(x_n|z_{snk}, w_s) + \log p(z_{snk}|w_s) - \log q(z_{snk}|x_n, w_s),
    \qquad z_{snk} \sim q(z|x_n, w_s), \quad k = 1, \dots, K,

at plate scale 1: the data axis and the particle axis are kept apart, and no term is multiplied
by N/B. Draws are made in blocks of fixed size under seeds of their own, while the memory
budget only decides how many rows the model sees at once, so the values do not depend on it.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_aevb.data.batches import Batches
from pyro_aevb.description import Description
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.diagnostics import effective_sample_size, pareto_k
from pyro_aevb.handlers import Fix, WholeBatch
from pyro_aevb.pairs import Pair
from pyro_aevb.predict import latents
from pyro_aevb.sites import closed_form_kl, in_plate, log_prob, sample_sites

DATA_BLOCK = 100
r"""Data that share one stream of random numbers; fixed, so that no setting changes a value."""
DRAW_BLOCK = 1 << 20
r"""About how many numbers are drawn at once."""
CPU_BUDGET, CUDA_BUDGET = 64 << 20, 4 << 30
r"""Default memory budget in bytes: what a CPU cache serves well, and what fills a GPU."""


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
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    r"""Local site by name, (N, d): E_q[z|x] at the mean weights."""


@torch.no_grad()
def score(
    pair: Pair,
    batches: Batches,
    num_samples: int = 1000,
    weight_samples: int = 10,
    seed: int = 0,
    memory: int | None = None,
    progress: Callable[[int], None] | None = None,
    details: bool = True,
) -> Scores:
    r"""Importance-sample every datum.

    Arguments:
        pair: An inspected pair.
        batches: The data as they are presented; fixed ones, not dynamic binarization.
        num_samples: K, draws per datum and weight draw. 1 if the latents have no density.
        weight_samples: S, draws of the global latents. 1 if there are none.
        seed: Of the draws.
        memory: Bytes that evaluating the model may take at once; by default 64 MiB on a CPU and
            4 GiB on a GPU. Changes speed only.
        progress: Called with the number of data done.
        details: Compute ``ess``, ``pareto_k``, ``reconstruction_mean`` and the codes too.

    Returns:
        The per-datum values.
    """
    description = pair.description
    assert description is not None, "inspect the pair first"
    check_seed(seed)
    if description.undefined() is not None or not description.local_sites:
        num_samples = 1
    weight_samples = weight_samples if description.global_sites else 1
    scorer = _Scorer(pair, description, num_samples, seed, memory, details)
    training = pair.training
    pair.eval()
    try:
        with pair.active(), WholeBatch():
            draws = [
                _joined(scorer.draw(x, s, block, progress) for block, x in _blocks(batches))
                for s in range(weight_samples)
            ]
            means: dict[str, Any] = {}
            if details:
                means = _joined(scorer.at_means(x) for _, x in _blocks(batches))
    finally:
        pair.train(training)
    return Scores(
        num_samples=num_samples,
        weight_samples=weight_samples,
        reconstruction_mean=means.pop("reconstruction_mean", None),
        codes=means,
        **{name: np.stack([draw[name] for draw in draws]) for name in draws[0]},
    )


def _blocks(batches: Batches) -> Iterator[tuple[int, Tensor]]:
    for block, start in enumerate(range(0, len(batches), DATA_BLOCK)):
        yield block, batches.take(torch.arange(start, min(start + DATA_BLOCK, len(batches))))


def _joined(parts: Iterable[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    parts = list(parts)
    return {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}


def check_seed(seed: int) -> None:
    r"""Refuse a seed that the generators do not take.

    Raises:
        UsageError: Not a whole number from 0 to 2^63 - 1.
    """
    if not 0 <= seed < 1 << 63:
        raise UsageError(f"--seed is {seed}; it must lie between 0 and 2^63 - 1")


@contextmanager
def seeded(device: torch.device, *key: int) -> Iterator[None]:
    r"""A stream of random numbers of its own for each key; the caller's is left as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
        yield


def weight_draw(pair: Pair, x: Tensor, plate: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    r"""One draw of the global sites from the guide: values by name, and the sites themselves."""
    sites = sample_sites(poutine.trace(pair.guide).get_trace(x))
    outside = {name: site for name, site in sites.items() if not in_plate(site, plate)}
    return {name: site["value"] for name, site in outside.items()}, outside


class _Scorer:
    def __init__(
        self,
        pair: Pair,
        description: Description,
        num_samples: int,
        seed: int,
        memory: int | None,
        details: bool,
    ) -> None:
        self.pair = pair
        self.description = description
        self.num_samples = num_samples
        self.seed = seed
        self.memory = memory
        self.health = details and num_samples > 1
        self.defined = description.undefined() is None
        self.max_rows: int | None = None
        # Without auxiliary sites a closed-form KL of the one local site is the whole of it.
        self.single = len(description.local_sites) == 1 and not description.auxiliary

    def at_means(self, x: Tensor) -> dict[str, Tensor]:
        values = latents(self.pair, x)
        terms = self._model_terms(x, values)
        codes = {
            site.name: values[site.name].reshape(len(x), -1)
            for site in self.description.local_sites
        }
        return {"reconstruction_mean": terms[self.description.observed].double(), **codes}

    def draw(
        self, x: Tensor, s: int, block: int, progress: Callable[[int], None] | None
    ) -> dict[str, Tensor]:
        r"""Score one block of data under weight draw s."""
        weights: dict[str, Tensor] = {}
        if self.description.global_sites:
            with seeded(x.device, self.seed, s):
                # On one datum, so that every block of a draw gets the same weights.
                weights, _ = weight_draw(self.pair, x[:1], self.description.plate)
        with seeded(x.device, self.seed, s, 1 + block):
            likelihood, difference, kl = self._log_weights(x, weights)
        if progress is not None:
            progress(len(x))
        result = {"reconstruction": likelihood.mean(0)}
        if not self.defined:
            return result
        log_weights = likelihood + difference
        result |= {
            "elbo": log_weights.mean(0),
            "log_weight": log_weights.logsumexp(0) - math.log(len(log_weights)),
        }
        if self.description.local_sites:
            result["kl"] = -difference.mean(0) if kl is None else kl.double()
            if self.health:
                result["ess"] = effective_sample_size(log_weights)
                result["pareto_k"] = pareto_k(log_weights)
        return result

    def _log_weights(
        self, x: Tensor, weights: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        r"""log p(x|z) and log p(z) - log q(z|x), both (K, n) in float64, and a closed-form KL."""
        likelihoods, differences = [], []
        kl = None
        for values, log_q in self._draws(x, weights):
            log_prior = torch.zeros_like(log_q)
            likelihood = torch.empty_like(log_q)
            rows = len(log_q)
            for start, stop in self._chunks(x, rows, values, weights):
                index = torch.arange(start, stop, device=x.device) % len(x)
                part = {name: value[start:stop] for name, value in values.items()}
                terms = self._model_terms(x[index], weights | part)
                likelihood[start:stop] = terms.pop(self.description.observed)
                for term in terms.values():
                    log_prior[start:stop] += term
            likelihoods.append(likelihood.double().view(-1, len(x)))
            differences.append((log_prior.double() - log_q.double()).view(-1, len(x)))
        if self.defined and self.single:
            kl = self._closed_form_kl(x, weights)
        return torch.cat(likelihoods), torch.cat(differences), kl

    def _draws(
        self, x: Tensor, weights: dict[str, Tensor]
    ) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        r"""Draws of the local sites as rows (k, n) flattened, and log q of each row."""
        plate = self.description.plate

        def guide(batch: Tensor) -> dict[str, Any]:
            with Fix(weights):
                sites = sample_sites(poutine.trace(self.pair.guide).get_trace(batch))
            return {name: site for name, site in sites.items() if in_plate(site, plate)}

        sites = guide(x)
        per_draw = sum(site["value"].numel() for site in sites.values()) + len(x)
        left = self.num_samples
        if len(sites) == 1 and next(iter(sites.values()))["fn"].batch_shape == (len(x),):
            # One site, a function of x alone: the encoder runs once for all K draws.
            (name, site), *_ = sites.items()
            while left > 0:
                k = min(left, max(1, DRAW_BLOCK // per_draw))
                value = site["fn"].sample((k,))
                log_q = log_prob({**site, "value": value}, 1.0)
                yield {name: value.flatten(0, 1)}, log_q.flatten()
                left -= k
            return
        while left > 0:
            k = min(left, max(1, DRAW_BLOCK // (per_draw + x.numel())))
            rows = x.repeat(k, *[1] * (x.dim() - 1))
            sites = guide(rows)
            log_q = x.new_zeros(len(rows))
            for site in sites.values():
                log_q = log_q + log_prob(site, 1.0).reshape(-1, len(rows)).sum(0)
            yield {name: site["value"] for name, site in sites.items()}, log_q
            left -= k

    def _model_terms(self, x: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        r"""Log-probabilities of the model's sites inside the data plate, (rows,) each."""
        with Fix(values):
            sites = sample_sites(poutine.trace(self.pair.model).get_trace(x))
        return {
            name: log_prob(site, 1.0).reshape(-1, len(x)).sum(0)
            for name, site in sites.items()
            if in_plate(site, self.description.plate)
        }

    def _chunks(
        self, x: Tensor, rows: int, values: dict[str, Tensor], weights: dict[str, Tensor]
    ) -> Iterator[tuple[int, int]]:
        if self.max_rows is None:
            budget = self.memory or (CUDA_BUDGET if x.is_cuda else CPU_BUDGET)
            few = min(2, len(x))
            with _Allocated() as allocated:
                self._model_terms(x[:few], weights | {k: v[:few] for k, v in values.items()})
            self.max_rows = max(1, budget // max(1, allocated.total // few))
        # Whole multiples of the block, where it fits: their index pattern is the same.
        step = max(self.max_rows // len(x) * len(x), 0) or self.max_rows
        for start in range(0, rows, step):
            yield start, min(start + step, rows)

    def _closed_form_kl(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor | None:
        name = self.description.local_sites[0].name
        with Fix(weights):
            posterior = sample_sites(poutine.trace(self.pair.guide).get_trace(x))[name]
            with Fix({name: posterior["value"]}):
                prior = sample_sites(poutine.trace(self.pair.model).get_trace(x))[name]
        try:
            return closed_form_kl(posterior, prior, 1.0)
        except NotImplementedError:
            return None


class _Allocated(TorchFunctionMode):
    r"""Bytes of all tensors made inside: an upper bound on what is alive at once."""

    total = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.total += result.numel() * result.element_size()
        return result
