r"""What the cells of a study say so far: numbers, histories, trained pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyro_aevb.errors import UsageError
from pyro_aevb.runs.run import Run
from pyro_aevb.studies.cell import Record, failure
from pyro_aevb.studies.declare import FIT, HISTORY, Cell, Key, Scale, Study
from pyro_aevb.studies.known import CLOCK, IMAGES, REPEATS, Elsewhere, Known, scorings

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared


class Collected:
    r"""The cells of a study and what is known of them.

    Arguments:
        study: The declaration.
        scale: ``smoke`` or ``full``.
        seeds: The number of runs of each cell.
        out: The study's directory.
        data_root: Where data sets lie.
        finished: What is known of cells that were finished earlier, by their paths; what is in the
            directory counts before it.
    """

    def __init__(
        self,
        study: Study,
        scale: Scale,
        seeds: int,
        out: Path,
        data_root: str | None = None,
        finished: Mapping[Path, Known] | None = None,
    ) -> None:
        self.study, self.scale, self.seeds = study, scale, seeds
        self.out, self.data_root = out, data_root
        self.cells = study.cells(scale, seeds)
        self.earlier = dict(finished or {})
        self.known: dict[Path, Known] = {}
        self.elsewhere: set[Path] = set()
        r"""The cells whose runs are not in the study's directory."""
        self.unfinished: list[tuple[Cell, str]] = []
        r"""The cells with work left to do, and why."""
        for cell in self.cells:
            if (why := self._collect(cell)) is not None:
                self.unfinished.append((cell, why))

    def _collect(self, cell: Cell) -> str | None:
        r"""Take up what is known of a cell.

        Returns:
            Why it is unfinished, if it is.
        """
        why = None
        try:
            record = Record.of(cell, self.out)
            if missing := record.missing(cell, self.out):
                why = failure(cell, self.out) or _to_do(record, missing)
            if record.looks:
                self.known[cell.path] = Known.of(record, self.run(cell))
        except UsageError as error:
            why = str(error)
        earlier = self.earlier.get(cell.path)
        if why is None or earlier is None:
            return why
        if (misfit := earlier.misfit(cell)) is not None:
            if cell.path in self.known or why.startswith(misfit):
                return why
            return f"{why}; an earlier one is another: {misfit}"
        self.known[cell.path] = earlier
        self.elsewhere.add(cell.path)
        return None

    def finished_here(self) -> dict[Path, Known]:
        r"""The cells whose finished runs are in the directory, by their paths."""
        others = self.elsewhere | {cell.path for cell, _ in self.unfinished}
        return {path: known for path, known in self.known.items() if path not in others}

    @property
    def hidden(self) -> int:
        r"""The number of runs that are there of seeds beyond those shown."""
        shown = {cell.path for cell in self.cells}
        folders = {path.parent for path in shown}
        there = {
            path.relative_to(self.out).with_suffix("")
            for folder in folders
            for path in (self.out / folder).glob("seed*.json")
        }
        there |= {path for path in self.earlier if path.parent in folders}
        return sum(path.name.removeprefix("seed").isdigit() for path in there - shown)

    def progress(self) -> list[str]:
        r"""For each grid how many cells are finished, and what the others may take, judged by
        finished ones: a cell's other seeds, else its column's, else the grid's.
        """
        waiting = {cell.path for cell, _ in self.unfinished}
        lines = []
        for grid in self.study.grids:
            cells = [cell for cell in self.cells if cell.grid == grid.name]
            spent = [(c, self.known[c.path].seconds) for c in cells if c.path not in waiting]
            line = f"{grid.name}: {len(spent)} of {len(cells)} cells are finished"
            if 0 < len(spent) < len(cells):
                rest = sum(_likely(cell, spent) for cell in cells if cell.path in waiting)
                line += f"; the others may take {rest / 60:.0f} minutes in all"
            elif not spent:
                line += ": none is there to judge the time by"
            lines.append(line)
        return lines

    def of(self, grid: str, row: str, column: str) -> list[Cell]:
        r"""The seeds of a cell of which anything is known."""
        key = (grid, row, column)
        return [
            cell
            for cell in self.cells
            if (cell.grid, cell.row, cell.column) == key and cell.path in self.known
        ]

    def run(self, cell: Cell) -> Run:
        return Run(self.out / cell.path)

    def prepared(self, cell: Cell) -> "Prepared":
        r"""The cell's trained pair and its data, on the CPU.

        Raises:
            Elsewhere: The run is not in the study's directory.
        """
        from pyro_aevb.runs.prepare import restore

        self._here(cell)
        return restore(self.run(cell), "cpu", self.data_root, cell.pair)

    def number(self, cell: Cell, quantity: str, epochs: int | None = None) -> float | None:
        r"""A quantity of one run.

        Arguments:
            cell: The cell of the run.
            quantity: The name of the quantity, see :class:`~.declare.Table`.
            epochs: The epochs of the look; None is the last.

        Returns:
            The value; None if it is not there yet, NaN if it is not defined.

        Raises:
            UsageError: There is no such quantity, or the scoring has no metric of this name.
        """
        self.study.grid(cell.grid).check_quantity(quantity)
        found = self._numbers(cell, epochs)
        if quantity not in found:
            scoring = quantity.rpartition("/")[0]
            if (scoring if scoring not in ("", HISTORY) else FIT) not in scorings(found):
                return None
            if cell.path in self.elsewhere:
                raise Elsewhere(f"{quantity} of {cell} is not known, and its run is not here")
            if scoring in ("", HISTORY):
                self._rows(cell)
            names = [name for name in found if name.startswith(f"{scoring}/")]
            raise UsageError(f"no metric {quantity!r}: {cell} has {', '.join(names)}")
        value = found[quantity]
        return np.nan if value is None else float(value)

    def repeats(self, cell: Cell, quantity: str) -> list[float]:
        r"""The values that a quantity of a finished run is the mean of; none where not kept."""
        found, name = self._numbers(cell, None), f"{quantity}.{REPEATS}."
        return [float(v) for k, v in found.items() if k.startswith(name) and v is not None]

    def _rows(self, cell: Cell) -> list[dict[str, float | None]]:
        rows, trained = self.run(cell).history, max(map(int, self.known[cell.path].numbers))
        if len(rows) < trained:
            raise UsageError(
                f"history.csv of {cell} has {len(rows)} rows, and it was trained for {trained} "
                f"epochs; python -m pyro_aevb.fit --resume --out {self.out / cell.path} writes it "
                "anew"
            )
        return rows

    def passed_over(self, cell: Cell) -> list[tuple[int, str]]:
        r"""The scorings before the last look that are not known of a finished cell, as epochs and
        names.
        """
        if cell in [other for other, _ in self.unfinished]:
            return []
        return [
            (epochs, name)
            for epochs in cell.looks[:-1]
            for name in (FIT, *cell.scores_at(epochs))
            if name not in scorings(self._numbers(cell, epochs))
        ]

    def reached(self, cell: Cell) -> bool:
        r"""Whether a cell has been trained up to its last look."""
        return bool(self._numbers(cell, None))

    def _numbers(self, cell: Cell, epochs: int | None) -> Mapping[str, float | None]:
        return self.known[cell.path].numbers.get(str(epochs or cell.looks[-1]), {})

    def history(self, cell: Cell, column: str) -> list[float | None]:
        r"""A column of the run's ``history.csv``: a value for each epoch.

        Raises:
            UsageError: There is no such column, or the run is not in the study's directory.
        """
        self._here(cell)
        rows = self._rows(cell)
        if rows and column not in rows[0]:
            raise UsageError(f"no column {HISTORY}/{column}: {cell} has {', '.join(rows[0])}")
        return [row[column] for row in rows[: cell.looks[-1]]]

    def num_train(self, cell: Cell) -> float:
        r"""The number of data that a run is trained on.

        Raises:
            Elsewhere: That is not known of it.
        """
        for numbers in self.known[cell.path].numbers.values():
            if (images := numbers.get(IMAGES)) is not None:
                return images
        raise Elsewhere(f"of {cell} it is not known how many data it is trained on")

    def clock(self, cell: Cell) -> dict[int, float]:
        r"""Seconds of training up to each look, as far as they are known."""
        looks = self.known[cell.path].numbers.items()
        seconds = {int(epochs): numbers.get(CLOCK) for epochs, numbers in looks}
        return {epochs: known for epochs, known in seconds.items() if known is not None}

    def _here(self, cell: Cell) -> None:
        if cell.path in self.elsewhere:
            raise Elsewhere(f"the run of {cell} is not here")

    def keys(self, grid: str) -> Sequence[Key]:
        return self.study.grid(grid).keys(self.scale)


def _to_do(record: Record, missing: Sequence[tuple[int, str]]) -> str:
    r"""Why a cell that did not fail is unfinished."""
    if not record.looks:
        return "not run yet"
    (epochs, name), *others = missing
    more = f" and {len(others)} more" if others else ""
    return f"still to be scored: {name} after {epochs} epochs{more}"


def _likely(cell: Cell, spent: Sequence[tuple[Cell, float]]) -> float:
    r"""The mean of the seconds of those cells that are most like a cell."""
    seeds = [seconds for c, seconds in spent if (c.row, c.column) == (cell.row, cell.column)]
    column = [seconds for c, seconds in spent if c.column == cell.column]
    return float(np.mean(seeds or column or [seconds for _, seconds in spent]))
