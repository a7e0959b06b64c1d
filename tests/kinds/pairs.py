"""The pair that most kinds are: a code, a prior of it, a guide, and a likelihood of rows."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

Side = Callable[[Tensor], Any]
"""From ``(B, inputs)`` to a distribution of B rows."""


def rows(width: int = 3) -> Tensor:
    """40 rows of numbers, about normal."""
    return torch.randn(40, width, generator=torch.Generator().manual_seed(1))


def bits() -> Tensor:
    return (rows() > 0).float()


class Normals(nn.Module):
    """Rows of independent normals, affine in the inputs."""

    def __init__(self, inputs: int, size: int = 3, log_scale: float = -0.2) -> None:
        super().__init__()
        self.net = nn.Linear(inputs, size)
        self.log_scale = nn.Parameter(torch.full((size,), log_scale))

    def forward(self, h: Tensor) -> Any:
        return dist.Normal(self.net(h), self.log_scale.exp()).to_event(1)


class Standard(nn.Module):
    """Standard normals, whatever the inputs."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.size = size

    def forward(self, h: Tensor) -> Any:
        return dist.Normal(h.new_zeros(*h.shape[:-1], self.size), 1.0).to_event(1)


class Coded(nn.Module):
    """A code z of each datum, ``p(z) p(x|z)``, and ``q(z|x)``.

    Arguments:
        prior: Called with a column of ones.
        guide: Called with the data, flat and brought between -1.6 and 1.6.
        likelihood: Called with the code, flat.
        infer: Of the guide's site, as for enumeration.
        whole: Whether the likelihood is one of int64 numbers.
    """

    def __init__(
        self,
        prior: Side,
        guide: Side,
        likelihood: Side,
        infer: dict[str, Any] | None = None,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.prior, self.posterior, self.likelihood = prior, guide, likelihood
        self.infer, self.whole = infer or {}, whole

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            fn = self.prior(x.new_ones(len(x), 1))
            z = pyro.sample("z", fn)
            dims = len(fn.event_shape)
            h = z.flatten(-dims) if dims else z.unsqueeze(-1)
            seen = x.long() if self.whole else x
            pyro.sample("x", self.likelihood(h.to(x.dtype)), obs=seen)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x.flatten(1).atan()), infer=self.infer)
