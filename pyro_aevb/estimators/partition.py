r"""log p(x) of a restricted Boltzmann machine: its free energy, and its partition function.

A machine gives :math:`\log p(x) = -F(x) - \log Z`, of which only Z is hard. Where the hidden units,
or Bernoulli visible ones, are few, it is a sum over their states. Elsewhere it is estimated by
annealed importance sampling: machines with parameters

.. math:: \beta W, \quad \beta c, \quad (1 - \beta) b_0 + \beta b,
    \qquad 0 = \beta_0 < \beta_1 < \dots < \beta_T = 1,

lead from one of independent units, the *base-rate model* with visible biases :math:`b_0` that give
the mean of the training data and a known :math:`Z_0`, to the machine. A chain starts at a draw
:math:`v_0` from the first and is moved by one step of Gibbs sampling in each machine in between;
with :math:`F_t` the free energy of the machine at :math:`\beta_t`,

.. math:: \log \omega = \sum_{t=1}^T F_{t-1}(v_{t-1}) - F_t(v_{t-1}), \qquad
    \mathrm{E}[\omega] = Z / Z_0.

So :math:`\log \hat Z = \log Z_0 + \log \frac{1}{M} \sum_m \omega_m` over M chains is in expectation
*below* :math:`\log Z` (Jensen), and more than a nats above it with probability less than
:math:`e^{-a}` (Markov). Then :math:`-F(x) - \log \hat Z` is in expectation *above*
:math:`\log p(x)`, of every datum by the same amount: other than the bounds of pairs with a prior,
it flatters. Chains that never reach a mode of the machine show no sign of it in their spread.

References:
    | On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov and Murray, 2008)
    | https://doi.org/10.1145/1390156.1390266
    | Annealed importance sampling (Neal, 2001)
    | https://arxiv.org/abs/physics/9803008
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyro_aevb.data.batch import data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.streams import blocks_of, numbered, seeded
from pyro_aevb.errors import UsageError, at_least_one, one_of
from pyro_aevb.estimators.estimator import Estimator, Found
from pyro_aevb.estimators.metrics import measured
from pyro_aevb.estimators.work import Work
from pyro_aevb.pairs.pair import Pair

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared

MOST = 20
r"""Units up to which Z is a sum over all their states."""
STATES = 1 << 13
r"""States that are summed over at once."""
METHODS = ("auto", "enumeration", "ais")

Progress = Callable[[int], None] | None


class LogPartition(NamedTuple):
    r"""What is known of log Z."""

    value: float
    r"""In nats."""
    standard_error: float
    r"""From the spread of the weights; 0 of a sum over all states. It knows of no missed mode."""
    log_weights: np.ndarray
    r"""``(M,)``: of every chain an estimate of :math:`\log Z`, float64; none of a sum."""


def inverse_temperatures(count: int) -> Tensor:
    r"""The path's :math:`\beta_0, \dots, \beta_T`, float64, dense towards the machine.

    Uniform within [0, 0.5], [0.5, 0.9] and [0.9, 1], which have 500, 4,000 and 10,000 of every
    14,500 steps, as in the paper.

    Arguments:
        count: T.
    """
    at_least_one("num_temperatures", count)
    place = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    path = np.interp(place.numpy(), np.array([0, 500, 4500, 14500]) / 14500, [0, 0.5, 0.9, 1])
    return torch.from_numpy(path)


@torch.no_grad()
def annealed(
    rbm: Any,
    num_chains: int = 100,
    num_temperatures: int = 10_000,
    seed: int = 0,
    progress: Progress = None,
) -> LogPartition:
    r"""log Z by annealed importance sampling from the base-rate model.

    Arguments:
        rbm: A machine with the attributes of :class:`~pyro_aevb.models.rbm.RBM`, whose
            ``base_bias`` is that of the base-rate model.
        num_chains: M.
        num_temperatures: T.
        seed: Fixes all draws.
        progress: Called with 1 at each of the T temperatures.

    Returns:
        The estimate; its standard error is that of the mean weight, relative to it.
    """
    at_least_one("num_chains", num_chains)
    path, gaussian = inverse_temperatures(num_temperatures), rbm.visible == "gaussian"
    weight, base = rbm.weight.detach(), rbm.base_bias.to(rbm.weight)
    change = rbm.visible_bias.detach() - base
    units, hidden = weight.shape
    sites = (
        0.5 * math.log(2 * math.pi) * units if gaussian else float(softplus(base.double()).sum())
    )
    with seeded(weight.device, seed):
        v = _visible(base.expand(num_chains, -1), gaussian)
        log_weights = v.new_full((num_chains,), sites + hidden * math.log(2), dtype=torch.float64)
        for low, high in zip(path[:-1].tolist(), path[1:].tolist(), strict=True):
            up = rbm.hidden_bias + v @ weight
            wide = up.double()
            log_weights += (softplus(high * wide) - softplus(low * wide)).sum(1)
            # Of a Gaussian, half the difference of the squares of v - b at both temperatures.
            centre = base + 0.5 * (low + high) * change if gaussian else 0.0
            log_weights += (high - low) * ((v - centre).double() @ change.double())
            if high < 1:
                p = (high * up).sigmoid()
                h = (torch.rand_like(p) < p).to(p)
                v = _visible(base + high * (change + h @ weight.T), gaussian)
            if progress is not None:
                progress(1)
    largest = log_weights.max()
    shares = (log_weights - largest).exp()
    mean = shares.mean()
    error = float(shares.std() / mean) / math.sqrt(num_chains) if num_chains > 1 else math.inf
    return LogPartition(float(largest + mean.log()), error, log_weights.cpu().numpy())


def _visible(natural: Tensor, gaussian: bool) -> Tensor:
    r"""Draws of visible units with these biases."""
    if gaussian:
        return natural + torch.randn_like(natural)
    return (torch.rand_like(natural) < natural.sigmoid()).to(natural)


@torch.no_grad()
def enumerated(rbm: Any) -> LogPartition:
    r"""log Z as the sum over all states of the hidden, or of Bernoulli visible, units, exactly.

    Arguments:
        rbm: A machine with the attributes of :class:`~pyro_aevb.models.rbm.RBM`.

    Raises:
        UsageError: There are more than 20 of either.
    """
    units, hidden = rbm.weight.shape
    of_visible = rbm.visible == "bernoulli" and units < hidden
    fewest = units if of_visible else hidden
    if fewest > MOST:
        raise UsageError(
            f"2^{fewest} states are too many to sum over (at most 2^{MOST}): use method ais"
        )
    places, parts = torch.arange(fewest), []
    for block in torch.arange(1 << fewest).split(STATES):
        bits = (block[:, None] >> places & 1).to(rbm.weight)
        if of_visible:
            energy = rbm.free_energy(bits.reshape(-1, *rbm.event_shape))
        else:
            energy = rbm.hidden_free_energy(bits)
        parts.append((-energy.double()).logsumexp(0))
    return LogPartition(float(torch.stack(parts).logsumexp(0)), 0.0, np.empty(0))


def log_partition(rbm: Any, method: str = "auto", **settings: Any) -> LogPartition:
    r"""log Z of a machine, in nats.

    Arguments:
        rbm: A machine with the attributes of :class:`~pyro_aevb.models.rbm.RBM`.
        method: ``enumeration``, ``ais``, or ``auto``: the sum where it is over at most
            :math:`2^{20}` states.
        settings: Those of :func:`annealed`, for ``ais``.
    """
    one_of("method", method, METHODS)
    return enumerated(rbm) if sums(rbm, method) else annealed(rbm, **settings)


def sums(rbm: Any, method: str) -> bool:
    r"""Whether a method is, for a machine, a sum over all states."""
    units, hidden = rbm.weight.shape
    fewest = hidden if rbm.visible == "gaussian" else min(units, hidden)
    return method == "enumeration" or (method == "auto" and fewest <= MOST)


@torch.no_grad()
def log_likelihood(rbm: Any, x: Tensor, log_z: float) -> Tensor:
    r""":math:`-F(x) - \log Z` of data ``(B, *event_shape)``, ``(B,)``, float64, in nats.

    Of grey data it is no log-density, as Z is a sum over binary ones.
    """
    energy: Tensor = rbm.free_energy(x)
    return -energy.double() - log_z


def machine(pair: Pair) -> Any:
    r"""The machine that a pair is.

    Raises:
        UsageError: It is none.
    """
    needed = ("free_energy", "hidden_free_energy", "weight", "hidden_bias", "base_bias")
    for name in needed:
        if pair.attribute(name) is None:
            raise UsageError(
                f"--estimator partition is for restricted Boltzmann machines (--pair RBM); "
                f"{pair.name} has no {name}: use another estimator"
            )
    return pair.attribute("free_energy").__self__


def _partition(
    prepared: "Prepared",
    test: Batches,
    work: Work,
    seed: int = 0,
    method: str = "auto",
    num_chains: int = 100,
    num_temperatures: int = 10_000,
) -> Found:
    one_of("--estimator partition: method", method, METHODS)
    rbm = machine(prepared.pair)
    exact = sums(rbm, method)
    with prepared.pair.running():
        with work.progress("annealing", 0 if exact else num_temperatures, "temperature") as step:
            settings = {"num_chains": num_chains, "num_temperatures": num_temperatures}
            found = log_partition(rbm, method, seed=seed, progress=step, **settings)
        parts = [
            log_likelihood(rbm, data_of(x), found.value).cpu().numpy()
            for _, x in blocks_of(test, numbered(len(test)))
        ]
    values = np.concatenate(parts)
    note = "exact: Z is a sum over all states"
    counts: dict[str, Any] = {}
    if not exact:
        counts = dict(settings)
        note = "errs upwards in expectation, as log Z by annealing errs downwards"
    likelihood = measured(values, **counts, num_data=len(test))
    likelihood |= {"monte_carlo_error": found.standard_error, "note": note}
    partition = {"value": found.value, "standard_error": found.standard_error, "unit": "nats"}
    if not exact:
        partition["note"] = "errs downwards in expectation; a mode that no chain met is missing"
    metrics = {"rbm_log_likelihood": likelihood, "log_partition": partition | counts}
    return metrics, {"rbm_log_likelihood": values}


PARTITION = Estimator("partition", _partition)
