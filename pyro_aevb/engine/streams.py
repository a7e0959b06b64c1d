r"""Data in blocks of fixed size, each with a stream of random numbers of its own.

So no setting of speed or memory changes a value, and blocks can be shared among processes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError

DATA_BLOCK = 1000
r"""Data that share one stream of random numbers; fixed, so that no setting changes a value."""


def numbered(n: int) -> range:
    r"""The numbers of the blocks of n data."""
    return range(-(-n // DATA_BLOCK))


def blocks_of(batches: Batches, blocks: range) -> Iterator[tuple[int, Data]]:
    r"""The data of some blocks of :data:`DATA_BLOCK`, with the number of each."""
    for block in blocks:
        start = block * DATA_BLOCK
        yield block, batches.take(torch.arange(start, min(start + DATA_BLOCK, len(batches))))


def check_seed(seed: int) -> None:
    r"""Refuse a seed that the generators do not take.

    Raises:
        UsageError: Not a whole number from 0 to 2^63 - 1.
    """
    if not 0 <= seed < 1 << 63:
        raise UsageError(f"--seed is {seed}; it must lie between 0 and 2^63 - 1")


@contextmanager
def seeded(device: torch.device, *key: int) -> Iterator[None]:
    r"""A stream of random numbers of its own for each key; the caller's is left as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
        yield
