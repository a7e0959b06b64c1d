r"""Which data each batch of an epoch holds."""

import torch
from torch import Tensor

from pyro_aevb.data.batches import order
from pyro_aevb.errors import UsageError


class Order:
    r"""The batches of each epoch, a function of the seed and the epoch alone.

    Arguments:
        num_data: How many training data there are.
        batch_size: How many of them a batch holds, of all processes together.
        drop_last: Whether a smaller last batch is left out.
        seed: The seed of the run.
        processes: How many processes share each batch.

    Raises:
        UsageError: A batch is smaller than that, or no batch remains.
    """

    def __init__(
        self, num_data: int, batch_size: int, drop_last: bool, seed: int, processes: int
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"--batch-size is {batch_size}; it must be at least 1")
        if batch_size < processes:
            raise UsageError(
                f"--batch-size is {batch_size} for {processes} processes, which share every batch; "
                "raise it, or start fewer processes"
            )
        self.num_data, self.batch_size, self.seed = num_data, batch_size, seed
        rest = num_data % batch_size
        self.seen = num_data - rest if drop_last else num_data
        r"""How many data an epoch visits."""
        self.last = 0 if drop_last else rest
        r"""The length of a smaller batch at the end of an epoch; 0 if there is none."""
        if not self.seen:
            raise UsageError(
                f"--drop-last with --batch-size {batch_size} leaves nothing of {num_data} training "
                "data; take a smaller batch"
            )

    @property
    def steps(self) -> int:
        r"""Batches of an epoch."""
        return -(-self.seen // self.batch_size)

    def batches(self, epoch: int, device: torch.device) -> tuple[Tensor, ...]:
        r"""The indices of the data of each batch, int64, ``(B,)``."""
        visited = order(self.num_data, self.seed, epoch)[: self.seen].to(device)
        return visited.split(self.batch_size)
