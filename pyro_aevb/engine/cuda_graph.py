r"""A whole update, gradients and optimizer, as one CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyro_aevb.data.batch import Data, flatten, unflatten

WARM_UP = 3
r"""Updates before the capture, which fill the optimizer's state and every lazy handle."""


class GraphedUpdate:
    r"""An update that is recorded once and from then on launched by a single call.

    The first updates run as they are and count like all others; then one is recorded. The arguments
    and the learning rate are copied into tensors that the record reads, so neither a new batch nor
    a new rate needs another capture. A batch of another length runs as it is.

    Valid where the update synchronizes nothing with the host, as a compiled step does, and with an
    optimizer that has a capturable form; see :func:`graphable`.

    Arguments:
        update: Called with the index of a batch, and the batch; returns the loss.
        optimizer: The optimizer whose step `update` takes.
        size: The length of the batches to record.
    """

    def __init__(self, update: Callable[..., Tensor], optimizer: Optimizer, size: int) -> None:
        self.update, self.optimizer, self.size = update, optimizer, size
        self.done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._side = torch.cuda.Stream()

    def __call__(self, *batch: Data) -> Tensor:
        if len(batch[0]) != self.size:
            return self.update(*batch)
        if self.done < WARM_UP:
            self.done += 1
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                loss = self.update(*batch)
            torch.cuda.current_stream().wait_stream(self._side)
            return loss
        if self._graph is None:
            self._graph = self._record(batch)
        for held, value in zip(flatten(self._batch), flatten(batch), strict=True):
            held.copy_(value)
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self._graph.replay()
        return self._loss.clone()

    def _record(self, batch: tuple[Data, ...]) -> torch.cuda.CUDAGraph:
        groups = self.optimizer.param_groups
        self._batch = unflatten([value.clone() for value in flatten(batch)], batch)
        device = batch[0].device
        self._rates = [torch.tensor(group["lr"], device=device) for group in groups]
        before = [(group["lr"], group["capturable"]) for group in groups]
        graph = torch.cuda.CUDAGraph()
        try:
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"], group["capturable"] = rate, True
            with torch.cuda.graph(graph):
                self._loss = self.update(*self._batch)
        finally:
            for group, (lr, capturable) in zip(groups, before, strict=True):
                group["lr"], group["capturable"] = lr, capturable
        return graph


def graphable(optimizer: Optimizer) -> bool:
    r"""Whether an optimizer's step can be recorded: on CUDA, fused, with a capturable form."""
    return all(
        group.get("fused") and "capturable" in group and group["params"][0].is_cuda
        for group in optimizer.param_groups
    )
