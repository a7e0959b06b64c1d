r"""The pictures of the explorer: data, a plane of codes, a walk, a posterior."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_aevb.reports.plots.canvas import blank, displayable, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY_NAMES = 30
r"""Components at most whose names stand on an axis."""
FEW = 200
r"""Codes at most whose dots are large."""
CLASSES = 20
r"""Classes at most that are told apart by colours."""


def datum(event: np.ndarray, names: Sequence[str] = ()) -> "Figure":
    r"""One datum: an image, or the components of a vector by name."""
    figure = blank(3.2, 3.2)
    _show(figure.add_subplot(), event, names)
    return figure


def row(
    events: np.ndarray, titles: Sequence[str], names: Sequence[str] = (), alone: int = 0
) -> "Figure":
    r"""Data side by side, ``(n, *event_shape)``, on one scale of grey or of values.

    Arguments:
        events: The data.
        titles: What stands above each; may be empty.
        names: Of vectors, what the components are called.
        alone: So many vectors at the end have each a scale of its own.
    """
    figure = blank(min(12.0, 1.9 * len(events)), 2.3)
    axes = figure.subplots(1, len(events), squeeze=False)[0]
    shown = displayable(events)
    for ax, event, title in zip(axes, shown, titles, strict=True):
        _draw(ax, event, names)
        ax.set_title(plain(title), fontsize=9)
    if events.ndim == 2:
        together = axes[: len(axes) - alone]
        low, high = (f(ax.get_ylim()[i] for ax in together) for i, f in enumerate((min, max)))
        for ax in together:
            ax.set_ylim(low, high)
            if ax is not together[0]:
                ax.set_yticklabels([])
    return figure


def plane(
    coordinates: np.ndarray,
    shares: np.ndarray,
    labels: np.ndarray | None,
    here: np.ndarray | None = None,
    draws: np.ndarray | None = None,
) -> "Figure":
    r"""The test codes in the plane of the first two directions, or along the only one.

    Arguments:
        coordinates: ``(N, k)``.
        shares: Of the variance, ``(k,)``.
        labels: Classes to colour by, ``(N,)``.
        here: Points that are marked, joined by a line, ``(n, k)``.
        draws: Draws from a posterior, ``(S, k)``.
    """
    figure = blank(4.4, 3.6)
    axes = figure.add_subplot()
    flat = coordinates.shape[1] > 1
    dots: dict[str, Any] = {"s": 6 if len(coordinates) > FEW else 20, "alpha": 0.5, "linewidths": 0}
    classes = np.unique(labels) if labels is not None else np.zeros(0)
    # Of one direction the vertical place is the datum's number, which only keeps the dots apart.
    up = coordinates[:, 1] if flat else np.linspace(-1, 1, len(coordinates))
    if 0 < len(classes) <= CLASSES:
        for i, name in enumerate(classes):
            own = labels == name
            colour = f"C{i}" if len(classes) <= 10 else None
            axes.scatter(coordinates[own, 0], up[own], label=plain(str(name)), color=colour, **dots)
        legend = {"fontsize": 7, "markerscale": 2, "loc": "center left", "bbox_to_anchor": (1, 0.5)}
        axes.legend(**legend)
    else:
        axes.scatter(coordinates[:, 0], up, color="0.6", **dots)
    if draws is not None:
        high = draws[:, 1] if flat else np.zeros(len(draws))
        axes.scatter(draws[:, 0], high, s=8, color="black", alpha=0.4, linewidths=0)
    if here is not None:
        high = here[:, 1] if flat else np.zeros(len(here))
        axes.plot(here[:, 0], high, "k-", lw=1)
        axes.plot(here[-1:, 0], high[-1:], "kx", ms=9, mew=2)
    axes.set_xlabel(_direction(0, shares))
    axes.set_ylabel(_direction(1, shares) if flat else "test datum")
    if not flat:
        axes.set_yticks([])
    return figure


def deviations(draws: np.ndarray, shares: np.ndarray, count: int = 8) -> "Figure":
    r"""A posterior along the directions: its mean, and twice its standard deviation.

    Arguments:
        draws: Coordinates of draws from it, ``(S, k)``.
        shares: Of the variance of the test codes, ``(k,)``.
        count: How many directions at most.
    """
    figure = blank(4.4, 2.6)
    axes = figure.add_subplot()
    draws = draws[:, :count]
    places = np.arange(1, draws.shape[1] + 1)
    axes.axhspan(-1, 1, color="0.92")
    axes.axhline(0, color="0.7", lw=1)
    axes.errorbar(places, draws.mean(0), 2 * draws.std(0, ddof=1), fmt="ko", ms=4, capsize=3)
    axes.set(xticks=places, xlabel="direction", ylabel="s.d. of the test codes")
    return figure


def bars(probabilities: np.ndarray, names: Sequence[str]) -> "Figure":
    r"""The probability of each class, ``(C,)``."""
    figure = blank(4.4, 0.6 + 0.26 * len(names))
    axes = figure.add_subplot()
    axes.barh(np.arange(len(names)), probabilities, color="C0")
    axes.set(xlim=(0, 1), xlabel="p(class | x)", yticks=range(len(names)))
    axes.set_yticklabels([plain(name) for name in names])
    axes.invert_yaxis()
    return figure


def _direction(i: int, shares: np.ndarray) -> str:
    return f"direction {i + 1}, {100 * shares[i]:.0f} % of variance"


def _show(axes: "Axes", event: np.ndarray, names: Sequence[str]) -> None:
    _draw(axes, displayable(event[None])[0], names)


def _draw(axes: "Axes", event: np.ndarray, names: Sequence[str]) -> None:
    if event.ndim > 1:
        axes.imshow(event, cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        return
    places = np.arange(len(event))
    axes.plot(places, event, lw=1, marker="." if len(event) <= MANY_NAMES else "")
    if names and len(names) <= MANY_NAMES:
        axes.set_xticks(places, [plain(name) for name in names], rotation=90, fontsize=7)
