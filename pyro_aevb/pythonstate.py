r"""What a pair's code keeps in Python beside its parameters: counters, temperatures, generators.

A captured step repeats tensor operations and nothing else, so a step that changes such a value runs
eagerly; a checkpoint holds the values that training has changed; and runs that only try something
leave them as they were.

Seen are the attributes of the pair's modules, of the object that it was made of and of objects of
the user's own classes in them, the names of a file of two functions, and what these functions take
from around them. Not seen are values that a library keeps, iterators, files, and the clock.
"""

import copy
import inspect
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MACHINERY = {*vars(nn.Module()), "_store", "_callables", "_origin"}
r"""Attributes that every module has, which are not the user's."""
LIBRARIES = {"torch", "pyro", "numpy", "scipy", "builtins", "collections", "functools", "types"}
BUFFERS = "_buffers."
r"""Of these it matters here to which tensor a name is bound; checkpoints hold them already."""
DEPTH = 3
r"""How deep objects in attributes are looked into."""

Owner = tuple[str, MutableMapping[str, Any], Iterable[str]]
r"""Where values are kept: a name for it, the values by name, and which of them to look at."""


@dataclass(frozen=True)
class Kept:
    r"""A value as it was read: `plain`, a random `generator`, a `tensor` or an `object`."""

    kind: str
    value: Any
    r"""The object itself, where it is one."""
    copy: Any
    r"""What it held."""

    def same(self, other: "Kept | None") -> bool:
        r"""Whether both hold the same."""
        if other is None or self.kind != other.kind:
            return False
        if self.kind == "object":
            return self.value is other.value and self.copy == other.copy
        return _equal(self.copy, other.copy)


Reading = dict[str, Kept]


class PythonState:
    r"""The Python values of a pair.

    Arguments:
        modules: The pair's modules.
        origin: What the pair was made of: an object, a file's module, or a tuple of functions.
        functions: Its model and its guide.
    """

    def __init__(self, modules: nn.Module, origin: Any, functions: Iterable[Callable[..., Any]]):
        self.modules, self.origin, self.functions = modules, origin, tuple(functions)

    def read(self) -> Reading:
        r"""Every value as it is now, by a name that says where it is."""
        found: Reading = {}
        for label, values, names in self._owners():
            for name in list(names):
                if name in values:
                    found[f"{label}{name}"] = _kept(values[name])
        return found

    def put(self, reading: Mapping[str, Kept]) -> None:
        r"""Make every value what it was; attributes that have come since go, objects apart."""
        for label, values, names in list(self._owners()):
            for name in list(names):
                kept, now = reading.get(f"{label}{name}"), _kept(values[name])
                if kept is not None and label.endswith(BUFFERS):
                    values[name] = kept.value
                elif kept is not None and (now.value is not kept.value or not kept.same(now)):
                    values[name] = _restored(kept)
                elif kept is None and now.kind != "object" and type(values) is dict:
                    del values[name]  # so that a class attribute shows again

    def saved(self, since: Mapping[str, Kept]) -> tuple[dict[str, Any], list[str]]:
        r"""What has changed, for a checkpoint.

        Arguments:
            since: An earlier reading.

        Returns:
            By name ``[kind, value]`` of what plain values and tensors can say, and the names of
            what they cannot.
        """
        held: dict[str, Any] = {}
        lost = []
        for name, kept in self.read().items():
            if BUFFERS in name or kept.same(since.get(name)):
                continue
            if kept.kind == "tensor" or (kept.kind != "object" and _savable(kept.copy)):
                held[name] = [kept.kind, kept.copy]
            elif name in since:
                lost.append(name)
        return held, lost

    def load(self, held: Mapping[str, Any], device: torch.device | str) -> None:
        r"""Take over what :meth:`saved` returned; what has no place any longer is left out."""
        for label, values, _ in list(self._owners()):
            for place, (kind, value) in held.items():
                name = place.removeprefix(label)
                if not place.startswith(label) or not name.isidentifier():
                    continue
                value = value.to(device) if kind == "tensor" else value
                target = value if kind == "tensor" else values.get(name)
                if kind != "generator" or target is not None:
                    values[name] = _restored(Kept(kind, target, value))

    def _owners(self) -> Iterator[Owner]:
        seen: set[int] = set()
        for name, module in self.modules.named_modules():
            yield from _attributes(f"{name}." if name else "", module, seen, 0)
        if isinstance(self.origin, ModuleType):
            plain = [n for n, v in vars(self.origin).items() if n[:2] != "__" and _is_value(v)]
            yield "", vars(self.origin), plain
        elif not isinstance(self.origin, (nn.Module, tuple, type(None))):
            yield from _attributes("", self.origin, seen, 0)
        for function in self.functions:
            yield from _around(function, seen)


