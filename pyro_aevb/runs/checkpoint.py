r"""Checkpoints: tensors and plain numbers only, written whole or not at all."""

import io
import pickle
import random
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_aevb.device import everywhere, gpus, random_states, restore_random_states
from pyro_aevb.errors import UsageError
from pyro_aevb.runs.writing import write_whole

FORMAT = 1


def _is_format(value: Any) -> bool:
    return isinstance(value, int) and value == FORMAT


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_tensor(value: Any) -> bool:
    r"""Whether it is a tensor that has all its numbers: a file may claim more than it holds."""
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
        return False
    sparse = value.layout is not torch.strided
    return sparse or value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _is_tensors(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_tensor, value.values()))


def _is_best(value: Any) -> bool:
    return isinstance(value, dict) and _is_tensors(value.get("tensors", {}))


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, kind) for entry in value)


KINDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("tensors", "state"), _is_tensors),
    **dict.fromkeys(("epoch", "step", "stage", "began"), _is_number),
    **dict.fromkeys(("losses", "looks"), _is_tensor),
    **dict.fromkeys(("python", "random"), lambda value: isinstance(value, dict)),
    "best": _is_best,
    "notes": partial(_is_list_of, str),
    "history": partial(_is_list_of, dict),
}
r"""By name of an entry, whether a value is what a checkpoint holds there."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    r"""Write a checkpoint: a failure at any moment leaves the old one.

    Arguments:
        path: The file.
        state: Tensors, numbers, strings, and lists and dictionaries of them.

    Raises:
        UsageError: The file cannot be written.
    """
    content = io.BytesIO()
    torch.save({"format": FORMAT, **state}, content)
    write_whole(path, content.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    r"""Read a checkpoint without ever executing what it contains.

    Raises:
        UsageError: It is missing, truncated, damaged, not a checkpoint, or holds pickled objects.
    """
    if not path.is_file():
        raise UsageError(f"no checkpoint {path}; train the run first, or resume another one")
    content = io.BytesIO(path.read_bytes())
    _check(path, content)
    content.seek(0)
    try:
        with warnings.catch_warnings():  # about how a file is packed that is not ours
            warnings.simplefilter("ignore")
            state = torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(content):
            raise UsageError(
                f"{path} holds pickled objects, which could execute code; refused: a checkpoint "
                "of this package holds tensors and plain numbers only"
            ) from error
        raise UsageError(f"{path} is no checkpoint, or damaged; restore it or retrain") from error
    except MemoryError:
        raise
    except Exception as error:  # the unpickler of damaged bytes may raise anything
        raise UsageError(f"{path} is truncated or damaged; restore it or retrain") from error
    if not isinstance(state, dict) or not _is_format(state.get("format")):
        raise UsageError(f"{path} is not a checkpoint of this version of pyro_aevb")
    for name, is_kind in KINDS.items():
        if name in state and not is_kind(state[name]):
            raise UsageError(
                f"{path}: {name!r} is not what a checkpoint holds there; restore it or retrain"
            )
    return state


def _check(path: Path, content: io.BytesIO) -> None:
    r"""Refuse a file of which a part is not what its checksum says: torch reads it as it is."""
    if not zipfile.is_zipfile(content):
        return  # no checkpoint at all, of which torch says more
    try:
        with zipfile.ZipFile(content) as file:
            damaged = file.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError):
        damaged = path.name
    if damaged is not None:
        raise UsageError(f"{path} is damaged; restore it or retrain")


def random_state() -> dict[str, Any]:
    r"""The state of every generator: torch on the CPU and on CUDA, NumPy's, Python's."""
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, cached = numpy_state
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": random_states(everywhere()),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    r"""Continue every generator where :func:`random_state` found it.

    Raises:
        UsageError: It is no state of generators.
    """
    try:
        torch.set_rng_state(state["torch"])
        if len(state["cuda"]) == gpus():
            restore_random_states(state["cuda"], everywhere())
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise UsageError(
            "the checkpoint holds no state of the random generators; restore it or retrain"
        ) from error
