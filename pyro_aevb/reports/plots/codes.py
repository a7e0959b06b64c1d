r"""Where the codes of data lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_aevb.reports.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RADIUS = 2.0
r"""Of the circle that stands for a standard normal prior of two dimensions."""
LEGEND = 20
r"""Labels are named in a legend up to this number of different ones."""


def latent_scatter(
    codes: np.ndarray,
    labels: np.ndarray | None,
    path: str | Path,
    prior: np.ndarray | None = None,
    names: Sequence[str] = ("z[0]", "z[1]"),
    circle: bool = False,
) -> Path:
    r"""Draws codes in a plane, coloured by label, and beside them draws from their prior.

    Codes of one dimension are drawn as histograms, those of the labels stacked.

    Arguments:
        codes: The codes, shape :math:`(N, 2)` or :math:`(N, 1)`.
        labels: The labels, shape :math:`(N,)`, if there are any. More than 20 different ones are
            shown by a colour bar instead of a legend, and not at all if they are names.
        path: Where to write.
        prior: Draws from the prior, shape :math:`(M, 2)`, for a second panel of the same scale.
        names: The names of the axes.
        circle: Whether the prior is the standard normal of this plane: its circle of radius 2,
            which holds :math:`1 - e^{-2} = 86\,\%` of its draws, is drawn.
    """
    panels = 1 if prior is None else 2
    figure = canvas.blank(2.0 + 5.0 * panels, 6.0)
    names = [canvas.plain(name) for name in names]
    axes = figure.add_subplot(1, panels, 1, xlabel=names[0])
    classes = np.array([]) if labels is None else np.unique(labels)
    if codes.shape[1] == 1:
        axes.set_ylabel("data")
        _histogram(axes, codes[:, 0], labels, classes)
        if 0 < len(classes) <= LEGEND:
            figure.legend(loc="outside right center", title="label", frameon=False, reverse=True)
        return canvas.save(figure, path)
    axes.set_ylabel(names[1])
    # In a random order, so that the last class does not cover the others.
    order = np.random.default_rng(0).permutation(len(codes))
    x, y = codes[order, 0], codes[order, 1]
    style: dict[str, Any] = {"s": float(np.clip(4e4 / max(len(codes), 1), 5, 25)), "lw": 0}
    words = classes.dtype.kind in "UO"
    if labels is None or (len(classes) > LEGEND and words):
        axes.scatter(x, y, alpha=0.5, **style)
    elif len(classes) > LEGEND:
        points = axes.scatter(x, y, c=np.asarray(labels)[order], cmap="turbo", **style)
        figure.colorbar(points, label="label")
    else:
        colors, index = _colors(len(classes)), np.searchsorted(classes, labels)
        axes.scatter(x, y, c=colors[index[order]], alpha=0.8, **style)
        for color, name in zip(colors, classes, strict=False):
            axes.scatter([], [], color=color, s=30, label=_called(name))
        figure.legend(loc="outside right center", title="label", frameon=False)
    shown = [axes]
    if prior is not None:
        second = figure.add_subplot(1, 2, 2, xlabel=names[0], sharex=axes, sharey=axes)
        second.scatter(prior[:, 0], prior[:, 1], color="0.4", alpha=0.6, **style)
        shown.append(second)
        for panel, title in zip(shown, ("codes of data", "draws from the prior"), strict=True):
            panel.set_title(title)
    for panel in shown:
        if circle:
            _circle(panel)
        panel.set_aspect("equal", adjustable="datalim" if prior is None else "box")
    return canvas.save(figure, path)


def _circle(axes: Axes) -> None:
    angle = np.linspace(0, 2 * np.pi, 200)
    text = f"radius {RADIUS:g} of the prior, 86 % of its draws"
    x, y = RADIUS * np.cos(angle), RADIUS * np.sin(angle)
    (line,) = axes.plot(x, y, ls="--", color="0.3", lw=1.2, label=text)
    axes.legend(handles=[line], loc="lower right", fontsize="small", framealpha=0.7)


def _histogram(
    axes: Axes, codes: np.ndarray, labels: np.ndarray | None, classes: np.ndarray
) -> None:
    edges = np.histogram_bin_edges(codes, 40).tolist()
    if labels is None or len(classes) > LEGEND:
        axes.hist(codes, edges)
        return
    parts = [codes[labels == name] for name in classes]
    colors = [tuple(color) for color in _colors(len(classes))]
    called = [_called(name) for name in classes]
    axes.hist(parts, edges, stacked=True, color=colors, label=called)


def _colors(count: int) -> np.ndarray:
    from matplotlib import colormaps

    return np.array(colormaps["tab10" if count <= 10 else "tab20"].colors)[:count]  # type: ignore[attr-defined]


def _called(name: Any) -> str:
    return canvas.plain(str(name)) or "unknown"
