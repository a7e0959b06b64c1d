r"""Matrix products by oneDNN instead of MKL, on a CPU; with bfloat16 operands if asked.

torch's float32 ``mm`` on a CPU is MKL's, which on AMD processors with AVX-512 leaves much of what
they can do (the two floors of ``python -m benchmarks.training`` measure it); oneDNN, which torch
brings too, generates its kernels for the processor it finds. Torch reaches it for float32 only
through a semi-private operator, so this file is the only one that names it, and where it is missing
or fails the graph keeps its ``mm``.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

SMALLEST = 4_000_000
r"""Products of fewer multiplications gain nothing from oneDNN."""

torch.library.define("pyro_aevb::product", "(Tensor a, Tensor b, Tensor? bias) -> Tensor")


def _product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")
    return product


torch.library.impl("pyro_aevb::product", "CPU", _product)


@torch.library.register_fake("pyro_aevb::product")
def _(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


@functools.cache
def available() -> bool:
    r"""Whether oneDNN multiplies here, and right."""
    a, b, bias = torch.ones(2, 3), torch.ones(3, 4), torch.ones(4)
    try:
        return torch.equal(_product(a, b, bias), torch.full((2, 4), 4.0))
    except (AttributeError, RuntimeError, TypeError):
        return False


def bfloat16_units() -> bool:
    r"""Whether the processor multiplies bfloat16 numbers faster than float32."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def reduced_products() -> bool:
    r"""Whether products are to round to bfloat16: it was asked for, and makes them faster."""
    return torch.get_float32_matmul_precision() == "medium" and bfloat16_units()


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    r"""``torch.set_float32_matmul_precision`` within a block, and what it was before after it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def use_onednn(graph: GraphModule, reduced: bool) -> None:
    r"""Replace the large products of a graph on the CPU, in place.

    Arguments:
        graph: Traced with ``make_fx``.
        reduced: Round the operands and the result to bfloat16; sums are kept in float32.
    """
    if not available():
        return
    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if node.target is aten.mm.default:
            bias, (a, b) = None, node.args
        elif node.target is aten.addmm.default and not node.kwargs:
            bias, a, b = node.args
        else:
            continue
        x, w = _value(a), _value(b)
        if x.device.type != "cpu" or x.dtype != torch.float32:
            continue
        if x.shape[0] * x.shape[1] * w.shape[1] < SMALLEST or (
            bias is not None and _value(bias).shape != w.shape[1:]
        ):
            continue
        with graph.graph.inserting_before(node):
            new = _insert(graph, (a, b, bias), reduced, transposed=not x.is_contiguous())
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
    graph.recompile()


def _insert(graph: GraphModule, operands: Any, reduced: bool, transposed: bool) -> Node:
    aten, call = torch.ops.aten, graph.graph.call_function
    a, b, bias = operands
    if transposed:  # a copy costs less than a product of strided rows
        a = call(aten.clone.default, (a,), {"memory_format": torch.contiguous_format})
    if reduced:
        a, b, bias = (
            x and call(aten._to_copy.default, (x,), {"dtype": torch.bfloat16}) for x in (a, b, bias)
        )
    product = call(torch.ops.pyro_aevb.product.default, (a, b, bias))
    if reduced:
        product = call(aten._to_copy.default, (product,), {"dtype": torch.float32})
    return product


def _value(node: Any) -> Tensor:
    value: Tensor = node.meta["val"]
    return value
