r"""Contrastive divergence: how restricted Boltzmann machines learn."""

from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_aevb.data.batch import Data, data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Phase, Row, Stage, reached

COMPONENTS = 16
r"""Components of each validation datum that the pseudo-log-likelihood is estimated from."""
BLOCK = 500
r"""Validation data that are looked at together."""


class Energy(Protocol):
    r"""What contrastive divergence asks of a machine, as :class:`~pyro_aevb.models.rbm.RBM` is."""

    def free_energy(self, v: Tensor) -> Tensor:
        r""":math:`-\log p(v) - \log Z`, ``(B,)``."""
        ...

    def gibbs(self, v: Tensor, k: int = 1) -> Tensor:
        r"""k steps of a Markov chain that leaves p(v) as it is, without a gradient."""
        ...


def cd_loss(rbm: Energy, v: Tensor, k: int = 1) -> Tensor:
    r"""The loss whose gradient is that of k steps of contrastive divergence, nats per datum.

    .. math:: \frac{1}{B} \sum_n F(v_n) - \frac{1}{B} \sum_n F(\tilde v_n),

    with :math:`\tilde v_n` held fixed where k steps of Gibbs sampling from :math:`v_n` have led.
    In them hidden and visible units are drawn; the hidden statistics at both ends are
    probabilities, as the gradient of F has them. The value itself says little: it is 0
    for any machine whose chains stay where the data are.

    Arguments:
        rbm: The machine; :class:`~pyro_aevb.models.rbm.RBM` is one.
        v: A batch, ``(B, *event_shape)``.
        k: Steps, at least 1.

    Returns:
        A scalar.
    """
    return free_energy_difference(rbm, v, rbm.gibbs(v, k))


def free_energy_difference(rbm: Energy, v: Tensor, negative: Tensor) -> Tensor:
    r""":math:`\mathrm{mean}\, F(v) - \mathrm{mean}\, F(\tilde v)`, a scalar in nats per datum.

    For negative particles that are draws from the machine its gradient is an unbiased estimate of
    that of :math:`-\frac{1}{B} \sum_n \log p(v_n)`. With persistent chains as particles it is the
    loss of persistent contrastive divergence: first move them, ``chains.copy_(rbm.gibbs(chains,
    k))``, then take its gradient.

    Arguments:
        rbm: The machine.
        v: A batch, ``(B, *event_shape)``.
        negative: Particles, ``(M, *event_shape)``, held fixed.
    """
    return rbm.free_energy(v).mean() - rbm.free_energy(negative.detach()).mean()


