r"""Cheaper operations in the place of some of a captured graph, for values alike to rounding.

**Products** on a CPU go to oneDNN instead of MKL, with bfloat16 operands if asked. MKL's float32
``mm`` leaves much of what AMD processors with AVX-512 can do (the two floors of ``python -m
benchmarks.training`` measure it); on Intel's it is the faster one, and stays. Torch reaches oneDNN
for float32 only through a semi-private operator, which this file alone names; where it is missing
or fails the graph keeps its ``mm``.

**Bernoulli.** For logits :math:`l_i` and pixels :math:`x_i`,

.. math:: \sum_i \log p(x_i) = \sum_i \bigl(x_i l_i - \max(l_i, 0)\bigr)
    - \sum_i \log(1 + e^{-|l_i|}),

and a sum of logarithms is the logarithm of a product, which is taken over groups of at most 16
factors between 1 and 2. One logarithm in place of up to 16 makes the sum about three times as
fast. An addend below :math:`2^{-24}` is lost against the 1, so that the sum of D pixels in float32
is too high by less than :math:`6 \cdot 10^{-8} D` nats, besides the rounding of any float32 sum.

**Tanh.** With :math:`e = e^{-2|h|}`,

.. math:: \tanh h = \mathrm{sign}(h) \, \frac{1 - e}{1 + e},

three times as fast as a vectorized ``tanh``. In float32 the error is below :math:`10^{-7}`, and
not small relative to h where h is: right for an activation, whose products are added to others.

The last two are not meant to be differentiated.
"""

import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

SMALLEST = 4_000_000
r"""Products of fewer multiplications gain nothing from oneDNN."""
LARGEST = 16
r"""Factors of a product; :math:`2^{16}` is far from overflow."""

aten = torch.ops.aten

torch.library.define("pyro_aevb::product", "(Tensor a, Tensor b, Tensor? bias) -> Tensor")


def _product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")


torch.library.impl("pyro_aevb::product", "CPU", _product)


