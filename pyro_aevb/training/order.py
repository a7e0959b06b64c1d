r"""Which data each batch of an epoch holds."""

import torch
from torch import Tensor

from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError


class Order:
    r"""The batches of each epoch, a function of the seed and the epoch alone.

    An epoch visits `seen` data in `steps` batches; `last` is the length of a smaller batch at its
    end, 0 if there is none.

    Raises:
        UsageError: A batch has no datum for each of the processes that share it; `drop_last`
            leaves no batch.
    """

    def __init__(
        self, data: Batches, batch_size: int, drop_last: bool, seed: int, processes: int
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"--batch-size is {batch_size}; it must be at least 1")
        if batch_size < processes:
            raise UsageError(
                f"--batch-size is {batch_size} for {processes} processes, which share every batch; "
                "raise it, or start fewer processes"
            )
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.num_data = num_data = len(data)
        rest = num_data % batch_size
        self.seen, self.last = (num_data - rest, 0) if drop_last else (num_data, rest)
        self.steps = -(-self.seen // batch_size)
        if not self.seen:
            raise UsageError(
                f"--drop-last with --batch-size {batch_size} leaves nothing of {num_data} training "
                "data; take a smaller batch"
            )

    def batches(self, epoch: int, device: torch.device) -> tuple[Tensor, ...]:
        r"""The positions of each batch's data in the training data, int64, ``(B,)``."""
        visited = self.data.order(self.batch_size, self.seed, epoch)[: self.seen].to(device)
        return visited.split(self.batch_size)
