r"""How training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyro_aevb.reports.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def history(
    rows: Sequence[Mapping[str, float | None]],
    path: str | Path,
    objective: str = "training objective",
) -> Path:
    r"""Draws the training objective and the validation ELBO against the epoch.

    Where no ELBO is defined, the validation reconstruction takes its place. Where there is a
    pseudo-likelihood it does, beside the reconstruction: the objective, a difference of free
    energies, then measures no progress.

    The lower limit of the vertical axis is robust: the first epochs, often far below the rest, may
    fall under the axis, and the figure then says how many points do.

    Arguments:
        rows: One mapping per epoch with `epoch`, `objective`, `elbo` and perhaps `reconstruction`
            and `pseudo_likelihood` in nats per datum, and `kl_scale`; `None` where a quantity was
            not measured.
        path: Where to write.
        objective: The name of the objective in the legend.
    """

    def column(name: str) -> np.ndarray:
        values = [row.get(name) for row in rows]
        return np.array([np.nan if value is None else value for value in values], dtype=float)

    figure = canvas.blank(7.0, 4.2)
    axes = figure.add_subplot(xlabel="epoch", ylabel=canvas.NATS)
    epoch, curves = column("epoch"), []
    watched, label = "elbo", "validation ELBO"
    if not np.isfinite(column("elbo")).any():
        watched, label = "reconstruction", "validation reconstruction"
    beside = "objective", objective
    if np.isfinite(column("pseudo_likelihood")).any():
        beside = watched, label
        watched, label = "pseudo_likelihood", "validation pseudo-likelihood"
    for name, text, color in ((*beside, "C1"), (watched, label, "C0")):
        values = column(name)
        known = np.isfinite(values)
        if known.any():
            x, y = epoch[known], values[known]
            if name == watched:
                text += f", best {y.max():.2f} at epoch {x[y.argmax()]:.0f}"
            axes.plot(x, y, color=color, label=text, marker="o" if len(x) <= 40 else "", ms=3)
            curves.append(y)

    kl_scale = column("kl_scale")
    if scaled := [bool(s != 1) for s in kl_scale[np.isfinite(kl_scale)]]:
        if any(scaled) and not all(scaled):
            last = epoch[np.isfinite(kl_scale)][scaled].max()
            axes.axvspan(epoch.min(), last, color="0.93", zorder=0, label="KL warm-up")
        elif all(scaled):
            axes.set_title(f"KL scaled by {kl_scale[-1]:g} in the objective", fontsize="medium")

    if curves:
        if below := _limit(axes, np.concatenate(curves)):
            points = f"{below} points lie" if below > 1 else "1 point lies"
            axes.set_xlabel(f"epoch ({points} below the axis)")
        axes.legend(frameon=False, loc="best")
        axes.locator_params(axis="x", integer=True)
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no epoch was trained", transform=axes.transAxes, ha="center")
    return canvas.save(figure, path)


def _limit(axes: Axes, values: np.ndarray) -> int:
    """Sets vertical limits that the lowest tenth does not stretch; returns how many are cut off."""
    high, usual = values.max(), np.quantile(values, 0.1)
    low = max(values.min(), usual - 0.5 * (high - usual))
    margin = 0.05 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
    return int((values < low - margin).sum())
