r"""Settings in which runs differ, and runs that differ in nothing but their seed."""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pyro_aevb import models
from pyro_aevb.errors import UsageError, hint
from pyro_aevb.pairs.locate import constructor_parameters, settable
from pyro_aevb.runs.run import Run
from pyro_aevb.runs.settings import PLACES, SCORING

NOT_TRAINING = {"seed", *SCORING, *PLACES}
r"""Settings in which runs may differ and still be repetitions of one training."""
DEFAULT, ABSENT = "default", "(none)"
r"""What stands for a setting that a run left to its pair or data, and for one that its pair does
not have."""


def settings_of(run: Run) -> dict[str, Any]:
    r"""The settings of a run's training, by the names of their flags.

    Parameters of the pair are ``pair.NAME``, and entries of options ``lr`` beside
    ``optimizer_options.eps``. What was left to the pair or the data is not there, but for
    parameters of pairs of the package, which have the defaults of their constructors.
    """
    stored = {k: v for k, v in run.settings.items() if k not in NOT_TRAINING}
    parameters, pair = stored.pop("pair_parameters", None), str(stored["pair"])
    found = {"pair": pair}
    if pair in models.MODULES:
        make = getattr(models, pair)
        defaults = {name: constructor_parameters(make)[name].default for name in settable(make)}
        known = {k: v for k, v in defaults.items() if v is not inspect.Parameter.empty}
        parameters = {**known, **(parameters or {})}
    found |= _flat({**stored, "pair": pair, "pair_parameters": parameters or {}})
    return {name: _plain(value) for name, value in found.items()}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    r"""Settings by the names of their flags, entries of options by theirs; None is left out."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        prefix = "pair" if name == "pair_parameters" else name
        entries = value.items() if isinstance(value, Mapping) else [("", value)]
        found |= {".".join(filter(None, (prefix, k))): v for k, v in entries if v is not None}
    return found


def differing(runs: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    r"""For each run the values of the settings in which some of them differ, in one order.

    Parameters that no run was given, whose defaults differ with the pair, are not among them, nor
    those that only some pairs have and that are alike there: the pair says as much. A value is as
    ``settings.yaml`` has it, :data:`DEFAULT` or :data:`ABSENT`; pairs in files are called by the
    names of these.
    """
    found = {name: settings_of(run) for name, run in runs.items()}
    names = list(dict.fromkeys(key for settings in found.values() for key in settings))
    table = {run: {key: _value(key, of) for key in names} for run, of in found.items()}
    given = {key for run in runs.values() for key in _flat(run.settings)}
    apart = [
        key
        for key in names
        if len({_key(row[key]) for row in table.values() if row[key] != ABSENT}) > 1
        and key in given
    ]
    called = {pair: pair.rpartition("/")[2] for pair in {row["pair"] for row in table.values()}}
    if len({*called.values()}) == len(called):
        table = {run: {**row, "pair": called[row["pair"]]} for run, row in table.items()}
    return {run: {key: row[key] for key in apart} for run, row in table.items()}


def repetitions(runs: Mapping[str, Run]) -> list[list[str]]:
    r"""Runs in groups that differ in nothing but the seed of their training; of one run, too."""
    groups: dict[str, list[str]] = {}
    for name, run in runs.items():
        groups.setdefault(_key(sorted(settings_of(run).items())), []).append(name)
    return [*groups.values()]


def find(by: str, runs: Mapping[str, Run]) -> str:
    r"""The name of a setting in which runs differ, given as its flag is.

    Raises:
        UsageError: They have no such setting, or do not differ in it.
    """
    apart = [*next(iter(differing(runs).values()))]
    name = by.removeprefix("--").replace("-", "_")
    if name in apart:
        return name
    those = (
        f"; they differ in {', '.join(apart)}" if apart else "; they differ in their seeds alone"
    )
    known = {key for run in runs.values() for key in settings_of(run)}
    if name in known:
        raise UsageError(f"--by {by}: the runs do not differ in it{those}")
    raise UsageError(f"--by {by}: no setting of training is called so{hint(name, known)}{those}")


def written(value: Any) -> str:
    r"""A setting's value as tables and figures show it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return json.dumps(value, separators=(",", ":")) if not isinstance(value, str) else value
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"


def label(settings: Mapping[str, Any]) -> str:
    r"""Settings in one line, as ``lr 0.001, objective iwae``."""
    return ", ".join(f"{name} {written(value)}" for name, value in settings.items())


def sorted_values(values: Sequence[Any]) -> list[Any]:
    r"""The different values of a setting: numbers by size, then others as they come."""
    one_each = list({_key(value): value for value in values}.values())
    numbers = [value for value in one_each if is_number(value)]
    return sorted(numbers) + [value for value in one_each if not is_number(value)]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _value(name: str, settings: Mapping[str, Any]) -> Any:
    absent = name.startswith("pair.") and settings["pair"] in models.MODULES
    return settings.get(name, ABSENT if absent else DEFAULT)


def _plain(value: Any) -> Any:
    r"""A value as a file of settings would hold it."""
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, (str, int, float)) else str(value)


def _key(value: Any) -> str:
    r"""The same for values that are equal, as 1 and 1.0 are."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_key, value))}]"
    return repr(float(value)) if is_number(value) else repr(value)
