r"""Data sets with fixed splits, and how their batches are presented to a pair."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_aevb.data.batches import Batches as Batches
    from pyro_aevb.data.batches import evaluation_binarization as evaluation_binarization
    from pyro_aevb.data.batches import order as order
    from pyro_aevb.data.own import from_arrays as from_arrays
    from pyro_aevb.data.sets import load as load
    from pyro_aevb.data.sets import names as names
    from pyro_aevb.data.split import Binarize as Binarize
    from pyro_aevb.data.split import DataSet as DataSet
    from pyro_aevb.data.split import Split as Split

_HOME = {
    **dict.fromkeys(("Batches", "evaluation_binarization", "order"), "batches"),
    "from_arrays": "own",
    **dict.fromkeys(("load", "names"), "sets"),
    **dict.fromkeys(("Binarize", "DataSet", "Split"), "split"),
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    # torch is imported on first use, so that a command's --help stays quick
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
