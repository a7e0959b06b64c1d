r"""Normal distributions over tensors of weights, by the logarithms of their scales."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import register_kl

from pyro_aevb.models.weights.priors import IsotropicNormal, OverTensors, kl_to_isotropic


class LogScaleNormal(dist.Normal):
    r"""A normal that keeps the logarithm of its scale, which it was made from.

    A step under local reparameterization then takes one exponential of each weight, and no more.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        super().__init__(loc, log_scale.exp(), validate_args=False)
        self.log_scale = log_scale
        self._variance = (2 * log_scale).exp()

    @property
    def variance(self) -> Tensor:
        return self._variance

    def log_prob(self, value: Tensor) -> Tensor:
        squares = 0.5 * ((value - self.loc) / self.scale).square()
        return -squares - self.log_scale - 0.5 * math.log(2 * math.pi)


class LowRankNormal(OverTensors):
    r"""The normal :math:`\mathcal{N}(\mu, \mathrm{diag}(e^{2 \rho}) + V V^\top)` over tensors.

    It costs no more than a few passes over its parameters, and reads no value back.

    Arguments:
        loc: :math:`\mu`, ``shape``.
        log_scale: :math:`\rho`, ``shape``.
        factor: :math:`V^\top`, ``(rank, *shape)``.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, factor: Tensor) -> None:
        self.loc, self.factor = loc, factor
        super().__init__(loc.shape, log_scale)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (2 * self.log_scale).exp() + self.factor.square().sum(0)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        own = self.noise(sample_shape)
        common = torch.randn(*sample_shape, len(self.factor), dtype=own.dtype, device=own.device)
        directions = torch.tensordot(common, self.factor, 1)
        return self.loc + self.log_scale.exp() * own + directions

    def log_prob(self, value: Tensor) -> Tensor:
        n = self.loc.numel()
        white = ((value - self.loc) * (-self.log_scale).exp()).flatten(value.dim() - self.loc.dim())
        factor, root = self._whitened()
        # The inverse of I + V V' is I - V (I + V' V)^-1 V'.
        inside = torch.linalg.solve_triangular(root, (white @ factor.T).unsqueeze(-1), upper=False)
        squares = white.square().sum(-1) - inside.square().sum((-2, -1))
        return -0.5 * squares - self._log_det(root) - 0.5 * n * math.log(2 * math.pi)

    def _whitened(self) -> tuple[Tensor, Tensor]:
        r"""V' in units of the diagonal part, ``(rank, n)``, and the root of I + V' V."""
        factor = (self.factor * (-self.log_scale).exp()).flatten(1)
        gram = torch.eye(len(factor), dtype=factor.dtype, device=factor.device) + factor @ factor.T
        return factor, torch.linalg.cholesky_ex(gram).L

    def _log_det(self, root: Tensor) -> Tensor:
        return self.log_scale.sum() + root.diagonal().log().sum()


@register_kl(LowRankNormal, IsotropicNormal)
def _kl_low_rank_isotropic(p: LowRankNormal, q: IsotropicNormal) -> Tensor:
    return kl_to_isotropic(p.mean, p.variance, p._log_det(p._whitened()[1]), q)
