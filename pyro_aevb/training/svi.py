r"""Stochastic variational inference: gradient ascent on an objective."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.elbo import ELBO
from torch import Tensor

from pyro_aevb.data.batch import Data, data_of, repeated, with_data
from pyro_aevb.data.corruption import Corruption
from pyro_aevb.errors import UsageError
from pyro_aevb.models.weights.noise import Flipout, LocalReparameterization
from pyro_aevb.pairs.handlers import Emphasis
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Phase
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.objectives.iwae import IWAE

WEIGHT_NOISE: dict[str, Callable[[], Any]] = {
    "shared": nullcontext,
    "local": LocalReparameterization,
    "flipout": Flipout,
}

NORMAL = {"Normal", "LogScaleNormal", "auxiliary"}
r"""Kinds of guide sites that weight noise other than ``shared`` can reach."""


class SVI(Algorithm):
    r"""One phase: every parameter follows the gradient of the objective.

    The loss is :math:`-\mathcal{L}/N` in nats per datum: a pair that declares the N of its data
    plate has its objective divided by N, any other by the length of the batch.

    Arguments:
        pair: An inspected pair.
        objective: Any ``pyro.infer.ELBO``.
        weight_noise: How the draws of weight sites reach the data: ``shared`` is one for the
            batch; ``local`` and ``flipout`` are the handlers of
            :mod:`~pyro_aevb.models.weights.noise`. None is the pair's attribute `weight_noise`
            where the objective allows it, else ``shared``.
        corruption: What the guide sees of a batch, drawn once in a step; the model observes the
            batch itself. None is the batch.

    Raises:
        UsageError: Weight noise for a pair without weight sites, or not for this objective.
    """

    name = "svi"

    def __init__(
        self,
        pair: Pair,
        objective: ELBO,
        weight_noise: str | None = None,
        corruption: Corruption | None = None,
    ) -> None:
        description = pair.description
        assert description is not None, "inspect the pair first"
        asked = weight_noise is not None
        if weight_noise is None:
            own = pair.attribute("weight_noise") or "shared"
            weight_noise = own if _sums_expectations(objective) else "shared"
        if weight_noise not in WEIGHT_NOISE:
            known = ", ".join(WEIGHT_NOISE)
            raise UsageError(f"--weight-noise is {weight_noise!r}; it must be one of {known}")
        if weight_noise != "shared" and not description.global_sites:
            raise UsageError(
                f"--weight-noise {weight_noise}: {pair.name} has no uncertain weights, "
                "as it has no latent site outside the data plate; leave the flag out"
            )
        kinds = {site.posterior for site in description.global_sites}
        if asked and weight_noise != "shared" and not kinds & NORMAL:
            raise UsageError(
                f"--weight-noise {weight_noise} is for weights that a normal of their own draws; "
                f"{pair.name} has {', '.join(sorted(kinds))}: use --weight-noise shared"
            )
        # A sum over data of expectations is what independent weights for the data leave unbiased.
        if weight_noise != "shared" and not _sums_expectations(objective):
            raise UsageError(
                f"--weight-noise {weight_noise} is for the ELBO; "
                f"{type(objective).__name__} needs the weights that its particles share: "
                "use --weight-noise shared"
            )
        self.pair, self.weight_noise, self.corruption = pair, weight_noise, corruption
        if matched := [site.name for site in description.local_sites if site.matched]:
            self.notes = (
                f"codes {matched[0]!r} were not matched to their prior, as --algorithm adversarial "
                "does: draws from it are no draws from the codes",
            )
        self.objective: Any = objective
        self.couples = bool(getattr(objective, "couples", False))
        if isinstance(objective, IWAE):
            objective.data_plate = description.plate
        self.num_data = description.plate_size
        self.parameters = pair.trainable()
        loss, eager, particles = self._loss, None, 1
        if not hasattr(objective, "differentiable_loss"):
            loss = self._loss_with_gradients
            eager = f"{self.title} has no differentiable_loss, only loss_and_grads"
        elif self._one_by_one():
            self.objective, particles = copy(objective), objective.num_particles
            self.objective.num_particles = 1
        self.phases = [Phase("svi", loss, self.parameters, particles=particles, eager=eager)]

    @property
    def title(self) -> str:
        return type(self.objective).__name__

    def _one_by_one(self) -> bool:
        r"""Whether the objective is a mean over particles of which each draws, and holds, weights.

        Corrupted data are drawn once for all particles, which are then taken together.
        """
        assert self.pair.description is not None
        objective, weights = self.objective, self.pair.description.global_sites
        if (
            not weights
            or self.corruption is not None
            or self.pair.tables
            or type(objective) is not TraceELBO
        ):
            return False
        return objective.num_particles > 1 and not objective.vectorize_particles

    def _loss(self, x: Data, index: Tensor) -> Tensor:
        guide, emphasis = self._guide(x)
        with WEIGHT_NOISE[self.weight_noise](), emphasis:
            value: Tensor = self.objective.differentiable_loss(self.pair.model, guide, x)
        return value / (self.num_data or len(x))

    def _guide(self, x: Data) -> tuple[Callable[[Any], Any], AbstractContextManager[Any]]:
        r"""The guide, which sees corrupted data in place of those of a batch, and what to run the
        objective in, where the corruption emphasizes some components.
        """
        if self.corruption is None:
            return self.pair.guide, nullcontext()
        corrupt, weights = self.corruption, None
        if hasattr(corrupt, "emphasized"):
            corrupted, weights = corrupt.emphasized(data_of(x))
        else:
            corrupted = corrupt(data_of(x))
        seen = with_data(x, corrupted)
        emphasis: AbstractContextManager[Any] = nullcontext()
        if weights is not None:
            assert self.pair.description is not None
            emphasis = Emphasis(self.pair.description.observed, weights)
        # An objective may call it several times, and with the batch repeated for its particles.
        return lambda rows: self.pair.guide(repeated(seen, len(rows) // len(x))), emphasis

    def _loss_with_gradients(self, x: Data, index: Tensor) -> Tensor:
        # Some of Pyro's objectives only back-propagate by themselves, and only if they see a
        # parameter in the trace; those of a plain module would silently not be trained.
        def model(batch: Data) -> Any:
            name, parameter = next(iter(self.parameters.items()))
            pyro.param(f"trained:{name}", parameter)
            return self.pair.model(batch)

        num_data = self.num_data or len(x)
        guide, emphasis = self._guide(x)
        with emphasis:
            value = self.objective.loss_and_grads(model, guide, x)
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad /= num_data
        return torch.as_tensor(float(value) / num_data)


def _sums_expectations(objective: ELBO) -> bool:
    return type(objective) in (TraceELBO, Trace_ELBO, TraceMeanField_ELBO)
