r"""What the cells of a study say so far: numbers over seeds, histories, trained pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_aevb.errors import UsageError
from pyro_aevb.runs import Run
from pyro_aevb.studies.declarations import FIT, HISTORY, Cell, Key, Scale, Study, Table
from pyro_aevb.studies.records import SECTIONS, Record, failure

if TYPE_CHECKING:
    from pyro_aevb.preparation import Prepared


@dataclass(frozen=True)
class Entry:
    r"""One number of a table: its values over seeds, and what was published.

    Arguments:
        values: One for each seed that is there; NaN where the quantity is not defined.
        published: The value to compare with.
        lower_is_better: Otherwise higher is.
    """

    values: np.ndarray
    published: float | None = None
    lower_is_better: bool = False

    @property
    def mean(self) -> float | None:
        r"""The mean over seeds; None where there is none, or where it is not defined."""
        return float(self.values.mean()) if self.measured else None

    @property
    def spread(self) -> float | None:
        r"""The standard deviation over seeds, with n - 1; None of fewer than two."""
        return float(self.values.std(ddof=1)) if self.measured and len(self.values) > 1 else None

    @property
    def measured(self) -> bool:
        return len(self.values) > 0 and bool(np.isfinite(self.values).all())

    @property
    def undefined(self) -> bool:
        r"""Whether there are runs, in which the quantity is not defined."""
        return len(self.values) > 0 and not self.measured

    @property
    def gain(self) -> float | None:
        r"""By how much the mean is better than what was published; negative if it is worse."""
        if self.mean is None or self.published is None:
            return None
        return (self.mean - self.published) * (-1 if self.lower_is_better else 1)


class Collected:
    r"""The cells of a study and what is known of them.

    Arguments:
        study: What is declared.
        scale: ``smoke`` or ``full``.
        seeds: How many runs of each cell.
        out: The study's directory.
        data_root: Where data sets lie.
    """

    def __init__(
        self, study: Study, scale: Scale, seeds: int, out: Path, data_root: str | None = None
    ) -> None:
        self.study, self.scale, self.seeds = study, scale, seeds
        self.out, self.data_root = out, data_root
        self.cells = study.cells(scale, seeds)
        self.records: dict[Path, Record] = {}
        self.unfinished: list[tuple[Cell, str]] = []
        r"""The cells with work left to do, and why."""
        for cell in self.cells:
            try:
                record = Record.of(cell, out)
                missing = record.missing(cell, out)
            except UsageError as error:
                self.unfinished.append((cell, str(error)))
                continue
            self.records[cell.path] = record
            if missing:
                self.unfinished.append((cell, failure(cell, out) or "not run yet"))

    @property
    def hidden(self) -> int:
        r"""How many runs of further seeds lie in the study's directory."""
        numbers = [
            path.stem.removeprefix("seed")
            for folder in {self.out / cell.path.parent for cell in self.cells}
            for path in folder.glob("seed*.json")
        ]
        return sum(number.isdigit() and int(number) >= self.seeds for number in numbers)

    def progress(self) -> list[str]:
        r"""For each grid how many cells are finished, and what the others may take, judged by
        those.
        """
        waiting = {cell.path for cell, _ in self.unfinished}
        lines = []
        for grid in self.study.grids:
            cells = [cell for cell in self.cells if cell.grid == grid.name]
            spent = [self.records[c.path].seconds for c in cells if c.path not in waiting]
            line = f"{grid.name}: {len(spent)} of {len(cells)} cells are finished"
            if 0 < len(spent) < len(cells):
                minutes = (len(cells) - len(spent)) * sum(spent) / len(spent) / 60
                line += f"; the others may take {minutes:.0f} minutes in all"
            lines.append(line)
        return lines

    def of(self, grid: str, row: str, column: str) -> list[Cell]:
        r"""The seeds of a cell of which anything is known."""
        key = (grid, row, column)
        return [
            cell
            for cell in self.cells
            if (cell.grid, cell.row, cell.column) == key
            and cell.path in self.records
            and self.records[cell.path].looks
        ]

    def run(self, cell: Cell) -> Run:
        return Run(self.out / cell.path)

    def prepared(self, cell: Cell) -> "Prepared":
        r"""The cell's trained pair and its data, on the CPU."""
        from pyro_aevb.preparation import restore

        return restore(self.run(cell), "cpu", self.data_root)

    def number(self, cell: Cell, quantity: str, epochs: int | None = None) -> float | None:
        r"""A quantity of one run.

        Arguments:
            cell: Whose.
            quantity: See :class:`~.declarations.Table`.
            epochs: At which look; None is the last.

        Returns:
            None if it is not there yet, NaN if it is not defined.

        Raises:
            UsageError: There is no such quantity, or the scoring has no metric of this name.
        """
        self.study.grid(cell.grid).check_quantity(quantity)
        found = self.records[cell.path].looks.get(str(epochs or cell.looks[-1]), {})
        if quantity == "parameters":
            return float(found[FIT]["parameters"]) if FIT in found else None
        if quantity == "seconds_per_epoch":
            seconds = self.run(cell).seconds_per_epoch()
            return None if FIT not in found else np.nan if seconds is None else seconds
        source, _, name = quantity.partition("/")
        if source == HISTORY:
            if FIT not in found:
                return None
            last = self.history(cell, name)[-1:]
            return np.nan if not last or last[0] is None else last[0]
        if source not in found:
            return None
        metrics = _metrics(found[source], source)
        if name not in metrics:
            raise UsageError(f"no metric {quantity!r}: {cell} has {', '.join(metrics)}")
        value = metrics[name]["value"]
        return np.nan if value is None else float(value)

    def history(self, cell: Cell, column: str) -> list[float | None]:
        r"""A column of the run's ``history.csv``: a value for each epoch.

        Raises:
            UsageError: There is no such column.
        """
        rows, looks = self.run(cell).history, self.records[cell.path].looks
        trained = max(int(found[FIT]["epochs"]) for found in looks.values() if FIT in found)
        if len(rows) < trained:
            raise UsageError(
                f"history.csv of {cell} has {len(rows)} rows, and it was trained for {trained} "
                f"epochs; python -m pyro_aevb.fit --resume --out {self.out / cell.path} writes it "
                "anew"
            )
        if rows and column not in rows[0]:
            raise UsageError(f"no column {HISTORY}/{column}: {cell} has {', '.join(rows[0])}")
        return [row[column] for row in rows[: cell.looks[-1]]]

    def num_train(self, cell: Cell) -> int:
        r"""How many data a run is trained on."""
        looks = self.records[cell.path].looks.values()
        return int(next(found[FIT]["num_train"] for found in looks if FIT in found))

    def entry(self, table: Table, key: Key) -> Entry:
        r"""One number of a table."""
        values = []
        for cell in self.of(table.grid, *key):
            value = self.number(cell, table.quantity)
            if value is not None and table.relative_to is not None:
                value = self._relative(value, cell, table)
            if value is not None:
                values.append(value)
        published = table.published.values.get(key) if table.published else None
        return Entry(np.array(values, dtype=float), published, table.lower_is_better)

    def _relative(self, value: float, cell: Cell, table: Table) -> float | None:
        assert table.relative_to is not None
        for other in self.of(table.grid, cell.row, table.relative_to):
            if other.seed == cell.seed:
                base = self.number(other, table.quantity)
                return None if base is None else value / base
        return None

    def keys(self, grid: str) -> Sequence[Key]:
        return self.study.grid(grid).keys(self.scale)


def _metrics(results: Mapping[str, Any], source: str) -> dict[str, Any]:
    r"""The metrics of a scoring: of its sections alone, if it has any of its own."""
    own = () if source == FIT else SECTIONS
    sections = [entry for name in own for entry in results.get(name, {}).values()]
    return {name: m for part in sections or [results] for name, m in part["metrics"].items()}
