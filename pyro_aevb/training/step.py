r"""One training step: from the index of a batch to the loss and its gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.elbo import ELBO
from torch import Tensor

from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.capture import NotCapturable, capture
from pyro_aevb.engine.inductor import compile_captured
from pyro_aevb.errors import UsageError
from pyro_aevb.handlers import ScaleSites
from pyro_aevb.objectives.elbo import TraceELBO
from pyro_aevb.pairs import Pair
from pyro_aevb.training.draws import Draws
from pyro_aevb.training.parallel import Alone
from pyro_aevb.weight_noise import Flipout, LocalReparameterization

WEIGHT_NOISE: dict[str, Callable[[], Any]] = {
    "shared": nullcontext,
    "local": LocalReparameterization,
    "flipout": Flipout,
}


@dataclass
class Step:
    r"""Minus the objective per datum and its gradients, eagerly or from one compiled graph.

    The loss is :math:`-\mathcal{L}/N` in nats per datum: a pair that declares the N of its data
    plate has its objective divided by N, any other by the length of the batch.

    Called with the index of a batch, a step leaves the gradients in ``.grad`` and returns the
    loss, detached; ``kl_scale`` multiplies the log-probabilities of the latent sites. Both ways
    draw from torch's generators, on a CPU the same numbers.
    Run inside ``pair.active()`` and ``WholeBatch()``, in several processes after
    :meth:`rehearse`: each computes its rows of the batch, and all get the whole one's loss and
    gradients.

    Arguments:
        pair: An inspected pair.
        objective: Any ``pyro.infer.ELBO``.
        data: What the index points into.
        weight_noise: How the draws of weight sites reach the data: ``shared`` is one for the
            batch; ``local`` and ``flipout`` are the handlers of :mod:`~pyro_aevb.weight_noise`.
            None is the pair's own attribute `weight_noise` where the objective allows it, else
            ``shared``.
        group: The processes that share the batch.

    Raises:
        UsageError: Weight noise for a pair without weight sites, or not for this objective.
    """

    pair: Pair
    objective: ELBO
    data: Batches
    weight_noise: str | None = None
    group: Alone = field(default_factory=Alone)
    kl_scale: float = field(default=1.0, init=False)
    parameters: dict[str, Tensor] = field(init=False)
    _compiled: Callable[..., list[Tensor]] | None = field(default=None, init=False)
    _size: int = field(default=0, init=False)
    _draws: Draws | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        description = self.pair.description
        assert description is not None, "inspect the pair first"
        self.latent = {s.name for s in description.local_sites or description.global_sites}
        self.num_data = description.plate_size
        self.parameters = self.pair.trainable()
        if self.weight_noise is None:
            own = getattr(getattr(self.pair.model, "__self__", None), "weight_noise", "shared")
            self.weight_noise = own if _sums_expectations(self.objective) else "shared"
        if self.weight_noise not in WEIGHT_NOISE:
            known = ", ".join(WEIGHT_NOISE)
            raise UsageError(f"--weight-noise is {self.weight_noise!r}; it must be one of {known}")
        if self.weight_noise != "shared" and not description.global_sites:
            raise UsageError(
                f"--weight-noise {self.weight_noise}: {self.pair.name} has no uncertain weights, "
                "as it has no latent site outside the data plate; leave the flag out"
            )
        # A sum over data of expectations is what independent weights for the data leave unbiased.
        if self.weight_noise != "shared" and not _sums_expectations(self.objective):
            raise UsageError(
                f"--weight-noise {self.weight_noise} is for the ELBO; "
                f"{type(self.objective).__name__} needs the weights that its particles share: "
                "use --weight-noise shared"
            )

    def rehearse(self) -> None:
        r"""Learn what of a step several processes share; alone, nothing.

        Leaves everything as it was, gradients apart.

        Raises:
            UsageError: The pair's random numbers cannot be shared.
        """
        if self.group.size == 1:
            return

        device = self.data.images.device
        tensors = list(self.pair.tensors().values())
        before = [tensor.detach().clone() for tensor in tensors]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            few = self.data.take(torch.arange(3) % len(self.data))
            self._draws = Draws(self._eagerly, few, self.pair.name)
        self._reached = [p for p in self.parameters.values() if p.grad is not None]
        self._averages = []
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                if tensor.is_floating_point() and not torch.equal(tensor, value):
                    self._averages.append(tensor)
                tensor.copy_(value)

    @property
    def compiled(self) -> bool:
        r"""Whether batches of some length have a compiled step."""
        return self._compiled is not None

    def compile(self, index: Tensor) -> None:
        r"""Capture and compile the step for batches of the length of `index`.

        Others still run eagerly, as the last batch of an epoch does if it is smaller.

        Arguments:
            index: Of some batch.

        Raises:
            NotCapturable: The step has to run eagerly, and why.
        """
        if not hasattr(self.objective, "differentiable_loss"):
            name = type(self.objective).__name__
            raise NotCapturable(f"{name} has no differentiable_loss, only loss_and_grads")
        if self._draws is not None and self._draws.own:
            raise NotCapturable(f"{self._draws.own[0]} draws from a stream of each process's own")
        self.group.together(lambda: self._compile(index), NotCapturable)
        self._size = len(index)

    def _compile(self, index: Tensor) -> None:
        used: dict[str, Tensor] = {}

        def step(index: Tensor, kl_scale: Tensor) -> list[Tensor]:
            with self._rows(index) as x, ScaleSites(kl_scale, self.latent):
                loss = self._loss(x)
            values = list(self.parameters.values())
            gradients = torch.autograd.grad(loss, values, allow_unused=True)
            reached = dict(zip(self.parameters, gradients, strict=True))
            used.update({k: v for k, v in self.parameters.items() if reached[k] is not None})
            return [loss.detach(), x, *(g for g in gradients if g is not None)]

        index = index.to(self.data.images.device)
        one = torch.ones((), device=index.device)
        captured = capture(
            step,
            (index, one),
            (index.flip(0).roll(1) // 2, one / 2),
            [*self.pair.tensors().values()],
        )
        self._compiled = compile_captured(captured, (index, one), same_draws=not index.is_cuda)
        self._used = list(used.values())
        # One tensor, filled anew where the weight changes, so that a CUDA graph reads it.
        self._scale, self._filled = one, 1.0

    def __call__(self, index: Tensor) -> Tensor:
        index = index.to(self.data.images.device)
        if self._compiled is not None and len(index) == self._size:
            if self._filled != self.kl_scale:
                self._scale.fill_(self.kl_scale)
                self._filled = self.kl_scale
            loss, _, *gradients = self._compiled(index, self._scale)
            for parameter, gradient in zip(self._used, gradients, strict=True):
                parameter.grad = gradient
        else:
            with self._rows(index) as x, ScaleSites(self.kl_scale, self.latent):
                loss = self._eagerly(x)
        if self._draws is None:
            return loss
        self._check_reached()
        return self.group.mean(self._reached, self._averages, loss, len(index))

    @contextmanager
    def _rows(self, index: Tensor) -> Iterator[Tensor]:
        r"""This process's rows of the batch; inside, random draws are its share of the batch's."""
        x = self.data.take(index)
        if self._draws is None:
            yield x
            return
        rows = self.group.rows(len(x))
        with self._draws.of(len(x), rows, self.group.rank):
            yield x[rows]

    def _check_reached(self) -> None:
        reached = {id(parameter) for parameter in self._reached}
        for name, parameter in self.parameters.items():
            if parameter.grad is not None and id(parameter) not in reached:
                raise UsageError(
                    f"parameter {name!r} of {self.pair.name} gets a gradient from some batches "
                    "only, which several processes cannot share; train it in one process"
                )

    def _loss(self, x: Tensor) -> Tensor:
        objective: Any = self.objective
        with WEIGHT_NOISE[str(self.weight_noise)]():
            value: Tensor = objective.differentiable_loss(self.pair.model, self.pair.guide, x)
        return value / (self.num_data or len(x))

    def _eagerly(self, x: Tensor) -> Tensor:
        for parameter in self.parameters.values():
            parameter.grad = None
        if hasattr(self.objective, "differentiable_loss"):
            loss = self._loss(x)
            loss.backward()
            return loss.detach()

        # Some of Pyro's objectives only back-propagate by themselves, and only if they see a
        # parameter in the trace; those of a plain module would silently not be trained.
        def model(batch: Tensor) -> Any:
            name, parameter = next(iter(self.parameters.items()))
            pyro.param(f"trained:{name}", parameter)
            return self.pair.model(batch)

        num_data = self.num_data or len(x)
        objective: Any = self.objective
        value = objective.loss_and_grads(model, self.pair.guide, x)
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad /= num_data
        return torch.as_tensor(float(value) / num_data)


def _sums_expectations(objective: ELBO) -> bool:
    return type(objective) in (TraceELBO, Trace_ELBO, TraceMeanField_ELBO)
