r"""Files of a run that are damaged: each is refused in one line, or holds what was written."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults import runs
from benchmarks.faults.batches import each_alone
from benchmarks.faults.report import Failure

BLOCK = 512
r"""Bytes of a block that is lost or moved at a time."""


def _flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _overwrite(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    for place in range(at, min(len(content), at + rng.randint(1, 16))):
        content[place] = rng.randrange(256)


def _zero(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at : at + BLOCK] = bytes(len(content[at : at + BLOCK]))


def _truncate(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _extend(content: bytearray, rng: random.Random) -> None:
    content += rng.randbytes(rng.randint(1, BLOCK))


def _remove(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    del content[at : at + rng.randint(1, BLOCK)]


def _swap(content: bytearray, rng: random.Random) -> None:
    size = min(BLOCK, len(content) // 3)
    if len(content) < 6:
        return
    one, other = sorted(rng.sample(range(0, len(content) - size), 2))
    if other - one >= size:
        kept = content[one : one + size]
        content[one : one + size] = content[other : other + size]
        content[other : other + size] = kept


def _double(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at:at] = content[at : at + rng.randint(1, BLOCK)]


KINDS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "a flipped bit": _flip,
    "bytes overwritten": _overwrite,
    "a block of zeros": _zero,
    "cut off": _truncate,
    "bytes after the end": _extend,
    "bytes lost": _remove,
    "two blocks exchanged": _swap,
    "bytes twice": _double,
}


def _checkpoint(run: Path) -> Any:
    from pyro_aevb.runs.checkpoint import load_checkpoint

    return load_checkpoint(run / "checkpoint.pt")


def _settings(run: Path) -> Any:
    from pyro_aevb.runs.run import Run

    return Run.open(run).settings


def _results(run: Path) -> Any:
    from pyro_aevb.runs.run import Run

    return Run.open(run).results


def _arrays(run: Path) -> Any:
    from pyro_aevb.runs.run import Run

    found = Run.open(run)
    return {name: found.per_datum("predictive", name).tolist() for name in ("log_likelihood",)}


def _scored(run: Path) -> Any:
    r"""What another scoring leaves of the results and of the values of each datum."""
    from pyro_aevb.runs.run import Run

    found = Run.open(run)
    found.add("mine", {}, {"mine": {"value": 1.0}}, {"mine": np.ones(3)})
    after = found.results
    metrics = {name: metric for name, metric in after["metrics"].items() if name != "mine"}
    return metrics, [*after["settings"]], _arrays(run)


def _read_twice(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    r"""What is read before another scoring, and after it."""
    return lambda run: (read(run), _scored(run))


READ = {
    "checkpoint.pt": _checkpoint,
    "settings.yaml": _settings,
    "results.json": _read_twice(_results),
    "results.nc": _read_twice(_arrays),
}
r"""What is read of each file; ``history.csv`` is a copy of a part of the checkpoint."""


def tried(number: int, seed: int, where: Path) -> Iterator[Failure | None]:
    r"""Damage files; yields what is wrong after each, or None.

    Arguments:
        number: How many.
        seed: Fixes which file is damaged where and how.
        where: A folder to work in.
    """
    runs.made(runs.fit("SVI", "whole", True), where)
    whole, broken = where / "whole", where / "broken"
    shutil.copytree(whole, broken, dirs_exist_ok=True)
    contents = {name: (whole / name).read_bytes() for name in READ}
    copied = shutil.copytree(whole, where / "copied")
    wanted = {}
    for name, read in READ.items():
        wanted[name] = read(copied)
        for written, before in contents.items():
            (copied / written).write_bytes(before)
    rng = random.Random(seed)
    plans = [(rng.choice([*READ]), rng.choice([*KINDS]), rng.random()) for _ in range(number)]

    def attempt(plan: tuple[str, str, float]) -> str:
        name, kind, at = plan
        content, rng = bytearray(contents[name]), random.Random(at)
        while content == contents[name]:  # what changes nothing is no damage
            KINDS[kind](content, rng)
        (broken / name).write_bytes(content)
        try:
            found = READ[name](broken)
        finally:
            for written, before in contents.items():
                (broken / written).write_bytes(before)
        return "" if runs.same(found, wanted[name]) else "is read, with other content"

    def called(plan: tuple[str, str, float]) -> str:
        return f"{plan[0]}, {plan[1]} ({plan[2]})"

    yield from each_alone(plans, attempt, called, where)
