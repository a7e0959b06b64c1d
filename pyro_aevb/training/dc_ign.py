r"""DC-IGN: groups of data in which one factor varies give each factor a dimension of the code."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn.functional import pad

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError, hint
from pyro_aevb.pairs.density import base, log_prob, run
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Phase, reached


class DCIGN(Algorithm):
    r"""A VAE that sees groups of data, in each of which one known factor varies.

    Of K named factors the one number k, counted from 0, has dimension k of the code, and what is
    left of the code is for *the rest*, all that data differ in beside them. A batch of B data falls
    into groups of `group`. For each is drawn what varies in it, one of the factors or the rest; the
    group then is uniform draws, with replacement, from the training data that share all else with
    the first of its data: all other factors of the data set, or all K named ones. With
    :math:`z_n \sim q(z|x_n) = \mathrm{N}(\mu_n, \sigma_n^2)`, A the dimensions of what varies, and
    bars over means of a group, the loss, in nats per datum, is

    .. math:: \frac{1}{B} \sum_n \Big[ -\log p(x_n | \tilde z_n)
        + \sum_{d \in A} \mathrm{KL}(q(z_d|x_n) \| p(z_d))
        + \frac{\lambda}{2} \sum_{d \notin A} (\mu_{nd} - \bar\mu_d)^2 \Big],
        \qquad \tilde z_{nd} = \begin{cases} z_{nd} & d \in A \\ \mathrm{stop}\big(\bar\mu_d +
        \bar\sigma_d (z_{nd} - \mu_{nd}) / \sigma_{nd}\big) & d \notin A. \end{cases}

    The decoder so has to make all variation within a group from A; of the dimensions that are
    clamped no gradient of the likelihood comes back, but with respect to :math:`\mu_{nd}`
    the difference :math:`\mu_{nd} - \bar\mu_d` times :math:`\lambda / B`, which asks them to be
    invariant, whether or not means are held fixed, as deviations from them sum to 0. The run's
    ``objective`` is the loss with the other sign, no bound; validation and scores are of the true
    ELBO.

    As in the paper's text and its authors' program (https://github.com/willwhitney/dc-ign) means
    and deviations are clamped before the noise is drawn, and the KL counts where a dimension is
    free. What differs: a batch holds several groups, where theirs is one; the invariance is asked
    of the means alone, not of the logarithms of the deviations too; what is clamped is the group's
    mean, as in the paper, where the program has the first datum.

    Where no other datum differs from that first one in what is to vary alone, as happens if the
    data are not all combinations of their factors, one that has such partners stands in for it.
    What no factor says of the data varies in all groups. Several processes make groups of their own
    rows, those of a single one where `group` divides these.

    Valid for pairs with one code, normal and of independent dimensions in guide and prior, on data
    with factors (:class:`~pyro_aevb.data.split.DataSet`). Tables of three int32 numbers a training
    datum are kept for each factor and the rest.

    Arguments:
        pair: An inspected pair.
        data: The training data.
        factors: The K factors with a dimension each, in this order, divided by commas; default all
            but the one with the fewest values, which is the rest.
        group: How many data a group has, 2 or more. A batch's last group may be smaller.
        invariance: :math:`\lambda`, 0 or more.
        rest: How often the rest varies, as a multiple of how often each factor does; the paper, in
            which it has nearly all of 200 dimensions, takes 10. 0 is never, and leaves the
            dimensions without a factor idle.

    Raises:
        UsageError: The pair or the data are not of this kind; a number is not possible; no two data
            differ in a factor alone.

    References:
        | Deep Convolutional Inverse Graphics Network (Kulkarni, Whitney, Kohli and Tenenbaum, 2015)
        | https://arxiv.org/abs/1503.03167
    """

    name = "dc_ign"

    def __init__(
        self,
        pair: Pair,
        data: Batches,
        factors: str = "",
        group: int = 10,
        invariance: float = 0.01,
        rest: float = 1.0,
    ) -> None:
        description = pair.description
        assert description is not None, "inspect the pair first"
        sites = [*description.local_sites, *description.global_sites]
        kinds = {
            (site.prior, site.posterior, len(site.event_shape), site.density) for site in sites
        }
        if kinds != {("Normal", "Normal", 1, True)} or len(sites) > 1 or description.auxiliary:
            raise UsageError(
                f"dc_ign cannot train {pair.name}: it needs one code, a vector with a normal prior "
                "and a normal guide, and no other latent site; VAE shows how"
            )
        if group < 2 or not (0 <= invariance < math.inf and 0 <= rest < math.inf):
            raise UsageError(
                f"--algorithm-options: group is {group}, invariance {invariance} and rest {rest}; "
                "the first must be 2 or more, the others finite and 0 or more"
            )
        known = {name: values.numpy() for name, values in data.factors.items()}
        named = _named(factors, known)
        (size,) = sites[0].event_shape
        if size < len(named) + (rest > 0):
            raise UsageError(
                f"dc_ign: {pair.name} has {size} dimensions of the code for {len(named)} factors"
                f"{' and the rest' if rest else ''}: raise --pair.latent_dim, or name fewer factors"
            )
        self.pair, self.data, self.group, self.invariance = pair, data, group, invariance
        self.code, self.observed = sites[0].name, description.observed_sites
        tables = [_groups(known, [n for n in known if n != name], name) for name in named]
        tables += [_groups(known, named)] if rest else []
        whole = [torch.from_numpy(np.stack(each)) for each in zip(*tables, strict=True)]
        self._order, self._start, self._size = (table.to(data.device) for table in whole)
        chances = np.cumsum([1.0] * len(named) + [rest])[: len(tables)]
        edges = torch.from_numpy((chances / chances[-1])[:-1])
        self._edges = edges.float().to(data.device)
        belongs = torch.arange(size).clamp(max=len(named))  # to which factor, K is the rest
        self._free = (belongs == torch.arange(len(tables))[:, None]).to(data.device)
        self.phases = [Phase("pair", self._loss, reached(pair, data, self._loss))]
        said = ", ".join(f"{number} {name}" for number, name in enumerate(named))
        self.notes = (f"note: dimensions of {self.code!r} with a factor of their own: {said}",)

    def draw(self, index: Tensor) -> tuple[Tensor, Tensor]:
        r"""The groups of a batch: which data they consist of, and what varies.

        Arguments:
            index: Positions in the training data, int64, ``(B,)``; each group's first one counts.

        Returns:
            The positions of the data drawn, and the number of what varies in each one's group, a
            factor's or, for the rest, K; both int64, ``(B,)``.
        """
        first = torch.arange(len(index), device=index.device) // self.group * self.group
        # Numbers for each datum, of which a group takes its first: processes can share them.
        chance = torch.rand(len(index), device=index.device)[first]
        varies = (chance[:, None] >= self._edges).sum(1)
        start, size = (table[varies, index[first]] for table in (self._start, self._size))
        place = torch.randint(1 << 62, (len(index),), device=index.device) % size
        return self._order[varies, start + place].long(), varies

    def _means(self, values: Tensor) -> Tensor:
        r"""The mean of each datum's group, ``(B, d)``."""
        n, places = len(values), -(-len(values) // self.group) * self.group
        there = values.new_ones(n, 1)
        both = pad(torch.cat([values, there], 1), (0, 0, 0, places - n))
        sums = both.unflatten(0, (-1, self.group)).sum(1)
        return (sums[:, :-1] / sums[:, -1:]).repeat_interleave(self.group, 0)[:n]

    def _loss(self, x: Data, index: Tensor) -> Tensor:
        index, varies = self.draw(index)
        x = self.data.take(index)
        site = run(self.pair.guide, x)[self.code]
        q, z, free = base(site["fn"]), site["value"], self._free[varies]
        with torch.no_grad():
            loc, scale = self._means(q.mean), self._means(q.stddev)
            clamped = loc + scale * (z - q.mean) / q.stddev
        sites = run(self.pair.model, x, {self.code: torch.where(free, z, clamped)})
        kl = kl_divergence(q, base(sites[self.code]["fn"]))
        invariance = 0.5 * self.invariance * (q.mean - loc).square()
        likelihood = sum(log_prob(sites[name], 1.0).sum() for name in self.observed)
        loss: Tensor = (torch.where(free, kl, invariance).sum() - likelihood) / len(x)
        return loss


def _named(factors: str, known: Mapping[str, np.ndarray]) -> list[str]:
    r"""The factors with a dimension of their own."""
    if not known:
        raise UsageError(
            "dc_ign needs data that say which columns are factors, as shapes2d does and an .npz "
            "file with an array `factors` of names; these have none"
        )
    named = list(dict.fromkeys(name.strip() for name in factors.split(",") if name.strip()))
    for name in named:
        if name not in known:
            raise UsageError(
                f"--algorithm-options: factors: the data have no factor {name!r}"
                f"{hint(name, known)}; they have {', '.join(known)}"
            )
    if named:
        return named
    counts = {name: len(np.unique(values)) for name, values in known.items()}
    left = min(counts, key=counts.__getitem__)
    return [name for name in known if name != left] or list(known)


def _groups(
    known: Mapping[str, np.ndarray], shared: Sequence[str], varies: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Which data share some factors, and differ.

    Arguments:
        known: The factors of all N data, ``(N,)`` each.
        shared: Those that the data of a group share.
        varies: The one of which a group has several values; None asks for several data alone.

    Returns:
        The data in an order in which groups are consecutive, and where in it, for each datum, a
        group begins and how many data it has: its own, or, if in that nothing varies, another's.
        int32, ``(N,)`` each.

    Raises:
        UsageError: Nothing varies in any group.
    """
    n = len(next(iter(known.values())))
    keys = [known[name] for name in shared]
    own = np.arange(n) if varies is None else known[varies]
    order = np.lexsort((own, *keys))
    new = np.ones(n, bool)
    if n:
        new[1:] = np.any([key[order[1:]] != key[order[:-1]] for key in keys] or [[False]], axis=0)
    start = np.flatnonzero(new)
    size = np.diff(np.append(start, n))
    good = own[order[start]] != own[order[start + size - 1]]  # sorted by it within a group
    if not good.any():
        what = f"in {varies} alone" if varies else f"beside {', '.join(shared)}"
        remedy = "name other factors" if varies else "name fewer factors, or add rest: 0"
        raise UsageError(f"dc_ign: no two training data differ {what}; {remedy}")
    group = np.empty(n, np.int64)
    group[order] = np.cumsum(new) - 1
    alone = np.flatnonzero(~good[group])
    instead = np.flatnonzero(good[group])
    group[alone] = group[instead[np.arange(len(alone)) % len(instead)]]
    return order.astype(np.int32), start[group].astype(np.int32), size[group].astype(np.int32)
