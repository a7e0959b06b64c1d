r"""Runs side by side: what their results say, and paired differences of their per-datum values."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators import found_by
from pyro_aevb.estimators.arviz_bridge import compare_pointwise
from pyro_aevb.estimators.metrics import Metric, measured
from pyro_aevb.reports.settings import differing, repetitions
from pyro_aevb.runs.run import Run, seconds_per_epoch

PAIRED = {
    "elbo": ("sample_stats", "elbo"),
    "iwae_bound": ("predictive", "iwae_bound"),
    "log_likelihood": ("predictive", "log_likelihood"),
    "reconstruction": ("sample_stats", "reconstruction"),
    "reconstruction_mean": ("predictive", "reconstruction_mean"),
}
r"""Where the per-datum values of a metric are in ``results.nc``; those of other estimators are in a
group of the estimator's name."""
LIKELIHOODS = ("log_likelihood", "iwae_bound")
r"""What orders runs, rather the first."""


def side_by_side(runs: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    r"""What is known of each run, the best one first.

    The best is the one of the highest ``log_likelihood``; where fewer than two runs have one, of
    the highest ``iwae_bound``, and where fewer than two have that, ``reconstruction``; of
    classifiers without probabilities, of the lowest ``classification_error``. The reconstruction of
    codes that are points is at the best code, and that of codes that are drawn is not; where runs
    of both kinds stand side by side ``reconstruction_mean``, at the mean of the codes, is compared
    in its place.

    Arguments:
        runs: Evaluated runs by name.

    Returns:
        For each run its ``metrics``; ``points``, whether its codes are points; ``paired``, by
        metric the mean difference to the best run in nats per datum and its paired standard error,
        and of ``classification_error``, in per cent, the ``p_value`` of :func:`mcnemar` too;
        ``corrupted``, its scores under corruptions;
        ``parameters``, how many are trained, and ``seconds_per_epoch``, of training, the median;
        where it is a likelihood or a bound that orders them, by ArviZ, of the runs that have it,
        ``difference`` to the best, its ``standard_error`` and the stacking ``weight``; for
        repetitions of one training ``over_seeds``; and ``setting``, what is known of the runs of
        its settings, by :func:`by_setting`.

    Raises:
        UsageError: They were scored on different data, or trained further after they were scored.
    """
    results = {name: run.current_results() for name, run in runs.items()}
    _same_data(results)
    values = {name: _per_datum(run, results[name]) for name, run in runs.items()}
    mixed = len({codes_are_points(result) for result in results.values()}) > 1
    by = criterion(values.values(), mixed)
    likely = {n: v[by] for n, v in values.items() if by in v and by in LIKELIHOODS}
    sign = -1 if by == "classification_error" else 1
    worth = {n: sign * float(v[by].mean()) if by in v else -np.inf for n, v in values.items()}
    order = sorted(runs, key=lambda name: -worth[name])
    table: dict[str, dict[str, Any]] = {}
    for name in order:
        table[name] = {
            "metrics": results[name]["metrics"],
            "points": codes_are_points(results[name]),
            "paired": {
                metric: paired(values[order[0]][metric], per_datum)
                for metric, per_datum in values[name].items()
                if name != order[0] and metric in values[order[0]]
                if metric != "reconstruction" or not mixed
            },
            "corrupted": results[name].get("corrupted", {}),
            "parameters": results[name]["parameters"],
            "seconds_per_epoch": seconds_per_epoch(runs[name].clock()),
        }
        if "classification_error" in (found := table[name]["paired"]):
            missed = (values[one]["classification_error"] > 0 for one in (name, order[0]))
            found["classification_error"] |= {"unit": "%", "p_value": mcnemar(*missed)[2]}
    if len(likely) > 1:
        for name, row in compare_pointwise(likely).items():
            table[name] |= row
    groups = repetitions({name: runs[name] for name in table})
    apart = differing({name: runs[name] for name in table})
    if mixed:
        values = {n: {k: v[k] for k in v if k != "reconstruction"} for n, v in values.items()}
    for place, setting in enumerate(by_setting(groups, table, values, worth)):
        first, *others = setting["runs"]
        found = {"place": place, "settings": apart[first], **setting}
        for name in (first, *others):
            table[name]["setting"] = found
            if others:
                table[name]["over_seeds"] = over_seeds({n: table[n] for n in found["runs"]})
    return table


@np.errstate(invalid="ignore")  # infinite values have no difference
def by_setting(
    groups: Iterable[Sequence[str]],
    rows: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[str, np.ndarray]],
    worth: Mapping[str, float],
) -> list[dict[str, Any]]:
    r"""Settings side by side, each by all of its runs, the best one first.

    The best is the one whose runs are worth the most on average. A difference to it is of means
    over seeds, datum by datum: of settings A and B with :math:`k_A` and :math:`k_B` runs

    .. math::
        d_n = \frac{1}{k_A} \sum_{a \in A} v_{an} - \frac{1}{k_B} \sum_{b \in B} v_{bn}, \qquad
        \sqrt{\frac{s_A^2}{k_A} + \frac{s_B^2}{k_B}},

    with the standard error of the mean of :math:`d_n` over data, and to its right, with the
    standard deviations s over seeds, the error that seeds leave in it.

    Arguments:
        groups: The names of the runs of each setting.
        rows: For each run its ``metrics`` and ``corrupted``.
        values: For each run the per-datum values of metrics in nats, ``(n,)``.
        worth: What each run is ordered by, the higher the better.

    Returns:
        For each setting its ``runs``, the best first; ``metrics``, of each that all of them have
        the mean ``value``, its ``standard_error`` over data and the ``spread`` over seeds, None of
        one run; and, but for the first, ``paired`` differences to it with ``standard_error`` over
        data and ``seeds_error``, None where one of the two has a single run.
    """
    ordered = [sorted(group, key=lambda name: -worth[name]) for group in groups]
    ordered.sort(key=lambda group: -float(np.mean([worth[name] for name in group])))
    found: list[dict[str, Any]] = []
    best: dict[str, np.ndarray] = {}
    for group in ordered:
        per_datum = {
            metric: _mean([values[name][metric] for name in group])
            for metric in values[group[0]]
            if all(metric in values[name] for name in group)
        }
        metrics = over_seeds({name: rows[name] for name in group})["metrics"]
        for name, metric in metrics.items():
            of_one = rows[group[0]]["metrics"].get(name, {})
            metric |= {k: of_one[k] for k in ("latent_dim", "unit") if k in of_one}
            if len(group) == 1:
                metric["standard_error"] = of_one.get("standard_error")
            elif name in per_datum:
                metric["standard_error"] = measured(per_datum[name])["standard_error"]
        setting: dict[str, Any] = {"runs": group, "metrics": metrics, "paired": {}}
        for metric in [name for name in per_datum if name in best]:
            spreads = [one["metrics"].get(metric, {}).get("spread") for one in (setting, found[0])]
            counts = [len(one["runs"]) for one in (setting, found[0])]
            error = None
            if None not in spreads:
                error = float(np.sqrt(sum(s**2 / k for s, k in zip(spreads, counts, strict=True))))
            difference = paired(best[metric], per_datum[metric])
            setting["paired"][metric] = {**difference, "seeds_error": error}
        best = per_datum if not found else best
        found.append(setting)
    return found


