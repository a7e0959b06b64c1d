r"""How well per-datum scores tell other data from those that a pair was trained for.

With :math:`\ell_s = \log p(x|w_s)` for draws :math:`w_1, \dots, w_S` of the weights, by K draws
of the guide, or :math:`\log p(x|z, w_s)` where the codes have no density:

- ``iwae_bound``, :math:`\log \frac{1}{S} \sum_s e^{\ell_s}`: lower is foreign;
- ``expected_log_likelihood``, :math:`\frac{1}{S} \sum_s \ell_s`: lower is foreign;
- ``log_likelihood_variance``, :math:`\mathrm{Var}_s[\ell_s]`, over S - 1: higher is foreign;
- ``waic``, expected minus variance: lower is foreign;
- ``disagreement``, :math:`\sum_s \omega_s^2` of :math:`\omega_s = e^{\ell_s} / \sum_t e^{\ell_t}`:
  higher is foreign.

``disagreement`` lies between 1/S, where all draws find a datum equally likely, and 1. It is the
inverse of the effective sample size that Daxberger and Hernández-Lobato call the disagreement
score, so that more of it is more disagreement. ``elbo`` and ``reconstruction`` stand beside them,
averaged over draws; where the codes have no density ``reconstruction_mixture`` takes the place of
``iwae_bound``. Point weights leave the scores that need no draws.

References:
    | Bayesian Variational Autoencoders for Unsupervised Out-of-Distribution Detection
      (Daxberger and Hernández-Lobato, 2019)
    | https://arxiv.org/abs/1912.05651
    | WAIC, but Why? Generative Ensembles for Robust Anomaly Detection (Choi et al., 2018)
    | https://arxiv.org/abs/1810.01392
    | Do Deep Generative Models Know What They Don't Know? (Nalisnick et al., 2019)
    | https://arxiv.org/abs/1810.09136
"""

import math

import numpy as np
from scipy.special import softmax

from pyro_aevb.estimators.importance import Scores
from pyro_aevb.estimators.metrics import Metric, log_mean, measured, undefined

HIGHER_IS_FOREIGN = ("log_likelihood_variance", "disagreement")


def scores_of(scores: Scores) -> dict[str, np.ndarray]:
    r"""Every score of the list above that is defined, per datum, ``(N,)``."""
    values: dict[str, np.ndarray] = {}
    given = scores.reconstruction
    if scores.log_weight is not None and scores.elbo is not None:
        given = scores.log_weight
        values["iwae_bound"] = log_mean(given)
        values["elbo"] = scores.elbo.mean(0)
    values["reconstruction"] = scores.reconstruction.mean(0)
    if len(given) > 1:
        variance = given.var(0, ddof=1)
        values["expected_log_likelihood"] = given.mean(0)
        values["log_likelihood_variance"] = variance
        values["waic"] = given.mean(0) - variance
        values["disagreement"] = (softmax(given, axis=0) ** 2).sum(0)
        if "iwae_bound" not in values:
            values["reconstruction_mixture"] = log_mean(given)
    return values


def separation(test: Scores, other: Scores, reason: str) -> dict[str, Metric]:
    r"""For each score the AUROC by which it finds the other data among the test data.

    Arguments:
        test: Scores of data like the training data.
        other: Scores of the others, from the same draws of the weights.
        reason: Why the pair has no draws of the weights, if it has none.

    Returns:
        For each score ``value``, the AUROC, and its ``standard_error``, and the means of both sets.
    """
    ours, theirs = scores_of(test), scores_of(other)
    metrics = {}
    for name, values in ours.items():
        sign = 1.0 if name in HIGHER_IS_FOREIGN else -1.0
        value, error = auroc(sign * values, sign * theirs[name])
        metrics[name] = {
            "value": value,
            "standard_error": error,
            "test": measured(values),
            "other": measured(theirs[name]),
        }
    return metrics if "waic" in ours else metrics | {"waic": undefined(reason)}


def auroc(usual: np.ndarray, foreign: np.ndarray) -> tuple[float, float | None]:
    r"""The area under the ROC curve, :math:`P(f > u) + \frac{1}{2} P(f = u)`.

    Its standard error is DeLong's,
    :math:`\sqrt{\mathrm{Var}_i[A_i] / m + \mathrm{Var}_j[A_j] / n}`, where :math:`A_i` is the area
    with the i-th of m usual data alone, :math:`A_j` with the j-th of n foreign ones.

    References:
        | Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves
          (DeLong, DeLong and Clarke-Pearson, 1988)
        | https://doi.org/10.2307/2531595

    Arguments:
        usual: Scores of data that should score low, ``(m,)``.
        foreign: Scores of data that should score high, ``(n,)``.

    Returns:
        The area, and its standard error, None where a side has one datum. Infinite scores rank as
        such; among scores that are no numbers there is no order, and the area is none either.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

    m, n = len(usual), len(foreign)
    ranks = rankdata(np.concatenate([usual, foreign]))
    if np.isnan(ranks).any():
        return math.nan, None
    area = float(roc_auc_score(np.repeat([0, 1], [m, n]), ranks))
    if min(m, n) < 2:
        return area, None
    of_usual = 1 - (ranks[:m] - rankdata(usual)) / n
    of_foreign = (ranks[m:] - rankdata(foreign)) / m
    return area, math.sqrt(of_usual.var(ddof=1) / m + of_foreign.var(ddof=1) / n)
