r"""Files of other programs, as arrays by name, each read by the library that is kept for it.

No file is unpickled or executed, whatever it holds.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.data.files import damaged, read_arrays
from pyro_aevb.data.matlab import check_matlab
from pyro_aevb.data.naming import LABELS, ROWS, SPLIT, WHOLE
from pyro_aevb.data.stored import HDF5Array, NpyArray, Stored, ZarrArray
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
    if {"indices", "indptr", "format", "shape", "data"} <= set(arrays):  # as SciPy saves them
        sparse = importlib.import_module("scipy.sparse")
        return {"x": dense(path, sparse.load_npz(path), memory)}
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
    def parse() -> Arrays:
        h5py, found = importlib.import_module("h5py"), Arrays()
        with h5py.File(path, "r") as file:
            for key, data in _leaves(file, lambda value: isinstance(value, h5py.Dataset)):
                if data.dtype.kind == "O" and h5py.check_string_dtype(data.dtype):
                    found[_joined(key)] = np.array(data.asstr()[()], dtype=str)
                elif data.dtype.kind == "S":
                    found[_joined(key)] = np.char.decode(data[()], "utf-8")
                elif data.dtype.kind in "biuf" and data.nbytes > memory:
                    found[_joined(key)] = HDF5Array.of(path, data)
                elif data.shape is not None:
                    found[_joined(key)] = data[()]
        return found

    return _parsed(path, "an HDF5 file", parse)


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
            yield above + key, value
        elif hasattr(value, "items"):
            yield from _leaves(value, is_leaf, f"{above}{key}/")


def _joined(key: str) -> str:
    return key.strip("/").replace("/", "_")


def _mat(path: Path, memory: int) -> Arrays:
    def parse() -> dict[str, np.ndarray] | None:
        check_matlab(path)
        try:
            return {**importlib.import_module("scipy.io").loadmat(path)}
        except NotImplementedError:
            return None

    found = _parsed(path, "a MATLAB file", parse)
    if found is None:  # of version 7.3, which is HDF5 with the axes in the order of Fortran
        with importlib.import_module("h5py").File(path, "r") as file:
            found = {key: _from_hdf5(file, value) for key, value in file.items()}
    return {**_from_matlab({k: np.asarray(v) for k, v in found.items() if k[0] not in "_#"})}


def _from_hdf5(file: Any, value: Any) -> np.ndarray:
    r"""A variable of a MATLAB file of version 7.3; a group, which holds none, as no array."""
    if not hasattr(value, "dtype"):
        return np.array(None)
    if value.attrs.get("MATLAB_class") == b"cell":  # references to words, each letter a number
        held = [file[place] for place in np.ravel(value[()])]
        if any(word.attrs.get("MATLAB_class") != b"char" for word in held):
            return np.array(None)
        return np.array(["".join(map(chr, np.ravel(word[()]))) for word in held])
    array: np.ndarray = value[()].T
    return array


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
    return {_joined(key): _plain(value) for key, value in tensors}


def _plain(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    tensor = tensor if str(tensor.layout) == "torch.strided" else tensor.to_dense()
    array: np.ndarray = (
        tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    ).numpy()
    return array


def _anndata(path: Path, memory: int) -> Arrays:
    anndata = _library("anndata", path)
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
    r"""A matrix as an array; a UsageError where a sparse one would take more memory."""
    if hasattr(matrix, "toarray"):
        size = math.prod(matrix.shape) * matrix.dtype.itemsize
        if size > memory:
            raise UsageError(
                f"{path} is sparse and would take {size >> 20:,} MiB as a whole table; choose the "
                f"genes that vary most, or say --memory {size >> 20}"
            )
        matrix = matrix.toarray()
    return np.asarray(matrix)


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