def _mean(values: Sequence[np.ndarray]) -> np.ndarray:
    r"""The mean over runs of the data that all of them have values of, the first ones."""
    n = min(map(len, values))
    mean: np.ndarray = np.mean([one[:n] for one in values], 0)
    return mean


def criterion(known: Iterable[Collection[str]], mixed: bool = False) -> str:
    r"""The metric that orders runs: the first that two of them have, of :data:`LIKELIHOODS`, the
    reconstruction and, the lower the better, the classification error.

    Arguments:
        known: For each run the names of its metrics.
        mixed: Whether codes are points in some of the runs and drawn in others.
    """
    counts = Counter(name for names in known for name in names)
    reconstruction = "reconstruction" + "_mean" * mixed
    named = (*LIKELIHOODS, reconstruction, "classification_error")
    return next((name for name in named if counts[name] > 1), reconstruction)


def codes_are_points(results: Mapping[str, Any]) -> bool:
    r"""Whether a run's codes are points, of which draws cost nothing."""
    by_kl = "points" if results["metrics"]["kl"]["value"] is None else "draws"
    return bool(results.get("codes", by_kl) == "points")


def paired(reference: np.ndarray, values: np.ndarray) -> Metric:
    r"""The mean difference of two sets of per-datum values, and the standard error of it.

    .. math::
        \bar d = \frac{1}{n} \sum_n (b_n - a_n), \qquad
        \sqrt{\frac{1}{n (n - 1)} \sum_n (b_n - a_n - \bar d)^2}

    Where one set is of fewer data, the first ones, these alone are compared.

    Arguments:
        reference: The values :math:`a_n` of each datum in nats, ``(N,)``.
        values: The values :math:`b_n` of the same data in nats, ``(N,)``.
    """
    n = min(len(reference), len(values))
    return measured(values[:n] - reference[:n], num_data=n)


