r"""A look at a few data from another side: annealing from the prior against ``log_likelihood``.

The health of importance weights says nothing of what no draw has visited, such as a mode that
every start has missed. Chains that come from the prior know nothing of the proposal. With few
temperatures they are too low where latents have tens of dimensions, and then say nothing; where
they are higher than the estimate by more than the errors of both, it has missed something.
"""

from collections.abc import Callable

import numpy as np
import torch

from pyro_aevb.data.batches import Batches
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.importance import Compile
from pyro_aevb.estimators.marginal import Marginals
from pyro_aevb.estimators.reliability import Found
from pyro_aevb.pairs.pair import Pair

DATA = 8
r"""How many data are looked at."""
CHAINS, TEMPERATURES, LEAPFROG = 8, 60, 4


def spot_check(
    pair: Pair,
    batches: Batches,
    marginals: Marginals,
    seed: int = 0,
    memory: int | None = None,
    compile: Compile = "auto",
    say: Callable[[str], None] | None = None,
) -> Found:
    r"""Anneal the first :data:`DATA` data, under the first draw of the weights.

    Arguments:
        pair: An inspected pair with latents that can be annealed.
        batches: The data that `marginals` are of.
        marginals: Estimates of their log p(x|w).
        seed, memory, compile, say: See :class:`~.annealing.Annealer`.

    Returns:
        ``value``, how much annealing is above them, in nats per datum; its ``standard_error``, of
        both sides' draws; and ``num_data``, ``num_chains`` and ``num_temperatures``.

    Raises:
        UsageError: As the annealer.
    """
    few = batches.first(min(DATA, len(batches)))
    x = few.take(torch.arange(len(few)))
    how = {"memory": memory, "compile": compile, "say": say}
    found = Annealer(pair, x, CHAINS, TEMPERATURES, LEAPFROG, seed=seed, **how)(few)  # type: ignore
    n = len(few)
    weights = np.exp(found.log_weights - found.log_weights.max(0))
    variance = weights.var(0, ddof=1) / CHAINS / weights.mean(0) ** 2
    variance += marginals.relative_variance[0, :n]
    return {
        "value": float((found.lower() - marginals.log_likelihood[0, :n]).mean()),
        "standard_error": float(np.sqrt(variance.sum()) / n),
        "num_data": n,
        "num_chains": CHAINS,
        "num_temperatures": TEMPERATURES,
    }
