r"""What a study's declaration is checked for, before anything is trained."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from pyro_aevb.errors import UsageError, hint
from pyro_aevb.runs.settings import CALL, PLACES

OF_STUDY = {"seed", "run", *(PLACES - {"tensorboard"}), *(CALL - {"trust"})}
r"""Settings of :func:`pyro_aevb.fit` and :func:`pyro_aevb.evaluate` that the study sets."""


@contextmanager
def naming(what: str) -> Iterator[None]:
    r"""Say before a mistake that is found inside which part of the study it is in."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from error


def check_kinds(declared: Any, kind: Any, *names: str) -> None:
    r"""Refuse parts of a declaration that are of another kind than they should be."""
    for name in names:
        given = getattr(declared, name)
        if not isinstance(given, kind) or (kind is Sequence and isinstance(given, str)):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wanted = {str: "text", Mapping: "a mapping", Sequence: "a list", bool: "true or false"}
            said = " or ".join(wanted.get(k, k.__name__) for k in kinds if k is not type(None))
            what = type(declared).__name__
            raise UsageError(f"{name} of a {what} is {given!r}; it should be {said}")


def check_whole(what: str, given: Any, least: int) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < least:
        raise UsageError(f"{what} is {given!r}; it should be a whole number of at least {least}")


def check_in(names: Iterable[str], what: str, *given: str | None) -> None:
    for name in given:
        if name is not None and name not in names:
            raise UsageError(f"its grid has no {what} {name!r}")


def check_settings(settings: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    r"""Refuse settings that :func:`pyro_aevb.fit` and :func:`pyro_aevb.evaluate` do not have."""
    import pyro_aevb
    from pyro_aevb.studies.work import called

    make = called(settings)
    calls: list[tuple[Callable[..., Any], Mapping[str, Any]]] = [
        (make, {name: value for name, value in settings.items() if name != "by"}),
        *((pyro_aevb.evaluate, scoring) for scoring in scores.values()),
    ]
    for function, given in calls:
        try:
            json.dumps(given)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"settings are kept as JSON, and {error}; name a pair or a function by its file, "
                "as in file.py:Name"
            ) from error
        takes = dict(signature(function).parameters)
        if any(p.kind is p.VAR_KEYWORD for p in takes.values()):  # called as fit is
            takes = {**signature(pyro_aevb.fit).parameters, **takes}
        known = [name for name in takes if name not in OF_STUDY]
        for name in given:
            if name in OF_STUDY and (name != "seed" or function is make):
                raise UsageError(f"{name!r} is not a cell's: the study sets it")
            if name not in (*known, "seed"):
                near = hint(name, known, "; did you mean {!r}?")
                raise UsageError(f"{_title(function)} has no setting {name!r}{near}")


def _title(function: Callable[..., Any]) -> str:
    home = function.__module__
    return (
        function.__name__
        if home.startswith("pyro_aevb.studies")
        else f"pyro_aevb.{function.__name__}"
    )


def check_found(settings: Mapping[str, Any], before: set[Any]) -> None:
    r"""Refuse a pair or a data set that there is not, and parameters that the pair does not have.

    Arguments:
        settings: The settings of a cell.
        before: The pairs and data sets found for other cells, which are not looked for again; it
            grows.
    """
    import pyro_aevb
    from pyro_aevb.data.sets import check_name
    from pyro_aevb.pairs.locate import check_parameters

    defaults = signature(pyro_aevb.fit).parameters
    pair, data = (settings.get(name, defaults[name].default) for name in ("pair", "data"))
    named = tuple(settings.get("pair_parameters") or ())
    if "by" not in settings and (pair, named) not in before:
        check_parameters(pair, named)
    if data not in before:
        check_name(str(data))
    before |= {(pair, named), data}


def check_once(what: str, names: Sequence[str], files: Sequence[str]) -> None:
    r"""Refuse two parts of a study whose files have one name; some file systems ignore case."""
    taken: dict[str, str] = {}
    for name, file in zip(names, files, strict=True):
        if file.lower() in taken:
            both = " and ".join(repr(n) for n in dict.fromkeys((taken[file.lower()], name)))
            raise UsageError(f"two {what} of a study are called {both}; they need different names")
        taken[file.lower()] = name
