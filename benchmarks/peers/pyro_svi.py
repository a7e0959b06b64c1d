r"""Pyro as in its VAE example: SVI, pyro.optim.Adam, a DataLoader.

References:
    https://github.com/pyro-ppl/pyro/blob/dev/examples/vae/vae.py
"""

from collections.abc import Iterable

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import Tensor, nn

from benchmarks.networks import PIXELS, Network
from benchmarks.noise import FixedNoise
from benchmarks.peers import nets
from benchmarks.peers.pytorch import loader
from benchmarks.peers.weights import BayesianAutoencoder, PointAutoencoder


class VAE(nn.Module):
    r"""The example's class; logits in place of probabilities, which spares it a sigmoid."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.latent = network.latent
        self.encoder, self.decoder = nets.encoder(network), nets.decoder(network)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = x.new_zeros(len(x), self.latent), x.new_ones(len(x), self.latent)
            z = pyro.sample("z", dist.Normal(loc, scale).to_event(1))
            pixels = dist.Bernoulli(logits=self.decoder(z), validate_args=False).to_event(1)
            pyro.sample("x", pixels, obs=x.reshape(-1, PIXELS))

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, log_variance = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, (0.5 * log_variance).exp()).to_event(1))


class Example(nets.TorchParameters):
    def __init__(
        self, network: Network, images: np.ndarray, device: str, point: bool = False
    ) -> None:
        self.device = device
        self.loader = loader(images, network.batch)
        pyro.clear_param_store()
        if network.kind == "weights" and not point:
            self.pair: nn.Module = BayesianAutoencoder(network, len(images))
        else:
            self.pair = (PointAutoencoder if point else VAE)(network)
        self.pair.to(device)
        self.pair.guide(torch.zeros(1, 1, 28, 28, device=device))
        objective = (
            RenyiELBO(0, network.particles, max_plate_nesting=1, vectorize_particles=True)
            if network.particles > 1
            else Trace_ELBO()
        )
        optimizer = pyro.optim.Adam({"lr": 1e-3})
        self.svi = SVI(self.pair.model, self.pair.guide, optimizer, loss=objective)

    def epoch(self) -> None:
        total = 0.0
        for grey, _ in self.loader:
            total += self.svi.step(torch.bernoulli(grey.to(self.device)))

    def tensors(self) -> Iterable[Tensor]:
        return self.pair.parameters()

    def loss(self, x: np.ndarray, sign: int) -> float:
        with FixedNoise(sign):
            loss = self.svi.evaluate_loss(torch.from_numpy(x).to(self.device))
        # A pair that declares the number of its data has the objective of all of them.
        return loss / (getattr(self.pair, "num_data", None) or len(x))
