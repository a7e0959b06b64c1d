r"""The gap between log p(x) and the ELBO, explained by optimizing q for each datum.

With :math:`\mathcal{L}[q] = \mathrm{E}_q[\log p(x, z) - \log q(z)]` for a datum x, one draw of the
global latents held fixed throughout, and :math:`q^*` the best member of the guide's family,

.. math::
    \underbrace{\log p(x) - \mathcal{L}[q]}_{\text{inference gap}} =
    \underbrace{\log p(x) - \mathcal{L}[q^*]}_{\text{approximation gap}} +
    \underbrace{\mathcal{L}[q^*] - \mathcal{L}[q]}_{\text{amortization gap}}.

The first says what the family costs, the second what computing q from x by a net costs. Two
families are optimized: normals with a diagonal covariance, and flows
(:class:`~pyro_aevb.estimators.variational.Flow`). In place of :math:`\log p(x)` stands the highest
of several stochastic lower bounds on it, so an approximation gap is, in expectation, too small.

References:
    | Inference Suboptimality in Variational Autoencoders (Cremer, Li and Duvenaud, 2018)
    | https://arxiv.org/abs/1801.03558
    | Sticking the Landing (Roeder, Wu and Duvenaud, 2017)
    | https://arxiv.org/abs/1703.09194
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.policy import Policy
from pyro_aevb.engine.replay import Way
from pyro_aevb.engine.streams import check_seed, seeded
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.ascent import DRAWS, Ascent
from pyro_aevb.estimators.estimator import Estimator, Found
from pyro_aevb.estimators.importance import COMPILE_FROM, Compile, score
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.log_weights import LogWeights
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.estimators.metrics import UNRELIABLE, Metric, measured
from pyro_aevb.estimators.terms import Terms, weight_draw
from pyro_aevb.estimators.variational import Flow, normal
from pyro_aevb.estimators.work import Work
from pyro_aevb.pairs.pair import Pair

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared

DATA = 100
r"""Data that are optimized together."""
START, PARTS = 25, 8
r"""Draws that tell the guide's moments, and in how many parts."""
ERROR = 0.01
r"""The Monte Carlo error in nats that the reference has for a datum; gaps are tenths of a nat."""
USUAL_STEPS = 5000
r"""About how many steps a family takes."""


@dataclass
class InferenceGap:
    r"""Per-datum values in nats, float64, ``(N,)`` each, under one draw of the global latents.

    By name of a q: ``guide``; ``normal`` and ``flow``, optimized for each datum.
    """

    num_samples: int
    family: str
    r"""The family that the guide belongs to, ``normal``, or ``flow`` for any other."""
    elbo: dict[str, np.ndarray] = field(default_factory=dict)
    r""":math:`\mathcal{L}[q]`, the mean of K log-weights."""
    log_likelihood: dict[str, np.ndarray] = field(default_factory=dict)
    r""":math:`\log p(x)` by K importance samples from q; ``laplace``, by fitted proposals. Further
    stochastic lower bounds under the same draw, such as annealed importance sampling's, may be
    added by names of their own."""
    pareto_k: dict[str, np.ndarray] = field(default_factory=dict)
    steps: dict[str, np.ndarray] = field(default_factory=dict)
    r"""How many steps of the optimizer q took, with all data of its block."""

    @property
    def best(self) -> str:
        r"""The name of the highest estimate of log p(x), which all bound from below in expectation.

        That by fitted proposals (:mod:`~.marginal`), or where these are not for the pair the
        flow's, as the least noisy, unless another's mean exceeds it by two standard errors.
        """
        best = "laplace" if "laplace" in self.log_likelihood else "flow"
        for name, values in self.log_likelihood.items():
            excess = measured(values - self.log_likelihood[best])
            if excess["value"] > 2 * (excess["standard_error"] or 0.0):
                best = name
        return best

    def per_datum(self) -> dict[str, np.ndarray]:
        r"""Every quantity by its name, see ``docs/definitions.md``."""
        best, guide = self.log_likelihood[self.best], self.elbo["guide"]
        return {f"elbo_{name}": values for name, values in self.elbo.items()} | {
            "log_likelihood_best": best,
            "inference_gap": best - guide,
            "approximation_gap": best - self.elbo[self.family],
            "amortization_gap": self.elbo[self.family] - guide,
            "flow_gain": self.elbo["flow"] - self.elbo["normal"],
        }

    def metrics(self) -> dict[str, Metric]:
        r"""Means over data with their standard errors."""
        found = {
            name: measured(values, num_samples=self.num_samples, num_data=len(values))
            for name, values in self.per_datum().items()
        }
        found["log_likelihood_best"]["by"] = self.best
        if self.best in self.pareto_k:
            unreliable = np.nan_to_num(self.pareto_k[self.best], nan=0.0) > UNRELIABLE
            found["log_likelihood_best"]["share_above_0.7"] = float(unreliable.mean())
        for name in ("approximation_gap", "amortization_gap"):
            found[name]["family"] = self.family
        return found


