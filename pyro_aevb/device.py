r"""What differs from device to device: which there are, their random numbers, waiting, names.

A *device* is the CPU or an accelerator that this torch knows. CUDA graphs, which no other has, are
in :mod:`~pyro_aevb.engine.cuda_graph`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pyro_aevb.errors import UsageError

NAMES = ("cpu", "cuda")
r"""The kinds of devices that a pair is trained on."""


def choose_device(device: str) -> torch.device:
    r"""The device of that name, ``auto`` being CUDA where there is one.

    Raises:
        UsageError: No such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in NAMES:
        raise UsageError(f"--device {device!r} is not supported; use auto, cpu, cuda or cuda:0")
    if chosen.type == "cuda" and (chosen.index or 0) >= gpus():
        raise UsageError(f"--device {device}: no such CUDA device here; use --device cpu")
    return chosen


def gpus() -> int:
    r"""How many GPUs there are."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def shares_memory(of: Tensor | torch.device) -> bool:
    r"""Whether the host reads a value of a device at once; a look at others waits for them."""
    device = of.device if isinstance(of, Tensor) else of
    return device.type == "cpu"


@contextmanager
def forked(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    r"""The random numbers of the CPU, and of some devices, are left as they were."""
    with torch.random.fork_rng([*_with_generators(devices)], device_type="cuda"):
        yield


def random_states(devices: Iterable[torch.device]) -> list[Tensor]:
    r"""The states of the generators of devices that have some of their own; the CPU's is none."""
    return [torch.cuda.get_rng_state(device) for device in _with_generators(devices)]


def restore_random_states(states: Iterable[Tensor], devices: Iterable[torch.device]) -> None:
    r"""Continue the generators where :func:`random_states` found them."""
    for device, state in zip(_with_generators(devices), states, strict=True):
        torch.cuda.set_rng_state(state, device)


def everywhere() -> list[torch.device]:
    r"""All GPUs."""
    return [torch.device("cuda", index) for index in range(gpus())]


def in_use() -> list[torch.device]:
    r"""All GPUs, if this process has used one; a look at their generators would make it do so."""
    return everywhere() if torch.cuda.is_initialized() else []


def finish(device: torch.device) -> None:
    r"""Wait until a device has done all that it was told."""
    if not shares_memory(device):
        torch.cuda.synchronize(device)


def called(device: torch.device) -> str:
    r"""What a device calls itself; of the CPU, how many threads of it are used."""
    if shares_memory(device):
        return f"{torch.get_num_threads()} CPU threads"
    return torch.cuda.get_device_name(device)


def _with_generators(devices: Iterable[torch.device]) -> Iterator[torch.device]:
    return (device for device in devices if device.type == "cuda")
