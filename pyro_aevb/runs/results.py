r"""What ``results.json`` holds, as a mapping: which results may stand beside which, and merging.

A metric bears the name of the estimator that found it; one without a name is of importance
sampling.
"""

import math
from collections.abc import Mapping
from typing import Any

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators import IMPORTANCE

Results = dict[str, Any]
TRAINED = ("pair", "data", "data_description", "binarization", "epochs")
r"""The entries that results of two splits must share to be of the same trained pair."""
SAME = (*TRAINED, "split")
r"""The entries that results of two estimators must share to stand side by side."""
SECTIONS = ("corrupted", "against", "looks")
r"""The parts of the results beside the metrics, with entries that are added one by one."""


KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("pair", "data", "data_description", "split", "environment"), str),
    **dict.fromkeys(("num_data", "num_train", "epochs", "parameters"), int),
    **dict.fromkeys(("metrics", "settings", "splits", *SECTIONS), dict),
    "notes": list,
}
r"""What the entries are that are read again."""


def check_results(results: Mapping[str, Any]) -> None:
    r"""Raise a ValueError where an entry is of another kind than it was written as."""
    for name, kind in KINDS.items():
        if name in results and not isinstance(results[name], kind):
            raise ValueError(f"{name} is {results[name]!r}")
    entries = [entry for name in SECTIONS[:2] for entry in results.get(name, {}).values()]
    for metrics in (results["metrics"], *(entry["metrics"] for entry in entries)):
        for name, metric in metrics.items():
            for number in ("value", "standard_error"):
                if not isinstance(metric.get(number), (int, float, type(None))):
                    raise ValueError(f"{name} has {metric[number]!r}")
    for note in results.get("notes", ()):
        if not isinstance(note, str):
            raise ValueError(f"a note is {note!r}")
    for settings in results.get("settings", {}).values():
        settings.keys()


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    r"""Whether two results are of the same trained pair and the same split."""
    return _agree(one, other, SAME)


def of_same_pair(splits: Mapping[str, Any], results: Mapping[str, Any]) -> Results:
    r"""Of the results of splits, by name, those of the trained pair that `results` are of."""
    return {name: found for name, found in splits.items() if _agree(found, results, TRAINED)}


def beside(results: Mapping[str, Any], before: Mapping[str, Any]) -> Results:
    r"""New results of importance sampling, with what other estimators had found before.

    Where those of before are not :func:`alike`, the new results alone.
    """
    if not alike(before, results):
        return dict(results)
    others = {n: m for n, m in before["metrics"].items() if _found_by(m) != IMPORTANCE}
    merged = {
        **results,
        "metrics": {**results["metrics"], **others},
        "settings": {**before.get("settings", {}), **results["settings"]},
    }
    return merged | {name: before[name] for name in SECTIONS if name in before}


def with_estimator(
    before: Mapping[str, Any],
    estimator: str,
    settings: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
) -> Results:
    r"""Results with what an estimator found, in the place of what it had found before.

    Arguments:
        before: The results.
        estimator: The name of the estimator, which every metric then bears.
        settings: The settings that it was run with.
        metrics: Values, standard errors and counts by name.

    Raises:
        UsageError: A metric has the name of one that another estimator found.
    """
    others = {n: m for n, m in before["metrics"].items() if _found_by(m) != estimator}
    for name in metrics.keys() & others.keys():
        by = _found_by(others[name])
        raise UsageError(f"{estimator} and {by} both find {name!r}; one needs another name")
    found = {name: {**metric, "estimator": estimator} for name, metric in metrics.items()}
    return {
        **before,
        "metrics": {**others, **found},
        "settings": {**before.get("settings", {}), estimator: dict(settings)},
    }


def finite(entry: Any) -> Any:
    r"""Results as JSON can hold them: a value that is no finite number is not defined, and why."""
    if isinstance(entry, Mapping):
        kept = {name: finite(value) for name, value in entry.items()}
        if isinstance(entry.get("value"), float) and kept["value"] is None:
            kept["reason"] = f"it is {entry['value']}, not a finite number"
        return kept
    if isinstance(entry, (list, tuple)):
        return [finite(value) for value in entry]
    entry = entry.item() if hasattr(entry, "item") else entry  # a number of numpy's or torch's
    return None if isinstance(entry, float) and not math.isfinite(entry) else entry


def _agree(one: Mapping[str, Any], other: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    return all(one.get(key) == other[key] for key in keys)


def _found_by(metric: Mapping[str, Any]) -> str:
    return str(metric.get("estimator", IMPORTANCE))
