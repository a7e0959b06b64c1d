r"""Random draws of a batch shared among processes: those of the whole batch, each its own rows.

Every process keeps the same state of torch's generators. A draw that belongs to the data (the noise
of a code, a dropout mask) is made for the whole batch by each process, which keeps its rows; a draw
of anything else (a weight) is made by all alike. So the numbers are those of one process. Which
draws belong to the data shows on batches of two lengths: their shapes grow with the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_aevb.data.batch import Data
from pyro_aevb.engine.streams import seeded
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.state.python import drawn_by, torch_states

_BY_TENSOR = {
    *("normal_", "uniform_", "random_", "exponential_", "cauchy_", "log_normal_", "geometric_"),
    *("bernoulli_", "bernoulli.p", "rand_like", "randn_like", "randint_like", "native_dropout"),
}
r"""Operations that draw independent numbers, as many as their first argument has."""
_BY_SIZE = {"rand", "randn", "randint", "normal"}
r"""Operations that draw independent numbers, as many as a list of sizes says."""


@dataclass(frozen=True)
class _Draw:
    r"""One draw of a step: of the data in dimension `dim`, `times` for each; -1 is of all alike."""

    operation: str
    dim: int = -1
    times: int = 0
    own: bool = False
    r"""Whether it is the data's, but not number by number: each process has its own stream."""


class Draws:
    r"""The draws that a function of a batch makes, and how processes share them.

    A draw of shape ``(..., m * B, ...)``, where B is the length of the batch, is taken as
    ``(..., m, B, ...)``. Draws whose shape grows in another way, or that depend on one another or
    on a tensor (Gamma, Poisson, categorical), each process makes from a stream of its own: right in
    distribution, but other numbers than those of one process.

    Arguments:
        function: Called with a batch; draws what a step draws.
        x: Three data, on the device where the draws are made.
        name: The name of the pair that the function runs, for messages.

    Raises:
        UsageError: Another generator than torch's, or an order of draws that changes.
    """

    def __init__(self, function: Callable[[Any], Any], x: Data, name: str) -> None:
        self.name, self.device = name, x.device
        function(x[:2])  # what only a first call does, such as counting plates
        few, more = _Recorder(x.device), _Recorder(x.device)

        def record() -> None:
            with few:
                function(x[:2])
            with more:
                function(x)

        _, drawn = drawn_by(record)
        if drawn is not None:
            raise UsageError(
                f"{name} draws from {drawn}, which several processes cannot share: draw with "
                "torch, or train it in one process"
            )
        if few.operations != more.operations:
            raise self.changing()
        self.draws = list(map(_draw, few.operations, few.shapes, more.shapes))
        self.own = [draw.operation for draw in self.draws if draw.own]

    def of(self, batch: int, rows: slice, process: int) -> "_Rows":
        r"""Inside this a function of some rows of a batch draws their share.

        Arguments:
            batch: The length of the whole batch.
            rows: The contiguous rows.
            process: The number of the process, from 0.
        """
        return _Rows(self, batch, rows, process)

    def changing(self) -> UsageError:
        r"""What is said where two batches draw in different orders."""
        return UsageError(
            f"{self.name} draws random numbers in an order that changes from batch to batch, so "
            "several processes cannot share them; train it in one process"
        )


class _Recorder(TorchDispatchMode):
    r"""The operations that may draw, each with the shape of its result if a generator has moved."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.operations: list[str] = []
        self.shapes: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        before = torch_states(self.device)
        result = func(*args, **kwargs)
        moved = kwargs.get("generator") is not None or torch_states(self.device) != before
        first = result if isinstance(result, Tensor) else result[0]
        self.operations.append(str(func))
        self.shapes.append(tuple(first.shape) if moved else None)
        return result


class _Rows(TorchDispatchMode):
    r"""Draws for the whole batch where the rows of a few data are asked for, and keeps those."""

    def __init__(self, plan: Draws, batch: int, rows: slice, process: int) -> None:
        super().__init__()
        self.plan, self.batch, self.rows, self.process = plan, batch, rows, process
        self.left = iter(plan.draws)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        if kind is None and next(self.left, None) is not None:
            raise self.plan.changing()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        draw = next(self.left, None)
        if draw is None or draw.operation != str(func):
            raise self.plan.changing()
        if draw.own:
            return self._from_own_stream(func, args, kwargs)
        if draw.dim < 0:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name in _BY_SIZE:
            place = next(i for i, value in enumerate(args) if isinstance(value, (list, tuple)))
            sizes = self._whole(draw, args[place])
            return self._kept(draw, func(*args[:place], sizes, *args[place + 1 :], **kwargs))
        local, *rest = args
        whole = local.new_empty(self._whole(draw, local.shape))
        if name == "native_dropout":
            kept, mask = func(torch.ones_like(whole), *rest, **kwargs)
            return local * self._kept(draw, kept), self._kept(draw, mask)
        drawn = self._kept(draw, func(whole, *rest, **kwargs))
        return local.copy_(drawn) if name.endswith("_") else drawn

    def _whole(self, draw: _Draw, shape: Any) -> list[int]:
        sizes = list(shape)
        if sizes[draw.dim] != draw.times * (self.rows.stop - self.rows.start):
            raise self.plan.changing()
        sizes[draw.dim] = draw.times * self.batch
        return sizes

    def _kept(self, draw: _Draw, whole: Tensor) -> Tensor:
        start, count = self.rows.start, self.rows.stop - self.rows.start
        if draw.times == 1:
            return whole.narrow(draw.dim, start, count).contiguous()
        parts = whole.unflatten(draw.dim, (draw.times, self.batch))
        return parts.narrow(draw.dim + 1, start, count).flatten(draw.dim, draw.dim + 1)

    def _from_own_stream(self, func: Any, args: Any, kwargs: Any) -> Any:
        if kwargs.get("generator") is not None:
            raise UsageError(
                f"{self.plan.name} draws by {func} from a generator of its own, which several "
                "processes cannot share; use torch's, or train it in one process"
            )
        # One draw from the common stream, so that all processes stay in step.
        key = (int(torch.randint(1 << 62, (), device="cpu")), self.process)
        with seeded(self.plan.device, *key):
            return func(*args, **kwargs)


def _draw(operation: str, shape: Any, longer: Any) -> _Draw:
    if shape == longer:
        return _Draw(operation)
    name, overload = operation.split(".")[1:3]
    grown = []
    if shape and longer and len(shape) == len(longer):
        grown = [d for d, (a, b) in enumerate(zip(shape, longer, strict=True)) if a != b]
    # Overloads whose parameters are tensors depend on the data.
    known = not {name, f"{name}.{overload}"}.isdisjoint(_BY_TENSOR | _BY_SIZE)
    if len(grown) == 1 and known and "Tensor" not in overload:
        times, rest = divmod(shape[grown[0]], 2)
        if not rest and longer[grown[0]] == 3 * times:
            return _Draw(operation, grown[0], times)
    return _Draw(operation, own=True)
