r"""Many small attempts, some of which may end the process: batches of them in processes of their
own, and of a batch that does not come back each attempt alone."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.faults.child import Outcome, run
from benchmarks.faults.report import Failure

T = TypeVar("T")
SIZE = 50
MEMORY = 2048
r"""MiB that an attempt may take beyond what the process has at its start."""
SECONDS = 20.0
r"""What a single attempt may take."""


def each_alone(
    plans: Sequence[T],
    attempt: Callable[[T], str],
    called: Callable[[T], str],
    where: Path,
    size: int = SIZE,
) -> Iterator[Failure | None]:
    r"""Attempt each plan; yields what is wrong after each, or None.

    Arguments:
        plans: What to attempt.
        attempt: Does it, and returns what is wrong, or nothing; a UsageError of one line is right,
            every other exception is wrong.
        called: What a plan is called where it fails.
        where: A folder to work in.
        size: How many share a process.
    """
    for start in range(0, len(plans), size):
        batch = plans[start : start + size]
        found, outcome = _batch(batch, attempt, where)
        if found is None and len(batch) > 1:
            yield from each_alone(batch, attempt, called, where, 1)
        elif found is None:
            yield Failure(called(batch[0]), f"ends the process: {outcome.said()}")
        else:
            for plan, wrong in zip(batch, found, strict=True):
                yield Failure(called(plan), wrong) if wrong else None


def _batch(
    batch: Sequence[T], attempt: Callable[[T], str], where: Path
) -> tuple[list[str] | None, Outcome]:
    answers = where / "answers.json"
    answers.unlink(missing_ok=True)

    def call() -> None:
        answers.write_text(json.dumps([attempted(attempt, plan) for plan in batch]))

    outcome = run(call, where, memory=MEMORY, seconds=SECONDS + len(batch))
    return (json.loads(answers.read_text()) if answers.is_file() else None), outcome


def attempted(attempt: Callable[[T], str], plan: T) -> str:
    r"""What is wrong with an attempt, see :func:`each_alone`."""
    from pyro_aevb.errors import UsageError

    try:
        return attempt(plan)
    except UsageError as error:
        return "" if "\n" not in str(error) else f"several lines: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
