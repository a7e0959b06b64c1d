r"""The codes of a run's data, and the factors that they are held against."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.streams import blocks_of, numbered, seeded
from pyro_aevb.errors import UsageError, hint, one_of
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.pairs.density import run
from pyro_aevb.pairs.handlers import AtMean, typical
from pyro_aevb.pairs.pair import Pair

if TYPE_CHECKING:
    from pyro_aevb.data.split import Split
    from pyro_aevb.runs.prepare import Prepared

SPLITS = ("auto", "test", "train")
LEAST = 100
r"""Data below which nothing can be said."""


@torch.no_grad()
def mean_codes(
    pair: Pair,
    batches: Batches,
    seed: int = 0,
    draw: int = 0,
    progress: Callable[[int], object] | None = None,
    sample: bool = False,
) -> np.ndarray:
    r"""The guide's means :math:`\mathrm{E}_q[z|x, w_s]` of all local sites side by side.

    Sites without a mean, such as the index of a class, are left out. Of a pair whose guide marks a
    code as matched (``infer={"matched": True}``) that code alone is taken: what stands beside it,
    such as InfoGAN's noise, is not inferred from the data.

    Arguments:
        pair: An inspected pair.
        batches: The data, looked at once, in blocks.
        seed: Fixes the draws of the global latents.
        draw: s, the number of the draw; without global latents it changes nothing.
        progress: Called with the number of data that have been coded.
        sample: A draw from the guide in place of its mean.

    Returns:
        ``(N, d)``, float32.

    Raises:
        UsageError: There is no local site with a mean.
    """
    description = pair.description
    assert description is not None, "inspect the pair first"
    found: list[np.ndarray] = []
    every = description.local_sites
    names = [site.name for site in every if site.matched] or [site.name for site in every]
    with pair.running():
        weights = weight_draw(pair, batches.take(torch.arange(min(2, len(batches)))), seed, draw)[0]
        guide = pair.guide if sample else AtMean()(pair.guide)
        for number, x in blocks_of(batches, numbered(len(batches))):
            with seeded(batches.device, seed, number, 1) if sample else nullcontext():
                sites = run(guide, x, weights)
            local = [sites[name] for name in names if name in sites]
            real = [site["value"] for site in local if typical(site["fn"])[1] == "mean"]
            if not real:
                raise UsageError(
                    f"{pair.name} has no codes to compare with factors: no local latent site of "
                    "its guide has a mean"
                )
            parts = [value.reshape(len(x), -1) for value in real]
            found.append(torch.cat(parts, 1).float().cpu().numpy())
            if progress is not None:
                progress(len(x))
    return np.concatenate(found)


def choose_factors(prepared: "Prepared", names: str = "") -> list[str]:
    r"""Which columns are factors.

    Arguments:
        prepared: The pair and its data.
        names: Their names, divided by commas; default those that the data set calls its factors,
            else all columns of whole numbers but ``label``.

    Raises:
        UsageError: There is no such column of whole numbers, or fewer than two.
    """
    columns = prepared.data.test.columns
    whole = [name for name, c in columns.items() if c.dtype == torch.int64 and c.ndim == 1]
    declared = list(getattr(prepared.data, "factors", None) or ())
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in whole:
            raise UsageError(
                f"--estimator disentanglement: factors: the test data have no column {name!r} of "
                f"whole numbers{hint(name, whole)}; they have {', '.join(whole) or 'none'}"
            )
    chosen = list(dict.fromkeys(asked or declared or [n for n in whole if n != "label"]))
    if len(chosen) < 2:
        there = ", ".join(chosen) or "none"
        raise UsageError(
            f"--estimator disentanglement needs two or more factors, columns of whole numbers, and "
            f"{prepared.data.name} has {there}; say with factors which columns they are"
        )
    return chosen


def coded_split(
    prepared: "Prepared", test: Batches, names: list[str], split: str = "auto"
) -> tuple[Batches, np.ndarray, str]:
    r"""The data whose codes are looked at, and their factors.

    Arguments:
        prepared: The pair and its data.
        test: The test data, or the first of them.
        names: See :func:`choose_factors`.
        split: ``test``, ``train``, or ``auto``: the training data if they are all combinations of
            the factors that the data set declares, and all test data are asked for; else the test
            data.

    Returns:
        The data, their factors ``(N, K)``, int64, and which split they are of.

    Raises:
        UsageError: There are too few, or the split has no such columns.
    """
    one_of("--estimator disentanglement: split", split, SPLITS)
    if split == "auto":
        declared = getattr(prepared.data, "factors", None) or {}
        every = math.prod(declared.values()) if declared else -1
        whole = len(prepared.data.train) == every and len(test) == len(prepared.test)
        split = "train" if whole else "test"
    of: Split = prepared.data.train if split == "train" else prepared.data.test
    batches = prepared.fixed_train if split == "train" else test
    if missing := [name for name in names if name not in of.columns]:
        raise UsageError(f"the {split} data have no column {missing[0]!r}")
    if len(batches) < LEAST:
        raise UsageError(
            f"--estimator disentanglement: {len(batches)} data are too few; it takes {LEAST}"
        )
    factors = np.stack([of.columns[name][: len(batches)].cpu().numpy() for name in names], 1)
    for name, column in zip(names, factors.T, strict=True):
        counts = np.unique(column, return_counts=True)[1]
        if len(counts) < 2 or counts.max() < 2:
            why = "one value" if len(counts) < 2 else "another value for each datum"
            raise UsageError(
                f"--estimator disentanglement: the column {name!r} has {why}; say with factors "
                "which columns are the factors"
            )
    return batches, factors, split
