r"""Named quantities from per-datum scores: value, standard error, sample counts, or why not.

All in nats per datum, higher is better, except the counts and the health of the weights.
Averages over the global latents w are over q(w).

===========================  =================================================================
``reconstruction``           :math:`\mathrm{E}_{q(w)q(z|x)}[\log p(x|z,w)]`, sampled codes; where
                             several sites are observed, of all, with the ``shares`` of each
``reconstruction_mean``      :math:`\log p(x|z,w)` at the means of z and w; never compare the two
``reconstruction_mixture``   :math:`\log \mathrm{E}_{q(w)q(z|x)}[p(x|z,w)]`, codes without a density
``kl``                       :math:`\mathrm{E}_{q(w)} \mathrm{KL}(q(z|x) \| p(z))`
``weight_kl``                :math:`\mathrm{KL}(q(w) \| p(w)) / N`
``elbo``                     :math:`\mathrm{E}_{q(w)}[` ``reconstruction`` - ``kl`` :math:`]`
``training_elbo``            training-set ``elbo`` - ``weight_kl``, bounds :math:`\log p(D) / N`
``iwae_bound``               a bound on ``log_likelihood``: its estimate by K draws of the guide
``log_likelihood``           :math:`\log \mathrm{E}_{q(w)}[p(x|w)]`, by :mod:`~.estimators.marginal`
``expected_log_likelihood``  :math:`\mathrm{E}_{q(w)}[\log p(x|w)]`, the same draws
``log_likelihood_variance``  :math:`\mathrm{Var}_{q(w)}[\log p(x|w)]`, the same draws
``gap``                      ``log_likelihood`` - ``elbo``
``rise``                     what the last doubling of K added to ``iwae_bound``
``weight_rise``              what the last doubling of S added to ``log_likelihood``
``active_units``             latent dimensions with :math:`\mathrm{Var}_x(\mathrm{E}_q[z|x]) > 0.01`
``ess``, ``pareto_k``        health of the weights of ``log_likelihood``, mean over data
===========================  =================================================================
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import logsumexp

from pyro_aevb.data.batch import Data
from pyro_aevb.estimators.convergence import Curve, against_samples, against_weights
from pyro_aevb.estimators.importance import Scores
from pyro_aevb.estimators.reliability import (
    TAIL_FROM,
    monte_carlo_error,
    reliability,
    tails,
    worst_tails,
)
from pyro_aevb.estimators.reliability import (
    UNRELIABLE as UNRELIABLE,  # for those who import it from here
)
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.pairs.density import closed_form_kls, log_prob, run
from pyro_aevb.pairs.description import Description
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair

if TYPE_CHECKING:
    from pyro_aevb.estimators.marginal import Marginals

Metric = dict[str, Any]
ACTIVE = 0.01
r"""A latent dimension is active if the variance of its code over data exceeds this."""
FEW = "needs more than one importance sample (--num-samples)"


ONE = "needs more than one datum"
r"""Why a quantity of the spread over data is not defined."""


@np.errstate(invalid="ignore")  # an infinite value has no standard error
def measured(values: np.ndarray, **counts: float) -> Metric:
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


def log_mean(values: np.ndarray) -> np.ndarray:
    r"""The logarithm of the mean of densities over weight draws, ``(N,)``.

    Arguments:
        values: Their logarithms, such as :math:`\log p(x_n|w_s)`, ``(S, N)``.
    """
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
    test: Scores,
    marginals: "Marginals | None",
    train: Scores,
    description: Description,
    weights: np.ndarray | None,
    spot_check: Metric | None = None,
) -> dict[str, Metric]:
    r"""Every quantity of the table above, in its order.

    Arguments:
        test: Scores of the test split.
        marginals: Estimates of log p(x|w) of the test split under the same draws of the weights;
            None where the latents have no density.
        train: Scores of the training split, with few samples.
        description: The pair's.
        weights: Draws of ``weight_kl``, or None where it is not defined.
        spot_check: By how much annealing is above `marginals` on a few data, with a standard error.
    """
    counts = {"num_samples": test.num_samples}
    if description.global_sites:
        counts["weight_samples"] = test.weight_samples
    reason = description.undefined()
    metrics = {"reconstruction": measured(test.reconstruction, **counts)}
    if test.shares:
        metrics["reconstruction"]["shares"] = {
            name: measured(values)["value"] for name, values in test.shares.items()
        }
    if test.reconstruction_mean is not None:
        metrics["reconstruction_mean"] = measured(test.reconstruction_mean)
    if description.global_sites and test.log_weight is None and test.num_samples == 1:
        metrics["reconstruction_mixture"] = measured(log_mean(test.reconstruction), **counts)
    if description.enumerated:  # drawn from the prior, not from what the data say of it
        metrics = {name: undefined(reason or "enumerated") for name in metrics}
    no_local = None if description.local_sites else "the pair has no local latent sites"
    if test.kl is not None:
        metrics["kl"] = measured(test.kl, **counts)
    else:
        metrics["kl"] = undefined(reason or no_local or "not computed")
    if weights is not None:
        metrics["weight_kl"] = measured(weights, weight_samples=len(weights))
    else:
        metrics["weight_kl"] = undefined(description.weights_undefined() or "not computed")
    if test.elbo is None or marginals is None or train.elbo is None:
        bounds = ("elbo", "training_elbo", "iwae_bound", "log_likelihood")
        moves = ("log_likelihood_variance", "rise", "weight_rise")
        names = (*bounds, "expected_log_likelihood", "gap", *moves)
        metrics |= {name: undefined(reason or "not computed") for name in names}
    else:
        metrics["elbo"] = measured(test.elbo, **counts)
        metrics["training_elbo"] = _training_elbo(train, description, metrics["weight_kl"])
        metrics["iwae_bound"] = undefined(no_local) if no_local else _iwae_bound(test, counts)
        metrics |= _likelihoods(test.elbo, marginals, description, spot_check)
        metrics["rise"] = _rise(against_samples(test), no_local or FEW, "num_samples")
        no_draws = _no_draws(description)
        metrics["weight_rise"] = _rise(
            against_weights(marginals.log_likelihood), no_draws, "weight_samples"
        )
    if test.codes and len(next(iter(test.codes.values()))) < 2:
        metrics["active_units"] = undefined(ONE)
    elif test.codes:
        units = {"value": sum(active_units(codes) for codes in test.codes.values())}
        units["latent_dim"] = sum(codes.shape[1] for codes in test.codes.values())
        metrics["active_units"] = units
    else:
        metrics["active_units"] = undefined(no_local or "not computed")
    return metrics | _health(marginals, reason or no_local)


def _no_draws(description: Description) -> str:
    reason = description.weights_undefined() if not description.global_sites else None
    return reason or "needs more than one draw of the weights (--weight-samples)"


def _iwae_bound(test: Scores, counts: dict[str, int]) -> Metric:
    r"""What K draws of the guide give, and how far it can be taken for more than a bound."""
    assert test.log_weight is not None
    metric = measured(log_mean(test.log_weight), **counts)
    if test.ess is not None and test.pareto_k is not None:
        metric["ess"] = float(test.ess.mean())
        metric |= tails(test.pareto_k)
    return metric


def _likelihoods(
    elbo: np.ndarray, marginals: "Marginals", description: Description, spot_check: Metric | None
) -> dict[str, Metric]:
    r"""``log_likelihood``, and what is computed from the same draws."""
    given = marginals.log_likelihood
    counts = _drawn(marginals)
    if description.global_sites:
        counts["weight_samples"] = len(given)
    known = not description.local_sites or marginals.num_samples.max() > 1
    error = monte_carlo_error(marginals) if known else None  # one draw says nothing of it
    metrics = {
        "log_likelihood": {
            **measured(log_mean(given), **counts),
            "monte_carlo_error": error,
        },
        "expected_log_likelihood": measured(given, **counts)
        if description.global_sites
        else undefined("the weights are points, so it equals log_likelihood"),
        "gap": measured(log_mean(given) - elbo.mean(0), **counts),
        "log_likelihood_variance": measured(given.var(0, ddof=1), **counts)
        if len(given) > 1
        else undefined(_no_draws(description)),
    }
    if description.local_sites:  # without them p(x|w) is known and not drawn for
        metrics["log_likelihood"] |= {
            "most_samples": int(marginals.num_samples.max()),
            "proposal": marginals.proposal,
            **reliability(marginals, spot_check),
        }
    return metrics


def _drawn(marginals: "Marginals") -> dict[str, float]:
    r"""How many draws a datum took, on average."""
    mean = float(marginals.num_samples.mean())
    return {"num_samples": int(mean) if mean.is_integer() else mean}


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


def _health(marginals: "Marginals | None", reason: str | None) -> dict[str, Metric]:
    if reason is not None or marginals is None or marginals.num_samples.max() < 2:
        why = reason or FEW
        return {"ess": undefined(why), "pareto_k": undefined(why)}
    counts, k_hat = _drawn(marginals), undefined(f"needs at least {TAIL_FROM} draws that differ")
    if tail := tails(marginals.pareto_k):
        worst = worst_tails(marginals.pareto_k)
        k_hat = measured(worst[np.isfinite(worst)], **counts)
        k_hat["share_above_0.7"] = tail["share_above_0.7"]
    return {"ess": measured(marginals.ess, **counts), "pareto_k": k_hat}
