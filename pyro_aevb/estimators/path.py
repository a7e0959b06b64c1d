r"""A path of densities: its temperatures, and chains that are moved and weighed along it."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_aevb.errors import UsageError, at_least_one
from pyro_aevb.estimators.hmc import Evaluate, Move, Point, adapt, transition

STEP, LIMITS = 0.5, (1e-3, 2.0)
r"""The first step size, and the smallest and largest, in the frame of a proposal."""
PILOTS = 32
r"""Chains, of all data of a block together, that tune the step size; at least one for each."""

Progress = Callable[[int], None] | None


def temperatures(count: int, schedule: str = "sigmoid") -> Tensor:
    r"""The path's :math:`b_0, \dots, b_T`, float64.

    ``linear`` is :math:`b_t = t / T`; ``sigmoid`` that of Wu et al., which spends more of them at
    both ends,

    .. math::
        b_t = \frac{\sigma(4 (2t/T - 1)) - \sigma(-4)}{\sigma(4) - \sigma(-4)}.

    Arguments:
        count: T.
        schedule: ``sigmoid`` or ``linear``.

    Raises:
        UsageError: No such schedule, or T is below 1.
    """
    at_least_one("num_temperatures", count)
    b = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    if schedule == "linear":
        return b
    if schedule != "sigmoid":
        raise UsageError(f"schedule is {schedule!r}; it must be sigmoid or linear")
    low, high = torch.sigmoid(torch.tensor([-4.0, 4.0], dtype=torch.float64))
    return ((4 * (2 * b - 1)).sigmoid() - low) / (high - low)


def along(
    at: Evaluate,
    chains: Tensor,
    path: Tensor,
    ends: tuple[Tensor, Tensor],
    step_size: Callable[[Move | None], Tensor],
    leapfrog_steps: int,
    pilots: int,
    progress: Progress = None,
) -> tuple[Tensor, Tensor, Point]:
    r"""Move chains along a path of densities, one trajectory at each, and weigh them.

    Arguments:
        at: The terms of the log-densities.
        chains: Where they start, ``(k, n, d)``.
        path: :math:`b_0, \dots, b_T`, float64, rising or falling.
        ends: The weights of the terms in :math:`\log f_0` and in :math:`\log f_1`.
        step_size: From the last move, None at first, to the size of the next one's steps.
        leapfrog_steps: L, of each trajectory.
        pilots: How many of the first chains there are to tune the steps alone.
        progress: Called at each of the T temperatures with n.

    Returns:
        The log-weights, ``(k, n)``, float64; the share of proposals that the others than the
        pilots took at each temperature, ``(T - 1,)``; and where the chains are in the end.
    """
    first, difference = ends[0], ends[1] - ends[0]
    gaps = path.diff().abs().to(chains.device)
    coefficients = first + path[:, None].to(first) * difference
    point, move, accepted = at(chains), None, []
    log_weights = chains.new_zeros(chains.shape[:2], dtype=torch.float64)
    for t in range(len(gaps)):
        log_weights += gaps[t] * torch.tensordot(difference, point.terms, 1).double()
        if t + 1 < len(gaps):
            size = step_size(move)
            point, move = transition(at, point, coefficients[t + 1], size, leapfrog_steps)
            accepted.append(move.probability[pilots:].mean())
        if progress is not None:
            progress(chains.shape[1])
    acceptance = torch.stack(accepted) if accepted else chains.new_empty(0)
    return log_weights, acceptance, point


class Tuner:
    r"""The step size of chains on the way there, by the acceptance of the first few, the pilots.

    Arguments:
        pilots: How many of the chains these are.
        start: The first step size, a scalar tensor.
        target: The acceptance to reach.
        limits: The smallest and the largest step size.
    """

    def __init__(
        self, pilots: int, start: Tensor, target: float, limits: tuple[float, float] = (1e-4, 0.5)
    ) -> None:
        self.pilots, self.target, self.limits = pilots, target, limits
        self.sizes: list[Tensor] = []
        r"""All so far."""
        self._size, self._average = start, start.new_tensor(target)

    def __call__(self, move: Move | None) -> Tensor:
        if move is not None:
            seen = move.probability[: self.pilots]
            self._size, self._average = adapt(
                self._size, self._average, seen, self.target, self.limits
            )
        self.sizes.append(self._size)
        return self._size
