r"""What a pair's name stands for, and what its constructor takes."""

import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pyro_aevb.errors import UsageError, hint, of_kind, one_line

if TYPE_CHECKING:
    from pyro_aevb.data.sets import DataSet

FROM_DATA = ("event_shape", "num_data", "data_mean", "num_classes")
r"""Constructor parameters of these names are filled in from the data set, if not given:
the shape of one datum, the number of training data, and their mean (a float tensor)."""

_EXECUTED: dict[Path, tuple[bytes, ModuleType, bool]] = {}
r"""By file that was executed: its content, its module, and whether no pair is made of it yet."""


def locate(source: Any, look: bool = False) -> tuple[Any, str]:
    r"""Find what a pair's name stands for: a class, a function, an instance, a tuple or a module.

    Nothing is called. A file is executed anew for each pair, whose modules it may hold.

    Arguments:
        source: The name; anything else than a string stands for itself.
        look: Whether what is found is only looked at, and no pair is made of it.

    Returns:
        What was found, and the name by which messages call it.

    Raises:
        UsageError: There is none, its import fails, or it belongs to Python or to a library that
            has nothing to do with pairs.
    """
    if not isinstance(source, str):
        name = getattr(source, "name", None) or getattr(source, "__name__", None)
        return source, str(name or type(source).__name__)
    shipped = importlib.import_module("pyro_aevb.models")
    if source in shipped.__all__:
        return getattr(shipped, source), source
    path, attribute = split_source(source)
    if path.endswith(".py"):
        module = _import_file(Path(path), look)
        name = f"{Path(path).stem}:{attribute}" if attribute else Path(path).stem
    else:
        if is_pythons(path):
            raise UsageError(
                f"{source} is not a pair: {path} is part of Python; a pair is a class with `model` "
                "and `guide`, or a function of your own that returns one"
            )
        module, name = _import_path(path, source, shipped.__all__), source
    if not attribute:
        return module, name
    if not hasattr(module, attribute):
        near = hint(attribute, vars(module), "; did you mean {!r}?")
        raise UsageError(f"{path} defines no {attribute!r}{near}")
    found = getattr(module, attribute)
    _refuse_foreign(found, source, path)
    return found, name


def split_source(source: str) -> tuple[str, str]:
    r"""The file or module of a name, and what it names in there; the latter may be empty."""
    path, _, attribute = source.rpartition(":") if ":" in source else (source, "", "")
    if not attribute and "." in path and not path.endswith(".py"):
        path, _, attribute = path.rpartition(".")
    return path, attribute


def source_file(path: str) -> Path | None:
    r"""The file of a module or file that :func:`split_source` finds; None if there is none.

    Nothing is imported. For modules built into Python the path is no file's.
    """
    if path.endswith(".py"):
        return Path(path)
    parts, places, origin = path.split("."), None, None
    for number, part in enumerate(parts, 1):
        name = ".".join(parts[:number])
        found = (finder.find_spec(name, places) for finder in sys.meta_path)
        spec = next((s for s in found if s is not None), None) if part.isidentifier() else None
        if spec is None:
            return None
        places, origin = spec.submodule_search_locations or [], spec.origin
    return None if origin is None else Path(origin)


def is_pythons(path: str) -> bool:
    r"""Whether a module belongs to Python itself; nothing is imported to find out."""
    file = None if path.endswith(".py") else source_file(path)
    return file is not None and _owner(file) == "Python"


def _owner(file: Path) -> str | None:
    r"""Whether a file is of "Python" or of a "library"; None for the user's own."""
    if not {"site-packages", "dist-packages"}.isdisjoint(file.parts):
        return "library"
    folders = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")]
    inside = any(file.resolve().is_relative_to(folder) for folder in folders)
    without = str(file).startswith(("built-in", "frozen", "<frozen "))  # in no file
    return "Python" if inside or without else None


def _refuse_foreign(found: Any, source: str, path: str) -> None:
    r"""Refuse code of Python or of a library that is no pair; the package named may build one."""
    if not _is_constructor(found) or (hasattr(found, "model") and hasattr(found, "guide")):
        return
    home = getattr(found, "__module__", None) or "Python"
    try:
        file = Path(inspect.getfile(inspect.unwrap(found)))
    except (TypeError, OSError, ValueError):  # of no file: written in C, or made in an interpreter
        file = Path("built-in" if home in sys.builtin_module_names else home)
    owner, what = _owner(file), f"{home}.{found.__name__}"
    same_package = home.partition(".")[0] == path.partition(".")[0] and not path.endswith(".py")
    if isinstance(found, type) and owner:
        said = f"the class {what} has no `model` and `guide`"
    elif owner == "Python" or (owner and not same_package):
        said = f"the function is {what}, not one of your own that returns a pair"
    else:
        return
    raise UsageError(f"{source} is not a pair: {said}")


def _import_path(path: str, source: str, shipped: list[str]) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
            raise UsageError(f"--pair {source}: importing {path} failed: {error}") from error
        near = hint(source, shipped, "did you mean {}? ")
        raise UsageError(
            f"no pair {source!r}: {near}shipped pairs are {', '.join(shipped)}; your own are given "
            "as file.py:Name, as file.py with `model` and `guide` in it, or as package.module:Name"
        ) from error
    except Exception as error:  # whatever the user's module does while it is imported
        raise UsageError(_import_failure(path, error)) from error