class ContrastiveDivergence(Algorithm):
    r"""One phase on each batch: the free energy of data falls, that of the machine's draws rises.

    The gradient of the log-likelihood of a machine with free energy F is

    .. math::
        \nabla \frac{1}{B} \sum_n \log p(v_n)
        = -\frac{1}{B} \sum_n \nabla F(v_n) + \mathrm{E}_{p(v)}[\nabla F(v)].

    The expectation is what cannot be had, and is replaced by a mean over B *negative particles*,
    which `k` steps of Gibbs sampling have moved from the batch itself (CD-k). They are near the
    data rather than draws from p(v), so that the gradient is biased, and is that of no function;
    the bias falls with k. With `persistent` (PCD) there are `chains` particles of the machine's
    own, moved by k steps at each batch and never put back to the data: their distribution lags
    behind the machine's by what one update changes, and with a small learning rate the
    gradient comes near the exact one. They are part of the checkpoint.

    The loss is the difference of mean free energies
    (:func:`~pyro_aevb.training.contrastive_divergence.cd_loss`), in nats per datum; with the other
    sign it is the run's ``objective``, which measures no progress. What validation watches is
    ``pseudo_likelihood`` where the machine has one (``log_conditional``), else ``reconstruction``:

    .. math:: \frac{D}{P} \sum_{i \in I_n} \log p(v_i \mid v_{-i}),

    with the P = 16 components :math:`I_n` of each datum drawn once and the same in all epochs (all,
    if there are no more): in expectation over them the pseudo-log-likelihood, which needs no Z.
    Its maximum is where that of the likelihood is if the machine can be right; it bounds nothing.

    Valid for pairs whose object has ``free_energy(v)``, ``(B,)``, and ``gibbs(v, k)``, as
    :class:`~pyro_aevb.models.rbm.RBM` has; the guide is not trained by itself.

    Arguments:
        pair: An inspected pair.
        data: The training data.
        k: Steps of Gibbs sampling for each update.
        persistent: Whether the chains go on from where the last update left them.
        chains: How many persistent chains there are. They start in training data.

    Raises:
        UsageError: The pair is not of this kind; a number is below 1.

    References:
        | Training Products of Experts by Minimizing Contrastive Divergence (Hinton, 2002)
        | https://doi.org/10.1162/089976602760128018
        | Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient
          (Tieleman, 2008), for the persistent chains
        | https://doi.org/10.1145/1390156.1390290
        | A Practical Guide to Training Restricted Boltzmann Machines (Hinton, 2012)
        | https://www.cs.toronto.edu/~hinton/absps/guideTR.pdf
    """

    name = "contrastive_divergence"

    def __init__(
        self, pair: Pair, data: Batches, k: int = 1, persistent: bool = False, chains: int = 100
    ) -> None:
        for option, value in (("k", k), ("chains", chains)):
            if value < 1:
                raise UsageError(f"--algorithm-options: {option} is {value}; it must be at least 1")
        for method in ("free_energy", "gibbs"):
            if not callable(pair.attribute(method)):
                raise UsageError(
                    f"contrastive_divergence cannot train {pair.name}: it has no {method}(v), as a "
                    "restricted Boltzmann machine has (--pair RBM): leave --algorithm out"
                )
        self.pair, self.k, self.persistent = pair, k, persistent
        # What the pair was made of: a machine, with the methods of one.
        self.rbm: Any = pair.attribute("free_energy").__self__
        if persistent:
            order = torch.randperm(len(data))
            start = data_of(data.take(order[torch.arange(chains) % len(data)]))
            self.chains = start.clone()
            self.state = {"chains": self.chains}
        trained = reached(pair, data, self._loss)
        self.phases = [Phase("contrast", self._loss, trained)]

    def once(self, stage: Stage) -> bool:
        r"""Whether the step may make the batch, as there are no chains to be moved before it."""
        return not self.persistent

    @torch.no_grad()
    def before(self, x: Data, index: Tensor) -> None:
        r"""Move the persistent chains by k steps."""
        if self.persistent:
            self.chains.copy_(self.rbm.gibbs(self.chains, self.k))

    def _loss(self, x: Data, index: Tensor) -> Tensor:
        if self.persistent:
            return free_energy_difference(self.rbm, data_of(x), self.chains)
        return cd_loss(self.rbm, data_of(x), self.k)

    def validate(self, valid: Batches, scorer: Scorer) -> tuple[Row, str]:
        r"""``reconstruction``, and ``pseudo_likelihood``, watched, where the machine has one."""
        row, watched = super().validate(valid, scorer)
        bernoulli = getattr(self.rbm, "visible", "bernoulli") == "bernoulli"
        if bernoulli and callable(getattr(self.rbm, "log_conditional", None)):
            row["pseudo_likelihood"] = pseudo_likelihood(self.rbm, valid)
            watched = "pseudo_likelihood"
        return row, watched


@torch.no_grad()
def pseudo_likelihood(rbm: Any, batches: Batches, components: int = COMPONENTS) -> float:
    r"""The mean pseudo-log-likelihood :math:`\sum_i \log p(v_i \mid v_{-i})`, nats per datum.

    Arguments:
        rbm: A machine with ``log_conditional``, as :class:`~pyro_aevb.models.rbm.RBM` has.
        batches: The data.
        components: P: that many of the D components of each datum, always the same, stand for all;
            if D is not larger, all of them.
    """
    units = torch.Size(batches.event_shape).numel()
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for rows in torch.arange(len(batches)).split(BLOCK):
        v = data_of(batches.take(rows))
        if units <= components:
            index = torch.arange(units).expand(len(rows), units)
        else:  # with replacement, which is unbiased too
            index = torch.randint(units, (len(rows), components), generator=generator)
        values = rbm.log_conditional(v, index.to(v.device)).double()
        total += float(values.mean(1).sum()) * units
    return total / len(batches)
