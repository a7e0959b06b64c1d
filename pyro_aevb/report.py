r"""Results as a person reads them: one table, printed the same way by every command."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

UNITS = {
    "active_units": "",
    "collapsed_units": "",
    "ess": "samples",
    "pareto_k": "",
}
UNINFORMATIVE = 0.1
r"""Nats of information on its datum below which a code is taken to say nothing."""
TRUSTED = 0.05
r"""The share of data with an unreliable estimate above which the table warns."""


def show_results(results: Mapping[str, Any]) -> None:
    r"""Print the metrics of one run, and what to be careful about."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=False)
    title = (
        f"{results['pair']} on {results['data']}, {results['split']} split, "
        f"{results['num_data']:,} data, binarization {results['binarization']}, "
        f"after {results['epochs']} epochs"
    )
    table = Table(title=title, title_justify="left", caption_justify="left", show_edge=False)
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_column("± s.e.", justify="right")
    table.add_column("unit")
    table.add_column("samples")
    absent: dict[str, list[str]] = {}
    for name, metric in results["metrics"].items():
        if metric["value"] is None:
            absent.setdefault(metric["reason"], []).append(name)
            continue
        table.add_row(name, *_cells(name, metric))
    console.print()
    console.print(table)
    undefined = [f"not defined: {', '.join(names)}: {why}" for why, names in absent.items()]
    for line in [*undefined, *results.get("notes", []), *warnings(results["metrics"])]:
        console.print(f"  {line}", highlight=False)


def _cells(name: str, metric: Mapping[str, Any]) -> tuple[str, str, str, str]:
    if "latent_dim" in metric:
        return f"{metric['value']} of {metric['latent_dim']}", "", "", ""
    error = metric.get("standard_error")
    counts = []
    if "num_samples" in metric:
        counts.append(f"K = {metric['num_samples']:,}")
    if "weight_samples" in metric:
        counts.append(f"S = {metric['weight_samples']:,}")
    places = 2 if name in ("pareto_k",) or abs(metric["value"]) < 1000 else 1
    return (
        f"{metric['value']:.{places}f}",
        "" if error is None else f"{error:.{places}f}",
        UNITS.get(name, "nats/datum"),
        ", ".join(counts),
    )


def warnings(metrics: Mapping[str, Any]) -> list[str]:
    r"""What a reader of the numbers should know before believing them."""
    said = _latents(metrics)
    share = metrics.get("pareto_k", {}).get("share_above_0.7", 0.0)
    if share > TRUSTED:
        said.append(
            f"warning: for {share:.0%} of the data Pareto k-hat > 0.7: a few samples dominate, and "
            "log_likelihood is likely too low; raise --num-samples to see how it moves"
        )
    return said


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
            f"warning: posterior collapse: the code holds {value:.2f} nats of information on its "
            "datum, so the model does without it; try --kl-warm-up, or a weaker decoder"
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


def show_comparison(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> None:
    r"""Print a table of runs."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=title, title_justify="left", show_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)
    for note in notes:
        console.print(f"  {note}", highlight=False)


def markdown_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    r"""The same table in Markdown."""
    lines = [
        title,
        "",
        "| " + " | ".join(columns) + " |",
        "|---" + "|--:" * (len(columns) - 1) + "|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"
