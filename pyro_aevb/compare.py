r"""ELBO against log-likelihood, run by run: ``python -m pyro_aevb.compare RUN RUN ...``."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pyro_aevb.errors import UsageError, one_of, unknown
from pyro_aevb.keywords import with_known_keywords

if TYPE_CHECKING:
    from pyro_aevb.runs.run import Run

SUFFIXES = (".csv", ".md", ".tex")
ACROSS = 3
r"""Runs that stand side by side as columns; of more each setting has a row."""


GROUPS = {
    "What is compared": ("split", "score", "by"),
    "Where it goes": ("out", "export", "show"),
}
r"""The titles of the command's flags."""


@with_known_keywords
def compare(
    runs: "Sequence[str | Path | Run]",
    out: str | None = None,
    export: str | None = None,
    split: Literal["test", "valid", "train"] = "test",
    by: str | None = None,
    score: str | None = None,
    show: bool = True,
) -> dict[str, dict[str, Any]]:
    r"""Put evaluated runs side by side, with ArviZ's model comparison per datum.

    Runs that differ in nothing but their seed are also averaged, with the spread over seeds. More
    than three runs are a row for each setting, beside the settings in which they differ.

    Arguments:
        runs: Directories of runs, two or more, of one data set, split and binarization.
        out: Where comparison.md and the pictures go; default comparison/ beside the first run, and
            comparison-valid/ of that split.
        export: Also write the table to this file: .csv (a run a row, all digits), .md or .tex.
        split: Compare scores of another split, which evaluate --split has made: valid, to choose
            settings without the test data, or train.
        by: Also draw a score against this setting, such as lr or pair.latent_dim.
        score: The score that is drawn; default what orders the table.
        show: Print the table.

    Returns:
        For each run, the best first, its ``metrics``; ``paired`` differences to the best run by
        metric, in nats per datum (of ``classification_error`` in per cent, with the ``p_value`` of
        McNemar's test) with standard errors; ``setting``, the same of all runs of its settings,
        with the spread over seeds; where log-likelihoods or bounds are defined,
        by ArviZ, ``difference`` to the best, its ``standard_error`` and the stacking ``weight``;
        see :func:`~pyro_aevb.reports.comparison.side_by_side`.
    """
    from pyro_aevb.reports import tables
    from pyro_aevb.reports.comparison import names_of, side_by_side
    from pyro_aevb.reports.settings import find
    from pyro_aevb.reports.text import show_comparison
    from pyro_aevb.runs.run import Run
    from pyro_aevb.runs.writing import write_where_asked, write_whole

    if export is not None and Path(export).suffix not in SUFFIXES:
        raise UsageError(f"--export {export}: end the name in {', '.join(SUFFIXES)}")
    one_of("--split", split, ("test", "valid", "train"))
    if score is not None and by is None:
        raise UsageError(f"--score {score} is what --by draws; give --by SETTING too")
    opened = [(run if isinstance(run, Run) else Run.open(run)).on(split) for run in runs]
    if len(opened) < 2:
        raise UsageError("give at least two runs to compare")
    if len({run.path.resolve() for run in opened}) < len(opened):
        raise UsageError("a run is named twice; compare different runs")
    named = dict(zip(names_of(opened), opened, strict=True))
    setting = None if by is None else find(by, named)
    table = side_by_side(named)
    results = {name: named[name].results for name in table}
    drawn = "" if setting is None else _score(table, score)
    columns, rows = ["", *table], tables.rows_of(table)
    notes = _notes(table, results) + [note for name in table for note in named[name].unsigned]
    shown = columns, rows
    if len(table) > ACROSS:
        columns, rows = tables.settings_rows(table, _by(table))
        shown = tables.settings_rows(table, _by(table), few=True)
        notes += [SEEDS] if any("over_seeds" in row for row in table.values()) else []
    first = next(iter(results.values()))
    title = (
        f"{first['data']} ({first['data_description']}), {first['split']} split, "
        f"{first['num_data']:,} data, binarization {first['binarization']}"
    )
    seeds = tables.over_seeds_tables(table)
    environments = sorted({r.get("environment", "unknown") for r in results.values()})
    computed = [f"computed with {where}" for where in environments]
    written = tables.literal_table(title, columns, rows, [*notes, *computed])
    name = "comparison" if split == "test" else f"comparison-{split}"
    folder = Path(out) if out is not None else opened[0].path.parent / name
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "comparison.md", *_pictures(table, named, folder)]
    if setting is not None:
        files.append(_against_setting(table, setting, drawn, folder))
    write_whole(files[0], "\n".join([written, *(tables.literal_table(*group) for group in seeds)]))
    if export is not None:
        exported = Path(export)
        exported.parent.mkdir(parents=True, exist_ok=True)
        if exported.suffix == ".csv":
            write_where_asked(exported, tables.csv_table(tables.numbers_of(table)))
        else:
            make = tables.literal_table if exported.suffix == ".md" else tables.latex_table
            write_where_asked(exported, make(title, *shown))
        files.append(exported)
    if show:
        show_comparison(title, *shown, notes)
        for group in seeds if len(table) <= ACROSS else ():
            show_comparison(*group, [])
        for path in files:
            print(f"  {path}")
    return table


