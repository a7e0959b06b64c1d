r"""A VAE written by hand in PyTorch: on tensors, and as in PyTorch's public example."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.networks import Network
from benchmarks.noise import FixedNoise
from benchmarks.peers import nets


class VAE(nn.Module):
    r"""Both nets and their loss, per datum."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.particles = network.particles
        self.encoder, self.decoder = nets.encoder(network), nets.decoder(network)

    def forward(self, x: Tensor) -> Tensor:
        if self.particles > 1:
            log_weights = self.log_weights(x, self.particles)
            return (math.log(self.particles) - log_weights.logsumexp(0)).mean()
        loc, log_variance = self.encoder(x).chunk(2, -1)
        z = loc + (0.5 * log_variance).exp() * torch.randn_like(loc)
        logits = self.decoder(z)
        bce = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
        kl = -0.5 * (1 + log_variance - loc.square() - log_variance.exp()).sum()
        return (bce + kl) / len(x)

    def log_weights(self, x: Tensor, samples: int) -> Tensor:
        r"""log p(x, z) - log q(z|x) of so many z, (samples, batch)."""
        loc, log_variance = self.encoder(x).chunk(2, -1)
        noise = torch.randn(samples, *loc.shape, device=x.device)
        z = loc + (0.5 * log_variance).exp() * noise
        logits, target = self.decoder(z), x.flatten(1).expand(samples, -1, -1)
        bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
        return 0.5 * (noise.square() + log_variance - z.square()).sum(-1) - bce


class Tensors(nets.TorchParameters):
    r"""Batches picked from one tensor, default Adam; no number is read back."""

    def __init__(self, network: Network, images: np.ndarray, device: str) -> None:
        self.network, self.device, self.images = network, device, images
        self.net = VAE(network).to(device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.data: Any = self.dataset()

    def dataset(self) -> Any:
        return nets.pixels(self.images, self.device)

    def batches(self) -> Iterator[Tensor]:
        for index in torch.randperm(len(self.data), device=self.device).split(self.network.batch):
            yield self.data.index_select(0, index)

    def seen(self, loss: Tensor) -> None:
        r"""What is done with the loss of a step: nothing."""

    def epoch(self) -> None:
        for grey in self.batches():
            self.optimizer.zero_grad()
            loss = self.net(torch.bernoulli(grey))
            loss.backward()
            self.seen(loss)
            self.optimizer.step()

    def tensors(self) -> Iterable[Tensor]:
        return self.net.parameters()

    @torch.no_grad()
    def loss(self, x: np.ndarray, sign: int) -> float:
        with FixedNoise(sign):
            return float(self.net(torch.from_numpy(x).to(self.device)))

    @torch.no_grad()
    def score(self, x: np.ndarray, num_samples: int) -> tuple[float, float | None]:
        r"""The straightforward loop: a few images at a time, all samples of each at once."""
        chunk = max(1, (1 << 22) // num_samples // 784)  # activations of 16 MB
        values, variances = [], []
        for part in torch.from_numpy(x).to(self.device).split(chunk):
            log_weights = self.net.log_weights(part, num_samples)
            values.append(log_weights.double().logsumexp(0) - math.log(num_samples))
            share = log_weights.double().softmax(0)
            variances.append(share.square().sum(0) - 1 / num_samples)  # delta method
        error = torch.cat(variances).sum().sqrt() / len(x)
        return float(torch.cat(values).mean()), float(error)


class Loader(Tensors):
    r"""As in PyTorch's example: one image at a time through its transform, the loss read each step.

    References:
        https://github.com/pytorch/examples/blob/main/vae/main.py
    """

    def dataset(self) -> Any:
        self.total = 0.0
        return loader(self.images, self.network.batch)

    def batches(self) -> Iterator[Tensor]:
        self.total = 0.0
        for x, _ in self.data:
            yield x.to(self.device)

    def seen(self, loss: Tensor) -> None:
        self.total += loss.item()


class Images(Dataset):
    r"""What torchvision's MNIST with ToTensor does to an image, without torchvision."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images[:, 0])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index].numpy())
        tensor = torch.from_numpy(np.array(picture, np.uint8, copy=True)).view(28, 28, 1)
        return tensor.permute(2, 0, 1).contiguous().float().div(255), 0


def loader(images: np.ndarray, batch: int) -> DataLoader:
    return DataLoader(Images(images), batch, shuffle=True)
