r"""What is taken from ArviZ, whose interface differs between 0.x (Python 3.11) and 1.x."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np


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


def _elpd(pointwise: Any) -> Any:
    n = pointwise.size
    total, error = float(pointwise.sum()), float(np.sqrt(n * pointwise.var()))
    try:
        from arviz_stats.utils import ELPDData as Elpd
    except ImportError:
        from arviz.stats.stats_utils import ELPDData as Elpd

        values = [total, error, 0.0, 1, n, False, pointwise, "log"]
        index = ["elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i"]
        return Elpd(data=values, index=[*index, "scale"])
    counts = {"n_samples": 1, "n_data_points": n, "p": 0.0, "good_k": 0.7}
    return Elpd(elpd=total, se=error, scale="log", warning=False, elpd_i=pointwise, **counts)
