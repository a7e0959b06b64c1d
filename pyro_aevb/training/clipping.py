r"""Gradients of bounded norm."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def clip(parameters: Iterable[Tensor], norm: float) -> None:
    r"""Scale gradients down to a norm of all of them together, if theirs is larger.

    .. math:: g \leftarrow g \, \min(1, c / (\|g\| + 10^{-6})),
        \qquad \|g\|^2 = \sum_i \|g_i\|^2

    as :func:`torch.nn.utils.clip_grad_norm_`, but not in place: the gradients of two parameters may
    be one tensor. No value is read back from a GPU.

    Arguments:
        parameters: Tensors with ``.grad``, or without.
        norm: c.

    References:
        | On the difficulty of training recurrent neural networks (Pascanu et al., 2013)
        | https://arxiv.org/abs/1211.5063
    """
    reached = [p for p in parameters if p.grad is not None]
    if not reached:
        return
    norms = [torch.linalg.vector_norm(p.grad) for p in reached]
    whole = torch.linalg.vector_norm(torch.stack([each.to(norms[0]) for each in norms]))
    factor = (norm / (whole + 1e-6)).clamp(max=1.0)
    for parameter in reached:
        assert parameter.grad is not None
        parameter.grad = parameter.grad * factor.to(parameter.grad)
