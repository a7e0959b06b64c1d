r"""What was written before proposals were fitted to the data, read as what it is.

A ``log_likelihood`` of then is the log-mean weight of K draws of the guide, which is called
``iwae_bound`` now: it is read under this name, with the health of its weights in its entry, and
what is called ``log_likelihood`` now is not defined. One of a pair without local latents was exact
and is the same today.
"""

from collections.abc import Mapping
from typing import Any

REASON = (
    "scored before proposals were fitted to the data; python -m pyro_aevb.evaluate RUN computes it"
)
MISSING = ("log_likelihood", "expected_log_likelihood", "gap", "log_likelihood_variance")
HEALTH = ("ess", "pareto_k")
ARRAYS = {
    ("predictive", "iwae_bound"): ("predictive", "log_likelihood"),
    ("convergence", "iwae_bound"): ("convergence", "log_likelihood"),
}
r"""Where ``results.nc`` of then holds what is called so now."""
UNKNOWN = (
    ("predictive", "log_likelihood"),
    ("log_likelihood", "x"),
    *(("sample_stats", name) for name in HEALTH),
)
r"""What ``results.nc`` of then holds of something else."""


def current(results: Mapping[str, Any]) -> dict[str, Any]:
    r"""The content of a ``results.json``, as it is called now."""
    read = {**results, "metrics": current_metrics(results["metrics"])}
    for section in ("corrupted", "against"):
        if section in results:
            read[section] = {
                name: {**entry, "metrics": current_metrics(entry["metrics"])}
                for name, entry in results[section].items()
            }
    return read


def current_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    r"""Metrics by their names, as they are called now; those of now stay as they are.

    Those of other input than the test data, which have no ``gap`` and no ``pareto_k``, are by draws
    of the guide today as well.
    """
    likely = metrics.get("log_likelihood")
    if likely is None or "iwae_bound" in metrics:
        return dict(metrics)
    if metrics.keys().isdisjoint(("gap", "pareto_k")):
        names = {"log_likelihood": "iwae_bound"}
        return {names.get(name, name): metric for name, metric in metrics.items()}
    bound: Mapping[str, Any] = likely
    missing: dict[str, Any] = {}
    if likely["value"] is not None:
        kl = metrics.get("kl", {})
        if kl.get("value") is None:  # no local latents: an exact value
            bound = {"value": None, "reason": kl.get("reason", "not computed")}
        else:
            bound = {**likely, **_health(metrics)}
            dropped = [*MISSING, "weight_rise", *HEALTH]
            missing = {
                name: {"value": None, "reason": REASON} for name in dropped if _known(metrics, name)
            }
    read: dict[str, Any] = {}
    for name, metric in metrics.items():
        if name == "log_likelihood":
            read["iwae_bound"] = bound
        read[name] = missing.get(name, metric)
        if missing and "above_log_likelihood" in metric:
            read[name] = {**metric, "above_log_likelihood": missing["log_likelihood"]}
    return read


def was_before(results: Mapping[str, Any]) -> bool:
    r"""Whether results that were read by :func:`current` were of then."""
    return bool(results["metrics"].get("log_likelihood", {}).get("reason") == REASON)


def _health(metrics: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: metrics[name] for name in HEALTH if _known(metrics, name)}
    health = {name: metric["value"] for name, metric in known.items()}
    if "share_above_0.7" in known.get("pareto_k", {}):
        health["share_above_0.7"] = known["pareto_k"]["share_above_0.7"]
    return health


def _known(metrics: Mapping[str, Any], name: str) -> bool:
    return metrics.get(name, {}).get("value") is not None