def _import_file(path: Path, look: bool) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"no file {str(path)!r}: give the path of an existing Python file")
    path = path.resolve()
    content = path.read_bytes()
    before, module, unused = _EXECUTED.get(path, (b"", None, False))
    if module is None or before != content or not (look or unused):
        from pyro_aevb.pairs.state.python import drawn_by, torch_states

        torchs = torch_states()
        module, drawn = drawn_by(lambda: _execute(path, content))
        # What it drew is to follow the seed, which is set before a pair is made.
        unused = drawn is None and torch_states() == torchs
    _EXECUTED[path] = content, module, look and unused
    return module


def _execute(path: Path, content: bytes) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"pyro_aevb_pair_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))  # so that the file can import its neighbours
    try:
        # Not by the loader, which may take another content's bytecode from beside the file.
        exec(compile(content, path, "exec", dont_inherit=True), vars(module))
    except Exception as error:  # whatever the user's file does while it is imported
        raise UsageError(_import_failure(path.name, error, str(path))) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _import_failure(name: str, error: Exception, file: str | None = None) -> str:
    r"""What went wrong, and at which line: the last one that ran of a file, or else of all."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = ["?", *(frame.lineno for frame in frames if file in (None, frame.filename))]
    line = getattr(error, "lineno", None) or lines[-1]
    if isinstance(error, UsageError):
        return f"{name}, line {line}: {error}"
    return f"importing {name} failed at line {line}: {type(error).__name__}: {one_line(error)}"


def constructor(source: Any) -> Callable[..., Any] | None:
    r"""The class (or function) whose parameters ``--pair.NAME`` sets; None where there is none."""
    found, _ = locate(source, look=True)
    return found if _is_constructor(found) else None


def _is_constructor(found: Any) -> bool:
    return isinstance(found, type) or inspect.isfunction(found)


def constructor_parameters(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    r"""A constructor's parameters by name; ``**options`` are those of the class that it extends."""
    found = dict(_signature(make).parameters)
    classes = make.__mro__ if isinstance(make, type) else ()
    for base in [c for c in classes if "__init__" in vars(c)][1:]:
        rest = [name for name, p in found.items() if p.kind is p.VAR_KEYWORD]
        if not rest or base.__module__.startswith(("torch.", "pyro.", "builtins")):
            break
        del found[rest[0]]
        found = {**_signature(base).parameters, **found}
    return found


def _signature(make: Callable[..., Any]) -> inspect.Signature:
    r"""A signature with its types, where what they are called can be looked up."""
    try:
        return inspect.signature(make, eval_str=True)
    except Exception:  # of names that a user's file imports for type checkers alone
        return inspect.signature(make)


def settable(make: Callable[..., Any]) -> list[str]:
    r"""The names of a constructor's parameters that are not filled in from the data set."""
    return [name for name in constructor_parameters(make) if name not in FROM_DATA]


def unknown_parameter(title: str, name: str, takes: Collection[str]) -> UsageError:
    r"""The error of a parameter that a constructor does not have."""
    near, names = hint(name, takes), ", ".join(takes) or "none"
    return UsageError(f"{title} has no parameter {name!r}{near}; it takes {names}")


def check_parameters(source: Any, names: Iterable[str]) -> None:
    r"""Raise a UsageError for a name that is no parameter of a pair's constructor."""
    _check_names(*locate(source, look=True), names)


def _check_names(found: Any, name: str, names: Iterable[str]) -> None:
    if not _is_constructor(found):
        for given in names:
            raise UsageError(
                f"{name} is not a class, so it takes no parameter {given!r}; remove it"
            )
        return
    accepted = constructor_parameters(found)
    rest = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    for given in names:
        if given not in accepted and not rest:
            raise unknown_parameter(name, given, settable(found))


def construct(found: Any, name: str, parameters: dict[str, Any], data: "DataSet | None") -> Any:
    r"""Call a constructor; what is none is returned as it is.

    Arguments:
        found: What was located.
        name: The name by which messages call it.
        parameters: Some of the constructor's parameters.
        data: The data set that the parameters :data:`FROM_DATA` come from, if they are not given.

    Raises:
        UsageError: Parameters that it does not have, or lacks, or refuses.
    """
    _check_names(found, name, parameters)
    if not _is_constructor(found):
        return found
    accepted = constructor_parameters(found)
    for key, value in parameters.items():
        if key in accepted and value is not accepted[key].default:
            of_kind(f"--pair.{key}", value, accepted[key].annotation)
    if data is not None:
        values = (data.event_shape, len(data.train), data.mean, data.num_classes)
        known = zip(FROM_DATA, values, strict=True)
        parameters = {k: v for k, v in known if k in accepted and v is not None} | parameters
    for key, p in accepted.items():
        named = p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        if named and p.default is p.empty and key not in parameters:
            if key == "num_classes" and data is not None:
                raise UsageError(f"{name} needs data with labels, and {data.name} has none")
            raise UsageError(f"{name} needs a value for {key!r}: give --pair.{key}")
    try:
        return found(**parameters)
    except UsageError:
        raise
    except Exception as error:  # whatever the user's constructor does
        given = ", ".join(f"{k}={v!r}" for k, v in parameters.items() if k != "data_mean")
        raise UsageError(
            f"{name}({given}) failed: {type(error).__name__}: {one_line(error)}"
        ) from error
