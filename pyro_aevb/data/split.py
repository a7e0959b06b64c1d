r"""What a data set is: three splits, and the one way in which they are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.disk import OnDisk
from pyro_aevb.errors import UsageError

SEED = 0
r"""Seed of every shuffled split, named in the description of the data set."""

REGENERATED = "regenerated"
r"""How the description of data begins that were drawn anew by published rules."""

Binarize = Literal["none", "dynamic", "fixed"]
r"""Data are presented as they are, drawn afresh at each look, or drawn once."""


@dataclass(frozen=True, eq=False)
class Split:
    r"""Images, or vectors, with their labels and whatever else is known of each.

    Arguments:
        images: The data, shape :math:`(N, *event\_shape)`: uint8 in 0, ..., `scale`, or
            float32 with `scale` 1; in memory, or on the disk.
        labels: The int64 class of each datum, shape :math:`(N,)`, or None.
        scale: The integer that stands for 1; images / `scale` is what a pair sees.
        columns: By name, further values of each datum, :math:`(N, *shape)`, int64 or float32. A
            pair whose functions take a parameter of that name sees it; ``label`` is always the
            labels.
    """

    images: Tensor | OnDisk
    labels: Tensor | None
    scale: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "columns", {**self.columns, "label": self.labels})

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: slice | Tensor) -> Split:
        r"""The data at some positions, in that order: a view for a slice, a copy for a tensor."""
        labels = None if self.labels is None else self.labels[index]
        columns = {name: values[index] for name, values in self.columns.items()}
        return Split(self.images[index], labels, self.scale, columns)

    def range(self) -> tuple[float, float]:
        r"""The least and the largest value, as a pair sees them."""
        ends = [(float(b.min()), float(b.max())) for b in self.images.split(4096)]
        return min(e[0] for e in ends) / self.scale, max(e[1] for e in ends) / self.scale


@dataclass(frozen=True, eq=False)
class DataSet:
    r"""A data set with a fixed train, validation and test split.

    Arguments:
        name: What :func:`~pyro_aevb.data.sets.load` was asked for.
        train: The data to learn from.
        valid: The data to stop, or choose, by.
        test: The data to report on.
        description: How the splits were made, with their sizes.
        binarize: How the set is presented unless the user says otherwise.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    description: str
    binarize: Binarize

    @property
    def event_shape(self) -> tuple[int, ...]:
        r"""The shape of one datum, (C, H, W) for images."""
        return tuple(self.train.images.shape[1:])

    @property
    def num_classes(self) -> int | None:
        r"""One more than the greatest label of the training data; None where they have none."""
        labels = self.train.labels
        return None if labels is None else int(labels.max()) + 1

    def first(self, n: int) -> DataSet:
        r"""The data set with the first `n` training data alone; validation and test stay.

        Raises:
            UsageError: There are fewer, or n is below 1.
        """
        if not 1 <= n <= len(self.train):
            raise UsageError(
                f"{self.name}:{n} asks for {n} training data; {self.name} has {len(self.train)}"
            )
        what = f"{self.description}; OF THESE TRAINING DATA THE FIRST {n:,} ALONE"
        few = self.train.subset(slice(n))
        return replace(self, name=f"{self.name}:{n}", train=few, description=what)

    @property
    def regenerated(self) -> bool:
        r"""Whether the data were drawn anew by published rules, and are not the published data.

        Their description then begins with the word, and numbers on them are comparable with
        published ones in rank and size only.
        """
        return self.description.startswith(REGENERATED)

    @cached_property
    def mean(self) -> Tensor:
        r"""The mean of the training data, :math:`\frac{1}{N} \sum_n x_n`, float32."""
        # in blocks: one sum over the whole set would hold a float64 copy of it
        total = torch.zeros(self.event_shape, dtype=torch.float64)
        for block in self.train.images.split(4096):
            total += block.sum(0, dtype=torch.float64)
        return (total / (len(self.train) * self.train.scale)).float()


def partition(whole: Split, *sizes: int) -> tuple[Split, ...]:
    r"""Cut a split into consecutive pieces of some sizes, views of it.

    Raises:
        UsageError: If the sizes do not sum to ``len(whole)``, as where a source is not complete.
    """
    ends = np.cumsum(sizes)
    if ends[-1] != len(whole) or min(sizes) < 1:
        raise UsageError(f"{len(whole)} data cannot be split into {sizes}")
    return tuple(whole.subset(slice(end - n, end)) for n, end in zip(sizes, ends, strict=True))


def shuffled(whole: Split) -> Split:
    r"""Put a split into a random order that its length alone determines.

    NumPy guarantees the stream of ``RandomState`` for good, so a split is the same everywhere.
    """
    return whole.subset(torch.from_numpy(np.random.RandomState(SEED).permutation(len(whole))))


def dealt(whole: Split) -> Split:
    r"""Reorder a labelled split like dealt cards: the k-th datum of every class, then the next.

    With classes of one size every consecutive piece is then stratified. Within a class, the order
    stays.
    """
    assert whole.labels is not None
    seen = torch.nn.functional.one_hot(whole.labels).cumsum(0)
    rank = seen.gather(1, whole.labels[:, None])[:, 0]
    return whole.subset(rank.argsort(stable=True))


def assemble(
    name: str, how: str, binarize: Binarize, train: Split, valid: Split, test: Split
) -> DataSet:
    r"""Make a :class:`DataSet`, described by `how` it was made and the sizes of its splits."""
    sizes = f"train {len(train):,}, validation {len(valid):,}, test {len(test):,}"
    return DataSet(name, train, valid, test, f"{how}; {sizes}", binarize)
