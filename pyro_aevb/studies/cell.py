r"""What is known of a cell: a JSON file beside its run, and why it failed if it did."""

import hashlib
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyro_aevb.errors import UsageError
from pyro_aevb.runs.directories import SETTINGS
from pyro_aevb.runs.earlier import current
from pyro_aevb.runs.run import Run
from pyro_aevb.runs.writing import write_whole
from pyro_aevb.studies.declare import FIT, Cell

SECTIONS = ("corrupted", "against")
r"""The sections of ``results.json`` that hold metrics on other input than the test data."""

OVER_THE_RUN = ("cosine", "iwae")
r"""Schedules of the learning rate that depend on the number of epochs."""


@dataclass
class Record:
    r"""What a cell was asked for and what came out.

    Arguments:
        settings: The settings of the run, as declared.
        scores: The settings of its further scorings by name, as declared.
        looks: What ``results.json`` held, by epoch and by scoring.
        seconds: The seconds spent in all, interrupted work that was done again included.
        machine: The processor that it ran on, and the number of its cores.
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
        asked, (_, source) = asked_of(cell), _source(cell)
        path, run = _beside(cell, out, ".json"), out / cell.path
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
        last = cell.looks[-1]
        said = another(
            cell,
            record.settings,
            record.source,
            lambda: Run(run).settings.get("epochs", last),
        )
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
            record = cls(**json.loads(path.read_text("utf-8")))
            for look in record.looks.values():
                look.update({of: current(results) for of, results in look.items()})
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
        path = _beside(cell, out, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(self), indent=1) + "\n")


def failure(cell: Cell, out: Path) -> str | None:
    r"""Why a cell failed when it was last tried, in one line."""
    path = _beside(cell, out, ".error")
    if not path.is_file():
        return None
    return (path.read_text("utf-8").strip().splitlines() or ["failed"])[-1]


def note_failure(cell: Cell, out: Path, error: BaseException | str | None) -> None:
    r"""Keep why a cell failed, with where it did; None forgets it."""
    path = _beside(cell, out, ".error")
    if error is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(error, str):
        write_whole(path, error + "\n")
        return
    said = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, UsageError):
        said = f"{type(error).__name__}: {said}"
    write_whole(path, "".join(traceback.format_exception(error)) + f"\n{said}\n")


def asked_of(cell: Cell) -> dict[str, Any]:
    r"""The ``settings`` and the ``scores`` of a cell, as JSON gives them back."""
    asked: dict[str, Any] = json.loads(
        json.dumps({"settings": cell.settings, "scores": cell.scores})
    )
    return asked


def another(
    cell: Cell, settings: Mapping[str, Any], source: str | None, epochs: Callable[[], int]
) -> str | None:
    r"""Why a run is another than a cell's: a setting has changed, or the pair's file, or the length
    where the schedule is one :data:`OVER_THE_RUN`.

    Arguments:
        cell: The cell as it is declared now.
        settings, source: What the run was made with, see :class:`Record`.
        epochs: Gives the number of epochs that the run was made for.
    """
    before, now = settings, asked_of(cell)["settings"]
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            return f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
    file, there = _source(cell)
    if None not in (source, there) and source != there:
        return f"{file} has changed"
    schedule, last = cell.settings.get("schedule"), cell.looks[-1]
    if schedule in OVER_THE_RUN and (length := epochs()) != last:
        return f"epochs was {length} and is now {last}, and the schedule {schedule} depends on it"
    return None


def _source(cell: Cell) -> tuple[str, str | None]:
    r"""The file that a cell's pair is defined in, and a hash of what it holds."""
    pair = cell.settings.get("pair")
    file = pair.partition(":")[0] if isinstance(pair, str) else ""
    if not file.endswith(".py") or not Path(file).is_file():
        return file, None
    return file, hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _beside(cell: Cell, out: Path, suffix: str) -> Path:
    path = out / cell.path
    return path.with_name(path.name + suffix)
