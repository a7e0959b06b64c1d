r"""Figures, each a pure function from NumPy arrays to a PNG file.

Every function returns the path that it wrote. An event of shape :math:`(H, W)`, :math:`(1, H, W)`
or :math:`(3, H, W)` is drawn as a picture (any other number of channels as the grey mean over
channels), an event of another shape as the curve of its flattened components. Values within
:math:`[0, 1]` are shown as they are; others are mapped to it by one affine map per figure.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_aevb.tiles import displayable, tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pyro_aevb.estimators.convergence import Curve

DPI = 120
NATS = "nats per datum, higher is better"


def history(rows: Sequence[Mapping[str, float | None]], path: str | Path) -> Path:
    r"""Draws the training objective and the validation ELBO against the epoch.

    Where no ELBO is defined, the validation reconstruction takes its place.

    The lower limit of the vertical axis is robust: the first epochs, often far below the rest, may
    fall under the axis, and the figure then says how many points do.

    Arguments:
        rows: One mapping per epoch with `epoch`, `objective`, `elbo` and perhaps `reconstruction`
            in nats per datum, and `kl_scale`; `None` where a quantity was not measured.
        path: Where to write.
    """

    def column(name: str) -> np.ndarray:
        values = [row.get(name) for row in rows]
        return np.array([np.nan if value is None else value for value in values], dtype=float)

    figure = _figure(7.0, 4.2)
    axes = figure.add_subplot(xlabel="epoch", ylabel=NATS)
    epoch, curves = column("epoch"), []
    watched, label = "elbo", "validation ELBO"
    if not np.isfinite(column("elbo")).any():
        watched, label = "reconstruction", "validation reconstruction"
    for name, text, color in (("objective", "training objective", "C1"), (watched, label, "C0")):
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
        axes.legend(frameon=False, loc="lower right")
        axes.locator_params(axis="x", integer=True)
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no epoch was trained", transform=axes.transAxes, ha="center")
    return _save(figure, path)


def reconstructions(
    inputs: np.ndarray, outputs: np.ndarray, path: str | Path, clean: np.ndarray | None = None
) -> Path:
    r"""Draws the first 12 inputs above their reconstructions, or overlays them if they are vectors.

    Arguments:
        inputs: The data, shape :math:`(n, *event)`.
        outputs: Their reconstructions, of the same shape.
        path: Where to write.
        clean: The data that the inputs are a corruption of, if they are one; drawn above them.
    """
    rows = {"input": inputs[:12], "reconstruction": outputs[:12]}
    if clean is not None:
        rows = {"clean": clean[:12], "corrupted input": inputs[:12], "reconstruction": outputs[:12]}
    n = len(rows["reconstruction"])
    events = displayable(np.concatenate(list(rows.values())))
    if events.ndim > 2:
        figure, axes = _grid(events, len(rows), n, gap=True, cell=0.85)
        axes.set_yticks([i + 0.5 for i in range(len(rows))], list(rows))
        return _save(figure, path)

    columns = min(n, 4)
    figure = _figure(2.2 * columns + 0.6, 1.7 * ceil(n / columns) + 0.6)
    panels = figure.subplots(
        ceil(n / columns), columns, sharex=True, sharey=True, squeeze=False
    ).flat
    component = np.arange(events.shape[1])
    marker = "o" if len(component) <= 30 else ""
    colors = {"clean": "0.55", "input": "0.55", "corrupted input": "C0", "reconstruction": "C3"}
    for i, axes in enumerate(panels):
        if i < n:
            for row, label in enumerate(rows):
                style = {"color": colors[label], "marker": marker, "ms": 3, "lw": 1.3}
                axes.plot(component, events[row * n + i], label=label, **style)
            axes.locator_params(axis="x", integer=True)
        else:
            axes.set_visible(False)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=len(rows))
    figure.supxlabel("component")
    figure.supylabel("value")
    return _save(figure, path)


def samples(images: np.ndarray, path: str | Path, title: str = "samples from the prior") -> Path:
    r"""Draws samples in a grid, row by row.

    Arguments:
        images: The samples, shape :math:`(n, *event)`.
        path: Where to write.
        title: What they are samples of.
    """
    columns = ceil(sqrt(len(images)))
    rows = ceil(len(images) / columns)
    figure, axes = _grid(displayable(images), rows, columns, gap=True, cell=0.75)
    axes.set_title(_plain(title))
    return _save(figure, path)


def latent_scatter(
    codes: np.ndarray,
    labels: np.ndarray | None,
    path: str | Path,
    prior: np.ndarray | None = None,
) -> Path:
    r"""Draws two-dimensional codes, coloured by label, and beside them draws from their prior.

    Arguments:
        codes: The codes, shape :math:`(N, 2)`.
        labels: The labels, shape :math:`(N,)`, if there are any. More than 20 different ones are
            shown by a colour bar instead of a legend.
        path: Where to write.
        prior: Draws from the prior, shape :math:`(M, 2)`, for a second panel of the same scale.
    """
    panels = 1 if prior is None else 2
    figure = _figure(2.0 + 5.0 * panels, 6.0)
    axes = figure.add_subplot(1, panels, 1, xlabel="$z_1$", ylabel="$z_2$")
    # In a random order, so that the last class does not cover the others.
    order = np.random.default_rng(0).permutation(len(codes))
    x, y = codes[order, 0], codes[order, 1]
    style: dict[str, Any] = {"s": float(np.clip(4e4 / max(len(codes), 1), 5, 25)), "lw": 0}
    if labels is None:
        axes.scatter(x, y, alpha=0.5, **style)
    else:
        from matplotlib import colormaps

        names, index = np.unique(labels, return_inverse=True)
        if len(names) > 20:
            points = axes.scatter(x, y, c=np.asarray(labels)[order], cmap="turbo", **style)
            figure.colorbar(points, label="label")
        else:
            colors = np.array(colormaps["tab10" if len(names) <= 10 else "tab20"].colors)  # type: ignore[attr-defined]
            axes.scatter(x, y, c=colors[index[order]], alpha=0.8, **style)
            for color, name in zip(colors, names, strict=False):
                axes.scatter([], [], color=color, s=30, label=_plain(str(name)))
            figure.legend(loc="outside right center", title="label", frameon=False)
    if prior is None:
        axes.set_aspect("equal", adjustable="datalim")
        return _save(figure, path)
    second = figure.add_subplot(1, 2, 2, xlabel="$z_1$", sharex=axes, sharey=axes)
    second.scatter(prior[:, 0], prior[:, 1], color="0.4", alpha=0.6, **style)
    for panel, title in ((axes, "codes of data"), (second, "draws from the prior")):
        panel.set_aspect("equal", adjustable="box")
        panel.set_title(title)
    return _save(figure, path)


def manifold_grid(g: int) -> np.ndarray:
    r"""Returns the codes whose decodings :func:`manifold` draws.

    They are :math:`(\Phi^{-1}(u_j), \Phi^{-1}(u_i))` with :math:`u_i = (i + 1/2) / g` and
    :math:`\Phi` the standard normal distribution function, in reading order: from left to right
    :math:`z_1` grows, from top to bottom :math:`z_2` falls.

    Arguments:
        g: The number of points per dimension.

    Returns:
        The codes, shape :math:`(g^2, 2)`.
    """
    from scipy.stats import norm

    z = norm.ppf((np.arange(g) + 0.5) / g)
    horizontal, vertical = np.meshgrid(z, z[::-1])
    return np.stack([horizontal.ravel(), vertical.ravel()], axis=1)


def manifold(images: np.ndarray, path: str | Path) -> Path:
    r"""Draws the decodings of :func:`manifold_grid`, tiled without gaps.

    Arguments:
        images: The decodings in the order of the grid, shape :math:`(g^2, *event)`.
        path: Where to write.
    """
    g = round(sqrt(len(images)))
    figure, axes = _grid(displayable(images), g, g, gap=False, cell=max(0.38, 5 / g))
    z = manifold_grid(g)[:g, 0]
    # Ticks in pairs about the centre, at most eight.
    step = ceil(g / 8)
    ticks = np.array([i for i in range(g) if min(i, g - 1 - i) % step == 0])
    ticks = ticks[(abs(2 * ticks - g + 1) >= step) | (2 * ticks == g - 1)]
    names = [f"{z[i]:.2f}" for i in ticks]
    axes.set_xticks(ticks + 0.5, names)
    axes.set_yticks(g - ticks - 0.5, names)
    axes.tick_params(length=3)
    axes.set_xlabel("$z_1$")
    axes.set_ylabel("$z_2$")
    return _save(figure, path)


def traversals(
    images: np.ndarray, values: np.ndarray, path: str | Path, labels: Sequence[str]
) -> Path:
    r"""Draws decodings along one latent dimension after the other.

    Arguments:
        images: The decodings, shape :math:`(d, s, *event)`: row :math:`i` walks along one dimension
            in :math:`s` steps.
        values: The values taken along each walk, shape :math:`(s,)`.
        path: Where to write.
        labels: The names of the :math:`d` dimensions, `"$z_3$"` for example.
    """
    rows, columns = images.shape[:2]
    events = displayable(images.reshape(rows * columns, *images.shape[2:]))
    figure, axes = _grid(events, rows, columns, gap=True, cell=0.7)
    axes.set_yticks(np.arange(rows) + 0.5, labels)
    axes.set_xticks(np.arange(columns) + 0.5, [f"{value:.3g}" for value in values])
    axes.set_xlabel("value of the latent dimension")
    return _save(figure, path)


def elbo_against_log_likelihood(
    elbo: np.ndarray, log_likelihood: np.ndarray, path: str | Path
) -> Path:
    r"""Draws the log-likelihood of each datum against its ELBO; the height above the diagonal is
    the gap.

    Arguments:
        elbo: The ELBO of each datum in nats, shape :math:`(N,)`.
        log_likelihood: The log-likelihood of each datum in nats, shape :math:`(N,)`.
        path: Where to write.
    """
    lines = {
        "ELBO": elbo,
        "log-likelihood": log_likelihood,
        "gap": log_likelihood - elbo,
    }
    return _diagonal(elbo, log_likelihood, ("ELBO", "log-likelihood"), lines, path)


def inference_gap(bounds: Mapping[str, np.ndarray], path: str | Path) -> Path:
    r"""Draws how much each bound of a datum lies above the one before it, stacked.

    Arguments:
        bounds: In nats, shape :math:`(N,)` each, from the guide's ELBO to log p(x) (see
            :meth:`pyro_aevb.estimators.gap.InferenceGap.bounds`).
        path: Where to write.
    """
    figure = _figure(7.5, 4.5)
    names = list(bounds)
    axes = figure.add_subplot(xlabel="datum, by its gap", ylabel=f"nats above {_plain(names[0])}")
    gap = bounds[names[-1]] - bounds[names[0]]
    order = np.argsort(gap)
    order = np.append(order, order[-1:])  # the last step ends where it began
    levels = [(bounds[name] - bounds[names[0]])[order] for name in names]
    for i, (lower, upper) in enumerate(itertools.pairwise(names)):
        label = _mean(f"{lower} to {upper}", bounds[upper] - bounds[lower])
        style: dict[str, Any] = {"step": "post", "color": f"C{i}", "lw": 0, "label": label}
        axes.fill_between(np.arange(len(order)), levels[i], levels[i + 1], **style)
    axes.margins(x=0)
    axes.set_title(f"{_mean('inference gap', gap)} nats, {len(gap)} data", loc="left")
    axes.legend(frameon=False, loc="upper left", reverse=True)
    return _save(figure, path)


def latent_kl(kl: Mapping[str, np.ndarray], collapsed: float, path: str | Path) -> Path:
    r"""Draws what each latent dimension adds to KL(q(z|x) || p(z)), the largest first.

    Arguments:
        kl: For each latent site the KL of each datum and dimension in nats, shape :math:`(N, d)`.
        collapsed: A dimension whose mean is below this is drawn in grey and counted.
        path: Where to write.
    """
    sizes = [values.shape[1] for values in kl.values()]
    figure = _figure(float(np.clip(1.5 + 0.22 * sum(sizes), 5, 16)), 4.0)
    panels = figure.subplots(1, len(kl), sharey=True, squeeze=False, width_ratios=sizes)[0]
    for axes, (site, values) in zip(panels, kl.items(), strict=True):
        order = np.argsort(-values.mean(0))
        means = values.mean(0)[order]
        errors = values.std(0, ddof=1)[order] / sqrt(len(values)) if len(values) > 1 else None
        colors = ["0.7" if mean < collapsed else "C0" for mean in means]
        axes.bar(np.arange(len(means)), means, yerr=errors, color=colors, capsize=2)
        if len(means) <= 64:
            axes.set_xticks(np.arange(len(means)), [str(i) for i in order], fontsize="x-small")
        active = int((means >= collapsed).sum())
        text = f"{_plain(site)}: {means.sum():.2f} nats, {active} of {len(means)} above {collapsed}"
        axes.set_title(text, loc="left", fontsize="medium")
        axes.set_xlabel("latent dimension")
        axes.margins(x=0.01)
    panels[0].set_ylabel("KL of a dimension, nats per datum")
    return _save(figure, path)


def convergence(
    curves: Mapping[str, Curve],
    path: str | Path,
    bounds: Mapping[str, float] | None = None,
    gap: float | None = None,
) -> Path:
    r"""Draws log-likelihoods against the numbers of draws they are estimated from.

    A bar is the standard error of the paired per-datum differences to the last point, so that it
    shows what has moved and not how data differ; the last point therefore has none. The title
    says what the last doubling added.

    Arguments:
        curves: For each kind of draw the numbers and the per-datum estimates.
        path: Where to write.
        bounds: Values of other estimators on the same data, drawn as horizontal lines.
        gap: The `bdmc_gap` of data that the model simulated, drawn as a band above `ais_lower`:
            about where log p(x) lies, as far as the data are like simulated ones.
    """
    figure = _figure(6.4 * len(curves), 4.2)
    panels = figure.subplots(1, len(curves), squeeze=False).flat
    for axes, (name, curve) in zip(panels, curves.items(), strict=True):
        counts, means = np.array(curve.counts), curve.values.mean(1)
        n = curve.values.shape[1]
        errors = np.zeros(len(counts))
        if n > 1:
            errors = (curve.values - curve.values[-1]).std(1, ddof=1) / sqrt(n)
        axes.errorbar(counts, means, yerr=errors, fmt="o-", ms=4, capsize=3, color="C0")
        axes.axhline(means[-1], color="0.6", lw=1, ls="--", zorder=0)
        half, rise = curve.counts[-1] // 2, curve.rise()
        axes.axvspan(half, counts[-1], color="0.93", zorder=0)
        text = f"from {half:,} to {counts[-1]:,}: {rise.mean():+.2f}"
        text += f" ± {rise.std(ddof=1) / sqrt(n):.2f}" if n > 1 else ""
        axes.set_title(f"last doubling, {text} nats", loc="left", fontsize="medium")
        ylabel = f"log-likelihood of {n:,} data, nats per datum"
        axes.set(xscale="log", xlabel=f"number of {name}", ylabel=ylabel)
        for i, (bound, value) in enumerate((bounds or {}).items()):
            label, color = f"{_plain(bound)} {value:.2f}", f"C{i + 1}"
            axes.axhline(value, color=color, lw=1.2, ls="-.", label=label)
            if bound == "ais_lower" and gap is not None:
                label = f"plus the bdmc_gap of simulated data, {gap:.2f}"
                axes.axhspan(value, value + gap, color=color, alpha=0.2, lw=0, label=_plain(label))
        if bounds:
            axes.legend(frameon=False, loc="lower right")
    return _save(figure, path)


def against(
    names: tuple[str, str],
    values: tuple[np.ndarray, np.ndarray],
    score: str,
    auroc: float,
    path: str | Path,
) -> Path:
    r"""Draws how a score is distributed over two data sets.

    Arguments:
        names: What the two data sets are called.
        values: The score of each datum of the first, shape :math:`(N,)`, and of the second.
        score: The name of the score.
        auroc: How well it tells one set from the other.
        path: Where to write.
    """
    figure = _figure(7.0, 4.2)
    axes = figure.add_subplot(xlabel=f"{_plain(score)}, nats per datum", ylabel="density of data")
    edges = np.histogram_bin_edges(np.concatenate(values), 60).tolist()
    for name, of_set, color in zip(names, values, ("C0", "C3"), strict=True):
        label = f"{_plain(name)}: {of_set.mean():.2f} on average, {len(of_set):,} data"
        axes.hist(of_set, edges, density=True, alpha=0.55, color=color, label=label)
    axes.set_title(f"AUROC {auroc:.3f}", loc="left", fontsize="medium")
    figure.legend(loc="outside upper center", frameon=False)
    return _save(figure, path)


def pairwise(
    names: tuple[str, str], first: np.ndarray, second: np.ndarray, path: str | Path
) -> Path:
    r"""Draws the log-likelihood of each datum under one run against that under another.

    Arguments:
        names: The names of the two runs.
        first: The log-likelihoods under the first run in nats, shape :math:`(N,)`.
        second: The log-likelihoods of the same data under the second run.
        path: Where to write.
    """
    lines = {names[0]: first, names[1]: second, "difference": second - first}
    axis = (f"log-likelihood, {names[0]}", f"log-likelihood, {names[1]}")
    return _diagonal(first, second, axis, lines, path)


def comparison(
    names: Sequence[str],
    metrics: Mapping[str, tuple[Sequence[float | None], Sequence[float | None]]],
    path: str | Path,
) -> Path:
    r"""Draws the metrics of several runs side by side, with their standard errors.

    Arguments:
        names: The names of the runs.
        metrics: For each metric the values and the standard errors, one of each per run; `None`
            where a metric is not defined.
        path: Where to write.
    """
    figure = _figure(7.5, 1.3 + len(names) * (0.25 + 0.3 * len(metrics)))
    axes = figure.add_subplot(xlabel=NATS + " (bars: one standard error)")
    offsets = 0.55 * (np.arange(len(metrics)) - (len(metrics) - 1) / 2) / max(len(metrics), 1)
    for i, (metric, (values, errors)) in enumerate(metrics.items()):
        axes.plot([], [], "o", color=f"C{i}", label=_plain(metric))
        for run, (value, error) in enumerate(zip(values, errors, strict=True)):
            y = run + offsets[i]
            if value is None or not np.isfinite(value):
                text = f"  {_plain(metric)} is not defined"
                left = axes.get_yaxis_transform()
                axes.text(0, y, text, transform=left, va="center", color="0.5")
                continue
            axes.errorbar(value, y, xerr=error, fmt="o", color=f"C{i}", ms=5, capsize=3)
            text = f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")
            style: dict[str, Any] = {"ha": "center", "fontsize": "x-small"}
            axes.annotate(text, (value, y), (0, 5), textcoords="offset points", **style)
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=max(len(metrics), 1), frameon=False)
    return _save(figure, path)


def _grid(
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
    figure = _figure(columns * inches + 0.8, rows * inches * aspect + 0.6)
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


def _diagonal(
    x: np.ndarray,
    y: np.ndarray,
    labels: tuple[str, str],
    lines: Mapping[str, np.ndarray],
    path: str | Path,
) -> Path:
    """Draws y against x with the diagonal, and the mean of each of `lines`."""
    figure = _figure(6.0, 6.0)
    axes = figure.add_subplot()
    axes.set(xlabel=_plain(labels[0]) + ", nats", ylabel=_plain(labels[1]) + ", nats")
    axes.scatter(x, y, s=float(np.clip(4e4 / max(len(x), 1), 5, 25)), lw=0, alpha=0.4)
    axes.axline((float(np.mean(x)),) * 2, slope=1, color="0.3", lw=1, ls="--", label="equal")
    axes.plot(np.mean(x), np.mean(y), "P", color="C3", mec="white", ms=9, label="mean")
    text = [f"means over {len(x)} data, ± one standard error"]
    text += [_mean(name, values) for name, values in lines.items()]
    axes.set_title("\n".join(text), loc="left", fontsize="medium")
    axes.legend(frameon=False, loc="lower right")
    axes.set_aspect("equal", adjustable="datalim")
    return _save(figure, path)


def _limit(axes: Axes, values: np.ndarray) -> int:
    """Sets vertical limits that the lowest tenth does not stretch; returns how many are cut off."""
    high, usual = values.max(), np.quantile(values, 0.1)
    low = max(values.min(), usual - 0.5 * (high - usual))
    margin = 0.05 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
    return int((values < low - margin).sum())


def _mean(name: str, values: np.ndarray) -> str:
    """A mean with its standard error."""
    error = f" ± {np.std(values, ddof=1) / sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{_plain(name)}: {np.mean(values):.2f}{error}"


def _plain(text: str) -> str:
    """Keeps a user's dollar signs out of Matplotlib's mathematics."""
    return text.replace("$", r"\$")


def _figure(width: float, height: float) -> Figure:
    # Never pyplot: it keeps state, and would choose a window system.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", bbox_inches="tight")
    return path
