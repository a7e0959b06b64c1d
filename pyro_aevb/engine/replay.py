r"""A function of tensors that is captured when it is first called with arguments of some shapes."""

import time
from collections.abc import Callable, Sequence
from enum import IntEnum

import torch
from torch import Tensor

from pyro_aevb.data.batch import Data, flatten, unflatten
from pyro_aevb.device import shares_memory
from pyro_aevb.engine.capture import Function, NotCapturable, capture
from pyro_aevb.engine.inductor import compile_captured, missing
from pyro_aevb.engine.rewrites import reduced_products, use_cheaper, use_onednn
from pyro_aevb.pairs.state.python import PythonState

COMPILING, SAVED = 6.0, 0.4
r"""About how many seconds compiling takes, and what share of the time of a graph it saves."""
MEASURED = 3
r"""Calls of a graph that are timed."""


class Way(IntEnum):
    r"""How a function is run; all give the same values to rounding, from the same draws."""

    EAGER = 0
    r"""As it is, handlers and all, at every call."""
    GRAPH = 1
    r"""Its tensor operations one by one, which saves the handlers; capturing takes 0.2 s."""
    COMPILED = 2
    r"""Its tensor operations fused by Inductor; compiling takes seconds."""


class Replay:
    r"""Call a function from its graph, one for each combination of the arguments' shapes.

    Arguments are contiguous tensors, or batches of such. Gradients are not recorded.

    Arguments:
        function: Valid for :func:`~pyro_aevb.engine.capture.capture`.
        way: How to run it. Where it cannot be captured or compiled, it runs eagerly.
        fallback: Told why it runs eagerly.
        python: The Python values of the pair that the function runs.

    On a CPU a graph is compiled after all where the first calls take so long that, of those that
    are :attr:`expected`, that pays.
    """

    expected = 0
    r"""About how many more calls there will be."""

    def __init__(
        self,
        function: Function,
        way: Way,
        fallback: Callable[[str], None],
        python: PythonState | None = None,
    ) -> None:
        self.function, self.way = function, way
        self.fallback, self.python = fallback, python
        self._graphs: dict[tuple[torch.Size, ...], Function] = {}
        self._times: list[float] = []

    def __call__(self, *arguments: Data) -> list[Tensor]:
        if self.way is Way.EAGER:
            return self.function(*arguments)
        tensors = flatten(arguments)
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self._graphs:
            try:
                self._graphs[shapes] = self._prepare(arguments, tensors)
            except NotCapturable as reason:
                self.way = Way.EAGER
                self.fallback(str(reason))
                return self.function(*arguments)
        if self.way is Way.COMPILED or self.expected < MEASURED or not shares_memory(tensors[0]):
            return self._graphs[shapes](*tensors)
        began = time.perf_counter()
        result = self._graphs[shapes](*tensors)
        self._times.append(time.perf_counter() - began)
        self.expected -= 1
        if len(self._times) == MEASURED:
            seconds = self.expected * min(self._times)
            self.expected = 0
            if SAVED * seconds > COMPILING and missing() is None:
                self.way = Way.COMPILED
                self._graphs.clear()
        return result

    def _prepare(self, like: Sequence[Data], arguments: Sequence[Tensor]) -> Function:
        def function(*tensors: Tensor) -> list[Tensor]:
            return self.function(*unflatten(tensors, like))

        other = [value.flatten().flip(0).view(value.shape) for value in arguments]
        captured = capture(function, arguments, other, python=self.python)
        # Such as a decoder that was run only to reach the prior.
        captured.graph.graph.eliminate_dead_code()
        captured.graph.recompile()
        # Uncompiled, more and smaller operations pay where each is a pass over memory.
        if self.way is Way.COMPILED or shares_memory(arguments[0].device):
            use_cheaper(captured.graph)
        if self.way is Way.GRAPH:
            use_onednn(captured.graph, reduced_products())
            return captured
        return compile_captured(captured, arguments, same_draws=True)
