r"""What is taken from ArviZ, whose interface differs between 0.x (Python 3.11) and 1.x."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from pyro_aevb.estimators.reliability import UNRELIABLE


def compare_pointwise(log_likelihoods: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    r"""ArviZ's ``compare`` on per-datum test log-likelihoods of the same data.

    Arguments:
        log_likelihoods: ``(N,)`` for each name, two names or more.

    Returns:
        For each name, best first: ``difference`` to the best in nats per datum (0 or less), its
        paired ``standard_error``, and the stacking ``weight``.
    """
    import xarray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz

        # Differences and stacking weights do not change when a datum's values are shifted together;
        # exp(log p) of images would underflow.
        shift = np.max(np.stack(list(log_likelihoods.values())), axis=0)
        entries = {
            name: _elpd(xarray.DataArray(values - shift, dims=["datum"]))
            for name, values in log_likelihoods.items()
        }
        options: dict[str, Any] = {} if hasattr(arviz, "psislw") else {"round_to": "none"}
        table = arviz.compare(entries, method="stacking", **options)
    n = len(shift)
    return {
        str(name): {
            "difference": -abs(float(row["elpd_diff"])) / n,
            # ArviZ divides by N, every other standard error here by N - 1.
            "standard_error": float(row["dse"]) / n * (n / (n - 1)) ** 0.5,
            "weight": float(row["weight"]),
        }
        for name, row in table.iterrows()
    }


def elpd(pointwise: np.ndarray, num_draws: int = 1, pareto_k: np.ndarray | None = None) -> Any:
    r"""Log-densities of held-out data as ArviZ's ``compare`` and ``plot_khat`` take them.

    ArviZ knows one kind for such numbers, and prints them under its name ``loo``; nothing is left
    out, as the data were not trained on, and the effective number of parameters is 0.

    Arguments:
        pointwise: log p(x) in nats, ``(N,)``.
        num_draws: How many draws of the weights it is averaged over.
        pareto_k: The shape of the tail of each estimate's weights, ``(N,)``.

    Returns:
        An ``ELPDData``.
    """
    import xarray

    tails = None if pareto_k is None else xarray.DataArray(pareto_k, dims=["datum"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _elpd(xarray.DataArray(pointwise, dims=["datum"]), num_draws, tails)


def _elpd(pointwise: Any, num_draws: int = 1, tails: Any = None) -> Any:
    n = pointwise.size
    total, error = float(pointwise.sum()), float(np.sqrt(n * pointwise.var()))
    bad = tails is not None and bool((tails > UNRELIABLE).any())
    try:
        import arviz_stats.utils as kinds
    except ImportError:
        from arviz.stats.stats_utils import ELPDData as Elpd

        found: dict[str, Any] = {
            "elpd_loo": total,
            "se": error,
            "p_loo": 0.0,
            "n_samples": num_draws,
        }
        found |= {"n_data_points": n, "warning": bad, "loo_i": pointwise}
        found |= {} if tails is None else {"pareto_k": tails}
        found |= {"scale": "log", "good_k": UNRELIABLE}
        return Elpd(data=list(found.values()), index=list(found))
    # Later ones have a class for each kind; the first ones have the kind "loo" by default.
    of_kind: Any = getattr(kinds, "ELPDDataLOO", kinds.ELPDData)
    counts = {"n_samples": num_draws, "n_data_points": n, "p": 0.0, "good_k": UNRELIABLE}
    more = {"elpd_i": pointwise, "pareto_k": tails, "warning": bad, "scale": "log"}
    return of_kind(elpd=total, se=error, **counts, **more)
