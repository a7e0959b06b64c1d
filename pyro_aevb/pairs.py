r"""A pair: two callables with one signature, ``model(x)`` and ``guide(x)``, and what they train.

``x`` is a float tensor of shape ``(batch, *event_shape)``. The pair may be

- one object with methods (or sub-modules) ``model`` and ``guide``: an ``nn.Module``, a
  ``PyroModule``, or a plain class holding modules;
- two names, ``model`` and ``guide``, in one file;
- a tuple ``(model, guide)`` in Python.

Parameters are those of the modules, and those made by ``pyro.param`` and ``pyro.module``.
There is no base class and nothing to register. :func:`load_pair` turns any of these into a
:class:`Pair`, which keeps the modules and a parameter store of its own, so that a second pair in
one process starts fresh.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect as python_inspect
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from pyro_aevb.errors import UsageError

if TYPE_CHECKING:
    from pyro_aevb.data.sets import DataSet
    from pyro_aevb.description import Description

_STORE = threading.RLock()
r"""Pyro's parameter store and its stack of handlers are the process's: one pair at a time."""

FROM_DATA = ("event_shape", "num_data", "data_mean")
r"""Constructor parameters of these names are filled in from the data set, if not given:
the shape of one datum, the number of training data, and their mean (a float tensor)."""


class Pair(nn.Module):
    r"""A model, its guide, and every tensor that training them changes.

    Arguments:
        model: Called as ``model(x)``.
        guide: Called as ``guide(x)``.
        modules: The modules whose parameters and buffers belong to the pair, by name.
        name: What to call the pair in results and messages.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Any],
        guide: Callable[[Tensor], Any],
        modules: Mapping[str, nn.Module],
        name: str,
    ) -> None:
        super().__init__()
        self.name = name
        self.sources = nn.ModuleDict(dict(modules))
        # In a tuple, so that a module is not registered a second time under another name.
        self._callables = (model, guide)
        self._store: Any = {"params": {}, "constraints": {}}
        self._module_local_params = pyro.settings.get("module_local_params")
        self._active = False
        self._device = torch.device("cpu")
        self.description: Description | None = None
        self.source: str | None = None
        r"""A hash of the file that the pair was loaded from, to notice when it changes."""
        self._origin: tuple[Any] = (None,)

    @property
    def model(self) -> Callable[[Tensor], Any]:
        return self._callables[0]

    @property
    def guide(self) -> Callable[[Tensor], Any]:
        return self._callables[1]

    @property
    def algorithm(self) -> str | None:
        r"""The learning algorithm that the pair names by an attribute ``algorithm``."""
        named = self.attribute("algorithm")
        return named if isinstance(named, str) else None

    def attribute(self, name: str) -> Any:
        r"""An attribute of the object or file that the pair was made of; None where there is none.

        Beside `model` and `guide` these say by what the pair is trained: the name of an algorithm,
        a discriminator, a corruption of its input, the weight `beta` of its KL.
        """
        return getattr(self._origin[0], name, None)

    @contextmanager
    def active(self) -> Iterator[None]:
        r"""Run the model or the guide inside this: Pyro's parameter store is then the pair's own.

        Pyro keeps one store for the process. There a second model of the same parameter names
        would silently train, or fail to train, the first one's tensors.
        """
        if self._active:
            yield
            return
        # New tensors that the pair's code makes land on the pair's device.
        device = nullcontext() if self._device.type == "cpu" else self._device
        with (
            _STORE,
            pyro.get_param_store().scope(self._store),
            pyro.settings.context(module_local_params=self._module_local_params),
            device,
        ):
            self._active = True
            try:
                yield
            finally:
                self._active = False

    def move(self, device: torch.device | str) -> "Pair":
        r"""Move every tensor of the pair to a device, in place."""
        if self._active:
            raise RuntimeError("a pair moves between runs, not inside `with pair.active()`")
        self._device = torch.device(device)
        self.to(self._device)
        for value in self._store["params"].values():
            value.data = value.data.to(self._device)
        return self

    def tensors(self) -> dict[str, Tensor]:
        r"""Parameters and buffers of the modules, then unconstrained ``pyro.param`` values."""
        named = dict(self.sources.state_dict(keep_vars=True))
        seen = {id(value) for value in named.values()}
        store = pyro.get_param_store().get_state() if self._active else self._store
        for name, value in store["params"].items():
            if id(value) not in seen:
                named[f"param:{name}"] = value
        return named

    def trainable(self) -> dict[str, Tensor]:
        r"""The tensors that an optimizer updates, by name, each once."""
        once: dict[int, tuple[str, Tensor]] = {}
        for name, value in self.tensors().items():
            if value.requires_grad:
                once.setdefault(id(value), (name, value))
        return dict(once.values())

    def load_tensors(self, saved: Mapping[str, Tensor], origin: str) -> None:
        r"""Copy saved values into the pair's tensors, all or none.

        Arguments:
            saved: Values by name, as :meth:`tensors` names them.
            origin: Where they come from, for the message.

        Raises:
            UsageError: Names or shapes differ, as in a checkpoint of another pair.
        """
        own = self.tensors()
        for name in [*own, *saved]:
            if name not in own or name not in saved:
                where = "is missing there" if name in own else "is not in this pair"
                raise UsageError(
                    f"{origin} belongs to another pair than {self.name}: {name!r} {where}; "
                    "use the pair and the parameters it was trained with"
                )
            if own[name].shape != saved[name].shape:
                raise UsageError(
                    f"{origin} belongs to another pair than {self.name}: {name!r} has shape "
                    f"{tuple(saved[name].shape)} there and {tuple(own[name].shape)} here; "
                    "use the parameters it was trained with"
                )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(saved[name])


