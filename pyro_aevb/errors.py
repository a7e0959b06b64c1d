"""The one error a user's mistake raises, and what is said of the commonest mistakes."""

import difflib
import math
from collections.abc import Collection, Iterable
from types import UnionType
from typing import get_args, get_origin


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
    near = difflib.get_close_matches(str(name), list(known), 1, least)
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
        raise UsageError(f"{option}={value!r} is unknown; choose one of {', '.join(accepted)}")


def at_least_one(option: str, value: int | None) -> None:
    r"""Raise a :class:`UsageError` where a number is given and is below 1."""
    if value is not None and value < 1:
        raise UsageError(f"{option} is {value}; it must be at least 1")


KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    dict: "names with their values, as {rate: 0.1}",
}


def of_kind(option: str, value: object, kind: object) -> None:
    r"""Raise a :class:`UsageError` unless a value is of the kind that a signature states.

    Arguments:
        option: What to call it.
        value: The value.
        kind: A type such as ``int``, ``float | None`` or ``dict[str, Any]``; of others anything
            goes.
    """
    accepted = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if not all(isinstance(get_origin(one) or one, type) for one in accepted):
        return
    types = [get_origin(one) or one for one in accepted]
    if isinstance(value, bool):
        fits = bool in types
    else:
        fits = isinstance(value, tuple(types)) or (float in types and isinstance(value, int))
    if not fits:
        wanted = [KINDS.get(one, one.__name__) for one in types if one is not type(None)]
        raise UsageError(f"{option} is {value!r}; it takes {' or '.join(wanted)}")


def above_zero(option: str, value: float) -> None:
    r"""Raise a :class:`UsageError` unless a number is finite and above 0."""
    if not 0 < value < math.inf:
        raise UsageError(f"{option}={value} is not possible; give a number above 0")
