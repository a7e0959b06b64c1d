r"""What a pair's code keeps in Python beside its parameters: counters, temperatures, generators.

A captured step repeats tensor operations and nothing else, so a step that changes such a value runs
eagerly; a checkpoint holds the values that training has changed; and runs that only try something
leave them as they were.

Seen are the attributes of the pair's modules, of the object that it was made of, and of objects and
classes of the user's own that they hold, also in lists and dictionaries; and attributes, closures,
defaults and global names of the user's own functions. Not seen are values that a library keeps, how
far an iterator is, files, and the clock.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

from pyro_aevb.device import forked, in_use, random_states
from pyro_aevb.pairs.state.kept import Kept, decode, encode, keep
from pyro_aevb.pairs.state.reach import BUFFERS, of_library, owners

Reading = dict[str, Kept]

_GENERATORS: dict[str, Any] = {
    "Python's random module": random._inst,
    "NumPy's global random numbers": np.random.mtrand._rand,
}


class PythonState:
    r"""The Python values of a pair, and of what it is trained by.

    Arguments:
        roots: The modules, objects and functions to look in, each with a label for its names.
    """

    def __init__(self, roots: Iterable[tuple[str, Any]] = ()) -> None:
        self.roots = tuple(roots)

    def beside(self, *others: Any) -> "PythonState":
        r"""These values and those of what the pair is trained by, such as an objective."""
        return PythonState((*self.roots, *(("algorithm", other) for other in others)))

    def read(self) -> Reading:
        r"""Every value as it is now, by a name that says where it is."""
        return {
            owner.label + name: keep(value)
            for owner in owners(self.roots)
            for name, value in owner.values().items()
        }

    def put(self, reading: Mapping[str, Kept]) -> None:
        r"""Make every value what it was; attributes that have come since go, objects apart."""
        for owner in list(owners(self.roots)):
            for name, value in owner.values().items():
                kept = reading.get(owner.label + name)
                if kept is not None:
                    if (before := kept.restore()) is not value:
                        owner.set(name, before)
                elif keep(value).kind != "object":
                    owner.remove(name)  # so that a class attribute shows again

    def saved(
        self, since: Mapping[str, Kept], always: Iterable[str] = ()
    ) -> tuple[dict[str, Any], list[str]]:
        r"""What has changed, for a checkpoint.

        Arguments:
            since: An earlier reading.
            always: The names of values to save even where they have not changed.

        Returns:
            The changed values by name, as :func:`~pyro_aevb.pairs.state.kept.encode` writes them;
            and the names of those that it cannot write.
        """
        held: dict[str, Any] = {}
        lost = []
        for name, kept in self.read().items():
            new = not kept.same(since.get(name))
            if kept.kind == "object":
                # One that was there need not be saved, and a library's is made anew.
                if new and not of_library(type(kept.value).__module__):
                    lost.append(name)
            elif BUFFERS not in name and (new or kept.kind == "iterator" or name in always):
                try:
                    held[name] = encode(kept)
                except (TypeError, ValueError):
                    lost.append(name)
        return held, lost

    def load(self, held: Mapping[str, Any], device: torch.device | str) -> list[str]:
        r"""Take over what :meth:`saved` returned.

        Returns:
            The names that have no place any longer.
        """
        left = dict(held)
        for owner in list(owners(self.roots)):
            now = owner.values()
            for place in list(left):
                name = place.removeprefix(owner.label)
                if place.startswith(owner.label) and owner.takes(name):
                    with suppress(LookupError):  # an object that is to be there is not
                        value = decode(left[place], now.get(name), device)
                        del left[place]
                        if value is not now.get(name) or name not in now:
                            owner.set(name, value)
        return list(left)


def changed(before: Mapping[str, Kept], after: Mapping[str, Kept]) -> list[str]:
    r"""The names of values that differ; what tensors hold, and objects of libraries, apart."""

    passing = ("tensor", "object", "iterator")  # these may come and go

    def alike(one: Kept, other: Kept | None) -> bool:
        return one.kind in passing if other is None else one.same(other, tensors=False)

    names = [name for name, kept in before.items() if not alike(kept, after.get(name))]
    return names + [n for n, kept in after.items() if n not in before and not alike(kept, None)]


def rebound(before: Mapping[str, Kept], after: Mapping[str, Kept]) -> dict[str, Any]:
    r"""By name the tensors in whose place there is another tensor."""
    now = {name: {id(tensor) for tensor in kept.tensors()} for name, kept in after.items()}
    return {
        name: tensor
        for name, kept in before.items()
        for tensor in kept.tensors()
        if id(tensor) not in now.get(name, ())
    }


@contextmanager
def untouched(python: PythonState, devices: Iterable[torch.device] = ()) -> Iterator[Reading]:
    r"""Leave Python values, a reading of which it yields, and all random numbers as they were.

    Arguments:
        python: The Python values of the pair that is tried.
        devices: The devices whose random numbers are left as they were too, where they are GPUs.
    """
    before = python.read()
    numbers = [keep(generator) for generator in _GENERATORS.values()]
    try:
        with forked(devices):
            yield before
    finally:
        python.put(before)
        for kept in numbers:
            kept.restore()


def drawn_by(run: Callable[[], Any]) -> tuple[Any, str | None]:
    r"""What a function returns, and of which other random numbers than torch's it draws."""
    before = {name: keep(generator) for name, generator in _GENERATORS.items()}
    result = run()
    moved = (name for name, kept in before.items() if not kept.same(keep(kept.value)))
    return result, next(moved, None)


def torch_states(device: torch.device | str | None = None) -> list[bytes]:
    r"""The states of torch's generators: the CPU's, and a device's, or those of all GPUs in use."""
    devices = in_use() if device is None else [torch.device(device)]
    states = torch.get_rng_state(), *random_states(devices)
    return [state.numpy().tobytes() for state in states]
