r"""How much a reconstruction depends on which weights it is made with."""

import numpy as np
import torch

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import Data
from pyro_aevb.pairs.density import at_least_two
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.predict import decode, latents

DRAWS = 20
r"""S, draws of the weights."""


@torch.no_grad()
def over_weights(pair: Pair, x: Data, draws: int = DRAWS) -> np.ndarray | None:
    r"""The standard deviation of the reconstruction of data over the weights.

    That is, of :math:`\mathrm{E}[x'|z_s, w_s]` over draws :math:`w_s \sim q(w)`, s = 1, ..., S,
    with :math:`z_s` the mean of :math:`q(z|x, w_s)`; the noise of the likelihood and of the codes
    is no part of it. With S - 1 in the denominator, in units of x.

    Arguments:
        pair: An inspected pair.
        x: The data, ``(B, *event_shape)``, with the columns that the pair takes.
        draws: S, at least 2.

    Returns:
        ``(B, *event_shape)``; None of a pair without global latents, or whose guide draws none of
        them, so that all deviations are 0.
    """
    assert pair.description is not None
    names = [site.name for site in pair.description.global_sites]
    if not names:
        return None
    few = at_least_two(x)[:2]
    first, same, mean, squares = None, True, np.zeros(()), np.zeros(())
    for s in range(1, draws + 1):
        drawn = latents(pair, few, sample=True)
        weights = {name: drawn[name] for name in names}
        decoded = decode(pair, latents(pair, x, given=weights), x)
        one = as_numpy(decoded).astype(np.float64)
        first = one if first is None else first
        same = same and np.array_equal(first, one)
        step = one - mean  # Welford's recurrence: no draw is kept
        mean = mean + step / s
        squares = squares + step * (one - mean)
    return None if same else np.sqrt(squares / (draws - 1))
