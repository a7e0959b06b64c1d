r"""This project: its Trainer and its scorer, on its own VAE."""

from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.networks import Network
from benchmarks.noise import FixedNoise
from benchmarks.peers import nets
from benchmarks.peers.weights import BayesianAutoencoder, PointAutoencoder
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.models import VAE
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.svi import SVI
from pyro_aevb.training.trainer import Trainer


class Project(nets.TorchParameters):
    r"""One epoch is one more epoch of a Trainer, validation on one batch included."""

    def __init__(
        self,
        network: Network,
        images: np.ndarray,
        device: str,
        compile: str = "off",
        point: bool = False,
        weight_noise: str = "shared",
    ) -> None:
        split = Split(torch.from_numpy(images), None, 255)
        few = split.subset(slice(0, network.batch))
        data = DataSet("mnist", split, few, few, "the images of the benchmark", "dynamic")
        self.net = _pair(network, len(images), point)
        prepared = prepare(self.net, data, device=device)
        self.pair, self.device = prepared.pair, device
        self.scorer: Scorer | None = None
        self.annealers: dict[tuple[int, int, int], Annealer] = {}
        self.objective = make_objective(
            "iwae" if network.particles > 1 else "elbo", network.particles
        )
        self.trainer = Trainer(
            self.pair,
            prepared.train,
            prepared.valid,
            SVI(self.pair, self.objective, weight_noise),
            epochs=0,
            batch_size=network.batch,
            lr=1e-3,
            compile=compile,
        )

    def epoch(self) -> None:
        self.trainer.epochs += 1
        self.trainer.run()

    def tensors(self) -> list[Any]:
        return list(self.net.parameters())  # encoder, decoder, output: the order of the others

    @torch.no_grad()
    def loss(self, x: np.ndarray, sign: int) -> float:
        batch = torch.from_numpy(x).to(self.device)
        with self.pair.active(), WholeBatch(), FixedNoise(sign):
            loss = self.objective.differentiable_loss(self.pair.model, self.pair.guide, batch)
        # A pair that declares the number of its data has the objective of all of them.
        return float(loss) / (getattr(self.net, "num_data", None) or len(batch))

    def score(self, x: np.ndarray, num_samples: int) -> tuple[float, float | None]:
        batches = Batches(Split(torch.from_numpy(x), None, 1), "none", self.device)
        if self.scorer is None or self.scorer.num_samples != num_samples:
            # What `auto` decides for a whole test set.
            self.scorer = Scorer(self.pair, num_samples, details=False, compile="on")
        scores = self.scorer(batches)
        assert scores.log_weight is not None
        return float(scores.log_weight.mean()), None

    def anneal(self, x: np.ndarray, chains: int, temperatures: int, leapfrog_steps: int) -> float:
        data = torch.from_numpy(x).to(self.device)
        settings = (chains, temperatures, leapfrog_steps)
        if settings not in self.annealers:
            self.annealers[settings] = Annealer(self.pair, data[:2], *settings, compile="on")
        annealed = self.annealers[settings](Batches(Split(data, None, 1), "none", self.device))
        return float(annealed.lower().mean())


def _pair(network: Network, num_data: int, point: bool) -> nn.Module:
    if network.kind == "weights":
        pair: nn.Module
        pair = PointAutoencoder(network) if point else BayesianAutoencoder(network, num_data)
        return pair
    shape, kind = (1, network.side, network.side), "conv" if network.kind == "conv" else "mlp"
    return VAE(shape, network.latent, network.hidden, kind)
