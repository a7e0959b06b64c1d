r"""Results as a person reads them: one table, printed the same way by every command."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any, Literal

from pyro_aevb.data.naming import CALLED
from pyro_aevb.estimators import found_by
from pyro_aevb.estimators.reliability import CONVERGED, TRUSTED, contradicts
from pyro_aevb.runs.earlier import REASON

if TYPE_CHECKING:
    from rich.console import Console

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
    "num_kernels": "L",
    "num_draws": "draws",
    "num_data": "n",
}
r"""Numbers of draws and data, as they are printed beside a value."""
UNINFORMATIVE = 0.1
r"""Nats of information on its datum below which a code is taken to say nothing."""
FEW = (
    "classification_error",
    *("elbo", "iwae_bound", "log_likelihood", "reconstruction", "reconstruction_mixture", "kl"),
    "active_units",
)
r"""What the table of a run shows without being asked for more."""
OF_WEIGHTS = ("weight_kl", "training_elbo")
r"""And where the weights are random."""
COLUMNS = ("quantity", "value", "± s.e.", "unit", "samples")
SIDES = "lrrll"


def show_results(results: Mapping[str, Any], verbose: bool = False) -> None:
    r"""Print log p(x) of one run, its metrics, and what to be careful about.

    Arguments:
        results: What ``results.json`` holds.
        verbose: Every metric, note and section, and not the few that matter most.
    """
    metrics = results["metrics"]
    about = [*metrics] if verbose else few(metrics)
    shown = {name: metrics[name] for name in about}
    notes = [*_absent(shown), *results.get("notes", [])]
    notes += warnings(metrics, None if verbose else about)
    if not verbose:
        notes.append("more with --verbose, and all of it in results.json")
    _print(_title(results), COLUMNS, SIDES, _rows(shown), notes, lead(metrics))
    for section in ("corrupted", "against") if verbose else ():
        for name in results.get(section, {}):
            show_added(results, **{section: name})


def show_added(
    results: Mapping[str, Any],
    estimator: str | None = None,
    corrupted: str | None = None,
    against: str | None = None,
) -> None:
    r"""Print what one evaluation added to results: of an estimator, or an entry of a section."""
    if estimator is not None:
        metrics = results["metrics"]
        found = {n: m for n, m in metrics.items() if m.get("estimator") == estimator}
        likely = any("above_log_likelihood" in metric for metric in found.values())
        notes = [*_absent(found), *warnings(metrics, (estimator, *found))]
        title = f"{_title(results)}, {estimator}"
        _print(title, COLUMNS, SIDES, _rows(found), notes, lead(metrics) if likely else "")
    if corrupted is not None:
        _print(*corrupted_table(results, corrupted))
    if against is not None:
        _print(*against_table(results, against))


Table = tuple[str, Sequence[str], str, list[list[str]], list[str]]
r"""A title, columns, the side of each, ``l`` or ``r``, rows of cells, and notes."""


def few(metrics: Mapping[str, Any]) -> list[str]:
    r"""The metrics that the table of a run shows without being asked for more."""
    names = (*FEW, *(OF_WEIGHTS if "weight_samples" in metrics["reconstruction"] else ()))
    return [name for name in names if name in metrics]


def metrics_table(results: Mapping[str, Any], names: Collection[str]) -> Table:
    r"""Some metrics of a run."""
    shown = {name: results["metrics"][name] for name in names}
    return _title(results), COLUMNS, SIDES, _rows(shown), _absent(shown)


def corrupted_table(results: Mapping[str, Any], name: str) -> Table:
    r"""An entry of the section ``corrupted``."""
    entry = results["corrupted"][name]
    seen = f"{CALLED[results['split']]} data seen as {name}"
    title = f"{seen}, {entry['num_noise']} draws, {counts(entry)}"
    columns = ["quantity", "clean", "corrupted", "± s.e.", "over draws", "change", "± s.e."]
    rows = []
    for quantity, metric in _defined(entry["metrics"]):
        numbers = [metric["clean"]["value"], metric["value"], metric["standard_error"]]
        numbers += [metric["spread"], *map(metric["change"].get, ("value", "standard_error"))]
        rows.append([quantity, *map(_number, numbers)])
    return title, columns, "lrrrrrr", rows, _absent(entry["metrics"])


def against_table(results: Mapping[str, Any], name: str) -> Table:
    r"""An entry of the section ``against``."""
    entry = results["against"][name]
    title = f"test data against {name}, {counts(entry)}, {entry['num_others']:,} others"
    columns = ["score", "test data", name, "AUROC", "± s.e."]
    rows = []
    for quantity, metric in _defined(entry["metrics"]):
        means = [_number(metric[side]["value"]) for side in ("test", "other")]
        area = [_number(metric[key], 3) for key in ("value", "standard_error")]
        rows.append([quantity, *means, *area])
    return title, columns, "lrrrr", rows, _absent(entry["metrics"])


def lead(metrics: Mapping[str, Any]) -> str:
    r"""log p(x) in one line, with its errors and whether to rely on it; nothing where there is none
    to be known.
    """
    metric = metrics.get("log_likelihood", {})
    if metric.get("value") is None:
        return f"log p(x): {REASON}" if metric.get("reason") == REASON else ""
    of = f"{metric['of']} | x" if "of" in metric else "x"
    text = f"log p({of}) = {with_error(metric)} over data"
    if error := metrics.get("classification_error"):
        text = f"classification error {with_error(error)} %; {text}"
    if "reliable" not in metric:
        return f"{text} (exact given the weights)"
    if metric["monte_carlo_error"] is not None:
        text += f", ± {metric['monte_carlo_error']:.2f} Monte Carlo"
    if metric["reliable"]:
        below = 1 - metric["share_above_0.7"] - metric["share_unknown"]
        return f"{text} (reliable: k-hat < 0.7 for {_percent(below)} of the data)"
    return f"{text} (not reliable: {unreliable(metric)})"


def unreliable(metric: Mapping[str, Any]) -> str:
    r"""What speaks against relying on an entry ``log_likelihood``; nothing if nothing does."""
    against = []
    shares = [metric.get(name, 0.0) for name in ("share_above_0.7", "share_unknown")]
    if sum(shares) > TRUSTED:
        above, unknown = map(_percent, shares)
        if shares[0]:
            against.append(f"k-hat > 0.7 for {above} of the data, so it is likely too low")
        if shares[1]:
            against.append(f"draws too few for a k-hat for {unknown} of the data")
    check = metric.get("spot_check", {})
    if contradicts(check):
        against.append(f"annealing is {with_error(check)} above it ({counts(check)})")
    return "; ".join(against)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _title(results: Mapping[str, Any]) -> str:
    epochs = after = results["epochs"]
    if (best := results.get("best_epoch", epochs)) != epochs:
        after = f"{best} of {epochs}"  # with --patience, training goes on beyond the best one
    return (
        f"{results['pair']} on {results['data']}, {results['split']} split, "
        f"{results['num_data']:,} data, binarization {results['binarization']}, "
        f"after {after} epochs"
    )


def _rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    return [[name, *_cells(name, metric)] for name, metric in _defined(metrics)]


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
    places = 1 if name != "pareto_k" and abs(metric["value"]) >= 1000 else _places(metric)
    value, error = (_number(metric.get(key), places) for key in ("value", "standard_error"))
    few = not metric.keys().isdisjoint(("estimator", "at_most", "at_least"))
    given = {k: v for k, v in metric.items() if k != "num_data" or few}
    unit = metric.get("unit", UNITS.get(name, "nats/datum"))
    return [value, error, unit, counts(given)]


def counts(entry: Mapping[str, Any]) -> str:
    r"""How many draws and data a metric was computed from."""
    given = ((label, entry.get(name)) for name, label in COUNTS.items())
    return ", ".join(f"{label} = {count:,.0f}" for label, count in given if count is not None)


def _number(value: float | None, places: int = 2) -> str:
    return "" if value is None else f"{value:.{places}f}"


def with_error(metric: Mapping[str, Any]) -> str:
    r"""A value and its standard error, to two places; nothing where it is not known."""
    places = _places(metric)
    error = _number(metric.get("standard_error"), places)
    return _number(metric.get("value"), places) + (f" ± {error}" if error else "")


def _places(metric: Mapping[str, Any]) -> int:
    r"""Of a quantity in units of the data, which may be small ones: of grey levels in [0, 1]."""
    small = metric.get("unit") == "units of x" and abs(metric.get("value") or 0.0) < 1
    return 4 if small else 2


def warnings(metrics: Mapping[str, Any], about: Collection[str] | None = None) -> list[str]:
    r"""What a reader of the numbers should know before believing them.

    Arguments:
        metrics: All metrics of a run.
        about: The metrics and estimators to speak of; None is all.
    """
    said = [*_likelihood(metrics), *_others(metrics), *_latents(metrics)]
    return [line for of, line in said if about is None or not {*of}.isdisjoint(about)]


Remark = tuple[tuple[str, ...], str]
r"""The metrics and estimators that a line speaks of, and the line."""


def _likelihood(metrics: Mapping[str, Any]) -> Iterator[Remark]:
    r"""What is wrong with ``log_likelihood``, and what the bound by the guide's draws lacks."""
    likely, bound = (metrics.get(name, {}) for name in ("log_likelihood", "iwae_bound"))
    of = ("log_likelihood",)
    share = likely.get("share_above_0.7", 0.0)
    if share > TRUSTED:
        remedy = "raise --num-samples to see how it moves"
        if likely["proposal"] == "laplace":
            remedy = "raise max_samples (--estimator-options) to see how it moves"
        yield (
            of,
            f"warning: for {_percent(share)} of the data Pareto k-hat > 0.7: a few samples "
            f"dominate, and log_likelihood is likely too low; {remedy}",
        )
    if contradicts(check := likely.get("spot_check", {})):
        yield of, f"warning: annealing is {with_error(check)} above log_likelihood"
    metric = metrics.get("weight_rise", {})
    if not converged(metric):
        yield (
            of,
            f"warning: log_likelihood has not converged: {_doubled(metric, 'weight_samples')}",
        )
    of = ("rise",)
    share = bound.get("share_above_0.7", 0.0)
    if share > TRUSTED:
        yield of, f"note: iwae_bound: for {_percent(share)} of the data Pareto k-hat > 0.7"
    metric = metrics.get("rise", {})
    if not converged(metric):
        yield of, f"note: iwae_bound has not converged: {_doubled(metric, 'num_samples')}"


