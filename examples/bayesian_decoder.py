r"""Uncertain weights: the decoder's weights are latent variables too, beside the codes.

Codes are local, one for each datum: they are sampled inside the data plate. Weights are global:
they are sampled outside it, and the plate declares from how many data they are learned
(`num_data` is filled in from the data set). The guide is an encoder for the codes and Pyro's
AutoNormal for the weights.

    python -m pyro_aevb.fit --pair examples/bayesian_decoder.py:BayesianDecoder
"""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal, init_to_sample
from pyro.nn import PyroModule, PyroSample
from torch import nn


class BayesianLinear(PyroModule):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs

    # The variance 1 / inputs keeps what comes out as large as what goes in.
    @PyroSample
    def weight(self):
        scale = self.inputs**-0.5
        return dist.Normal(0.0, scale).expand([self.outputs, self.inputs]).to_event(2)

    @PyroSample
    def bias(self):
        return dist.Normal(0.0, 1.0).expand([self.outputs]).to_event(1)

    def forward(self, h):
        return nn.functional.linear(h, self.weight, self.bias)


class BayesianDecoder(PyroModule):
    def __init__(
        self, event_shape: tuple[int, ...], num_data: int, latent_dim: int = 10, hidden: int = 100
    ):
        super().__init__()
        self.num_data, self.latent_dim = num_data, latent_dim
        size = math.prod(event_shape)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent_dim)
        )
        self.decoder = PyroModule[nn.Sequential](
            BayesianLinear(latent_dim, hidden),
            nn.ReLU(),
            BayesianLinear(hidden, size),
            nn.Unflatten(-1, event_shape),
        )
        weights = poutine.block(self.model, hide=["z", "x"])
        self.weights = AutoNormal(weights, init_loc_fn=init_to_sample, init_scale=0.02)

    def model(self, x):
        data = pyro.plate("data", self.num_data, subsample_size=len(x))
        with data:
            prior = dist.Normal(torch.zeros(self.latent_dim), torch.ones(self.latent_dim))
            z = pyro.sample("z", prior.to_event(1))
        logits = self.decoder(z)  # outside the plate: all data share one draw of the weights
        with data:
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(x.dim() - 1), obs=x)

    def guide(self, x):
        loc, log_scale = self.encoder(x).chunk(2, dim=-1)
        with pyro.plate("data", self.num_data, subsample_size=len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
        self.weights(x)
