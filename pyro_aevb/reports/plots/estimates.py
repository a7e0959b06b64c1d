r"""Estimates of every datum, of every pair, and from growing numbers of samples."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_aevb.reports.plots import canvas

if TYPE_CHECKING:
    from pyro_aevb.estimators.convergence import Curve


def elbo_against_log_likelihood(
    elbo: np.ndarray,
    log_likelihood: np.ndarray,
    path: str | Path,
    iwae_bound: np.ndarray | None = None,
) -> Path:
    r"""Draws by how much the log-likelihood of each datum is above its ELBO.

    The abscissa is the log-likelihood, so that the gap is seen beside how likely a datum is, and at
    its own scale, which is often a hundredth of that.

    Arguments:
        elbo: The ELBO of each datum in nats, shape :math:`(N,)`.
        log_likelihood: The log-likelihood of each datum in nats, shape :math:`(N,)`.
        path: Where to write.
        iwae_bound: What draws of the guide give in its place, shape :math:`(N,)`; its mean is
            drawn and stated too.
    """
    gap = log_likelihood - elbo
    lines = {"ELBO": elbo, "log-likelihood": log_likelihood, "gap": gap}
    levels = {"ELBO": (0.0, "0.3", "--"), "mean gap": (float(np.mean(gap)), "C3", "-")}
    if iwae_bound is not None:
        lines = {"ELBO": elbo, "IWAE bound": iwae_bound, **lines}
        level = float(np.mean(iwae_bound - elbo))
        levels["mean of the IWAE bound above the ELBO"] = (level, "C1", "-.")
    figure = canvas.blank(7.0, 5.0)
    axes = figure.add_subplot(xlabel="log-likelihood, nats", ylabel="log-likelihood - ELBO, nats")
    size = float(np.clip(4e4 / max(len(gap), 1), 5, 25))
    axes.scatter(log_likelihood, gap, s=size, lw=0, alpha=0.4)
    for label, (level, color, dashes) in levels.items():
        axes.axhline(level, color=color, lw=1.2, ls=dashes, label=label)
    axes.set_title(_means(lines), loc="left", fontsize="medium")
    axes.legend(loc="upper right", fontsize="small", framealpha=0.7)
    return canvas.save(figure, path)


def inference_gap(bounds: Mapping[str, np.ndarray], path: str | Path) -> Path:
    r"""Draws how much each bound of a datum lies above the one before it, stacked.

    Arguments:
        bounds: In nats, shape :math:`(N,)` each, from the guide's ELBO to log p(x).
        path: Where to write.
    """
    figure = canvas.blank(7.5, 4.5)
    names = list(bounds)
    axes = figure.add_subplot(
        xlabel="datum, by its gap", ylabel=f"nats above {canvas.plain(names[0])}"
    )
    gap = bounds[names[-1]] - bounds[names[0]]
    order = np.argsort(gap)
    order = np.append(order, order[-1:])  # the last step ends where it began
    levels = [(bounds[name] - bounds[names[0]])[order] for name in names]
    for i, (lower, upper) in enumerate(itertools.pairwise(names)):
        label = canvas.mean_text(f"{lower} to {upper}", bounds[upper] - bounds[lower])
        style: dict[str, Any] = {"step": "post", "color": f"C{i}", "lw": 0, "label": label}
        axes.fill_between(np.arange(len(order)), levels[i], levels[i + 1], **style)
    axes.margins(x=0)
    axes.set_title(f"{canvas.mean_text('inference gap', gap)} nats, {len(gap)} data", loc="left")
    axes.legend(frameon=False, loc="upper left", reverse=True)
    return canvas.save(figure, path)


def latent_kl(kl: Mapping[str, np.ndarray], collapsed: float, path: str | Path) -> Path:
    r"""Draws what each latent dimension adds to KL(q(z|x) || p(z)), the largest first.

    Arguments:
        kl: For each latent site the KL of each datum and dimension in nats, shape :math:`(N, d)`.
        collapsed: A dimension whose mean is below this is drawn in grey and counted.
        path: Where to write.
    """
    sizes = [values.shape[1] for values in kl.values()]
    figure = canvas.blank(float(np.clip(1.5 + 0.22 * sum(sizes), 5, 16)), 4.0)
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
        text = f"{canvas.plain(site)}: {means.sum():.2f} nats, "
        text += f"{active} of {len(means)} above {collapsed}"
        axes.set_title(text, loc="left", fontsize="medium")
        axes.set_xlabel(f"i of {canvas.plain(site)}[i]")
        axes.margins(x=0.01)
    panels[0].set_ylabel("KL of a dimension, nats per datum")
    return canvas.save(figure, path)


def factors_in_codes(tables: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> Path:
    r"""Draws which dimensions of a code say how much of which factor, one heat map for each table.

    Arguments:
        tables: By what their numbers are, of each factor its value for each dimension, from 0 to 1.
        path: Where to write.
    """
    first = next(iter(tables.values()))
    k, d = len(first), len(next(iter(first.values())))
    wide = float(np.clip(1.8 + 0.3 * d, 3.5, 14))
    figure = canvas.blank(wide, len(tables) * (1.2 + 0.3 * min(k, 20)))
    for axes, (title, table) in zip(
        figure.subplots(len(tables), 1, squeeze=False).flat, tables.items(), strict=True
    ):
        image = axes.imshow(np.array(list(table.values())), vmin=0, vmax=1, aspect="auto")
        axes.set_yticks(np.arange(k), [canvas.plain(name) for name in table])
        if d <= 64:
            axes.set_xticks(np.arange(d), [str(i) for i in range(d)], fontsize="x-small")
        axes.set_title(canvas.plain(title), loc="left", fontsize="medium")
        axes.set_xlabel("i of z[i]")
        figure.colorbar(image, ax=axes)
    return canvas.save(figure, path)


def convergence(
    curves: Mapping[tuple[str, str], Curve],
    path: str | Path,
    bounds: Mapping[str, float] | None = None,
    margins: Mapping[str, tuple[str, float]] | None = None,
) -> Path:
    r"""Draws estimates of log p(x) against the numbers of draws they are made from.

    A bar is the standard error of the paired per-datum differences to the last point, so that it
    shows what has moved and not how data differ; the last point therefore has none. The title
    says what the last doubling added.

    Arguments:
        curves: For each estimate and kind of draw the numbers and the per-datum values.
        path: Where to write.
        bounds: Values of other estimators on the same data, drawn as horizontal lines.
        margins: By the names of bounds that may be too low, what says so of data that the model
            simulated, and by how much. Drawn as a band above the bound: about where log p(x) lies,
            as far as the data are like simulated ones.
    """
    figure, margins = canvas.blank(6.4 * len(curves), 4.2), margins or {}
    panels = figure.subplots(1, len(curves), squeeze=False).flat
    for axes, ((estimate, name), curve) in zip(panels, curves.items(), strict=True):
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
        ylabel = f"{canvas.plain(estimate)} of {n:,} data, nats per datum"
        bars = "bars: standard error of the difference to the last point"
        axes.set(xscale="log", xlabel=f"number of {name}\n({bars})", ylabel=ylabel)
        for i, (bound, value) in enumerate((bounds or {}).items()):
            label, color = f"{canvas.plain(bound)} {value:.2f}", f"C{i + 1}"
            axes.axhline(value, color=color, lw=1.2, ls="-.", label=label)
            if bound in margins:
                margin, gap = margins[bound]
                label = f"plus the {margin} of simulated data, {gap:.2f}"
                axes.axhspan(
                    value, value + gap, color=color, alpha=0.2, lw=0, label=canvas.plain(label)
                )
        if bounds:
            axes.legend(frameon=False, loc="lower right")
    return canvas.save(figure, path)


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
    figure = canvas.blank(7.0, 4.2)
    axes = figure.add_subplot(
        xlabel=f"{canvas.plain(score)}, nats per datum", ylabel="density of data"
    )
    edges = np.histogram_bin_edges(np.concatenate(values), 60).tolist()
    for name, of_set, color in zip(names, values, ("C0", "C3"), strict=True):
        label = f"{canvas.plain(name)}: {of_set.mean():.2f} on average, {len(of_set):,} data"
        axes.hist(of_set, edges, density=True, alpha=0.55, color=color, label=label)
    axes.set_title(f"AUROC {auroc:.3f}", loc="left", fontsize="medium")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), frameon=False)
    return canvas.save(figure, path)


def pairwise(
    names: tuple[str, str],
    first: np.ndarray,
    second: np.ndarray,
    path: str | Path,
    score: str = "log_likelihood",
) -> Path:
    r"""Draws the score of each datum under one run against that under another.

    Arguments:
        names: The names of the two runs.
        first: The scores under the first run in nats, shape :math:`(N,)`.
        second: The scores of the same data under the second run.
        path: Where to write.
        score: What the score is called.
    """
    lines = {names[0]: first, names[1]: second, "difference": second - first}
    axis = (f"{score}, {names[0]}", f"{score}, {names[1]}")
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
    figure = canvas.blank(7.5, 1.3 + len(names) * (0.25 + 0.3 * len(metrics)))
    axes = figure.add_subplot(xlabel=canvas.NATS + " (bars: one standard error)")
    offsets = 0.55 * (np.arange(len(metrics)) - (len(metrics) - 1) / 2) / max(len(metrics), 1)
    for i, (metric, (values, errors)) in enumerate(metrics.items()):
        axes.plot([], [], "o", color=f"C{i}", label=canvas.plain(metric))
        for run, (value, error) in enumerate(zip(values, errors, strict=True)):
            y = run + offsets[i]
            if value is None or not np.isfinite(value):
                text = f"  {canvas.plain(metric)} is not defined"
                left = axes.get_yaxis_transform()
                axes.text(0, y, text, transform=left, va="center", color="0.5")
                continue
            axes.errorbar(value, y, xerr=error, fmt="o", color=f"C{i}", ms=5, capsize=3)
            text = f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")
            style: dict[str, Any] = {"ha": "center", "fontsize": "x-small"}
            axes.annotate(text, (value, y), (0, 5), textcoords="offset points", **style)
    axes.set_yticks(range(len(names)), [canvas.plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=max(len(metrics), 1), frameon=False)
    return canvas.save(figure, path)


def _diagonal(
    x: np.ndarray,
    y: np.ndarray,
    labels: tuple[str, str],
    lines: Mapping[str, np.ndarray],
    path: str | Path,
) -> Path:
    """Draws y against x with the diagonal, and the mean of each of `lines`."""
    figure = canvas.blank(6.0, 6.0)
    axes = figure.add_subplot()
    axes.set(xlabel=canvas.plain(labels[0]) + ", nats", ylabel=canvas.plain(labels[1]) + ", nats")
    axes.scatter(x, y, s=float(np.clip(4e4 / max(len(x), 1), 5, 25)), lw=0, alpha=0.4)
    axes.axline((float(np.mean(x)),) * 2, slope=1, color="0.3", lw=1, ls="--", label="equal")
    axes.plot(np.mean(x), np.mean(y), "P", color="C3", mec="white", ms=9, label="mean")
    axes.set_title(_means(lines), loc="left", fontsize="medium")
    axes.legend(frameon=False, loc="lower right")
    axes.set_aspect("equal", adjustable="datalim")
    return canvas.save(figure, path)


def _means(lines: Mapping[str, np.ndarray]) -> str:
    """The mean of each of some values of the same data, in a line each."""
    n = len(next(iter(lines.values())))
    text = [f"means over {n:,} data, ± one standard error"]
    return "\n".join([*text, *(canvas.mean_text(name, values) for name, values in lines.items())])
