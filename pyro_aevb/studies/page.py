r"""A study's page: tables, figures, what is met and what is not, and how it all came about."""

import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyro_aevb
from pyro_aevb.errors import UsageError
from pyro_aevb.reports.tables import latex_table, markdown_table
from pyro_aevb.runs.writing import write_whole
from pyro_aevb.studies.collect import Collected
from pyro_aevb.studies.declare import Figure, Key, Table, slug
from pyro_aevb.studies.figures import EARLIER, NUMBERS
from pyro_aevb.studies.known import CELLS, Elsewhere, write_cells
from pyro_aevb.studies.tables import BETTER, WORSE, Entry, as_csv, printed

FINDINGS = "findings.md"
LEGEND = (
    "Each entry is the mean over seeds ± the standard deviation over seeds; without ± there is one "
    "seed. What was published "
    f"stands in parentheses: {BETTER} the mean here is at least as good, {WORSE} it is worse; "
    "without a mark there is nothing to compare with, or it is of something else, as its remark "
    "says. An asterisk refers to a remark below the first table that has these values. A quantity "
    'is "not defined" where a pair has no such thing: codes without a density have no KL, and no '
    "bound or likelihood."
)
SMOKE = (
    "**This is the smoke scale: a few steps on tiny data, to see that every kind of cell runs. "
    "Nothing can be read from its numbers.**"
)


def write_page(collected: Collected, name: str, folder: Path) -> tuple[Path, list[str]]:
    r"""Write ``NAME.md``, and into ``NAME/`` the tables as CSV and LaTeX, the figures, and the
    numbers of the finished cells, beside those that are there already.

    What the tables say, in words, is taken from ``NAME/findings.md``, where somebody wrote it: it
    belongs to the numbers of this page, and not to the declarations, of which others may make
    pages with other numbers. A line ``![](FIGURE.png)`` of it is the place of the study's figure
    of that name; the others come after the tables.

    A table or a figure that cannot be made costs itself alone; the page says why.

    Arguments:
        collected: The study and its finished cells.
        name: The name of the study, or of its file.
        folder: The folder that the page goes into.

    Returns:
        The path of the page; and a line for each table and figure that is not on it.
    """
    study, beside = collected.study, folder / name.removesuffix(".py")
    beside.mkdir(parents=True, exist_ok=True)
    missing: list[str] = []

    def attempt(what: str, make: Callable[[], str]) -> str:
        try:
            return make()
        except Exception as error:  # also what a figure of the user's raises
            said = " ".join(str(error).split())
            kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
            missing.append(f"{what}: {kind}{said}")
            return f"*Not shown: {kind}{said}*"

    parts = [f"# {study.title}", study.text]
    if collected.scale == "smoke":
        parts.append(SMOKE)
    figures = {
        figure.name: attempt(f"figure {figure.name!r}", partial(_figure, collected, figure, beside))
        for figure in study.figures
    }
    if (beside / FINDINGS).is_file():
        parts += ["## Findings", attempt(FINDINGS, partial(_findings, beside, figures))]
    parts += ["## Tables", LEGEND]
    remarked: set[int] = set()
    for table in study.tables:
        made = attempt(
            f"table {table.title!r}", partial(_table, collected, table, beside, remarked)
        )
        parts += [f"### {table.title}", made]
    if collected.scale == "full" and study.published():
        met = attempt("comparison", lambda: "\n\n".join(_published(collected)))
        parts += ["## Against what was published", met]
    if figures:
        parts += ["## Figures", *figures.values()]
    chosen = [f"- {grid.name}: {grid.chosen}" for grid in study.grids]
    parts += ["## How the settings were chosen", "\n".join(chosen)]
    parts += ["## Unfinished cells", _unfinished(collected)]
    parts += ["## Circumstances", _circumstances(collected, name)]
    write_cells(beside / CELLS, name, collected.scale, collected.finished_here())
    page = folder / f"{beside.name}.md"
    write_whole(page, "\n\n".join(part.strip() for part in parts) + "\n")
    return page, missing


def _findings(beside: Path, figures: dict[str, str]) -> str:
    r"""The findings with their figures, which are taken out of `figures`."""
    text = (beside / FINDINGS).read_text(encoding="utf-8")
    line = re.compile(r"^[ \t]*!\[\]\((.*)\.png\)[ \t]*$", re.MULTILINE)
    if strange := [name for name in line.findall(text) if name not in figures]:
        raise UsageError(f"the study has no figure {', '.join(map(repr, strange))}")
    return line.sub(lambda found: figures.pop(found[1], ""), text)


def _table(collected: Collected, table: Table, beside: Path, remarked: set[int]) -> str:
    file = slug(table.title).lower()
    remarks = _remarks(collected, table)
    write_whole(beside / f"{file}.csv", as_csv(collected, table))
    columns, rows = printed(collected, table)
    write_whole(beside / f"{file}.tex", latex_table(table.title, columns, rows, remarks))
    notes = []
    if table.published is not None and id(table.published) not in remarked:
        remarked.add(id(table.published))
        notes = [f"\\{remark}" for remark in remarks]
    text = markdown_table(table.text, columns, rows, notes)
    files = f"[CSV]({beside.name}/{file}.csv), [LaTeX]({beside.name}/{file}.tex)"
    return f"{text}\nGrid {table.grid}: {files}"


def _remarks(collected: Collected, table: Table) -> list[str]:
    r"""What the asterisks of a table refer to."""
    about: dict[str, list[str]] = {}
    for key, remark in table.published.remarks.items() if table.published else ():
        if key in collected.keys(table.grid):
            about.setdefault(remark, []).append(", ".join(key))
    return [f"* {'; '.join(keys)}: {remark}" for remark, keys in about.items()]


