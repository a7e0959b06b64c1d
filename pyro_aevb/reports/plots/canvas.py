r"""What figures are drawn on and saved with: paper, events as pictures, a grid of them, text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from math import sqrt
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from pyro_aevb.runs.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
NATS = "nats per datum, higher is better"
_TITLE: ContextVar[str] = ContextVar("title", default="")
_KEPT: ContextVar[dict[str, Figure] | None] = ContextVar("kept", default=None)


def displayable(events: np.ndarray) -> np.ndarray:
    r"""Returns events as they are drawn.

    Arguments:
        events: The events, shape :math:`(n, *event)`.

    Returns:
        Pictures with values in :math:`[0, 1]`, shape :math:`(n, H, W)` or :math:`(n, H, W, 3)`, or
        vectors, shape :math:`(n, D)`.
    """
    events = np.asarray(events, dtype=float)
    if events.ndim not in (3, 4):
        return events.reshape(len(events), -1)
    finite = events[np.isfinite(events)]
    low, high = min(finite.min(initial=0.0), 0.0), max(finite.max(initial=1.0), 1.0)
    events = (events - low) / (high - low)
    if events.ndim == 3:
        return events
    return np.moveaxis(events, 1, 3) if events.shape[1] == 3 else events.mean(1)


def tile(pictures: np.ndarray, rows: int, columns: int, gap: int = 0) -> np.ndarray:
    r"""Returns one picture made of many, placed row by row from the upper left.

    Arguments:
        pictures: The pictures, shape :math:`(n, H, W)` or :math:`(n, H, W, 3)` with at most
            `rows * columns` of them; cells left over are white.
        rows: The number of rows.
        columns: The number of columns.
        gap: The number of white pixels between neighbours.
    """
    _, h, w, *rgb = pictures.shape
    whole = np.ones((rows * (h + gap) - gap, columns * (w + gap) - gap, *rgb))
    for i, picture in enumerate(pictures):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        whole[top : top + h, left : left + w] = picture
    return whole


def grid(
    events: np.ndarray, rows: int, columns: int, gap: bool, cell: float
) -> tuple[Figure, Axes]:
    """Draws events in cells one unit wide and high, the vertical axis pointing down."""
    if vectors := events.ndim == 2:
        aspect = 0.75
    else:
        white = max(1, round(events.shape[2] / 14)) if gap else 0
        whole = tile(events, rows, columns, white)
        aspect = whole.shape[0] / rows / (whole.shape[1] / columns)
    inches = min(cell, 11.0 / columns, 11.0 / (rows * aspect))
    figure = blank(columns * inches + 0.8, rows * inches * aspect + 0.6)
    axes = figure.add_subplot()
    if vectors:
        low, high = events.min(), events.max()
        across = np.append(np.linspace(0.1, 0.9, events.shape[1]), np.nan)
        up = 0.9 - 0.8 * (events - low) / (high - low if high > low else 1.0)
        row, column = np.divmod(np.arange(len(events)), columns)
        x = column[:, None] + across
        y = row[:, None] + np.pad(up, ((0, 0), (0, 1)), constant_values=np.nan)
        axes.plot(x.ravel(), y.ravel(), lw=1, marker="." if events.shape[1] <= 30 else "", ms=3)
        axes.set_aspect(aspect)
    else:
        axes.imshow(whole, cmap="gray", vmin=0, vmax=1, extent=(0, columns, rows, 0), aspect=aspect)
    axes.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def mean_text(name: str, values: np.ndarray) -> str:
    """A mean with its standard error."""
    error = f" ± {np.std(values, ddof=1) / sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{plain(name)}: {np.mean(values):.2f}{error}"


def plain(text: str) -> str:
    """Keeps a user's dollar signs out of Matplotlib's mathematics."""
    return text.replace("$", r"\$")


def blank(width: float, height: float) -> Figure:
    """An empty figure of a size in inches."""
    # Never pyplot: it keeps state, and would choose a window system.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


@contextmanager
def titled(text: str) -> Iterator[None]:
    """Figures that are saved inside this have a title over all their panels."""
    before = _TITLE.set(text)
    try:
        yield
    finally:
        _TITLE.reset(before)


@contextmanager
def kept() -> Iterator[dict[str, Figure]]:
    """Figures that are drawn inside this, by the stems of their files, which are not written."""
    figures: dict[str, Figure] = {}
    before = _KEPT.set(figures)
    try:
        yield figures
    finally:
        _KEPT.reset(before)


def save(figure: Figure, path: str | Path) -> Path:
    """Writes a figure, and the folder it lies in if there is none."""
    path = Path(path)
    if title := _TITLE.get():
        # A long name must not shrink what is drawn: it takes several lines, and further height.
        lines = wrap(title, max(20, int(11 * figure.get_figwidth())))
        figure.set_figheight(figure.get_figheight() + 0.2 * len(lines))
        figure.suptitle(plain("\n".join(lines)), fontsize="large")
    if (figures := _KEPT.get()) is not None:
        figures[path.stem] = figure
        return path
    content = BytesIO()
    figure.savefig(content, format="png", bbox_inches="tight")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.getvalue())
    return path
