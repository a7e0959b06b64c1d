r"""Where a name belongs that a command does not take itself: to the pair, or among some options."""

import inspect
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from pyro_aevb.errors import UsageError, hint


def place_of(
    name: str, takes: Collection[str], given: Mapping[str, Any]
) -> tuple[str, str, bool] | None:
    r"""The argument of a command that a name is given in.

    Arguments:
        name: What the command does not take itself.
        takes: What it takes.
        given: What is given of these, or is their default where that is known: the pair, the
            algorithm and so on decide what there is to choose from.

    Returns:
        The argument, such as ``pair_parameters`` or ``optimizer_options``; what the name is called
        in there; and whether that is the name, not the nearest one. None where nothing is near.
    """
    known: dict[str, str] = {}
    for argument, options in OPTIONS.items():
        if argument in takes:
            # What is chosen may be a mistake too, but it is not the one that is told of.
            with suppress(UsageError, AttributeError, TypeError):
                known = {option: argument for option in options(given)} | known
    if name in known:
        return known[name], name, True
    nearest = "" if hint(name, takes) else hint(name, known, "{}")
    return (known[nearest], nearest, False) if nearest else None


def whose(argument: str) -> str:
    r"""What a name in an argument is, such as "an option of the optimizer"."""
    if argument == "pair_parameters":
        return "a parameter of the pair"
    return f"an option of the {argument.removesuffix('_options')}"


def _pair(given: Mapping[str, Any]) -> Iterable[str]:
    from pyro_aevb.pairs.locate import constructor, settable

    make = constructor(given["pair"]) if given.get("pair") is not None else None
    return [] if make is None else settable(make)


def _algorithm(given: Mapping[str, Any]) -> Iterable[str]:
    from pyro_aevb.pairs.locate import constructor
    from pyro_aevb.training.algorithm import options_of

    name = given.get("algorithm")
    if name is None and given.get("pair") is not None:
        name = getattr(constructor(given["pair"]) or given["pair"], "algorithm", None)
    return [] if name is None else options_of(name)


def _objective(given: Mapping[str, Any]) -> Iterable[str]:
    from pyro_aevb.training.objectives import OBJECTIVES

    if given.get("objective") not in OBJECTIVES:
        return []
    file, _, kind = OBJECTIVES[given["objective"]][0].partition(":")
    return _parameters(getattr(import_module(f"pyro_aevb.training.objectives.{file}"), kind))


def _optimizer(given: Mapping[str, Any]) -> Iterable[str]:
    from pyro_aevb.training.optimizers import optimizer_class

    return _parameters(optimizer_class(given["optimizer"]))[1:] if "optimizer" in given else []


def _schedule(given: Mapping[str, Any]) -> Iterable[str]:
    from torch.optim import lr_scheduler

    own = {"constant": [], "cosine": ["final"], "iwae": ["scale"]}
    name = given.get("schedule", "constant")
    return own[name] if name in own else _parameters(getattr(lr_scheduler, name))[1:]


def _corruption(given: Mapping[str, Any]) -> Iterable[str]:
    from pyro_aevb.data.corruption import KINDS

    name = given.get("corruption")
    return _parameters(KINDS[name]) if isinstance(name, str) and name in KINDS else []


def _estimator(given: Mapping[str, Any]) -> Iterable[str]:
    from pyro_aevb.reports.estimation import choose, find

    return choose(find(given["estimator"]), None) if "estimator" in given else []


OPTIONS = {
    "pair_parameters": _pair,
    "algorithm_options": _algorithm,
    "objective_options": _objective,
    "optimizer_options": _optimizer,
    "schedule_options": _schedule,
    "corruption_options": _corruption,
    "estimator_options": _estimator,
}
r"""By the argument that holds some options, what tells their names from what is given."""


def _parameters(make: Any) -> list[str]:
    return list(inspect.signature(make).parameters)
