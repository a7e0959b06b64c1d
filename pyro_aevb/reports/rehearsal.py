r"""What comes after training, tried on two data before it: what fails is known then."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from pyro_aevb.errors import one_line
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.latents import latent_health, no_density
from pyro_aevb.estimators.metrics import weight_kl
from pyro_aevb.pairs.predict import generate, reconstruct, traverse
from pyro_aevb.pairs.state.python import untouched
from pyro_aevb.reports.figures import drawn, like_data
from pyro_aevb.runs.prepare import Prepared

T = TypeVar("T")


def attempt(make: Callable[[], T]) -> tuple[T | None, str | None]:
    r"""A summary, or why there is none: one that fails must not cost the others."""
    try:
        return make(), None
    except Exception as error:  # of a pair's code
        return None, f"it could not be computed, {type(error).__name__}: {one_line(error)}"


@torch.no_grad()
def rehearse(prepared: Prepared) -> list[str]:
    r"""Score two data, and decode them as pictures do, to know before any training what fails.

    Leaves everything as it was.

    Returns:
        In a line each, what will not be drawn or computed, and why.

    Raises:
        UsageError: The pair cannot be scored.
    """
    pair, description = prepared.pair, prepared.description
    few = prepared.test.first(min(2, len(prepared.test)))
    x = few.take(torch.arange(len(few)))
    undrawn: list[str] = []
    with untouched(pair.python, [x.device]):
        Scorer(pair, 2, 1)(few)
        if no_density(description) is None and len(few) > 1:
            _, reason = attempt(lambda: latent_health(pair, few))
            undrawn += [f"note: no mutual_information: {reason}"] if reason else []
        if description.weights_undefined() is None:
            _, reason = attempt(lambda: weight_kl(pair, x, 1, 0))
            undrawn += [f"note: no weight_kl: {reason}"] if reason else []
        if description.no_x() is None:
            with drawn("reconstructions.png", undrawn):
                like_data(reconstruct(pair, x), x)
            if description.no_prior() is None:
                with drawn("samples.png", undrawn):
                    like_data(generate(pair, x), x)
            if [len(site.event_shape) for site in description.local_sites] == [1]:
                with drawn("what lies along the code", undrawn):
                    traverse(pair, x[:1], [0], np.array([0.0]))
    return undrawn
