r"""Estimators: what a pair is worth, in nats per datum."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_aevb.estimators.estimator import Estimator

IMPORTANCE = "importance"
r"""The estimator that makes a run's results; what others find is added to them."""
ESTIMATORS = {
    "parzen": "parzen",
    "gap": "gap",
    "ais": "annealing",
    "bdmc": "annealing",
    "reciprocal": "reciprocal",
    "partition": "partition",
    "disentanglement": "disentanglement",
    "prediction": "prediction",
    "probe": "probe",
}
r"""The others, and the file that holds the record of each, under its name in capitals."""


def shipped(name: str) -> "Estimator":
    r"""The record of an estimator of this package; its file is imported when it is first used."""
    module = import_module(f"pyro_aevb.estimators.{ESTIMATORS[name]}")
    record: Estimator = getattr(module, name.upper())
    return record


def found_by(*results: Mapping[str, Any]) -> "list[Estimator]":
    r"""The records of this package's estimators that found some metrics of runs."""
    metrics = [m for found in results for m in found.values() if m["value"] is not None]
    return [
        shipped(n) for n in dict.fromkeys(m.get("estimator") for m in metrics) if n in ESTIMATORS
    ]
