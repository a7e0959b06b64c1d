r"""Find a guide's parameters of data that it was not trained on, the rest of the pair fixed.

A guide without amortization has a row of parameters :math:`\lambda_n` for each training datum
(:mod:`~pyro_aevb.pairs.tables`) and none for others. Theirs maximize the bound,

.. math:: \lambda_n = \arg\max_\lambda \mathrm{E}_{q(w) q_\lambda(z)}
          [\log p(x_n, z | w) - \log q_\lambda(z)],

with model, weights and their guide as they are: rows of different data do not touch. Adam starts at
the mean of the training rows, in units of their standard deviation, at a rate that falls, and the
rows are the mean over the last two fifths of its steps. It goes on in rounds, each in units of the
standard deviation of the rows that the last one found, until the bound rises no more. The gradient
is the pathwise one without the score term ("sticking the landing"), which has no variance at the
posterior, or Pyro's own where a draw has no path. What is returned depends on the data, the pair
and the seed alone. The rows of validation data, which are sought again after each epoch of the
training, go on from those of the epoch before; checkpoints hold them.

References:
    Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference
    (Roeder, Wu and Duvenaud, 2017)
    https://arxiv.org/abs/1703.09194
"""

import math
from collections.abc import Mapping

import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.device import forked
from pyro_aevb.pairs.density import log_prob, run, run_both
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.tables import COLUMN, joined, parted

BLOCK = 1000
r"""Data whose rows are sought at once."""
FIRST, LAST = 0.2, 0.002
r"""Adam's first and last rate of a round, in its units."""
LEAST = 0.5
r"""The unit of the first round is no less, as training rows that have hardly moved say little."""
STEPS, QUICK = 300, 20
r"""Steps of a round, and of the only round after an epoch of the training."""
ROUNDS, ENOUGH = 6, 0.01
r"""Rounds at most, each from where the last one ended; they end once the mean bound rises by less,
in nats per datum and with the same draws."""


def settle(pair: Pair, data: Batches, seed: int = 0, quick: bool = False) -> tuple[str, ...]:
    r"""Find the rows of data, which then come with each batch of them; nothing without tables.

    Arguments:
        pair: An inspected pair.
        data: Data that it was not trained on.
        seed: Fixes the draws.
        quick: Go on from the rows that are there by one round of :data:`QUICK` steps.

    Returns:
        What a reader of the results should know, where the bound still rose at the end.
    """
    if not pair.tables:
        return ()
    bring(pair, data)
    rising = 0
    for index in torch.arange(len(data)).split(BLOCK):
        rows, risen = search(pair, data.take(index), seed, quick)
        for name, values in rows.items():
            data.columns[COLUMN + name][index.to(data.device)] = values
        rising += len(index) if risen > ENOUGH else 0
    if quick or not rising:
        return ()
    return (
        f"warning: the guide's own parameters of {rising} of {len(data)} data had not settled "
        f"after {ROUNDS * STEPS} steps, so their bounds are too low",
    )


def bring(pair: Pair, data: Batches) -> None:
    r"""Give data rows, those of the mean of the training data, where they have none."""
    for name, table in pair.tables.items():
        if COLUMN + name not in data.columns:
            mean = table.values.detach().mean(0)
            data.columns[COLUMN + name] = mean.expand(len(data), *mean.shape).clone()


def at_the_mean(pair: Pair, x: Data) -> Data:
    r"""A batch with the mean of the training rows, where it has none: for what needs no codes."""
    if parted(x)[1]:
        return x
    means = {name: table.values.detach().mean(0) for name, table in pair.tables.items()}
    return joined(x, {name: mean.expand(len(x), *mean.shape) for name, mean in means.items()})


def settled(pair: Pair, x: Data, seed: int = 0) -> Data:
    r"""A batch with the rows that are found for it, where the pair has tables and it has none."""
    there = parted(x)[1] or not pair.tables
    return x if there else joined(x, search(pair, x, seed)[0])


