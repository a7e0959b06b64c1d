r"""Families of distributions over :math:`\mathbb{R}^d`, a member of its own for each of n data.

A family is a function from parameters, tensors whose first dimension is that of the data, to a
distribution of batch shape ``(n,)`` and event shape ``(d,)``, from which k draws of each are taken
together, ``(k, n, d)``. The data share nothing, so one gradient of a sum over data is that of
every datum.
"""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineCoupling, Permute
from torch import Tensor
from torch.distributions import Transform, constraints

Family = Callable[..., Any]


def normal(loc: Tensor, log_scale: Tensor) -> Any:
    r"""The normal distribution with a diagonal covariance; ``(n, d)`` each."""
    return dist.Normal(loc, log_scale.exp(), validate_args=False).to_event(1)


class Flow:
    r"""A normal distribution of any covariance, then layers that bend it.

    .. math::
        z = (f_2 \circ f_1)^{layers}(\mu + (\mathrm{diag}\, \sigma + T) u), \qquad
        u \sim \mathcal{N}(0, I), \quad T \text{ strictly lower triangular},

    where :math:`f_1` shifts and scales one half of the coordinates by a net of the other half
    (RealNVP's affine coupling; one hidden layer, tanh) and :math:`f_2` the other way round. Without
    layers, and in one dimension, where there are no halves, the family is that of all normals.

    References:
        Density Estimation Using Real NVP (Dinh, Sohl-Dickstein and Bengio, 2017)
        https://arxiv.org/abs/1605.08803

    Arguments:
        layers: How many; 0 leaves the normal distribution.
        hidden: Units of each net.
    """

    def __init__(self, layers: int = 2, hidden: int = 32) -> None:
        self.layers, self.hidden = layers, hidden

    def start(self, loc: Tensor, log_scale: Tensor) -> list[Tensor]:
        r"""Parameters of the members that equal those of :func:`normal`."""
        n, d = loc.shape
        parameters = [loc, log_scale, loc.new_zeros(n, d, d)]
        inputs, outputs = d // 2, 2 * (d - d // 2)
        for _ in range(2 * self.layers if d > 1 else 0):
            parameters += [
                torch.randn_like(loc.new_empty(n, inputs, self.hidden)) / inputs**0.5,
                loc.new_zeros(n, 1, self.hidden),
                loc.new_zeros(n, self.hidden, outputs),
                loc.new_zeros(n, 1, outputs),
            ]
        return parameters

    def __call__(self, loc: Tensor, log_scale: Tensor, lower: Tensor, *nets: Tensor) -> Any:
        r"""The members: of `lower` what is below the diagonal is T; four tensors for each net."""
        d = loc.shape[-1]
        base = dist.Normal(torch.zeros_like(loc), 1.0, validate_args=False).to_event(1)
        layers: list[Any] = [_Affine(loc, log_scale, lower)]
        turn = torch.arange(d - 1, -1, -1, device=loc.device)
        for i in range(0, len(nets), 4):
            layers += [AffineCoupling(d // 2, _net(*nets[i : i + 4])), Permute(turn)]
        return dist.TransformedDistribution(base, layers, validate_args=False)


class _Affine(Transform):
    r""":math:`\mu + (\mathrm{diag}\, \sigma + T) u`, another for each datum."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, loc: Tensor, log_scale: Tensor, lower: Tensor) -> None:
        super().__init__(cache_size=1)
        self.loc, self.log_scale = loc, log_scale
        eye = torch.eye(loc.shape[-1], dtype=loc.dtype, device=loc.device)
        self.transposed = lower.tril(-1).mT + eye * log_scale.exp().unsqueeze(-1)

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + (x.transpose(0, 1) @ self.transposed).transpose(0, 1)

    def _inverse(self, y: Tensor) -> Tensor:
        rows = (y - self.loc).transpose(0, 1)
        x = torch.linalg.solve_triangular(self.transposed, rows, upper=True, left=False)
        return x.transpose(0, 1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.log_scale.sum(-1).expand(x.shape[:-1])


def _net(w: Tensor, b: Tensor, v: Tensor, c: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    r"""A net of its own for each datum, from ``(k, n, inputs)`` to a shift and a log-scale."""

    def apply(x: Tensor) -> tuple[Tensor, ...]:
        hidden = torch.baddbmm(b, x.transpose(0, 1), w).tanh()
        return torch.baddbmm(c, hidden, v).transpose(0, 1).chunk(2, -1)

    return apply
