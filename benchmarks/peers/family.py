r"""A shipped family, trained as ``pyro_aevb.fit`` trains it."""

from typing import Any

import numpy as np
import torch

from benchmarks.networks import Network
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.trainer import Trainer


class Family:
    r"""One epoch is one more epoch of a Trainer, validation on one batch included."""

    def __init__(self, network: Network, images: np.ndarray, device: str, pair: str) -> None:
        split = Split(torch.from_numpy(images), None, 255)
        few = split.subset(slice(0, network.batch))
        data = DataSet("mnist", split, few, few, "the images of the benchmark", "dynamic")
        shape: dict[str, Any] = {"latent_dim": network.latent, "hidden": list(network.hidden)}
        prepared = prepare(pair, data, shape, device=device)
        self.trainer = Trainer(
            prepared.pair,
            prepared.train,
            prepared.valid,
            make_algorithm(None, prepared.pair, prepared.train),
            epochs=0,
            batch_size=network.batch,
            lr=1e-3,
            compile="on",
        )

    def epoch(self) -> None:
        self.trainer.epochs += 1
        self.trainer.run()