COLUMNS = (
    "nats per datum ± standard error over data; best run first; a difference is to that one, "
    "with the error of the paired difference; weight is ArviZ's stacking weight"
)
ROWS = (
    "a row is a setting, the best first, with all its runs: nats per datum, means over seeds ± "
    "standard error over data where values of each datum are kept; a difference is to the first "
    "row, with the error of the paired difference"
)
SEEDS = (
    "spread is the standard deviation over seeds, and ± seeds the error that they leave in the "
    "difference, not known where one of the two has a single run"
)
r"""What is said below tables of runs."""


def _score(table: Mapping[str, Any], score: str | None) -> str:
    r"""The metric to draw, by default the one that orders the table.

    Raises:
        UsageError: No run has it, as a finite number.
    """
    from pyro_aevb.reports.text import value_of

    metrics = [row["metrics"] for row in table.values()]
    values = [(name, value_of(of, name)) for of in metrics for name in of]
    known = {name for name, value in values if value is not None and math.isfinite(value)}
    found = _by(table) if score is None else score.removeprefix("--").replace("-", "_")
    if found not in known:
        raise unknown("score", score or found, sorted(known))
    return found


def _against_setting(table: Mapping[str, Any], setting: str, score: str, folder: Path) -> Path:
    r"""Draw a score of each run against a setting, a line for runs that are alike in all else."""
    from pyro_aevb.reports import plots
    from pyro_aevb.reports.settings import is_number, label, sorted_values
    from pyro_aevb.reports.text import UNITS, value_of

    found: dict[str, dict[str, list[float]]] = {}
    values = sorted_values([row["setting"]["settings"][setting] for row in table.values()])
    names = [label({setting: value}) for value in values]
    for row in table.values():
        settings = dict(row["setting"]["settings"])
        name = label({setting: settings.pop(setting)})
        if (value := value_of(row["metrics"], score)) is not None and math.isfinite(value):
            found.setdefault(label(settings), {}).setdefault(name, []).append(value)
    numbers = all(map(is_number, values))
    places = dict(zip(names, values if numbers else range(len(values)), strict=True))
    lines = {
        other: sorted((places[name], scores) for name, scores in of.items())
        for other, of in found.items()
    }
    metric = next(row["metrics"][score] for row in table.values() if score in row["metrics"])
    unit = metric.get("unit", UNITS.get(score, "nats per datum"))
    title = f"{score}, {unit}" if unit else score
    categories = None if numbers else [name.removeprefix(f"{setting} ") for name in names]
    return plots.score_against_setting(
        setting, title, lines, folder / f"{score}-by-{setting}.png", categories
    )


