r"""Data in blocks, each with a stream of random numbers of its own, and in chunks that fit memory.

So no setting of speed or memory changes a value, and blocks can be shared among processes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.device import forked, release, shares_memory
from pyro_aevb.errors import UsageError

T = TypeVar("T")

LAST = (1 << 32) - 1
r"""Ends the keys of streams that would end in 0; no number of a draw or of a block is as large."""
DATA_BLOCK = 1000
r"""Data that share one stream of random numbers; fixed, so that no setting changes a value."""
CPU_BUDGET, CUDA_BUDGET = 32 << 20, 4 << 30
r"""The default memory budget, in bytes; what a CPU cache serves well, and what fills a GPU."""


def numbered(n: int) -> range:
    r"""The numbers of the blocks of n data."""
    return range(-(-n // DATA_BLOCK))


def blocks_of(batches: Batches, blocks: range) -> Iterator[tuple[int, Data]]:
    r"""The data of some blocks of :data:`DATA_BLOCK`, with the number of each."""
    for block in blocks:
        start = block * DATA_BLOCK
        yield block, batches.take(torch.arange(start, min(start + DATA_BLOCK, len(batches))))


def check_seed(seed: int) -> None:
    r"""Raise a UsageError unless a seed is one from 0 to 2^63 - 2: the generators take one more."""
    if not 0 <= seed < (1 << 63) - 1:
        raise UsageError(f"--seed is {seed}; it must lie between 0 and 2^63 - 2")


@contextmanager
def seeded(device: torch.device, *key: int) -> Iterator[None]:
    r"""A stream of random numbers of its own for each key; the caller's is left as it was.

    (s,) and (s, 0) are one key.
    """
    if len(key) > 2 and key[-1] == 0:
        key = (*key, LAST)  # NumPy fills up with zeros, which would make it that of a shorter one
    with forked([device]):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
        yield


def even(total: int, most: int) -> int:
    r"""The length, at most `most` and more than half of it, of parts that cover `total` best."""
    most = max(1, min(total, most))
    return min(range(most, most // 2, -1), key=lambda length: -(-total // length) * length)


def few_rows(memory: int | None, x: Data, run: Callable[[], Any]) -> int:
    r"""How many rows the pair may see at once, by the memory that a run on those of x takes."""
    with _Allocated() as allocated:
        run()
    budget = memory or (CPU_BUDGET if shares_memory(x.device) else CUDA_BUDGET)
    return max(1, budget // max(1, allocated.total // len(x)))


class Rows:
    r"""How many rows the pair sees at once: halved where memory ends.

    Arguments:
        number: As many as memory was thought to allow.
        say: Told why there are fewer.
    """

    def __init__(self, number: int, say: Callable[[str], None]) -> None:
        self.number, self.say = number, say

    def run(self, device: torch.device, work: Callable[[], T]) -> T:
        r"""What a function gives that takes so many rows at a time, and draws nothing.

        Raises:
            torch.OutOfMemoryError: A single row is too many.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                if self.number == 1:
                    raise
            # Outside of the clause, as the error's traceback holds the memory.
            release(device)
            self.number //= 2
            self.say(f"the memory of {device} ended")


class _Allocated(TorchFunctionMode):
    r"""Bytes of all tensors made inside: an upper bound on what is alive at once."""

    total = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.total += result.numel() * result.element_size()
        return result
