r"""What other libraries hold in memory, as arrays by the names that a file of them would have."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.formats import arrays_of_anndata, dense
from pyro_aevb.data.naming import ALIASES, DATA, ROWS, WHOLE, words
from pyro_aevb.data.tables import FEATURES, LEFT_OUT, arrays_of
from pyro_aevb.errors import UsageError

TAKEN = (
    "a data set's name or path, an array, a tensor, a pandas DataFrame, AnnData, a torch Dataset, "
    '(x, labels), or these by name, as in {"train": x, "test": y}'
)
r"""What is taken, in words."""


def name_of(data: Any) -> str:
    r"""What a data set made of an object is called: a library's word for it, or ``arrays``."""
    known = _is(data, "pandas", "DataFrame") or _is(data, "anndata", "AnnData")
    return type(data).__name__ if known or isinstance(data, Dataset) else "arrays"


def arrays_in(data: Any, memory: int) -> dict[str, Any]:
    r"""The arrays in an object by name: data, labels, columns, what rows and features are called.

    A DataFrame is read as a table in a file is, an AnnData as a file of it. Of a torch ``Dataset``
    an item is a datum, or one with its label. Of a mapping the keys are names, and what they hold
    may be any of these: that of ``train``, or of ``train_x``, is then of the split ``train``.

    Arguments:
        data: The object.
        memory: The most bytes that a sparse matrix may take as a whole table.

    Raises:
        UsageError: It is none of these, or does not fit together.
    """
    if isinstance(data, Mapping):
        return _joined({str(key): value for key, value in data.items()}, memory)
    if _is(data, "pandas", "DataFrame"):
        return {**arrays_of(data, Path("the DataFrame")), ROWS: data.index.to_numpy()}
    if _is(data, "anndata", "AnnData"):
        return {**arrays_of_anndata(data, Path("the AnnData"), memory)}
    if isinstance(data, Dataset):
        return _of_dataset(data)
    if isinstance(data, (tuple, list)) and len(data) == 2 and all(_is_array(part) for part in data):
        return _joined(dict(zip("xy", data, strict=True)), memory)
    if hasattr(data, "toarray"):  # SciPy's sparse
        return {"x": dense(Path("the matrix"), data, memory)}
    if not _is_array(data):
        near = "; give its .dataset" if isinstance(data, DataLoader) else ""
        raise UsageError(f"data is a {type(data).__name__}{near}; give {TAKEN}")
    return {"x": as_array(data)}


def as_array(given: Any) -> Any:
    r"""A tensor, a column or a list as an array; objects that are all words, or nothing, as words.

    A :class:`numpy.memmap` stays one, and of a masked array the masked values are NaN.
    """
    if isinstance(given, Tensor):
        return as_numpy(given.to_dense() if given.is_sparse else given)
    if isinstance(given, np.ma.MaskedArray):
        masked = bool(np.ma.getmaskarray(given).any())
        return np.where(given.mask, np.nan, given.data) if masked else given.data
    if isinstance(given, np.memmap):
        return given
    array = np.asarray(given)
    if array.dtype.kind not in "OT" or array.size == 0:
        return array
    known = np.array([one is not None and one == one for one in array.ravel()])
    if all(isinstance(one, str) for one in array.ravel()[known]):
        said = ["" if not known[n] else str(one) for n, one in enumerate(array.ravel())]
        return np.array(said).reshape(array.shape)
    if all(isinstance(one, (int, float, np.number, np.bool_)) for one in array.ravel()[known]):
        return np.where(known, array.ravel(), np.nan).astype(np.float64).reshape(array.shape)
    return array


def _joined(parts: Mapping[str, Any], memory: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    features: dict[str, list[str]] = {}
    for key, value in parts.items():
        split = next((ALIASES[word] for word in words(key) if word in ALIASES), None)
        holds = {word for word in words(key) if word not in ALIASES} <= DATA
        if not holds or (_is_array(value) and not _is(value, "pandas", "DataFrame")):
            found[key] = _column(value)
            continue
        for name, array in arrays_in(value, memory).items():
            if name == FEATURES:
                features[key] = list(array)
            elif name == LEFT_OUT:
                found[name] = np.union1d(found.get(name, np.array([], dtype=str)), array)
            elif name in ("x", WHOLE):
                found[key] = array
            else:
                found[name if split is None else f"{split}_{name}"] = array
    for key, names in features.items():
        first = next(iter(features))
        if names != features[first]:
            differ = sorted(set(names) ^ set(features[first])) or ["their order"]
            raise UsageError(
                f"the columns of {key} are not those of {first}: {', '.join(differ[:5])}; give "
                "all splits the same columns of data, in one order"
            )
        found[FEATURES] = np.array(names)
    return found


def _column(value: Any) -> Any:
    r"""What stands beside data; a table of one column is that column."""
    if _is(value, "pandas", "DataFrame") and value.shape[1] == 1:
        value = value.iloc[:, 0]
    if getattr(getattr(value, "dtype", None), "name", "") == "category":
        value = value.astype(object)
    return as_array(value)


def _of_dataset(data: Any) -> dict[str, Any]:
    name = type(data).__name__
    if isinstance(data, TensorDataset):
        parts: Any = data.tensors
    elif isinstance(data, IterableDataset) or not hasattr(data, "__len__") or not len(data):
        raise UsageError(f"the {name} has no length, or no data; give one of items by number")
    else:
        try:
            parts = default_collate([data[n] for n in range(len(data))])
        except (TypeError, RuntimeError) as error:
            raise UsageError(
                f"the items of the {name} are no tensors of one shape; let its transform make "
                "tensors of them, as torchvision's ToTensor() does"
            ) from error
    if isinstance(parts, Mapping):
        return {str(key): as_array(value) for key, value in parts.items()}
    parts = [parts] if isinstance(parts, Tensor) else list(parts)
    if len(parts) > 2:
        raise UsageError(
            f"the items of the {name} have {len(parts)} parts, and only of two it is plain that "
            'they are a datum and its label; give arrays by name: {"x": ..., "label": ...}'
        )
    return {key: as_array(part) for key, part in zip("xy", parts, strict=False)}


def _is(value: Any, library: str, kind: str) -> bool:
    r"""Whether a value is of a library's type; the library is not imported to find out."""
    module = sys.modules.get(library)
    return module is not None and isinstance(value, getattr(module, kind))


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array__")
