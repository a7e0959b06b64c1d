r"""Checkpoints: tensors and plain numbers only, written whole or not at all."""

import io
import pickle
import random
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_aevb.device import everywhere, gpus, random_states, restore_random_states
from pyro_aevb.errors import UsageError
from pyro_aevb.runs.writing import write_whole

FORMAT = 1


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
        state = torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(content):
            raise UsageError(
                f"{path} holds pickled objects, which could execute code; refused: a checkpoint "
                "of this package holds tensors and plain numbers only"
            ) from error
        raise UsageError(f"{path} is no checkpoint, or damaged; restore it or retrain") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is truncated or damaged; restore it or retrain") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path} is not a checkpoint of this version of pyro_aevb")
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
    r"""Continue every generator where :func:`random_state` found it."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == gpus():
        restore_random_states(state["cuda"], everywhere())
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
