r"""What differs from device to device: which there are, their random numbers, waiting, names.

A *device* is the CPU or an accelerator that this torch knows. CUDA graphs, which no other has, are
in :mod:`~pyro_aevb.engine.cuda_graph`.
"""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pyro_aevb.errors import UsageError

KINDS = ("cuda", "xpu")
r"""Accelerators that a pair is trained and scored on. Apple's (mps) has no float64, in which scores
are summed."""


def choose_device(device: str) -> torch.device:
    r"""The device of that name, ``auto`` being the accelerator of this torch where there is one.

    Raises:
        UsageError: No such device here.
    """
    found = accelerator()
    if device == "auto":
        return torch.device("cpu") if found is None else found
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is not None and chosen.type == "mps":
        raise UsageError(f"--device {device} has no float64, in which scores are summed; use cpu")
    if chosen is None or chosen.type not in ("cpu", *KINDS):
        raise UsageError(f"--device {device!r} is not supported; use auto, cpu, cuda or cuda:0")
    if chosen.type != "cpu":
        there = gpus() if found is not None and found.type == chosen.type else 0
        if (chosen.index or 0) >= there:
            kind = chosen.type.upper()
            raise UsageError(f"--device {device}: no such {kind} device here; use --device cpu")
    return chosen


def accelerator() -> torch.device | None:
    r"""The kind of accelerator that this torch computes on, one of :data:`KINDS`; None if none."""
    if not torch.accelerator.is_available():
        return None
    found = torch.accelerator.current_accelerator()
    return found if found is not None and found.type in KINDS else None


def gpus() -> int:
    r"""How many accelerators of that kind there are."""
    return 0 if accelerator() is None else torch.accelerator.device_count()


def on_cuda() -> bool:
    r"""Whether the accelerator of this torch is CUDA."""
    found = accelerator()
    return found is not None and found.type == "cuda"


def shares_memory(of: Tensor | torch.device) -> bool:
    r"""Whether the host reads a value of a device at once; a look at others waits for them."""
    device = of.device if isinstance(of, Tensor) else of
    return device.type == "cpu"


@contextmanager
def forked(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    r"""The random numbers of the CPU, and of some devices, are left as they were."""
    devices = [*devices]
    before = random_states(devices)
    with torch.random.fork_rng([]):
        try:
            yield
        finally:
            restore_random_states(before, devices)


def random_states(devices: Iterable[torch.device]) -> list[Tensor]:
    r"""The states of the generators of devices that have some of their own; the CPU's is none."""
    return [module.get_rng_state(device) for device, module in _with_generators(devices)]


def restore_random_states(states: Iterable[Tensor], devices: Iterable[torch.device]) -> None:
    r"""Continue the generators where :func:`random_states` found them."""
    for (device, module), state in zip(_with_generators(devices), states, strict=True):
        module.set_rng_state(state, device)


def everywhere() -> list[torch.device]:
    r"""All accelerators."""
    found = accelerator()
    return [] if found is None else [torch.device(found.type, i) for i in range(gpus())]


def in_use() -> list[torch.device]:
    r"""All accelerators, if this process has used one; a look at their generators would do so."""
    found = accelerator()
    used = found is not None and torch.get_device_module(found).is_initialized()
    return everywhere() if used else []


def finish(device: torch.device) -> None:
    r"""Wait until a device has done all that it was told."""
    if hasattr(module := _module(device), "synchronize"):
        module.synchronize(device)


def release(device: torch.device) -> None:
    r"""Give back the memory of a device that nothing uses any more.

    Call it outside of the clause that has caught an error, whose traceback holds what was made.
    """
    gc.collect()  # Pyro's errors hold one another, and so their tracebacks
    if hasattr(module := _module(device), "empty_cache"):
        module.empty_cache()


def called(device: torch.device) -> str:
    r"""What a device calls itself; of the CPU, how many threads of it are used."""
    if shares_memory(device):
        return f"{torch.get_num_threads()} CPU threads"
    name = getattr(_module(device), "get_device_name", str)
    return str(name(device))


def _with_generators(devices: Iterable[torch.device]) -> Iterator[tuple[torch.device, Any]]:
    for device in devices:
        if not shares_memory(device) and hasattr(module := _module(device), "get_rng_state"):
            yield device, module


def _module(device: torch.device) -> Any:
    r"""What torch has for a kind of device, such as ``torch.cuda``; None where there is nothing."""
    return getattr(torch, device.type, None)
