r"""Scores under corrupted input: the guide sees :math:`\tilde x`, the model scores the clean x.

For a corruption :math:`c(\tilde x|x)` every quantity is that of the guide
:math:`q(z|\tilde x)` for x, averaged over :math:`c`: ``reconstruction`` becomes
:math:`\mathrm{E}_{c(\tilde x|x) q(z|\tilde x)}[\log p(x|z)]`, ``elbo`` stays a bound on
:math:`\log p(x)`, and so does ``iwae_bound``, which with a guide led astray comes out lower.
"""

from collections.abc import Sequence

import numpy as np

from pyro_aevb.estimators.importance import Scores
from pyro_aevb.estimators.metrics import Metric, log_mean, measured, undefined

QUANTITIES = ("reconstruction", "reconstruction_mean", "kl", "elbo", "iwae_bound")


@np.errstate(invalid="ignore")  # infinite values have no difference and no spread
def robustness(draws: Sequence[Scores], clean: Scores, reason: str | None) -> dict[str, Metric]:
    r"""Quantities under several draws of a corruption, beside those of clean input.

    Each is a mean over draws and data with its ``standard_error`` over data, ``spread``, the
    standard deviation over draws of the corruption of the mean over data (None for one draw), and
    ``change``, the mean and the standard error of the paired per-datum differences to ``clean``
    input. In nats per datum.

    Arguments:
        draws: Scores of the same data, one for each draw of the corruption.
        clean: Their scores without it.
        reason: Why what needs a density of the latents is not defined, if it is not.
    """
    metrics = {}
    for name in QUANTITIES:
        before = _per_datum(clean, name)
        if before is None:
            metrics[name] = undefined(reason or "not computed")
            continue
        after = np.stack([np.asarray(_per_datum(scores, name)) for scores in draws])
        metrics[name] = {
            **measured(after),
            "spread": float(after.mean(1).std(ddof=1)) if len(draws) > 1 else None,
            "clean": measured(before),
            "change": measured(after.mean(0) - before),
        }
    return metrics


def _per_datum(scores: Scores, name: str) -> np.ndarray | None:
    if name == "iwae_bound":
        return None if scores.log_weight is None else log_mean(scores.log_weight)
    values: np.ndarray | None = getattr(scores, name)
    return values.mean(0) if values is not None and values.ndim == 2 else values
