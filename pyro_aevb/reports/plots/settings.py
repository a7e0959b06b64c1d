r"""A score of runs against one of the settings in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.reports.plots import canvas

NAMED = 12
r"""Lines that a legend names; of more it would hide what is drawn."""
TICKS = 10
r"""Values of a setting that each have a tick."""


def score_against_setting(
    setting: str,
    score: str,
    lines: Mapping[str, Sequence[tuple[Any, Sequence[float]]]],
    path: str | Path,
    categories: Sequence[str] | None = None,
) -> Path:
    r"""Draws a score of each run as a point, and the mean over the seeds of a setting with their
    standard deviation.

    Arguments:
        setting: The name of the setting.
        score: The name and the unit of the score.
        lines: For runs that are alike in all else, by what that is: values of the setting with the
            score of each run, from the least value to the largest. A value is a number, or the
            place of its category.
        path: Where to write.
        categories: The names of the values, where they are no numbers.
    """
    named = list(lines) if 1 < len(lines) <= NAMED else []
    beside = 1 if max(map(len, named), default=0) > 40 else 2
    figure = canvas.blank(7.0, 4.4 + 0.22 * len(named) / beside)
    axes = figure.add_subplot(xlabel=canvas.plain(setting), ylabel=canvas.plain(score))
    seeds = max(len(runs) for line in lines.values() for _, runs in line)
    # Side by side, so that the bars of one value do not hide one another.
    moved = 0.5 * (np.arange(len(lines)) - (len(lines) - 1) / 2) / max(len(lines), 1)
    for i, (name, line) in enumerate(lines.items()):
        x = np.array([value for value, _ in line], dtype=float)
        if categories is not None:
            x = x + moved[i]
        color = f"C{i}" if len(lines) <= 10 else _shade(i / len(lines))
        for at, (_, runs) in zip(x, line, strict=True):
            axes.plot([at] * len(runs), runs, "o", color=color, ms=6, alpha=0.45, mew=0)
            if len(runs) > 1:
                style: dict[str, Any] = {"fmt": "_", "ms": 10, "mew": 1.5, "capsize": 3}
                axes.errorbar(at, np.mean(runs), np.std(runs, ddof=1), color=color, **style)
        joined = categories is None and len(x) > 1
        if joined:
            axes.plot(x, [np.mean(runs) for _, runs in line], color=color, lw=1, alpha=0.7)
        axes.plot([], [], "o-" if joined else "o", color=color, ms=4, label=canvas.plain(name))
    values = sorted({float(value) for line in lines.values() for value, _ in line})
    if categories is not None:
        few = max(map(len, categories)) * len(categories) <= 60
        turned: dict[str, Any] = {} if few else {"rotation": 30, "ha": "right"}
        axes.set_xticks(range(len(categories)), [canvas.plain(c) for c in categories], **turned)
        axes.set_xlim(-0.6, len(categories) - 0.4)
    else:
        if values[0] > 0 and values[-1] >= 10 * values[0]:
            axes.set_xscale("log")
        if len(values) <= TICKS:
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
        axes.margins(x=0.08)
    what = "a point is a run"
    if seeds > 1:
        what += "; bars: mean and standard deviation over seeds"
    if len(lines) > NAMED:
        what += f"\na line: runs alike in all else, {len(lines)} of them"
    axes.set_title(what, loc="left", fontsize="medium")
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    if named:
        figure.legend(loc="outside lower center", frameon=False, ncols=beside)
    return canvas.save(figure, path)


def _shade(share: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](share)
