r"""The continuous Bernoulli: a density for values between 0 and 1, such as grey levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

NEAR = 0.1
r"""Below this half the logit, series take the place of formulas that divide by it. They are exact
to some :math:`10^{-9}`, quantiles to :math:`10^{-6}`."""


class ContinuousBernoulli(TorchDistribution):
    r"""The density on [0, 1] that is an exponential of x.

    .. math:: \log p(x) = h \, (x - \tfrac{1}{2}) - \log \frac{\sinh(h / 2)}{h / 2}

    With the logit h it is proportional to :math:`y^x (1 - y)^{1 - x}`, :math:`y = \sigma(h)`, as
    the cross-entropy of grey levels has it, and is normalized. With :math:`|h| \to \infty` its mean
    goes to 0 or 1, its standard deviation to :math:`1 / |h|`, and its density there to
    :math:`|h|`.

    ``torch.distributions.ContinuousBernoulli`` is the same up to :math:`|h| = 15.9` in 32 bits, and
    no density beyond: its normalizer is that of probabilities which are clipped at :math:`10^{-7}`.
    Here every finite logit has its own.

    Arguments:
        logits: h, of any shape, which is the batch shape.
        validate_args: Whether values outside of [0, 1] are refused.

    References:
        | The continuous Bernoulli: fixing a pervasive error in variational autoencoders
        | (Loaiza-Ganem and Cunningham, 2019), https://arxiv.org/abs/1907.06845
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(
        self, batch_shape: Sequence[int], _instance: ContinuousBernoulli | None = None
    ) -> ContinuousBernoulli:
        r"""The same distribution with a larger batch shape."""
        new: ContinuousBernoulli = self._get_checked_instance(ContinuousBernoulli, _instance)
        new.logits = self.logits.expand(batch_shape)
        super(ContinuousBernoulli, new).__init__(new.logits.shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        r"""The log-density, in nats for each component."""
        if self._validate_args:
            self._validate_sample(value)
        return self.logits * (value - 0.5) - _log_sinhc(self.logits / 2)

    @property
    def mean(self) -> Tensor:
        r""":math:`\tfrac{1}{2} + \tfrac{1}{2} (\coth t - 1 / t)` with :math:`t = h / 2`."""
        return 0.5 + 0.5 * _langevin(self.logits / 2)

    @property
    def variance(self) -> Tensor:
        r"""The derivative of the mean by the logit."""
        t = self.logits / 2
        half, near = _parted(t)
        # exp(-2 t) / (1 - exp(-2 t))^2 is 1 / (4 sinh(t)^2), and does not overflow.
        down = -2 * half.abs()
        far = 0.25 / half.square() - down.exp() / torch.expm1(down).square()
        square = near.square()
        series = 1 / 12 - square / 60 + square.square() / 378
        return torch.where(t.abs() < NEAR, series, far)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        r"""Draws that depend on the logits smoothly, by the quantile function."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        # At 0 and 1 themselves, which may be drawn, a steep density has no finite quantile.
        few = torch.finfo(u.dtype)
        return self.icdf(u.clamp(few.tiny, 1 - few.eps)).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        r"""The x below which lies a share `value` of the probability."""
        # log(1 + u (e^h - 1)) / h = u + h u (1 - u) / 2 + h^2 u (1 - u) (1 - 2 u) / 6 + ...
        h, v = self.logits, value * (1 - value)
        series = value + h * v / 2 + h.square() * v * (1 - 2 * value) / 6
        series = series + h**3 * v * (1 - 6 * v) / 24
        # For h > 0 the density is that of -h mirrored, whose exponentials do not overflow.
        near = h.abs() < 2 * NEAR
        down = -torch.where(near, torch.full_like(h, 2 * NEAR), h.abs())
        share = torch.where(h > 0, 1 - value, value)
        far = torch.log1p(share * torch.expm1(down)) / down
        return torch.where(near, series, torch.where(h > 0, 1 - far, far))


def logit_of_mean(mean: Tensor) -> Tensor:
    r"""The logits with which the distribution has these means, each above 0 and below 1.

    Solved by bisection of :math:`\tfrac{1}{2} + \tfrac{1}{2} (\coth t - 1 / t)`, :math:`t = h / 2`,
    in 64 bits; :math:`|h|` is at most ``1 / min(mean, 1 - mean)``.
    """
    wanted = mean.double()
    high = 1 / torch.minimum(wanted, 1 - wanted)
    low = -high
    for _ in range(64):
        middle = (low + high) / 2
        above = 0.5 + 0.5 * _langevin(middle / 2) > wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return middle.to(mean.dtype)


def _parted(t: Tensor) -> tuple[Tensor, Tensor]:
    r"""Values away from zero and values near it: each equal to `t` where it is of use.

    A formula that divides by zero, and is not taken, would still make the gradient NaN.
    """
    near = t.abs() < NEAR
    return torch.where(near, torch.full_like(t, NEAR), t), torch.where(near, t, torch.zeros_like(t))


def _log_sinhc(t: Tensor) -> Tensor:
    r""":math:`\log(\sinh(t) / t)`, an even function."""
    half, near = _parted(t)
    far = half.abs() + torch.log1p(-torch.exp(-2 * half.abs())) - torch.log(2 * half.abs())
    square = near.square()
    return torch.where(t.abs() < NEAR, square / 6 - square.square() / 180, far)


def _langevin(t: Tensor) -> Tensor:
    r""":math:`\coth(t) - 1 / t`, an odd function."""
    half, near = _parted(t)
    series = near / 3 - near**3 / 45 + 2 * near**5 / 945
    return torch.where(t.abs() < NEAR, series, 1 / torch.tanh(half) - 1 / half)
