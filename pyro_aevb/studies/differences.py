r"""By how much columns of a grid differ from a reference column, on the same test data.

Each picture is called as those of :mod:`pyro_aevb.studies.figures` are, which say what the
arguments are.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from pyro_aevb.errors import UsageError
from pyro_aevb.reports.comparison import each_datum, mcnemar, paired
from pyro_aevb.reports.plots import canvas
from pyro_aevb.reports.tables import csv_table
from pyro_aevb.runs.run import Run
from pyro_aevb.runs.writing import write_whole
from pyro_aevb.studies.collect import Collected
from pyro_aevb.studies.declare import FIT, Key, Published
from pyro_aevb.studies.figures import EARLIER, NUMBERS, keys_of, title_of
from pyro_aevb.studies.known import unpack

ERROR = "test/classification_error"
CLOSE = 1e-4
r"""An earlier difference is kept if it is within so much of that of the values known now."""
FAR = 5
r"""Differences of more than so many medians are written beside the others."""
WIDTH = 24
r"""Characters of a name in a line, so that long ones leave room for the panels."""


def paired_differences(
    collected: Collected,
    path: Path,
    reference: str,
    published: Published | None = None,
    quantity: str = ERROR,
    label: str = "",
    *,
    grid: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    r"""By how much a quantity of each column is above that of a reference, on the same test data.

    Of classification errors, with :math:`b` test data that only the one gets wrong and :math:`c`
    that only the reference does, of N, the difference is :math:`(b - c) / N`, and its standard
    error under no difference that of McNemar's test, :math:`\sqrt{b + c} / N`. Of other quantities
    it is the mean of the differences of single data, in nats, and its standard error that of the
    paired t-test. Two standard errors are drawn to each side. They are over test data, not over
    seeds: the first seed that is known of both columns is compared.

    Which test data a classifier gets wrong is kept beside the page (:class:`~.known.Known`), so
    that classifiers of several machines can be compared. Of other quantities both runs have to be
    in the study's directory. Where they are not, and of classifiers that were finished before this
    was kept, the line of the earlier picture stays, if its difference is still that of the two
    values in the tables.

    Beside the picture, with :data:`~.figures.NUMBERS` for the suffix, stands a line for each pair;
    of classification errors with b, c, and the exact p-value of the test (two-sided, binomial).

    Arguments:
        collected, path, grid, rows, columns: See :mod:`~.studies.figures`.
        reference: The column that the others are compared with.
        published: Values whose differences are drawn beside, hollow.
        quantity: As a :class:`~.declare.Table` takes it: a classification error, or a mean over
            test data, see :func:`~.comparison.each_datum`.
        label: What stands below the picture; by default so for classification errors.
    """
    drawn: dict[str, list[tuple[str, float, float, float | None]]] = {}
    earlier, lines = _earlier(path.with_name(EARLIER)), []
    for row, column in keys_of(collected, grid, rows, columns):
        if column == reference:
            continue
        line = _compared(collected, grid, row, column, reference, quantity)
        if line is None:
            known = earlier.get((row, column, reference))
            line = _still_true(collected, grid, quantity, known)
        if line is None:
            continue
        theirs = _difference(published.values if published else {}, row, column, reference)
        lines.append({**line, "published": "" if theirs is None else theirs})
        place = (column, float(line["difference"]), float(line["standard_error"]), theirs)
        drawn.setdefault(row, []).append(place)
    if drawn:
        write_whole(path.with_suffix(NUMBERS), csv_table(lines))
        titled = {title_of(collected, grid, row): values for row, values in drawn.items()}
        label = label or f"test error above that of {reference}, in per cent of the images"
        _intervals(titled, path, label)


def _compared(
    collected: Collected, grid: str, row: str, column: str, reference: str, quantity: str
) -> dict[str, Any] | None:
    r"""The line of a pair of which both are known datum by datum."""
    here = (_here(collected, grid, row, name, quantity) for name in (column, reference))
    pairs = [(one, other) for (a, one), (b, other) in product(*here) if a == b]
    if not pairs:
        return None
    one, other = pairs[0]
    if len(one) != len(other):
        raise UsageError(f"{row}: {column} and {reference} were tested on different data")
    n = len(one)
    line: dict[str, Any] = {"row": row, "column": column, "reference": reference, "num_data": n}
    if quantity != ERROR:
        found = paired(other, one)
        return {**line, "difference": found["value"], "standard_error": found["standard_error"]}
    b, c, p_value = mcnemar(one, other)
    return {
        **line,
        "only_column_wrong": b,
        "only_reference_wrong": c,
        "difference": 100 * (b - c) / n,
        "standard_error": 100 * math.sqrt(b + c) / n,
        "p_value": p_value,
    }


def _earlier(path: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    r"""The lines of an earlier picture, by row, column and reference."""
    text = path.read_text("utf-8") if path.is_file() else ""
    lines = [line for line in csv.DictReader(text.splitlines()) if "reference" in line]
    return {(line["row"], line["column"], line["reference"]): line for line in lines}


def _still_true(
    collected: Collected, grid: str, quantity: str, line: dict[str, str] | None
) -> dict[str, str] | None:
    r"""An earlier line, if its difference is that of the values that are known now."""
    if line is None:
        return None
    values = []
    for name in (line["column"], line["reference"]):
        cells = collected.of(grid, line["row"], name)
        value = collected.number(cells[0], quantity) if cells else None
        if value is None:
            return None
        values.append(value)
    return line if abs(values[0] - values[1] - float(line["difference"])) < CLOSE else None


def _difference(values: Mapping[Key, float], row: str, column: str, reference: str) -> float | None:
    both = values.get((row, column)), values.get((row, reference))
    return None if both[0] is None or both[1] is None else both[0] - both[1]


def _here(
    collected: Collected, grid: str, row: str, column: str, quantity: str
) -> list[tuple[int, np.ndarray]]:
    r"""By seed, a quantity of each test datum, where it is known."""
    scoring, _, metric = quantity.rpartition("/")
    found = []
    for cell in collected.of(grid, row, column):
        known = collected.known[cell.path]
        if quantity == ERROR and known.wrong is not None:
            found.append((cell.seed, unpack(known.wrong)))
        elif quantity != ERROR and cell.path not in collected.elsewhere and collected.reached(cell):
            run = collected.run(cell)
            if scoring != FIT:  # scored beside the run
                run = Run(run.path.with_name(f"{run.path.name}-{scoring}"))
            values, mean = each_datum(run, metric), collected.number(cell, quantity)
            if mean is None or not np.isclose(values.mean(), mean, rtol=1e-4, atol=1e-4):
                raise UsageError(f"of {quantity} of {cell} only the mean is kept, not each datum's")
            found.append((cell.seed, values))
    return found


def _intervals(
    drawn: Mapping[str, Sequence[tuple[str, float, float, float | None]]], path: Path, label: str
) -> None:
    count = max(len(values) for values in drawn.values())
    across = min(3, len(drawn))
    down = -(-len(drawn) // across)
    figure = canvas.blank(3.4 * across + 1.5, (0.3 * count + 0.8) * down + 0.8)
    all_axes = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (title, values) in zip(all_axes, drawn.items(), strict=False):
        places = np.arange(len(values))[::-1]
        axes.axvline(0, color="0.7", lw=1)
        means, errors = (np.array([value[i] for value in values]) for i in (1, 2))
        near = np.abs(means) <= FAR * max(np.median(np.abs(means)), 1e-9)
        shown = {"xerr": 2 * errors[near], "fmt": "o", "ms": 5, "capsize": 3, "color": "C0"}
        axes.errorbar(means[near], places[near], **shown)
        for mean, place in zip(means[~near], places[~near], strict=True):
            side = 1 if mean > 0 else 0  # what is far is told, not drawn to scale
            text = f"{mean:.1f} \N{RIGHTWARDS ARROW}" if side else f"\N{LEFTWARDS ARROW} {mean:.1f}"
            at = axes.get_yaxis_transform()
            axes.text(
                0.98 if side else 0.02,
                place,
                text,
                transform=at,
                ha="right" if side else "left",
                va="center",
                fontsize="small",
                color="C0",
            )
        known = [(v[3], p) for v, p in zip(values, places, strict=True) if v[3] is not None]
        if known:
            axes.plot(*zip(*known, strict=True), "D", mfc="none", color="C1", label="published")
        axes.set_yticks(places, [fill(canvas.plain(value[0]), WIDTH) for value in values])
        axes.set_ylim(-0.6, len(values) - 0.4)
        axes.set_title(canvas.plain(title), fontsize="medium")
    for axes in all_axes[len(drawn) :]:
        axes.set_axis_off()
    if any(value[3] is not None for values in drawn.values() for value in values):
        figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside upper right")
    figure.supxlabel(label, fontsize="medium")
    canvas.save(figure, path)