def _doubled(metric: Mapping[str, Any], count: str) -> str:
    return (
        f"doubling --{count.replace('_', '-')} from {metric[count] // 2:,} to {metric[count]:,} "
        f"raised it by {with_error(metric)} (limit {CONVERGED} nats/datum), and at least as much "
        "is likely to be missing"
    )


def _others(metrics: Mapping[str, Any]) -> Iterator[Remark]:
    r"""What other estimators say, and what is to be known of each metric."""
    estimators = found_by(metrics)
    below = {name: estimator.below for estimator in estimators for name in estimator.estimates}
    for name, metric in metrics.items():
        above = metric.get("above_log_likelihood", {})
        if above.get("value") is not None:
            yield (
                (name,),
                f"note: {name} is {with_error(above)} above log_likelihood ({counts(above)}), "
                "datum by datum",
            )
            error = above["standard_error"] or 0.0
            if below.get(name) and above["value"] < -max(CONVERGED, 2 * error):
                yield (
                    (name,),
                    f"warning: {name} is below log_likelihood, which errs downwards: {below[name]}",
                )
        if "note" in metric:
            yield (name,), f"note: {name}: {metric['note']}"
    for estimator in estimators:
        margin, of = estimator.margin or ("", "")
        if of in metrics and not estimator.comparable(metrics):
            yield (
                (margin, of),
                f"warning: {margin} is of other settings than {of}, and says nothing of it; "
                "evaluate both with the same --estimator-options",
            )
        if estimator.warning:
            yield (estimator.name,), f"warning: {estimator.warning(metrics)}"


