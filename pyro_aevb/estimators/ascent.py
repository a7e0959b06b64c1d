r"""The best q for each datum: gradient ascent on the bound, all data at once.

.. math:: \mathcal{L}[q] = \mathrm{E}_{q(z)}[\log p(x, z|w) - \log q(z)], \qquad w \text{ fixed}.

The gradient is the pathwise one without the score term, whose expectation is zero ("sticking the
landing"): it has no variance where q is the posterior, so a family that holds the posterior
reaches :math:`\log p(x|w)` to rounding.

References:
    Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference
    (Roeder, Wu and Duvenaud, 2017)
    https://arxiv.org/abs/1703.09194
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pyro_aevb.data.batch import Data
from pyro_aevb.engine.replay import Replay, Way
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.variational import Family

DRAWS, EVALUATED = 10, 25
r"""Draws per datum of a step, and of what is evaluated at once."""
CHECK = 100
r"""Steps whose mean bound is compared with the best one before."""
RATE, PATIENCE, HALVINGS = 0.005, 2, 6
r"""Adam's rate in units of the frame; how many checks without improvement pass before it is halved;
how often it is halved before the end."""


class Ascent:
    r"""The bound of the members of a family, one for each of n data, and its maximum.

    A q is a member of the family in the frame of its datum, a centre c and a scale s:
    :math:`z = c + s v` with v drawn from the member, so that one rate suits latents of any size.
    What is fixed comes as one list of tensors: the data ``(n, *event_shape)``, c and s, ``(n, d)``
    each, and the values of the global sites.

    Run inside ``pair.active()`` and ``WholeBatch()``.

    Arguments:
        joint: The pair's joint density.
        family: See :mod:`~pyro_aevb.estimators.variational`.
        way: How to run it.
        fallback: Told why it runs eagerly, where it cannot be captured.
    """

    def __init__(
        self, joint: Joint, family: Family, way: Way, fallback: Callable[[str], None]
    ) -> None:
        self.joint, self.family = joint, family
        self._step = Replay(self._gradient, way, fallback, joint.pair.python)
        self._weigh = Replay(self._log_weights, way, fallback, joint.pair.python)
        self._fixed = 3 + len(joint.weights)

    def maximize(
        self, fixed: Sequence[Data], parameters: Sequence[Tensor]
    ) -> tuple[list[Tensor], int]:
        r"""Adam until the mean bound of 100 steps rises no more, at a falling sequence of rates.

        The rule of Cremer et al. (2018), who leave one rate after ten checks without improvement.
        At one rate the noise of the steps would stay in the bound, for a flow in 50 dimensions 0.2
        nats; so the rate falls, and what is returned is the mean of the parameters over the last
        100 steps.

        Arguments:
            fixed: The data, their frames, and the global latents.
            parameters: Of the members to start from.

        Returns:
            The parameters, and how many steps were made.
        """
        current = [value.clone(memory_format=torch.contiguous_format) for value in parameters]
        optimizer = Adam(current, lr=RATE, fused=True, maximize=True)
        plateau = ReduceLROnPlateau(
            optimizer, "max", factor=0.5, patience=PATIENCE, threshold=0, threshold_mode="abs"
        )
        steps = 0
        mean: list[Tensor] = []
        while optimizer.param_groups[0]["lr"] >= RATE * 0.5**HALVINGS:
            total = fixed[0].new_zeros((), dtype=torch.float64)
            mean = [torch.zeros_like(value) for value in current]
            for _ in range(CHECK):
                bound, *gradients = self._step(*fixed, *current)
                for value, gradient in zip(current, gradients, strict=True):
                    value.grad = gradient
                optimizer.step()
                total += bound
                for sum_, value in zip(mean, current, strict=True):
                    sum_.add_(value, alpha=1 / CHECK)
            steps += CHECK
            plateau.step(float(total))
        return mean, steps

    def log_weights(
        self, fixed: Sequence[Data], parameters: Sequence[Tensor], num_samples: int
    ) -> Iterator[Tensor]:
        r"""Blocks ``(k, n)`` of :math:`\log p(x, z_k|w) - \log q(z_k)`, K in all."""
        for start in range(0, num_samples, EVALUATED):
            (block,) = self._weigh(*fixed, *parameters)
            yield block[: num_samples - start]

    def _gradient(self, *arguments: Any) -> list[Tensor]:
        r"""An estimate of the mean bound over data, and each datum's gradients of its own."""
        fixed, parameters = arguments[: self._fixed], arguments[self._fixed :]
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in parameters]
            v = self.family(*leaves).rsample((DRAWS,))
            # The density's own parameters are constants: no score term.
            log_weights = self._weights_at(v, fixed, [value.detach() for value in parameters])
            gradients = torch.autograd.grad(log_weights.mean(0).sum(), leaves)
        # A draw far out in a tail may overflow; Adam would keep a NaN for ever.
        return [log_weights.detach().mean(), *(torch.nan_to_num(g, 0, 0, 0) for g in gradients)]

    def _log_weights(self, *arguments: Any) -> list[Tensor]:
        fixed, parameters = arguments[: self._fixed], arguments[self._fixed :]
        return [self._weights_at(self.family(*parameters).sample((EVALUATED,)), fixed, parameters)]

    def _weights_at(self, v: Tensor, fixed: Sequence[Any], parameters: Sequence[Tensor]) -> Tensor:
        x, centre, scale, *weights = fixed
        log_joint = self.joint.terms(x, centre + scale * v, *weights).sum(0)
        log_q: Tensor = self.family(*parameters).log_prob(v) - scale.log().sum(-1)
        return log_joint - log_q
