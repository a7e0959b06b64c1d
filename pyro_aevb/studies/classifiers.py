r"""Pictures of a study's classifiers: first layers, and errors along a grid.

Each is called as those of :mod:`pyro_aevb.studies.figures` are, which say what the arguments are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.errors import UsageError
from pyro_aevb.models.rbm import RBM
from pyro_aevb.reports.plots import panels
from pyro_aevb.studies.collect import Collected
from pyro_aevb.studies.differences import ERROR
from pyro_aevb.studies.figures import keys_of, title_of, trained


def filters(collected: Collected, path: Path, units: int = 49, **which: Any) -> None:
    r"""The weights from the pixels to units of the first layer, each as a picture.

    A picture shows one unit's weights, grey where they are 0 and scaled by the largest of them. The
    units are those with the largest norms, the largest first.

    Arguments:
        collected, path, which: See :mod:`~.studies.figures`.
        units: How many.
    """
    shown: dict[str, np.ndarray] = {}
    for name, prepared in trained(collected, **which):
        found = prepared.pair.attribute("layers")
        layer = found[0] if found is not None else prepared.pair.attribute("encoder")
        weight = getattr(getattr(layer, "encoder", layer), "weight", None)
        if weight is None:
            raise UsageError(f"{name} has no first layer whose weights could be shown")
        # A machine's weights are (visible, hidden), a linear layer's (hidden, visible).
        rows = (weight.T if isinstance(layer, RBM) else weight).detach().numpy()
        order = np.argsort(-np.linalg.norm(rows, axis=1))[:units]
        few = rows[order].reshape(-1, *prepared.data.event_shape)
        largest = np.abs(few).max(axis=tuple(range(1, few.ndim)), keepdims=True)
        shown[name] = 0.5 + 0.5 * few / np.where(largest > 0, largest, 1)
    if shown:
        panels.mosaics(shown, path)


def errors_along(
    collected: Collected,
    path: Path,
    groups: Mapping[str, Mapping[str, float]],
    xlabel: str,
    *,
    grid: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> None:
    r"""Test errors along a quantity that the columns of a grid vary, a panel for each row.

    A line is the mean over seeds, as many as each of its columns has, with their range as a band.

    Arguments:
        collected, path, grid, rows, columns: See :mod:`~.studies.figures`.
        groups: A line each, by name: the columns that it joins, with their abscissae.
        xlabel: What these are.
    """
    drawn: dict[str, dict[str, panels.Curve]] = {}
    for row in dict.fromkeys(row for row, _ in keys_of(collected, grid, rows, columns)):
        for name, places in groups.items():
            found = []
            for column, x in places.items():
                cells = [c for c in collected.of(grid, row, column) if collected.reached(c)]
                numbers = [collected.number(cell, ERROR) for cell in cells]
                if values := [number for number in numbers if number is not None]:
                    found.append((x, values))
            if found:
                seeds = min(len(values) for _, values in found)
                found.sort()
                abscissae = np.array([place for place, _ in found])
                errors = np.array([values[:seeds] for _, values in found])
                line = abscissae, errors.T
                drawn.setdefault(title_of(collected, grid, row), {})[name] = line
    if drawn:
        panels.curves(drawn, path, xlabel, "test error, in per cent")
