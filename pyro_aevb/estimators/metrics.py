r"""Named quantities from per-datum scores: value, standard error, sample counts, or why not.

All in nats per datum, higher is better, except the counts and the health of the weights.
Averages over the global latents w are over q(w).

===========================  =================================================================
``reconstruction``           :math:`\mathrm{E}_{q(w)q(z|x)}[\log p(x|z,w)]`, sampled codes
``reconstruction_mean``      :math:`\log p(x|z,w)` at the means of z and w; never compare the two
``reconstruction_mixture``   :math:`\log \mathrm{E}_{q(w)q(z|x)}[p(x|z,w)]`, codes without a density
``kl``                       :math:`\mathrm{E}_{q(w)} \mathrm{KL}(q(z|x) \| p(z))`
``weight_kl``                :math:`\mathrm{KL}(q(w) \| p(w)) / N`
``elbo``                     :math:`\mathrm{E}_{q(w)}[` ``reconstruction`` - ``kl`` :math:`]`
``training_elbo``            training-set ``elbo`` - ``weight_kl``, bounds :math:`\log p(D) / N`
``log_likelihood``           :math:`\log \mathrm{E}_{q(w)}[p(x|w)]`, importance samples
``expected_log_likelihood``  :math:`\mathrm{E}_{q(w)}[\log p(x|w)]`, the same draws
``log_likelihood_variance``  :math:`\mathrm{Var}_{q(w)}[\log p(x|w)]`, the same draws
``gap``                      ``log_likelihood`` - ``elbo``
``rise``, ``weight_rise``    what the last doubling of K, or of S, added to ``log_likelihood``
``active_units``             latent dimensions with :math:`\mathrm{Var}_x(\mathrm{E}_q[z|x]) > 0.01`
``ess``, ``pareto_k``        health of the importance weights, mean over data
===========================  =================================================================
"""

import math
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp

from pyro_aevb.data.batch import Data
from pyro_aevb.estimators.convergence import Curve, against_samples, against_weights
from pyro_aevb.estimators.importance import Scores
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.pairs.density import closed_form_kls, log_prob, run
from pyro_aevb.pairs.description import Description
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair

Metric = dict[str, Any]
ACTIVE = 0.01
r"""A latent dimension is active if the variance of its code over data exceeds this."""
FEW = "needs more than one importance sample (--num-samples)"
UNRELIABLE = 0.7
r"""Above this Pareto k-hat an importance-sampling estimate should not be relied on."""


