r"""Monte Carlo EM: the model learns from draws of its own posterior, by Hamiltonian Monte Carlo."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.replay import Replay, Way
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.hmc import Point, adapt, transition
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Phase, reached

START = 0.1
r"""The first step size; it moves by 2% a batch."""
LIMITS = (1e-4, 2.0)
r"""Of the step size; leapfrog is unstable beyond 2 standard deviations of the posterior."""
BLOCK = 1000
r"""Data whose chains are started at once."""


class MonteCarloEM(Algorithm):
    r"""Every training datum keeps a chain in its posterior, and the model learns from where it is.

    With :math:`\theta` the parameters of the model, on each batch of B data, first

    .. math:: z_n \leftarrow \text{one trajectory of Hamiltonian Monte Carlo in } p_\theta(z|x_n),

    of `leapfrog_steps` steps whose size, common to all chains, is tuned to an acceptance; then
    `updates` times a step of the optimizer on the loss, in nats per datum,

    .. math:: -\frac{1}{B} \sum_n \log p_\theta(x_n, z_n),

    whose gradient at a draw :math:`z_n \sim p_\theta(z|x_n)` is an unbiased estimate of that of
    :math:`-\frac{1}{B} \sum_n \log p_\theta(x_n)`. The chains start in draws from the prior and go
    on from where the last epoch left them; as :math:`\theta` moves meanwhile, they follow their
    posteriors with a delay, and where they mix slowly the estimate is biased. The run's
    ``objective`` is the mean of :math:`\log p_\theta(x_n, z_n)` over the updates, which is neither
    a bound nor an estimate of :math:`\log p(x)`.

    No part of this uses the guide. So that codes can be drawn, and bounds and importance samples
    be had, afterwards and of other data, it is fitted to the same draws by a loss of its own,

    .. math:: -\frac{1}{B} \sum_n \log q_\phi(z_n|x_n),

    with as many updates, in those parameters :math:`\phi` that only the guide has: it descends
    :math:`\mathrm{E}_x \mathrm{KL}(p(z|x) \Vert q(z|x))`, without any influence on
    :math:`\theta`. With ``fit_guide`` false, as in the paper, the guide stays as it was made, and
    what the results say by means of it (``elbo``, ``log_likelihood``, all but samples) is of a
    guide that was never trained.

    Valid for pairs whose latents are local, real-valued and have a prior density. One chain and
    so one number for each latent dimension of each training datum are kept, in the checkpoint
    too; a datum has to look the same whenever it is seen.

    Arguments:
        pair: An inspected pair.
        data: The training data.
        leapfrog_steps: L, of one trajectory.
        acceptance: The share of proposals to accept, to which the step size is tuned.
        updates: Steps of the optimizer on each batch and its draws.
        fit_guide: Whether the guide learns from the draws; it cannot where it has no density.

    Raises:
        UsageError: The pair is not of this kind; the data are binarized anew at each look; a
            number that cannot be.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix E
        | https://arxiv.org/abs/1312.6114
    """

    name = "monte_carlo_em"

    def __init__(
        self,
        pair: Pair,
        data: Batches,
        leapfrog_steps: int = 10,
        acceptance: float = 0.9,
        updates: int = 5,
        fit_guide: bool = True,
    ) -> None:
        description = pair.description
        assert description is not None, "inspect the pair first"
        for option, value in (("leapfrog_steps", leapfrog_steps), ("updates", updates)):
            if value < 1:
                raise UsageError(f"--algorithm-options: {option} is {value}; it must be at least 1")
        if not 0 < acceptance < 1:
            raise UsageError(
                f"--algorithm-options: acceptance is {acceptance}; it must lie between 0 and 1"
            )
        if description.global_sites:
            raise UsageError(
                f"monte_carlo_em cannot train {pair.name}: {description.global_sites[0].name!r} is "
                "a global latent site, and the weights that it learns are points"
            )
        if data.binarize == "dynamic":
            raise UsageError(
                "monte_carlo_em keeps a chain in the posterior of each datum, which would be "
                "another one with every new binarization: add --binarize fixed"
            )
        self.pair = pair
        self.leapfrog_steps, self.target = leapfrog_steps, acceptance
        with pair.active(), WholeBatch():
            index = torch.arange(len(data), device=data.device)
            self._joint = Joint(pair, data.take(index[:2]))
            with torch.no_grad():
                chains = [
                    self._joint.draw(pair.model, data.take(block)) for block in index.split(BLOCK)
                ]
        self.chains = torch.cat(chains)
        self._step_size = self.chains.new_tensor(START)
        self._average = self.chains.new_tensor(acceptance)
        self._both = self.chains.new_ones(2)
        self.state = {
            "chains": self.chains,
            "step_size": self._step_size,
            "acceptance": self._average,
        }
        theta = reached(pair, data, self._loss)
        self.phases = [Phase("model", self._loss, theta, repeat=updates)]
        if fit_guide and description.undefined() is None and not description.auxiliary:
            phi = reached(pair, data, self._guide_loss)
            own = {name: value for name, value in phi.items() if name not in theta}
            self.phases.append(Phase("guide", self._guide_loss, own, repeat=updates))
        else:
            self.notes = (
                "note: Monte Carlo EM has not trained the guide, and elbo, log_likelihood and "
                "whatever else rests on it are of a guide as it was made",
            )
        self.forget()

    def compile(self, fallback: Callable[[str], None]) -> None:
        r"""Compile what a trajectory evaluates."""
        self._evaluate = Replay(self._joint.evaluate, Way.COMPILED, fallback, self.pair.python)

    def forget(self) -> None:
        r"""Evaluate eagerly."""
        self._evaluate = Replay(self._joint.evaluate, Way.EAGER, lambda reason: None)

    def before(self, x: Data, index: Tensor) -> None:
        r"""Move the chains of a batch by one trajectory, and tune the step size."""
        training = self.pair.training
        self.pair.eval()  # a density without dropout

        def at(q: Tensor) -> Point:
            return Point(q, *self._evaluate(x, q))

        try:
            start = at(self.chains[index])
            end, move = transition(at, start, self._both, self._step_size, self.leapfrog_steps)
        finally:
            self.pair.train(training)
        size, average = adapt(self._step_size, self._average, move.probability, self.target, LIMITS)
        self.chains[index] = end.q
        self._step_size.copy_(size)
        self._average.copy_(average)

    def report(self) -> dict[str, float]:
        r"""The step size, and the running average of the acceptance."""
        return {"step_size": float(self._step_size), "acceptance": float(self._average)}

    def _loss(self, x: Data, index: Tensor) -> Tensor:
        return -self._joint.terms(x, self.chains[index]).sum() / len(x)

    def _guide_loss(self, x: Data, index: Tensor) -> Tensor:
        return -self._joint.log_guide(x, self.chains[index]).sum() / len(x)
