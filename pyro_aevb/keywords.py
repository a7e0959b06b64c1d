r"""A call from Python whose keywords and their kinds are looked at before any work, as a command's
flags are."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from numbers import Number
from typing import Any, ParamSpec, TypeVar

from pyro_aevb.errors import UsageError, hint, of_kind
from pyro_aevb.places import place_of, whose

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
            bound = signature.bind_partial(*args, **{k: kwargs[k] for k in kwargs if k in known})
            bound.apply_defaults()
            raise _refused(
                function.__name__, unknown[0], kwargs[unknown[0]], known, bound.arguments
            )
        args = tuple(map(of_python, args))  # type: ignore[assignment]
        kwargs = {name: of_python(value) for name, value in kwargs.items()}  # type: ignore[assignment]
        for name, value in signature.bind_partial(*args, **kwargs).arguments.items():
            if isinstance(value, (str, Number)) and value is not known[name].default:
                of_kind(f"--{name.replace('_', '-')}", value, known[name].annotation)
        return function(*args, **kwargs)

    return call


def of_python(value: Any) -> Any:
    r"""A number or a word of NumPy as Python's, since torch takes no others; the rest as it is."""
    of_numpy = type(value).__module__ == "numpy" and hasattr(value, "item")
    scalar = of_numpy and not hasattr(value, "__array_finalize__")  # which arrays have
    return value.item() if scalar else value


def _refused(
    function: str, name: str, value: Any, known: Collection[str], given: Mapping[str, Any]
) -> UsageError:
    place = place_of(name, known, given)
    if place is None:
        near = hint(name, known) or "; it has " + ", ".join(known)
        return UsageError(f"{function} has no argument {name!r}{near}")
    argument, option, _ = place
    said = f"{value!r}" if isinstance(value, (str, int, float, list, tuple)) else "..."
    return UsageError(
        f"{function} has no argument {name!r}; {option!r} is {whose(argument)}: give "
        f"{argument}={{{option!r}: {said}}}"
    )
