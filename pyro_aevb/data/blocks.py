r"""Random orders of data in a file in which those that are visited together lie together."""

from __future__ import annotations

import numpy as np

LANES = 8
r"""Parts of the data of each of which a batch holds some, in this order."""


def by_blocks(blocks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    r"""The positions of data block by block, in a random order of the blocks, ``(n,)``.

    Arguments:
        blocks: The number of each datum's block, int64, ``(n,)``.
        generator: Draws the order.
    """
    together = np.argsort(blocks, kind="stable")
    each = np.split(together, np.flatnonzero(np.diff(blocks[together])) + 1)
    return np.concatenate([each[k] for k in generator.permutation(len(each))])


def in_windows(
    blocks: np.ndarray, batch_size: int, window: int, generator: np.random.Generator
) -> np.ndarray:
    r"""An order for an epoch, in which consecutive batches are of a few blocks, ``(n,)``.

    The blocks are put in a random order and cut into :data:`LANES` lanes. Of each lane every batch
    has its share, in the order of the lanes, so that of several processes with a part of each batch
    every one reads lanes of its own. The data that a lane gives to the batches of a window are
    shuffled among themselves.

    Arguments:
        blocks: The number of each datum's block, int64, ``(n,)``.
        batch_size: How many data a batch has; what is left over is at the end.
        window: How many data are shuffled among themselves.
        generator: Draws the order.
    """
    mixed = by_blocks(blocks, generator)
    full, steps = len(mixed) // batch_size, max(1, window // batch_size)
    shares = np.diff(np.linspace(0, batch_size, LANES + 1).astype(int))
    lanes = np.split(mixed[: full * batch_size], np.cumsum(full * shares)[:-1])
    for lane, share in zip(lanes, shares, strict=True):
        for start in range(0, len(lane), max(1, steps * share)):
            generator.shuffle(lane[start : start + steps * share])
    batches = [lane.reshape(full, share) for lane, share in zip(lanes, shares, strict=True)]
    return np.concatenate([np.hstack(batches).ravel(), mixed[full * batch_size :]])
