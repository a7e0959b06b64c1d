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

    console = Console(soft_wrap=False)
    title = (
        f"{results['pair']} on {results['data']}, {results['split']} split, "
        f"{results['num_data']:,} data, binarization {results['binarization']}, "
        f"after {results['epochs']} epochs"
    )
    rows, absent = [], _absent(results["metrics"])
    for name, metric in results["metrics"].items():
        if metric["value"] is not None:
            rows.append([name, *_cells(name, metric)])
    notes = [*absent, *results.get("notes", []), *warnings(results["metrics"])]
    _print(console, title, ["quantity", "value", "± s.e.", "unit", "samples"], "lrrll", rows, notes)
    for name, entry in results.get("corrupted", {}).items():
        title = f"seen as {name}, {entry['num_noise']} draws, {counts(entry)}"
        columns = ["quantity", "clean", "corrupted", "± s.e.", "over draws", "change", "± s.e."]
        _print(console, title, columns, "lrrrrrr", _corrupted(entry), _absent(entry["metrics"]))
    for name, entry in results.get("against", {}).items():
        title = f"test data against {name}, {counts(entry)}, {entry['num_others']:,} others"
        columns = ["score", "test data", name, "AUROC", "± s.e."]
        _print(console, title, columns, "lrrrr", _against(entry), _absent(entry["metrics"]))


def _absent(metrics: Mapping[str, Any]) -> list[str]:
    absent: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        if metric["value"] is None:
            absent.setdefault(metric["reason"], []).append(name)
    return [f"not defined: {', '.join(names)}: {why}" for why, names in absent.items()]


def _cells(name: str, metric: Mapping[str, Any]) -> list[str]:
    if "latent_dim" in metric:
        return [f"{metric['value']} of {metric['latent_dim']}", "", "", ""]
    places = 2 if name in ("pareto_k",) or abs(metric["value"]) < 1000 else 1
    error = _number(metric.get("standard_error"), places)
    few = not metric.keys().isdisjoint(("estimator", "at_most", "at_least"))
    given = {k: v for k, v in metric.items() if k != "num_data" or few}
    value = _number(metric["value"], places)
    unit = metric.get("unit", UNITS.get(name, "nats/datum"))
    return [value, error, unit, counts(given)]


def _corrupted(entry: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, metric in entry["metrics"].items():
        if metric["value"] is not None:
            change = metric["change"]
            numbers = [metric["clean"]["value"], metric["value"], metric["standard_error"]]
            numbers += [metric["spread"], change["value"], change["standard_error"]]
            rows.append([name, *map(_number, numbers)])
    return rows


def _against(entry: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, metric in entry["metrics"].items():
        if metric["value"] is not None:
            means = [_number(metric[side]["value"]) for side in ("test", "other")]
            area = [_number(metric[key], 3) for key in ("value", "standard_error")]
            rows.append([name, *means, *area])
    return rows


def counts(entry: Mapping[str, Any]) -> str:
    r"""How many draws and data a metric was computed from."""
    given = ((label, entry.get(name)) for name, label in COUNTS.items())
    return ", ".join(f"{label} = {count:,}" for label, count in given if count is not None)


def _number(value: float | None, places: int = 2) -> str:
    return "" if value is None else f"{value:.{places}f}"


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
        metric = metrics.get(name, {"value": None})
        if not converged(metric):
            error = metric["standard_error"]
            said.append(
                f"warning: log_likelihood has not converged: doubling {flag} from "
                f"{metric[count] // 2:,} to {metric[count]:,} raised it by {metric['value']:.2f}"
                + ("" if error is None else f" ± {error:.2f}")
                + f" (limit {CONVERGED} nats/datum), and at least as much is likely to be missing"
            )
    estimators = found_by(metrics)
    below = {name: estimator.below for estimator in estimators for name in estimator.estimates}
    margins = {e.margin[0]: e for e in estimators if e.margin and e.margin[1] in metrics}
    for name, metric in metrics.items():
        above = metric.get("above_log_likelihood")
        if above is not None:
            said.append(
                f"note: {name} is {_number(above['value'])} ± {_number(above['standard_error'])} "
                f"above log_likelihood ({counts(above)}), datum by datum"
            )
            if below.get(name) and above["value"] < -max(CONVERGED, 2 * above["standard_error"]):
                said.append(
                    f"warning: {name} is below log_likelihood, which errs downwards: {below[name]}"
                )
        if "note" in metric:
            said.append(f"note: {name}: {metric['note']}")
        if name in margins and not margins[name].comparable(metrics):
            said.append(
                f"warning: {name} is of other settings than {margins[name].margin[1]}, and says "
                "nothing of it; evaluate both with the same --estimator-options"
            )
    said += [f"warning: {e.warning(metrics)}" for e in estimators if e.warning]
    return said + _latents(metrics)


def _latents(metrics: Mapping[str, Any]) -> list[str]:
    r"""Whether the code says anything of the data, and how much is known of that."""
    nothing: dict[str, Any] = {"value": None}
    information = metrics.get("mutual_information", nothing)
    units = metrics.get("collapsed_units", nothing)
    value, collapsed = information["value"], units["value"]
    if value is None:
        return []
    if value < UNINFORMATIVE:
        return [
            f"warning: posterior collapse: the code holds {max(0.0, value):.2f} nats of "
            "information on its datum, so the model does without it; try --kl-warm-up, or a weaker "
            "decoder"
        ]
    said = []
    if collapsed is not None and 2 * collapsed >= units["latent_dim"]:
        said.append(
            f"note: posterior collapse in {collapsed} of {units['latent_dim']} latent dimensions: "
            "their KL is below 0.01 nats, so they say nothing of the data"
        )
    if information["at_most"] - value > UNINFORMATIVE:
        m = information["num_data"]
        said.append(
            f"note: mutual_information is that of {m:,} data, at most log {m:,} = {log(m):.2f}; of "
            f"all data like them it lies between {value:.2f} and {information['at_most']:.2f}"
        )
    return said


def converged(rise: Mapping[str, Any]) -> bool:
    r"""Whether the last doubling of the draws left an estimate where it was.

    That is: it added no more than :data:`CONVERGED`, or no more than its standard error.

    Arguments:
        rise: The metric ``rise`` or ``weight_rise``.
    """
    if rise["value"] is None:
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
