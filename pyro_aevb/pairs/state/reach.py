r"""What a user's code can reach and change: where to look for values that it keeps.

A library's objects and functions are passed through where they hold the user's, and not looked at.
"""

import functools
import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from torch import Tensor, nn

from pyro_aevb.pairs.state.kept import CONTAINERS, PLAIN

MACHINERY = set(vars(nn.Module()))
r"""Attributes that every module has, which are not the user's."""
BUFFERS = "_buffers."
r"""The prefix of buffers, which checkpoints hold; what matters here is which tensor has a name."""


@dataclass
class Owner:
    r"""What keeps values by name.

    Arguments:
        label: The text that goes before their names.
        values: Gives the values that there are now, by name.
        takes: Says whether a value of that name would be seen here.
        set: Gives a name a value.
        remove: Takes a name away.
    """

    label: str
    values: Callable[[], dict[str, Any]]
    takes: Callable[[str], bool]
    set: Callable[[str, Any], Any] = lambda *_: None
    remove: Callable[[str], Any] = lambda _: None


def owners(roots: Iterable[tuple[str, Any]]) -> Iterator[Owner]:
    r"""Everything that keeps values, each once, in an order that depends on the code alone."""
    walk = _Walk()
    for label, root in roots:
        yield from walk.visit(label, root)
    for label, names, known in walk.globals.values():
        yield _dictionary(label, names, known)


@dataclass
class _Walk:
    seen: dict[int, Any] = field(default_factory=dict)
    r"""The objects visited, by their identity; held, so that no other object takes it."""
    globals: dict[int, tuple[str, dict[str, Any], set[str]]] = field(default_factory=dict)
    r"""By module a label, its dictionary, and the names there that code uses for values."""

    def visit(self, label: str, value: Any) -> Iterator[Owner]:
        passed = (*PLAIN, Tensor, ModuleType, BuiltinFunctionType)
        if isinstance(value, passed) or id(value) in self.seen:
            return
        if isinstance(value, type):
            yield from self._class(value)
            return
        self.seen[id(value)] = value
        if isinstance(value, CONTAINERS):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, entry in list(items):
                yield from self.visit(f"{label}[{key!r}]", entry)
        elif isinstance(value, nn.Module):
            yield from self._module(label, value)
        elif isinstance(value, FunctionType):
            yield from self._function(label, value)
        elif isinstance(value, MethodType):
            yield from self.visit(label, value.__self__)
            yield from self.visit(label, value.__func__)
        elif isinstance(value, functools.partial):
            yield from self.visit(label, (value.func, value.args, value.keywords))
        elif isinstance(value, (property, functools.cached_property, classmethod, staticmethod)):
            parts = ("fget", "fset", "func", "__func__")
            yield from self.visit(label, [getattr(value, part, None) for part in parts])
        elif hasattr(value, "__wrapped__"):  # such as a cached function
            yield from self.visit(label, value.__wrapped__)
        else:
            yield from self._object(label, value)

    def _module(self, label: str, module: nn.Module) -> Iterator[Owner]:
        if hasattr(module, "_store"):
            return  # a pair itself, whose sources are looked at
        dot = f"{label}." if label else ""
        own = not of_library(type(module).__module__)
        yield _dictionary(dot, vars(module), private=own)  # a library's caches are private
        kept, loose = module._buffers, module._non_persistent_buffers_set
        yield _dictionary(dot + BUFFERS, kept, set(kept) - loose)
        yield _dictionary(f"{dot}buffers.", kept, loose)
        if own:
            yield from self._class(type(module))
        attributes = {k: v for k, v in vars(module).items() if k not in MACHINERY}
        for name, value in (attributes | module._modules).items():
            if not name.startswith("_pyro_"):
                yield from self.visit(dot + name, value)

    def _object(self, label: str, value: Any) -> Iterator[Owner]:
        home = type(value).__module__
        own = isinstance(value, (SimpleNamespace, Namespace)) or not of_library(home)
        if not own and not home.startswith("pyro_aevb."):
            return
        dot = f"{label}." if label else ""
        slots = {name for one in type(value).__mro__ for name in _slots(one)}
        attributes = getattr(value, "__dict__", {})
        if own:
            yield _attributes(dot, value, slots)
            if hasattr(value, "__dict__"):
                yield _dictionary(dot, attributes)
            yield from self._class(type(value))
        for name, entry in (attributes | _some(value, slots)).items():
            yield from self.visit(dot + name, entry)

    def _class(self, kind: type) -> Iterator[Owner]:
        for one in kind.__mro__:
            if id(one) in self.seen or of_library(one.__module__):
                continue
            self.seen[id(one)] = one
            names = {n for n, v in vars(one).items() if _is_value(v) and n[:1] != "_"}
            yield _attributes(f"{one.__qualname__}.", one, names)
            for name, value in list(vars(one).items()):
                if not name.startswith("__") or name == "__call__":
                    yield from self.visit(f"{one.__qualname__}.{name}", value)

    def _function(self, label: str, function: FunctionType) -> Iterator[Owner]:
        cells = _closure(function)
        label = label or function.__qualname__
        at = f"{label}: "
        if not of_library(str(function.__globals__.get("__name__"))):
            yield Owner(
                at,
                lambda: {n: c.cell_contents for n, c in cells.items()},
                cells.__contains__,
                lambda name, value: setattr(cells[name], "cell_contents", value),
            )
            yield _dictionary(f"{label}.", vars(function))
            defaults = _defaults(function)  # what is changed is what they hold: none is bound anew
            yield Owner(at, lambda: defaults, defaults.__contains__)
            names = sorted(_names(function.__code__))
            yield from self._global_names(function.__globals__, names)
        for name, cell in cells.items():
            yield from self.visit(f"{at}{name}", cell.cell_contents)
        yield from self.visit(label, getattr(function, "__wrapped__", None))

    def _global_names(self, home: dict[str, Any], names: list[str]) -> Iterator[Owner]:
        r"""The owners of the globals that code names, in its module and in the user's others."""
        label = f"{home.get('__name__')}: "
        known = self.globals.setdefault(id(home), (label, home, set()))[2]
        for name in names:
            value = home.get(name)
            if isinstance(value, ModuleType):
                if not of_library(value.__name__) and id(value) not in self.seen:
                    self.seen[id(value)] = value
                    yield from self._global_names(vars(value), names)
                continue
            if _is_value(value):
                known.add(name)
            yield from self.visit(name, value)