def search(pair: Pair, x: Data, seed: int, quick: bool = False) -> tuple[dict[str, Tensor], float]:
    r"""The rows of a batch, unconstrained, and by how much the last round raised the bound.

    Arguments:
        pair: An inspected pair with tables.
        x: The batch, ``(B, *event_shape)``.
        seed, quick: As for :func:`settle`.

    Returns:
        Rows by name, ``(B, *shape)``, and nats per datum.
    """
    assert pair.description is not None, "inspect the pair first"
    tables = pair.tables.items()
    x, there = parted(x)
    size = pair.description.plate_size or len(x)
    means = {
        name: table.values.detach().mean(0).expand(len(x), *table.values.shape[1:])
        for name, table in tables
    }
    found = {name: there[name].clone() if quick else mean for name, mean in means.items()}
    units = {name: _unit(table.values.detach()).clamp(min=LEAST) for name, table in tables}
    bound, risen = -math.inf, math.inf
    with pair.running(), torch.enable_grad(), forked([x.device]):
        for number in range(1 if quick else ROUNDS):
            torch.manual_seed(seed)
            if number or quick:
                spread = {name: _unit(rows) for name, rows in found.items()}
                units = {n: torch.where(u > 0, u, units[n]) for n, u in spread.items()}
            before = bound
            found, bound = _round(pair, x, found, units, QUICK if quick else STEPS, size)
            risen = bound - before
            if number and not risen > ENOUGH:
                break
    return found, risen


def _unit(rows: Tensor) -> Tensor:
    r"""The standard deviation of each parameter over data, ``(*shape,)``; 0 of a single one."""
    return rows.std(0, correction=0)


def _round(
    pair: Pair,
    x: Data,
    start: Mapping[str, Tensor],
    units: Mapping[str, Tensor],
    steps: int,
    size: int,
) -> tuple[dict[str, Tensor], float]:
    r"""Rows after some steps of Adam, and their mean bound, both over the last two fifths."""
    moves = {name: torch.zeros_like(rows).requires_grad_() for name, rows in start.items()}
    optimizer = torch.optim.Adam(moves.values(), lr=FIRST)
    falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, (LAST / FIRST) ** (1 / steps))
    last, bound = 2 * steps // 5, x.new_zeros((), dtype=torch.float64)
    found = {name: torch.zeros_like(rows) for name, rows in start.items()}
    for step in range(steps):
        loss = _loss(pair, x, {n: start[n] + units[n] * move for n, move in moves.items()}) / size
        gradients = torch.autograd.grad(loss, list(moves.values()))
        for move, gradient in zip(moves.values(), gradients, strict=True):
            # A draw far out in a tail may overflow; Adam would keep a NaN for ever.
            move.grad = torch.nan_to_num(gradient, 0, 0, 0)
        optimizer.step()
        falling.step()
        if step >= steps - last:
            bound -= loss.detach() / last
            for name, move in moves.items():
                found[name] += (start[name] + units[name] * move.detach()) / last
    return found, float(bound)


def _loss(pair: Pair, x: Data, rows: Mapping[str, Tensor]) -> Tensor:
    r"""Minus the bound at one draw, whose gradient is that of the rows."""
    assert pair.description is not None
    guide, model = run_both(pair, joined(x, rows))
    if pair.description.enumerated:
        sites = (*guide.values(), *model.values())
        dims = [frame.dim or 0 for site in sites for frame in site["cond_indep_stack"]]
        objective = TraceEnum_ELBO(max_plate_nesting=-min(dims))
        loss: Tensor = objective.differentiable_loss(pair.model, pair.guide, joined(x, rows))
        return loss
    if pair.description.own_draws or not all(site["fn"].has_rsample for site in guide.values()):
        loss = Trace_ELBO().differentiable_loss(pair.model, pair.guide, joined(x, rows))
        return loss
    fixed = joined(x, {name: value.detach() for name, value in rows.items()})
    guide = run(pair.guide, fixed, {name: site["value"] for name, site in guide.items()})
    sums = [[log_prob(s, s["scale"]).sum() for s in side.values()] for side in (guide, model)]
    return torch.stack(sums[0]).sum() - torch.stack(sums[1]).sum()
