r"""Cheaper logarithms and hyperbolic tangents in a captured graph that is going to be compiled.

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

Neither is meant to be differentiated.
"""

from typing import Any

import torch
from torch.fx import GraphModule, Node

LARGEST = 16
r"""Factors of a product; :math:`2^{16}` is far from overflow."""


def use_cheaper(graph: GraphModule) -> None:
    r"""Rewrite every tanh, and every sum over pixels of a Bernoulli's log-probability, in place.

    The latter are found as ``(-binary_cross_entropy_with_logits(logits, x)).sum(-1)``, with or
    without a view in between: what a ``Bernoulli(logits=...).to_event(...)`` leaves in a graph.

    Arguments:
        graph: Traced with ``make_fx``.
    """
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.tanh.default and _is_float(node):
            with graph.graph.inserting_before(node):
                _replace(node, _tanh(graph, node.args[0]))
    _group_logarithms(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _tanh(graph: GraphModule, h: Node) -> Node:
    aten, call = torch.ops.aten, graph.graph.call_function
    size = call(aten.mul.Tensor, (call(aten.abs.default, (h,)), -2.0))
    e = call(aten.exp.default, (size,))
    ratio = call(
        aten.div.Tensor, (call(aten.rsub.Scalar, (e, 1.0)), call(aten.add.Tensor, (e, 1.0)))
    )
    return call(aten.mul.Tensor, (call(aten.sign.default, (h,)), ratio))


def _group_logarithms(graph: GraphModule) -> None:
    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if node.target is not aten.sum.dim_IntList or node.kwargs or len(node.args) != 2:
            continue
        value, dims = node.args
        if value.target is aten.view.default and len(value.users) == 1:
            value = value.args[0]
        if value.target is not aten.neg.default or len(value.users) != 1:
            continue
        cross_entropy = value.args[0]
        if not _is_plain(cross_entropy):
            continue
        shape = node.args[0].meta["val"].shape
        groups = _groups(shape[-1])
        if len(shape) != 2 or dims not in ([-1], [1]) or groups is None:
            continue
        with graph.graph.inserting_before(node):
            _replace(node, _sum_of_pixels(graph, cross_entropy, shape, groups))


def _replace(node: Node, new: Node) -> None:
    new.meta = dict(node.meta)  # the shape, which later passes ask for
    node.replace_all_uses_with(new)


def _is_plain(node: Any) -> bool:
    return (
        node.target is torch.ops.aten.binary_cross_entropy_with_logits.default
        and [*node.args[2:], *node.kwargs.values()] == [None, None, 0]
        and _is_float(node)
    )


def _is_float(node: Node) -> bool:
    return node.meta["val"].dtype in (torch.float32, torch.float64)


def _groups(pixels: int) -> int | None:
    r"""The size of the groups: it divides the pixels, best into multiples of a vector's length."""
    sizes = [g for g in range(2, LARGEST + 1) if pixels % g == 0]
    return max(sizes, key=lambda g: (pixels // g % 16 == 0, g), default=None)


def _sum_of_pixels(graph: GraphModule, cross_entropy: Node, shape: Any, groups: int) -> Node:
    aten, call = torch.ops.aten, graph.graph.call_function
    rows, pixels = shape
    logits, x, *_ = cross_entropy.args
    logits = call(aten.reshape.default, (logits, [rows, pixels]))
    x = call(aten.reshape.default, (x, [rows, pixels]))
    linear = call(
        aten.sub.Tensor,
        (call(aten.mul.Tensor, (x, logits)), call(aten.clamp_min.default, (logits, 0))),
    )
    size = call(aten.neg.default, (call(aten.abs.default, (logits,)),))
    factors = call(aten.add.Tensor, (call(aten.exp.default, (size,)), 1))
    factors = call(aten.reshape.default, (factors, [rows, groups, pixels // groups]))
    product = call(aten.select.int, (factors, 1, 0))
    for group in range(1, groups):
        product = call(aten.mul.Tensor, (product, call(aten.select.int, (factors, 1, group))))
    logarithms = call(aten.sum.dim_IntList, (call(aten.log.default, (product,)), [-1]))
    return call(aten.sub.Tensor, (call(aten.sum.dim_IntList, (linear, [-1])), logarithms))
