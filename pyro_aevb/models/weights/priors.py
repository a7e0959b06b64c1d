r"""Priors over the weights of nets: one distribution for each tensor of weights or biases.

Each is a distribution over whole tensors, with no batch shape, so that its terms are sums from the
start: of a tensor of a hundred thousand weights nothing but what is needed is ever kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Independent, constraints, register_kl

from pyro_aevb.errors import above_zero, one_of

Kind = Literal["fan_in", "learned", "mixture"]


class WeightPrior(nn.Module):
    r"""A prior over all weights and biases of some nets, independent and centred at 0.

    - ``"fan_in"``: :math:`w \sim \mathcal{N}(0, s^2)` with :math:`s = c / \sqrt{n_{in}}`, where
      :math:`n_{in}` is the number of products that a unit sums up, and 1 for a bias. What comes
      out of a layer is then about as large as what goes in.
    - ``"learned"``: the same at the start; then every tensor has an :math:`s` of its own that is
      trained with the rest (empirical Bayes), which raises the bound and never changes that it
      is one.
    - ``"mixture"``: :math:`w \sim \pi \, \mathcal{N}(0, s^2) + (1 - \pi) \, \mathcal{N}(0,
      (r s)^2)`, a wide and a narrow normal, elementwise, with :math:`\pi = 1/2` and
      :math:`r = 1/20`.

    Arguments:
        kind: One of the names above.
        nets: The nets, by name; a tensor is called ``net.parameter`` in the following.
        scale: The factor :math:`c` above.

    Raises:
        UsageError: The name is unknown, or the scale is not positive.

    References:
        | Weight Uncertainty in Neural Networks (Blundell et al., 2015)
        | https://arxiv.org/abs/1505.05424
    """

    def __init__(self, kind: Kind, nets: Mapping[str, nn.Module], scale: float = 1.0) -> None:
        super().__init__()
        one_of("prior", kind, get_args(Kind))
        above_zero("prior_scale", scale)
        self.kind = kind
        self.shapes = {name: tensor.shape for name, tensor in tensors(nets)}
        inputs = {f"{of}.{name}": n for of, net in nets.items() for name, n in fan_in(net).items()}
        log_scale = torch.tensor([scale / math.sqrt(inputs[name]) for name in self.shapes]).log()
        if kind == "learned":
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def scales(self) -> dict[str, Tensor]:
        r"""The scale :math:`s` of each tensor."""
        return dict(zip(self.shapes, self.log_scale.exp().unbind(), strict=True))

    def forward(self) -> dict[str, dist.TorchDistribution]:
        r"""The prior of each tensor."""
        make = NormalMixture if self.kind == "mixture" else IsotropicNormal
        pairs = zip(self.shapes.items(), self.log_scale.unbind(), strict=True)
        return {name: make(shape, log_scale) for (name, shape), log_scale in pairs}


def tensors(nets: Mapping[str, nn.Module]) -> list[tuple[str, nn.Parameter]]:
    r"""All weights and biases of some nets, called ``net.parameter``."""
    return [(f"{of}.{name}", p) for of, net in nets.items() for name, p in net.named_parameters()]


def fan_in(net: nn.Module) -> dict[str, float]:
    r"""For each parameter of a net, how many products one unit of its layer sums up.

    For a transposed convolution that is the mean over the pixels of its output. 1 for biases, and
    for whatever belongs to no linear layer and no convolution.
    """
    numbers = {name: 1.0 for name, _ in net.named_parameters()}
    for prefix, layer in net.named_modules():
        name = f"{prefix}.weight".lstrip(".")
        if isinstance(layer, nn.Linear):
            numbers[name] = layer.in_features
        elif isinstance(layer, nn.modules.conv._ConvNd):
            products = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
            numbers[name] = products / (math.prod(layer.stride) if layer.transposed else 1)
    return numbers


class OverTensors(dist.TorchDistribution):
    r"""A distribution over tensors of one shape, around 0 unless it says otherwise.

    Arguments:
        shape: The event shape.
        log_scale: The logarithm of its scale :math:`s`.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real
    has_rsample = True

    def __init__(self, shape: torch.Size, log_scale: Tensor) -> None:
        self.log_scale = log_scale
        super().__init__(torch.Size(), shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.log_scale.new_zeros(self.event_shape)

    def noise(self, sample_shape: Any) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return torch.randn(shape, dtype=self.log_scale.dtype, device=self.log_scale.device)

    def _sum(self, values: Tensor) -> Tensor:
        return values.flatten(values.dim() - len(self.event_shape)).sum(-1)


class IsotropicNormal(OverTensors):
    r"""The normal :math:`\mathcal{N}(0, s^2 I)` over tensors of a shape, s a scalar."""

    @property
    def variance(self) -> Tensor:
        return (2 * self.log_scale).exp().expand(self.event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.log_scale.exp() * self.noise(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        constant = self.event_shape.numel() * (self.log_scale + 0.5 * math.log(2 * math.pi))
        return -0.5 * (-2 * self.log_scale).exp() * self._sum(value.square()) - constant


class NormalMixture(OverTensors):
    r"""Independently for each element, :math:`\pi \mathcal{N}(0, s^2) + (1 - \pi)
    \mathcal{N}(0, (r s)^2)` over tensors of a shape, s a scalar.
    """

    wide = 0.5
    r"""The mixture weight :math:`\pi` of the wide component."""
    ratio = 0.05
    r"""How much narrower the other component is, :math:`r`."""

    @property
    def variance(self) -> Tensor:
        factor = self.wide + (1 - self.wide) * self.ratio**2
        return (factor * (2 * self.log_scale).exp()).expand(self.event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = self.noise(sample_shape)
        narrow = torch.rand_like(noise) >= self.wide
        return self.log_scale.exp() * noise * torch.where(narrow, self.ratio, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        # The wide component, times 1 + (how many times more likely the narrow one is).
        squares = 0.5 * (-2 * self.log_scale).exp() * value.square()
        odds = math.log((1 - self.wide) / (self.wide * self.ratio))
        more = nn.functional.softplus(odds - (self.ratio**-2 - 1) * squares)
        constant = self.log_scale + 0.5 * math.log(2 * math.pi) - math.log(self.wide)
        return self._sum(more - squares) - self.event_shape.numel() * constant


@register_kl(Independent, IsotropicNormal)
def _kl_normal_isotropic(p: Independent, q: IsotropicNormal) -> Tensor:
    if not isinstance(p.base_dist, dist.Normal) or p.event_shape != q.event_shape:
        raise NotImplementedError
    log_scale = getattr(p.base_dist, "log_scale", None)
    log_det = (p.base_dist.scale.log() if log_scale is None else log_scale).sum()
    return kl_to_isotropic(p.mean, p.variance, log_det, q)


def kl_to_isotropic(mean: Tensor, variance: Tensor, log_det: Tensor, q: IsotropicNormal) -> Tensor:
    r"""KL of a normal over tensors from :math:`\mathcal{N}(0, s^2 I)`, a scalar.

    .. math:: \frac{1}{2 s^2} \sum_i (\sigma_i^2 + \mu_i^2) - \frac{n}{2} + n \log s
        - \frac{1}{2} \log \det \Sigma

    Arguments:
        mean: :math:`\mu`.
        variance: The diagonal :math:`\sigma_i^2` of :math:`\Sigma`.
        log_det: :math:`\frac{1}{2} \log \det \Sigma`.
        q: The other normal.
    """
    squares = 0.5 * (-2 * q.log_scale).exp() * (variance + mean.square()).sum()
    return squares + mean.numel() * (q.log_scale - 0.5) - log_det
