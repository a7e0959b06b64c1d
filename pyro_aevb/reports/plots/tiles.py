r"""Events as pictures, and many pictures as one: arrays in, arrays out."""

from __future__ import annotations

import numpy as np


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
