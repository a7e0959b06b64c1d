r"""The mutual information gap: how far each factor's best dimension is ahead of its second.

.. math::
    \text{mig} = \frac{1}{K} \sum_j \frac{1}{H(v_j)} \Big( I_{j i^*} - \max_{i \ne i^*} I_{ji}
    \Big), \qquad i^* = \arg\max_i I_{ji},

with the information of :mod:`.information`, a number without unit between 0 and 1. A code with one
dimension for each factor has 1, if the bins tell all values of the factor apart (with 20 bins, 20
values at most); one whose dimensions say nothing, or in which two say the same, has 0. Chance is
slightly above 0, the gap between the two largest of d noises.

References:
    | Isolating Sources of Disentanglement in Variational Autoencoders (Chen, Li, Grosse and
      Duvenaud, 2018), section 4
    | https://arxiv.org/abs/1802.04942
"""

from typing import NamedTuple

import numpy as np

from pyro_aevb.errors import at_least_one
from pyro_aevb.estimators.disentanglement.information import Histograms
from pyro_aevb.estimators.disentanglement.modularity import NOTHING
from pyro_aevb.estimators.disentanglement.score import Score, bootstrap, gaps


class Mig(NamedTuple):
    r"""The gap and what it is made of."""

    score: Score
    share: np.ndarray
    r"""``(K, d)``: information as a share of the factor's entropy, between 0 and 1."""
    gaps: np.ndarray
    r"""``(K,)``: the gap of each factor, of which the score is the mean."""


def mig(
    codes: np.ndarray,
    factors: np.ndarray,
    bins: int = 20,
    resamples: int = 100,
    seed: int = 0,
) -> Mig:
    r"""The gap, with its bootstrap standard error over rows.

    Arguments:
        codes: ``(N, d)``.
        factors: ``(N, K)``.
        bins: Of each dimension.
        resamples: Of the bootstrap; none with 0.
        seed: Fixes them.
    """
    at_least_one("bins", bins)
    histograms = Histograms(codes, factors, bins)

    def share(weights: np.ndarray | None = None) -> np.ndarray:
        information, entropy = histograms.information(weights)
        # A resample may have one value of a factor alone, of which there is nothing to know.
        return information / np.where(entropy > NOTHING, entropy, np.nan)[:, None]

    whole = share()
    apart = gaps(whole)
    error = bootstrap(lambda w: gaps(share(w)).mean(), histograms.n, resamples, seed)
    score = Score(float(apart.mean()), None if error is None else float(error))
    return Mig(score, whole, apart)
