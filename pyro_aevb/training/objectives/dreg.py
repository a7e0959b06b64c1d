r"""The importance-weighted bound with doubly reparameterized gradients."""

from typing import Any

import torch
from torch import Tensor

from pyro_aevb.training.objectives.iwae import IWAE


class DReG(IWAE):
    r"""The bound of :class:`~pyro_aevb.training.objectives.iwae.IWAE`, with less noise in its
    gradient.

    With weights :math:`w_k = p(x, z_k) / q(z_k|x)` of K particles :math:`z_k = z(\epsilon_k; \phi)`
    and :math:`\tilde w_k = w_k / \sum_j w_j`, the gradients per datum are

    .. math::
        \nabla_\theta \mathcal{L}_K = \mathrm{E}\Big[ \sum_k \tilde w_k
        \nabla_\theta \log w_k \Big], \qquad
        \nabla_\phi \mathcal{L}_K = \mathrm{E}\Big[ \sum_k \tilde w_k^2\,
        \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi} \Big].

    The first is that of IWAE, for the model and for whatever else the weights depend on by
    themselves, as on global latents. The second is for what the guide's codes are drawn from. IWAE
    has :math:`\tilde w_k\, \mathrm{d} \log w_k / \mathrm{d} \phi` there, whose signal-to-noise
    ratio falls as :math:`K^{-1/2}`; that of DReG rises as :math:`K^{1/2}`. Both are unbiased.
    With K = 1 this is the path derivative of the ELBO, which vanishes where the guide is exact.

    A factor :math:`\beta` on the KL (warm-up, beta) stands inside the weights,
    :math:`w_k = p(x|z_k) (p(z_k) / q(z_k|x))^\beta`. The score that is reparameterized has it too,
    so that :math:`(1 - \beta) \tilde w_k + \beta \tilde w_k^2` takes the place of
    :math:`\tilde w_k^2`, without bias.

    A guide that draws several codes, one from another, runs a second time, to tell the path
    through a code from the dependence on it. Valid as for IWAE; the factor on the KL must be
    the same for all codes of the guide.

    References:
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives
        (Tucker, Lawson, Gu and Maddison, 2019), https://arxiv.org/abs/1810.04152

    Arguments:
        num_particles: K.
        options: Those of ``pyro.infer.ELBO``.
    """

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        r"""Minus the estimate, differentiable; the first argument is the batch."""
        factor: list[Tensor] = []
        particles = self._particles(
            model, guide, args, kwargs, lambda code: _Late.apply(code, factor)
        )
        bound = particles.bound()
        if not torch.is_grad_enabled():
            return -bound
        weights = (particles.log_p - particles.log_q).detach().softmax(0)
        factor.append(1 + particles.kl_weight * (weights - 1))
        # Of log q the gradient passes through the code alone, not through q's own parameters.
        codes = [code for code in particles.codes if code.requires_grad]
        score = (weights * particles.log_q).sum()
        slopes: Any = [None] * len(codes)
        if codes:
            slopes = torch.autograd.grad(score, codes, retain_graph=True, allow_unused=True)
        path = [(c * s).sum() for c, s in zip(codes, slopes, strict=True) if s is not None]
        surrogate = (weights * particles.log_p).sum() - sum(path)
        surrogate = surrogate * particles.scale + particles.outside
        # The value of the bound, the gradient of the surrogate.
        return -(bound.detach() + (surrogate - surrogate.detach()))


class _Late(torch.autograd.Function):
    r"""A tensor as it is, its gradient times a factor per row that is known by the time of it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: list[Tensor]) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.factor
        return gradient * factor.reshape(-1, *[1] * (gradient.dim() - 1)), None
