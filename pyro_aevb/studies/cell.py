r"""What is known of a cell: a JSON file beside its run, and why it failed if it did."""

import hashlib
import json
import os
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyro_aevb.errors import UsageError
from pyro_aevb.runs.run import SETTINGS, Run
from pyro_aevb.studies.declare import FIT, Cell

SECTIONS = ("corrupted", "against")
r"""Of ``results.json``: metrics on other input than the test data."""

OVER_THE_RUN = ("cosine", "iwae")
r"""Schedules that the number of epochs bends."""


@dataclass
class Record:
    r"""What a cell was asked for and what came out.

    Arguments:
        settings: Of the run, as declared.
        scores: Of its further scorings, as declared.
        looks: By epoch, then by scoring: what ``results.json`` held.
        seconds: Spent in all, interrupted work that was done again included.
        machine: What it ran on.
        source: A hash of the file that the pair is defined in; None for one that is no file.
    """

    settings: dict[str, Any]
    scores: dict[str, Any]
    looks: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    machine: str = ""
    source: str | None = None

    @classmethod
    def of(cls, cell: Cell, out: Path) -> "Record":
        r"""The record of a cell, new if there is none.

        Raises:
            UsageError: It is damaged, of other settings than the cell's, or its run is gone.
        """
        asked = json.loads(json.dumps({"settings": cell.settings, "scores": cell.scores}))
        file, source = source_of(cell.settings.get("pair"))
        path, run = _path(cell, out), out / cell.path
        # What a page shows: paths within the study's directory, none of this machine.
        again = (
            f"remove {cell.path}, {cell.path}.json and the cell's line in the page's cells.jsonl, "
            "if it has one, to run it again"
        )
        if not path.is_file():
            return cls(**asked, source=source)
        record = cls._read(path, f"{cell.path}.json")
        if not (run / SETTINGS).is_file():
            if not record.looks:  # nothing was trained: other settings are as good
                return cls(**asked, source=source)
            raise UsageError(f"{cell.path} is gone or no run any more; put it back, or {again}")
        said = difference(record.settings, asked["settings"])
        if said is None and None not in (record.source, source) and record.source != source:
            said = f"{file} has changed"
        if said is None and cell.settings.get("schedule") in OVER_THE_RUN:
            said = of_another_length(cell, Run(run).settings.get("epochs", cell.looks[-1]))
        last = cell.looks[-1]
        trained = max((len(Run(run).history), *map(int, record.looks)))
        if said is None and trained > last and str(last) not in record.looks:
            said = f"it was trained for {trained} epochs, and is now to be scored after {last}"
        if said is not None:
            raise UsageError(f"{said}; {again}")
        for name, now in asked["scores"].items():
            if record.scores.get(name, now) != now:
                for found in record.looks.values():
                    found.pop(name, None)
        record.scores |= asked["scores"]  # those that are declared no more keep their settings
        return record

    @classmethod
    def _read(cls, path: Path, name: str) -> "Record":
        try:
            record = cls(**json.loads(path.read_text()))
            float(record.seconds), record.settings.keys(), record.scores.keys()
            for epochs, found in record.looks.items():
                for name, results in found.items():
                    int(epochs), results["metrics"].keys(), results["environment"].strip()
                    if name == FIT:
                        [int(results[key]) for key in ("parameters", "num_train", "epochs")]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{name} is damaged; remove it to score the cell again") from error
        return record

    def missing(self, cell: Cell, out: Path) -> list[tuple[int, str]]:
        r"""The scorings that are still to do, as epochs and names.

        Of looks before the last, only those that the run has not passed.
        """
        trained = len(Run(out / cell.path).history)
        passed = max((min(trained, cell.looks[-1]), *(int(epochs) for epochs in self.looks)))
        return [
            (epochs, name)
            for epochs in cell.looks
            for name in (FIT, *cell.scores_at(epochs))
            if epochs >= passed and name not in self.looks.get(str(epochs), {})
        ]

    def write(self, cell: Cell, out: Path) -> None:
        path = _path(cell, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".part")
        beside.write_text(json.dumps(asdict(self), indent=1) + "\n")
        os.replace(beside, path)


def failure(cell: Cell, out: Path) -> str | None:
    r"""Why a cell failed when it was last tried, in one line."""
    path = _failure_path(cell, out)
    if not path.is_file():
        return None
    return (path.read_text().strip().splitlines() or ["failed"])[-1]


def note_failure(cell: Cell, out: Path, error: BaseException | str | None) -> None:
    r"""Keep why a cell failed, with where it did; None forgets it."""
    path = _failure_path(cell, out)
    if error is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(error, str):
        path.write_text(error + "\n")
        return
    said = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, UsageError):
        said = f"{type(error).__name__}: {said}"
    path.write_text("".join(traceback.format_exception(error)) + f"\n{said}\n")


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    r"""The first setting that has changed."""
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            return f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
    return None


def of_another_length(cell: Cell, before: int) -> str | None:
    r"""Why a run over so many epochs is another than the cell's, where its schedule is one
    :data:`OVER_THE_RUN`.
    """
    schedule, now = cell.settings.get("schedule"), cell.looks[-1]
    if schedule not in OVER_THE_RUN or before == now:
        return None
    return f"epochs was {before} and is now {now}, and the schedule {schedule} depends on it"


def source_of(pair: Any) -> tuple[str, str | None]:
    r"""A pair's file, and a hash of what it holds."""
    file = pair.partition(":")[0] if isinstance(pair, str) else ""
    if not file.endswith(".py") or not Path(file).is_file():
        return file, None
    return file, hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _path(cell: Cell, out: Path) -> Path:
    path = out / cell.path
    return path.with_name(path.name + ".json")


def _failure_path(cell: Cell, out: Path) -> Path:
    path = out / cell.path
    return path.with_name(path.name + ".error")
