r"""Pictures of a study's cells: what a figure's declaration draws with.

Each function takes the finished cells and a file, and by name which cells: `grid`, the name of
theirs, and `rows` and `columns`, of which None takes all. It draws what is there; where there is
nothing it leaves no file. The declaration names the cells, as in
``Figure("codes", "Test codes", codes, grid="protocol", rows=["128-64-2"])``, or, of a function with
options, ``partial(codes, noise=0.1)``. Where a trained pair is needed it is that of the first seed
whose run is in the study's directory, on the CPU.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.batch import data_of
from pyro_aevb.errors import UsageError, one_of
from pyro_aevb.pairs.predict import (
    decode_grid,
    encode,
    generate,
    in_each_class,
    reconstruct,
)
from pyro_aevb.reports.plots import panels
from pyro_aevb.reports.plots.canvas import NATS
from pyro_aevb.reports.tables import csv_table
from pyro_aevb.runs.writing import write_whole
from pyro_aevb.studies.collect import Collected
from pyro_aevb.studies.declare import HISTORY, Cell
from pyro_aevb.studies.known import Elsewhere

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared

Names = Sequence[str] | None
NUMBERS = ".curves.csv"
r"""What replaces the suffix of a picture in the name of the file that has its numbers."""
EARLIER = f"earlier{NUMBERS}"
r"""The name under which the numbers of the picture that is replaced lie beside the new one."""

XLABEL = {"epochs": "epoch", "images": "training images seen", "seconds": "seconds of training"}


def curves(
    collected: Collected,
    path: Path,
    quantities: Mapping[str, str],
    x: Literal["epochs", "images", "seconds"] = "epochs",
    ylabel: str = NATS,
    *,
    grid: str,
    **which: Any,
) -> None:
    r"""Quantities along the training, a panel for each row.

    A point is the mean over the seeds of which something is known here, after epochs of which all
    these have it. Beside the picture, in
    its name with :data:`NUMBERS` for the suffix, stands a line for each point, with every digit
    and the value of every seed.

    Arguments:
        collected, path, grid, which: See :mod:`~.studies.figures`.
        quantities: The quantities by the name that the legend gives them, those after the first
            with dashes: ``history/COLUMN``, known after every epoch, or what a
            :class:`~.declare.Table` takes, known at every look.
        x: The quantity on the horizontal axis, which is logarithmic except for epochs.
        ylabel: What the quantities are called, with their unit.
    """
    one_of("x", x, XLABEL)
    drawn: dict[str, dict[str, panels.Curve]] = {}
    dashed: dict[str, str] = {}
    points: list[dict[str, Any]] = []
    first = next(iter(quantities))
    for row, column in keys_of(collected, grid, **which):
        for name, quantity in quantities.items():
            lines = _lines(collected, collected.of(grid, row, column), quantity, x)
            if common := sorted(set.intersection(*map(set, lines)) if lines else ()):
                stack = np.array([[line[epochs] for epochs in common] for line in lines])
                title = f"{column}, {name}" if len(quantities) > 1 else column
                if name != first:
                    dashed[title] = f"{column}, {first}"
                curve = (stack[:, :, 0].mean(0), stack[:, :, 1])
                drawn.setdefault(title_of(collected, grid, row), {})[title] = curve
                points += [
                    {
                        "row": row,
                        "column": column,
                        "quantity": quantity,
                        x: float(at),
                        "epochs": epochs,
                        "mean": float(values.mean()),
                        "values": ";".join(repr(float(value)) for value in values),
                    }
                    for epochs, at, values in zip(common, curve[0], curve[1].T, strict=True)
                ]
    if drawn:
        write_whole(path.with_suffix(NUMBERS), csv_table(points))
        panels.curves(drawn, path, XLABEL[x], ylabel, log=x != "epochs", dashed=dashed)


def reconstructions(collected: Collected, path: Path, noise: float = 0.0, **which: Any) -> None:
    r"""The first ten test data, and below them what becomes of their mean codes.

    Arguments:
        collected, path, which: See :mod:`~.studies.figures`.
        noise: Standard deviation of Gaussian noise on the data, which are then clipped to [0, 1].
    """
    shown: dict[str, np.ndarray] = {}
    for name, prepared in trained(collected, **which):
        x = _first(prepared, 10, noise)
        shown.setdefault("input", x.numpy())
        shown[name] = reconstruct(prepared.pair, x).numpy()
    if shown:
        panels.image_rows(shown, path)


def codes(collected: Collected, path: Path, noise: float = 0.0, **which: Any) -> None:
    r"""The two-dimensional mean codes of the first 2,000 test data.

    Arguments:
        collected, path, which: See :mod:`~.studies.figures`.
        noise: Standard deviation of Gaussian noise on the data, which are then clipped to [0, 1].
    """
    shown: dict[str, np.ndarray] = {}
    labels = None
    for name, prepared in trained(collected, **which):
        x = _first(prepared, 2000, noise)
        shown[name] = _plane(prepared, x, name)
        known = prepared.data.test.labels
        labels = None if known is None else known[: len(x)].numpy()
    if shown:
        panels.scatters(shown, labels, path)


def decoded_grids(collected: Collected, path: Path, **which: Any) -> None:
    r"""Decodings of a uniform grid over the central 95 % of the two-dimensional test codes."""
    shown: dict[str, np.ndarray] = {}
    for name, prepared in trained(collected, **which):
        x = _first(prepared, 2000)
        low, high = np.quantile(_plane(prepared, x, name), [0.025, 0.975], axis=0)
        across, down = np.meshgrid(
            np.linspace(low[0], high[0], 15), np.linspace(high[1], low[1], 15)
        )
        points = np.stack([across.ravel(), down.ravel()], 1)
        shown[name] = decode_grid(prepared.pair, points, x)
    if shown:
        panels.mosaics(shown, path)


def growing_noise(collected: Collected, path: Path, **which: Any) -> None:
    r"""Decodings of one datum's code as noise is added to it: one draw of a normal, times 0, 0.25,
    0.5, ...; at 1 it has in each dimension the standard deviation of the mean codes.
    """
    shown: dict[str, np.ndarray] = {}
    for name, prepared in trained(collected, **which):
        x = _first(prepared, 1000)
        known = _codes(prepared, x)
        noise = np.random.default_rng(0).normal(size=known.shape[1])
        steps = np.linspace(0, 2.5, 11)[:, None] * known.std(0) * noise
        shown[name] = decode_grid(prepared.pair, known[:1] + steps, x)
    if shown:
        panels.image_rows(shown, path)


def generated(collected: Collected, path: Path, **which: Any) -> None:
    r"""Decodings of draws from the prior; without a prior, of a normal fitted to the test codes,
    independent in each dimension.
    """
    shown: dict[str, np.ndarray] = {}
    for name, prepared in trained(collected, **which):
        x = _first(prepared, 1000)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            if prepared.description.undefined() is None:
                shown[name] = generate(prepared.pair, x[:12]).numpy()
                continue
            known = torch.from_numpy(_codes(prepared, x))
            drawn = known.mean(0) + known.std(0) * torch.randn(12, known.shape[1])
        shown[name] = decode_grid(prepared.pair, drawn.numpy(), x)
    if shown:
        panels.image_rows(shown, path)


def styles(collected: Collected, path: Path, count: int = 6, **which: Any) -> None:
    r"""The mean codes of the first test data, a row each, decoded with each label in turn; of pairs
    that take labels.

    Arguments:
        collected, path, which: See :mod:`~.studies.figures`.
        count: How many codes of each pair.
    """
    shown: dict[str, np.ndarray] = {}
    for name, prepared in trained(collected, **which):
        classes = prepared.data.num_classes
        if "label" in prepared.pair.columns and classes is not None:
            x = prepared.test.take(torch.arange(count))
            for row, images in enumerate(in_each_class(prepared.pair, x, classes)):
                shown[f"{name}, {row + 1}"] = images
    if shown:
        panels.image_rows(shown, path)


def along(
    collected: Collected,
    path: Path,
    quantity: str,
    xlabel: str,
    ylabel: str,
    beside: Mapping[str, str] | None = None,
    *,
    grid: str,
    **which: Any,
) -> None:
    r"""A quantity along the rows of a grid, whose names are numbers; a line for each column.

    Arguments:
        collected, path, grid, which: See :mod:`~.studies.figures`.
        quantity: As a :class:`~.declare.Table` takes it.
        xlabel, ylabel: What the rows and the quantity are called.
        beside: Other grids with the same rows, and what the quantity is called there.
    """
    lines: dict[str, dict[float, list[float]]] = {}
    places = [(grid, quantity, key) for key in keys_of(collected, grid, **which)]
    for other, name in (beside or {}).items():
        places += [(other, name, key) for key in keys_of(collected, other)]
    for where, name, (row, column) in places:
        values = [collected.number(cell, name) for cell in collected.of(where, row, column)]
        if found := [value for value in values if value is not None and np.isfinite(value)]:
            lines.setdefault(column, {})[float(row)] = found
    drawn: dict[str, panels.Curve] = {}
    for column, points in lines.items():
        seeds = min(map(len, points.values()))
        x = sorted(points)
        drawn[column] = (np.array(x), np.array([points[at][:seeds] for at in x]).T)
    if drawn:
        panels.curves({"": drawn}, path, xlabel, ylabel, log=True)


def dots(
    collected: Collected,
    path: Path,
    quantities: Mapping[str, str],
    xlabel: str,
    *,
    grid: str,
    **which: Any,
) -> None:
    r"""Quantities of one unit, a panel each: rows as those of a grid, a colour for each column.

    Arguments:
        collected, path, grid, which: See :mod:`~.studies.figures`.
        quantities: By the title of the panel, as a :class:`~.declare.Table` takes them.
        xlabel: What the quantities are called together.
    """
    drawn: dict[str, dict[str, dict[str, list[float]]]] = {title: {} for title in quantities}
    for row, column in keys_of(collected, grid, **which):
        for title, quantity in quantities.items():
            values = [collected.number(cell, quantity) for cell in collected.of(grid, row, column)]
            if found := [value for value in values if value is not None and np.isfinite(value)]:
                drawn[title].setdefault(row, {})[column] = found
    if any(drawn.values()):
        panels.dots(drawn, path, xlabel)


def keys_of(
    collected: Collected, grid: str, rows: Names = None, columns: Names = None
) -> Iterator[tuple[str, str]]:
    r"""The rows and columns that are drawn."""
    for row, column in collected.keys(grid):
        if (rows is None or row in rows) and (columns is None or column in columns):
            yield row, column


def title_of(collected: Collected, grid: str, row: str) -> str:
    r"""What a row is called in pictures."""
    return f"{collected.study.grid(grid).row_title} {row}".strip()


def _lines(
    collected: Collected, cells: Sequence[Cell], quantity: str, x: str
) -> list[dict[int, tuple[float, float]]]:
    r"""The curves of the seeds that have one.

    Raises:
        Elsewhere: None has, and that of one would be known where its run is.
    """
    lines, elsewhere = [], None
    for cell in cells:
        try:
            lines.append(_curve(collected, cell, quantity, x))
        except Elsewhere as error:
            elsewhere = error
    found = [line for line in lines if line]
    if elsewhere and not found:
        raise elsewhere
    return found


def _curve(
    collected: Collected, cell: Cell, quantity: str, x: str
) -> dict[int, tuple[float, float]]:
    r"""Abscissa and ordinate after each epoch of which they are known."""
    scoring, _, name = quantity.partition("/")
    if scoring == HISTORY:
        values = dict(enumerate(collected.history(cell, name), 1))
        clock = dict(enumerate(collected.run(cell).clock(), 1))
    else:
        values = {epochs: collected.number(cell, quantity, epochs) for epochs in cell.looks}
        clock = collected.clock(cell)
    images = collected.num_train(cell) if x == "images" else 1
    known = {e: value for e, value in values.items() if value is not None and np.isfinite(value)}
    if x == "seconds" and not known.keys() <= clock.keys():
        raise Elsewhere(f"of {cell} it is not known how long its training took")
    return {e: (clock[e] if x == "seconds" else e * images, value) for e, value in known.items()}


def trained(collected: Collected, *, grid: str, **which: Any) -> Iterator[tuple[str, "Prepared"]]:
    r"""The trained pairs, each of the first seed that is here, named by what tells them apart."""
    keys = list(keys_of(collected, grid, **which))
    several = len({row for row, _ in keys}) > 1
    for row, column in keys:
        cells = [cell for cell in collected.of(grid, row, column) if collected.reached(cell)]
        for cell in sorted(cells, key=lambda cell: cell.path in collected.elsewhere)[:1]:
            name = f"{title_of(collected, grid, row)}, {column}" if several else column
            yield name, collected.prepared(cell)


def _first(prepared: "Prepared", n: int, std: float = 0.0) -> Tensor:
    r"""The first test data, with Gaussian noise if it has a standard deviation."""
    x = data_of(prepared.test.take(torch.arange(min(n, len(prepared.test)))))
    if not std:
        return x
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + std * noise).clamp(0, 1)


def _codes(prepared: "Prepared", x: Tensor) -> np.ndarray:
    return next(iter(encode(prepared.pair, x).values())).numpy()


def _plane(prepared: "Prepared", x: Tensor, name: str) -> np.ndarray:
    known = _codes(prepared, x)
    if known.shape[1] != 2:
        raise UsageError(f"{name} has codes of {known.shape[1]} dimensions; draw rows that have 2")
    return known
