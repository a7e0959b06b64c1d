r"""A class with flags of its own: a VAE whose prior is a mixture of Gaussians, learned with it.

Different kinds of data can settle in different places, instead of all crowding at the origin.
Whatever parameters the constructor has are flags; `event_shape` is filled in from the data set.

    python -m pyro_aevb.fit --pair examples/my_vae.py:MyVAE --pair.latent_dim 3
"""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class MyVAE(nn.Module):
    def __init__(
        self,
        event_shape: tuple[int, ...],
        latent_dim: int = 10,
        components: int = 10,
        hidden: int = 300,
    ):
        super().__init__()
        size = math.prod(event_shape)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, size),
            nn.Unflatten(-1, event_shape),
        )
        self.logits = nn.Parameter(torch.zeros(components))
        self.locs = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(components, latent_dim))

    def prior(self):
        components = dist.Normal(self.locs, self.log_scales.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            likelihood = dist.Bernoulli(logits=self.decoder(z))
            pyro.sample("x", likelihood.to_event(x.dim() - 1), obs=x)

    def guide(self, x):
        loc, log_scale = self.encoder(x).chunk(2, dim=-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
