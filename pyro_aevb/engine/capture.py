r"""From a function that runs effect handlers to the graph of the tensor operations they end in.

Running a pair's handlers takes longer than the arithmetic of a small net, and the structure of a
step does not change. So the function is run once on proxies, and what remains is a flat graph,
random draws and gradients included, which :mod:`~pyro_aevb.engine.inductor` compiles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

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
) -> Captured:
    r"""Trace a function, and check that the trace does what the function does.

    The check is on other arguments, from the same state of the random generators: a branch that
    depends on the data, or a number that a Python counter changes from call to call, shows there.
    The generators and `state` are left as they were.

    Valid for functions whose sequence of tensor operations depends on nothing but the shapes of
    the arguments.

    Arguments:
        function: Takes tensors and returns a list of tensors.
        example: Arguments to trace it with.
        other: Different arguments of the same shapes.
        state: Tensors that the function may change in place, such as running averages.

    Raises:
        NotCapturable: The function reads a value back from a tensor, or the trace computes
            something else.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    devices = {x.device for x in (*example, *state) if x.is_cuda}
    before = [tensor.detach().clone() for tensor in state]

    def restore() -> None:
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)

    with torch.random.fork_rng(list(devices)):
        try:
            graph = make_fx(function)(*example)
        except Exception as error:  # whatever the user's code does that cannot be traced
            raise NotCapturable(_reason(error)) from error
        finally:
            restore()
        captured = _lift(graph)
        results = []
        for run in (function, captured):
            torch.manual_seed(0)
            try:
                results.append(run(*other))
            except Exception as error:  # on other data the code, or its trace, may fail
                raise NotCapturable(_reason(error)) from error
            finally:
                restore()
    for eager, replayed in zip(*results, strict=True):
        if not torch.allclose(eager, replayed, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise NotCapturable("what it computes changes from call to call, or with the data")
    return captured


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
