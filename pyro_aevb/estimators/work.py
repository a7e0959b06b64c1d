r"""Scoring shared among processes: each scores a range of the data, process 0 has the values."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.bars import bar
from pyro_aevb.engine.processes import Alone
from pyro_aevb.engine.streams import numbered
from pyro_aevb.estimators.importance import Compile

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Scoring(Protocol[T_co]):
    r"""What scores the data of some blocks, or of all, once for each draw of the weights."""

    weight_samples: int

    def __call__(self, *args: Any, **kwargs: Any) -> T_co: ...


@dataclass(frozen=True)
class Work:
    r"""Who does a long computation and how, and whether its progress is shown."""

    group: Alone
    show: bool = False
    memory: int | None = None
    r"""Bytes that evaluating the pair may take at once; changes speed only."""
    compile: Compile = "auto"
    r"""See :class:`~pyro_aevb.estimators.importance.Scorer`; changes rounding only."""

    def score(self, what: str, scorer: Scoring[T], batches: Batches, **given: Any) -> T | None:
        r"""The values of a split in process 0, None in the others.

        Arguments:
            what: What to call it in the progress bar.
            scorer: Such as :class:`~pyro_aevb.estimators.importance.Scorer` or
                :class:`~pyro_aevb.estimators.marginal.MarginalLikelihood`.
            batches: The split.
            given: Passed on to `scorer`, such as the number of a corruption's draw.
        """
        with self.progress(what, scorer.weight_samples * len(batches), "datum") as step:
            part = partial(scorer, batches, step, **given)
            return score_together(self.group, len(batches), part)

    def say(self, line: str) -> None:
        r"""Show a line, above a progress bar if there is one."""
        from tqdm import tqdm

        if self.show:
            tqdm.write(line, file=sys.stderr)

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        r"""A progress bar; what it yields is called with the number of units done."""
        with bar(total=total, disable=not self.show, unit=unit, desc=what) as shown:
            yield lambda n: None if shown.update(n) else None


def score_together(group: Alone, n: int, scorer: Callable[[range], T]) -> T | None:
    r"""Score a split by all processes, each its contiguous range of blocks of data.

    A block draws from a stream of its own, by its number in the split, so the values are those of
    one process.

    Arguments:
        group: The processes.
        n: How many data there are.
        scorer: From the numbers of some blocks to the values of their data, a dataclass of arrays
            ``(..., N)`` and of dicts of arrays ``(N, ...)``.

    Returns:
        The values of the split in process 0, None in the others.
    """
    blocks = numbered(n)
    first, last = (len(blocks) * rank // group.size for rank in (group.rank, group.rank + 1))
    parts = group.gather(scorer(blocks[first:last]) if last > first else None)
    return None if parts is None else _joined([part for part in parts if part is not None])


def _joined(parts: Sequence[T]) -> T:
    r"""The values of the data of all parts, in their order."""
    joined: dict[str, Any] = {}
    for name, value in vars(parts[0]).items():
        every = [getattr(part, name) for part in parts]
        if isinstance(value, np.ndarray):
            joined[name] = np.concatenate(every, -1)
        elif isinstance(value, dict):
            # Of the data's axis: codes (N, d), and what is of each draw of the weights (S, N).
            axis = -1 if name == "shares" else 0
            joined[name] = {key: np.concatenate([of[key] for of in every], axis) for key in value}
    whole: T = replace(cast(Any, parts[0]), **joined)
    return whole
