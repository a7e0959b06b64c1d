r"""A data set that has every combination of some factors once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from pyro_aevb.data.split import SEED, DataSet, FactorType, Split, assemble, shuffled
from pyro_aevb.data.sprites import Sprites

HELD = (5_000, 10_000)
r"""How many validation and test data there are, or a tenth of all data if that is less."""


def combined(
    name: str,
    how: str,
    images: Sprites,
    columns: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    types: Mapping[str, FactorType],
) -> DataSet:
    r"""Make a data set of all combinations of its factors, in a random order.

    As is usual where codes are compared with factors, all data are training data. Validation and
    test data are the last of them: random subsets, which the first n alone (``:n``) do not have
    while n is at most N - 15,000.

    Arguments:
        name: What the set is called.
        how: What its images are.
        images: One for each combination, ``(N, 1, H, W)``.
        columns: By factor, the class of each image, int64, ``(N,)``.
        values: By factor, the value of each class, float64, ``(size,)``.
        types: By factor, how its classes lie.
    """
    whole = shuffled(Split(images, None, 1, columns))
    n = len(whole)
    valid, test = (min(held, n // 10) for held in HELD)
    described = (
        f"{how}; all {n:,} combinations of {', '.join(values)} once, shuffled (seed {SEED}), are "
        "training data; VALIDATION AND TEST DATA ARE THE LAST OF THESE"
    )
    held = whole.subset(slice(n - test - valid, n - test)), whole.subset(slice(n - test, n))
    data = assemble(name, described, "none", whole, *held)
    sizes = {factor: len(table) for factor, table in values.items()}
    return replace(data, factors=sizes, factor_values=dict(values), factor_types=dict(types))
