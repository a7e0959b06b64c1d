"""Every distribution that can be that of a row of data, each with data drawn from itself."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .heads import Heads
from .pairs import Coded, Normals, Standard
from .row import Kind


class Made(nn.Module):
    """A distribution that a function makes of an affine function of the inputs."""

    def __init__(self, make: Callable[[Tensor], Any], inputs: int, outputs: int) -> None:
        super().__init__()
        self.make, self.net = make, nn.Linear(inputs, outputs)
        nn.init.zeros_(self.net.bias)

    def forward(self, h: Tensor) -> Any:
        return self.make(0.3 * self.net(h))


def _scale_mixture(h: Tensor) -> Any:
    return dist.MixtureSameFamily(
        dist.Categorical(logits=h[..., :2]),
        dist.Normal(h[..., 2:8].unflatten(-1, (2, 3)), 1.0).to_event(1),
    )


def _gaussian_hmm(h: Tensor) -> Any:
    eye = torch.eye(2)
    noise = dist.Normal(torch.zeros(3, 2), 0.5).to_event(1)
    return dist.GaussianHMM(
        dist.Normal(h[..., :2], 1.0).to_event(1), 0.9 * eye, noise, eye, noise, duration=3
    )


def _linear_hmm(h: Tensor) -> Any:
    eye = torch.eye(2)
    noise = dist.Normal(torch.zeros(3, 2), 0.5).to_event(1)
    return dist.LinearHMM(
        dist.Normal(h[..., :2], 1.0).to_event(1), 0.9 * eye, noise, eye, noise, duration=3
    )


def _discrete_hmm(h: Tensor) -> Any:
    loc = h[..., 2:4].unsqueeze(-2)
    return dist.DiscreteHMM(
        h[..., :2], torch.tensor([[1.0, -1.0], [-1.0, 1.0]]), dist.Normal(loc, 1.0), duration=3
    )


def _independent_hmm(h: Tensor) -> Any:
    noise = dist.Normal(torch.zeros(2, 3, 1), 0.5).to_event(1)
    initial = dist.Normal(h[..., :2].unsqueeze(-1), 1.0).to_event(1)
    eye = torch.eye(1)
    return dist.IndependentHMM(dist.GaussianHMM(initial, eye, noise, eye, noise, duration=3))


def _masked_mixture(h: Tensor) -> Any:
    return dist.MaskedMixture(
        torch.tensor([True, False, True]),
        dist.Normal(h[..., :3], 1.0),
        dist.Laplace(h[..., :3], 1.0),
    ).to_event(1)


def _rejector(h: Tensor) -> Any:
    normal = dist.Normal(h[..., :3], 1.0)
    return dist.Rejector(normal, torch.zeros_like, torch.zeros_like(h[..., :3])).to_event(1)


OUTPUTS = 12
BY_HAND: dict[str, Callable[[Tensor], Any]] = {
    "DiscreteHMM": _discrete_hmm,
    "FoldedDistribution": lambda h: dist.FoldedDistribution(dist.Normal(h[..., :3], 1.0)).to_event(
        1
    ),
    "GaussianHMM": _gaussian_hmm,
    "IndependentHMM": _independent_hmm,
    "LinearHMM": _linear_hmm,
    "LKJCorrCholesky": lambda h: dist.LKJCorrCholesky(3, eta=h[..., 0].exp()),
    "MaskedDistribution": lambda h: (
        dist.Normal(h[..., :3], 1.0).mask(torch.tensor([True, False, True])).to_event(1)
    ),
    "MaskedMixture": _masked_mixture,
    "MixtureOfDiagNormals": lambda h: dist.MixtureOfDiagNormals(
        h[..., :6].unflatten(-1, (2, 3)), h.new_ones(*h.shape[:-1], 2, 3), h[..., 6:8]
    ),
    "MixtureOfDiagNormalsSharedCovariance": lambda h: dist.MixtureOfDiagNormalsSharedCovariance(
        h[..., :6].unflatten(-1, (2, 3)), h.new_ones(*h.shape[:-1], 3), h[..., 6:8]
    ),
    "MixtureSameFamily": _scale_mixture,
    "Rejector": _rejector,
    "SineBivariateVonMises": lambda h: dist.SineBivariateVonMises(
        h[..., 0], h[..., 1], 2 + h[..., 2].exp(), 2 + h[..., 3].exp(), h[..., 4].tanh()
    ),
    "SineSkewed": lambda h: dist.SineSkewed(
        dist.VonMises(h[..., :3], 2.0).to_event(1), 0.1 * h[..., 3:6].tanh()
    ),
    "TransformedDistribution": lambda h: dist.TransformedDistribution(
        dist.Normal(h[..., :3], 1.0).to_event(1),
        [dist.transforms.ExpTransform()],
    ),
    "Uniform": lambda h: dist.Uniform(-3 - h[..., :3].abs(), 3 + h[..., 3:6].abs()).to_event(1),
    "Categorical": lambda h: dist.Categorical(logits=h.unflatten(-1, (3, 4))).to_event(1),
    "OrderedLogistic": lambda h: dist.OrderedLogistic(
        h[..., :3], torch.tensor([-1.0, 0.0, 1.0])
    ).to_event(1),
    "Wishart": lambda h: dist.Wishart(
        5 + h[..., 0].exp(), scale_tril=torch.eye(3).expand(*h.shape[:-1], 3, 3)
    ),
    "ZeroInflatedDistribution": lambda h: dist.ZeroInflatedDistribution(
        dist.Poisson(h[..., :3].exp()), gate=torch.tensor(0.3)
    ).to_event(1),
    "Stable": lambda h: dist.Stable(1.5, 0.1, h[..., 3:6].exp(), h[..., :3]).to_event(1),
    "Delta": lambda h: dist.Delta(h[..., :3]).to_event(1),
    "CoalescentTimes": lambda h: dist.CoalescentTimes(torch.zeros(4), h[..., 0].exp()),
}
"""Families that no look at their parameters makes."""
NO_DATA = {
    "CoalescentTimesWithRate": "draws none",
    "GaussianMRF": "draws none",
    "GaussianScaleMixture": "one density for all data; a guide",
    "VonMises3D": "draws none",
    "GammaGaussianHMM": "draws none",
    "LogNormalNegativeBinomial": "draws none",
    "SpanningTree": "one table for all data",
    "OneOneMatching": "one table for all data",
    "OneTwoMatching": "one table for all data",
    "AVFMultivariateNormal": "one mean for all data; a guide",
    "OMTMultivariateNormal": "one mean for all data; a guide",
    "GroupedNormalNormal": "draws none",
    "TruncatedPolyaGamma": "a helper of an augmentation",
    "Distribution": "a base class",
    "TorchDistribution": "a base class",
    "ExponentialFamily": "a base class",
    "Empirical": "a list of draws",
    "ExpandedDistribution": "what expand makes of another",
    "ImproperUniform": "no density",
    "Independent": "what to_event makes of another",
    "Unit": "what pyro.factor makes",
}
"""Those of which there are no data, and why."""


DELTAS = ("Delta",)
"""Points, of which no other point is a draw."""


def families() -> list[str]:
    """The names of all distributions of the installed Pyro, but those without data."""
    base = torch.distributions.Distribution
    found = {name: getattr(dist, name) for name in dist.__all__}
    return sorted(
        name
        for name, made in found.items()
        if inspect.isclass(made) and issubclass(made, base) and name not in NO_DATA
    )


def distribution(family: str, inputs: int, size: int = 3) -> nn.Module:
    """A net that gives a distribution of the family."""
    if family in BY_HAND:
        return Made(BY_HAND[family], inputs, OUTPUTS)
    return Heads(family, inputs, size)


def drawn(family: str) -> Tensor:
    """40 data from the family."""
    with torch.no_grad():
        fn = distribution(family, 1)(torch.zeros(40, 1))
        if family in DELTAS:
            return torch.randn(40, 3)
        return fn.sample().float()


def _pair(family: str) -> Coded:
    with torch.no_grad():
        fn = distribution(family, 1)(torch.zeros(2, 1))
    whole = family not in DELTAS and not fn.sample().is_floating_point()
    return Coded(Standard(), Normals(drawn_width(family), 2), distribution(family, 2), whole=whole)


def drawn_width(family: str) -> int:
    return drawn(family)[0].numel()


EXPAND = "a plate expands every distribution"
REFUSED = {
    "Delta": "is a Delta, a point",
    "LKJ": EXPAND,
    "LKJCorrCholesky": EXPAND,
    "SoftAsymmetricLaplace": EXPAND,
    "LinearHMM": "has no log-probability",
}
"""Families, and a part of the line that refuses each."""
SLOW = ("SineBivariateVonMises", "Stable", "StableWithLogProb")
"""Those whose density takes long."""


def kinds() -> Iterator[Kind]:
    for family in families():
        yield Kind(
            f"{family} of x",
            "likelihood",
            partial(_pair, family),
            partial(drawn, family),
            refused=REFUSED.get(family, ""),
            slow=family in SLOW,
        )