def load_pair(
    source: Any, parameters: Mapping[str, Any] | None = None, data: "DataSet | None" = None
) -> Pair:
    r"""Make a :class:`Pair` of anything that is one.

    Arguments:
        source: A shipped name (``"VAE"``), an import path (``"package.module:Name"``),
            ``"file.py:Name"``, a ``"file.py"`` that defines ``model`` and ``guide``, or in Python
            a class, an instance, or a tuple ``(model, guide)``.
        parameters: The constructor's parameters.
        data: Where the constructor's ``event_shape``, ``num_data`` and ``data_mean`` come from.

    Raises:
        UsageError: Nothing of that name, no model or guide in it, or parameters that it refuses.
    """
    found, name = locate(source)
    parameters = dict(parameters or {})
    _check_names(found, name, parameters)
    if isinstance(found, type) or python_inspect.isfunction(found):
        found = _construct(found, name, parameters, data)
    if isinstance(found, Pair):
        return found
    if isinstance(found, tuple) and len(found) == 2:
        model, guide = found
        holders: dict[str, Any] = {"model": model, "guide": guide}
        for side in (model, guide):
            holders |= _reached(side)
    else:
        model, guide = getattr(found, "model", None), getattr(found, "guide", None)
        holders = {"pair": found} if isinstance(found, nn.Module) else dict(vars(found))
    for side, function in (("model", model), ("guide", guide)):
        if not callable(function):
            raise UsageError(f"{name} has no `{side}`: a pair defines both model(x) and guide(x)")
    modules = {key: value for key, value in holders.items() if isinstance(value, nn.Module)}
    pair = Pair(_in_context(model), _in_context(guide), modules, name)
    pair._origin = (found,)
    path = source.partition(":")[0] if isinstance(source, str) else ""
    if path.endswith(".py"):
        pair.source = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return pair


def check_parameters(source: Any, names: Iterable[str]) -> None:
    r"""Refuse names that are no parameters of a pair's constructor, without calling it.

    Raises:
        UsageError: There is no such parameter, or no such pair.
    """
    _check_names(*locate(source), names)


