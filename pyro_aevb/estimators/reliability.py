r"""How far the mean of ``log_likelihood`` is to be relied on: what its draws leave, and say."""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

if TYPE_CHECKING:
    from pyro_aevb.estimators.marginal import Marginals

Found = dict[str, Any]
UNRELIABLE = 0.7
r"""Above this Pareto k-hat an importance-sampling estimate should not be relied on."""
TAIL_FROM = 25
r"""Draws from which on a tail can be fitted."""
TRUSTED = 0.05
r"""The share of data with an unreliable estimate above which their mean is not reliable."""
CONVERGED = 0.05
r"""Nats per datum by which an estimate may be off, or still rise, unremarked."""


@np.errstate(invalid="ignore")
def monte_carlo_error(marginals: "Marginals") -> float:
    r"""The standard error of the mean over data of ``log_likelihood`` that its draws leave.

    .. math::
        \frac{1}{N} \sqrt{\sum_n v_n}, \qquad v_n = \sum_s a_{sn}^2 r_{sn}, \qquad
        a_{sn} = \frac{p(x_n|w_s)}{\sum_t p(x_n|w_t)},

    with :math:`r_{sn}` the relative variance of the estimate of :math:`p(x_n|w_s)`; the draws of
    the weights are held fixed.
    """
    share = softmax(marginals.log_likelihood, axis=0)
    of_datum = (share**2 * marginals.relative_variance).sum(0)
    # Of weights that are all equal rounding may leave a variance below 0.
    return float(np.sqrt(of_datum.clip(0).sum()) / len(of_datum))


def reliability(marginals: "Marginals", spot_check: Found | None = None) -> Found:
    r"""Whether ``log_likelihood`` is to be relied on, and what says so.

    Returns:
        ``share_above_0.7``, of the data, by the worst draw of the weights; ``share_unknown``, whose
        draws are too few to tell; ``share_annealed``; ``reliable``: the first two are together at
        most :data:`TRUSTED`, and annealing is not higher by more than its error; and the
        ``spot_check``, if there is one.
    """
    annealed = (marginals.num_temperatures > 0).any(0)
    unknown = (np.isnan(marginals.pareto_k) & (marginals.num_samples < TAIL_FROM)).any(0)
    unknown &= ~annealed
    shares = {
        "share_above_0.7": float(_above(marginals.pareto_k).mean()),
        "share_unknown": float(unknown.mean()),
        "share_annealed": float(annealed.mean()),
    }
    trusted = shares["share_above_0.7"] + shares["share_unknown"] <= TRUSTED
    found: Found = {**shares, "reliable": trusted and not contradicts(spot_check)}
    return found if spot_check is None else {**found, "spot_check": spot_check}


def contradicts(spot_check: Found | None) -> bool:
    r"""Whether annealing is above an estimate by more than its error explains."""
    if not spot_check or spot_check["value"] is None:
        return False
    return bool(spot_check["value"] > max(CONVERGED, 2 * (spot_check["standard_error"] or 0.0)))


def tails(pareto_k: np.ndarray) -> Found:
    r"""The tails of importance weights in few numbers: ``pareto_k``, the mean over data of the
    worst draw of the weights, and ``share_above_0.7``; nothing where no tail is known.

    Arguments:
        pareto_k: ``(S, N)``, NaN where there is no tail to fit.
    """
    worst = worst_tails(pareto_k)
    known = worst[np.isfinite(worst)]
    if not len(known):
        return {}
    return {"pareto_k": float(known.mean()), "share_above_0.7": float(_above(pareto_k).mean())}


def worst_tails(pareto_k: np.ndarray) -> np.ndarray:
    r"""k-hat of the worst draw of the weights, ``(N,)``; minus infinity where none is known."""
    worst: np.ndarray = np.nan_to_num(pareto_k, nan=-np.inf).max(0)
    return worst


def _above(pareto_k: np.ndarray) -> np.ndarray:
    above: np.ndarray = worst_tails(pareto_k) > UNRELIABLE
    return above
