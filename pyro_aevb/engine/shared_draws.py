r"""Random draws of a batch shared among processes: those of the whole batch, each its own rows.

Every process keeps the same state of torch's generators. A draw that belongs to the data (the noise
of a code, of a particle, a dropout mask) is made for the whole batch by each process, which keeps
its rows; a draw of anything else (a weight) is made by all alike. So the numbers are those
of one process, whatever the number of processes.

Which draws belong to the data is seen from outside: run on batches of two lengths, their shapes
grow with the batch. Nothing is looked up in the pair's code.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_aevb.data.batch import Data
from pyro_aevb.errors import UsageError

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
    ``(..., m, B, ...)``, as where a batch is repeated m times. Draws whose shape grows with the
    batch in another way, or whose numbers depend on one another or on a tensor (Gamma, Poisson,
    categorical), are made by each process from a stream of its own, seeded from the common one:
    right in distribution, but other numbers than those of one process.

    Arguments:
        function: Called with a batch; draws what a step draws.
        x: Three data, on the device where the draws are made.
        name: The name of the pair that the function runs, for messages.

    Raises:
        UsageError: Another generator than torch's, or an order of draws that changes.
    """

    def __init__(self, function: Callable[[Any], Any], x: Data, name: str) -> None:
        self.name = name
        self.devices = [x.device] if x.is_cuda else []
        function(x[:2])  # what only a first call does, such as counting plates
        outside = _other_generators()
        few, more = (self._recorded(function, batch) for batch in (x[:2], x))
        if _other_generators() != outside:
            raise UsageError(
                f"{name} draws from NumPy's or Python's generator, whose numbers several "
                "processes cannot share: draw with torch, or train it in one process"
            )
        if [operation for operation, _ in few] != [operation for operation, _ in more]:
            raise self._changing()
        self.draws = [
            _draw(operation, shape, longer)
            for (operation, shape), (_, longer) in zip(few, more, strict=True)
        ]
        self.own = [draw.operation for draw in self.draws if draw.own]

    def of(self, batch: int, rows: slice, process: int) -> "_Rows":
        r"""Inside this a function of some rows of a batch draws their share.

        Arguments:
            batch: The length of the whole batch.
            rows: The rows, contiguous.
            process: The number of the process.
        """
        return _Rows(self, batch, rows, process)

    def _recorded(self, function: Callable[[Any], Any], x: Data) -> list[tuple[str, Any]]:
        with _Recorder(self.devices) as recorder:
            function(x)
        return recorder.draws

    def _changing(self) -> UsageError:
        return UsageError(
            f"{self.name} draws random numbers in an order that changes from batch to batch, so "
            "several processes cannot share them; train it in one process"
        )


class _Recorder(TorchDispatchMode):
    r"""The operations that may draw, each with the shape of its result if a generator has moved."""

    def __init__(self, devices: list[torch.device]) -> None:
        super().__init__()
        self.devices = devices
        self.draws: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        before = self._states()
        result = func(*args, **kwargs)
        moved = kwargs.get("generator") is not None or self._states() != before
        first = result if isinstance(result, Tensor) else result[0]
        self.draws.append((str(func), tuple(first.shape) if moved else None))
        return result

    def _states(self) -> list[bytes]:
        cuda = [torch.cuda.get_rng_state(device) for device in self.devices]
        states = [torch.get_rng_state(), *cuda]
        return [state.numpy().tobytes() for state in states]


class _Rows(TorchDispatchMode):
    r"""Draws for the whole batch where the rows of a few data are asked for, and keeps those."""

    def __init__(self, plan: Draws, batch: int, rows: slice, process: int) -> None:
        super().__init__()
        self.plan, self.batch, self.rows, self.process = plan, batch, rows, process
        self.done = 0

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        if kind is None and self.done != len(self.plan.draws):
            raise self.plan._changing()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        draws, self.done = self.plan.draws, self.done + 1
        if self.done > len(draws) or draws[self.done - 1].operation != str(func):
            raise self.plan._changing()
        draw = draws[self.done - 1]
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
            raise self.plan._changing()
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
        with torch.random.fork_rng(self.plan.devices):
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
            return func(*args, **kwargs)


def _draw(operation: str, shape: Any, longer: Any) -> _Draw:
    if shape == longer:
        return _Draw(operation)
    name, overload = operation.split(".")[1:3]
    grown = []
    if shape and longer and len(shape) == len(longer):
        grown = [d for d, (a, b) in enumerate(zip(shape, longer, strict=True)) if a != b]
    # Overloads whose parameters are tensors depend on the data.
    independent = {name, f"{name}.{overload}"} & (_BY_TENSOR | _BY_SIZE) and (
        "Tensor" not in overload
    )
    if len(grown) == 1 and independent:
        times, rest = divmod(shape[grown[0]], 2)
        if not rest and longer[grown[0]] == 3 * times:
            return _Draw(operation, grown[0], times)
    return _Draw(operation, own=True)


def _other_generators() -> Any:
    state: Any = np.random.get_state(legacy=True)
    return state[1].tobytes(), state[2:], random.getstate()
