r"""From a function that runs effect handlers to the graph of the tensor operations they end in.

Running a pair's handlers takes longer than the arithmetic of a small net. So the function is run
once on proxies, and what remains is a flat graph, random draws and gradients included, which
:mod:`~pyro_aevb.engine.inductor` compiles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_aevb.errors import one_line
from pyro_aevb.pairs.state.python import PythonState, Reading, changed, drawn_by, rebound, untouched

T = TypeVar("T")
Function = Callable[..., list[Tensor]]


class NotCapturable(Exception):
    r"""Why a function has to run eagerly, in one line."""


@dataclass(frozen=True)
class Captured:
    r"""A graph that takes `arguments + lifted` and returns a list of tensors.

    `lifted` are the tensors that the function reached by itself, such as parameters. They are the
    live ones: what an optimizer does to them in place is seen by the next call.
    """

    graph: GraphModule
    lifted: tuple[Tensor, ...]
    leaves: tuple[str, ...] = ()
    r"""Python values that the function sets and does not follow; the graph does not set them."""

    @property
    def waits(self) -> str | None:
        r"""The first operation at which the host has to wait for a device; None if there is none.

        It is one whose result's size depends on the data, as those of ``nonzero`` and of a boolean
        mask do, or one that copies to the host. A CUDA graph cannot hold it.
        """
        nodes = [node for node in self.graph.graph.nodes if node.op == "call_function"]
        return next((said for node in nodes if (said := _waiting(node)) is not None), None)

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
    depends on the data shows there. A second trace is to be the same graph with the same numbers
    in it, so that what changes from call to call shows too. A Python value that a call changes,
    such as a counter that an annealing follows, would stay what it was at the capture, so `python`
    is compared before and after a call. The generators, `state` and `python` are left as they were.

    Valid for functions whose sequence of tensor operations depends on nothing but the shapes of
    the arguments. Function and graph may differ by rounding.

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

    python = python or PythonState()
    devices = {x.device for x in (*example, *state)}
    before = [tensor.detach().clone() for tensor in state]
    with untouched(python, devices) as kept:
        for name, value in kept.items():
            if value.kind == "iterator":  # a look at how far it is would move it
                raise NotCapturable(f"it holds {name!r}, an iterator")
        held = {name: [*value.tensors()] for name, value in kept.items()}
        held["a parameter or buffer"] = list(state)
        places = {name: [*map(_place, tensors)] for name, tensors in held.items()}

        def attempt(work: Callable[[], T]) -> T:
            try:
                return work()
            except (NotCapturable, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever the user's code does, or the trace on other data
                raise NotCapturable(_reason(error)) from error
            finally:
                python.put(kept)
                with torch.no_grad():
                    for tensor, value in zip(state, before, strict=True):
                        tensor.copy_(value)

        def trace(arguments: Sequence[Tensor]) -> tuple[Captured, Reading]:
            return _lift(make_fx(function)(*arguments)), python.read()

        def run(function: Function) -> list[Tensor]:
            torch.manual_seed(0)
            return function(*other)

        captured, traced = attempt(lambda: trace(example))
        for name, tensors in held.items():
            if [*map(_place, tensors)] != places[name]:
                raise NotCapturable(f"it gives {name!r} other data by .data, for .copy_()")
        read = set(map(id, captured.lifted))
        for name, tensor in rebound(kept, traced).items():
            if id(tensor) in read:
                raise NotCapturable(f"it binds {name!r} to another tensor from call to call")
        eager, leaves = attempt(lambda: _by_tensors_alone(lambda: run(function), python, kept))
        replayed = attempt(lambda: run(captured))
        again, _ = attempt(lambda: trace(other))
    if not (_alike(eager, replayed) and _same_graph(captured, again)):
        raise NotCapturable("what it computes changes from call to call, or with the data")
    return replace(captured, leaves=leaves)


def _by_tensors_alone(
    run: Callable[[], list[Tensor]], python: PythonState, before: Reading
) -> tuple[list[Tensor], tuple[str, ...]]:
    r"""What a function returns, and the names of Python values that it sets and does not follow.

    Raises:
        NotCapturable: It follows Python values that it changes, or draws other random numbers than
            torch's.
    """
    result, drawn = drawn_by(run)
    if drawn is not None:
        raise NotCapturable(f"it draws from {drawn}")
    after = python.read()
    if set_ := changed(before, after):
        again = run()
        moving = changed(after, python.read())
        if moving or not _alike(result, again):
            name = (moving or set_)[0]
            raise NotCapturable(f"it changes the Python value {name!r} from call to call")
    leaves = dict.fromkeys([*set_, *rebound(before, after), *rebound(after, before)])
    return result, tuple(leaves)


def _same_graph(one: Captured, other: Captured) -> bool:
    r"""Whether two graphs do the same with the same numbers, and with the same or equal tensors."""
    return str(one.graph.graph) == str(other.graph.graph) and all(
        a is b or (a.dtype == b.dtype and torch.equal(a, b))
        for a, b in zip(one.lifted, other.lifted, strict=True)
    )


def _place(tensor: Tensor) -> int:
    return tensor.data_ptr() if tensor.layout is torch.strided else 0


def _alike(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    r"""Whether numbers differ by rounding alone: 1e-5 of the largest of each tensor."""
    for a, b in zip(one, other, strict=True):
        largest = a.detach().abs().nan_to_num(0, 0, 0).max() if a.numel() else 0
        if not torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(largest) + 1e-30, equal_nan=True):
            return False
    return True


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


def _waiting(node: torch.fx.Node) -> str | None:
    r"""What a node does that a host has to wait for, in a few words."""
    operation = node.target
    if not isinstance(operation, torch._ops.OpOverload):
        return None
    name = operation._schema.name.removeprefix("aten::").rstrip("_")
    if name in ("index", "index_put", "_index_put_impl"):
        places = node.args[1]
        assert isinstance(places, (list, tuple))
        masks = [x for x in places if isinstance(x, torch.fx.Node) and _is_mask(x)]
        value = node.args[2].meta.get("val") if name != "index" else None  # type: ignore[union-attr]
        if not masks or (isinstance(value, Tensor) and value.numel() == len(places) == 1):
            return None  # one value at a mask is a choice for each element
        return "a boolean mask"
    if torch.Tag.dynamic_output_shape in operation.tags:
        return name
    to, source = node.kwargs.get("device"), node.args[0] if node.args else None
    if name == "_to_copy" and to is not None and isinstance(source, torch.fx.Node):
        known = source.meta.get("val")
        if isinstance(known, Tensor) and str(to) == "cpu" != known.device.type:
            return "a copy to the host"
    return None


def _is_mask(node: torch.fx.Node) -> bool:
    known = node.meta.get("val")
    return isinstance(known, Tensor) and known.dtype in (torch.bool, torch.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "_local_scalar_dense" in str(error):
        return "it reads a value back from a tensor (.item(), float(), or an `if` on one)"
    return f"{type(error).__name__}: {one_line(error)}"
