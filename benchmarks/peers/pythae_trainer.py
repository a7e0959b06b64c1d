r"""pythae: its VAE on the same nets, its BaseTrainer, its get_nll."""

import logging
import tempfile
from typing import Any

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor

from benchmarks.networks import Network
from benchmarks.noise import FixedNoise
from benchmarks.peers import nets


class Encoder(BaseEncoder):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.net = nets.encoder(network)

    def forward(self, x: Tensor) -> ModelOutput:
        loc, log_variance = self.net(x).chunk(2, -1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.net = nets.decoder(network)

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.net(z).sigmoid())


class Binarized(VAE):
    r"""pythae has no dynamic binarization; a whole batch at once is the cheapest place for it."""

    def forward(self, inputs: Any, **options: Any) -> ModelOutput:
        inputs["data"] = torch.bernoulli(inputs["data"])
        return super().forward(inputs, **options)


class Pythae(nets.TorchParameters):
    def __init__(self, network: Network, images: np.ndarray, device: str) -> None:
        logging.getLogger("pythae").setLevel(logging.WARNING)
        for name in list(logging.Logger.manager.loggerDict):
            if name.startswith("pythae"):
                logging.getLogger(name).setLevel(logging.WARNING)
        self.device = device
        config = VAEConfig(
            input_dim=(1, 28, 28), latent_dim=network.latent, reconstruction_loss="bce"
        )
        self.vae = Binarized(config, Encoder(network), Decoder(network))
        self.scratch = tempfile.TemporaryDirectory()
        settings = BaseTrainerConfig(
            output_dir=self.scratch.name,
            per_device_train_batch_size=network.batch,
            learning_rate=1e-3,
            no_cuda=device == "cpu",
        )
        grey = nets.pixels(images, "cpu")
        dataset = BaseDataset(grey, torch.zeros(len(grey)))
        self.trainer = BaseTrainer(self.vae, dataset, training_config=settings)
        self.trainer.prepare_training()
        # Its progress bar is left out of the time.
        self.trainer.callback_handler.callbacks = self.trainer.callback_handler.callbacks[:1]
        self.epochs = 0

    def epoch(self) -> None:
        # Without what its train() does around an epoch: a copy of the best model, files.
        self.epochs += 1
        self.trainer.train_step(self.epochs)

    def tensors(self) -> list[Tensor]:
        return [*self.vae.encoder.parameters(), *self.vae.decoder.parameters()]

    @torch.no_grad()
    def loss(self, x: np.ndarray, sign: int) -> float:
        with FixedNoise(sign):
            # The binary pixels survive the binarization as they are.
            return float(self.vae({"data": torch.from_numpy(x).to(self.device)}).loss)

    @torch.no_grad()
    def score(self, x: np.ndarray, num_samples: int) -> tuple[float, float | None]:
        # Despite its name it returns the log-likelihood, not its negative.
        data = torch.from_numpy(x).to(self.device)
        return float(self.vae.get_nll(data, n_samples=num_samples, batch_size=100)), None
