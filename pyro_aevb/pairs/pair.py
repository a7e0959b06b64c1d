r"""A pair: two callables, ``model(x)`` and ``guide(x)``, and what they train.

``x`` is a float tensor of shape ``(batch, *event_shape)``. Further parameters, as of
``model(x, label)``, are columns of the data set of those names, ``(batch, *shape)``; one that has a
default may be missing there. A guide with ``**kwargs``, as an autoguide's, is given what the model
takes. The pair may be

- one object with ``model`` and ``guide``: a module, or a plain class holding modules;
- two names, ``model`` and ``guide``, in one file;
- a tuple ``(model, guide)`` in Python.

Parameters are those of the modules, and those made by ``pyro.param`` and ``pyro.module``.
:func:`load_pair` turns any of these into a :class:`Pair`, which keeps the modules and a parameter
store of its own, so that a second pair in one process starts fresh.
"""

import hashlib
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.nn import PyroModule, pyro_method
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_aevb.data.batch import Batch, Data, data_of
from pyro_aevb.device import shares_memory
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.handlers import Declared, WholeBatch
from pyro_aevb.pairs.locate import construct, locate
from pyro_aevb.pairs.state.python import PythonState
from pyro_aevb.pairs.tables import DatumTable, Handed, parted

if TYPE_CHECKING:
    from pyro_aevb.data.split import DataSet, Split
    from pyro_aevb.pairs.description import Description

_STORE = threading.RLock()
r"""Pyro's parameter store and its stack of handlers are the process's: one pair at a time."""