@np.errstate(invalid="ignore")  # an infinite value has no standard error
def measured(values: np.ndarray, **counts: int) -> Metric:
    r"""A mean over data with its standard error.

    Arguments:
        values: One value per datum, ``(N,)``, or per weight draw and datum, ``(S, N)``.
        counts: Sample counts to state beside it.
    """
    per_datum = values.mean(0) if values.ndim == 2 else values
    n = len(per_datum)
    error = float(per_datum.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return {"value": float(per_datum.mean()), "standard_error": error, **counts}


def active_units(codes: np.ndarray) -> int:
    r"""The number of latent dimensions in use: :math:`\mathrm{Var}_x(\mathrm{E}_q[z|x]) > 0.01`.

    References:
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016), section 5.1.2
        https://arxiv.org/abs/1509.00519

    Arguments:
        codes: Posterior means, ``(N, d)``.
    """
    return int((codes.var(0, ddof=1) > ACTIVE).sum()) if len(codes) > 1 else 0


def undefined(reason: str) -> Metric:
    r"""A quantity that is not defined for the pair, and why."""
    return {"value": None, "reason": reason}


def log_likelihood(scores: Scores) -> np.ndarray:
    r"""Per-datum :math:`\log \frac{1}{S} \sum_s p(x_n|w_s)`, ``(N,)``."""
    assert scores.log_weight is not None
    return _log_mean(scores.log_weight)


def _log_mean(values: np.ndarray) -> np.ndarray:
    r"""The logarithm of the mean over weight draws of densities given by their logarithms."""
    mixture: np.ndarray = logsumexp(values, axis=0) - math.log(len(values))
    return mixture


@torch.no_grad()
def weight_kl(pair: Pair, x: Data, samples: int, seed: int) -> np.ndarray:
    r"""KL(q(w) || p(w)) / N of a pair with global latents, one value per draw of w.

    Closed form per site where PyTorch knows it and guide and model draw the sites in the same
    order, else :math:`\log q(w) - \log p(w)` at the draw, which has the KL as its mean.

    Arguments:
        pair: An inspected pair with global sites that have densities.
        x: A few data.
        samples: Draws of w, the first that a :class:`~.importance.Scorer` of the same seed makes.
        seed: Fixes the draws.

    Returns:
        ``(samples,)``, in nats per datum.
    """
    description = pair.description
    assert description is not None and description.plate_size is not None
    values = []
    with pair.active(), WholeBatch():
        for s in range(samples):
            weights, posterior = weight_draw(pair, x, seed, s)
            prior = run(pair.model, x, weights)
            closed = {} if description.auxiliary else closed_form_kls(posterior, prior, 1.0)
            total = 0.0
            for name, site in posterior.items():
                if name in closed:
                    total += float(closed[name].sum())
                    continue
                total += float(log_prob(site, 1.0).sum())
                if name in prior:
                    total -= float(log_prob(prior[name], 1.0).sum())
            values.append(total / description.plate_size)
    return np.array(values)


@np.errstate(invalid="ignore")  # nor a difference to another one
def summarize(
    test: Scores, train: Scores, description: Description, weights: np.ndarray | None
) -> dict[str, Metric]:
    r"""Every quantity of the table above, in its order.

    Arguments:
        test: Scores of the test split.
        train: Scores of the training split, with few samples.
        description: The pair's.
        weights: Draws of ``weight_kl``, or None where it is not defined.
    """
    counts = {"num_samples": test.num_samples}
    if description.global_sites:
        counts["weight_samples"] = test.weight_samples
    reason = description.undefined()
    metrics = {"reconstruction": measured(test.reconstruction, **counts)}
    if test.reconstruction_mean is not None:
        metrics["reconstruction_mean"] = measured(test.reconstruction_mean)
    if description.global_sites and test.log_weight is None and test.num_samples == 1:
        metrics["reconstruction_mixture"] = measured(_log_mean(test.reconstruction), **counts)
    if description.enumerated:  # drawn from the prior, not from what the data say of it
        metrics = {name: undefined(reason or "enumerated") for name in metrics}
    no_local = None if description.local_sites else "the pair has no local latent sites"
    if test.kl is not None:
        metrics["kl"] = measured(test.kl, **counts)
    else:
        metrics["kl"] = undefined(reason or no_local or "not computed")
    if weights is not None:
        metrics["weight_kl"] = measured(weights, weight_samples=len(weights))
        metrics["weight_kl"]["standard_error"] = metrics["weight_kl"]["standard_error"] or 0.0
    else:
        metrics["weight_kl"] = undefined(description.weights_undefined() or "not computed")
    bounds = ("elbo", "training_elbo", "log_likelihood", "expected_log_likelihood", "gap")
    moves = ("log_likelihood_variance", "rise", "weight_rise")
    if test.elbo is None or test.log_weight is None or train.elbo is None:
        metrics |= {name: undefined(reason or "not computed") for name in (*bounds, *moves)}
    else:
        per_datum = log_likelihood(test)
        metrics["elbo"] = measured(test.elbo, **counts)
        metrics["training_elbo"] = _training_elbo(train, description, metrics["weight_kl"])
        metrics["log_likelihood"] = measured(per_datum, **counts)
        metrics["expected_log_likelihood"] = (
            measured(test.log_weight, **counts)
            if description.global_sites
            else undefined("the weights are points, so it equals log_likelihood")
        )
        metrics["gap"] = measured(per_datum - test.elbo.mean(0), **counts)
        no_draws = description.weights_undefined() if not description.global_sites else None
        no_draws = no_draws or "needs more than one draw of the weights (--weight-samples)"
        metrics["log_likelihood_variance"] = (
            measured(test.log_weight.var(0, ddof=1), **counts)
            if test.weight_samples > 1
            else undefined(no_draws)
        )
        metrics["rise"] = _rise(against_samples(test), no_local or FEW, "num_samples")
        metrics["weight_rise"] = _rise(against_weights(test.log_weight), no_draws, "weight_samples")
    if test.codes:
        units = {"value": sum(active_units(codes) for codes in test.codes.values())}
        units["latent_dim"] = sum(codes.shape[1] for codes in test.codes.values())
        metrics["active_units"] = units
    else:
        metrics["active_units"] = undefined(no_local or "not computed")
    metrics |= _health(test, reason or no_local, counts)
    return metrics


def _rise(curve: Curve | None, reason: str, count: str) -> Metric:
    if curve is None:
        return undefined(reason)
    points = [measured(values) for values in curve.values]
    return {
        **measured(curve.rise()),
        count: curve.counts[-1],
        "curve": {
            count: list(curve.counts),
            "value": [point["value"] for point in points],
            "standard_error": [point["standard_error"] for point in points],
        },
    }


def _training_elbo(train: Scores, description: Description, kl: Metric) -> Metric:
    assert train.elbo is not None
    counts = {"num_samples": train.num_samples, "num_data": train.elbo.shape[1]}
    bound = measured(train.elbo, **counts)
    if not description.global_sites:
        return bound
    if kl["value"] is None:
        return undefined(kl["reason"])
    bound["value"] -= kl["value"]
    bound["weight_samples"] = train.weight_samples
    return bound


def _health(test: Scores, reason: str | None, counts: dict[str, int]) -> dict[str, Metric]:
    if test.ess is None or test.pareto_k is None:
        why = reason or FEW
        return {"ess": undefined(why), "pareto_k": undefined(why)}
    worst = np.nan_to_num(test.pareto_k, nan=-np.inf).max(0)
    known = worst[np.isfinite(worst)]
    k_hat = undefined("needs at least 25 importance samples that differ")
    if len(known):
        k_hat = measured(known, **counts) | {"share_above_0.7": float((worst > UNRELIABLE).mean())}
    return {"ess": measured(test.ess, **counts), "pareto_k": k_hat}
