r"""What ``--help`` shows of a command's flags: groups of them, and a line or two for each."""

import inspect
import re
from argparse import SUPPRESS, Action
from collections.abc import Callable, Collection, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import DefaultHelpFormatter

Groups = Mapping[str, Collection[str]]
r"""The parameters of a command by the title that they stand under; the first title comes first."""

OTHERS = "Others"
r"""The title of parameters that are in no group."""

OF_PYTHON = re.compile(r"[;.]\s+[Ii]n\s+Python\s+(?:also|whatever)\s.*$", re.DOTALL)
r"""The end of a parameter's description that tells what only Python can give."""


class Help(DefaultHelpFormatter):
    r"""Without types: a placeholder for the value, and the default where there is one to tell."""

    def _get_help_string(self, action: Action) -> str:
        said = OF_PYTHON.sub(".", action.help or "").replace("``", "`")
        tells = all(action.default is not silent for silent in (None, False, SUPPRESS))
        return said + (f" Default {_word(action.default)}." if tells else "")

    def _format_action(self, action: Action) -> str:
        return dashed(super()._format_action(action))


def dashed(text: str) -> str:
    r"""A text with dashes in the names of its flags: ``--batch-size`` for ``--batch_size``."""
    return re.sub(r"--[a-z]+(?:_[a-z]+)+", lambda found: found.group().replace("_", "-"), text)


def add_flags(
    parser: Any, function: Callable[..., Any], skip: Collection[str], groups: Groups
) -> None:
    r"""Add a function's parameters to a parser as flags, each under the title of its group.

    Arguments:
        parser: The parser, jsonargparse's.
        function: The function.
        skip: Its parameters that are no flags.
        groups: Their titles. Without any, all are among the parser's options.
    """
    parameters = inspect.signature(function).parameters
    takes = [name for name in parameters if name not in skip]
    rest = set(takes).difference(*groups.values())
    for title, names in {**groups, OTHERS if groups else "": rest}.items():
        if chosen := [name for name in takes if name in names]:
            place = parser.add_argument_group(title) if title else parser
            others = {name for name in parameters if name not in chosen}
            place.add_function_arguments(function, as_group=False, skip=others)
    for action in parser._actions:
        if action.dest in takes:
            _simplify(action, parameters[action.dest])
        elif action.dest == "print_config":
            action.metavar, action.help = "", "Print all settings as YAML for --config, and leave."


def _simplify(action: Any, parameter: inspect.Parameter) -> None:
    kind = parameter.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    if kind is bool:
        action.metavar = "{true,false}" if parameter.default else ""
    elif get_origin(kind) is Literal:
        action.metavar = "{" + ",".join(get_args(kind)) + "}"
    elif kind in (int, float):
        action.metavar = "N" if kind is int else "X"
    elif get_origin(kind) is dict:
        action.metavar = "'{NAME: VALUE}'"
    else:
        action.metavar = action.dest.rpartition("_")[2].upper()


def _word(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)