def _check_names(found: Any, name: str, names: Iterable[str]) -> None:
    called = isinstance(found, type) or python_inspect.isfunction(found)
    accepted = constructor_parameters(found) if called else {}
    if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        return
    for given in names:
        if not called:
            raise UsageError(
                f"{name} is not a class, so it takes no parameter {given!r}; remove it"
            )
        if given not in accepted:
            near = difflib.get_close_matches(given, accepted, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            takes = ", ".join(p for p in accepted if p not in FROM_DATA) or "none"
            raise UsageError(f"{name} has no parameter {given!r}{hint}; it takes {takes}")


def constructor(source: Any) -> Callable[..., Any] | None:
    r"""The class (or function) whose parameters ``--pair.NAME`` sets; None where there is none."""
    found, _ = locate(source)
    return found if isinstance(found, type) or python_inspect.isfunction(found) else None


def constructor_parameters(make: Callable[..., Any]) -> dict[str, python_inspect.Parameter]:
    r"""The parameters of a constructor by name.

    What a class takes as ``**options`` is what the class that it extends takes.
    """
    found = dict(python_inspect.signature(make).parameters)
    classes = make.__mro__ if isinstance(make, type) else ()
    for base in [c for c in classes if "__init__" in vars(c)][1:]:
        rest = [name for name, p in found.items() if p.kind is p.VAR_KEYWORD]
        if not rest or base.__module__.startswith(("torch.", "pyro.", "builtins")):
            break
        del found[rest[0]]
        found = {**python_inspect.signature(base).parameters, **found}
    return found


def locate(source: Any) -> tuple[Any, str]:
    r"""Find what a pair's name stands for: a class, a function, an instance, a tuple or a module.

    Returns:
        What was found, and the name to call it by.
    """
    if not isinstance(source, str):
        name = getattr(source, "name", None) or getattr(source, "__name__", None)
        return source, str(name or type(source).__name__)
    shipped = importlib.import_module("pyro_aevb.models")
    if source in shipped.__all__:
        return getattr(shipped, source), source
    path, _, attribute = source.rpartition(":") if ":" in source else (source, "", "")
    if path.endswith(".py"):
        module = _import_file(Path(path))
        name = f"{Path(path).stem}:{attribute}" if attribute else Path(path).stem
    else:
        if not attribute and "." in path:
            path, _, attribute = path.rpartition(".")
        module, name = _import_path(path, source, shipped.__all__), source
    if not attribute:
        return module, name
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, vars(module), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"{path} defines no {attribute!r}{hint}")
    return getattr(module, attribute), name


def _import_path(path: str, source: str, shipped: list[str]) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
            raise UsageError(f"--pair {source}: importing {path} failed: {error}") from error
        near = difflib.get_close_matches(source, shipped, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"no pair {source!r}: {hint}shipped pairs are {', '.join(shipped)}; your own are given "
            "as file.py:Name, as file.py with `model` and `guide` in it, or as package.module:Name"
        ) from error
    except Exception as error:  # whatever the user's module does while it is imported
        raise UsageError(_import_failure(path, error)) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"no file {str(path)!r}: give the path of an existing Python file")
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(f"pyro_aevb_pair_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))  # so that the file can import its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file does while it is imported
        raise UsageError(_import_failure(path.name, error, str(path))) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _import_failure(name: str, error: Exception, file: str | None = None) -> str:
    r"""What went wrong, and at which line: the last one that ran of a file, or else of all."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if file in (None, frame.filename)]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
    if isinstance(error, UsageError):
        return f"{name}, line {line}: {error}"
    return f"importing {name} failed at line {line}: {type(error).__name__}: {_first_line(error)}"


def _construct(
    found: Callable[..., Any], name: str, parameters: dict[str, Any], data: "DataSet | None"
) -> Any:
    accepted = constructor_parameters(found)
    if data is not None:
        known = {
            "event_shape": data.event_shape,
            "num_data": len(data.train),
            "data_mean": data.mean,
        }
        parameters = {k: v for k, v in known.items() if k in accepted} | parameters
    missing = [
        p.name
        for p in accepted.values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in parameters
    ]
    if missing:
        raise UsageError(f"{name} needs a value for {missing[0]!r}: give --pair.{missing[0]}")
    try:
        return found(**parameters)
    except UsageError:
        raise
    except Exception as error:  # whatever the user's constructor does
        raise UsageError(
            f"{name}({', '.join(f'{k}={v!r}' for k, v in parameters.items() if k != 'data_mean')}) "
            f"failed: {type(error).__name__}: {_first_line(error)}"
        ) from error


def _in_context(function: Any) -> Any:
    r"""A PyroModule's method as `pyro_method` would have it.

    Outside the module's context a ``PyroSample`` attribute is drawn without becoming a site.
    """
    if python_inspect.ismethod(function) and isinstance(function.__self__, PyroModule):
        return MethodType(pyro_method(function.__func__), function.__self__)
    return function


def _reached(function: Any) -> dict[str, Any]:
    r"""What a function reaches by name: the object of a method, or globals and closure."""
    if python_inspect.ismethod(function):
        owner = function.__self__
        return {"pair": owner} if isinstance(owner, nn.Module) else dict(vars(owner))
    if not python_inspect.isfunction(function):
        return {}
    variables = python_inspect.getclosurevars(function)
    return {**variables.globals, **variables.nonlocals}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
