r"""What is known of a cell: a JSON file beside its run, and why it failed if it did."""

import json
import os
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyro_aevb.errors import UsageError
from pyro_aevb.runs import SETTINGS
from pyro_aevb.studies.declarations import FIT, Cell


@dataclass
class Record:
    r"""What a cell was asked for and what came out.

    Arguments:
        settings: Of the run, as declared.
        scores: Of its further scorings, as declared.
        looks: By epoch, then by scoring: what ``results.json`` held.
        seconds: Spent in all, interrupted work that was done again included.
        machine: What it ran on.
    """

    settings: dict[str, Any]
    scores: dict[str, Any]
    looks: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    machine: str = ""

    @classmethod
    def of(cls, cell: Cell, out: Path) -> "Record":
        r"""The record of a cell, new if there is none.

        Raises:
            UsageError: It is damaged, of other settings than the cell's, or its run is gone.
        """
        asked = json.loads(json.dumps({"settings": cell.settings, "scores": cell.scores}))
        path, run = _path(cell, out), out / cell.path
        if not path.is_file():
            return cls(**asked)
        try:
            record = cls(**json.loads(path.read_text()))
        except (json.JSONDecodeError, TypeError) as error:
            raise UsageError(f"{path} is damaged; remove it to score the cell again") from error
        if not (run / SETTINGS).is_file():
            if not record.looks:  # nothing was trained: other settings are as good
                return cls(**asked)
            raise UsageError(f"{run} is gone; put it back, or remove {path} to run the cell again")
        for name in {*record.settings, *asked["settings"]}:
            before, now = record.settings.get(name), asked["settings"].get(name)
            if before != now:
                raise UsageError(
                    f"{name} was {before!r} and is now {now!r}; remove {run} and {path} to run the "
                    "cell again"
                )
        for name, before in record.scores.items():
            if name in asked["scores"] and before != asked["scores"][name]:
                for found in record.looks.values():
                    found.pop(name, None)
        record.scores = asked["scores"]
        return record

    def missing(self, cell: Cell) -> list[tuple[int, str]]:
        r"""The scorings that are still to do, as epochs and names.

        Of looks before the last, only those that the run has not passed, and only what ``fit``
        computes.
        """
        passed = max((int(epochs) for epochs in self.looks), default=-1)
        return [
            (epochs, name)
            for epochs in cell.looks
            for name in (FIT, *(cell.scores if epochs == cell.looks[-1] else ()))
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
    return path.read_text().strip().splitlines()[-1]


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


def _path(cell: Cell, out: Path) -> Path:
    path = out / cell.path
    return path.with_name(path.name + ".json")


def _failure_path(cell: Cell, out: Path) -> Path:
    path = out / cell.path
    return path.with_name(path.name + ".error")