def _latents(metrics: Mapping[str, Any]) -> Iterator[Remark]:
    r"""Whether the code says anything of the data, and how much is known of that."""
    value, collapsed = (value_of(metrics, n) for n in ("mutual_information", "collapsed_units"))
    if value is None:
        return
    if value < UNINFORMATIVE:
        yield (
            ("kl", "mutual_information"),
            f"warning: posterior collapse: the code holds {max(0.0, value):.2f} nats of "
            "information on its datum, so the model does without it; try --kl-warm-up, or a weaker "
            "decoder",
        )
        return
    if collapsed is not None and 2 * collapsed >= (d := metrics["collapsed_units"]["latent_dim"]):
        yield (
            ("kl", "collapsed_units"),
            f"note: posterior collapse in {collapsed} of {d} latent dimensions: "
            "their KL is below 0.01 nats, so they say nothing of the data",
        )
    m, most = (metrics["mutual_information"][key] for key in ("num_data", "at_most"))
    if most - value > UNINFORMATIVE:
        yield (
            ("mutual_information",),
            f"note: mutual_information is that of {m:,} data, at most log {m:,} = {log(m):.2f}; of "
            f"all data like them it lies between {value:.2f} and {most:.2f}",
        )


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
    _print(title, columns, "l" + "r" * (len(columns) - 1), rows, notes)


def terminal() -> "Console":
    r"""Where tables are printed, which shows what is in names as it is."""
    from rich.console import Console

    return Console(soft_wrap=False, markup=False, emoji=False)


def _print(
    title: str,
    columns: Sequence[str],
    sides: str,
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    answer: str = "",
) -> None:
    r"""A table, below the answer if there is one; where the terminal is too narrow for all columns
    of numbers, in several parts.
    """
    from rich.table import Table

    console = terminal()
    console.print()
    if answer:
        console.print(answer, highlight=False)
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
