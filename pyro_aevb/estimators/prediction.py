r"""How far reconstructions lie from the data, in the data's own units, whatever the likelihood.

Log-likelihoods under a Bernoulli, a Gaussian and a continuous Bernoulli are of different kinds, and
their nats cannot be compared. The mean that a pair predicts for a datum from its own codes can,

.. math::
    y_{nd} = \frac{1}{S} \sum_s \mathrm{E}[x_d \mid z_{ns}, w_s], \qquad
    z_{ns} \sim q(z \mid x_n, w_s), \; w_s \sim q(w),

by its root mean square distance from the D components of N data, and by whether it can be believed:

.. math::
    \text{rmse} = \sqrt{\frac{1}{N D} \sum_{n, d} (x_{nd} - y_{nd})^2}, \qquad
    \text{mean\_calibration\_error} = \sum_b \frac{N_b}{N D}
    \Big| \frac{1}{N_b} \sum_{(n, d) \in b} (x_{nd} - y_{nd}) \Big|,

where the second sorts components by :math:`y_{nd}` into :data:`BINS` bins of equal width from the
least to the greatest value of the data: of all pixels that are predicted to be 0.3, the mean should
be 0.3. It is never negative, and small for any pair that predicts the overall mean: read it beside
the first. The standard error of the first is that of its square, over data, by the delta method.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyro_aevb.data.batch import data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.streams import blocks_of, numbered, seeded
from pyro_aevb.errors import UsageError, at_least_one
from pyro_aevb.estimators.estimator import Estimator, Found
from pyro_aevb.estimators.metrics import Metric
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.estimators.work import Work
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.predict import decode, latents, shown_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyro_aevb.runs.prepare import Prepared

BINS = 15
r"""Of the calibration of the means."""
UNIT = "units of x"


@torch.no_grad()
def prediction(
    pair: Pair,
    batches: Batches,
    num_draws: int = 10,
    seed: int = 0,
    progress: "Callable[[int], None] | None" = None,
) -> dict[str, Metric]:
    r"""Distance and calibration of the predicted means.

    Arguments:
        pair: An inspected pair.
        batches: The data, N of them.
        num_draws: S, draws of codes and weights that are averaged over.
        seed: Fixes the draws.
        progress: Called with the number of data done, of :math:`S N` in all.

    Returns:
        ``rmse`` and ``mean_calibration_error``, in the data's units.

    Raises:
        UsageError: The likelihood has no mean, or one of another shape than the data; the pair
            reads the data that it is to predict; or the number of draws is below 1.
    """
    at_least_one("num_draws", num_draws)
    few = batches.take(torch.arange(min(2, len(batches))))
    if shown_by(pair, few) != "mean":
        assert pair.description is not None
        raise UsageError(
            f"{pair.name}: prediction compares means with the data, and a likelihood of "
            f"{pair.description.likelihood} has none"
        )
    shape = tuple(data_of(few).shape[1:])
    if (found := tuple(decode(pair, latents(pair, few), few).shape[1:])) != shape:
        raise UsageError(
            f"{pair.name}: prediction compares means with the data, of shape {shape}, and those "
            f"of its likelihood have shape {found}"
        )
    low, high = _range(batches)
    squares, gaps = [], np.zeros(BINS)
    draws = [weight_draw(pair, few, seed, s)[0] for s in range(num_draws)]
    for block, x in blocks_of(batches, numbered(len(batches))):
        total = torch.zeros_like(data_of(x), dtype=torch.float64)
        for s, weights in enumerate(draws):
            with seeded(x.device, seed, block, s):
                values = latents(pair, x, sample=True, given=weights)
            total += decode(pair, {**values, **weights}, x)
            if progress is not None:
                progress(len(x))
        y = (total / num_draws).flatten(1).cpu().numpy()
        seen = data_of(x).double().flatten(1).cpu().numpy()
        squares.append(np.square(seen - y).mean(1))
        gaps += _gaps(seen, y, low, high)
    return _metrics(np.concatenate(squares), gaps, math.prod(shape), num_draws=num_draws)


def compared(x: np.ndarray, y: np.ndarray) -> dict[str, Metric]:
    r"""``rmse`` and ``mean_calibration_error`` of predictions that are known, ``(N, D)`` each."""
    gaps = _gaps(x, y, float(x.min()), float(x.max()))
    return _metrics(np.square(x - y).mean(1), gaps, x.shape[1])


def _gaps(x: np.ndarray, y: np.ndarray, low: float, high: float) -> np.ndarray:
    r"""The sum of x - y over the components of each bin, ``(BINS,)``."""
    number = np.clip((BINS * (y - low) / (high - low or 1.0)).astype(int), 0, BINS - 1)
    return np.bincount(number.ravel(), (x - y).ravel(), BINS)


def _metrics(
    squares: np.ndarray, gaps: np.ndarray, components: int, **counts: int
) -> dict[str, Metric]:
    r"""Both, of the mean square of each datum and the sums of :func:`_gaps`."""
    n, rmse = len(squares), math.sqrt(squares.mean())
    error = squares.std(ddof=1) / math.sqrt(n) / (2 * rmse) if n > 1 and rmse > 0 else None
    told: Metric = {**counts, "num_data": n, "unit": UNIT}
    calibration = float(np.abs(gaps).sum() / (n * components))
    return {
        "rmse": {"value": rmse, "standard_error": error, **told},
        "mean_calibration_error": {"value": calibration, **told},
    }


def _range(batches: Batches) -> tuple[float, float]:
    r"""The least and the greatest value of the data."""
    ends = [
        (float(data_of(x).min()), float(data_of(x).max()))
        for _, x in blocks_of(batches, numbered(len(batches)))
    ]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _prediction(prepared: "Prepared", test: Batches, work: Work, **settings: Any) -> Found:
    with work.progress("predicted means", settings["num_draws"] * len(test), "datum") as step:
        return prediction(prepared.pair, test, **settings, progress=step), {}


PREDICTION = Estimator("prediction", _prediction, onto=prediction)