def _notes(table: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    from pyro_aevb.reports.text import converged, counts, unreliable, value_of, with_error

    notes = []
    points = [name for name in table if table[name]["points"]]
    if 0 < len(points) < len(table):
        notes.append(
            f"reconstruction is at the codes themselves in {', '.join(points)}, whose codes are "
            "points, and at draws of them elsewhere: no difference of the two is given; compare "
            "reconstruction_mean, at the means of codes and weights"
        )
    scores = {name: row["metrics"] for name, row in table.items()}
    for name, metrics in scores.items():
        if value_of(metrics, "log_likelihood") is None:
            reason = metrics["log_likelihood"]["reason"]
            notes.append(f"{name}: log_likelihood not defined, {reason}")
    bounds, likely = (_known(scores, name) for name in ("iwae_bound", "log_likelihood"))
    # Weights that are points take no draws, and lose nothing by it.
    drawn = {
        "iwae_bound": {m["num_samples"] for m in bounds.values()},
        "log_likelihood": {m["weight_samples"] for m in likely.values() if "weight_samples" in m},
    }
    for metric, numbers in drawn.items():
        if len(numbers) > 1:
            flag = "--num-samples" if metric == "iwae_bound" else "--weight-samples"
            notes.append(
                f"warning: scored with different numbers of samples, and {metric} rises with them; "
                f"evaluate the runs with the same {flag}"
            )
    # Without latents of a datum nothing is drawn for it.
    proposals = {name: m["proposal"] for name, m in likely.items() if "proposal" in m}
    if len({*proposals.values()}) > 1:
        each = ", ".join(f"{proposal} in {name}" for name, proposal in proposals.items())
        notes.append(f"warning: log_likelihood is by different proposals: {each}")
    for bound in _shown(table):
        found = {counts(metrics[bound]) for metrics in scores.values() if bound in metrics}
        if len(found) > 1:
            notes.append(f"warning: {bound} is of different settings or data: {'; '.join(found)}")
    doubtful: dict[str, list[str]] = {}
    for name, metric in likely.items():
        doubtful.setdefault(unreliable(metric), []).append(name)
    for why in filter(None, doubtful):
        notes.append(f"warning: {', '.join(doubtful[why])}: log_likelihood is not reliable: {why}")
    moves = [("weight_rise", "log_likelihood", "--weight-samples")]
    if _by(table) == "iwae_bound":
        moves.append(("rise", "iwae_bound", "--num-samples"))
    for name, metrics in scores.items():
        for rise, metric, flag in moves:
            if not converged(moved := metrics.get(rise, {})):
                notes.append(
                    f"warning: {name}: {metric} has not converged, the last doubling of {flag} "
                    f"raised it by {with_error(moved)}"
                )
    notes.append(ROWS if len(table) > ACROSS else COLUMNS)
    if any("classification_error" in metrics for metrics in scores.values()):
        notes.append(
            "errors of classification and calibration are per cent of the data"
            + "; the p-value is that of McNemar's test on the data that only one of the two "
            "classifiers gets wrong" * (len(table) <= ACROSS)
        )
    notes += dict.fromkeys(note for result in results.values() for note in result.get("notes", []))
    return notes


def _known(scores: Mapping[str, Any], metric: str) -> dict[str, Any]:
    r"""The entries of a metric in the runs where it is defined."""
    entries = {name: metrics.get(metric, {}) for name, metrics in scores.items()}
    return {name: entry for name, entry in entries.items() if entry.get("value") is not None}


def _by(table: Mapping[str, Any]) -> str:
    r"""The metric that orders the table."""
    from pyro_aevb.reports.comparison import criterion

    rows = [row["metrics"].items() for row in table.values()]
    mixed = len({row["points"] for row in table.values()}) > 1
    known = ([n for n, metric in row if metric["value"] is not None] for row in rows)
    return criterion(known, mixed)


def _shown(table: Mapping[str, Any]) -> list[str]:
    r"""The estimates of other estimators that stand beside ``log_likelihood``."""
    from pyro_aevb.estimators import found_by

    found = found_by(*(row["metrics"] for row in table.values()))
    return [name for estimator in found if estimator.shown for name in estimator.estimates]


def _pictures(table: Mapping[str, Any], runs: "Mapping[str, Run]", folder: Path) -> list[Path]:
    from pyro_aevb.reports import plots
    from pyro_aevb.reports.comparison import LIKELIHOODS
    from pyro_aevb.reports.text import value_of

    scores = [row["metrics"] for row in table.values()]
    drawn = {
        metric: (
            [value_of(metrics, metric) for metrics in scores],
            [metrics.get(metric, {}).get("standard_error") for metrics in scores],
        )
        for metric in ("elbo", "iwae_bound", "log_likelihood", *_shown(table))
    }
    pictures = [plots.comparison(list(table), drawn, folder / "comparison.png")]
    by = _by(table)
    best = [n for n in table if value_of(table[n]["metrics"], by) is not None][:2]
    if by in LIKELIHOODS:
        first, second = (runs[name].per_datum("predictive", by) for name in best)
        names = (best[0], best[1])
        pictures.append(plots.pairwise(names, first, second, folder / "pairwise.png", by))
    return pictures


if __name__ == "__main__":
    from pyro_aevb.cli import run_command

    run_command(compare, positional="runs", groups=GROUPS)