def _attributes(label: str, value: Any, names: Collection[str]) -> Owner:
    ways = (setattr, delattr)
    if not isinstance(value, type):  # past what a class may do of its own
        ways = (object.__setattr__, object.__delattr__)
    change = (functools.partial(way, value) for way in ways)
    return Owner(label, lambda: _some(value, names), names.__contains__, *change)


def _some(value: Any, names: Collection[str]) -> dict[str, Any]:
    if isinstance(value, type):  # what it has of its own
        return {name: held for name, held in vars(value).items() if name in names}
    return {name: getattr(value, name) for name in sorted(names) if hasattr(value, name)}


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else slots
    return [name for name in names if name[:2] != "__"]


def _dictionary(
    label: str,
    values: dict[str, Any],
    names: Collection[str] | None = None,
    private: bool = True,
) -> Owner:
    r"""What a dictionary keeps by some names, or all but Python's and the machinery's."""

    def takes(name: str) -> bool:
        if names is not None:
            return name in names
        hidden = name.startswith(("__", "_pyro_")) or name in MACHINERY
        return name.isidentifier() and not hidden and (private or name[:1] != "_")

    return Owner(
        label,
        lambda: {n: v for n, v in values.items() if takes(n)},
        takes,
        values.__setitem__,
        values.__delitem__,
    )


def _closure(function: FunctionType) -> dict[str, Any]:
    r"""The cells of a closure by name; one that has not been set holds nothing."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):
            found[name] = (cell, cell.cell_contents)[0]
    return found


def _defaults(function: FunctionType) -> dict[str, Any]:
    code, given = function.__code__, function.__defaults__ or ()
    arguments = code.co_varnames[: code.co_argcount]
    return dict(zip(arguments[len(arguments) - len(given) :], given, strict=True))


def _is_value(value: Any) -> bool:
    r"""Whether a name may be bound to it to keep something: no code."""
    code = (FunctionType, BuiltinFunctionType, ModuleType, type, property, classmethod)
    return not isinstance(value, (*code, staticmethod)) and not hasattr(value, "__get__")


def _names(code: Any) -> set[str]:
    inner = (const for const in code.co_consts if hasattr(const, "co_names"))
    return set(code.co_names).union(*map(_names, inner))


@functools.cache
def of_library(name: str) -> bool:
    r"""Whether a module is one that was installed, not written by the user of this package."""
    top = name.partition(".")[0]
    if top in ("pyro_aevb", "torch", "pyro", "numpy") or top in sys.stdlib_module_names:
        return True
    file = str(getattr(sys.modules.get(name), "__file__", None) or "")
    return "site-packages" in file or "dist-packages" in file
