r"""Results as a person reads them: one table, printed the same way by every command."""

from collections.abc import Mapping, Sequence
from typing import Any

UNITS = {
    "active_units": "",
    "ess": "samples",
    "pareto_k": "",
}
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
    if name == "active_units":
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
    share = metrics.get("pareto_k", {}).get("share_above_0.7", 0.0)
    if share <= TRUSTED:
        return []
    return [
        f"warning: for {share:.0%} of the data Pareto k-hat > 0.7: a few samples dominate, and "
        "log_likelihood is likely too low; raise --num-samples to see how it moves"
    ]


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
