r"""Files of other programs, as arrays by name, each read by the library that is kept for it.

No file is unpickled or executed, whatever it holds.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.data.files import damaged, read_arrays
from pyro_aevb.data.hdf5 import check_heaps, read_hdf5, read_matlab
from pyro_aevb.data.matlab import check_matlab
from pyro_aevb.data.naming import LABELS, ROWS, SPLIT, WHOLE
from pyro_aevb.data.stored import NpyArray, Stored, ZarrArray
from pyro_aevb.data.tables import FEATURES, arrays_of, read_csv
from pyro_aevb.errors import UsageError

Arrays = dict[str, np.ndarray | Stored]


def read_file(path: Path, memory: int) -> Arrays:
    r"""The arrays of a file by name; of groups within it, the names are joined by ``_``.

    Arguments:
        path: The file, of one of :data:`~pyro_aevb.data.formats.SUFFIXES`; or a folder of Zarr.
        memory: Bytes; an array of more stays on the disk, if the format can be read in parts.

    Raises:
        UsageError: It is damaged, holds Python objects, or the library is not installed.
    """
    read = _zarr if path.is_dir() else _READERS.get(path.suffix.lower())
    if read is None:
        raise UsageError(
            f"{path} is of no kind that is read; data are a folder of images, or a file "
            f"{' '.join(_READERS)}"
        )
    if path.exists() and not path.is_dir() and not path.is_file():
        raise UsageError(f"{path} is a device or a pipe, and no file")
    return read(path, memory)


def is_zarr(path: Path) -> bool:
    r"""Whether Zarr wrote a folder."""
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _library(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"{path} needs {name}: pip install {name}") from error


def _parsed(path: Path, what: str, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except (UsageError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # a parser of damaged bytes may raise anything
        raise damaged(path, f"it cannot be read as {what}") from error


def _npy(path: Path, memory: int) -> Arrays:
    if path.suffix.lower() == ".npy" and path.stat().st_size > memory:
        return {WHOLE: NpyArray.of(path)}
    arrays = read_arrays(path)
    if {"format", "shape", "data"} <= set(arrays):  # as SciPy saves them
        load = importlib.import_module("scipy.sparse").load_npz
        matrix = _parsed(path, "a sparse matrix", lambda: load(path))
        return {"x": dense(path, matrix, memory)}
    return {**arrays}


def _csv(path: Path, memory: int) -> Arrays:
    _library("pandas", path)
    return {**_parsed(path, "a table of text", lambda: arrays_of(read_csv(path), path))}


def _parquet(path: Path, memory: int) -> Arrays:
    _library("pyarrow", path)
    pandas = _library("pandas", path)
    table = _parsed(path, "a Parquet file", lambda: pandas.read_parquet(path, engine="pyarrow"))
    return {**arrays_of(table, path)}


def _hdf5(path: Path, memory: int) -> Arrays:
    found: Arrays = _parsed(path, "an HDF5 file", lambda: read_hdf5(path, memory))
    return {_joined(key): array for key, array in found.items()}


def _zarr(path: Path, memory: int) -> Arrays:
    zarr = _library("zarr", path)

    def parse() -> Arrays:
        opened, found = zarr.open(path, mode="r"), Arrays()
        arrays = [opened]
        if not isinstance(opened, zarr.Array):
            members = opened.members(max_depth=None)
            arrays = [value for _, value in members if isinstance(value, zarr.Array)]
        for data in arrays:
            large = data.dtype.kind in "biuf" and data.nbytes > memory
            value = ZarrArray.of(path, data) if large else np.asarray(data[...])
            found[_joined(data.path) or WHOLE] = value
        return found

    return _parsed(path, "a Zarr folder", parse)


def _leaves(group: Any, is_leaf: Callable[[Any], bool], above: str = "") -> Iterator[Any]:
    for key, value in group.items():
        if is_leaf(value):
            yield f"{above}{key}", value
        elif hasattr(value, "items"):
            yield from _leaves(value, is_leaf, f"{above}{key}/")


def _joined(key: str) -> str:
    return key.strip("/").replace("/", "_")


def _mat(path: Path, memory: int) -> Arrays:
    def parse() -> dict[str, np.ndarray]:
        check_matlab(path)
        try:
            found = {**importlib.import_module("scipy.io").loadmat(path)}
        except NotImplementedError:
            found = read_matlab(path)
        return _from_matlab({k: np.asarray(v) for k, v in found.items() if k[0] not in "_#"})

    return {**_parsed(path, "a MATLAB file", parse)}


def _from_matlab(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    r"""What are vectors and words in MATLAB, where all has two axes and cells hold words."""
    found = {}
    for key, array in arrays.items():
        if array.dtype == object and all(isinstance(v, np.ndarray) for v in array.flat):
            words = [v.ravel() for v in array.flat]
            if all(v.dtype.kind == "U" and v.size == 1 for v in words):
                array = np.array([str(v[0]) for v in words])
        found[key] = array.ravel() if array.ndim == 2 and 1 in array.shape else array
    lengths = {len(array) for array in found.values() if array.ndim == 1}
    for key, array in found.items():
        # (H, W, C, N), as images are kept there; told by labels, of which there are N
        if array.ndim > 2 and array.shape[0] not in lengths and array.shape[-1] in lengths:
            found[key] = np.moveaxis(array, -1, 0)
    return found


def _torch(path: Path, memory: int) -> Arrays:
    torch = importlib.import_module("torch")
    from pickle import UnpicklingError

    try:
        with warnings.catch_warnings():  # about how the file is packed
            warnings.simplefilter("ignore")
            held = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UsageError(
            f"{path} is damaged, or holds Python objects (pickled), which are not read; save a "
            "tensor, or tensors by name: torch.save({'x_train': x, 'y_train': y}, path)"
        ) from error
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise damaged(path, "it cannot be read as a file of torch.save") from error
    if isinstance(held, (tuple, list)) and len(held) == 2:
        held = dict(zip("xy", held, strict=True))
    if isinstance(held, torch.Tensor):
        held = {WHOLE: held}
    if not isinstance(held, dict):
        raise UsageError(f"{path} holds a {type(held).__name__}; save a tensor, or them by name")
    tensors = _leaves(held, lambda value: isinstance(value, torch.Tensor))
    parse = lambda: {_joined(key): _plain(path, value, memory) for key, value in tensors}  # noqa: E731
    return {**_parsed(path, "tensors by name", parse)}


def _plain(path: Path, tensor: Any, memory: int) -> np.ndarray:
    tensor = tensor.detach()
    if str(tensor.layout) != "torch.strided":
        return dense(path, tensor, memory)
    size = tensor.numel() * tensor.element_size()
    if size > max(memory, tensor.untyped_storage().nbytes()):
        raise UsageError(
            f"{path} holds a tensor that repeats its numbers, of {size >> 20:,} MiB; save one "
            "that is smaller, or contiguous()"
        )
    array: np.ndarray = (
        tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    ).numpy()
    return array


def _anndata(path: Path, memory: int) -> Arrays:
    anndata = _library("anndata", path)
    check_heaps(path)
    return arrays_of_anndata(
        _parsed(path, "an AnnData file", lambda: anndata.read_h5ad(path)), path, memory
    )


def arrays_of_anndata(held: Any, path: Path, memory: int) -> Arrays:
    r"""``X``, made dense, what its rows and columns are called, and the columns of ``obs``.

    Arguments:
        held: An ``anndata.AnnData``.
        path: Where it is from.
        memory: The most bytes that X may take.
    """
    if held.X is None:
        raise UsageError(f"{path} has no X; the data are what AnnData calls X, cells by genes")
    found: Arrays = {
        "x": dense(path, held.X, memory),
        FEATURES: held.var_names.to_numpy(str),
        ROWS: held.obs_names.to_numpy(str),
    }
    for name, column in held.obs.items():
        words = str(name).lower() in LABELS | {SPLIT}
        if column.dtype.name == "category" and not words:
            column = column.cat.codes  # numbers in the order of the categories, -1 where missing
        number = getattr(column.dtype, "kind", "O") in "biuf"
        found[str(name)] = column.to_numpy() if number else column.astype(str).to_numpy(str)
    return found


def dense(path: Path, matrix: Any, memory: int) -> np.ndarray:
    r"""A matrix of SciPy or tensor as an array.

    Raises:
        UsageError: A sparse one would take more memory, or its indices lie outside of it.
    """
    whole = getattr(matrix, "toarray", None) or getattr(matrix, "to_dense", None)
    if whole is None:
        return np.asarray(matrix)
    size = math.prod(matrix.shape) * matrix.dtype.itemsize
    if size > memory:
        raise UsageError(
            f"{path} is sparse and would take {size >> 20:,} MiB as a whole table; choose the "
            f"genes that vary most, or say --memory {size >> 20}"
        )

    def parse() -> np.ndarray:
        if hasattr(matrix, "check_format"):  # else indices outside would be written to
            matrix.check_format(full_check=True)
        return np.asarray(whole())

    array: np.ndarray = _parsed(path, "a sparse matrix", parse)
    return array


_READERS: dict[str, Callable[[Path, int], Arrays]] = {
    ".npy": _npy,
    ".npz": _npy,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".mat": _mat,
    ".pt": _torch,
    ".h5ad": _anndata,
    ".zarr": _zarr,
}
SUFFIXES = frozenset(_READERS)
r"""How the names of files end that are read."""
