r"""One training step: from the index of a batch to the loss of a phase and its gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_aevb.data.batch import Data, flatten, unflatten
from pyro_aevb.data.batches import Batches
from pyro_aevb.device import shares_memory
from pyro_aevb.engine.capture import NotCapturable, capture
from pyro_aevb.engine.inductor import compile_captured
from pyro_aevb.engine.processes import Alone
from pyro_aevb.engine.shared_draws import Draws
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.handlers import ScaleSites
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.state.python import PythonState, untouched
from pyro_aevb.pairs.tables import joined
from pyro_aevb.training.algorithm import Phase


@dataclass
class Step:
    r"""The loss of a phase and its gradients, eagerly or from one compiled graph.

    Called with the index of a batch, a step leaves the gradients in ``.grad`` of the phase's
    parameters, and of no other, and returns the loss, detached. The batch is made in the step, so
    that it is compiled too, or given, where several phases or particles look at the same one. Of a
    phase with several particles one evaluation is compiled, and called for each. ``kl_scale``
    multiplies the log-probabilities of the latent sites. While ``eager`` is set a compiled step
    runs eagerly, which sets the Python values, ``leaves``, that its graph does not. Both ways draw
    from torch's generators, on a CPU the same numbers.
    Run inside ``pair.active()`` and ``WholeBatch()``, in several processes after
    :meth:`rehearse`: each computes its rows of the batch, and all get the whole one's loss and
    gradients.

    Arguments:
        pair: An inspected pair.
        phase: The loss, and what it trains.
        data: What the index points into.
        group: The processes that share the batch.
    """

    pair: Pair
    phase: Phase
    data: Batches
    group: Alone = field(default_factory=Alone)
    eager: bool = field(default=False, init=False)
    parameters: dict[str, Tensor] = field(init=False)
    _kl_scale: float = field(default=1.0, init=False)
    _scale: Tensor = field(init=False)
    leaves: tuple[str, ...] = field(default=(), init=False)
    waits: str | None = field(default=None, init=False)
    r"""What in a compiled step the host waits for, see :class:`~.engine.capture.Captured`."""
    _compiled: Callable[..., list[Tensor]] | None = field(default=None, init=False)
    _size: int = field(default=0, init=False)
    _made: int = field(default=0, init=False)
    _draws: Draws | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        description = self.pair.description
        assert description is not None, "inspect the pair first"
        self.latent = description.kl_sites()
        self.parameters = dict(self.phase.parameters)
        # One tensor, filled anew where the weight changes, so that a CUDA graph reads it.
        self._scale = torch.ones((), device=self.data.device)

    @property
    def python(self) -> PythonState:
        r"""The Python values that the loss may follow."""
        return self.pair.python.beside(self.phase.loss)

    @property
    def kl_scale(self) -> float:
        return self._kl_scale

    @kl_scale.setter
    def kl_scale(self, value: float) -> None:
        if value != self._kl_scale:
            self._kl_scale = value
            self._scale.fill_(value)

    def rehearse(self) -> None:
        r"""Learn what of a step several processes share; alone, nothing.

        Leaves everything as it was, gradients apart.

        Raises:
            UsageError: The pair's random numbers cannot be shared.
        """
        if self.group.size == 1:
            return

        device = self.data.device
        tensors = list(self.pair.tensors().values())
        before = [tensor.detach().clone() for tensor in tensors]
        with untouched(self.python, [device]):
            index = torch.arange(3, device=device) % len(self.data)
            few = self.data.take(index)
            self._forget_gradients()
            self._draws = Draws(lambda x: self._evaluate(x, index[: len(x)]), few, self.pair.name)
            moved = [
                not torch.equal(tensor, was) for tensor, was in zip(tensors, before, strict=True)
            ]
        self._reached = [p for p in self.parameters.values() if p.grad is not None]
        self._averages = [
            t for t, m in zip(tensors, moved, strict=True) if m and t.is_floating_point()
        ]
        with torch.no_grad():
            for tensor, was in zip(tensors, before, strict=True):
                tensor.copy_(was)

    @property
    def compiled(self) -> bool:
        r"""Whether batches of some length have a compiled step."""
        return self._compiled is not None

    def compile(self, index: Tensor, x: Data | None = None) -> None:
        r"""Capture and compile the step for batches of the length of `index`.

        Others still run eagerly, as the last batch of an epoch does if it is smaller.

        Arguments:
            index: The positions of some batch's data, ``(B,)``.
            x: That batch, if the step is to be called with it.

        Raises:
            NotCapturable: The step has to run eagerly, and why.
        """
        if self.phase.eager is not None:
            raise NotCapturable(self.phase.eager)
        if self._draws is not None and self._draws.own:
            raise NotCapturable(f"{self._draws.own[0]} draws from a stream of each process's own")
        self.group.together(lambda: self._compile(index, x), NotCapturable)
        self._size = len(index)

    def forget(self) -> None:
        r"""Run eagerly again."""
        self._compiled = None

    def _compile(self, index: Tensor, x: Data | None) -> None:
        used: dict[str, Tensor] = {}
        given = self._given(x)

        def step(index: Tensor, kl_scale: Tensor, *tensors: Tensor) -> list[Tensor]:
            batch = unflatten(tensors, given)
            with self._rows(index, *batch) as rows, ScaleSites(kl_scale, self.latent):
                loss = self._loss(*rows)
            values = list(self.parameters.values())
            gradients = torch.autograd.grad(loss, values, allow_unused=True)
            reached = dict(zip(self.parameters, gradients, strict=True))
            used.update({k: v for k, v in self.parameters.items() if reached[k] is not None})
            made = [] if given else flatten(rows[:1])
            self._made = len(made)
            return [loss.detach(), *made, *(g for g in gradients if g is not None)]

        index = index.to(self.data.device)
        tensors = flatten(given)
        example = (index, self._scale, *tensors)
        captured = capture(
            step,
            example,
            (index.flip(0).roll(1) // 2, self._scale / 2, *(value.flip(0) for value in tensors)),
            [*self.pair.tensors().values()],
            self.python,
        )
        self.leaves, self.waits = captured.leaves, captured.waits
        self._compiled = compile_captured(captured, example, same_draws=shares_memory(index))
        self._used = list(used.values())

    def __call__(self, index: Tensor, x: Data | None = None) -> Tensor:
        index = index.to(self.data.device)
        given = self._given(x)
        compiled = self._compiled is not None and len(index) == self._size and not self.eager
        evaluate = self._replay if compiled else self._eagerly
        self._forget_gradients()
        losses = [evaluate(index, *given) for _ in range(self.phase.particles)]
        loss = torch.stack(losses).sum() if len(losses) > 1 else losses[0]
        if self._draws is None:
            return loss
        self._check_reached()
        return self.group.mean(self._reached, self._averages, loss, len(index))

    def _given(self, x: Data | None) -> list[Data]:
        assert x is not None or self.phase.particles == 1, "give the batch that particles share"
        return [] if x is None else [x]

    def _replay(self, index: Tensor, *given: Data) -> Tensor:
        assert self._compiled is not None
        loss, *results = self._compiled(index, self._scale, *flatten(given))
        for parameter, gradient in zip(self._used, results[self._made :], strict=True):
            # Not in place: two gradients may be one tensor, as those of the terms of a sum.
            earlier = parameter.grad
            parameter.grad = gradient if earlier is None else earlier + gradient
        return loss

    def _eagerly(self, index: Tensor, *given: Data) -> Tensor:
        with self._rows(index, *given) as rows, ScaleSites(self.kl_scale, self.latent):
            return self._evaluate(*rows)

    def _evaluate(self, x: Data, index: Tensor) -> Tensor:
        r"""One particle's part of the loss, whose gradient is added to the parameters'."""
        loss = self._loss(x, index)
        if loss.requires_grad:
            loss.backward(inputs=list(self.parameters.values()))
        return loss.detach()

    def _loss(self, x: Data, index: Tensor) -> Tensor:
        # Rows of the guide's own tables are taken here, whoever made the batch: gradients reach
        # them through it.
        rows = {n: t.values.index_select(0, index) for n, t in self.pair.tables.items()}
        return self.phase.loss(joined(x, rows), index) / self.phase.particles

    def _forget_gradients(self) -> None:
        r"""Also those that another phase may have left."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @contextmanager
    def _rows(self, index: Tensor, *given: Data) -> Iterator[tuple[Data, Tensor]]:
        r"""This process's rows of the batch; inside, random draws are its share of the batch's."""
        x = given[0] if given else self.data.take(index)
        if self._draws is None:
            yield x, index
            return
        rows = self.group.rows(len(x))
        with self._draws.of(len(x), rows, self.group.rank):
            yield x[rows], index[rows]

    def _check_reached(self) -> None:
        reached = {id(parameter) for parameter in self._reached}
        for name, parameter in self.parameters.items():
            if parameter.grad is not None and id(parameter) not in reached:
                raise UsageError(
                    f"parameter {name!r} of {self.pair.name} gets a gradient from some batches "
                    "only, which several processes cannot share; train it in one process"
                )
