r"""Figures of many runs side by side, each a pure function from arrays to a PNG file.

Every function returns the path that it wrote. Events are drawn as in
:mod:`pyro_aevb.reports.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_aevb.reports.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]
r"""Abscissae of shape :math:`(n,)`, and the ordinates of :math:`s` seeds, :math:`(s, n)`."""


def curves(
    panels: Mapping[str, Mapping[str, Curve]],
    path: str | Path,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    dashed: Mapping[str, str] | None = None,
) -> Path:
    r"""Draws curves: their mean over seeds, and the range of seeds as a band.

    A name has one colour in all panels. Where the whole range is more than four times that of the
    later halves, the vertical axis follows these: what lies far below, as first epochs do, falls
    under it.

    Arguments:
        panels: The curves by title of the panel, then by name.
        path: Where to write.
        xlabel: The label of the x axis, the same for all panels.
        ylabel: The label of the y axis, the same for all panels.
        log: Whether the x axes are logarithmic.
        dashed: The names that are drawn with dashes, each with the name whose colour it takes.
    """
    figure, drawn = _panels(len(panels), 3.4, 2.6)
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    dashed = {name: other for name, other in (dashed or {}).items() if name in names}
    full = list(dict.fromkeys(dashed.get(name, name) for name in names))
    styles: dict[str, dict[str, Any]] = {
        name: {
            "color": f"C{full.index(dashed.get(name, name))}",
            "ls": "--" if name in dashed else "-",
        }
        for name in names
    }
    for axes, (title, lines) in zip(drawn, panels.items(), strict=True):
        axes.set_title(canvas.plain(title), fontsize="medium")
        for name, (x, seeds) in lines.items():
            marker, colour = "o" if len(x) <= 20 else "", styles[name]["color"]
            axes.plot(x, seeds.mean(0), marker=marker, ms=3, **styles[name])
            axes.fill_between(x, seeds.min(0), seeds.max(0), alpha=0.2, lw=0, color=colour)
        places = values = np.unique([float(v) for x, _ in lines.values() for v in x])
        if log and max(x.max() / x.min() for x, _ in lines.values()) >= 10:
            axes.set_xscale("log")
            places = np.log(values)
        short = len(values) <= 8 and values[-1] < 10_000
        if short and np.ptp(places) <= 15 * np.diff(places).min(initial=np.inf):
            axes.set_xticks(values, [f"{value:,g}" for value in values])
            axes.set_xticks([], minor=True)
        low = min(seeds.min() for _, seeds in lines.values())
        late = min(seeds[:, len(x) // 2 :].min() for x, seeds in lines.values())
        high = max(seeds.max() for _, seeds in lines.values())
        if high - low > 4 * (high - late):
            low = late
        margin = 0.1 * (high - low) or 0.5
        axes.set_ylim(low - margin, high + margin)
    figure.supxlabel(xlabel, fontsize="medium")
    # Beside a single row of panels there is no room for more in one line.
    figure.supylabel(
        "\n".join(ylabel.split(", ")) if len(panels) <= 3 else ylabel, fontsize="medium"
    )
    ncols = max(2, 3 * min(len(panels), 3) // 2)  # no wider than the panels
    for name in names:
        drawn[0].plot([], [], label=canvas.plain(name), **styles[name])
    figure.legend(loc="outside upper center", ncols=min(len(names), ncols), frameon=False)
    return canvas.save(figure, path)


def dots(
    panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], path: str | Path, xlabel: str
) -> Path:
    r"""Draws values as dots along one axis, which all panels share, in rows.

    Arguments:
        panels: By the title of the panel, then of the row, then of the colour: the value of each
            seed, small and pale, under their mean.
        path: Where to write.
        xlabel: The label of the x axis.
    """
    rows = list(dict.fromkeys(row for values in panels.values() for row in values))
    found = [kinds for values in panels.values() for kinds in values.values()]
    names = list(dict.fromkeys(name for kinds in found for name in kinds))
    figure = canvas.blank(2.0 + 3.2 * len(panels), 1.2 + 0.42 * len(rows))
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (title, values) in zip(all_axes, panels.items(), strict=True):
        axes.set_title(canvas.plain(title), fontsize="medium")
        for place, row in enumerate(rows):
            for name, seeds in values.get(row, {}).items():
                i = names.index(name)
                y = place + 0.13 * (i - (len(names) - 1) / 2)  # dots that are level lie apart
                axes.plot(seeds, [y] * len(seeds), ".", color=f"C{i}", alpha=0.4)
                axes.plot(np.mean(seeds), y, "o", ms=5, color=f"C{i}")
        axes.set_yticks(range(len(rows)), [canvas.plain(row) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    for i, name in enumerate(names):
        all_axes[0].plot([], [], "o", color=f"C{i}", label=canvas.plain(name))
    figure.supxlabel(xlabel, fontsize="medium")
    figure.legend(loc="outside upper center", ncols=len(names), frameon=False)
    return canvas.save(figure, path)


def image_rows(rows: Mapping[str, np.ndarray], path: str | Path) -> Path:
    r"""Draws rows of as many events each, under one another.

    Arguments:
        rows: The events by the name of the row, shape :math:`(n, *event)`, the same for all.
        path: Where to write.
    """
    events = canvas.displayable(np.concatenate(list(rows.values())))
    count = len(next(iter(rows.values())))
    figure, axes = canvas.grid(events, len(rows), count, gap=True, cell=0.7)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [canvas.plain(name) for name in rows])
    return canvas.save(figure, path)


def mosaics(panels: Mapping[str, np.ndarray], path: str | Path) -> Path:
    r"""Draws square mosaics of pictures, without gaps, side by side.

    Arguments:
        panels: The pictures by the title of the panel, shape :math:`(g^2, *event)`, in reading
            order.
        path: Where to write.
    """
    figure, drawn = _panels(len(panels), 3.2, 3.4)
    for axes, (title, images) in zip(drawn, panels.items(), strict=True):
        side = ceil(len(images) ** 0.5)
        axes.imshow(
            canvas.tile(canvas.displayable(images), side, side), cmap="gray", vmin=0, vmax=1
        )
        axes.set_title(canvas.plain(title), fontsize="medium")
        axes.set_axis_off()
    return canvas.save(figure, path)


def scatters(panels: Mapping[str, np.ndarray], labels: np.ndarray | None, path: str | Path) -> Path:
    r"""Draws two-dimensional codes of the same data, a panel for each of several runs.

    Arguments:
        panels: The codes by the title of the panel, shape :math:`(N, 2)`.
        labels: The labels of the data, shape :math:`(N,)`; at most ten different ones.
        path: Where to write.
    """
    figure, drawn = _panels(len(panels), 3.2, 3.2)
    known = np.zeros(len(next(iter(panels.values()))), int) if labels is None else labels
    names, index = np.unique(known, return_inverse=True)
    # In a random order, so that the last class does not cover the others.
    order = np.random.default_rng(0).permutation(len(known))
    for axes, (title, codes) in zip(drawn, panels.items(), strict=True):
        colors = [f"C{i}" for i in index[order]]
        x, y = codes[order].T
        axes.scatter(x, y, c=colors, s=4, lw=0, alpha=0.7)
        axes.set_title(canvas.plain(title), fontsize="medium")
        axes.set_aspect("equal", adjustable="datalim")
    if labels is not None:
        for i, name in enumerate(names):
            drawn[0].scatter([], [], color=f"C{i}", s=30, label=str(name))
        figure.legend(loc="outside right center", title="label", frameon=False)
    return canvas.save(figure, path)


def _panels(count: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    r"""A figure of so many panels, at most three in a row."""
    columns = min(count, 3)
    rows = ceil(count / columns)
    figure = canvas.blank(0.5 + width * columns, 0.6 + height * rows)
    drawn = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in drawn[count:]:
        axes.set_visible(False)
    return figure, drawn[:count]
