r"""The floor: the matrix products of a step, forward and backward, and one fused Adam. No data,
no activations, no random numbers, no loss.
"""

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from benchmarks.networks import Network

Product = Callable[[], object]


class Floor:
    r"""One step after another, as many as an epoch has.

    Arguments:
        fastest: For each product, the faster of ``torch.mm`` and oneDNN's (which Inductor uses),
            measured here; otherwise ``torch.mm``.
    """

    def __init__(
        self, network: Network, images: np.ndarray, device: str, fastest: bool = False
    ) -> None:
        self.steps = len(images) // network.batch
        self.device, self.fastest = device, fastest and device == "cpu"
        self._gradients: dict[int, Product] = {}
        rows = network.batch
        encoder = [network.pixels, *network.hidden, 2 * network.latent]
        decoder = [network.latent, *reversed(network.hidden), network.pixels]
        self.decoder = list(pairwise(decoder))
        layers = [(rows, a, b) for a, b in pairwise(encoder)]
        layers += [(rows * network.particles, a, b) for a, b in self.decoder]
        self.products: list[Product] = []
        self.operations = 0
        parameters = []
        for i, (n, a, b) in enumerate(layers):
            x, g = torch.randn(n, a, device=device), torch.randn(n, b, device=device)
            w = torch.randn(b, a, device=device)
            pairs = [(x, w.t()), (g.t(), x)]
            if i > 0:  # the data need no gradient
                pairs.append((g, w))
            self.products += [product(p, q, self.fastest) for p, q in pairs]
            self.operations += 2 * n * a * b * len(pairs)
            parameters += [w.requires_grad_(), torch.randn(b, device=device).requires_grad_()]
        for p in parameters:
            p.grad = torch.randn_like(p)
        self.adam = torch.optim.Adam(parameters, lr=1e-3, fused=True, capturable=device != "cpu")
        self.step: Product = self._step
        if device != "cpu":
            self.step = _captured(self._step)

    @torch.no_grad()
    def _step(self) -> None:
        self.multiply()
        self.adam.step()

    def multiply(self) -> None:
        for multiplied in self.products:
            multiplied()

    def epoch(self) -> None:
        for _ in range(self.steps):
            self.step()

    def anneal(self, x: np.ndarray, chains: int, temperatures: int, leapfrog_steps: int) -> None:
        r"""The products of the gradients of log p(x|z) with respect to the codes of all chains."""
        rows = len(x) * chains
        if rows not in self._gradients:
            self._gradients[rows] = self._gradient(rows)
        for _ in range(1 + (temperatures - 1) * leapfrog_steps):
            self._gradients[rows]()

    def _gradient(self, rows: int) -> Product:
        products: list[Product] = []
        for a, b in self.decoder:
            z, g = (torch.randn(rows, size, device=self.device) for size in (a, b))
            w = torch.randn(b, a, device=self.device)
            products += [product(p, q, self.fastest) for p, q in ((z, w.t()), (g, w))]

        def multiply() -> None:
            for multiplied in products:
                multiplied()

        return multiply if self.device == "cpu" else _captured(multiply)


@torch.no_grad()
def product(p: Tensor, q: Tensor, fastest: bool) -> Product:
    r"""A product to be called again: ``mm``, or the fastest that torch has on this CPU."""
    p, q = p.detach(), q.detach()
    candidates: list[Product] = [lambda: torch.mm(p, q)]
    if fastest:
        linear = torch.ops.mkldnn._linear_pointwise
        candidates.append(lambda: linear(p, q.t(), None, "none", [], ""))
    return min(candidates, key=seconds) if fastest else candidates[0]


def seconds(work: Product, repeats: int = 30) -> float:
    r"""How long one call takes on a CPU, after as many that do not count."""
    for _ in range(repeats):
        work()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def _captured(step: Product) -> Product:
    r"""As a CUDA graph, so that launches do not count."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
