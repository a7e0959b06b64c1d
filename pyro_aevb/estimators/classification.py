r"""What a classifier is worth: its error, and whether its probabilities can be believed.

With the predictive probabilities :math:`p(c|x) = \mathrm{E}_{q(w)}[p(c|x, w)]` of the classes c,

.. math::
    \text{classification\_error} = \frac{1}{N} \sum_n 1[\arg\max_c p(c|x_n) \ne y_n], \qquad
    \text{calibration\_error} = \sum_b \frac{N_b}{N}
    \Big| \frac{1}{N_b} \sum_{n \in b} 1[\arg\max_c p(c|x_n) = y_n] - \max_c p(c|x_n) \Big|,

both in per cent of the data. The error's standard error is the binomial one,
:math:`\sqrt{e (1 - e) / N}`; the calibration error sorts data into :data:`BINS` bins of equal width
by :math:`\max_c p(c|x_n)`, and is never negative, so it is above 0 for a calibrated classifier too.
The third number of a classifier, the mean of :math:`-\log p(y_n|x_n)`, is minus the run's
``log_likelihood``.

References:
    | On Calibration of Modern Neural Networks (Guo, Pleiss, Sun and Weinberger, 2017)
    | https://proceedings.mlr.press/v70/guo17a.html
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.streams import blocks_of, numbered
from pyro_aevb.estimators.metrics import Metric
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.predict import class_log_prob

BINS = 15
r"""Of the calibration error."""


@dataclass(frozen=True)
class Predictions:
    r"""What a classifier says of N data with C classes.

    Arguments:
        log_prob: Predictive log-probabilities, float64, ``(N, C)``.
        label: The classes that the data have, int64, ``(N,)``.
    """

    log_prob: np.ndarray
    label: np.ndarray

    def wrong(self) -> np.ndarray:
        r"""Whether the most probable class is another one, boolean, ``(N,)``."""
        missed: np.ndarray = self.log_prob.argmax(1) != self.label
        return missed

    def calibration_error(self) -> float:
        r"""As a share of the data, 0 to 1."""
        sure, right = np.exp(self.log_prob.max(1)), ~self.wrong()
        number = np.minimum((sure * BINS).astype(int), BINS - 1)
        gaps = np.bincount(number, right - sure, BINS)
        return float(np.abs(gaps).sum() / len(sure))

    def metrics(self) -> dict[str, Metric]:
        r"""Both, in per cent."""
        calibration = {"value": 100 * self.calibration_error(), "unit": "%"}
        return {
            "classification_error": error_metric(self.wrong()),
            "calibration_error": calibration,
        }


def error_metric(wrong: np.ndarray) -> Metric:
    r"""The share of wrong predictions, ``(N,)``, in per cent, with its binomial standard error."""
    error = float(wrong.mean())
    spread = math.sqrt(error * (1 - error) / len(wrong))
    return {"value": 100 * error, "standard_error": 100 * spread, "unit": "%"}


@torch.no_grad()
def predict(
    pair: Pair, batches: Batches, weight_samples: int = 1, seed: int = 0
) -> Predictions | None:
    r"""The predictive probabilities of a classifier; None where the pair is none.

    Arguments:
        pair: An inspected pair.
        batches: The data, with their labels.
        weight_samples: S, draws of the global latents that are averaged over. 1 if there are none.
        seed: Fixes the draws, which are those of all other estimators.
    """
    description = pair.description
    assert description is not None, "inspect the pair first"
    if not description.classifies():
        return None
    draws = range(weight_samples if description.global_sites else 1)
    found, labels = [], []
    with pair.running():
        few = batches.take(torch.arange(min(2, len(batches))))
        weights = [weight_draw(pair, few, seed, s)[0] for s in draws]
        for _, x in blocks_of(batches, numbered(len(batches))):
            log_prob, label = class_log_prob(pair, x, weights)
            found.append(log_prob.cpu().numpy())
            labels.append(label.cpu().numpy())
    return Predictions(np.concatenate(found), np.concatenate(labels))
