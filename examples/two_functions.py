r"""Two functions: the shortest pair there is, `model` and `guide` in one file.

The nets are ordinary PyTorch modules at file level, made known to Pyro by ``pyro.module``.

    python -m pyro_aevb.fit --pair examples/two_functions.py
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

LATENT_DIM = 20

encoder = nn.Sequential(
    nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 2 * LATENT_DIM)
)
decoder = nn.Sequential(
    nn.Linear(LATENT_DIM, 300), nn.ReLU(), nn.Linear(300, 784), nn.Unflatten(-1, (1, 28, 28))
)


def model(x):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(x)):
        prior = dist.Normal(torch.zeros(LATENT_DIM), torch.ones(LATENT_DIM)).to_event(1)
        z = pyro.sample("z", prior)
        pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(3), obs=x)


def guide(x):
    pyro.module("encoder", encoder)
    loc, log_scale = encoder(x).chunk(2, dim=-1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
