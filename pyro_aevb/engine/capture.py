r"""From a function that runs effect handlers to the graph of the tensor operations they end in.

Running a pair's handlers takes longer than the arithmetic of a small net, and the structure of a
step does not change. So the function is run once on proxies, and what remains is a flat graph,
random draws and gradients included, which :mod:`~pyro_aevb.engine.inductor` compiles.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_aevb.pythonstate import Kept, PythonState, untouched

Function = Callable[..., list[Tensor]]


class NotCapturable(Exception):
    r"""Why a function has to run eagerly, in one line."""


@dataclass(frozen=True)
class Captured:
    r"""A graph that takes `arguments + lifted` and returns a list of tensors.

    `lifted` are the tensors that the function reached by itself: parameters, buffers, data. They
    are the live ones: what an optimizer does to them in place is seen by the next call.
    """

    graph: GraphModule
    lifted: tuple[Tensor, ...]

    def __call__(self, *arguments: Tensor) -> list[Tensor]:
        with torch.no_grad():
            result: list[Tensor] = self.graph(*arguments, *self.lifted)
        return result


def capture(
    function: Function,
    example: Sequence[Tensor],
    other: Sequence[Tensor],
    state: Sequence[Tensor] = (),
    python: PythonState | None = None,
) -> Captured:
    r"""Trace a function, and check that the trace does what the function does.

    The check is on other arguments, from the same state of the random generators: a branch that
    depends on the data shows there. A Python value that a call changes, such as a counter that an
    annealing follows, would stay what it was when it was captured, however little two calls that
    follow one another differ; so `python` is compared before and after a call. The generators,
    `state` and `python` are left as they were.

    Valid for functions whose sequence of tensor operations depends on nothing but the shapes of
    the arguments.

    Arguments:
        function: Takes tensors and returns a list of tensors.
        example: Arguments to trace it with.
        other: Different arguments of the same shapes.
        state: Tensors that the function may change in place, such as running averages.
        python: Values that the function may change or follow, beside tensors.

    Raises:
        NotCapturable: The function reads a value back from a tensor, changes a value of Python or
            draws from its random numbers, or the trace computes something else.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    devices = {x.device for x in (*example, *state) if x.is_cuda}
    before = [tensor.detach().clone() for tensor in state]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)

    with ExitStack() as left:
        left.enter_context(torch.random.fork_rng(list(devices)))
        if python is not None:
            left.enter_context(untouched(python))
        bound = {} if python is None else python.read()
        try:
            graph = make_fx(function)(*example)
        except Exception as error:  # whatever the user's code does that cannot be traced
            raise NotCapturable(_reason(error)) from error
        finally:
            restore()
        captured = _lift(graph)
        if python is not None:
            _check_bindings(bound, python.read(), captured.lifted)
            python.put(bound)
        results = []
        for run in (function, captured):
            torch.manual_seed(0)
            try:
                with _unchanging(python):
                    results.append(run(*other))
            except NotCapturable:
                raise
            except Exception as error:  # on other data the code, or its trace, may fail
                raise NotCapturable(_reason(error)) from error
            finally:
                restore()
    for eager, replayed in zip(*results, strict=True):
        if not torch.allclose(eager, replayed, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise NotCapturable("what it computes changes from call to call, or with the data")
    return captured


@contextmanager
def _unchanging(python: PythonState | None) -> Iterator[None]:
    r"""Refuse what changes Python values inside this, or draws random numbers there."""
    if python is None:
        yield
        return
    before, numbers, legacy = python.read(), random.getstate(), np.random.get_state()
    yield
    after = python.read()
    for name, kept in after.items():
        if kept.kind in ("plain", "generator") and not kept.same(before.get(name)):
            raise NotCapturable(f"it changes the Python value {name!r} from call to call")
    if random.getstate() != numbers:
        raise NotCapturable("it draws from Python's random module")
    if any(np.any(a != b) for a, b in zip(np.random.get_state(), legacy, strict=True)):
        raise NotCapturable("it draws from NumPy's global random numbers")


def _check_bindings(
    before: Mapping[str, Kept], after: Mapping[str, Kept], lifted: Sequence[Tensor]
) -> None:
    r"""Refuse a name that is bound to another tensor than the one that the graph reads."""
    read = set(map(id, lifted))
    for name, kept in before.items():
        moved = name in after and after[name].value is not kept.value
        if kept.kind == "tensor" and moved and id(kept.value) in read:
            raise NotCapturable(f"it binds {name!r} to another tensor from call to call")


def _lift(graph: GraphModule) -> Captured:
    r"""Make every tensor that the graph holds an argument.

    As constants they could be folded: Inductor inlines small ones, which would freeze a parameter.
    """
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    places: dict[int, torch.fx.Node] = {}
    lifted: list[Tensor] = []
    for node in list(graph.graph.nodes):
        if node.op != "get_attr":
            continue
        value = getattr(graph, str(node.target))
        if id(value) not in places:
            with graph.graph.inserting_after(last):
                last = graph.graph.placeholder(f"lifted_{len(lifted)}")
            last.meta = dict(node.meta)
            places[id(value)] = last
            lifted.append(value)
        node.replace_all_uses_with(places[id(value)])
        graph.graph.erase_node(node)
    return Captured(GraphModule({}, graph.graph), tuple(lifted))


def _reason(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "_local_scalar_dense" in str(error):
        return "it reads a value back from a tensor (.item(), float(), or an `if` on one)"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