@torch.no_grad()
def inference_gap(
    pair: Pair,
    batches: Batches,
    num_samples: int = 5000,
    seed: int = 0,
    flow: Flow | None = None,
    compile: Compile = "auto",
    say: Callable[[str], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> InferenceGap:
    r"""Optimize q for each datum, and compare the bounds.

    All data of a block at once, by Adam on the bound's pathwise gradient with ten draws. A q lives
    in the units of the guide's mean and standard deviation, starts there (the flow from the best
    normal), and is left when the mean bound of 100 steps has not risen for a while at the last of
    a falling sequence of rates; what is kept is the mean of the parameters over the last 100 steps.

    Arguments:
        pair: An inspected pair, with real-valued local latents that have densities.
        batches: The data, such as ``prepared.test.first(100)``.
        num_samples: K, draws per datum from each q for its bound and its importance weights.
        seed: Fixes all draws; the global latents are those of
            :class:`~pyro_aevb.estimators.importance.Scorer`'s first draw under this seed.
        flow: The second family; by default two layers.
        compile: See :class:`~pyro_aevb.estimators.importance.Scorer`.
        say: Told once why the pair is run eagerly, where it cannot be captured.
        progress: Called with the number of data done, of :math:`2N` in all.

    Raises:
        UsageError: There are no local latents; or one has no density, or is not real-valued.
    """
    description = pair.description
    assert description is not None, "inspect the pair first"
    check_seed(seed)
    reason = description.undefined()
    if reason is not None:
        raise UsageError(f"{pair.name} has no bound to optimize: {reason}")
    policy = Policy(compile, f"q of {pair.name}", "optimized", say)
    n, block = len(batches), min(len(batches), DATA)
    parts: dict[str, list[dict[str, Tensor]]] = {"normal": [], "flow": []}
    with pair.running():
        x = batches.take(torch.arange(block))
        weights = weight_draw(pair, x, seed, 0)[0]
        with seeded(x.device, seed, 0):
            per_row = description.num_parameters + 100 * x.shape[1:].numel()
            way = policy.way(2 * USUAL_STEPS * DRAWS * n * per_row >= COMPILE_FROM)
            search = _Search(pair, x, weights, flow or Flow(), way, policy.eagerly)
        for start in range(0, n, block):
            # A block of fewer data is filled up with its last one.
            x = batches.take(torch.arange(start, start + block).clamp(max=n - 1))
            with seeded(x.device, seed, 0, 0, start):
                for name, found in search(x, num_samples):
                    parts[name].append({key: value[: n - start] for key, value in found.items()})
                    if progress is not None:
                        progress(min(block, n - start))
    amortized = score(pair, batches, num_samples, 1, seed, compile=compile)
    finer = MarginalLikelihood(pair, weight_samples=1, seed=seed, compile=compile, target=ERROR)
    fitted = finer(batches)
    assert amortized.elbo is not None and amortized.log_weight is not None
    guide = {"elbo": amortized.elbo[0], "log_likelihood": amortized.log_weight[0]}
    if amortized.pareto_k is not None:
        guide["pareto_k"] = amortized.pareto_k[0]
    result = InferenceGap(num_samples, search.family)
    if fitted.proposal == "laplace":
        result.log_likelihood["laplace"] = fitted.log_likelihood[0]
        result.pareto_k["laplace"] = fitted.pareto_k[0]
    for name, values in {"guide": guide, **{k: _joined(v) for k, v in parts.items()}}.items():
        for key, array in values.items():
            getattr(result, key)[name] = array
    return result


class _Search:
    r"""Optimizes both families, for one block of data after the other from the same graphs."""

    def __init__(
        self,
        pair: Pair,
        x: Data,
        weights: dict[str, Tensor],
        flow: Flow,
        way: Way,
        fallback: Callable[[str], None],
    ) -> None:
        self.joint, self.terms = Joint(pair, x, weights), Terms(pair, x, weights)
        self.weights = [*weights.values()]
        self.flow = flow
        self.normals = Ascent(self.joint, normal, way, fallback)
        self.flows = Ascent(self.joint, flow, way, fallback)
        site = self.terms.description.local_sites[0]
        plain = self.terms.independent and site.posterior == "Normal"
        self.family = "normal" if plain else "flow"

    def __call__(self, x: Data, num_samples: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
        drawn = torch.cat([self._draw(x) for _ in range(PARTS)])
        loc = drawn.mean(0)
        fixed, zero = [x, loc, drawn.std(0), *self.weights], torch.zeros_like(loc)
        best, steps = self.normals.maximize(fixed, [zero, zero])
        yield "normal", _weighed(self.normals, fixed, best, num_samples, steps)
        best, steps = self.flows.maximize(fixed, self.flow.start(*best))
        yield "flow", _weighed(self.flows, fixed, best, num_samples, steps)

    def _draw(self, x: Data) -> Tensor:
        r"""Local latents from the guide, ``(START, n, d)``."""
        _, *values = self.terms.draw(START, x, *self.weights)
        named = dict(zip(self.terms.sites, values[self.terms.closed_form :], strict=True))
        return self.joint.vector(named, 2)


def _weighed(
    ascent: Ascent, fixed: list[Data], best: list[Tensor], num_samples: int, steps: int
) -> dict[str, Tensor]:
    r"""The values of :class:`InferenceGap` for members of a family."""
    weights = LogWeights(num_samples, tail=True)
    total = fixed[0].new_zeros((), dtype=torch.float64)
    for block in ascent.log_weights(fixed, best, num_samples):
        weights.add(block)
        total = total + block.double().sum(0)
    elbo = total / num_samples
    return {
        "elbo": elbo,
        "log_likelihood": weights.log_mean(),
        "pareto_k": weights.pareto_k(),
        "steps": torch.full_like(elbo, steps),
    }


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}


def _gap(prepared: "Prepared", test: Batches, work: Work, **settings: Any) -> Found:
    settings |= {"compile": work.compile, "say": work.say}
    with work.progress("optimizing q", 2 * len(test), "datum") as step:
        gap = inference_gap(prepared.pair, test, **settings, progress=step)
    return gap.metrics(), gap.per_datum()


def _figure(
    plots: Any, metrics: Mapping[str, Metric], per_datum: Mapping[str, np.ndarray], path: Path
) -> None:
    family = metrics["amortization_gap"]["family"]
    names = [f"elbo_{name}" for name in dict.fromkeys(("guide", family, "flow"))]
    names.append("log_likelihood_best")
    plots.inference_gap({name: per_datum[name] for name in names}, path)


GAP = Estimator(
    "gap",
    _gap,
    onto=inference_gap,
    first=100,
    follows=("compile",),
    estimates=("log_likelihood_best",),
    figure=_figure,
    file="inference_gap.png",
)
