r"""A batch as a pair sees it: data, and beside them the named columns that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    r"""Data with named columns, such as their labels; what has no columns is a plain tensor.

    It has of a tensor's methods those that whoever handles a batch needs. Rows are taken of data
    and columns alike; shape, type and device are those of the data.

    Arguments:
        x: The data, ``(B, *event_shape)``.
        columns: By name, what else is known of each datum, ``(B, *shape)``.
    """

    x: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        return self._each(lambda value: value[rows])

    shape = property(attrgetter("x.shape"))
    device = property(attrgetter("x.device"))
    dtype = property(attrgetter("x.dtype"))
    new_zeros = property(attrgetter("x.new_zeros"))
    new_empty = property(attrgetter("x.new_empty"))
    new_tensor = property(attrgetter("x.new_tensor"))

    def _each(self, of: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(of(self.x), {name: of(value) for name, value in self.columns.items()})


Data = Tensor | Batch
r"""What a pair is run on."""


def data_of(batch: Data) -> Tensor:
    r"""The data alone, ``(B, *event_shape)``."""
    return batch.x if isinstance(batch, Batch) else batch


def with_data(batch: Data, x: Tensor) -> Data:
    r"""Other data of the same length beside the same columns, as where they are corrupted."""
    return Batch(x, batch.columns) if isinstance(batch, Batch) else x


def placed(part: Data, rows: slice, count: int) -> Data:
    r"""Some rows at their places in a batch of `count` data, of which the others are zeros."""

    def place(value: Tensor) -> Tensor:
        whole = value.new_zeros(count, *value.shape[1:])
        whole[rows] = value
        return whole

    return part._each(place) if isinstance(part, Batch) else place(part)


def repeated(batch: Data, k: int) -> Data:
    r"""All data k times over, ``(k B, ...)``: row ``i B + n`` is the datum n."""
    if isinstance(batch, Batch):
        return batch._each(lambda value: value.expand(k, *value.shape).flatten(0, 1))
    return batch.expand(k, *batch.shape).flatten(0, 1)


def flatten(arguments: Sequence[Data]) -> list[Tensor]:
    r"""The tensors of arguments of which some are batches, in order; a batch's data come first."""
    found: list[Tensor] = []
    for value in arguments:
        found += [value.x, *value.columns.values()] if isinstance(value, Batch) else [value]
    return found


def unflatten(tensors: Sequence[Tensor], like: Sequence[Data]) -> list[Data]:
    r"""Arguments of the structure of others, made of the tensors that :func:`flatten` gives."""
    left = iter(tensors)
    return [
        Batch(next(left), {name: next(left) for name in value.columns})
        if isinstance(value, Batch)
        else next(left)
        for value in like
    ]
