r"""The entries of a study's tables: means and spreads over seeds, beside what was published."""

from dataclasses import dataclass

import numpy as np

from pyro_aevb.studies.collect import Collected
from pyro_aevb.studies.declare import Cell, Key, Table


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

    @classmethod
    def of(cls, collected: Collected, table: Table, key: Key) -> "Entry":
        r"""What a table has in a row and a column, as far as it is known."""
        values = []
        for cell in collected.of(table.grid, *key):
            value = collected.number(cell, table.quantity)
            if value is not None and table.relative_to is not None:
                value = _relative(collected, value, cell, table)
            if value is not None:
                values.append(value)
        published = table.published.values.get(key) if table.published else None
        return cls(np.array(values, dtype=float), published, table.lower_is_better)

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
