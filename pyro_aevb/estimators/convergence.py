r"""How an estimate of the log-likelihood still moves with the number of its draws.

Both the estimate from K importance samples and that from S draws of the weights rise in
expectation with every further draw, by Jensen's inequality, towards what they estimate. What the
last doubling added tells how far that still is: where the weights have a finite variance the bias
falls as 1/K, so that as much is still missing, and where they have not, more is.

References:
    | Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016), theorem 1
    | https://arxiv.org/abs/1509.00519
    | Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018), section 3
    | https://arxiv.org/abs/1802.04537
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from pyro_aevb.estimators.importance import Scores
from pyro_aevb.estimators.log_weights import milestones


class Curve(NamedTuple):
    r"""A log-likelihood from fewer draws than there are, per datum and in nats."""

    counts: tuple[int, ...]
    r"""L numbers of draws, rising; the last are half of all, rounded down, and all."""
    values: np.ndarray
    r"""(L, N): the estimate from so many draws."""

    def rise(self) -> np.ndarray:
        r"""What the last doubling of the number of draws added, per datum, ``(N,)``."""
        half = self.counts.index(self.counts[-1] // 2)
        added: np.ndarray = self.values[-1] - self.values[half]
        return added


def against_samples(scores: Scores) -> Curve | None:
    r"""The log-likelihood against the number of importance samples.

    .. math:: \log \frac{1}{S} \sum_s \frac{1}{k} \sum_{i \le k} \omega_{sni}, \qquad k \le K,

    from the first k of the same draws.

    Returns:
        The curve; None where the scores hold none, or K is 1.
    """
    if scores.curve is None or scores.num_samples < 2:
        return None
    values = logsumexp(scores.curve, axis=0) - math.log(scores.weight_samples)
    return Curve(scores.looks, values)


def against_weights(log_weight: np.ndarray) -> Curve | None:
    r"""The log-likelihood against the number of draws of the weights.

    .. math::
        \frac{1}{G} \sum_{g=1}^{G} \log \frac{1}{s} \sum_{i=1}^{s} p(x_n|w_{(g-1)s+i}),
        \qquad G = \lfloor S / s \rfloor,

    the mean over as many groups of s draws as there are: from ``expected_log_likelihood``, s = 1,
    to ``log_likelihood``, s = S.

    Arguments:
        log_weight: :math:`\log p(x_n|w_s)`, ``(S, N)``.

    Returns:
        The curve; None for one draw.
    """
    S, n = log_weight.shape
    if S < 2:
        return None
    counts = milestones(S)
    values = [
        (logsumexp(log_weight[: S // s * s].reshape(-1, s, n), axis=1) - math.log(s)).mean(0)
        for s in counts
    ]
    return Curve(counts, np.stack(values))
