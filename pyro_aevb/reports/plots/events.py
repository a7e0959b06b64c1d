r"""Data and what a pair makes of them, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path

import numpy as np

from pyro_aevb.reports.plots import canvas


def reconstructions(
    inputs: np.ndarray,
    outputs: np.ndarray,
    path: str | Path,
    clean: np.ndarray | None = None,
    output: str = "reconstruction",
    spread: np.ndarray | None = None,
) -> Path:
    r"""Draws the first 12 inputs above their reconstructions, or overlays them if they are no
    pictures.

    Arguments:
        inputs: The data, shape :math:`(n, *event)`.
        outputs: Their reconstructions, of the same shape.
        path: Where to write.
        clean: The data that the inputs are a corruption of, if they are one; drawn above them.
        output: What to call the reconstructions.
        spread: Of the same shape, their standard deviation over draws of the weights; drawn below
            them, on a scale of its own from 0 to its largest value.
    """
    rows = {"input": inputs[:12], output: outputs[:12]}
    if clean is not None:
        rows = {"clean": clean[:12], "corrupted input": inputs[:12], output: outputs[:12]}
    n = len(rows[output])
    events = canvas.displayable(np.concatenate(list(rows.values())))
    if spread is not None and events.ndim > 2:
        largest = float(spread[:12].max())
        rows[f"s.d. over weights,\n0 to {largest:.2g}"] = spread[:12]
        events = np.concatenate([events, canvas.displayable(spread[:12] / (largest or 1.0))])
    if events.ndim > 2:
        figure, axes = canvas.grid(events, len(rows), n, gap=True, cell=0.85)
        axes.set_yticks([i + 0.5 for i in range(len(rows))], list(rows))
        return canvas.save(figure, path)

    columns = min(n, 4)
    figure = canvas.blank(2.2 * columns + 0.6, 1.7 * ceil(n / columns) + 0.6)
    panels = figure.subplots(
        ceil(n / columns), columns, sharex=True, sharey=True, squeeze=False
    ).flat
    component = np.arange(events.shape[1])
    marker = "o" if len(component) <= 30 else ""
    colors = {"clean": "0.55", "input": "0.55", "corrupted input": "C0", output: "C3"}
    for i, axes in enumerate(panels):
        if i < n:
            for row, label in enumerate(rows):
                style = {"color": colors[label], "marker": marker, "ms": 3, "lw": 1.3}
                axes.plot(component, events[row * n + i], label=label, **style)
            axes.locator_params(axis="x", integer=True)
        else:
            axes.set_visible(False)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", frameon=False)
    figure.supxlabel("component")
    figure.supylabel("value")
    return canvas.save(figure, path)


def samples(images: np.ndarray, path: str | Path, title: str) -> Path:
    r"""Draws samples in a grid, row by row.

    Arguments:
        images: The samples, or their means, shape :math:`(n, *event)`.
        path: Where to write.
        title: The title, which says what they are.
    """
    columns = ceil(sqrt(len(images)))
    rows = ceil(len(images) / columns)
    figure, axes = canvas.grid(canvas.displayable(images), rows, columns, gap=True, cell=0.75)
    axes.set_title(canvas.plain(title))
    return canvas.save(figure, path)


def manifold_grid(g: int) -> np.ndarray:
    r"""Returns the codes whose decodings :func:`manifold` draws.

    They are :math:`(\Phi^{-1}(u_j), \Phi^{-1}(u_i))` with :math:`u_i = (i + 1/2) / g` and
    :math:`\Phi` the standard normal distribution function, in reading order: from left to right
    :math:`z[0]` grows, from top to bottom :math:`z[1]` falls.

    Arguments:
        g: The number of points per dimension.

    Returns:
        The codes, shape :math:`(g^2, 2)`.
    """
    from scipy.stats import norm

    z = norm.ppf((np.arange(g) + 0.5) / g)
    horizontal, vertical = np.meshgrid(z, z[::-1])
    return np.stack([horizontal.ravel(), vertical.ravel()], axis=1)


def manifold(
    images: np.ndarray,
    path: str | Path,
    title: str = "",
    names: Sequence[str] = ("z[0]", "z[1]"),
) -> Path:
    r"""Draws the decodings of :func:`manifold_grid`, tiled without gaps.

    Arguments:
        images: The decodings in the order of the grid, shape :math:`(g^2, *event)`.
        path: Where to write.
        title: What a decoding is.
        names: The names of the two dimensions.
    """
    g = round(sqrt(len(images)))
    figure, axes = canvas.grid(canvas.displayable(images), g, g, gap=False, cell=max(0.38, 5 / g))
    z = manifold_grid(g)[:g, 0]
    # Ticks in pairs about the centre, at most eight.
    step = ceil(g / 8)
    ticks = np.array([i for i in range(g) if min(i, g - 1 - i) % step == 0])
    ticks = ticks[(abs(2 * ticks - g + 1) >= step) | (2 * ticks == g - 1)]
    values = [f"{z[i]:.2f}" for i in ticks]
    axes.set_xticks(ticks + 0.5, values)
    axes.set_yticks(g - ticks - 0.5, values)
    axes.tick_params(length=3)
    axes.set_xlabel(canvas.plain(names[0]))
    axes.set_ylabel(canvas.plain(names[1]))
    axes.set_title(canvas.plain(title))
    return canvas.save(figure, path)


def traversals(
    images: np.ndarray,
    values: np.ndarray,
    path: str | Path,
    labels: Sequence[str],
    title: str = "",
) -> Path:
    r"""Draws decodings along one latent dimension after the other.

    Arguments:
        images: The decodings, shape :math:`(d, s, *event)`: row :math:`i` walks along one dimension
            in :math:`s` steps.
        values: The values taken along each walk, shape :math:`(s,)`.
        path: Where to write.
        labels: The names of the :math:`d` dimensions, `"z[3]"` for example.
        title: What a decoding is.
    """
    rows, columns = images.shape[:2]
    events = canvas.displayable(images.reshape(rows * columns, *images.shape[2:]))
    figure, axes = canvas.grid(events, rows, columns, gap=True, cell=0.7)
    axes.set_yticks(np.arange(rows) + 0.5, [canvas.plain(label) for label in labels])
    axes.set_xticks(np.arange(columns) + 0.5, [f"{value:.3g}" for value in values])
    axes.set_xlabel("value of the latent dimension")
    axes.set_title(canvas.plain(title))
    return canvas.save(figure, path)


def walks(images: np.ndarray, path: str | Path, labels: Sequence[str], title: str = "") -> Path:
    r"""Draws decodings along walks through the space of codes, one under the other.

    Arguments:
        images: The decodings, shape :math:`(w, s, *event)`.
        path: Where to write.
        labels: The names of the :math:`w` walks.
        title: What the walks are.
    """
    rows, columns = images.shape[:2]
    events = canvas.displayable(images.reshape(rows * columns, *images.shape[2:]))
    figure, axes = canvas.grid(events, rows, columns, gap=True, cell=0.7)
    axes.set_yticks(np.arange(rows) + 0.5, [canvas.plain(label) for label in labels])
    axes.set_title(canvas.plain(title))
    return canvas.save(figure, path)