@torch.library.register_fake("pyro_aevb::product")
def _(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


@functools.cache
def mkl_at_home() -> bool:
    r"""Whether the processor is one that MKL is made for."""
    described = Path("/proc/cpuinfo")
    said = described.read_text() if described.is_file() else platform.processor()
    return "GenuineIntel" in said


@functools.cache
def available() -> bool:
    r"""Whether oneDNN multiplies here, and right."""
    a, b, bias = torch.ones(2, 3), torch.ones(3, 4), torch.ones(4)
    try:
        return torch.equal(_product(a, b, bias), torch.full((2, 4), 4.0))
    except (AttributeError, RuntimeError, TypeError):
        return False


def reduced_products() -> bool:
    r"""Whether products are to round to bfloat16: it was asked for, and makes them faster."""
    asked = torch.get_float32_matmul_precision() == "medium"
    units = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return asked and any(getattr(torch.cpu, name, lambda: False)() for name in units)


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
    if not available() or (mkl_at_home() and not reduced):
        return
    for node in list(graph.graph.nodes):
        if node.target is aten.mm.default:
            bias, (a, b) = None, node.args
        elif node.target is aten.addmm.default and not node.kwargs:
            bias, a, b = node.args
        else:
            continue
        x, w = _value(a), _value(b)
        large = x.shape[0] * x.shape[1] * w.shape[1] >= SMALLEST
        fits = bias is None or _value(bias).shape == w.shape[1:]
        if large and fits and x.device.type == "cpu" and x.dtype == torch.float32:
            with graph.graph.inserting_before(node):
                product = _onednn_product(_caller(graph), a, b, bias, reduced)
            node.replace_all_uses_with(product)
            graph.graph.erase_node(node)
    graph.recompile()


def _onednn_product(call: Any, a: Any, b: Any, bias: Any, reduced: bool) -> Any:
    if not _value(a).is_contiguous():  # a copy costs less than a product of strided rows
        a = call(aten.clone.default, a, memory_format=torch.contiguous_format)
    if not reduced:
        return call(torch.ops.pyro_aevb.product.default, a, b, bias)
    a, b, bias = (x and call(aten._to_copy.default, x, dtype=torch.bfloat16) for x in (a, b, bias))
    product = call(torch.ops.pyro_aevb.product.default, a, b, bias)
    return call(aten._to_copy.default, product, dtype=torch.float32)


def use_cheaper(graph: GraphModule) -> None:
    r"""Rewrite every tanh, and every sum over pixels of a Bernoulli's log-probability, in place.

    Arguments:
        graph: Traced with ``make_fx``.
    """
    call = _caller(graph)
    for node in list(graph.graph.nodes):
        if node.target is aten.tanh.default and _is_float(node):
            with graph.graph.inserting_before(node):
                _replace(node, _tanh(call, node.args[0]))
    for node in list(graph.graph.nodes):
        cross_entropy = _summed_over_pixels(node)
        if cross_entropy is not None and (groups := _groups(_value(node.args[0]).shape[-1])):
            with graph.graph.inserting_before(node):
                shape = _value(node.args[0]).shape
                _replace(node, _sum_of_pixels(call, cross_entropy, shape, groups))
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _tanh(call: Any, h: Any) -> Node:
    e = call(aten.exp.default, call(aten.mul.Tensor, call(aten.abs.default, h), -2.0))
    above, below = call(aten.rsub.Scalar, e, 1.0), call(aten.add.Tensor, e, 1.0)
    return call(aten.mul.Tensor, call(aten.sign.default, h), call(aten.div.Tensor, above, below))


def _summed_over_pixels(node: Any) -> Node | None:
    r"""The cross entropy whose negative a node sums over pixels, with or without a view between."""
    if node.target is not aten.sum.dim_IntList or node.kwargs or len(node.args) != 2:
        return None
    value, dims = node.args
    if len(_value(value).shape) != 2 or dims not in ([-1], [1]):
        return None
    if value.target is aten.view.default and len(value.users) == 1:
        value = value.args[0]
    if value.target is not aten.neg.default or len(value.users) != 1:
        return None
    found = value.args[0]
    if found.target is not aten.binary_cross_entropy_with_logits.default or not _is_float(found):
        return None
    return found if [*found.args[2:], *found.kwargs.values()] == [None, None, 0] else None


def _groups(pixels: int) -> int | None:
    r"""The size of the groups: it divides the pixels, best into multiples of a vector's length."""
    sizes = [g for g in range(2, LARGEST + 1) if pixels % g == 0]
    return max(sizes, key=lambda g: (pixels // g % 16 == 0, g), default=None)


def _sum_of_pixels(call: Any, cross_entropy: Node, shape: torch.Size, groups: int) -> Node:
    rows, pixels = shape
    logits, x = (call(aten.reshape.default, v, [rows, pixels]) for v in cross_entropy.args[:2])
    positive = call(aten.clamp_min.default, logits, 0)
    linear = call(aten.sub.Tensor, call(aten.mul.Tensor, x, logits), positive)
    size = call(aten.neg.default, call(aten.abs.default, logits))
    factors = call(aten.add.Tensor, call(aten.exp.default, size), 1)
    factors = call(aten.reshape.default, factors, [rows, groups, pixels // groups])
    product = call(aten.select.int, factors, 1, 0)
    for group in range(1, groups):
        product = call(aten.mul.Tensor, product, call(aten.select.int, factors, 1, group))
    logarithms = call(aten.sum.dim_IntList, call(aten.log.default, product), [-1])
    return call(aten.sub.Tensor, call(aten.sum.dim_IntList, linear, [-1]), logarithms)


def _replace(node: Node, new: Node) -> None:
    new.meta = dict(node.meta)  # the shape, which later passes ask for
    node.replace_all_uses_with(new)


def _caller(graph: GraphModule) -> Any:
    r"""Puts an operation into a graph: called with it, its arguments and its options."""
    return lambda target, *args, **options: graph.graph.call_function(target, args, options)


def _is_float(node: Any) -> bool:
    return _value(node).dtype in (torch.float32, torch.float64)


def _value(node: Any) -> Tensor:
    r"""A tensor of the shape, the strides and the precision of a node's, without numbers."""
    return node.meta["val"]
