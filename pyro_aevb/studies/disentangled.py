r"""Pictures of a study of disentanglement: scores along choices of the metric, and codes by factor.

Each is called as those of :mod:`pyro_aevb.studies.figures` are, which say what the arguments are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyro_aevb.data.batch import data_of
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.predict import decode, encode
from pyro_aevb.reports.plots import canvas
from pyro_aevb.reports.tables import csv_table
from pyro_aevb.runs.writing import write_whole
from pyro_aevb.studies.collect import Collected
from pyro_aevb.studies.declare import FIT
from pyro_aevb.studies.figures import NUMBERS, keys_of, trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pyro_aevb.runs.prepare import Prepared

PROTOCOLS = "protocols"
r"""The name of the scoring that has the other choices; of a row without training it is ``test``."""
CHOICES = {
    "higgins_score": "as it is",
    "higgins_all_factors": "all factors, chance 20",
    "higgins_sgd": "Adagrad, 10,000 steps",
    "higgins_raw": "features not scaled",
    "higgins_raw_sgd": "Adagrad, not scaled",
    "higgins_sampled": "draws of the codes",
}
ACROSS = np.linspace(-2, 2, 9)


def _values(
    collected: Collected, metrics: Sequence[str], beside: str, grid: str, **which: Any
) -> Iterator[tuple[str, list[list[float]]]]:
    r"""For each column its name, and of each metric the values of the seeds that have it."""
    places = [(beside, FIT, key) for key in collected.keys(beside)] if beside else []
    places += [(grid, PROTOCOLS, key) for key in keys_of(collected, grid, **which)]
    for where, scoring, (row, column) in places:
        found = []
        for metric in metrics:
            cells = collected.of(where, row, column)
            values = []
            for cell in cells:
                try:
                    value = collected.number(cell, f"{scoring}/{metric}")
                except UsageError:  # this one has no such choice
                    value = None
                if value is not None and np.isfinite(value):
                    values.append(value)
            found.append(values)
        if any(found):
            yield column, found


def along_pairs(
    collected: Collected,
    path: Path,
    pairs: Sequence[int],
    headline: int,
    beside: str,
    published: Mapping[str, float] | None = None,
    *,
    grid: str,
    **which: Any,
) -> None:
    r"""Higgins' score against L, a line for each column, the mean over seeds.

    Beside the picture, with :data:`~.figures.NUMBERS` for the suffix, stands a line for each point.

    Arguments:
        collected, path, grid, which: See :mod:`~.studies.figures`.
        pairs: The L.
        headline: The one of the tables.
        beside: A grid of rows without training.
        published: By column, values that are drawn as lines across.
    """
    names = {f"higgins_L{L}": L for L in pairs}
    found = _values(collected, list(names), beside, grid, **which)
    drawn = _along(found, list(names.values()), path, ("pairs", "score"), published or {})
    if drawn is not None:
        figure, axes = drawn
        axes.axvline(headline, color="0.8", lw=1, zorder=0)
        axes.set_xlabel("L, pairs to a point")
        axes.set_ylabel("Higgins score, in %")
        canvas.save(figure, path)


def across_choices(
    collected: Collected, path: Path, beside: str, *, grid: str, **which: Any
) -> None:
    r"""Higgins' score by other choices of its constants, a row for each column of the grid.

    Beside the picture, with :data:`~.figures.NUMBERS` for the suffix, stand its numbers.

    Arguments:
        collected, path, grid, which: See :mod:`~.studies.figures`.
        beside: A grid of rows without training.
    """
    table, names = [], []
    for name, found in _values(collected, list(CHOICES), beside, grid, **which):
        names.append(name)
        table.append([float(np.mean(v)) if v else np.nan for v in found])
    if not table:
        return
    values = np.array(table)
    figure = canvas.blank(8.4, 0.34 * len(names) + 2.0)
    axes = figure.subplots()
    shown = axes.imshow(values, vmin=20, vmax=100, cmap="viridis", aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "w" if value < 65 else "k"
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=color, fontsize="small")
    axes.set_xticks(range(len(CHOICES)), list(CHOICES.values()), rotation=20, ha="right")
    axes.set_yticks(range(len(names)), names)
    figure.colorbar(shown, ax=axes, label="Higgins score, in %")
    lines = [
        {"column": name, **dict(zip(CHOICES, map(str, row), strict=True))}
        for name, row in zip(names, values, strict=True)
    ]
    write_whole(path.with_suffix(NUMBERS), csv_table(lines))
    canvas.save(figure, path)


def along_labels(
    collected: Collected, path: Path, counts: Sequence[int], beside: str, *, grid: str, **which: Any
) -> None:
    r"""The accuracy of classifiers on codes against the number of labels.

    Arguments:
        collected, path, grid, which: See :mod:`~.studies.figures`.
        counts: The numbers of labels.
        beside: A grid of rows without training.
    """
    names = {f"accuracy_{count}": count for count in counts}
    found = _values(collected, list(names), beside, grid, **which)
    drawn = _along(found, list(names.values()), path, ("labels", "accuracy"), {})
    if drawn is not None:
        figure, axes = drawn
        axes.set_xlabel("labels")
        axes.set_ylabel("accuracy, in %")
        canvas.save(figure, path)


def _along(
    values: Iterable[tuple[str, list[list[float]]]],
    x: Sequence[int],
    path: Path,
    titles: tuple[str, str],
    published: Mapping[str, float],
) -> "tuple[Figure, Axes] | None":
    r"""A line for each column, the mean over seeds, and its numbers beside; None without any."""
    figure = canvas.blank(7.2, 4.2)
    axes, lines = figure.subplots(), []
    for i, (name, found) in enumerate(values):
        known = [(at, float(np.mean(v))) for at, v in zip(x, found, strict=True) if v]
        style: dict[str, Any] = {"color": f"C{i % 10}", "ls": "-" if i < 10 else "--"}
        axes.plot(*zip(*known, strict=True), marker="o", ms=3, label=name, **style)
        if name in published:
            axes.axhline(published[name], color=style["color"], lw=0.8, ls=":")
        lines += [{"column": name, titles[0]: at, titles[1]: value} for at, value in known]
    if not lines:
        return None
    write_whole(path.with_suffix(NUMBERS), csv_table(lines))
    axes.set_xscale("log")
    ticks = [at for at in x if str(at)[0] in "125" and set(str(at)[1:]) <= {"0"}]
    axes.set_xticks(ticks, [f"{at:,}" for at in ticks])
    axes.minorticks_off()
    figure.legend(loc="outside right center", frameon=False)
    return figure, axes


def scattered(
    collected: Collected,
    path: Path,
    x: str,
    y: str,
    labels: tuple[str, str],
    *,
    grid: str,
    **which: Any,
) -> None:
    r"""One quantity against another, a point for each run that has both.

    Arguments:
        collected, path, grid, which: See :mod:`~.studies.figures`.
        x, y: The quantities, see :class:`~.declare.Table`.
        labels: What the axes are called.
    """
    figure = canvas.blank(6.2, 3.8)
    axes, drawn = figure.subplots(), 0
    for i, (row, column) in enumerate(keys_of(collected, grid, **which)):
        cells = collected.of(grid, row, column)
        both = [(collected.number(cell, x), collected.number(cell, y)) for cell in cells]
        known = [(a, b) for a, b in both if a is not None and b is not None]
        known = [pair for pair in known if np.isfinite(pair).all()]
        if known:
            drawn += 1
            axes.plot(*zip(*known, strict=True), "o", color=f"C{i % 10}", label=column)
    if not drawn:
        return
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    figure.legend(loc="outside right center", frameon=False)
    canvas.save(figure, path)


def traversals(collected: Collected, path: Path, **which: Any) -> None:
    r"""What each dimension does to one test datum, a panel for each trained pair.

    A row is a dimension of the code, the one whose means vary most over the data first; along the
    row it goes from -2 to 2, the others stay at the datum's mean code.

    Arguments:
        collected, path, which: See :mod:`~.studies.figures`.
    """
    shown: dict[str, np.ndarray] = {}
    for name, prepared in trained(collected, **which):
        x = data_of(prepared.test.take(torch.arange(min(500, len(prepared.test)))))
        order = np.argsort(-_codes(prepared, x).std(0))[:10]
        many = x[:1].expand(len(order) * len(ACROSS), *x.shape[1:])
        values = encode(prepared.pair, many)
        walk = values[site_of(prepared)].reshape(len(order), len(ACROSS), -1)
        for row, dimension in enumerate(order):
            walk[row, :, dimension] = torch.from_numpy(ACROSS)
        images = decode(prepared.pair, values, many).numpy()
        shown[name] = images.reshape(len(order), len(ACROSS), *x.shape[1:])
    if not shown:
        return
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    figure = canvas.blank(3.2 * across, 3.7 * down)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for place, (name, images) in zip(axes, shown.items(), strict=False):
        flat = canvas.displayable(images.reshape(-1, *images.shape[2:]))
        place.imshow(canvas.tile(flat, *images.shape[:2]), cmap="gray", vmin=0, vmax=1)
        place.set_title(name, fontsize="medium")
    for place in axes:
        place.set_axis_off()
    canvas.save(figure, path)


def means_by_factor(collected: Collected, path: Path, **which: Any) -> None:
    r"""The mean code of one shape along its factors: place as maps, others as curves.

    All else is at its middle value. Columns are dimensions, the one whose means vary most first.

    Arguments:
        collected, path, which: See :mod:`~.studies.figures`.
    """
    drawn: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for name, prepared in trained(collected, **which):
        data = prepared.data
        try:
            sizes = dict(data.factors or {})
            sizes["x"], sizes["y"], sizes["orientation"], sizes["scale"]
        except KeyError:
            raise UsageError(f"{data.name} has no factors x, y, orientation and scale") from None
        if len(data.train) != int(np.prod(list(sizes.values()))):
            continue  # a part of the data lacks combinations

        def along(names: Sequence[str], prepared: Any = prepared, sizes: Any = sizes) -> np.ndarray:
            middle = {factor: size // 2 for factor, size in sizes.items()}
            grids = np.meshgrid(*(np.arange(sizes[n]) for n in names), indexing="ij")
            values = {**middle, **dict(zip(names, grids, strict=True))}
            every = np.stack([np.broadcast_to(values[f], grids[0].shape).ravel() for f in sizes], 1)
            rows = prepared.data.index_of(torch.from_numpy(every))
            return _codes(prepared, data_of(prepared.fixed_train.take(rows)))

        place = along(["y", "x"])
        order = np.argsort(-place.std(0) - along(["orientation"]).std(0))
        maps = place.reshape(sizes["y"], sizes["x"], -1)[..., order]
        turns, scales = (along([factor])[:, order] for factor in ("orientation", "scale"))
        drawn[name] = maps, turns, scales
    if not drawn:
        return
    count = max(maps.shape[-1] for maps, _, _ in drawn.values())
    figure = canvas.blank(0.9 * count + 1.4, 3.0 * len(drawn))
    axes = figure.subplots(3 * len(drawn), count, squeeze=False)
    for i, (name, (maps, turns, scales)) in enumerate(drawn.items()):
        for j in range(count):
            own = axes[3 * i : 3 * i + 3, j]
            for panel in own:
                panel.set_xticks([])
                panel.set_yticks([])
            if j >= maps.shape[-1]:
                for panel in own:
                    panel.set_axis_off()
                continue
            own[0].imshow(maps[..., j], vmin=-2.5, vmax=2.5, cmap="coolwarm")
            for panel, values in ((own[1], turns), (own[2], scales)):
                panel.plot(values[:, j], color="k", lw=1)
                panel.set_ylim(-3, 3)
        for panel, text in zip(axes[3 * i : 3 * i + 3, 0], _TITLES, strict=True):
            panel.set_ylabel(text, fontsize="x-small")
        axes[3 * i, 0].set_title(name, fontsize="medium", loc="left")
    canvas.save(figure, path)


_TITLES = ("place", "orientation", "scale")


def _codes(prepared: "Prepared", x: torch.Tensor) -> np.ndarray:
    return encode(prepared.pair, x)[site_of(prepared)].flatten(1).numpy()


def site_of(prepared: "Prepared") -> str:
    r"""The name of the first local site, which is the code where there is noise beside it."""
    return prepared.description.local_sites[0].name
