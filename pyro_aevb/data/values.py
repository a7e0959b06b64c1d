r"""What the values of a user's data are: numbers that can be used, their range, what they mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_aevb.data.disk import BLOCK
from pyro_aevb.data.reading import Reading
from pyro_aevb.data.stored import Stored
from pyro_aevb.errors import UsageError

EXACT = 1 << 24
r"""Whole numbers up to this one are what float32 holds exactly."""


def numbers(
    what: str, array: np.ndarray, name: str, reading: Reading, features: list[str] | None
) -> np.ndarray:
    r"""The data, ``(N, *event_shape)``, whole numbers or float32, finite or missing if so said."""
    if array.ndim < 2:
        raise UsageError(f"{what} has shape {array.shape}; data are (N, D) or (N, H, W) or more")
    if array.size == 0:
        raise UsageError(f"{what} is empty, of shape {array.shape}")
    if array.dtype.kind in "bui":
        low, high = int(array.min()), int(array.max())
        if max(-low, high) > EXACT:
            raise UsageError(
                f"{what} has integers from {low} to {high}; above 2^24 float32 does not hold them "
                "exactly: rescale them, as floats"
            )
        return array
    if array.dtype.kind != "f":
        raise UsageError(f"{what} is of type {array.dtype}; data are integers or floats")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    finite = np.isfinite(array)
    if reading.missing:
        finite |= np.isnan(array)
    if finite.all():
        return array
    rows, columns = (finite.reshape(len(array), -1).all(axis) for axis in (1, 0))
    where = f"first in datum {np.argmin(rows)}"
    if np.isinf(array).any():
        raise UsageError(
            f"{what} has infinite values (or above 3.4e38, what float32 holds), {where}; look at "
            "them, and rescale or take out what they stand for"
        )
    if array.ndim == 2:
        places = np.flatnonzero(~columns)
        fits = features is not None and len(features) == array.shape[1]
        named = [features[n] if features and fits else str(n) for n in places[:5]]
        where = f"in columns {', '.join(named)}{' …' * (len(places) > 5)}, {where}"
    raise UsageError(f"{what} has missing values (NaN) {where}; {remedy(name)}")


def remedy(name: str) -> str:
    r"""What to do about missing values in the data of that name."""
    return (
        "fill them in, or for a pair that masks them say so after the path, "
        f"{name}:nan (from_arrays(missing=True))"
    )


def ends_on_disk(
    what: str, stored: Stored, name: str, reading: Reading, features: list[str] | None
) -> list[Any]:
    r"""Least and greatest value and number of missing ones, looked at from beginning to end."""
    found = []
    step = max(1, BLOCK // max(1, stored.size // max(1, len(stored))))
    step = -(-step // stored.chunk) * stored.chunk
    for start in range(0, max(1, len(stored)), step):  # once where there are none
        where = f"{what} [from datum {start}]"
        block = numbers(where, stored.read(start, start + step), name, reading, features)
        found.append(ends_of(block))
    return found


def ends_of(array: np.ndarray) -> tuple[Any, Any, int]:
    # of floats, the ends are not asked for
    missing = int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0
    return array.min(), array.max(), missing


def levels_of(dtypes: set[np.dtype], tables: bool, ends: list[Any]) -> tuple[type, int, str]:
    r"""The type that data are kept as, the integer that stands for 1, and what their values are."""
    if any(dtype.kind == "f" for dtype in dtypes):
        return np.float32, 1, "real values as they are"
    low, high = int(min(e[0] for e in ends)), int(max(e[1] for e in ends))
    kept = np.uint8 if low >= 0 and high <= 255 else np.float32
    if low >= 0 and high <= 1:
        return kept, 1, "binary"
    of_bytes = dtypes == {np.dtype(np.uint8)}
    if of_bytes and not tables:
        return kept, 255, "8-bit levels divided by 255"
    remedy = " (grey levels come as images, (N, H, W))" if of_bytes else ""
    return kept, 1, f"integers {low} to {high} as they are{remedy}"
