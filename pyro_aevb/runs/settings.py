r"""The settings of a run: their kinds, and a file of them read as plain values and nothing else."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pyro_aevb.errors import UsageError, of_kind

CALL = frozenset(("stop_after", "resume", "trust", "show", "verbose", "no_score", "on_epoch"))
r"""Settings of one call of ``fit``, which a run does not keep."""
PLACES = frozenset(("device", "threads", "data_root", "out", "tensorboard"))
r"""Settings that say where a run is made and kept; a resumed run may change them."""
SCORING = frozenset(("num_samples", "weight_samples", "proposal", "num_data", "memory", "compile"))
r"""Settings that say how a trained pair is scored, or how fast; a resumed run may change them."""

MOST = 100_000
r"""Values that settings may hold."""
NOWHERE = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
r"""Characters in no name of a file; the other surrogates stand for bytes that are no text."""


class _Plain(yaml.SafeLoader):
    r"""YAML without objects, where ``1e-3`` is a number and ``2020-01-01`` a name."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in found if not tag.endswith(("timestamp", "float"))]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Plain.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?$|"
        r"[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


class _PlainDumper(yaml.SafeDumper):
    r"""Writes words that :class:`_Plain` would read as numbers, such as ``1e-3``, in quotes."""

    yaml_implicit_resolvers = _Plain.yaml_implicit_resolvers


def written_settings(settings: Mapping[str, Any]) -> str:
    r"""Settings as :func:`read_settings` reads them."""
    text: str = yaml.dump(dict(settings), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)
    return text


def read_settings(path: str | Path) -> dict[str, Any]:
    r"""The settings in a YAML file by name; nothing that it names is imported or made.

    Raises:
        UsageError: It is not YAML, or anything but names with plain values.
    """
    try:
        settings = yaml.load(Path(path).read_text("utf-8"), _Plain)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not readable YAML") from error
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise UsageError(f"{path} does not hold settings, a name and a value on each line")
    if _too_many(settings):
        raise UsageError(f"{path} does not hold settings: they have more than {MOST:,} values")
    for name, value in settings.items():
        if isinstance(value, str) and NOWHERE.search(value):
            raise UsageError(f"{path}: {name} holds a character that no name of a file has")
    return settings


def check_settings(path: str | Path, settings: dict[str, Any]) -> None:
    r"""Raise a UsageError where a run's setting is of another kind than ``fit`` takes.

    A Python object, which a file cannot hold, is there by its name in angle brackets.
    """
    from pyro_aevb.fit import fit  # whose signature alone says what settings may be

    for name, parameter in inspect.signature(fit).parameters.items():
        value, kind = settings.get(name), parameter.annotation
        if value is None or name in PLACES or str(value).startswith("<"):
            continue  # places are read by nobody, or looked up
        number = isinstance(value, (int, float)) and abs(value) < 2**63
        if kind in (int, bool) and number and value == kind(value):
            value = kind(value)  # as an earlier version took them
        of_kind(f"{path}: {name}", value, kind)


def _too_many(settings: dict[str, Any]) -> bool:
    r"""Whether there are more values than :data:`MOST`, those that YAML names again counted again:
    a few lines of it stand for more than there is memory."""
    waiting: list[Any] = [settings]
    for _ in range(MOST):
        if not waiting:
            return False
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            if len(waiting) + len(value) > MOST:
                return True
            waiting += value.values() if isinstance(value, dict) else value
    return True
