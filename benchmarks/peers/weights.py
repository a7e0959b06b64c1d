r"""Autoencoders of point codes: weights with mean-field normal posteriors, and point weights.

The same two pairs are trained by Pyro's SVI and by this project.
"""

from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from benchmarks.networks import PIXELS, Network
from benchmarks.peers import nets


class BayesianLinear(PyroModule):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.register_buffer("zero", torch.zeros(()))  # keeps the prior on the right device

    @PyroSample
    def weight(self) -> dist.Distribution:
        return dist.Normal(self.zero, 1.0).expand([self.outputs, self.inputs]).to_event(2)

    @PyroSample
    def bias(self) -> dist.Distribution:
        return dist.Normal(self.zero, 1.0).expand([self.outputs]).to_event(1)

    def forward(self, h: Tensor) -> Tensor:
        return nn.functional.linear(h, self.weight, self.bias)


class BayesianAutoencoder(PyroModule):
    r"""Every weight and bias of both nets is a latent variable; guide AutoNormal."""

    def __init__(self, network: Network, num_data: int) -> None:
        super().__init__()
        self.num_data = num_data
        widths = [*network.hidden, network.latent, *reversed(network.hidden)]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in pairwise([PIXELS, *widths, PIXELS]):
            layers += (
                [BayesianLinear(a, b)]
                if b in (network.latent, PIXELS)
                else [
                    BayesianLinear(a, b),
                    nn.Tanh(),
                ]
            )
        self.net = PyroModule[nn.Sequential](*layers)
        self.guide = AutoNormal(poutine.block(self.model, hide=["x"]), init_scale=0.01)

    def model(self, x: Tensor) -> None:
        logits = self.net(x)  # outside the plate: all data share one draw of the weights
        with pyro.plate("data", self.num_data, subsample_size=len(x)):
            pixels = dist.Bernoulli(logits=logits, validate_args=False).to_event(1)
            pyro.sample("x", pixels, obs=x.reshape(-1, PIXELS))


class PointAutoencoder(nn.Module):
    r"""The same nets with points for weights; the code has no density."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.latent = network.latent
        self.encoder, self.decoder = nets.encoder(network, heads=1), nets.decoder(network)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            loc, scale = x.new_zeros(len(x), self.latent), x.new_ones(len(x), self.latent)
            z = pyro.sample("z", dist.Normal(loc, scale).to_event(1).mask(False))
            pixels = dist.Bernoulli(logits=self.decoder(z), validate_args=False).to_event(1)
            pyro.sample("x", pixels, obs=x.reshape(-1, PIXELS))

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(self.encoder(x)).to_event(1))
