r"""Scoring shared among processes: each scores a range of the data, process 0 has the values."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np

from pyro_aevb.estimators.importance import DATA_BLOCK, Scores
from pyro_aevb.training.parallel import Alone


def score_together(group: Alone, n: int, scorer: Callable[[range], Scores]) -> Scores | None:
    r"""Score a split by all processes, each its contiguous range of blocks of data.

    A block draws from a stream of its own, by its number in the split, so the values are those of
    one process.

    Arguments:
        group: The processes.
        n: How many data there are.
        scorer: From the numbers of some blocks to the scores of their data.

    Returns:
        The scores of the split in process 0, None in the others.
    """
    blocks = range(-(-n // DATA_BLOCK))
    first, last = (len(blocks) * rank // group.size for rank in (group.rank, group.rank + 1))
    parts = group.gather(scorer(blocks[first:last]) if last > first else None)
    return None if parts is None else _joined([part for part in parts if part is not None])


def _joined(parts: Sequence[Scores]) -> Scores:
    r"""Scores of the data of all parts, in their order."""
    joined = copy.copy(parts[0])
    for name in (field.name for field in fields(Scores)):
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], np.ndarray):
            setattr(joined, name, np.concatenate(values, -1))
    joined.codes = {
        site: np.concatenate([part.codes[site] for part in parts]) for site in parts[0].codes
    }
    return joined
