"""Every transform of the installed Pyro, as a flow of the guide, and of the prior."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import torch
from pyro.distributions import (
    ConditionalTransformedDistribution,
    ConditionalTransformModule,
    TransformedDistribution,
)
from torch import Tensor, nn

from .pairs import Coded, Normals, Standard, rows
from .row import Kind

CONTEXT, SIZE = 3, 2


class Flow(nn.Module):
    """Normals that are pushed through a transform, which may depend on the inputs."""

    def __init__(
        self,
        make: Callable[[int], Any],
        inputs: int,
        shape: tuple[int, ...],
        checked: bool = True,
    ) -> None:
        super().__init__()
        self.checked = checked
        # Wide, as a guide with thin tails scores badly.
        self.base, self.shape = Normals(inputs, torch.Size(shape).numel(), 0.3), shape
        made = make(inputs)
        self.parts = made if isinstance(made, list) else [made]
        self.modules_ = nn.ModuleList(m for m in self.parts if isinstance(m, nn.Module))

    def forward(self, h: Tensor) -> Any:
        base = self.base(h)
        if len(self.shape) > 1:
            base = dist.Normal(base.mean.unflatten(-1, self.shape), 0.8).to_event(len(self.shape))
        if any(isinstance(part, ConditionalTransformModule) for part in self.parts):
            return ConditionalTransformedDistribution(base, self.parts).condition(h)
        # PyTorch says that ELU gives positive numbers.
        checked = None if self.checked else False
        return TransformedDistribution(base, self.parts, validate_args=checked)


def _conditional_permute(inputs: int) -> Any:
    return transforms.conditional_generalized_channel_permute(inputs, channels=3)


IMAGE = (3, 1, 1)
"""The shape of a code of channels."""
SHAPES = dict.fromkeys(
    ("generalized_channel_permute", "conditional_generalized_channel_permute"), IMAGE
)
BY_HAND: dict[str, Callable[[int], Any]] = {
    "iterated": lambda inputs: transforms.iterated(2, transforms.planar, SIZE),
    "generalized_channel_permute": lambda inputs: transforms.generalized_channel_permute(
        channels=3
    ),
    "conditional_generalized_channel_permute": _conditional_permute,
    "AffineTransform": lambda inputs: transforms.AffineTransform(0.3, 1.5),
    "ComposeTransform": lambda inputs: transforms.ComposeTransform(
        [transforms.AffineTransform(0.3, 1.5), transforms.TanhTransform()]
    ),
    "ComposeTransformModule": lambda inputs: transforms.ComposeTransformModule(
        [transforms.Planar(SIZE), transforms.Radial(SIZE)]
    ),
    "CumulativeDistributionTransform": lambda inputs: transforms.CumulativeDistributionTransform(
        dist.Normal(0.0, 1.5)
    ),
    "DiscreteCosineTransform": lambda inputs: transforms.DiscreteCosineTransform(),
    "HaarTransform": lambda inputs: transforms.HaarTransform(),
    "LowerCholeskyAffine": lambda inputs: transforms.LowerCholeskyAffine(
        torch.zeros(2), torch.tensor([[1.0, 0.0], [0.4, 0.8]])
    ),
    "PowerTransform": lambda inputs: [
        transforms.ExpTransform(),
        transforms.PowerTransform(torch.tensor(0.7)),
    ],
    "PositivePowerTransform": lambda inputs: [transforms.PositivePowerTransform(torch.tensor(0.7))],
    "planar, radial, planar": lambda inputs: [
        transforms.planar(SIZE),
        transforms.radial(SIZE),
        transforms.planar(SIZE),
    ],
    "affine_autoregressive, batchnorm": lambda inputs: [
        transforms.affine_autoregressive(SIZE, [8]),
        transforms.batchnorm(SIZE),
        transforms.affine_autoregressive(SIZE, [8]),
    ],
}
"""Transforms that take more than their dimensions."""
WITHOUT = {
    "CatTransform": "joins others",
    "StackTransform": "joins others",
    "IndependentTransform": "joins others",
    "ReshapeTransform": "no change of the numbers",
    "Transform": "a base class",
    "CorrCholeskyTransform": "of other shapes",
    "CorrLCholeskyTransform": "of other shapes",
    "CorrMatrixCholeskyTransform": "of other shapes",
    "CholeskyTransform": "of other shapes",
    "LowerCholeskyTransform": "of other shapes",
    "PositiveDefiniteTransform": "of other shapes",
    "SoftplusLowerCholeskyTransform": "of other shapes",
    "AbsTransform": "not one to one",
    "Normalize": "not one to one",
    "SoftmaxTransform": "not one to one",
    "SimplexToOrderedTransform": "of a simplex",
    "identity_transform": "a function of values",
}


def makers() -> dict[str, Callable[[int], Any]]:
    """By name, what makes each transform from the number of the guide's inputs."""
    found: dict[str, Callable[[int], Any]] = dict(BY_HAND)
    for name in transforms.__all__:
        made = getattr(transforms, name)
        if name in found or name in WITHOUT:
            continue
        if inspect.isclass(made):
            # Of a transform with parameters there is a function that makes it.
            if issubclass(made, (dist.TransformModule, dist.ConditionalTransform)) or (
                name in ("Permute", "Householder")
            ):
                continue
            found[name] = lambda inputs, made=made: made()
        else:
            found[name] = partial(_made, made)
    return found


