r"""What is known of a cell, wherever it ran: its numbers, in a line of a page's ``cells.jsonl``.

Each line says of which study it is and at which scale.
"""

import json
import math
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.errors import UsageError
from pyro_aevb.reports.comparison import wrong
from pyro_aevb.runs.earlier import current_metrics
from pyro_aevb.runs.locking import in_turn
from pyro_aevb.runs.run import Run, seconds_per_epoch
from pyro_aevb.runs.writing import write_whole
from pyro_aevb.studies.cell import SECTIONS, Record, another, asked_of
from pyro_aevb.studies.declare import FIT, HISTORY, Cell, Scale

CELLS = "cells.jsonl"
r"""The name of the file in which a page keeps the cells."""

IMAGES, CLOCK = "num_train", "training_seconds"
r"""The names of numbers that no table has, the training data and the seconds up to a look."""

Numbers = dict[str, dict[str, float | None]]
r"""Values by epochs, then by quantity (see :class:`~.declare.Table`); None is not defined."""

NESTED = {"iwae_bound": ("ess", "pareto_k")}
r"""Parts of a metric's entry that have a name of their own, ``SCORING/iwae_bound.pareto_k``."""
REPEATS = "repeats"
r"""The values that a metric is the mean of are ``SCORING/METRIC.repeats.0`` and on."""


ERROR = "classification_error"
MOST = 10**8
r"""No more data than so many are read of one line."""


class Elsewhere(UsageError):
    r"""What is asked for is not among the numbers, and the run is not in the study's directory."""


@dataclass(frozen=True)
class Known:
    r"""A cell's numbers at its looks, and the settings that they were computed with.

    Arguments:
        settings, scores, source, seconds, machine: See :class:`~.cell.Record`.
        environments: The machines and versions that computed the numbers.
        numbers: The numbers, by epochs and quantity.
        wrong: Which test data a classifier got wrong in the end, see :func:`pack`; for others None.
    """

    settings: dict[str, Any]
    scores: dict[str, Any]
    numbers: Numbers
    seconds: float
    machine: str
    environments: list[str]
    source: str | None = None
    wrong: str | None = None

    @classmethod
    def of(cls, record: Record, run: Run) -> "Known":
        r"""What a record and its run hold; of a history that is too short, nothing.

        Raises:
            UsageError: The run's history is damaged.
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
            _wrong(record, run),
        )

    def misfit(self, cell: Cell) -> str | None:
        r"""Why these are not the numbers of a cell as it is declared, or not all of them."""
        said = another(cell, self.settings, self.source, lambda: max(map(int, self.numbers)))
        if said is not None:
            return said
        last = cell.looks[-1]  # a run that is over makes no earlier look any more
        there = scorings(self.numbers.get(str(last), {}))
        for name in (FIT, *cell.scores):
            if name not in there:
                return f"it has no {name} after {last} epochs"
            if name != FIT and self.scores.get(name) != asked_of(cell)["scores"][name]:
                return f"{name} was scored with other settings"
        return None


def scorings(numbers: Mapping[str, float | None]) -> set[str]:
    r"""The names of the scorings that numbers are from."""
    return {quantity.partition("/")[0] for quantity in numbers if "/" in quantity}


def pack(flags: np.ndarray) -> str:
    r"""A flag of each test datum in few characters: their number, a colon, and a bit for each in
    base 64, compressed.

    Arguments:
        flags: The flags, boolean, ``(N,)``.
    """
    bits = zlib.compress(np.packbits(flags).tobytes(), 9)
    return f"{len(flags)}:{b64encode(bits).decode()}"


def unpack(text: str) -> np.ndarray:
    r"""What :func:`pack` was given.

    Raises:
        ValueError: It is nothing that it makes, or of more than :data:`MOST` data.
    """
    count, _, bits = text.partition(":")
    if not 0 < int(count) <= MOST:
        raise ValueError(f"{count} is no number of data")
    size = -(-int(count) // 8)
    try:
        # No further than what it says: a few bytes may become very many.
        made = zlib.decompressobj().decompress(b64decode(bits, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(made) != size:
        raise ValueError(f"not the bits of {count} data")
    return np.unpackbits(np.frombuffer(made, np.uint8), count=int(count)).astype(bool)


def _wrong(record: Record, run: Run) -> str | None:
    r"""What the run's predictions get wrong, if they are those of the record's last error."""
    last = record.looks[max(record.looks, key=int)].get(FIT, {"metrics": {}})
    error = last["metrics"].get(ERROR, {}).get("value")
    if error is None:
        return None
    with suppress(UsageError):  # of another study's maker, which keeps no predictions
        flags = wrong(run)
        return pack(flags) if math.isclose(100 * flags.mean(), error, abs_tol=1e-6) else None
    return None


def read_cells(path: Path, study: str, scale: Scale) -> dict[Path, Known]:
    r"""The cells of a ``cells.jsonl``, by their paths; of two lines for one the later counts.

    Arguments:
        path: The file; without it there are none.
        study, scale: The study and the scale that every line must name.

    Raises:
        UsageError: It is damaged, or of another study or scale.
    """
    cells: dict[Path, Known] = {}
    if not path.is_file():
        return cells
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
            of = given.pop("study"), given.pop("scale")
            key, known = _parsed(given)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"line {number} of {path} is no cell; remove it") from error
        if of != (study, scale):
            raise UsageError(
                f"{path} is of the study {of[0]} at the scale {of[1]}; choose another --page"
            )
        cells[key] = known
    return cells


def _parsed(given: dict[str, Any]) -> tuple[Path, Known]:
    path, known = Path(given.pop("cell")), Known(**given)
    known.settings.keys(), known.scores.keys(), float(known.seconds)
    "".join([known.machine, *known.environments])
    max(map(int, known.numbers))
    if known.wrong is not None:
        unpack(known.wrong)
    for values in known.numbers.values():
        np.array(list(values.values()), dtype=float)
    current = {epochs: _current(values) for epochs, values in known.numbers.items()}
    return path, replace(known, numbers=current)


def _current(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    r"""Numbers of a cell under the names that they have now, in their order."""
    scored: dict[str, dict[str, Any]] = {}
    for quantity, value in numbers.items():
        scoring, _, metric = quantity.partition("/")
        scored.setdefault(scoring, {})[metric] = {"value": value}
    read: dict[str, float | None] = {}
    for quantity, value in numbers.items():
        metrics = scored[quantity.partition("/")[0]]
        if "log_likelihood" not in metrics or "iwae_bound" in metrics:
            read[quantity] = value
        else:
            read |= _flat(quantity.partition("/")[0], current_metrics(metrics))
    return read


def _flat(scoring: str, metrics: Mapping[str, Any]) -> dict[str, float | None]:
    r"""The numbers of a scoring's metrics, by quantity."""
    found = {name: metric["value"] for name, metric in metrics.items()}
    for name in NESTED.keys() & metrics.keys():
        found |= {f"{name}.{part}": metrics[name].get(part) for part in NESTED[name]}
    for name, metric in metrics.items():
        found |= {f"{name}.{REPEATS}.{i}": v for i, v in enumerate(metric.get(REPEATS, ()))}
    return {f"{scoring}/{name}": value for name, value in found.items()}