class Pair(nn.Module):
    r"""A model, its guide, and every tensor that training them changes.

    Arguments:
        model: Called as ``model(x)``, or with columns of the data too, ``model(x, label)``.
        guide: Called in the same way; it need not take the same columns.
        modules: The modules whose parameters and buffers belong to the pair, by name.
        name: What to call the pair in results and messages.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        modules: Mapping[str, nn.Module],
        name: str,
    ) -> None:
        super().__init__()
        self.name = name
        self.sources = nn.ModuleDict(dict(modules))
        # In a tuple, so that a module is not registered a second time under another name.
        self._callables = (model, guide)
        takes = [_columns(function) for function in self._callables]
        everything = dict.fromkeys(name for side, _ in takes for name in side)
        self.columns = {name: any(side.get(name) for side, _ in takes) for name in everything}
        r"""The columns that the pair takes, by name, and whether it needs each."""
        self.tables: dict[str, DatumTable] = {}
        r"""The guide's parameters that have a row for each training datum, by name."""
        self.held: dict[str, Tensor] = {}
        r"""Rows of validation data, by the names of these parameters, unconstrained."""
        self._around: list[Messenger | tuple[str, int] | None] = []
        r"""What :meth:`in_handler` and :meth:`declare` were given, in order; None is the tables."""
        self._bind()
        self._store: Any = {"params": {}, "constraints": {}}
        self._module_local_params = pyro.settings.get("module_local_params")
        self._active = False
        self._device = torch.device("cpu")
        self.description: Description | None = None
        self.source: str | None = None
        r"""A hash of the file that the pair was loaded from, to notice when it changes."""
        self._origin: tuple[Any] = (None,)

    def _bind(self) -> None:
        r"""Make the sides of the callables, and run them in all that they are to run in."""
        takes, guide = [_columns(function) for function in self._callables], self._callables[1]
        self._sides = tuple(
            self._with_columns(function, self.columns if rest else side)
            for function, (side, rest) in zip(self._callables, takes, strict=True)
        )
        if isinstance(guide, GuideMessenger):  # it runs the model, whose data are not the guide's
            unseen = poutine.block(self._sides[1], hide_fn=lambda site: site.get("is_observed"))
            self._sides = (self._sides[0], unseen)
        for handler in self._around:
            self._run_in(handler)

    def _run_in(self, handler: Messenger | tuple[str, int] | None) -> None:
        if handler is None:
            self._sides = self._with_rows()
        elif isinstance(handler, tuple):
            self._sides = tuple(Declared(*handler)(side) for side in self._sides)
        else:
            self._sides = (handler(self._sides[0]), self._sides[1])

    def __getstate__(self) -> dict[str, Any]:
        r"""What a copy and a pickle hold: of the sides the user's own methods or modules.

        Raises:
            UsageError: The sides are functions, which would go on using the nets of this pair.
        """
        if self.sources and any(map(inspect.isfunction, self._callables)):
            raise UsageError(
                f"{self.name} cannot be copied or pickled, as its model and guide are functions, "
                "which find their nets by name; make them methods of one torch.nn.Module"
            )
        for tensor in self.tensors().values():  # Pyro's weak reference, made anew when asked for
            vars(tensor).pop("unconstrained", None)
        return {name: value for name, value in vars(self).items() if name != "_sides"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        model, guide = self._callables
        self._callables = (_in_context(model), _in_context(guide))
        self._bind()

    def uninspected(self) -> "Pair":
        r"""A copy of the pair as it was before it was inspected, with the tensors that it has now.

        Raises:
            UsageError: Its sides are functions.
        """
        # Pyro's guides forget their model, and the list that they are in, as they are copied.
        guides = [module for module in self.modules() if isinstance(module, AutoGuide)]
        known = [{k: vars(guide).get(k) for k in ("_model", "master")} for guide in guides]
        copied = deepcopy(self)
        for guide, kept in zip(guides, known, strict=True):
            vars(guide).update(kept)
        copied.forget()
        return copied

    def forget(self) -> None:
        r"""Forget what inspecting the pair has found."""
        self._around, self.tables, self.description = [], {}, None
        self._bind()

    @property
    def model(self) -> Callable[[Any], Any]:
        r"""Takes a tensor, or a :class:`~pyro_aevb.data.batch.Batch` with the columns it needs."""
        return self._sides[0]

    @property
    def guide(self) -> Callable[[Any], Any]:
        r"""Takes what the model takes."""
        return self._sides[1]

    def in_handler(self, handler: Messenger) -> None:
        r"""Run the model in a handler from now on, if it is not yet in one of its kind."""
        if type(handler) not in map(type, self._around):
            self._around.append(handler)
            self._run_in(handler)

    def declare(self, plate: str, num_data: int) -> None:
        r"""Let a data plate of the size of the batch declare the number of training data.

        Arguments:
            plate: Its name.
            num_data: N.
        """
        self._around.append((plate, num_data))
        self._run_in((plate, num_data))

    def hand_out(self, tables: Mapping[str, DatumTable]) -> None:
        r"""Let the guide's parameters of each datum be those that a batch brings as columns.

        Arguments:
            tables: See :mod:`~pyro_aevb.pairs.tables`, by the names of the parameters.
        """
        self.tables = dict(tables)
        self._around.append(None)
        self._run_in(None)

    def _with_rows(self) -> tuple[Any, Any]:
        r"""The sides: the model without the rows of a batch, the guide with them."""
        model, guide = self._sides

        def without_rows(x: Data) -> Any:
            return model(parted(x)[0])

        def with_rows(x: Data) -> Any:
            own, rows = parted(x)
            if missing := self.tables.keys() - rows.keys():
                raise UsageError(
                    f"{self.name} keeps {min(missing)!r} for each training datum, and these data "
                    "bring no rows of it (pyro_aevb.pairs.settle finds them)"
                )
            with Handed(self.tables, rows):
                return guide(own)

        return without_rows, with_rows

    def _with_columns(self, function: Callable[..., Any], names: Iterable[str]) -> Any:
        if not self.columns:
            return function

        def side(x: Any) -> Any:
            known = x.columns if isinstance(x, Batch) else {}
            for name in names:
                if self.columns[name] and name not in known:
                    raise self.missing(name, known)
            return function(data_of(x), **{name: known[name] for name in names if name in known})

        return side

    def like_model(self, function: Callable[..., Any]) -> Callable[[Any], Any]:
        r"""A function that is called as the model is, such as a part of it, of a batch."""
        side: Callable[[Any], Any] = self._with_columns(function, _columns(self._callables[0])[0])
        return side

    def missing(self, name: str, known: Iterable[str], where: str = "the data have") -> UsageError:
        r"""The error of a column that the pair needs, and that is not among the known names."""
        return UsageError(
            f"{self.name} takes {name!r} beside x, and {where} no column of that name; columns "
            f"there: {', '.join(known) or 'none'}"
        )

    def columns_in(self, split: "Split", where: str = "the data have") -> list[str]:
        r"""The columns of a split that the pair sees; a UsageError if one that it needs is not."""
        for name, needed in self.columns.items():
            if needed and name not in split.columns:
                raise self.missing(name, split.columns, where)
        return [name for name in self.columns if name in split.columns]

    def batch(self, x: Data, columns: Mapping[str, Any]) -> Data:
        r"""Data as the pair takes them, with columns that are given beside them.

        Arguments:
            x: Data, ``(B, *event_shape)``, or a batch that has its columns.
            columns: Further columns by name, ``(B, *shape)``.

        Raises:
            UsageError: The pair takes no column of a given name, or it has another length.
        """
        if not columns:
            return x
        found = dict(x.columns) if isinstance(x, Batch) else {}
        for name, values in columns.items():
            if name not in self.columns:
                raise UsageError(
                    f"{self.name} takes no {name!r} beside x; it takes "
                    f"{', '.join(self.columns) or 'nothing'}"
                )
            found[name] = given = torch.as_tensor(values, device=x.device)
            if given.is_floating_point():  # of the precision of the data
                found[name] = given.to(x.dtype)
            if found[name].shape[:1] != x.shape[:1]:
                raise UsageError(
                    f"{self.name}: {name!r} has shape {tuple(found[name].shape)}, and there are "
                    f"{len(x)} data"
                )
        return Batch(data_of(x), found)

    @property
    def algorithm(self) -> str | None:
        r"""The learning algorithm that the pair names by an attribute; None if it names none."""
        named = self.attribute("algorithm")
        return named if isinstance(named, str) else None

    @property
    def python(self) -> PythonState:
        r"""What the pair's code keeps in Python beside its parameters."""
        origin = [] if isinstance(self._origin[0], tuple) else [("", self._origin[0])]
        sides = zip(("model", "guide"), self._callables, strict=True)
        return PythonState((*self.sources.items(), *origin, *sides))

    @property
    def origin(self) -> Any:
        r"""The user's own module, or another object, file or tuple that the pair was made of."""
        return self._origin[0]

    def attribute(self, name: str) -> Any:
        r"""An attribute of the object or file that the pair was made of; None where there is none.

        It may say how the pair is trained: by which `algorithm`, `discriminator`, `corruption`, or
        weight `beta` of the KL.
        """
        return getattr(self._origin[0], name, None)

    @contextmanager
    def active(self) -> Iterator[None]:
        r"""Run the model or the guide inside this: Pyro's parameter store is then the pair's own.

        In the process's own store a second model of the same parameter names would silently train,
        or fail to train, the first one's tensors.
        """
        # The lock first: the flag may be another thread's, whose store this one must not see.
        with _STORE:
            if self._active:
                yield
                return
            # New tensors that the pair's code makes land on the pair's device.
            device = nullcontext() if shares_memory(self._device) else self._device
            with (
                pyro.get_param_store().scope(self._store),
                pyro.settings.context(module_local_params=self._module_local_params),
                device,
            ):
                self._active = True
                try:
                    yield
                finally:
                    self._active = False

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        r"""Evaluation mode inside this; afterwards each module is in the mode that it was in."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training

    @contextmanager
    def running(self) -> Iterator[None]:
        r"""Model and guide are densities inside this: in evaluation mode, of the whole batch.

        Pyro's checks of distributions' arguments are left out, as they read values back.
        """
        fast = pyro.validation_enabled(False)
        with self.active(), self.evaluating(), WholeBatch(), fast:
            yield

    @property
    def device(self) -> torch.device:
        r"""Where its tensors are."""
        return self._device

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
        r"""Parameters and buffers of the modules, unconstrained ``pyro.param`` values, and rows."""
        named = dict(self.sources.state_dict(keep_vars=True))
        seen = {id(value) for value in named.values()}
        store = pyro.get_param_store().get_state() if self._active else self._store
        for name, value in store["params"].items():
            if id(value) not in seen:
                named[f"param:{name}"] = value
        return named | {f"held:{name}": value for name, value in self.held.items()}

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
            origin: The name of their file, for the message.

        Raises:
            UsageError: Names or shapes differ, as in a checkpoint of another pair.
        """
        own = self.tensors()
        for name in [*own, *saved]:
            there, here = (
                f"has shape {tuple(tensors[name].shape)}" if name in tensors else "is missing"
                for tensors in (saved, own)
            )
            if there != here:
                raise UsageError(
                    f"{origin} belongs to another pair than {self.name}: {name!r} {there} there "
                    f"and {here} here; use the pair and the parameters it was trained with"
                )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(saved[name])


def load_pair(
    source: Any, parameters: Mapping[str, Any] | None = None, data: "DataSet | None" = None
) -> Pair:
    r"""Make a :class:`~pyro_aevb.pairs.pair.Pair` of anything that is one.

    Arguments:
        source: A shipped name (``"VAE"``), ``"package.module:Name"``, ``"file.py:Name"``, a
            ``"file.py"`` with ``model`` and ``guide``, a class, an instance, or a tuple.
        parameters: The constructor's parameters.
        data: Where the constructor's ``event_shape``, ``num_data`` and ``data_mean`` come from.

    Raises:
        UsageError: Nothing of that name, no model or guide in it, or parameters that it refuses.
    """
    found, name = locate(source)
    found = construct(found, name, dict(parameters or {}), data)
    if isinstance(found, Pair):
        return found
    if isinstance(found, tuple) and len(found) == 2:
        model, guide = found
        holders = {"model": model, "guide": guide} | _reached(model) | _reached(guide)
    else:
        model, guide = getattr(found, "model", None), getattr(found, "guide", None)
        holders = _held(found)
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


def _columns(function: Any) -> tuple[dict[str, bool], bool]:
    r"""The parameters beyond the first and whether each is needed; and whether it takes any."""
    called = function.forward if isinstance(function, nn.Module) else function
    try:
        _, *others = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # written in C, or without a parameter
        return {}, False
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = {p.name: p.default is p.empty for p in others if p.kind in named}
    return found, any(p.kind is p.VAR_KEYWORD for p in others)


def _in_context(function: Any) -> Any:
    # Outside a PyroModule's context a PyroSample attribute is drawn without becoming a site.
    if inspect.ismethod(function) and isinstance(function.__self__, PyroModule):
        return MethodType(pyro_method(function.__func__), function.__self__)
    return function


def _held(owner: Any) -> dict[str, Any]:
    return {"pair": owner} if isinstance(owner, nn.Module) else dict(getattr(owner, "__dict__", {}))


def _reached(function: Any) -> dict[str, Any]:
    if inspect.ismethod(function):
        return _held(function.__self__)
    if not inspect.isfunction(function):
        return {}
    variables = inspect.getclosurevars(function)
    return {**variables.globals, **variables.nonlocals}
