r"""The contenders, one file for each library, and what they have in common."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from benchmarks.networks import Network

Values = list[np.ndarray]
r"""Parameters, encoder before decoder; of a linear layer the (out, in) weight, then the bias."""


class Unavailable(Exception):
    r"""This contender cannot run here, and why."""


class Peer(Protocol):
    r"""One contender. The floor has an :meth:`epoch` alone."""

    def __init__(self, network: Network, images: np.ndarray, device: str, **options: Any) -> None:
        r"""`images` are uint8, (N, 1, 28, 28), a whole number of batches."""

    def parameters(self) -> Values: ...

    def load(self, values: Values) -> None: ...

    def loss(self, x: np.ndarray, sign: int) -> float:
        r"""Minus the objective per datum of binary `x`, at the noise of :mod:`benchmarks.noise`."""

    def epoch(self) -> None:
        r"""What is timed: every image once, in a fresh order, binarized anew."""

    def score(self, x: np.ndarray, num_samples: int) -> tuple[float, float | None]:
        r"""Mean log-likelihood of binary `x` by importance sampling, and its standard error."""


@dataclass(frozen=True)
class Contender:
    r"""How a peer is made.

    Arguments:
        title: As tables call it.
        place: ``module:Class`` in this package.
        kl: Which Kullback-Leibler term its ELBO has, where it is an ELBO: closed form or sampled.
        needs: What must be installed.
        options: Further arguments of the class.
        matmul: ``torch.set_float32_matmul_precision`` of its process.
    """

    title: str
    place: str
    kl: str = "closed form"
    needs: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    matmul: str = "highest"

    def missing(self) -> list[str]:
        return [name for name in self.needs if find_spec(name) is None]

    def make(self, network: Network, images: np.ndarray, device: str) -> Peer:
        module, _, name = self.place.partition(":")
        found = getattr(import_module(f"benchmarks.peers.{module}"), name)
        peer: Peer = found(network, images, device, **dict(self.options))
        return peer


def _project(title: str, compile: str, matmul: str = "highest", **options: Any) -> Contender:
    given = (("compile", compile), *options.items())
    kl = "none" if options.get("point") else "closed form"
    return Contender(title, "project:Project", kl, options=given, matmul=matmul)


PEERS = {
    "pytorch": Contender("PyTorch, tensor batches", "pytorch:Tensors"),
    "pytorch-loader": Contender("PyTorch example, DataLoader", "pytorch:Loader"),
    "pyro": Contender("Pyro example, SVI", "pyro_svi:Example", "sampled"),
    "pyro-point": Contender(
        "Pyro, point weights", "pyro_svi:Example", "none", options=(("point", True),)
    ),
    "numpyro": Contender(
        "NumPyro, jitted epoch", "numpyro_svi:Example", "sampled", needs=("numpyro", "jax")
    ),
    "pythae": Contender("pythae, BaseTrainer", "pythae_trainer:Pythae", needs=("pythae",)),
    "project-eager": _project("pyro_aevb, eager", "off"),
    "project": _project("pyro_aevb, compiled", "on"),
    "project-medium": _project("pyro_aevb, compiled, medium products", "on", "medium"),
    "project-local": _project(
        "pyro_aevb, compiled, local reparameterization", "on", weight_noise="local"
    ),
    "project-flipout": _project("pyro_aevb, compiled, flipout", "on", weight_noise="flipout"),
    "project-point": _project("pyro_aevb, compiled, point weights", "on", point=True),
    "floor": Contender("floor: torch.mm + fused Adam", "floor:Floor", "none"),
    "floor-fastest": Contender(
        "floor: fastest products + fused Adam", "floor:Floor", "none", options=(("fastest", True),)
    ),
}
