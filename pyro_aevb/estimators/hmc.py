r"""Hamiltonian Monte Carlo over many independent chains at once.

A chain at :math:`q \in \mathbb{R}^d` with density proportional to :math:`e^{U(q)}` draws a momentum
:math:`p \sim \mathcal{N}(0, I)`, follows :math:`H(q, p) = \frac{1}{2} |p|^2 - U(q)` for L leapfrog
steps of size :math:`\epsilon`, and moves where that led with probability
:math:`\min(1, e^{H - H'})`, which leaves the density invariant.

Everything here is a function of tensors, state in and state out, and nothing is read back from a
tensor, so that a transition can be captured. Shapes: `*chains` is any number of dimensions of
independent chains, such as ``(k, n)`` for k chains for each of n data.

The log-density is a weighted sum of T terms, :math:`U(q) = \sum_t c_t f_t(q)`. With the terms
:math:`\log p(x|z)` and :math:`\log p(z)`, weights (1, 1) are a posterior and (b, 1) one that is
tempered; as the values and gradients of the terms are kept apart, a change of the weights
costs nothing.

References:
    | MCMC using Hamiltonian dynamics (Neal, 2011)
    | https://arxiv.org/abs/1206.1901
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Point(NamedTuple):
    r"""Where chains are, and the log-density there."""

    q: Tensor
    r"""``(*chains, d)``."""
    terms: Tensor
    r"""The terms of the log-density, ``(T, *chains)``."""
    gradients: Tensor
    r"""Their gradients, ``(T, *chains, d)``."""


class Move(NamedTuple):
    r"""What became of a proposal, ``(*chains,)`` each."""

    probability: Tensor
    r"""The probability of accepting it, :math:`\min(1, e^{H - H'})`; 0 where it diverged."""
    accepted: Tensor
    r"""Whether it was."""
    diverged: Tensor
    r"""Whether its energy is not finite; such a proposal is never accepted."""


Evaluate = Callable[[Tensor], Point]


def evaluate(function: Callable[[Tensor], Tensor], q: Tensor) -> Point:
    r"""The terms of a log-density at q, and the gradient of each.

    Arguments:
        function: From q, ``(*chains, d)``, to the terms, ``(T, *chains)``. Chains must not meet in
            it: one gradient of the sum over chains is that of every chain.
        q: Where.
    """
    with torch.enable_grad():
        q = q.detach().requires_grad_()
        terms = function(q)
        gradients = [
            torch.autograd.grad(term.sum(), q, retain_graph=True, materialize_grads=True)[0]
            for term in terms.unbind(0)
        ]
    return Point(q.detach(), terms.detach(), torch.stack(gradients))


def leapfrog(
    evaluate: Evaluate,
    point: Point,
    momentum: Tensor,
    weights: Tensor,
    step_size: Tensor,
    num_steps: int,
) -> tuple[Point, Tensor]:
    r"""Follow Hamilton's equations for L steps of size :math:`\epsilon`.

    .. math::
        p \mathrel{+}= \tfrac{\epsilon}{2} \nabla U(q), \quad q \mathrel{+}= \epsilon p, \quad
        p \mathrel{+}= \tfrac{\epsilon}{2} \nabla U(q)

    Reversible (from the end with the momentum negated it leads back) and volume-preserving;
    the energy is kept to :math:`O(\epsilon^2)`. Evaluates the log-density L times.

    Arguments:
        evaluate: From q to the point there.
        point: Where the chains start.
        momentum: ``(*chains, d)``.
        weights: :math:`c_t`, ``(T,)``.
        step_size: One for all chains, ``()``, or of any shape that broadcasts to ``(*chains,)``.
        num_steps: L.

    Returns:
        The point and the momentum at the end.
    """
    size = step_size.unsqueeze(-1)
    momentum = momentum + size / 2 * torch.tensordot(weights, point.gradients, 1)
    for step in range(1, num_steps + 1):
        point = evaluate(point.q + size * momentum)
        kick = size if step < num_steps else size / 2
        momentum = momentum + kick * torch.tensordot(weights, point.gradients, 1)
    return point, momentum


def transition(
    evaluate: Evaluate,
    point: Point,
    weights: Tensor,
    step_size: Tensor,
    num_steps: int = 10,
    jitter: float = 0.5,
) -> tuple[Point, Move]:
    r"""Move every chain by one trajectory, accepted or rejected chain by chain.

    Leaves the density invariant for any step size and jitter that do not depend on where the
    chains are. A chain that starts where the density is zero or not a number takes any proposal
    of finite energy.

    Arguments:
        evaluate, point, weights, step_size, num_steps: See :func:`leapfrog`.
        jitter: Every chain's step size is multiplied by a uniform number from 1 - jitter to
            1 + jitter, drawn anew. With a fixed one, trajectories that are about as long as half a
            period of the motion, in some direction, lead back to the same energy again and again.

    Returns:
        The new point, and what became of the proposals.
    """
    momentum = torch.randn_like(point.q)
    spread = 1 - jitter + 2 * jitter * torch.rand_like(point.terms[0])
    end, last = leapfrog(evaluate, point, momentum, weights, step_size * spread, num_steps)
    before = _minus_energy(point, momentum, weights)
    after = _minus_energy(end, last, weights)
    diverged = ~after.isfinite()
    change = torch.where(before.isfinite(), after - before, 0.0)
    change = torch.where(diverged, -math.inf, change)
    probability = change.clamp(max=0).exp()
    accepted = torch.rand_like(probability) < probability
    moved = Point(
        torch.where(accepted.unsqueeze(-1), end.q, point.q),
        torch.where(accepted, end.terms, point.terms),
        torch.where(accepted.unsqueeze(-1), end.gradients, point.gradients),
    )
    return moved, Move(probability, accepted, diverged)


def _minus_energy(point: Point, momentum: Tensor, weights: Tensor) -> Tensor:
    return torch.tensordot(weights, point.terms, 1) - 0.5 * momentum.square().sum(-1)


def adapt(
    step_size: Tensor,
    average: Tensor,
    probability: Tensor,
    target: float,
    limits: tuple[float, float] = (1e-4, 0.5),
) -> tuple[Tensor, Tensor]:
    r"""Steer step sizes to an acceptance, after each transition.

    .. math::
        \bar a \leftarrow 0.9\, \bar a + 0.1\, a, \qquad
        \epsilon \leftarrow \epsilon \cdot (1.02 \text{ if } \bar a > a^* \text{ else } 0.98),

    kept within limits: the rule of Wu et al. A step size that depends on where the chains have been
    leaves the density invariant only approximately, the better the more chains share it.

    Arguments:
        step_size: :math:`\epsilon`, one for all chains, ``()``, or for each of the last
            dimensions of `*chains`.
        average: :math:`\bar a`, of the same shape; start it at the target.
        probability: That of acceptance, ``(*chains,)``; its mean over the chains that share a step
            size is :math:`a`.
        target: :math:`a^*`, such as 0.65 or 0.9.
        limits: The smallest and the largest step size.

    Returns:
        The new step size and average.

    References:
        | On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017)
        | https://arxiv.org/abs/1611.04273
    """
    sharing = probability.dim() - step_size.dim()
    if sharing:
        probability = probability.flatten(0, sharing - 1).mean(0)
    average = 0.9 * average + 0.1 * probability
    step_size = step_size * torch.where(average > target, 1.02, 0.98)
    return step_size.clamp(*limits), average
