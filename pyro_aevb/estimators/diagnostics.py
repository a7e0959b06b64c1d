r"""The health of importance weights and of the latent code."""

import numpy as np
from torch import Tensor

from pyro_aevb.estimators.log_weights import LogWeights

ACTIVE = 0.01
r"""A latent dimension is active if the variance of its code over data exceeds this."""


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""Kish's effective sample size of each datum's weights.

    .. math:: \mathrm{ESS}_n = \frac{(\sum_k \omega_{nk})^2}{\sum_k \omega_{nk}^2} \in [1, K]

    Arguments:
        log_weights: ``(K, N)``.

    Returns:
        ``(N,)``; K where all weights of a datum are equal.
    """
    return _all_at_once(log_weights).effective_sample_size()


def pareto_k(log_weights: Tensor) -> Tensor:
    r"""The tail shape k-hat of each datum's weights, as Pareto-smoothed sampling fits it.

    Below 0.7 the importance-sampling estimate can be relied on; above it the estimate is
    dominated by a few draws and usually too low. Needs K >= 25 for a tail of five; with fewer
    draws, and for constant weights, there is no tail to fit and the value is NaN.

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024)
        https://arxiv.org/abs/1507.02646

    Arguments:
        log_weights: ``(K, N)``.

    Returns:
        ``(N,)``, float64.
    """
    return _all_at_once(log_weights).pareto_k()


def _all_at_once(log_weights: Tensor) -> LogWeights:
    weights = LogWeights(len(log_weights), tail=True)
    weights.add(log_weights)
    return weights


def active_units(codes: np.ndarray) -> int:
    r"""The number of latent dimensions in use: :math:`\mathrm{Var}_x(\mathrm{E}_q[z|x]) > 0.01`.

    References:
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016), section 5.1.2
        https://arxiv.org/abs/1509.00519

    Arguments:
        codes: Posterior means, ``(N, d)``.
    """
    return int((codes.var(0, ddof=1) > ACTIVE).sum()) if len(codes) > 1 else 0
