r"""A study's tables: means and spreads over seeds beside what was published, and as text."""

from dataclasses import dataclass

import numpy as np

from pyro_aevb.reports.tables import csv_table
from pyro_aevb.studies.collect import Collected
from pyro_aevb.studies.declare import Cell, Key, Table

BETTER, WORSE = "▲", "▼"


@dataclass(frozen=True)
class Entry:
    r"""One number of a table: its values over seeds, and what was published.

    Arguments:
        values: The values of the seeds that are there, or the better half of their repeats, shape
            ``(seeds,)``; NaN where the quantity is not defined.
        published: The value to compare with.
        lower_is_better: Whether a lower value is the better one.
    """

    values: np.ndarray
    published: float | None = None
    lower_is_better: bool = False

    @classmethod
    def of(cls, collected: Collected, table: Table, key: Key) -> "Entry":
        r"""The entry of a table in a row and a column, as far as it is known."""
        values: list[float] = []
        for cell in collected.of(table.grid, *key):
            if table.better_half:
                values += collected.repeats(cell, table.quantity)
                continue
            value = collected.number(cell, table.quantity)
            if value is not None and table.relative_to is not None:
                value = _relative(collected, value, cell, table)
            if value is not None:
                values.append(value)
        if table.better_half:
            values = sorted(values, reverse=not table.lower_is_better)[: -(-len(values) // 2)]
        published = table.published.values.get(key) if table.published else None
        return cls(np.array(values, dtype=float), published, table.lower_is_better)

    @property
    def mean(self) -> float | None:
        r"""The mean over seeds; None where there is none, or where it is not defined."""
        known = len(self.values) > 0 and np.isfinite(self.values).all()
        return float(self.values.mean()) if known else None

    @property
    def spread(self) -> float | None:
        r"""The standard deviation over seeds, with n - 1; None of fewer than two."""
        several = self.mean is not None and len(self.values) > 1
        return float(self.values.std(ddof=1)) if several else None

    @property
    def gain(self) -> float | None:
        r"""By how much the mean is better than what was published; negative if it is worse."""
        if self.mean is None or self.published is None:
            return None
        return (self.mean - self.published) * (-1 if self.lower_is_better else 1)


def _relative(collected: Collected, value: float, cell: Cell, table: Table) -> float | None:
    r"""The value over that of the same seed in the column that the table refers to."""
    assert table.relative_to is not None
    for other in collected.of(table.grid, cell.row, table.relative_to):
        if other.seed == cell.seed:
            machines = {collected.known[path].machine for path in (other.path, cell.path)}
            if table.quantity == "seconds_per_epoch" and len(machines) > 1:
                return None
            base = collected.number(other, table.quantity)
            return None if base is None else value / base
    return None


def as_csv(collected: Collected, table: Table) -> str:
    r"""A line for each entry, with every digit and the value of every seed."""
    remarks = table.published.remarks if table.published else {}
    rows = []
    for key in _keys(collected, table):
        entry = Entry.of(collected, table, key)
        rows.append(
            {
                "row": key[0],
                "column": key[1],
                "quantity": table.quantity,
                "mean": entry.mean,
                "spread": entry.spread,
                "seeds": None if table.better_half else len(entry.values),
                "values": ";".join(repr(float(value)) for value in entry.values),
                "published": entry.published,
                "gain": entry.gain,
                "remark": remarks.get(key),
            }
        )
    return csv_table(rows)


def printed(collected: Collected, table: Table) -> tuple[list[str], list[list[str]]]:
    r"""The head of a table and its rows, in the order of their declaration."""
    keys = _keys(collected, table)
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*keys, strict=True))
    cells = [
        [row, *(_text(collected, table, (row, c)) if (row, c) in keys else "" for c in columns)]
        for row in rows
    ]
    return [collected.study.grid(table.grid).row_title, *columns], cells


def _keys(collected: Collected, table: Table) -> list[Key]:
    shown = table.columns
    return [key for key in collected.keys(table.grid) if shown is None or key[1] in shown]


def _text(collected: Collected, table: Table, key: Key) -> str:
    r"""``mean ± spread [seeds] (mark published)``, as far as there is any of it."""
    entry, parts = Entry.of(collected, table, key), []
    if entry.mean is not None:
        parts.append(f"{entry.mean:.{table.places}f}")
        if entry.spread is not None:
            parts[-1] += f" ± {entry.spread:.{table.places}f}"
        seeds = collected.study.grid(table.grid).seeds(collected.seeds)
        if 1 < len(entry.values) < seeds and not table.better_half:
            parts.append(f"[{len(entry.values)} of {seeds} seeds]")
    elif len(entry.values):
        parts.append("not defined")
    published = table.published
    if published is not None:
        star = "*" if key in published.remarks else ""
        if entry.published is not None:
            mark = ""
            if entry.gain is not None and collected.scale == "full":
                mark = f"{BETTER if entry.gain >= 0 else WORSE} "
            parts.append(f"({mark}{entry.published}{star})")
        elif key in published.aside:
            parts.append(f"({published.aside[key]}{star})")
    return " ".join(parts)