def _made(make: Callable[..., Any], inputs: int) -> Any:
    takes = inspect.signature(make).parameters
    given: dict[str, Any] = {"input_dim": SIZE, "context_dim": inputs, "hidden_dims": [8]}
    return make(**{name: value for name, value in given.items() if name in takes})


def support(make: Callable[[int], Any]) -> Any:
    made = make(CONTEXT)
    last = (made if isinstance(made, list) else [made])[-1]
    return last.codomain


def _real(name: str, make: Callable[[int], Any]) -> bool:
    codomain = support(make)
    codomain = getattr(codomain, "base_constraint", codomain)
    return codomain is torch.distributions.constraints.real or "onditional" in name


def _guided(name: str, make: Callable[[int], Any]) -> Coded:
    shape = SHAPES.get(name, (SIZE,))
    width = _width(make, shape)
    if name == "elu":
        return Coded(Standard(), Flow(make, 3, shape, checked=False), Normals(width))
    if not _real(name, make):  # the prior has to lie where the guide does
        return Coded(Flow(make, 1, shape), Flow(make, 3, shape), Normals(width))
    prior: Any = Standard(width) if len(shape) == 1 else _Image()
    return Coded(prior, Flow(make, 3, shape), Normals(width))


def _width(make: Callable[[int], Any], shape: tuple[int, ...]) -> int:
    made = make(CONTEXT)
    size = torch.Size(shape)
    for part in made if isinstance(made, list) else [made]:
        if isinstance(part, torch.distributions.Transform):
            size = part.forward_shape(size)
    return size.numel()


class _Image(nn.Module):
    def forward(self, h: Tensor) -> Any:
        return dist.Normal(h.new_zeros(*h.shape[:-1], *IMAGE), 1.0).to_event(3)


class _ImageGuide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 3)

    def forward(self, h: Tensor) -> Any:
        return dist.Normal(self.net(h).unflatten(-1, IMAGE), 0.8).to_event(3)


def _prior(name: str, make: Callable[[int], Any]) -> Coded:
    shape = SHAPES.get(name, (SIZE,))
    width = _width(make, shape)
    guide: Any = Normals(3, width, 0.3) if len(shape) == 1 else _ImageGuide()
    return Coded(Flow(make, 1, shape), guide, Normals(width))


NO_INVERSE = dict.fromkeys(
    (
        *("ComposeTransformModule", "block_autoregressive", "conditional_neural_autoregressive"),
        *("conditional_planar", "conditional_radial", "iterated", "neural_autoregressive"),
        *("planar", "planar, radial, planar", "polynomial", "radial", "sylvester"),
    ),
    "of a flow, one with an inverse",
)
"""Of which a prior would have a density at its own draws alone."""
BATCHES = {"conditional_generalized_channel_permute": "has no log-probability"}
REFUSED_GUIDE = {
    **BATCHES,
    "ELUTransform": "is outside the support",
}
REFUSED_PRIOR = {**NO_INVERSE, **BATCHES}


def kinds() -> Iterator[Kind]:
    for name, make in sorted(makers().items()):
        yield Kind(
            f"guide through {name}",
            "flow of the guide",
            partial(_guided, name, make),
            rows,
            refused=REFUSED_GUIDE.get(name, ""),
        )
        if _real(name, make):
            yield Kind(
                f"prior through {name}",
                "flow of the prior",
                partial(_prior, name, make),
                rows,
                refused=REFUSED_PRIOR.get(name, ""),
                ais=name in ("affine_autoregressive", "spline", "affine_coupling"),
            )
