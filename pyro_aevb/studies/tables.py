r"""A study's tables as Markdown, CSV and LaTeX."""

from pyro_aevb.reports.tables import csv_table, latex_table, markdown_table
from pyro_aevb.studies.collect import Collected
from pyro_aevb.studies.declare import Key, Table
from pyro_aevb.studies.entries import Entry

BETTER, WORSE = "▲", "▼"


def mark(entry: Entry) -> str:
    r"""Whether the mean meets what was published, or falls short of it; empty if unknown."""
    if entry.gain is None:
        return ""
    return BETTER if entry.gain >= 0 else WORSE


def markdown(collected: Collected, table: Table, notes: list[str]) -> str:
    r"""The table with its text and notes."""
    return markdown_table(table.text, *_printed(collected, table), notes)


def latex(collected: Collected, table: Table, notes: list[str]) -> str:
    r"""The table as a ``tabular`` with its notes."""
    return latex_table(table.title, *_printed(collected, table), notes)


def as_csv(collected: Collected, table: Table) -> str:
    r"""A line for each entry, with every digit and the value of every seed."""
    remarks = table.published.remarks if table.published else {}
    rows = []
    for key in collected.keys(table.grid):
        entry = Entry.of(collected, table, key)
        rows.append(
            {
                "row": key[0],
                "column": key[1],
                "quantity": table.quantity,
                "mean": entry.mean,
                "spread": entry.spread,
                "seeds": len(entry.values),
                "values": ";".join(repr(float(value)) for value in entry.values),
                "published": entry.published,
                "gain": entry.gain,
                "remark": remarks.get(key),
            }
        )
    return csv_table(rows)


def _printed(collected: Collected, table: Table) -> tuple[list[str], list[list[str]]]:
    r"""The head of the table and its rows, in the order of their declaration."""
    keys = collected.keys(table.grid)
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*keys, strict=True))
    cells = [
        [row, *(_text(collected, table, (row, c)) if (row, c) in keys else "" for c in columns)]
        for row in rows
    ]
    return [collected.study.grid(table.grid).row_title, *columns], cells


def _text(collected: Collected, table: Table, key: Key) -> str:
    r"""``mean ± spread [seeds] (mark published)``, as far as there is any of it."""
    entry, parts = Entry.of(collected, table, key), []
    if entry.undefined:
        parts.append("not defined")
    if entry.mean is not None:
        parts.append(f"{entry.mean:.{table.places}f}")
        if entry.spread is not None:
            parts[-1] += f" ± {entry.spread:.{table.places}f}"
        seeds = collected.study.grid(table.grid).seeds(collected.seeds)
        if 1 < len(entry.values) < seeds:
            parts.append(f"[{len(entry.values)} of {seeds} seeds]")
    published = table.published
    if published is not None:
        star = "*" if key in published.remarks else ""
        if entry.published is not None:
            marked = mark(entry) if collected.scale == "full" else ""
            parts.append(f"({marked} {entry.published}{star})".replace("( ", "("))
        elif key in published.aside:
            parts.append(f"({published.aside[key]}{star})")
    return " ".join(parts)
