r"""From a function's signature to a command: flags, one-line errors, exit statuses."""

import inspect
import io
import json
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser

from pyro_aevb.errors import UsageError, hint
from pyro_aevb.flags import Groups, Help, add_flags, dashed
from pyro_aevb.pairs.consent import require
from pyro_aevb.places import place_of, whose
from pyro_aevb.runs.provenance import called_as
from pyro_aevb.runs.settings import read_settings
from pyro_aevb.threads import given as given_threads

PAIR_FLAG = "--pair."
POSITIONAL = {
    "run": ("RUN", "name a run's directory"),
    "runs": ("RUN RUN ...", "name a run's directory"),
    "name": ("NAME", "name a study, such as bayesian_autoencoders or aevb"),
}
r"""What the usage shows for an argument without a flag, and what is said if it is missing."""

NAMES_CODE: tuple[Literal["pair", "objective"], ...] = ("pair", "objective")
r"""The parameters whose value names code, which is found by importing something."""


def run_command(
    function: Callable[..., Any],
    argv: Sequence[str] | None = None,
    positional: str | None = None,
    hidden: Sequence[str] = (),
    resume_from: Callable[[dict[str, Any]], str | None] | None = None,
    command: str | None = None,
    groups: Groups = MappingProxyType({}),
) -> Any:
    r"""Call a function with flags made from its parameters, then leave.

    ``--batch-size 20`` sets ``batch_size``; ``--pair.NAME VALUE`` sets an entry of
    ``pair_parameters``, typed by the pair's constructor; ``--config FILE`` reads a YAML file of
    parameters, which flags override. What such a file names runs only by consent
    (:mod:`pyro_aevb.pairs.consent`). A mistake prints one line and exits with status 2; Ctrl-C
    exits with 130.

    Arguments:
        function: The function to call, whose docstring explains the flags.
        argv: The words of the command line; by default those of the process.
        positional: The parameter that takes the words without a flag.
        hidden: Parameters that only Python can give.
        resume_from: Finds, given the flags, the settings file that they complete, or None.
        command: The name of the command, if it is not the function's.
        groups: By title, the parameters that ``--help`` shows under it.

    Returns:
        What the function returns.
    """
    name = f"python -m pyro_aevb.{command or function.__name__}"
    arguments: dict[str, Any] = {}
    # All processes that torchrun starts read the same flags; one says what is wrong with them.
    silent = os.environ.get("RANK", "0") != "0"
    if "RANK" in os.environ:  # torch warns of a lost process with a stack trace of its own
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name_of in ("stdout", "stderr"):
        if getattr(sys, name_of) is None:  # closed by whoever called
            setattr(sys, name_of, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # what a terminal cannot show is no reason to end
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        words = list(sys.argv[1:] if argv is None else argv)
        given = _joined(words, function)
        own = [word for word in given if not word.startswith(PAIR_FLAG)]
        arguments, files = _parse(function, own, name, positional, hidden, groups)
        config = resume_from(arguments) if resume_from is not None else None
        if config is not None:
            own = [f"--config={config}", *own]
            arguments, files = _parse(function, own, name, positional, hidden, groups)
        if "threads" in files and given_threads():  # what a file keeps gives way to the environment
            arguments["threads"] = None
        for kind in NAMES_CODE:
            if kind in files:
                require(kind, arguments[kind], files[kind], arguments["trust"])
        flags = [word for word in given if word.startswith(PAIR_FLAG)]
        if flags:
            if arguments.get("pair", "") is None:
                raise UsageError(
                    f"{flags[0].partition('=')[0]} is a parameter of a pair: add --pair"
                )
            if "pair_parameters" not in arguments:
                raise UsageError(f"{name} takes no {flags[0].partition('=')[0]}")
            parameters = dict(arguments["pair_parameters"] or {})
            parameters |= parse_pair_flags(arguments["pair"], flags)
            arguments["pair_parameters"] = parameters
        with warnings.catch_warnings():
            # ArviZ announces its next version on every import; nothing a user can act on here.
            warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
            silent = False
            with called_as(shlex.join([*name.split(), *words])):
                return function(**arguments)
    except UsageError as error:
        _leave("" if silent else " ".join(str(error).split()))
    except OSError as error:
        _leave(f"{error.filename or name}: {error.strerror or error}")
    except MemoryError:
        _leave("there is not enough memory for this; take fewer data, or a smaller net")
    except KeyboardInterrupt as interrupt:
        then = f": {interrupt}" if interrupt.args else ""
        print(f"\ninterrupted{then}", file=sys.stderr)
        sys.exit(130)


def _leave(message: str) -> NoReturn:
    if message:
        print(f"error: {message}", file=sys.stderr)
    else:  # torchrun ends all processes as soon as one has left
        time.sleep(3)
    sys.exit(2)


def _joined(words: list[str], function: Callable[..., Any]) -> list[str]:
    r"""Each flag and its value as one word ``--name=value``, dashes in names made underscores."""
    switches = {
        name for name, p in inspect.signature(function).parameters.items() if p.annotation is bool
    }
    joined: list[str] = []
    i = 0
    while i < len(words):
        word, i = words[i], i + 1
        if not word.startswith("--") or word == "--help":
            joined.append(word)
            continue
        name, equals, value = word.partition("=")
        name = "--" + name[2:].replace("-", "_")
        follows = words[i] if i < len(words) else ""
        if not equals and name[2:] in switches and follows.lower() not in ("true", "false"):
            value, equals = "true", "="
        elif not equals and i < len(words) and not words[i].startswith("--"):
            value, equals, i = words[i], "=", i + 1
        joined.append(name + equals + value)
    return joined


def _parse(
    function: Callable[..., Any],
    words: list[str],
    name: str,
    positional: str | None,
    hidden: Sequence[str],
    groups: Groups,
) -> tuple[dict[str, Any], dict[str, str]]:
    r"""The arguments by name, and by name the file of settings that an argument comes from."""
    parser = _parser(name)
    parser.description = (inspect.getdoc(function) or "").partition("\n\n")[0]
    parameters = inspect.signature(function).parameters
    skipped = set(hidden)
    if "pair_parameters" in parameters:
        parser.epilog = (
            "--pair.NAME VALUE sets a parameter of the pair's constructor, as in "
            "--pair.latent_dim 2; "
            "`python -m pyro_aevb.check --pair PAIR` lists them."
        )
    rest = [word for word in words if not word.startswith("-")]
    flags = [word for word in words if word.startswith("-")]
    if positional is not None:
        skipped.add(positional)
        parser.usage = f"{name} {POSITIONAL[positional][0]} [flags]"
    else:
        parser.usage = f"{name} [flags]"
    if positional is None and rest:
        raise UsageError(f"unexpected argument {rest[0]!r}; see {name} --help")
    parser.add_argument(
        "--config", action="config", metavar="FILE", help="A YAML file of settings."
    )
    add_flags(parser, function, skipped, groups)
    takes = [key for key in parameters if key not in skipped]
    known = [*(f"--{key}" for key in takes), "--config"]
    for word in flags:
        flag, _, value = word.partition("=")
        if flag == "--config" and not os.path.isfile(value):
            raise UsageError(f"no settings file {value!r}: --config takes a YAML file")
        if word.startswith("--") and flag not in (*known, "--help", "--print_config"):
            raise _unknown(name, flag, value, flags, known, parameters)
    configs = [word.partition("=")[2] for word in flags if word.startswith("--config=")]
    flags = [word for word in flags if not word.startswith("--config=")]
    given = {word.partition("=")[0][2:] for word in flags}
    filed: dict[str, tuple[Any, str]] = {}
    for file in configs:
        for key, value in read_settings(file).items():
            if key not in takes or key == "trust":
                near = hint(key, takes)
                raise UsageError(f"{file} has a setting {key!r}, which is not one here{near}")
            if key not in given:
                filed[key] = value, file
    opened: dict[str, Any] = {}
    for key, (value, file) in filed.items():
        # An open value goes past the parser, which would import the `class_path` of one.
        if "typing.Any" in str(parameters[key].annotation):
            opened[key] = _plain(key, parameters[key], value, file)
        else:
            word = value if isinstance(value, str) else json.dumps(value, default=str)
            flags.append(f"--{key}={word}")
    files = {key: file for key, (_, file) in filed.items()}
    namespace = _parsed(parser, flags, files)
    arguments = {key: value for key, value in namespace.items() if key in parameters} | opened
    if positional is not None:
        if not rest:
            raise UsageError(
                f"{POSITIONAL[positional][1]}: {name} {positional.rstrip('s').upper()}"
            )
        arguments[positional] = rest
    return arguments, files


def _unknown(
    command: str,
    flag: str,
    value: str,
    flags: Sequence[str],
    known: Sequence[str],
    parameters: Mapping[str, inspect.Parameter],
) -> UsageError:
    r"""The error of an unknown flag, which names where it belongs, or the nearest one."""
    given = {word.partition("=")[0][2:]: word.partition("=")[2] for word in flags}
    if not {"config", "resume"} & given.keys():  # else what is not given is in a file
        given = {key: p.default for key, p in parameters.items() if key not in given} | given
    place = place_of(flag[2:], parameters, given)
    said = hint(flag, known, "; did you mean {}?") or f"; see {command} --help"
    if place is not None:
        argument, option, exact = place
        used = f"{PAIR_FLAG}{option} {value}".strip()
        if argument != "pair_parameters":
            used = f"--{argument} '{{{option}: {value}}}'"
        belongs = f"; {option!r} is {whose(argument)}: {dashed(used)}"
        said = belongs if exact else f"; did you mean {dashed(used)}?"
    return UsageError(dashed(f"unknown flag {flag}") + said)


def _plain(key: str, parameter: inspect.Parameter, value: Any, file: str) -> Any:
    r"""A value out of a file of settings that goes past the parser, after a look at its type."""
    kind, takes = (str, "a name") if parameter.annotation is Any else (dict, _kind("dict"))
    if not isinstance(value, kind) and (value is not None or parameter.default is not None):
        raise UsageError(f"{dashed(f'--{key}')} takes {takes}, not {value!r} (with config={file})")
    return value


def _parser(name: str) -> ArgumentParser:
    return ArgumentParser(prog=name, exit_on_error=False, formatter_class=Help)


def _parsed(parser: Any, words: list[str], files: Mapping[str, str] | None = None) -> Any:
    from argparse import ArgumentError

    try:
        return parser.parse_args(words).as_dict()
    except (ArgumentError, TypeError, ValueError, OSError) as error:
        config = [f" (with config={file})" for file in dict.fromkeys((files or {}).values())]
        raise UsageError(_readable(str(error), words) + "".join(config)) from error


def _readable(message: str, words: Sequence[str]) -> str:
    r"""One line out of jsonargparse's several: the flag, what it got and what it takes."""
    key = re.search(r'key "([^"]+)"', message)
    if key is None:
        return " ".join(message.split())
    message = message.replace("typing.", "")
    expected = re.findall(r"Expected an? ([^.\n]+?)(?:\.|\n|$)", message)
    kinds = [_kind(kind) for kind in dict.fromkeys(expected)]
    got = next((w.partition("=")[2] for w in words if w.startswith(f"--{key.group(1)}=")), None)
    takes = " or ".join(kind for kind in kinds if kind) or "another type of value"
    flag = dashed(f"--{key.group(1)}")
    if got is None:
        return f"{flag} takes {takes}"
    choices = [
        word for kind in expected if "Literal" in kind for word in re.findall(r"'(\w+)'", kind)
    ]
    return f"{flag} takes {takes}, not {got!r}{hint(got, choices)}"


def _kind(expected: str) -> str:
    simple = re.sub(r"<class '([\w.]+)'>", r"\1", expected)
    if simple.startswith(("<class 'collections", "list", "Sequence", "tuple")):
        return "a list such as [256,128]"
    if simple.startswith("dict"):
        return "settings such as '{rate: 0.25}', with a blank after each colon"
    choices = re.match(r"Literal\[(.*)\]", simple)
    if choices:
        return choices.group(1).replace("'", "")
    return {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "NoneType": "",
    }.get(simple, simple)


def parse_pair_flags(pair: Any, flags: Sequence[str]) -> dict[str, Any]:
    r"""The values of ``--pair.NAME=VALUE`` flags, typed by the signature of the constructor.

    Raises:
        UsageError: The pair has no such parameter, or it does not take the value.
    """
    from pyro_aevb.pairs.locate import FROM_DATA, constructor, locate, settable, unknown_parameter

    make, (_, title) = constructor(pair), locate(pair, look=True)
    names = [flag[len(PAIR_FLAG) :].partition("=")[0] for flag in flags]
    if make is None:
        raise UsageError(f"{title} is not a class, so it takes no parameters; remove {flags[0]}")
    for name in names:
        if name not in settable(make):
            raise unknown_parameter(title, name, settable(make))
    parser = _parser("pair")
    add = parser.add_class_arguments if isinstance(make, type) else parser.add_function_arguments
    add(make, as_group=False, skip=set(FROM_DATA))
    for action in parser._actions:
        action.required = False
    words = ["--" + flag[len(PAIR_FLAG) :] for flag in flags]
    try:
        namespace = _parsed(parser, words)
    except UsageError as error:
        flag, space, rest = str(error).partition(" ")
        raise UsageError(PAIR_FLAG + flag[2:].replace("-", "_") + space + rest) from error
    return {name: namespace[name] for name in names}
