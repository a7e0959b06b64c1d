r"""Data outside a likelihood's support: what is scored at them would be no log-density."""

from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import looked_through
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.pairs.density import at_least_two, family, run_both
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.state.python import untouched


def outside(side: str, site: dict[str, Any]) -> str:
    r"""What to say of a site's value that its distribution refuses."""
    fn, low, high = site["fn"], *(float(f()) for f in (site["value"].min, site["value"].max))
    support = getattr(fn.support, "base_constraint", fn.support)
    bounds = " ".join(str(support).split())
    if "tensor" in bounds:  # one for each component
        bounds = type(support).__name__.lstrip("_")
    remedy = "rescale the data, or take a likelihood for such values"
    if family(fn) == "Bernoulli" and 0 <= low and high <= 1:
        remedy = (
            "for grey pixels under a Bernoulli use --binarize dynamic, or "
            "Bernoulli(..., validate_args=False) for their cross-entropy"
        )
    if not site["is_observed"]:
        remedy = "the guide may draw there alone: push its draws into that range by a transform"
        if side == "guide":
            remedy = "of a support that is declared wrongly, validate_args=False"
    return (
        f"the value of {side} site {site['name']!r}, from {low:.4g} to {high:.4g}, is outside the "
        f"support of {family(fn)}, {bounds}; {remedy}"
    )


def telling(batches: Batches) -> Tensor:
    r"""The positions of the data of a split that are most likely outside a support.

    Those with the largest and the least value and sum, and the value farthest from a whole number.
    """
    best: dict[int, tuple[float, int]] = {}
    for places, block in looked_through(batches.images):
        flat = block.flatten(1)
        sums = flat.sum(1, dtype=torch.float64)
        known = [flat.amax(1).double(), -flat.amin(1).double(), sums, -sums]
        if flat.is_floating_point():
            known.append((flat - flat.round()).abs().amax(1).double())
        for number, values in enumerate(known):
            value, place = (found.item() for found in values.max(0))
            if number not in best or value > best[number][0]:
                best[number] = value, int(places[int(place)])
    return torch.tensor([place for _, place in best.values()]).unique()


@torch.no_grad()
def check_support(pair: Pair, batches: Batches, split: str) -> None:
    r"""Run a pair on the :func:`telling` data of a split, changing nothing.

    Arguments:
        pair: An inspected pair.
        batches: The split as it is scored.
        split: Its name.

    Raises:
        UsageError: The pair fails on them, or its likelihood has no density there. Not where it
            is declared with ``validate_args=False``.
    """
    assert pair.description is not None, "inspect the pair first"
    observed = pair.description.observed_sites
    with (
        untouched(pair.python, [batches.device]),
        pair.active(),
        pair.evaluating(),
        WholeBatch(),
        pyro.validation_enabled(),
    ):
        x = at_least_two(batches.take(telling(batches)))
        try:
            sites = run_both(pair, x)[1]
        except Exception as error:  # of a pair's code
            said = f"{type(error).__name__}: {one_line(error)}"
            raise UsageError(f"{pair.name} fails on data of the {split} split: {said}") from error
        for site in (sites[name] for name in observed):
            try:
                site["fn"].log_prob(site["value"])
            except ValueError as error:
                said = outside("model", site) if "support" in str(error) else one_line(error)
                raise UsageError(f"{pair.name}, {split} split: {said}") from error
