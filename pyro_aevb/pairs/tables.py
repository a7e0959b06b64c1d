r"""Parameters of a guide that hold one row for each training datum, as without amortization.

A guide may keep free parameters of each datum, in a *table* of N rows, instead of a function of x:

- ``pyro.param("loc", torch.zeros(N, d))[index]``, with ``index`` what the data plate returns, or
  ``pyro.param("loc", torch.zeros(N, d), event_dim=1)`` or ``pyro.subsample`` of such a parameter
  inside a data plate that declares N;
- Pyro's ``AutoNormal(model)``, ``AutoDelta(model)`` and ``AutoNormalMessenger(model)`` over sites
  of the data plate; N is filled in where the model does not declare it.

A batch brings its rows of the tables as columns: of training data those of the tables themselves,
through which the gradient reaches them; of other data what :mod:`~pyro_aevb.pairs.settle` finds.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoGuideList, AutoNormal
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import transform_to

from pyro_aevb.data.batch import Batch, Data, data_of
from pyro_aevb.pairs.handlers import Declared, WholeBatch

COLUMN = "rows of "
r"""What the name of a column begins with that holds rows of a table."""


@dataclass(frozen=True)
class DatumTable:
    r"""One row of parameters for each training datum.

    Arguments:
        values: The leaf that is trained, unconstrained, ``(N, *shape)``.
        constraint: Where the parameters lie.
    """

    values: Tensor
    constraint: Any


class Asked(Messenger):
    r"""Record the parameters that a guide asks for, and which of them are rows of a plate.

    Arguments:
        batch: B, the number of data it is run on.
        num_data: N, the number of training data; None is what a plate declares.
    """

    def __init__(self, batch: int, num_data: int | None) -> None:
        super().__init__()
        self.batch, self.num_data = batch, num_data
        self.values: dict[str, Tensor] = {}
        self.constraints: dict[str, Any] = {}
        self.tables: dict[str, None] = {}

    def _pyro_post_param(self, msg: Any) -> None:
        name, value, event_dim = msg["name"], msg["value"], msg["kwargs"].get("event_dim")
        self.values[name] = value
        self.constraints[name] = msg["kwargs"].get("constraint")
        for frame in msg["cond_indep_stack"] if event_dim is not None else ():
            full, dim = self.num_data or frame.full_size, (frame.dim or 0) - event_dim
            if frame.size == self.batch and value.dim() == -dim and len(value) == full:
                self.tables[name] = None

    def _pyro_post_subsample(self, msg: Any) -> None:
        self.look_up([msg["value"]])

    def look_up(self, tensors: Iterable[Tensor]) -> str | None:
        r"""Note that a plate's indices are looked up in tensors; the parameter that one is."""
        tensors = list(tensors)
        for name, value in self.values.items():
            if any(tensor is value for tensor in tensors):
                self.tables[name] = None
                return name
        return None

    def found(self) -> dict[str, DatumTable]:
        r"""The tables, by the names of their parameters."""
        known = pyro.get_param_store().get_state()["constraints"]
        tables = {}
        for name in self.tables:
            value: Any = self.values[name]
            leaf = value.unconstrained() if hasattr(value, "unconstrained") else value
            # A parameter of a module is asked for without the constraint that the store knows.
            constraint = known.get(name) or self.constraints[name] or constraints.real
            tables[name] = DatumTable(leaf, constraint)
        return tables


class Handed(Messenger):
    r"""Let a guide's parameters be the rows that come with a batch.

    Arguments:
        tables: The tables by name.
        rows: Rows of each, unconstrained, ``(B, *shape)``.
    """

    def __init__(self, tables: Mapping[str, DatumTable], rows: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tables, self.rows = tables, rows
        self.given: list[Tensor] = []

    def _pyro_param(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.tables:
            msg["value"] = transform_to(self.tables[name].constraint)(self.rows[name])
            msg["done"] = True
            # They are the batch's already: its plate has nothing to take from them.
            msg["kwargs"] = {**msg["kwargs"], "event_dim": None}
            self.given.append(msg["value"])

    def _pyro_subsample(self, msg: Any) -> None:
        if any(msg["args"][0] is value for value in self.given):
            msg["value"], msg["done"] = msg["args"][0], True
            msg["kwargs"] = {**msg["kwargs"], "event_dim": None}


def parted(x: Data) -> tuple[Data, dict[str, Tensor]]:
    r"""A batch without its rows of tables, and these by the names of the parameters."""
    if not isinstance(x, Batch):
        return x, {}
    rows = {k.removeprefix(COLUMN): v for k, v in x.columns.items() if k.startswith(COLUMN)}
    others = {k: v for k, v in x.columns.items() if not k.startswith(COLUMN)}
    return (Batch(x.x, others) if others else x.x), rows


def joined(x: Data, rows: Mapping[str, Tensor]) -> Data:
    r"""A batch with rows of tables as columns."""
    if not rows:
        return x
    columns = x.columns if isinstance(x, Batch) else {}
    return Batch(data_of(x), {**columns, **{COLUMN + name: v for name, v in rows.items()}})


def holds_rows(guide: Any, plate: str, sites: Mapping[str, Any]) -> bool:
    r"""Whether one of Pyro's own guides keeps parameters of each datum.

    Arguments:
        guide: The guide.
        plate: The name of the data plate.
        sites: The sites of its own model, by name.
    """
    if plate in getattr(guide, "amortized_plates", ()):
        return False
    latent = (site for site in sites.values() if not site["is_observed"])
    return any(frame.name == plate for site in latent for frame in site["cond_indep_stack"])


def own_guides(modules: Iterable[Any]) -> Iterator[Any]:
    r"""Those among modules that are guides of Pyro's own with parameters of each site.

    Not those with one distribution over all sites, which have no rows, and none that has been run.
    """
    for module in modules:
        if isinstance(module, (AutoNormal, AutoDelta, AutoGuideList)):
            if module.prototype_trace is None:
                yield module
        elif isinstance(module, GuideMessenger):
            yield module


def declare_size(guide: Any, plate: Any, num_data: int) -> None:
    r"""Let one of Pyro's own guides make its parameters for N data, whatever batch it sees first.

    Its model then declares N, and its plates take the size of each batch.

    Arguments:
        guide: The guide, which has not been run.
        plate: The data plate's frame, as its model makes it.
        num_data: N.
    """
    # Pyro makes an autoguide of a model once; there is no public way to give it another.
    if plate.full_size != num_data and hasattr(guide, "_model"):
        guide._model = (_Sized(guide.model, plate.name, num_data),)
    if isinstance(guide, AutoGuide) and guide.create_plates is None and guide.master is None:
        guide.create_plates = _Plates(plate.name, num_data, plate.dim)


@dataclass(frozen=True)
class _Sized:
    r"""A model whose data plate declares N; an object, so that copies have their own model."""

    model: Any
    plate: str
    num_data: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with WholeBatch(), Declared(self.plate, self.num_data):
            return self.model(*args, **kwargs)


@dataclass(frozen=True)
class _Plates:
    r"""Makes the data plate of a batch."""

    name: str
    num_data: int
    dim: int

    def __call__(self, x: Tensor, **columns: Any) -> Any:
        return pyro.plate(self.name, self.num_data, subsample_size=len(x), dim=self.dim)
