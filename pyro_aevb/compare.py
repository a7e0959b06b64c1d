r"""ELBO against log-likelihood, run by run: ``python -m pyro_aevb.compare RUN RUN ...``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_aevb.runs import Run

SHOWN = ("elbo", "log_likelihood", "gap", "reconstruction", "kl", "active_units")


def compare(
    runs: "Sequence[str | Path | Run]", out: str | None = None, show: bool = True
) -> dict[str, dict[str, Any]]:
    r"""Put evaluated runs side by side, with ArviZ's model comparison per datum.

    Arguments:
        runs: Directories of runs, two or more, of one data set, split and binarization.
        out: Where comparison.md and the pictures go; default comparison/ beside the first run.
        show: Print the table.

    Returns:
        By run: its metrics, and where log-likelihoods are defined ``difference`` to the best in
        nats per datum, the paired ``standard_error`` of it, and ArviZ's stacking ``weight``.
    """
    from pyro_aevb import plots
    from pyro_aevb.errors import UsageError
    from pyro_aevb.estimators.arviz_bridge import compare_pointwise
    from pyro_aevb.report import markdown_table, show_comparison
    from pyro_aevb.runs import Run

    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    if len(opened) < 2:
        raise UsageError("give at least two runs to compare")
    if len({run.path.resolve() for run in opened}) < len(opened):
        raise UsageError("a run is named twice; compare different runs")
    names = _names(opened)
    results = {name: run.results for name, run in zip(names, opened, strict=True)}
    _same_data(results)
    metrics = {name: result["metrics"] for name, result in results.items()}
    table: dict[str, dict[str, Any]] = {name: {"metrics": metrics[name]} for name in names}
    per_datum = {
        name: run.per_datum("predictive", "log_likelihood")
        for name, run in zip(names, opened, strict=True)
        if metrics[name]["log_likelihood"]["value"] is not None
    }
    notes = [
        f"{name}: log-likelihood not defined, {metrics[name]['log_likelihood']['reason']}"
        for name in names
        if name not in per_datum
    ]
    if len(per_datum) > 1:
        for name, row in compare_pointwise(per_datum).items():
            table[name] |= row
    folder = Path(out) if out is not None else opened[0].path.parent / "comparison"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [
        plots.comparison(
            names,
            {
                metric: (
                    [metrics[name][metric]["value"] for name in names],
                    [metrics[name][metric].get("standard_error") for name in names],
                )
                for metric in ("elbo", "log_likelihood")
            },
            folder / "comparison.png",
        )
    ]
    if len(per_datum) > 1:
        best, second = sorted(per_datum, key=lambda name: -per_datum[name].mean())[:2]
        pictures.append(
            plots.pairwise(
                (best, second), per_datum[best], per_datum[second], folder / "pairwise.png"
            )
        )
    order = sorted(names, key=lambda name: -table[name].get("difference", float("-inf")))
    cells = {name: _cells(table[name]) for name in order}
    rows = [[label, *(cells[name][label] for name in order)] for label in cells[order[0]]]
    rows.append(["samples", *(_samples(results[name]) for name in order)])
    if len({_samples(results[name]) for name in per_datum}) > 1:
        notes.append(
            "warning: scored with different numbers of samples, and log_likelihood rises with "
            "them; evaluate the runs with the same --num-samples"
        )
    reference = results[names[0]]
    title = (
        f"{reference['data']} ({reference['data_description']}), {reference['split']} split, "
        f"{reference['num_data']:,} data, binarization {reference['binarization']}"
    )
    notes.append(
        "nats per datum ± standard error over data; best run first; difference is to the best, "
        "with the error of the paired difference; weight is ArviZ's stacking weight"
    )
    notes += dict.fromkeys(note for name in names for note in results[name].get("notes", []))
    environments = {result.get("environment", "unknown") for result in results.values()}
    markdown = [*notes, *(f"computed with {environment}" for environment in sorted(environments))]
    (folder / "comparison.md").write_text(markdown_table(title, ["", *order], rows, markdown))
    if show:
        show_comparison(title, ["", *order], rows, notes)
        for path in [folder / "comparison.md", *pictures]:
            print(f"  {path}")
    return table


def _names(runs: "Sequence[Run]") -> list[str]:
    r"""The directories' names, or their paths where those would be ambiguous."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _same_data(results: dict[str, dict[str, Any]]) -> None:
    from pyro_aevb.errors import UsageError

    (first, reference), *others = results.items()
    for name, result in others:
        for key in ("data", "split", "binarization", "num_data", "data_description"):
            if result[key] != reference[key]:
                raise UsageError(
                    f"{first} and {name} cannot be compared: {key.replace('_', ' ')} is "
                    f"{reference[key]!r} in one and {result[key]!r} in the other; evaluate them on "
                    "the same data"
                )


def _cells(row: dict[str, Any]) -> dict[str, str]:
    cells = {}
    for name in SHOWN:
        metric = row["metrics"][name]
        if metric["value"] is None:
            cells[name] = "not defined"
        elif name == "active_units":
            cells[name] = f"{metric['value']} of {metric['latent_dim']}"
        else:
            cells[name] = _with_error(metric["value"], metric.get("standard_error"))
    if "difference" not in row:
        return {**cells, "difference": "", "weight": ""}
    error = _with_error(row["difference"], row["standard_error"]) if row["difference"] else "best"
    return {**cells, "difference": error, "weight": f"{row['weight']:.2f}"}


def _samples(result: dict[str, Any]) -> str:
    metric = result["metrics"]["log_likelihood"]
    counts = [("K", metric.get("num_samples")), ("S", metric.get("weight_samples"))]
    return ", ".join(f"{name} = {count:,}" for name, count in counts if count is not None)


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")


if __name__ == "__main__":
    from pyro_aevb.cli import run_command

    run_command(compare, positional="runs")
