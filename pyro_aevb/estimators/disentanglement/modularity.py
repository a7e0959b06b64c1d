r"""Modularity: whether each dimension speaks of one factor alone.

With the information :math:`I_{ji}` of factor j in dimension i (:mod:`.information`) and the factor
:math:`j^*` that dimension i says most of,

.. math::
    \text{modularity} = \frac{1}{d} \sum_i \Big( 1 - \frac{1}{K - 1} \sum_{j \ne j^*}
    \frac{I_{ji}^2}{I_{j^* i}^2} \Big),

a number without unit between 0 and 1, 1 for a code of which each dimension depends on one factor.
It does not ask whether a factor is in one dimension alone, or in any: codes with duplicated
dimensions have 1 too. A dimension without any information, a constant, counts 0, but one of noise
counts by the noise of its histogram, which is what chance is here, and is far from 0: read it
beside its chance level.

References:
    | Learning Deep Disentangled Embeddings With the F-Statistic Loss (Ridgeway and Mozer, 2018),
      section 2
    | https://arxiv.org/abs/1802.05312
"""

import numpy as np

from pyro_aevb.errors import at_least_one
from pyro_aevb.estimators.disentanglement.information import Histograms
from pyro_aevb.estimators.disentanglement.score import Score, bootstrap

NOTHING = 1e-12
r"""Nats of information below which a dimension has none, but for rounding."""


def modularity_of(information: np.ndarray) -> float:
    r"""Modularity from the information ``(K, d)`` of factors in dimensions, in any unit."""
    squares = information**2
    most = squares.max(0)
    rest = squares.sum(0) - most
    informed = information.max(0) > NOTHING
    shares = rest / np.where(informed, most, 1.0) / (len(information) - 1)
    return float(np.where(informed, 1 - shares, 0.0).mean())


def modularity(
    codes: np.ndarray,
    factors: np.ndarray,
    bins: int = 20,
    resamples: int = 100,
    seed: int = 0,
) -> Score:
    r"""Modularity, with its bootstrap standard error over rows.

    Arguments:
        codes: ``(N, d)``.
        factors: ``(N, K)``.
        bins: Of each dimension.
        resamples: Of the bootstrap; none with 0.
        seed: Fixes them.
    """
    at_least_one("bins", bins)
    histograms = Histograms(codes, factors, bins)

    def of(weights: np.ndarray | None = None) -> np.ndarray:
        return np.array(modularity_of(histograms.information(weights)[0]))

    error = bootstrap(of, histograms.n, resamples, seed)
    return Score(float(of()), None if error is None else float(error))
