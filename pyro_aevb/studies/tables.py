r"""A study's tables as Markdown, CSV and LaTeX."""

import csv
import io
import re

from pyro_aevb.studies.collect import Collected, Entry
from pyro_aevb.studies.declarations import Key, Table
from pyro_aevb.tables import markdown_table

BETTER, WORSE = "▲", "▼"


def mark(entry: Entry) -> str:
    r"""Whether the mean meets what was published, or falls short of it; empty if unknown."""
    if entry.gain is None:
        return ""
    return BETTER if entry.gain >= 0 else WORSE


def markdown(collected: Collected, table: Table, notes: list[str]) -> str:
    r"""The table with its title and notes."""
    rows, columns, entries = _arranged(collected, table)
    cells = [
        [row, *(_text(collected, table, entries.get((row, c)), (row, c)) for c in columns)]
        for row in rows
    ]
    corner = collected.study.grid(table.grid).row_title
    return markdown_table(table.text, [corner, *columns], cells, notes)


def latex(collected: Collected, table: Table) -> str:
    r"""The table as a ``tabular``."""
    rows, columns, entries = _arranged(collected, table)
    corner = collected.study.grid(table.grid).row_title

    def line(words: list[str]) -> str:
        return " & ".join(map(_escaped, words)) + r" \\"

    lines = [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\hline", line([corner, *columns])]
    lines.append(r"\hline")
    for row in rows:
        texts = [_text(collected, table, entries.get((row, c)), (row, c)) for c in columns]
        lines.append(line([row, *texts]))
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def as_csv(collected: Collected, table: Table) -> str:
    r"""A line for each entry, at full precision, with the value of every seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("row column quantity mean spread seeds values published gain remark".split())
    remarks = table.published.remarks if table.published else {}
    for (row, column), entry in _arranged(collected, table)[2].items():
        values = ";".join(repr(float(value)) for value in entry.values)
        numbers = [entry.mean, entry.spread, len(entry.values), values, entry.published, entry.gain]
        shown = ["" if number is None else number for number in numbers]
        writer.writerow([row, column, table.quantity, *shown, remarks.get((row, column), "")])
    return text.getvalue()


def _arranged(collected: Collected, table: Table) -> tuple[list[str], list[str], dict[Key, Entry]]:
    r"""Rows and columns in the order of their declaration, and what is where."""
    keys = collected.keys(table.grid)
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*keys, strict=True))
    return rows, columns, {key: collected.entry(table, key) for key in keys}


def _text(collected: Collected, table: Table, entry: Entry | None, key: Key) -> str:
    r"""``mean ± spread [seeds] (mark published)``, as far as there is any of it."""
    if entry is None:
        return ""
    parts = []
    if entry.undefined:
        parts.append("not defined")
    if entry.mean is not None:
        parts.append(f"{entry.mean:.{table.places}f}")
        if entry.spread is not None:
            parts[-1] += f" ± {entry.spread:.{table.places}f}"
        if len(entry.values) < collected.seeds:
            parts.append(f"[{len(entry.values)} of {collected.seeds} seeds]")
    published = table.published
    if published is not None:
        star = "*" if key in published.remarks else ""
        if entry.published is not None:
            parts.append(f"({mark(entry)} {entry.published}{star})".replace("( ", "("))
        elif key in published.aside:
            parts.append(f"({published.aside[key]}{star})")
    return " ".join(parts)


def _escaped(text: str) -> str:
    for character, command in (
        (BETTER, r"$\triangle$"),
        (WORSE, r"$\triangledown$"),
        ("±", r"$\pm$"),
    ):
        text = text.replace(character, command)
    return re.sub(r"(?<!\\)([&%#_])", r"\\\1", text)
