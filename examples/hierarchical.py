r"""Two layers of codes: z2 gives z1 gives x, and the guide climbs back, x to z1 to z2.

Trained on the importance-weighted bound, which forgives a guide of such a simple shape.

    python -m pyro_aevb.fit --pair examples/hierarchical.py:TwoLayers \
        --objective iwae --num-particles 5
"""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Gaussian(nn.Module):
    r"""A net from its input to a Gaussian."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 2 * outputs)
        )

    def forward(self, h):
        loc, log_scale = self.net(h).chunk(2, dim=-1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)


class TwoLayers(nn.Module):
    def __init__(
        self, event_shape: tuple[int, ...], dims: tuple[int, int] = (20, 5), hidden: int = 200
    ):
        super().__init__()
        size, (first, self.second) = math.prod(event_shape), dims
        self.q_z1, self.q_z2 = Gaussian(size, hidden, first), Gaussian(first, hidden, self.second)
        self.p_z1 = Gaussian(self.second, hidden, first)
        self.p_x = nn.Sequential(
            nn.Linear(first, hidden),
            nn.Tanh(),
            nn.Linear(hidden, size),
            nn.Unflatten(-1, event_shape),
        )

    def model(self, x):
        with pyro.plate("data", len(x)):
            prior = dist.Normal(torch.zeros(self.second), torch.ones(self.second)).to_event(1)
            z2 = pyro.sample("z2", prior)
            z1 = pyro.sample("z1", self.p_z1(z2))
            pyro.sample("x", dist.Bernoulli(logits=self.p_x(z1)).to_event(x.dim() - 1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", self.q_z1(x.flatten(1)))
            pyro.sample("z2", self.q_z2(z1))
