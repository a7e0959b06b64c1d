r"""Pictures of a study's classifiers: first layers, and errors in pairs and along a grid.

Each is called as those of :mod:`pyro_aevb.studies.figures` are, which say what the arguments are.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.errors import UsageError
from pyro_aevb.reports.comparison import mcnemar, wrong
from pyro_aevb.reports.plots import canvas, panels
from pyro_aevb.reports.tables import csv_table
from pyro_aevb.runs.writing import write_whole
from pyro_aevb.studies.collect import Collected
from pyro_aevb.studies.declare import Key, Published
from pyro_aevb.studies.figures import EARLIER, NUMBERS, keys_of, title_of, trained

ERROR = "test/classification_error"
FAR = 5
r"""Differences of more than so many medians are written beside the others."""


def filters(collected: Collected, path: Path, units: int = 49, **which: Any) -> None:
    r"""The weights from the pixels to units of the first layer, each as a picture.

    A picture shows one unit's weights, grey where they are 0 and scaled by the largest of them. The
    units are those with the largest norms, the largest first.

    Arguments:
        collected, path, which: See :mod:`~.studies.figures`.
        units: How many.
    """
    shown: dict[str, np.ndarray] = {}
    for name, prepared in trained(collected, **which):
        found = prepared.pair.attribute("layers")
        layer = found[0] if found is not None else prepared.pair.attribute("encoder")
        weight = getattr(getattr(layer, "encoder", layer), "weight", None)
        if weight is None:
            raise UsageError(f"{name} has no first layer whose weights could be shown")
        rows = weight.detach().numpy()
        rows = rows if rows.shape[1] == math.prod(prepared.data.event_shape) else rows.T
        order = np.argsort(-np.linalg.norm(rows, axis=1))[:units]
        few = rows[order].reshape(-1, *prepared.data.event_shape)
        largest = np.abs(few).max(axis=tuple(range(1, few.ndim)), keepdims=True)
        shown[name] = 0.5 + 0.5 * few / largest
    if shown:
        panels.mosaics(shown, path)


def paired_differences(
    collected: Collected,
    path: Path,
    reference: str,
    published: Published | None = None,
    *,
    grid: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    r"""By how much each classifier's test error is above that of a reference, on the same images.

    With :math:`b` test data that only the one gets wrong and :math:`c` that only the reference
    does, of N, the difference of the errors is :math:`(b - c) / N`, and its standard error under
    no difference that of McNemar's test, :math:`\sqrt{b + c} / N`; two of them are drawn to each
    side. Beside the picture, with :data:`~.figures.NUMBERS` for the suffix, stands a line for each
    pair with b, c, and the exact p-value of the test (two-sided, binomial). Where a run is not in
    the study's directory the line of the earlier picture stays, if its difference is still that
    of the two test errors.

    Arguments:
        collected, path, grid, rows, columns: See :mod:`~.studies.figures`.
        reference: The column that the others are compared with.
        published: Values whose differences are drawn beside, hollow.
    """
    drawn: dict[str, list[tuple[str, float, float, float | None]]] = {}
    earlier, lines = _earlier(path.with_name(EARLIER)), []
    for row, column in keys_of(collected, grid, rows, columns):
        if column == reference:
            continue
        line = _compared(collected, grid, row, column, reference)
        if line is None:
            line = _still_true(collected, grid, earlier.get((row, column, reference)))
        if line is None:
            continue
        theirs = _difference(published.values if published else {}, row, column, reference)
        lines.append({**line, "published": "" if theirs is None else theirs})
        place = (column, float(line["difference"]), float(line["standard_error"]), theirs)
        drawn.setdefault(row, []).append(place)
    if drawn:
        write_whole(path.with_suffix(NUMBERS), csv_table(lines))
        titled = {title_of(collected, grid, row): values for row, values in drawn.items()}
        _intervals(titled, path, f"test error above that of {reference}, in per cent of the images")


def _compared(
    collected: Collected, grid: str, row: str, column: str, reference: str
) -> dict[str, Any] | None:
    r"""The line of a pair whose runs are both here."""
    one, other = (_wrong(collected, grid, row, name) for name in (column, reference))
    if one is None or other is None:
        return None
    if len(one) != len(other):
        raise UsageError(f"{row}: {column} and {reference} were tested on different data")
    b, c, p_value = mcnemar(one, other)
    n = len(one)
    return {
        "row": row,
        "column": column,
        "reference": reference,
        "only_column_wrong": b,
        "only_reference_wrong": c,
        "num_data": n,
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
    collected: Collected, grid: str, line: dict[str, str] | None
) -> dict[str, str] | None:
    r"""An earlier line, if its difference is that of the test errors that are known now."""
    if line is None:
        return None
    errors = []
    for name in (line["column"], line["reference"]):
        cells = collected.of(grid, line["row"], name)
        error = collected.number(cells[0], ERROR) if cells else None
        if error is None:
            return None
        errors.append(error)
    return line if abs(errors[0] - errors[1] - float(line["difference"])) < 1e-6 else None


def _difference(values: Mapping[Key, float], row: str, column: str, reference: str) -> float | None:
    both = values.get((row, column)), values.get((row, reference))
    return None if both[0] is None or both[1] is None else both[0] - both[1]


def _wrong(collected: Collected, grid: str, row: str, column: str) -> np.ndarray | None:
    r"""Which test data the first seed that is here gets wrong; None where there is none."""
    for cell in collected.of(grid, row, column):
        if cell.path in collected.elsewhere or not collected.reached(cell):
            continue
        return wrong(collected.run(cell))
    return None


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
        axes.set_yticks(places, [canvas.plain(value[0]) for value in values])
        axes.set_ylim(-0.6, len(values) - 0.4)
        axes.set_title(canvas.plain(title), fontsize="medium")
    for axes in all_axes[len(drawn) :]:
        axes.set_axis_off()
    if any(value[3] is not None for values in drawn.values() for value in values):
        figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside upper right")
    figure.supxlabel(label, fontsize="medium")
    canvas.save(figure, path)


def errors_along(
    collected: Collected,
    path: Path,
    groups: Mapping[str, Mapping[str, float]],
    xlabel: str,
    *,
    grid: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    r"""Test errors along a quantity that the columns of a grid vary, a panel for each row.

    Arguments:
        collected, path, grid, rows, columns: See :mod:`~.studies.figures`.
        groups: A line each, by name: the columns that it joins, with their abscissae.
        xlabel: What these are.
    """
    drawn: dict[str, dict[str, panels.Curve]] = {}
    for row in dict.fromkeys(row for row, _ in keys_of(collected, grid, rows, columns)):
        for name, places in groups.items():
            found = []
            for column, x in places.items():
                cells = [c for c in collected.of(grid, row, column) if collected.reached(c)]
                values = [collected.number(cell, ERROR) for cell in cells[:1]]
                found += [(x, value) for value in values if value is not None]
            if found:
                x, y = np.array(sorted(found)).T
                drawn.setdefault(title_of(collected, grid, row), {})[name] = (x, y[None])
    if drawn:
        panels.curves(drawn, path, xlabel, "test error, in per cent")
