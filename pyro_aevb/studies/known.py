r"""What is known of a cell, wherever it ran: its numbers, in a line of a page's ``cells.jsonl``."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.errors import UsageError
from pyro_aevb.runs import Run
from pyro_aevb.studies.declarations import FIT, HISTORY, Cell
from pyro_aevb.studies.records import SECTIONS, Record, difference, of_another_length, source_of

CELLS = "cells.jsonl"
r"""What a page keeps the cells in."""

IMAGES, CLOCK = "num_train", "training_seconds"
r"""Names of what no table has, the training data and the seconds of training up to a look."""

Numbers = dict[str, dict[str, float | None]]
r"""By epochs, then by quantity (see :class:`~.declarations.Table`); None is not defined."""


class Elsewhere(UsageError):
    r"""What is asked for is in a run that is not in the study's directory."""


@dataclass(frozen=True)
class Known:
    r"""A cell's numbers at its looks, and what they are of.

    Arguments:
        settings, scores, source, seconds, machine: See :class:`~.records.Record`.
        environments: The versions of what computed them.
        numbers: What came out.
    """

    settings: dict[str, Any]
    scores: dict[str, Any]
    numbers: Numbers
    seconds: float
    machine: str
    environments: list[str]
    source: str | None = None

    @classmethod
    def of(cls, record: Record, run: Run) -> "Known":
        r"""What a record and its run hold.

        Raises:
            UsageError: The run's history is damaged, or shorter than its training.
        """
        found = [results for look in record.looks.values() for results in look.values()]
        return cls(
            record.settings,
            record.scores,
            _numbers(record, run),
            record.seconds,
            record.machine,
            sorted({results["environment"] for results in found}),
            record.source,
        )

    def misfit(self, cell: Cell) -> str | None:
        r"""Why these are not the numbers of a cell as it is declared, or not all of them."""
        asked = json.loads(json.dumps({"settings": cell.settings, "scores": cell.scores}))
        file, source = source_of(cell.settings.get("pair"))
        if (said := difference(self.settings, asked["settings"])) is not None:
            return said
        if None not in (self.source, source) and self.source != source:
            return f"{file} has changed"
        if (said := of_another_length(cell, max(map(int, self.numbers)))) is not None:
            return said
        last = cell.looks[-1]  # a run that is over makes no earlier look any more
        there = sources(self.numbers.get(str(last), {}))
        for name in (FIT, *cell.scores):
            if name not in there:
                return f"it has no {name} after {last} epochs"
            if name != FIT and self.scores.get(name) != asked["scores"][name]:
                return f"{name} was scored with other settings"
        return None


def sources(numbers: Mapping[str, float | None]) -> set[str]:
    r"""Of which scorings numbers are."""
    return {quantity.partition("/")[0] for quantity in numbers if "/" in quantity}


def read_cells(path: Path) -> dict[Path, Known]:
    r"""The cells of a ``cells.jsonl``, by their paths; of two lines for one the later counts.

    Raises:
        UsageError: It is not there, or damaged.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"cannot read {path}: {said}; it should be a page's {CELLS}") from error
    cells = {}
    for number, line in enumerate(lines, 1):
        try:
            key, known = _parsed(line)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"line {number} of {path} is no cell; remove it") from error
        cells[key] = known
    return cells


def _parsed(line: str) -> tuple[Path, Known]:
    given = json.loads(line)
    path, known = Path(given.pop("cell")), Known(**given)
    known.settings.keys(), known.scores.keys(), float(known.seconds), "".join(known.environments)
    max(map(int, known.numbers))
    for values in known.numbers.values():
        np.array(list(values.values()), dtype=float)
    return path, known


def write_cells(path: Path, cells: Mapping[Path, Known]) -> None:
    r"""Write a ``cells.jsonl``."""
    lines = (
        json.dumps({"cell": key.as_posix(), **asdict(cells[key])}, allow_nan=False)
        for key in sorted(cells)
    )
    beside = path.with_name(path.name + ".part")
    beside.write_text("".join(f"{line}\n" for line in lines))
    os.replace(beside, path)


def _numbers(record: Record, run: Run) -> Numbers:
    fits = [look[FIT] for look in record.looks.values() if FIT in look]
    trained = max((int(fit["epochs"]) for fit in fits), default=0)
    rows = run.history
    if len(rows) < trained:
        raise UsageError(
            f"history.csv of {run.path} has {len(rows)} rows, and it was trained for {trained} "
            f"epochs; python -m pyro_aevb.fit --resume --out {run.path} writes it anew"
        )
    clock = run.clock() if fits else ()
    numbers: Numbers = {}
    for epochs, look in record.looks.items():
        here: dict[str, float | None] = {}
        if FIT in look:
            here |= {name: look[FIT][name] for name in ("parameters", IMAGES)}
            here["seconds_per_epoch"] = run.seconds_per_epoch()
            if (last := min(int(epochs), len(rows))) > 0:
                here[CLOCK] = float(clock[last - 1])
                here |= {f"{HISTORY}/{name}": value for name, value in rows[last - 1].items()}
        for name, results in look.items():
            found = _metrics(results, name)
            here |= {f"{name}/{metric}": entry["value"] for metric, entry in found.items()}
        # What is infinite or no number has no place in JSON, and no mean.
        finite = {name for name, value in here.items() if value is None or math.isfinite(value)}
        numbers[epochs] = {name: here[name] if name in finite else None for name in here}
    return numbers


def _metrics(results: Mapping[str, Any], source: str) -> dict[str, Any]:
    r"""The metrics of a scoring: of its sections alone, if it has any of its own."""
    own = () if source == FIT else SECTIONS
    sections = [entry for name in own for entry in results.get(name, {}).values()]
    return {name: m for part in sections or [results] for name, m in part["metrics"].items()}
