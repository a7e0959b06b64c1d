r"""A value of Python as it was: compared, put back in place, and written to a checkpoint.

In place, since a list or a dictionary may be held in several places, which have it in common.
"""

import io
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

PLAIN = (Number, str, bytes, Enum, np.generic, torch.dtype, torch.device, type(None))
SETS = (set, frozenset)
CONTAINERS = (list, tuple, deque, dict, *SETS)
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)


@dataclass(frozen=True)
class Kept:
    r"""A value as it was read."""

    kind: str
    r"""`plain`, `container`, `array`, `tensor`, `generator` (random), `iterator`, or `object`."""
    value: Any
    r"""The object itself."""
    content: Any
    r"""What it held; for a container its entries, by key or in order."""

    def same(self, other: "Kept | None", tensors: bool = True) -> bool:
        r"""Whether another reading holds the same; the numbers in tensors are compared if asked."""
        if other is None or self.kind != other.kind or type(self.value) is not type(other.value):
            return False
        if self.kind == "container":
            one, two = self.content, other.content
            if isinstance(self.value, SETS):
                return bool(one == two)
            pairs = zip(_entries(one), _entries(two), strict=False)
            alike = len(one) == len(two) and all(a.same(b, tensors) for a, b in pairs)
            return alike and (not isinstance(one, dict) or list(one) == list(two))
        if self.kind in ("object", "iterator") or (self.kind == "tensor" and not tensors):
            return True  # of the same class; what an object holds has a name of its own
        return _equal(self.content, other.content)

    def restore(self) -> Any:
        r"""The object, holding again what it held."""
        value, content = self.value, self.content
        if self.kind == "generator":
            _set_state(value, content)
        elif self.kind == "tensor" and not _equal(value.detach(), content):
            with torch.no_grad():
                value.copy_(content)
        elif self.kind == "array" and not _equal(value, content):
            np.copyto(value, content)
        elif isinstance(content, dict) and self.kind == "container":
            _refill(value, {key: kept.restore() for key, kept in content.items()})
        elif self.kind == "container":
            sets = isinstance(value, SETS)
            _refill(value, content if sets else [kept.restore() for kept in content])
        return value

    def tensors(self) -> Iterator[Tensor]:
        r"""The tensors that it is or contains."""
        if self.kind == "tensor":
            yield self.value
        elif self.kind == "container" and not isinstance(self.value, SETS):
            for kept in _entries(self.content):
                yield from kept.tensors()


def keep(value: Any, depth: int = 0) -> Kept:
    r"""Read a value."""
    if isinstance(value, PLAIN):
        return Kept("plain", value, value)
    if isinstance(value, Tensor):
        return Kept("tensor", value, value.detach().clone())
    if isinstance(value, np.ndarray):
        return Kept("array", value, value.copy())
    if isinstance(value, GENERATORS):
        return Kept("generator", value, _state(value))
    if isinstance(value, CONTAINERS) and depth < 20:  # one may contain itself
        if isinstance(value, dict):
            return Kept("container", value, {k: keep(v, depth + 1) for k, v in value.items()})
        if isinstance(value, SETS):
            return Kept("container", value, set(value))
        return Kept("container", value, [keep(entry, depth + 1) for entry in value])
    if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
        return Kept("iterator", value, None)
    return Kept("object", value, None)


def encode(kept: Kept) -> Any:
    r"""A value as numbers, strings, tensors and lists, which a checkpoint may hold.

    Raises:
        ValueError, TypeError: It is none that these can say.
    """
    value, content = kept.value, kept.content
    if kept.kind == "tensor":
        return content
    if kept.kind == "array" or isinstance(value, np.generic):
        return ["array" if kept.kind == "array" else "scalar", torch.tensor(content)]
    if kept.kind == "plain" and type(value) in (bool, int, float, complex, str, type(None)):
        return ["complex", value.real, value.imag] if type(value) is complex else value
    if kept.kind == "generator":
        return ["generator", encode(keep(content))]
    if kept.kind == "object":
        return ["object"]  # the one that is there
    if kept.kind != "container":
        raise ValueError("no number, string, list or tensor")
    if isinstance(value, dict):
        return ["dict", [[encode(keep(k)), encode(v)] for k, v in content.items()]]
    entries = map(keep, content) if isinstance(value, SETS) else content
    name = next(c.__name__ for c in CONTAINERS if isinstance(value, c))
    return [name, [encode(entry) for entry in entries]]


def decode(saved: Any, now: Any, device: torch.device | str) -> Any:
    r"""The value that was saved.

    Arguments:
        saved: What :func:`encode` wrote.
        now: The value that is there now, which is filled in where it is of the same kind.
        device: The device of tensors that are new.

    Raises:
        LookupError: An object that is to be there is not.
    """
    if isinstance(saved, Tensor):
        if not isinstance(now, Tensor) or (now.shape, now.dtype) != (saved.shape, saved.dtype):
            return saved.to(device)
        return Kept("tensor", now, saved.to(now.device)).restore()
    if not isinstance(saved, list):
        return saved
    kind, *parts = saved
    if kind == "complex":
        return complex(*parts)
    if kind == "scalar":
        return parts[0].numpy()[()]
    if kind == "array":
        array = parts[0].numpy()
        fits = isinstance(now, np.ndarray) and (now.shape, now.dtype) == (array.shape, array.dtype)
        return Kept("array", now if fits else array, array).restore()
    if kind in ("object", "generator"):
        if now is None:
            raise LookupError("nothing is there")
        if kind == "generator":
            _set_state(now, decode(parts[0], None, "cpu"))
        return now
    make = next(c for c in CONTAINERS if c.__name__ == kind)
    fits = isinstance(now, make)
    if make is dict:
        pairs = [(decode(key, None, device), value) for key, value in parts[0]]
        there = now if fits else {}
        entries: Any = {k: decode(value, there.get(k), device) for k, value in pairs}
    else:
        there = list(now) if fits and make not in SETS else []
        there += [None] * len(parts[0])
        entries = [decode(one, old, device) for one, old in zip(parts[0], there, strict=False)]
    if fits and make not in (tuple, frozenset):
        return _refill(now, entries)
    return make(entries)


def _entries(content: Any) -> list[Kept]:
    return list(content.values()) if isinstance(content, dict) else content


def _refill(value: Any, entries: Any) -> Any:
    if isinstance(value, list):
        value[:] = entries
    elif isinstance(value, dict) or (isinstance(value, set) and value != entries):
        value.clear()
        value.update(entries)
    elif isinstance(value, deque):
        value.clear()
        value.extend(entries)
    return value


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state  # a new dictionary each time
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and bool(((one == other) | ((one != one) & (other != other))).all())
    if isinstance(one, (np.ndarray, np.generic)):
        one, other = np.asarray(one), np.asarray(other)
        floats = one.dtype.kind in "fc"
        return one.dtype == other.dtype and bool(np.array_equal(one, other, equal_nan=floats))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other or (one != one and other != other))
