"""The one error a user's mistake raises, and what is said of the commonest mistakes."""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


class UsageError(ValueError):
    """A mistake in how the package is used, said in one line that names the thing and the remedy.

    The commands print it as it is and leave with exit status 2.
    """


def one_line(error: BaseException) -> str:
    r"""What an error says, in one line of at most 300 characters, without Pyro's list of shapes."""
    said = " ".join(str(error).partition("Trace Shapes:")[0].split())
    return said if len(said) < 300 else said[:300] + " …"


def hint(
    name: object, known: Iterable[str], said: str = " (did you mean {!r}?)", least: float = 0.6
) -> str:
    r"""What to add to a line about an unknown name: the nearest known one, or nothing.

    Arguments:
        name: The unknown name.
        known: The names that there are.
        said: The words, with a place for the nearest name.
        least: How like the name the nearest one must be, from 0 to 1.
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names, 1, least)
    if not near:  # one that differs by capitals alone, or by these too
        folded = {name.casefold(): name for name in map(str, names)}
        close = difflib.get_close_matches(str(name).casefold(), folded, 1, least)
        near = [folded[found] for found in close]
    return said.format(near[0]) if near else ""


def unknown(kind: str, name: object, known: Collection[str]) -> UsageError:
    r"""The error of a name that nothing has: ``no KIND NAME (did you mean 'X'?); use A, B``.

    Arguments:
        kind: What the name should be one of, such as "estimator".
        name: The unknown name.
        known: The names that there are.
    """
    return UsageError(f"no {kind} {name!r}{hint(name, known)}; use {', '.join(known)}")


def one_of(option: str, value: object, accepted: Collection[str]) -> None:
    r"""Raise a :class:`UsageError` unless a value is one of the accepted."""
    if value not in accepted:
        choices = ", ".join(accepted) + hint(value, accepted)
        raise UsageError(f"{option}={value!r} is unknown; choose one of {choices}")


def at_least_one(option: str, value: int | None) -> None:
    r"""Raise a :class:`UsageError` where a number is given and is below 1."""
    if value is not None and value < 1:
        raise UsageError(f"{option} is {value}; it must be at least 1")


KINDS: dict[Any, tuple[Any, str, str]] = {
    int: (Integral, "a whole number", "whole numbers"),
    float: (Real, "a number", "numbers"),
    bool: (bool, "true or false", "true or false"),
    str: (str, "a word", "words"),
    dict: (Mapping, "names with their values, as {rate: 0.1}", "names with their values"),
    Mapping: (Mapping, "names with their values, as {rate: 0.1}", "names with their values"),
    NoneType: (NoneType, "nothing", "nothing"),
}
r"""What values a type in a signature accepts, and what one of them and several are called."""


def of_kind(option: str, value: object, kind: object) -> None:
    r"""Raise a :class:`UsageError` unless a value is of the kind that a signature states.

    Arguments:
        option: What to call it.
        value: The value.
        kind: A type such as ``int``, ``float | None``, ``dict[str, Any]``, ``Sequence[int]`` or
            ``Literal["a", "b"]``; of others anything goes.
    """
    if _fits(value, kind):
        return
    literals = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
    if literals and isinstance(value, str):
        one_of(option, value, [word for part in literals for word in get_args(part)])
    raise UsageError(f"{option} is {value!r}; it takes {_called(kind)}")


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin in (list, tuple, Sequence):
        # Arrays and sizes are lists here, too; words are none of letters.
        listed = isinstance(value, Collection) and not isinstance(value, (str, Mapping))
        alike = parts and (origin is not tuple or parts[-1] is ...)
        return listed and (not alike or all(_fits(one, parts[0]) for one in value))
    if not isinstance(origin, type) or origin not in KINDS:
        return True
    if isinstance(value, bool):  # which Python counts among the whole numbers
        return origin is bool
    return isinstance(value, KINDS[origin][0])


def _called(kind: Any) -> str:
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_called(part) for part in parts if part is not NoneType)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (list, tuple, Sequence):
        return f"a list of {KINDS[parts[0]][2]}" if parts and parts[0] in KINDS else "a list"
    return KINDS[origin][1] if origin in KINDS else getattr(origin, "__name__", str(origin))


def above_zero(option: str, value: float) -> None:
    r"""Raise a :class:`UsageError` unless a number is finite and above 0."""
    if not 0 < value < math.inf:
        raise UsageError(f"{option}={value} is not possible; give a number above 0")
