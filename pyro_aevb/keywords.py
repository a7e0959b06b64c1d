r"""A call from Python whose keywords and their kinds are looked at before any work, as a command's
flags are."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from numbers import Number
from typing import Any, ParamSpec, TypeVar

from pyro_aevb.errors import UsageError, hint, of_kind

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def with_known_keywords(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    r"""The function, which refuses a keyword that it does not have in one line.

    The line names the nearest that it has; of a parameter of the pair's constructor it says where
    that is given. Words and numbers of another kind than the signature states are refused too.

    Raises:
        UsageError: By the function, for such a keyword or value.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        known = signature.parameters
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            given = signature.bind_partial(*args, **{k: kwargs[k] for k in kwargs if k in known})
            pair = given.arguments.get("pair", known["pair"].default if "pair" in known else None)
            takes = _settable(pair) if "pair_parameters" in known else []
            raise _refused(function.__name__, unknown[0], kwargs[unknown[0]], known, takes)
        for name, value in signature.bind_partial(*args, **kwargs).arguments.items():
            if isinstance(value, (str, Number)) and value is not known[name].default:
                of_kind(f"--{name.replace('_', '-')}", value, known[name].annotation)
        return function(*args, **kwargs)

    return call


def _settable(pair: Any) -> list[str]:
    r"""The parameters of a pair's constructor, if it has one and can be found."""
    from pyro_aevb.pairs.locate import constructor, settable

    with suppress(UsageError):
        make = constructor(pair)
        return [] if make is None else settable(make)
    return []


def _refused(
    function: str, name: str, value: Any, known: Collection[str], parameters: Iterable[str]
) -> UsageError:
    of_pair = [name] if name in parameters else []
    near = hint(name, known)
    if not near and not of_pair and (nearest := hint(name, parameters, "{}")):
        of_pair = [nearest]
    if of_pair:
        given = f"{value!r}" if isinstance(value, (str, int, float, list, tuple)) else "..."
        return UsageError(
            f"{function} has no argument {name!r}; {of_pair[0]!r} is a parameter of the pair: give "
            f"pair_parameters={{{of_pair[0]!r}: {given}}}"
        )
    return UsageError(
        f"{function} has no argument {name!r}{near or '; it has ' + ', '.join(known)}"
    )
