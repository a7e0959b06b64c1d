r"""Results as a person reads them: one table, printed the same way by every command."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any, Literal

from pyro_aevb.estimators import found_by

UNITS = {
    "active_units": "",
    "collapsed_units": "",
    "log_likelihood_variance": "nats²",
    "ess": "samples",
    "pareto_k": "",
}
COUNTS = {
    "num_samples": "K",
    "weight_samples": "S",
    "num_chains": "chains",
    "num_temperatures": "T",
    "num_kernels": "M",
    "num_data": "n",
}
r"""Numbers of draws and data, as they are printed beside a value."""
UNINFORMATIVE = 0.1
r"""Nats of information on its datum below which a code is taken to say nothing."""
TRUSTED = 0.05
r"""The share of data with an unreliable estimate above which the table warns."""
CONVERGED = 0.05
r"""Nats per datum by which the last doubling of K or S may raise ``log_likelihood`` unremarked."""


def show_results(results: Mapping[str, Any]) -> None:
    r"""Print the metrics of one run, and what to be careful about."""
    from rich.console import Console

    console, metrics = Console(soft_wrap=False), results["metrics"]
    title = (
        f"{results['pair']} on {results['data']}, {results['split']} split, "
        f"{results['num_data']:,} data, binarization {results['binarization']}, "
        f"after {results['epochs']} epochs"
    )
    rows = [[name, *_cells(name, metric)] for name, metric in _defined(metrics)]
    notes = [*_absent(metrics), *results.get("notes", []), *warnings(metrics)]
    _print(console, title, ["quantity", "value", "± s.e.", "unit", "samples"], "lrrll", rows, notes)
    for name, entry in results.get("corrupted", {}).items():
        title = f"seen as {name}, {entry['num_noise']} draws, {counts(entry)}"
        columns = ["quantity", "clean", "corrupted", "± s.e.", "over draws", "change", "± s.e."]
        rows = []
        for quantity, metric in _defined(entry["metrics"]):
            numbers = [metric["clean"]["value"], metric["value"], metric["standard_error"]]
            numbers += [metric["spread"], *map(metric["change"].get, ("value", "standard_error"))]
            rows.append([quantity, *map(_number, numbers)])
        _print(console, title, columns, "lrrrrrr", rows, _absent(entry["metrics"]))
    for name, entry in results.get("against", {}).items():
        title = f"test data against {name}, {counts(entry)}, {entry['num_others']:,} others"
        columns = ["score", "test data", name, "AUROC", "± s.e."]
        rows = []
        for quantity, metric in _defined(entry["metrics"]):
            means = [_number(metric[side]["value"]) for side in ("test", "other")]
            area = [_number(metric[key], 3) for key in ("value", "standard_error")]
            rows.append([quantity, *means, *area])
        _print(console, title, columns, "lrrrr", rows, _absent(entry["metrics"]))


def value_of(metrics: Mapping[str, Any], name: str) -> float | None:
    r"""The value of a metric; None where it is not defined or not there."""
    value: float | None = metrics.get(name, {}).get("value")
    return value


def _defined(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, metric) for name, metric in metrics.items() if metric["value"] is not None]


def _absent(metrics: Mapping[str, Any]) -> list[str]:
    absent: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        if metric["value"] is None:
            absent.setdefault(metric["reason"], []).append(name)
    return [f"not defined: {', '.join(names)}: {why}" for why, names in absent.items()]


def _cells(name: str, metric: Mapping[str, Any]) -> list[str]:
    if "latent_dim" in metric:
        return [f"{metric['value']} of {metric['latent_dim']}", "", "", ""]
    places = 2 if name == "pareto_k" or abs(metric["value"]) < 1000 else 1
    value, error = (_number(metric.get(key), places) for key in ("value", "standard_error"))
    few = not metric.keys().isdisjoint(("estimator", "at_most", "at_least"))
    given = {k: v for k, v in metric.items() if k != "num_data" or few}
    unit = metric.get("unit", UNITS.get(name, "nats/datum"))
    return [value, error, unit, counts(given)]


def counts(entry: Mapping[str, Any]) -> str:
    r"""How many draws and data a metric was computed from."""
    given = ((label, entry.get(name)) for name, label in COUNTS.items())
    return ", ".join(f"{label} = {count:,}" for label, count in given if count is not None)


def _number(value: float | None, places: int = 2) -> str:
    return "" if value is None else f"{value:.{places}f}"


def with_error(metric: Mapping[str, Any]) -> str:
    r"""A value and its standard error, to two places; nothing where it is not known."""
    error = _number(metric.get("standard_error"))
    return _number(metric.get("value")) + (f" ± {error}" if error else "")


def warnings(metrics: Mapping[str, Any]) -> list[str]:
    r"""What a reader of the numbers should know before believing them."""
    said = []
    share = metrics.get("pareto_k", {}).get("share_above_0.7", 0.0)
    if share > TRUSTED:
        said.append(
            f"warning: for {share:.0%} of the data Pareto k-hat > 0.7: a few samples dominate, and "
            "log_likelihood is likely too low; raise --num-samples to see how it moves"
        )
    for name, count, flag in (
        ("rise", "num_samples", "--num-samples"),
        ("weight_rise", "weight_samples", "--weight-samples"),
    ):
        metric = metrics.get(name, {})
        if not converged(metric):
            said.append(
                f"warning: log_likelihood has not converged: doubling {flag} from "
                f"{metric[count] // 2:,} to {metric[count]:,} raised it by {with_error(metric)} "
                f"(limit {CONVERGED} nats/datum), and at least as much is likely to be missing"
            )
    estimators = found_by(metrics)
    below = {name: estimator.below for estimator in estimators for name in estimator.estimates}
    for name, metric in metrics.items():
        above = metric.get("above_log_likelihood")
        if above is not None:
            said.append(
                f"note: {name} is {with_error(above)} above log_likelihood ({counts(above)}), "
                "datum by datum"
            )
            if below.get(name) and above["value"] < -max(CONVERGED, 2 * above["standard_error"]):
                said.append(
                    f"warning: {name} is below log_likelihood, which errs downwards: {below[name]}"
                )
        if "note" in metric:
            said.append(f"note: {name}: {metric['note']}")
    for estimator in estimators:
        margin, of = estimator.margin or ("", "")
        if of in metrics and not estimator.comparable(metrics):
            said.append(
                f"warning: {margin} is of other settings than {of}, and says nothing of it; "
                "evaluate both with the same --estimator-options"
            )
        if estimator.warning:
            said.append(f"warning: {estimator.warning(metrics)}")
    return said + _latents(metrics)


def _latents(metrics: Mapping[str, Any]) -> list[str]:
    r"""Whether the code says anything of the data, and how much is known of that."""
    value, collapsed = (value_of(metrics, n) for n in ("mutual_information", "collapsed_units"))
    if value is None:
        return []
    if value < UNINFORMATIVE:
        return [
            f"warning: posterior collapse: the code holds {max(0.0, value):.2f} nats of "
            "information on its datum, so the model does without it; try --kl-warm-up, or a weaker "
            "decoder"
        ]
    said = []
    if collapsed is not None and 2 * collapsed >= (d := metrics["collapsed_units"]["latent_dim"]):
        said.append(
            f"note: posterior collapse in {collapsed} of {d} latent dimensions: "
            "their KL is below 0.01 nats, so they say nothing of the data"
        )
    m, most = (metrics["mutual_information"][key] for key in ("num_data", "at_most"))
    if most - value > UNINFORMATIVE:
        said.append(
            f"note: mutual_information is that of {m:,} data, at most log {m:,} = {log(m):.2f}; of "
            f"all data like them it lies between {value:.2f} and {most:.2f}"
        )
    return said


def converged(rise: Mapping[str, Any]) -> bool:
    r"""Whether the last doubling of the draws left an estimate where it was.

    That is: it added no more than :data:`CONVERGED`, or no more than its standard error.

    Arguments:
        rise: The metric ``rise`` or ``weight_rise``; an empty one where there is none.
    """
    if rise.get("value") is None:
        return True
    return bool(rise["value"] <= max(CONVERGED, rise["standard_error"] or 0.0))


def show_comparison(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> None:
    r"""Print a table of runs."""
    from rich.console import Console

    _print(Console(), title, columns, "l" + "r" * (len(columns) - 1), rows, notes)


def _print(
    console: Any,
    title: str,
    columns: Sequence[str],
    sides: str,
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
) -> None:
    r"""A table; where the terminal is too narrow for all columns of numbers, in several parts."""
    from rich.table import Table

    console.print()
    for part in _parts(console.width, columns, sides, rows):
        table = Table(title=title or None, title_justify="left", show_edge=False)
        for i in part:
            # Only a last column of words may wrap: a number broken in two is no number.
            justify: Literal["left", "right"] = "left" if sides[i] == "l" else "right"
            words = sides[i] == "l" and i == len(columns) - 1
            table.add_column(columns[i], justify=justify, overflow="fold", no_wrap=not words)
        for row in rows:
            table.add_row(*(row[i] for i in part))
        console.print(table)
        title = ""
    for note in notes:
        console.print(f"  {note}", highlight=False)


def _parts(
    width: int, columns: Sequence[str], sides: str, rows: Sequence[Sequence[str]]
) -> list[list[int]]:
    r"""The columns of each part: the first, and as many of the others as fit beside it."""
    if sides.endswith("l"):
        return [list(range(len(columns)))]
    widths = [3 + max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    parts: list[list[int]] = [[0]]
    for i in range(1, len(columns)):
        if len(parts[-1]) > 1 and sum(widths[j] for j in (*parts[-1], i)) > width:
            parts.append([0])
        parts[-1].append(i)
    return parts
