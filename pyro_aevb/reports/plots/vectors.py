r"""Data that are vectors, whose components have no order: a panel for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_aevb.reports.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 12
r"""Components that are drawn at most: those that vary most."""
LINES = 8
r"""Components at most whose values along a walk are drawn."""


def observed_against_predicted(
    observed: np.ndarray,
    predicted: np.ndarray,
    path: str | Path,
    names: Sequence[str],
    output: str = "reconstruction",
    spread: np.ndarray | None = None,
) -> Path:
    r"""Draws what is predicted of each component against what was observed, and their correlation.

    Arguments:
        observed: The data, shape :math:`(n, D)`; values that are missing, NaN, are left out.
        predicted: What is predicted of them, of the same shape.
        path: Where to write.
        names: The names of the :math:`D` components.
        output: What to call the predictions.
        spread: Of the same shape, their standard deviation over draws of the weights; drawn as
            bars.
    """
    figure, panels, chosen = _panels(observed, names)
    for axes, j in zip(panels, chosen, strict=True):
        x, y = observed[:, j], predicted[:, j]
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        if spread is not None:
            style: dict[str, Any] = {"fmt": "none", "ecolor": "C1", "elinewidth": 0.8, "alpha": 0.5}
            axes.errorbar(x, y, spread[known, j], **style)
        size = float(np.clip(2e4 / max(len(x), 1), 3, 25))
        axes.scatter(x, y, s=size, lw=0, alpha=0.4)
        # One range for both: what is predicted too flat must look flat.
        ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())] if len(x) else [0.0, 1.0])
        ends += np.array([-0.05, 0.05]) * (ends[1] - ends[0] or 1.0)
        axes.plot(ends, ends, color="0.3", lw=1, ls="--", label="equal")
        axes.set(xlim=ends, ylim=ends, aspect="equal")
        title = canvas.plain(names[j])
        if len(x) > 1 and np.ptp(x) > 0 and np.ptp(y) > 0:
            title += f", r = {np.corrcoef(x, y)[0, 1]:.2f}"
        axes.set_title(title, fontsize="medium")
        axes.locator_params(nbins=4)  # most of the time to draw is that of numbers
    figure.supxlabel(_of(observed, chosen, "observed"), fontsize="medium")
    bars = ", ± s.d. over weights" if spread is not None else ""
    figure.supylabel(canvas.plain(output) + bars, fontsize="medium")
    return canvas.save(figure, path)


def distributions(
    data: np.ndarray, draws: np.ndarray, path: str | Path, names: Sequence[str], title: str
) -> Path:
    r"""Draws how each component is distributed over data, and over draws from the model.

    The axis is that of the data, with half of their range on both sides; a title says which share
    of the draws lies beyond it.

    Arguments:
        data: The data, shape :math:`(n, D)`; values that are missing, NaN, are left out.
        draws: The draws, shape :math:`(m, D)`.
        path: Where to write.
        names: The names of the :math:`D` components.
        title: What the draws are.
    """
    figure, panels, chosen = _panels(data, names)
    labels = {"test data": ("C0", "stepfilled", 0.35), title: ("C3", "step", 1.0)}
    for axes, j in zip(panels, chosen, strict=True):
        seen, drawn = (v[np.isfinite(v)] for v in (data[:, j], draws[:, j]))
        edges = _edges(seen)
        for values, (label, (color, kind, alpha)) in zip(
            (seen, drawn), labels.items(), strict=True
        ):
            share = np.full(len(values), 1 / max(len(values), 1))
            style: dict[str, Any] = {"color": color, "histtype": kind, "alpha": alpha, "lw": 1.3}
            axes.hist(values, edges, weights=share, label=canvas.plain(label), **style)
        text = canvas.plain(names[j])
        beyond = np.mean((drawn < edges[0]) | (drawn > edges[-1])) if len(drawn) else 0.0
        if beyond >= 0.005:
            text += f" ({100 * beyond:.0f} % of draws beyond)"
        axes.set_title(text, fontsize="medium")
        axes.locator_params(nbins=4)
    known = panels[0].get_legend_handles_labels()
    figure.legend(*known, loc="outside right center", frameon=False)
    figure.supxlabel(_of(data, chosen, "value"), fontsize="medium")
    figure.supylabel("share", fontsize="medium")
    return canvas.save(figure, path)


def responses(
    curves: np.ndarray,
    values: np.ndarray,
    path: str | Path,
    labels: Sequence[str],
    names: Sequence[str],
    title: str,
    xlabel: str,
) -> Path:
    r"""Draws the components of decoded vectors along walks through the codes, a panel for each.

    Arguments:
        curves: The decodings, shape :math:`(w, s, D)`, of which the 8 components that move most are
            drawn.
        values: Where along each walk they are, shape :math:`(s,)`.
        path: Where to write.
        labels: The names of the :math:`w` walks.
        names: The names of the :math:`D` components.
        title: What the lines are.
        xlabel: What the values are.
    """
    moves = np.ptp(curves, axis=1).max(0)
    chosen = np.sort(np.argsort(-moves, kind="stable")[:LINES])
    columns = min(len(curves), 4)
    rows = ceil(len(curves) / columns)
    figure = canvas.blank(2.4 * columns + 1.8, 2.0 * rows + 0.9)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for axes, walk, label in zip(panels, curves, labels, strict=False):
        for i, j in enumerate(chosen):
            axes.plot(values, walk[:, j], color=f"C{i}", lw=1.3, label=canvas.plain(names[j]))
        axes.set_title(canvas.plain(label), fontsize="medium")
    panels[0].locator_params(nbins=4)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    most = f", the {len(chosen)} of {len(names)} that move most" * (len(chosen) < len(names))
    lines = wrap(canvas.plain(title) + most, int(12 * figure.get_figheight()))
    figure.supylabel("\n".join(lines), fontsize="medium")
    figure.supxlabel(xlabel, fontsize="medium")
    return canvas.save(figure, path)


def _panels(data: np.ndarray, names: Sequence[str]) -> tuple[Figure, list[Axes], np.ndarray]:
    r"""A figure with a panel for each component that is drawn, and which these are."""
    known = np.where(np.isfinite(data), data, np.nan)
    spread = np.array([np.nanvar(v) if np.isfinite(v).any() else -1.0 for v in known.T])
    chosen = np.sort(np.argsort(-spread, kind="stable")[:PANELS])
    columns = min(len(chosen), 4)
    rows = ceil(len(chosen) / columns)
    figure = canvas.blank(2.6 * columns + 0.6, 2.5 * rows + 0.7)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    return figure, panels[: len(chosen)], chosen


def _of(data: np.ndarray, chosen: np.ndarray, text: str) -> str:
    n, count = data.shape
    said = f"{text}, {n:,} data" if n != 1 else f"{text}, 1 datum"
    if len(chosen) < count:
        said += f"; the {len(chosen)} of {count:,} components that vary most"
    return said


def _edges(values: np.ndarray) -> list[float]:
    r"""Edges of bins over the range of values and half of it on both sides: the more values, the
    narrower; of a few whole numbers a bin for each."""
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    beside = 0.5 * (high - low) or 0.5
    if (values == np.round(values)).all() and high - low <= 30:
        return np.arange(low - ceil(beside) - 0.5, high + ceil(beside) + 1).tolist()
    bins = int(np.clip(2 * np.sqrt(len(values)), 8, 40))
    return np.linspace(low - beside, high + beside, bins + 1).tolist()