def write_cells(path: Path, study: str, scale: Scale, cells: Mapping[Path, Known]) -> None:
    r"""Put cells into a ``cells.jsonl``; others that it has stay, and those of other commands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_turn(path.with_name(path.name + ".lock")):
        earlier = read_cells(path, study, scale)
        cells = {**earlier, **{key: _as_before(cells[key], earlier.get(key)) for key in cells}}
        lines = (
            json.dumps({"study": study, "scale": scale, "cell": key.as_posix(), **asdict(known)})
            for key, known in sorted(cells.items(), key=lambda item: item[0])
        )
        write_whole(path, "".join(f"{line}\n" for line in lines))


def _as_before(known: Known, earlier: Known | None) -> Known:
    r"""With what an earlier line of the same numbers says of each datum, where this one cannot."""
    if known.wrong is None and earlier is not None and earlier.numbers == known.numbers:
        return replace(known, wrong=earlier.wrong)
    return known


def _numbers(record: Record, run: Run) -> Numbers:
    rows = run.history
    numbers: Numbers = {}
    for epochs, look in record.looks.items():
        here: dict[str, float | None] = {}
        if FIT in look:
            here |= {name: look[FIT][name] for name in ("parameters", IMAGES)}
            if len(rows) >= (trained := look[FIT]["epochs"]):
                clock = run.clock(look[FIT][IMAGES])
                here["seconds_per_epoch"] = seconds_per_epoch(clock)
                if trained > 0:
                    here[CLOCK] = float(clock[trained - 1])
                    here |= {f"{HISTORY}/{name}": v for name, v in rows[trained - 1].items()}
        for name, results in look.items():
            found = _metrics(results, name)
            here |= _flat(name, found)
        # What is infinite or no number has no place in JSON, and no mean.
        finite = {name for name, value in here.items() if value is None or math.isfinite(value)}
        numbers[epochs] = {name: here[name] if name in finite else None for name in here}
    return numbers


def _metrics(results: Mapping[str, Any], scoring: str) -> dict[str, Any]:
    r"""The metrics of a scoring: of its sections alone, if it has any of its own."""
    own = () if scoring == FIT else SECTIONS
    sections = [entry for name in own for entry in results.get(name, {}).values()]
    return {name: m for part in sections or [results] for name, m in part["metrics"].items()}
