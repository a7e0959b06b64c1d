r"""The Parzen window log-likelihood: a kernel density estimate around samples of a pair.

.. math::
    \log \hat p(x) = \log \frac{1}{L} \sum_{l=1}^L \mathcal{N}(x; y_l, \sigma^2 I), \qquad
    y_l = \mathrm{E}[x|z_l, w_l], \quad z_l \sim p(z), \; w_l \sim q(w),

with the bandwidth :math:`\sigma` that gives validation data the highest mean. It needs no density
of the codes, and is therefore what adversarial autoencoders are compared by.

It is here for comparison with published figures, and no measure of a model: in many dimensions it
falls short of the log-likelihood by hundreds of nats and orders models wrongly (Wu et al., 2017).
Nor is it comparable with any other quantity here, as it is the density of grey pixels under
mean images with noise added.

References:
    | Adversarial Autoencoders (Makhzani et al., 2016), section 3
    | https://arxiv.org/abs/1511.05644
    | A Note on the Evaluation of Generative Models (Theis et al., 2016)
    | https://arxiv.org/abs/1511.01844
    | On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017)
    | https://arxiv.org/abs/1611.04273
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.batch import data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.streams import seeded
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.estimator import Estimator, Found
from pyro_aevb.estimators.log_weights import LogWeights
from pyro_aevb.estimators.metrics import Metric, measured
from pyro_aevb.estimators.work import Work
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.predict import generate, reconstruct, shown_by

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared

VALID = 1000
r"""Validation data by which the bandwidth is chosen."""
BLOCK = 500
r"""Samples that are decoded together, under one draw of the weights."""
COARSE, FINE = np.geomspace(0.05, 1.5, 35), np.geomspace(0.9, 1.1, 21)
r"""Bandwidths that are tried, in units of the root mean square distance between a validation datum
and a sample per dimension; then around the best of them, in units of it."""


@torch.no_grad()
def parzen(
    pair: Pair,
    test: Batches,
    valid: Batches,
    num_kernels: int = 10_000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> tuple[Metric, np.ndarray]:
    r"""The Parzen window log-likelihood of test data, in nats per datum.

    Arguments:
        pair: An inspected pair whose prior can be drawn from.
        test: The data to score.
        valid: The data to choose the bandwidth by.
        num_kernels: L. They are made anew when they are needed again, so memory does not grow.
        seed: Fixes the samples.
        progress: Called with the number of samples done, of :math:`3L` in all.

    Returns:
        The metric, with the ``bandwidth``, and the per-datum values, ``(N,)``.

    Raises:
        UsageError: The prior is masked out, so there is nothing to draw from; or the likelihood
            has no mean to put a kernel on, or one of another shape than the data; or all samples
            equal all validation data.
    """
    x, y = (data_of(b.take(torch.arange(len(b)))).flatten(1) for b in (valid, test))
    like = valid.take(torch.zeros(1, dtype=torch.int64))
    if shown_by(pair, like) != "mean":
        assert pair.description is not None
        raise UsageError(
            f"{pair.name}: parzen is a density around means of the data, and a likelihood of "
            f"{pair.description.likelihood} has none"
        )
    if (shape := tuple(reconstruct(pair, like).shape[1:])) != tuple(like.shape[1:]):
        raise UsageError(
            f"{pair.name}: parzen is a density around means of the data, of shape "
            f"{tuple(like.shape[1:])}, and those of its likelihood have shape {shape}"
        )

    def samples() -> Iterator[Tensor]:
        for start in range(0, num_kernels, BLOCK):
            index = torch.arange(start, min(start + BLOCK, num_kernels)) % len(valid)
            batch = valid.take(index)  # a pair that is told labels draws for those of these data
            with seeded(like.device, seed, 1 + start // BLOCK):
                yield generate(pair, batch).flatten(1)
            if progress is not None:
                progress(len(batch))

    scale = math.sqrt(_squares(x, next(iter(samples()))).mean().item() / x.shape[1])
    if scale == 0:
        raise UsageError(
            f"{pair.name}: every validation datum equals every sample, so that there is no width "
            "of a Parzen window to choose"
        )
    for tried in (COARSE, FINE):
        means = log_density(x, samples(), scale * tried).mean(1)
        scale *= tried[int(means.argmax())]
    per_datum = log_density(y, samples(), [scale])[0].cpu().numpy()
    metric = measured(per_datum, num_kernels=num_kernels, num_data=len(test))
    return {**metric, "bandwidth": float(scale), "num_valid": len(valid)}, per_datum


def log_density(x: Tensor, samples: Iterable[Tensor], bandwidths: Iterable[float]) -> Tensor:
    r"""Gaussian kernel density estimates around samples that arrive in blocks.

    Arguments:
        x: Where to evaluate, ``(N, D)``.
        samples: Blocks ``(k, D)``, L in all.
        bandwidths: B values of :math:`\sigma`.

    Returns:
        :math:`\log \frac{1}{L} \sum_l \mathcal{N}(x_n; y_l, \sigma_b^2 I)`, ``(B, N)``, float64.
    """
    sums = {float(bandwidth): LogWeights(0) for bandwidth in bandwidths}
    for block in samples:
        squares = _squares(x, block)
        for bandwidth, total in sums.items():
            total.add(squares / (-2 * bandwidth**2))
    constant = {bandwidth: math.log(2 * math.pi * bandwidth**2) for bandwidth in sums}
    return torch.stack([sums[b].log_mean() - x.shape[1] / 2 * constant[b] for b in sums])


def _squares(x: Tensor, y: Tensor) -> Tensor:
    r"""Squared distances ``(k, N)`` of ``(N, D)`` from ``(k, D)``."""
    centre = x.mean(0)  # less is lost to cancellation
    x, y = x - centre, y - centre
    return ((y**2).sum(1, keepdim=True) + (x**2).sum(1) - 2 * y @ x.T).clamp_min(0).double()


def _parzen(prepared: "Prepared", test: Batches, work: Work, **settings: Any) -> Found:
    seen = prepared.pair.columns_in
    grey, valid = (
        Batches(split, "none", test.device, seen(split)).first(min(most, len(split)))
        for split, most in ((prepared.data.test, len(test)), (prepared.data.valid, VALID))
    )
    with work.progress("parzen window", 3 * settings["num_kernels"], "sample") as step:
        metric, per_datum = parzen(prepared.pair, grey, valid, **settings, progress=step)
    return {"parzen": metric}, {"parzen": per_datum}


def _warning(metrics: Mapping[str, Metric]) -> str:
    beside = "ais_lower says what the model is worth"
    if metrics.get("ais_lower", {"value": None})["value"] is None:
        beside = "ais_lower has not been computed, which would say what the model is worth"
    return (
        f"parzen (bandwidth {metrics['parzen']['bandwidth']:.3f}) is here for comparison with "
        f"published figures only: it orders models wrongly (Wu et al., 2017); {beside}"
    )


PARZEN = Estimator(
    "parzen",
    _parzen,
    onto=parzen,
    warning=_warning,
    of_test="its bandwidth is chosen on the validation data",
)