def mcnemar(one: np.ndarray, other: np.ndarray) -> tuple[int, int, float]:
    r"""McNemar's test of two classifiers that have seen the same data.

    Of the :math:`b + c` data that only one of them gets wrong, b would be binomial with probability
    1/2 if their errors were the same.

    Arguments:
        one, other: Which data each gets wrong, boolean, ``(N,)``.

    Returns:
        b, those that only the one gets wrong; c, that only the other does; and the exact two-sided
        p-value, 1 where there are none.

    References:
        | Note on the Sampling Error of the Difference between Correlated Proportions or Percentages
        | (McNemar, 1947)
        | https://doi.org/10.1007/BF02295996
    """
    from scipy.stats import binomtest

    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    return b, c, float(binomtest(b, b + c).pvalue) if b + c else 1.0


def wrong(run: Run) -> np.ndarray:
    r"""Which test data a classifier's run gets wrong, boolean, ``(N,)``.

    Raises:
        UsageError: It keeps no predictions.
    """
    label = run.per_datum("classification", "label")
    try:
        predicted = run.per_datum("classification", "predicted")
    except UsageError:  # of probabilities
        predicted = run.per_datum("classification", "log_prob").argmax(1)
    missed: np.ndarray = predicted != label
    return missed


def each_datum(run: Run, metric: str) -> np.ndarray:
    r"""A metric's value of each test datum in nats, the mean over draws, ``(N,)``.

    Arguments:
        run: An evaluated run.
        metric: One of :data:`PAIRED`.

    Raises:
        UsageError: It is none of these, or the run has no such values.
    """
    if metric not in PAIRED:
        raise UsageError(f"{metric} is no mean over test data; {', '.join(PAIRED)} are")
    return _over_draws(run, *PAIRED[metric])


def over_seeds(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    r"""Metrics over repetitions of one training.

    Returns:
        ``runs``, their names; and ``metrics``, by name the mean over runs, ``value``, and the
        standard deviation over them, ``spread``, None of one run; those under a corruption as
        ``reconstruction, CORRUPTION``.
    """
    found = [_values(row) for row in rows.values()]
    everywhere = [name for name in found[0] if all(name in one for one in found)]
    columns = {name: np.array([one[name] for one in found]) for name in everywhere}
    return {
        "runs": list(rows),
        "metrics": {
            name: {
                "value": float(values.mean()),
                "spread": float(values.std(ddof=1)) if len(values) > 1 else None,
            }
            for name, values in columns.items()
        },
    }


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    named = dict(row["metrics"])
    for corruption, entry in row["corrupted"].items():
        named |= {f"{name}, {corruption}": metric for name, metric in entry["metrics"].items()}
    return {name: m["value"] for name, m in named.items() if m["value"] is not None}


def _per_datum(run: Run, results: Mapping[str, Any]) -> dict[str, np.ndarray]:
    run.check_arrays()
    values, metrics = {}, results["metrics"]
    # Each model simulates data of its own for such estimators, of which there are no pairs.
    simulated = {estimator.name for estimator in found_by(metrics) if estimator.margin}
    if "classification_error" in metrics:
        with suppress(UsageError):
            values["classification_error"] = 100.0 * wrong(run)
    for name, metric in metrics.items():
        place = PAIRED.get(name, (metric.get("estimator"), name))
        if metric["value"] is None or place[0] in (None, *simulated):
            continue
        with suppress(UsageError):  # not every metric is a mean over the test data
            values[name] = _over_draws(run, *place)
    return values


def _over_draws(run: Run, group: str, name: str) -> np.ndarray:
    stored = run.per_datum(group, name)
    return stored.reshape(-1, stored.shape[-1]).mean(0)


def _same_data(results: Mapping[str, Mapping[str, Any]]) -> None:
    (first, reference), *others = results.items()
    for name, result in others:
        for key in ("data", "split", "binarization", "num_data", "data_description"):
            if result[key] != reference[key]:
                raise UsageError(
                    f"{first} and {name} cannot be compared: {key.replace('_', ' ')} is "
                    f"{reference[key]!r} in one and {result[key]!r} in the other; evaluate them on "
                    "the same data"
                )


def names_of(runs: Sequence[Run]) -> list[str]:
    r"""The directories' names, or their paths where those would be ambiguous."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]
