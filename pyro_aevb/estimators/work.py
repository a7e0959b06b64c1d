r"""Scoring shared among processes: each scores a range of the data, process 0 has the values."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.processes import Alone
from pyro_aevb.engine.streams import numbered
from pyro_aevb.estimators.importance import Compile, Scorer, Scores


@dataclass(frozen=True)
class Work:
    r"""Who does a long computation and how, and whether its progress is shown."""

    group: Alone
    show: bool = False
    memory: int | None = None
    r"""Bytes that evaluating the pair may take at once; changes speed only."""
    compile: Compile = "auto"
    r"""See :class:`~pyro_aevb.estimators.importance.Scorer`; changes rounding only."""

    def score(
        self, what: str, scorer: Scorer, batches: Batches, noise: int | None = None
    ) -> Scores | None:
        r"""The scores of a split in process 0, None in the others.

        Arguments:
            what: What to call it in the progress bar.
            scorer: See :class:`~pyro_aevb.estimators.importance.Scorer`.
            batches: The split.
            noise: The number of the corruption's draw; None leaves the data clean.
        """
        with self.progress(what, scorer.weight_samples * len(batches), "datum") as step:
            part = partial(scorer, batches, step, noise=noise)
            return score_together(self.group, len(batches), part)

    def say(self, line: str) -> None:
        r"""Show a line, above a progress bar if there is one."""
        from tqdm import tqdm

        if self.show:
            tqdm.write(line, file=sys.stderr)

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        r"""A progress bar; what it yields is called with the number of units done."""
        from tqdm import tqdm

        hidden = not self.show
        with tqdm(total=total, disable=hidden, unit=unit, desc=what, mininterval=0.5) as bar:
            yield lambda n: None if bar.update(n) else None


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
    blocks = numbered(n)
    first, last = (len(blocks) * rank // group.size for rank in (group.rank, group.rank + 1))
    parts = group.gather(scorer(blocks[first:last]) if last > first else None)
    return None if parts is None else _joined([part for part in parts if part is not None])


def _joined(parts: Sequence[Scores]) -> Scores:
    r"""Scores of the data of all parts, in their order."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts], -1)
        for name, value in vars(parts[0]).items()
        if isinstance(value, np.ndarray)
    }
    sites = parts[0].codes
    codes = {site: np.concatenate([part.codes[site] for part in parts]) for site in sites}
    return replace(parts[0], codes=codes, **arrays)