@contextmanager
def untouched(python: PythonState, devices: Iterable[torch.device] = ()) -> Iterator[None]:
    r"""Leave Python values and all random numbers, Python's and NumPy's too, as they were.

    Arguments:
        python: Of the pair that is tried.
        devices: GPUs whose random numbers are meant too.
    """
    before, numbers, legacy = python.read(), random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([d for d in devices if d.type == "cuda"]):
            yield
    finally:
        python.put(before)
        random.setstate(numbers)
        np.random.set_state(legacy)


def _attributes(label: str, owner: Any, seen: set[int], depth: int) -> Iterator[Owner]:
    r"""What an object keeps itself, then the objects that it holds."""
    if id(owner) in seen or not hasattr(owner, "__dict__"):
        return
    seen.add(id(owner))
    module = isinstance(owner, nn.Module)
    values = vars(owner)
    # A library's modules keep caches of their own.
    foreign = _home(owner) in LIBRARIES
    yield (
        label,
        values,
        [
            name
            for name, value in values.items()
            if not (module and name in MACHINERY)
            if not (foreign and (name.startswith("_") or not _is_value(value)))
        ],
    )
    if module:
        yield f"{label}{BUFFERS}", owner._buffers, owner._buffers
    if depth == DEPTH:
        return
    for name, value in list(values.items()):
        if not (module and name in MACHINERY) and _is_own(value):
            yield from _attributes(f"{label}{name}.", value, seen, depth + 1)


def _around(function: Any, seen: set[int]) -> Iterator[Owner]:
    r"""What a function takes from around it: variables of a closure, and global names."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    label = f"{function.__qualname__}: "
    cells = _Cells(function)
    yield label, cells, cells
    names = function.__code__.co_names
    yield label, function.__globals__, [n for n in names if _is_value(function.__globals__.get(n))]
    for value in list(cells.values()):
        if isinstance(value, FunctionType):
            yield from _around(value, seen)
        elif _is_own(value):
            yield from _attributes(label, value, seen, 1)


class _Cells(dict[str, Any]):
    r"""The variables of a closure by name; what is set here is set there."""

    def __init__(self, function: FunctionType) -> None:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self.cells = {}
        for name, cell in cells:
            try:
                self[name] = cell.cell_contents
            except ValueError:  # not set yet
                continue
            self.cells[name] = cell

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if name in getattr(self, "cells", {}):
            self.cells[name].cell_contents = value


def _kept(value: Any) -> Kept:
    if isinstance(value, Tensor):
        return Kept("tensor", value, value.detach().clone())
    if isinstance(value, (random.Random, np.random.Generator, torch.Generator)):
        return Kept("generator", value, _state(value))
    if _is_plain(value):
        return Kept("plain", None, copy.deepcopy(value))
    return Kept("object", value, len(value) if isinstance(value, (list, dict, set, deque)) else 0)


def _restored(kept: Kept) -> Any:
    if kept.kind == "tensor":
        with torch.no_grad():
            if kept.value is not kept.copy:
                kept.value.copy_(kept.copy)
    elif kept.kind == "generator":
        _set_state(kept.value, kept.copy)
    return copy.deepcopy(kept.copy) if kept.kind == "plain" else kept.value


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _is_value(value: Any) -> bool:
    return value is not None and _kept(value).kind != "object"


def _is_own(value: Any) -> bool:
    r"""Whether an object is of a class that a user may have written."""
    if isinstance(value, (type, ModuleType, FunctionType, nn.Module, Tensor)) or callable(value):
        return False
    return hasattr(value, "__dict__") and _home(value) not in LIBRARIES


def _home(value: Any) -> str:
    r"""The package of a value's class."""
    return type(value).__module__.partition(".")[0]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    simple = (bool, int, float, complex, str, bytes, np.generic, np.ndarray, type(None))
    return isinstance(value, simple)


def _savable(value: Any) -> bool:
    r"""Whether a checkpoint, which is read without executing anything, can hold it."""
    if isinstance(value, (list, tuple)):
        return all(map(_savable, value))
    if type(value) is dict:
        return all(map(_savable, (*value, *value.values())))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, Tensor)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        return both and a.dtype == b.dtype and a.shape == b.shape and _bits_equal(a, b)
    if isinstance(a, (np.ndarray, np.generic)) or isinstance(b, (np.ndarray, np.generic)):
        return bool(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind in "fc"))
    if isinstance(a, (list, tuple, deque)) and type(a) is type(b):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return bool(type(a) is type(b) and (a == b or (a != a and b != b)))


def _bits_equal(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())
