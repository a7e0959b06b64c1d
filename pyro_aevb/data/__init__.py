r"""Data sets with fixed splits, and how their batches are presented to a pair."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_aevb.data.batches import Batches, evaluation_binarization, order
    from pyro_aevb.data.sets import load, names
    from pyro_aevb.data.split import Binarize, DataSet, Split

__all__ = [
    "Batches",
    "Binarize",
    "DataSet",
    "Split",
    "evaluation_binarization",
    "load",
    "names",
    "order",
]

_HOME = {
    "Batches": "batches",
    "evaluation_binarization": "batches",
    "order": "batches",
    "load": "sets",
    "names": "sets",
    "Binarize": "split",
    "DataSet": "split",
    "Split": "split",
}


def __getattr__(name: str) -> Any:
    # torch is imported on first use, so that a command's --help stays quick
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
