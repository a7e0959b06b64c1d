r"""What a data set is: three splits, and the one way in which they are cut."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.disk import OnDisk
from pyro_aevb.data.sprites import Sprites
from pyro_aevb.errors import UsageError

SEED = 0
r"""Seed of every shuffled split, named in the description of the data set."""

REGENERATED = "regenerated"
r"""How the description of data begins that were drawn anew by published rules."""

Binarize = Literal["none", "dynamic", "fixed"]
r"""Data are presented as they are, drawn afresh at each look, or drawn once."""

FactorType = Literal["categorical", "ordered", "periodic"]
r"""The classes of a factor are kinds, lie on a line, or on a circle, where the last is next to, or
the same as, the first."""

Images = Tensor | OnDisk | Sprites
r"""Data in memory, on the disk, or made when they are looked at."""


@dataclass(frozen=True, eq=False)
class Split:
    r"""Images, or vectors, with their labels and whatever else is known of each.

    Arguments:
        images: The data, shape :math:`(N, *event\_shape)`: uint8 in 0, ..., `scale`, or
            float32 with `scale` 1, in which NaN stands for missing values; in memory, on the disk,
            or sprites in places.
        labels: The int64 class of each datum, shape :math:`(N,)`, or None.
        scale: The integer that stands for 1; images / `scale` is what a pair sees.
        columns: By name, further values of each datum, :math:`(N, *shape)`, int64, float32, bool. A
            pair whose functions take a parameter of that name sees it; ``label`` is always the
            labels.
        rows: What each datum is called in its source, or its place there, ``(N,)``; None where
            that is not known.
    """

    images: Images
    labels: Tensor | None
    scale: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "columns", {**self.columns, "label": self.labels})

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: slice | Tensor) -> Split:
        r"""The data at some positions, in that order: a view for a slice, a copy for a tensor."""
        labels = None if self.labels is None else self.labels[index]
        columns = {name: values[index] for name, values in self.columns.items()}
        places = index if isinstance(index, slice) else index.cpu().numpy()
        rows = None if self.rows is None else self.rows[places]
        return Split(self.images[index], labels, self.scale, columns, rows)

    @cached_property
    def missing(self) -> bool:
        r"""Whether a value of the data, or of a column of theirs, is missing, NaN."""
        held = (self.images, *self.columns.values())
        floats = (v for v in held if v.is_floating_point() and not isinstance(v, Sprites))
        return any(v.missing if isinstance(v, OnDisk) else bool(v.isnan().any()) for v in floats)

    def range(self) -> tuple[float, float]:
        r"""The least and the largest value that is not missing, as a pair sees them."""
        ends = [(float(b.min()), float(b.max())) for b in map(_known, self._blocks()) if len(b)]
        return min(e[0] for e in ends) / self.scale, max(e[1] for e in ends) / self.scale

    def _blocks(self) -> Iterator[Tensor]:
        return (block for _, block in looked_through(self.images))


def _known(block: Tensor) -> Tensor:
    missing = block.isnan() if block.is_floating_point() else None
    return block if missing is None or not bool(missing.any()) else block[~missing]


def looked_through(images: Images) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Blocks of data among which are all values, and all sums of a datum's values, that occur.

    Returns:
        Their positions, int64, ``(B,)``, in rising order, and the data, ``(B, *event_shape)``. Of
        sprites they are one image each, as it is the same in all places; else all data.
    """
    if isinstance(images, Sprites):
        for some in images.different().split(4096):
            yield some, images.index_select(0, some.to(images.device))
        return
    start = 0
    for block in images.split(4096):
        yield torch.arange(start, start + len(block)), block
        start += len(block)


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
        factors: The columns that are what the data were made of, and how many classes each has:
            their values are 0, 1, ... below that.
        factor_values: By factor, where they are known, what its classes stand for, ``(size,)``.
        factor_types: By factor, where it is known, how its classes lie.
        classes: What the labels 0, 1, ... are called, where they were given as words.
        features: What the components of a datum are called, ``(D,)``, where it is a row of a table.

    Raises:
        UsageError: A factor is no column of all three splits, or has other values, or a type is
            unknown or of no factor.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    description: str
    binarize: Binarize
    factors: Mapping[str, int] = field(default_factory=dict)
    factor_values: Mapping[str, Tensor] = field(default_factory=dict)
    factor_types: Mapping[str, FactorType] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, size in self.factors.items():
            for split in (self.train, self.valid, self.test):
                column = split.columns.get(name)
                if column is None or column.dtype != torch.int64 or column.ndim != 1:
                    there = ", ".join(split.columns) or "none"
                    raise UsageError(
                        f"{self.name}: the factor {name!r} is no column of whole numbers, one for "
                        f"each datum, in all splits; columns there: {there}"
                    )
                if len(column) and not 0 <= int(column.min()) <= int(column.max()) < size:
                    raise UsageError(
                        f"{self.name}: the factor {name!r} has values from {int(column.min())} to "
                        f"{int(column.max())}; number its {size} classes 0 to {size - 1}"
                    )
        for name, kind in self.factor_types.items():
            if name not in self.factors or kind not in get_args(FactorType):
                raise UsageError(
                    f"{self.name}: the type of the factor {name!r} is {kind!r}; types are "
                    f"{', '.join(get_args(FactorType))}, and factors {', '.join(self.factors)}"
                )

    @property
    def event_shape(self) -> tuple[int, ...]:
        r"""The shape of one datum, (C, H, W) for images."""
        return tuple(self.train.images.shape[1:])

    @property
    def num_classes(self) -> int | None:
        r"""One more than the greatest label of all splits; None where training data have none."""
        known = [part.labels for part in (self.train, self.valid, self.test)]
        if known[0] is None:
            return None
        return max(int(labels.max()) for labels in known if labels is not None) + 1

    def called(self, labels: Tensor) -> np.ndarray:
        r"""Labels by the names of their classes, ``(n,)``, empty where not known; else numbers."""
        numbers = labels.cpu().numpy()
        # the last name is that of -1
        return np.array([*self.classes, ""])[numbers] if self.classes else numbers

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
        r"""The mean of the training data, :math:`\frac{1}{N} \sum_n x_n`, float32.

        Of what is not missing; 0 for a component that always is.
        """
        images = self.train.images
        if isinstance(images, Sprites):
            total, seen = images.total(), torch.tensor(len(images))
        else:
            # in blocks: one sum over the whole set would hold a float64 copy of it
            total = torch.zeros(self.event_shape, dtype=torch.float64)
            seen = torch.zeros(self.event_shape, dtype=torch.int64)
            for block in images.split(4096):
                known = block.nan_to_num(0.0) if block.is_floating_point() else block
                total += known.sum(0, dtype=torch.float64)
                seen += len(block) - block.isnan().sum(0)
        return (total / (seen.clamp(min=1) * self.train.scale)).float()

    def index_of(self, factors: Tensor) -> Tensor:
        r"""Where among the training data the datum of some combinations of all factors is.

        Arguments:
            factors: Their classes, in the order of `factors`, int64, ``(B, K)``.

        Returns:
            The positions, int64, ``(B,)``, in memory of the CPU.

        Raises:
            UsageError: There is no such class, or the training data do not have every combination
                once, or no factors.
        """
        sizes = tuple(self.factors.values())
        given = factors.cpu().numpy()
        if not sizes or given.ndim != 2 or given.shape[1] != len(sizes):
            raise UsageError(
                f"{self.name} has {len(sizes)} factors ({', '.join(self.factors) or 'none'}), and "
                f"what is asked for has shape {tuple(given.shape)}; it must be (B, {len(sizes)})"
            )
        wrong = (given < 0) | (given >= np.array(sizes))
        if wrong.any():
            row, which = np.argwhere(wrong)[0]
            raise UsageError(
                f"{self.name}: {list(self.factors)[which]} is {given[row, which]}; its classes are "
                f"0 to {sizes[which] - 1}"
            )
        return self._places[torch.from_numpy(np.ravel_multi_index(tuple(given.T), sizes))]

    @cached_property
    def _places(self) -> Tensor:
        # by the number of a combination, of which the last factor is the last digit
        sizes, n = tuple(self.factors.values()), len(self.train)
        count = math.prod(sizes)
        columns = tuple(self.train.columns[name].numpy() for name in self.factors)
        numbers = np.ravel_multi_index(columns, sizes)
        if n != count or (np.bincount(numbers, minlength=count) != 1).any():
            raise UsageError(
                f"{self.name} has {n:,} training data, and not each of the {count:,} combinations "
                "of its factors once"
            )
        places = torch.empty(count, dtype=torch.int64)
        places[torch.from_numpy(numbers)] = torch.arange(n)
        return places


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