def _published(collected: Collected) -> Iterator[str]:
    r"""For each published table: how many values are met, by any table here and by each, and
    those that are not.
    """
    for published, tables in collected.study.published():
        measured = [
            (key, table, entry, entry.gain)
            for table in tables
            for key in published.values
            if key in collected.keys(table.grid)
            and (entry := Entry.of(collected, table, key)).gain is not None
        ]
        best: dict[Key, Any] = {}
        for key, table, entry, gain in measured:
            here = (gain, f"{entry.mean:.{table.places}f}", table.title)
            best[key] = max(best.get(key, here), here)
        missed = {key: best[key] for key in published.values if key in best and best[key][0] < 0}
        said = f"{published.title}, {len(published.values)} values."
        if len(tables) > 1:
            each = []
            for table in tables:
                own = [(gain, entry.spread) for _, of, entry, gain in measured if of is table]
                met = sum(gain >= 0 for gain, _ in own)
                near = sum(abs(gain) < (spread or 0) for gain, spread in own)
                each.append(f"{met} of {len(own)} measured in the table *{table.title}*")
                if near:
                    each[-1] += f" (closer than the standard deviation over seeds: {near})"
            said += f" Met or beaten by table: {'; '.join(each)}."
        said += (
            f" By {'any of these' if len(tables) > 1 else 'a mean here'}: met or beaten "
            f"{len(best) - len(missed)}, not met {len(missed)}, not measured yet "
            f"{len(published.values) - len(best)}."
        )
        if published.caveat:
            said += f" {published.caveat}"
        rows = [
            [*key, f"{published.values[key]}", mean, f"{-gain:.2f}", title]
            + [published.tried.get(key, "")]
            for key, (gain, mean, title) in missed.items()
        ]
        columns = ["row", "column", "published", "best here", "short by", "table", "what was tried"]
        yield markdown_table(said, columns, rows, []) if rows else said


def _figure(collected: Collected, figure: Figure, beside: Path) -> str:
    path = beside / f"{figure.name}.png"
    numbers, note = path.with_suffix(NUMBERS), ""
    which = {"grid": figure.grid, "rows": figure.rows, "columns": figure.columns}
    try:
        with TemporaryDirectory(dir=beside) as drawn:
            if numbers.is_file():
                shutil.copy(numbers, Path(drawn, EARLIER))
            figure.draw(collected, Path(drawn, path.name), **which)
            for file in (path, numbers):
                if (new := Path(drawn, file.name)).is_file():
                    os.replace(new, file)
                else:
                    file.unlink(missing_ok=True)
    except Elsewhere as error:
        if not path.is_file():
            raise
        note = f" (drawn earlier, of runs that may be others than those in the tables: {error})"
    if not path.is_file():
        return f"*{figure.caption}* (not drawn: there is nothing to draw yet)"
    if numbers.is_file():
        note += f" [CSV]({beside.name}/{numbers.name})"
    return f"![{figure.caption}]({beside.name}/{path.name})\n\n*{figure.caption}*{note}"


def _unfinished(collected: Collected) -> str:
    r"""By grid and reason, the cells and, unless it is all of them, their seeds; then how many
    finished ones lack looks on the way, which a run that is over makes no more.
    """
    groups: dict[tuple[str, str], dict[Key, list[int]]] = {}
    for cell, why in collected.unfinished:
        group = groups.setdefault((cell.grid, why), {})
        group.setdefault((cell.row, cell.column), []).append(cell.seed)
    lines = []
    for (grid, why), cells in groups.items():
        number, named = collected.study.grid(grid).seeds(collected.seeds), []
        for (row, column), seeds in cells.items():
            some = f" (seed {', '.join(map(str, seeds))})" if len(seeds) < number else ""
            named.append(f"{row} / {column}{some}")
        lines.append(f"- {grid}: {'; '.join(named)}: {why}")
    short = Counter(cell.grid for cell in collected.cells if collected.passed_over(cell))
    lines += [
        f"- {grid}: finished, without all of the scorings before the end of training: {count}"
        for grid, count in short.items()
    ]
    return "\n".join(lines) or "None."


def _circumstances(collected: Collected, name: str) -> str:
    records = [
        (cell.grid, collected.known[cell.path])
        for cell in collected.cells
        if cell.path in collected.known
    ]
    environments = {environment for _, known in records for environment in known.environments}
    shown = name.removesuffix(".py")
    command = f"python -m pyro_aevb.studies {shlex.quote(name)} --scale {collected.scale}"
    done = Counter(cell.grid for cell in collected.cells)
    done.subtract(cell.grid for cell, _ in collected.unfinished)
    lines = [f"- `{command} --seeds {collected.seeds}`, pyro_aevb {pyro_aevb.__version__}"]
    lines += [f"- {machine}" for machine in sorted({known.machine for _, known in records})]
    lines += [f"- {environment}" for environment in sorted(environments)]
    for grid in collected.study.grids:
        minutes = [known.seconds / 60 for name, known in records if name == grid.name]
        lines.append(
            f"- {grid.name}: {done[grid.name]} cells finished, {sum(minutes):.1f} minutes of "
            "training and scoring in all"
        )
    if collected.elsewhere:
        lines.append(
            f"- {len(collected.elsewhere)} cells are known by their numbers alone, from an earlier "
            "page"
        )
    lines.append(f"- the numbers of the finished cells: [{CELLS}]({shown}/{CELLS})")
    if collected.hidden:
        lines.append(
            f"- not shown, of seeds from {collected.seeds} on: {collected.hidden} of the runs there"
        )
    return "\n".join(lines)
