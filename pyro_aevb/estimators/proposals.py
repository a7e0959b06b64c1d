r"""A proposal for the latents of each datum, near its posterior: normals at the modes of p(x, q|w).

For every mode :math:`m` of a datum's :math:`\log p(x, q|w)` as a function of q, with the precision
H there and the prior's part P of it (:mod:`~pyro_aevb.estimators.curvature`), Laplace's
approximation of the posterior is :math:`\mathcal{N}(m, H^{-1})`. Its tails are too light for a
proposal where the posterior is not normal, and that can only be in directions in which the data say
something. So it is made wider in these alone, by a factor :math:`s`,

.. math:: \Sigma_s = H^{-1} + (s^2 - 1) (H^{-1} - H^{-1} P H^{-1}),

which is :math:`s^2 H^{-1}` in a direction that the prior says nothing of, and :math:`H^{-1}` in one
that the data say nothing of. In 50 dimensions of which 18 are used, widening all would leave a
fiftieth of the effective samples. The modes are weighted by Laplace's approximation of their parts
of p(x|w), :math:`p(x, m|w) \sqrt{(2 \pi)^d / |H|}`.

The mode is not the middle of a skew posterior, nor the curvature there its width: on images draws
around modes were worth half as much as after two steps (:func:`refined`) towards the normal that
is best for the posterior as a whole. They are for data with one mode, as draws of a normal near
another mode would see that too.

Modes are found by damped Gauss-Newton steps from several draws of the guide and of the prior; a
start that comes within a standard deviation or so of one that is higher is given up.

References:
    | Bayesian Inference in Econometric Models Using Monte Carlo Integration (Geweke, 1989)
    | https://doi.org/10.2307/1913710
    | An Algorithm for Least-Squares Estimation of Nonlinear Parameters (Marquardt, 1963)
    | https://doi.org/10.1137/0111030
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pyro_aevb.data.batch import Data
from pyro_aevb.engine.streams import Rows
from pyro_aevb.estimators.curvature import Curvature
from pyro_aevb.estimators.hmc import Point, evaluate
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.pairs.state.python import untouched

STEPS = 20
r"""Steps after which a start that has not arrived is given up."""
ARRIVED = 0.1
r"""Nats that the next step promises, at most, of a start that has arrived."""
SAME = 1.0
r"""Distance in standard deviations within which two starts are on the way to the same mode."""
APART = 2.0
r"""Distance of two modes; what is nearer, one normal covers."""
LIGHT = 1e-3
r"""The share of the heaviest mode's weight below which a mode is left out."""
MODES = 8
r"""At most so many modes of a datum are kept."""

EVERYWHERE = 8
r"""Dimensions up to which all data start from the prior too; above, :data:`PROBED` of each block
do, and all where one in twenty of these has a second mode."""
PROBED = 32
r"""Data of a block that tell whether posteriors have several modes."""
DRAWS, REFINEMENTS = 16, 2
r"""Gradients of which a step from a mode to the best normal is made, and how many of these."""
PRECISIONS = (0.3, 3.0)
r"""By what a step changes a precision, at least and at most."""
SHIFT = 2.0
r"""By how many standard deviations a step moves a mean at most, as a gradient far out may be of
any size, and one such draw of the few would throw the normal out of sight."""
WIDTH = 1.3
r"""The usual factor s; the best of all models that were tried is 1.1 to 1.4."""
SHARE = 0.05
r"""The guide's share of the draws, and that of a mode, and of data, which is not to be missed."""

Expand = Callable[[Data, Tensor], list[Tensor]]
Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Normals:
    r"""Mixtures of M normals in d dimensions, another for each of n data, in float64.

    A normal is kept by its mean m, and a map to the frame in which its covariance is diagonal,
    :math:`y = T (q - m)`, with variances :math:`1 + (s^2 - 1)(1 - p_i)`, where :math:`p_i` is the
    share of the prior in the precision in direction i. So another width s costs nothing.
    """

    log_weight: Tensor
    r"""``(n, M)``; -inf where a datum has fewer modes."""
    loc: Tensor
    r"""``(n, M, d)``."""
    into: Tensor
    r"""T, ``(n, M, d, d)``."""
    back: Tensor
    r"""Its inverse."""
    share: Tensor
    r"""The shares of the prior, ``(n, M, d)``, from 0 to 1."""

    def __getitem__(self, index: Tensor) -> "Normals":
        return Normals(*(value[index] for value in vars(self).values()))

    def put(self, index: Tensor, new: "Normals") -> "Normals":
        r"""The same, with others in the places of some."""
        pairs = zip(vars(self).values(), vars(new).values(), strict=True)
        return Normals(*(value.index_copy(0, index, other) for value, other in pairs))

    def modes(self) -> Tensor:
        r"""How many a datum has, ``(n,)``."""
        return self.log_weight.isfinite().sum(1)

    def scales(self, width: float) -> Tensor:
        r"""Standard deviations in the frame, ``(n, M, d)``, at a width s."""
        return (1 + (width**2 - 1) * (1 - self.share)).sqrt()

    def sample(self, k: int, width: float) -> Tensor:
        r"""k draws for each datum, ``(k, n, d)``."""
        n, modes, d = self.loc.shape
        which = torch.multinomial(self.log_weight.exp(), k, replacement=True)
        noise = torch.randn(n, k, d, dtype=self.loc.dtype, device=self.loc.device)
        scales = self.scales(width)
        draws = torch.empty_like(noise)
        for i in range(modes):
            moved = (noise * scales[:, i : i + 1]) @ self.back[:, i].mT + self.loc[:, i : i + 1]
            draws = moved if modes == 1 else torch.where((which == i).unsqueeze(-1), moved, draws)
        return draws.transpose(0, 1)

    def log_prob(self, q: Tensor, width: float) -> Tensor:
        r"""The density of draws ``(k, n, d)``, ``(k, n)``."""
        return self.log_probs(q, [width])[0]

    def log_probs(self, q: Tensor, widths: list[float]) -> list[Tensor]:
        r"""The same at several widths, at little more than the cost of one."""
        d = q.shape[-1]
        each: list[list[Tensor]] = [[] for _ in widths]
        for i in range(self.loc.shape[1]):
            moved = (q.double() - self.loc[:, i]).transpose(0, 1) @ self.into[:, i].mT
            whole = self.into[:, i].slogdet().logabsdet - 0.5 * d * math.log(2 * math.pi)
            for parts, width in zip(each, widths, strict=True):
                scales = self.scales(width)[:, i]
                normed = (moved / scales.unsqueeze(1)).square().sum(-1).T
                constant = self.log_weight[:, i] + whole - scales.log().sum(-1)
                parts.append(constant - 0.5 * normed)
        return [torch.stack(parts).logsumexp(0) for parts in each]


class Search:
    r"""Fits a proposal to every datum of a pair; run inside ``pair.running()``.

    Arguments:
        joint: The pair's joint density.
        x: Some data, to look at the pair with.
        weights: Values of the global sites.
        rows: How many rows the pair sees at once.

    Raises:
        Exception: Of the pair's code where it cannot be differentiated forwards.
    """

    def __init__(self, joint: Joint, x: Data, weights: list[Tensor], rows: Rows) -> None:
        self.joint, self.pair, self.rows = joint, joint.pair, rows
        description = self.pair.description
        assert description is not None
        self.guided = description.no_guide_density() is None
        r"""Whether the guide has a density at given latents."""
        q = joint.draw(self.pair.model, x, *weights)
        with untouched(self.pair.python):
            self.curvature = Curvature(joint, x, q, *weights)
            self.curvature(x, q, *weights)
        self.dtype = q.dtype

    def __call__(self, x: Data, weights: list[Tensor]) -> Normals:
        r"""Normals at the modes that several draws of guide and prior lead to."""
        n, d = len(x), self.joint.dim
        from_prior = max(4, min(24, 48 // d))
        expand = partial(self._expand, weights)

        def starts(x: Data, guides: int, priors: int) -> Tensor:
            sides = [self.pair.guide] * (guides * self.guided) + [self.pair.model] * priors
            return torch.stack([self.joint.draw(side, x, *weights) for side in sides])

        if d > EVERYWHERE and self.guided and n > PROBED:
            probed = fit(expand, x[:PROBED], starts(x[:PROBED], 2, from_prior))
            several = (probed.log_weight.exp() > SHARE).sum(1) > 1
            if float(several.double().mean()) <= SHARE:
                return self._refined(fit(expand, x, starts(x, 1, 0)), x, weights)
        return self._refined(fit(expand, x, starts(x, 2, from_prior)), x, weights)

    def _refined(self, normals: Normals, x: Data, weights: list[Tensor]) -> Normals:
        r"""The same, the normals of data that have one nearer to their posteriors."""
        index = (normals.modes() == 1).nonzero().squeeze(1)
        if not len(index):
            return normals
        with untouched(self.pair.python):
            slope = partial(self._slope, x[index], weights)
            found = normals[index]
            for _ in range(REFINEMENTS):
                found = refined(found, slope)
        return normals.put(index, found)

    def _slope(self, x: Data, weights: list[Tensor], q: Tensor) -> Tensor:
        r"""The gradient of log p(x, q|w) at ``(k, n, d)``, which holds three times its values."""

        def slope() -> Tensor:
            few = max(1, self.rows.number // (3 * len(q)))
            parts = []
            for i in torch.arange(len(x), device=q.device).split(few):
                terms = partial(self._log_joint, x[i], weights)
                parts.append(evaluate(terms, q[:, i].to(self.dtype)).gradients[0])
            return torch.cat(parts, 1)

        return self.rows.run(q.device, slope)

    def _log_joint(self, x: Data, weights: list[Tensor], q: Tensor) -> Tensor:
        return self.joint.terms(x, q, *weights).sum(0, keepdim=True)

    def _expand(self, weights: list[Tensor], x: Data, q: Tensor) -> list[Tensor]:
        index = torch.arange(len(q), device=q.device)

        def expand() -> list[Tensor]:
            few = max(1, 2 * self.rows.number // (self.curvature.products + 1))
            parts = [self.curvature(x[i], q[i], *weights) for i in index.split(few)]
            return [torch.cat(part) for part in zip(*parts, strict=True)]

        with untouched(self.pair.python):  # what its code keeps would be of the differentiation
            return self.rows.run(q.device, expand)


class Frame:
    r"""Coordinates in which the normal of each datum's heaviest mode is a standard one.

    Arguments:
        normals: Proposals for n data.
        width: Their width.
    """

    def __init__(self, normals: Normals, width: float) -> None:
        self.normals, self.width = normals, width
        rows = torch.arange(len(normals.loc), device=normals.loc.device)
        heaviest = rows, normals.log_weight.argmax(1)
        self.loc = normals.loc[heaviest]
        self.root = normals.back[heaviest] * normals.scales(width)[heaviest].unsqueeze(-2)

    def into(self, q: Tensor) -> Tensor:
        r"""The coordinates of latents ``(k, n, d)``."""
        apart = (q.double() - self.loc).movedim(0, -1)
        return torch.linalg.solve(self.root, apart).movedim(-1, 0)

    def at(self, joint: Evaluate, v: Tensor) -> Point:
        r"""log p(x, q) and the proposal's log-density at coordinates, with their gradients there.

        Arguments:
            joint: From q to the first and its gradient, ``(k, n)`` and ``(k, n, d)``, float64.
            v: ``(k, n, d)``.
        """
        q = self.loc + (v.transpose(0, 1) @ self.root.mT).transpose(0, 1)
        value, slope = joint(q)
        own = evaluate(lambda q: self.normals.log_prob(q, self.width)[None], q)
        slopes = torch.cat([slope[None], own.gradients])
        turned = (slopes.transpose(1, 2) @ self.root).transpose(1, 2)
        return Point(v, torch.cat([value[None], own.terms]), turned)


def fit(expand: Expand, x: Data, starts: Tensor) -> Normals:
    r"""Find the modes of each datum from several starts.

    Arguments:
        expand: From R data and points ``(R, d)`` to log p(x, q), ``(R,)``; its gradient,
            ``(R, d)``; its precision, and the prior's part of that, ``(R, d, d)`` each.
        x: n data.
        starts: ``(S, n, d)``, the same number for every datum.
    """
    count, n, _ = starts.shape
    data = torch.arange(n, device=starts.device).repeat(count)
    points = _Points.at(expand, x[data], starts.flatten(0, 1))
    damping = torch.full_like(points.value, 1e-3)
    kept = points.value.isfinite()
    active = kept.clone()
    for _ in range(STEPS):
        index = active.nonzero().squeeze(1)
        if not len(index):
            break
        now = points[index]
        step, promised = now.step(damping[index])
        there = _Points.at(expand, x[data[index]], now.q + step)
        better = (there.value >= now.value) & there.finite()
        points.put(index[better], there[better])
        damping[index] = torch.where(
            better, (0.2 * damping[index]).clamp_min(1e-7), 5 * damping[index].clamp_min(1e-2)
        )
        active[index] = promised > ARRIVED
        follows = _following(points, kept, count)
        kept &= ~(active & follows)
        active &= kept
    return _mixture(points, kept, count)


def refined(normals: Normals, slope: Callable[[Tensor], Tensor]) -> Normals:
    r"""A step from Laplace's approximation towards the normal that is best for the posterior.

    In the frame of a normal r, in which that is a standard one, a normal posterior has
    :math:`\partial_i (\log p - \log r) = b_i + c_i y_i` if its axes are the same; then
    :math:`1 - c_i` is its precision and :math:`b_i / (1 - c_i)` its mean. Of any posterior b and c
    are found by least squares from the gradients at :data:`DRAWS` draws of r, c shrunk by half, as
    they are few. It is a step along the natural gradient of the ELBO, and rests where that is
    largest; where the posterior is r it makes none.

    Arguments:
        normals: Those of n data, of which the first mode alone is moved.
        slope: From latents ``(k, n, d)`` to the gradient of log p(x, q) there.

    References:
        | Fixed-Form Variational Posterior Approximation through Stochastic Linear Regression
          (Salimans and Knowles, 2013)
        | https://arxiv.org/abs/1206.6679
    """
    loc, into, back, share = (value[:, 0] for value in list(vars(normals).values())[1:])
    y = torch.randn(len(loc), DRAWS, loc.shape[-1], dtype=loc.dtype, device=loc.device)
    q = (y @ back.mT + loc.unsqueeze(1)).transpose(0, 1)
    apart = slope(q).to(y).transpose(0, 1) @ back + y
    apart = apart.nan_to_num(0, 0, 0)
    centred = y - y.mean(1, keepdim=True)
    c = (centred * apart).sum(1) / (centred.square().sum(1) + DRAWS)
    b = (apart - c.unsqueeze(1) * y).mean(1)
    precision = (1 - c).clamp(*PRECISIONS)
    scale = precision.rsqrt()
    shift = (b / precision).clamp(-SHIFT, SHIFT)
    moved = (
        loc + (back @ shift.unsqueeze(-1)).squeeze(-1),
        into / scale.unsqueeze(-1),
        back * scale.unsqueeze(-2),
        (share / precision).clamp(max=1),
    )
    others = (value[:, 1:] for value in list(vars(normals).values())[1:])
    parts = (
        torch.cat([one.unsqueeze(1), rest], 1) for one, rest in zip(moved, others, strict=True)
    )
    return Normals(normals.log_weight, *parts)


@dataclass
class _Points:
    r"""R points, and the expansion of log p(x, q) at each."""

    q: Tensor
    value: Tensor
    gradient: Tensor
    precision: Tensor
    r"""As it is found; :func:`_positive` makes it one."""
    prior: Tensor

    @classmethod
    def at(cls, expand: Expand, x: Data, q: Tensor) -> "_Points":
        value, *others = (found.double() for found in expand(x, q))
        return cls(q, value.nan_to_num(-math.inf, -math.inf, -math.inf), *others)

    def __getitem__(self, index: Tensor) -> "_Points":
        return _Points(*(value[index] for value in vars(self).values()))

    def put(self, index: Tensor, new: "_Points") -> None:
        r"""Let other points take the place of some."""
        for name, value in vars(new).items():
            getattr(self, name)[index] = value

    def finite(self) -> Tensor:
        r"""Where everything is a finite number, ``(R,)``."""
        whole = self.precision.flatten(1).isfinite().all(1) & self.gradient.isfinite().all(1)
        return whole & self.value.isfinite()

    def step(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        r"""The damped steps, ``(R, d)``, and the nats that undamped ones promise, ``(R,)``."""
        precision = _positive(self.precision)
        slope = self.gradient.unsqueeze(-1)
        promised = 0.5 * (slope * torch.linalg.solve(precision, slope)).sum((-2, -1))
        diagonal = precision.diagonal(dim1=-2, dim2=-1)
        damped = precision + torch.diag_embed(damping.unsqueeze(-1) * diagonal)
        return torch.linalg.solve(damped, slope).squeeze(-1).to(self.q.dtype), promised


def _positive(precision: Tensor) -> Tensor:
    r"""Matrices with the eigenvalues' absolute values, at least 1e-6 of the largest."""
    failed = torch.linalg.cholesky_ex(precision).info > 0
    if failed.any():
        precision = precision.clone()
        values, vectors = torch.linalg.eigh(precision[failed].nan_to_num(0, 0, 0))
        least = 1e-6 * values.abs().amax(-1, keepdim=True) + 1e-12
        values = values.abs().clamp_min(least)
        precision[failed] = (vectors * values.unsqueeze(-2)) @ vectors.mT
    return precision


def _distance(points: _Points, one: Tensor, count: int) -> Tensor:
    r"""Of every start to that of the number `one` of its datum, in its deviations, ``(S, n)``."""
    n = len(one)
    rows = one * n + torch.arange(n, device=one.device)
    apart = (points.q.unflatten(0, (count, n)) - points.q[rows]).double()
    return torch.einsum("sni,nij,snj->sn", apart, points.precision[rows], apart).clamp_min(0).sqrt()


def _following(points: _Points, kept: Tensor, count: int) -> Tensor:
    r"""Which starts, ``(R,)``, are near to the highest of their datum, which is not itself one."""
    if count == 1:
        return torch.zeros_like(kept)
    value = torch.where(kept, points.value, -math.inf).unflatten(0, (count, -1))
    best = value.argmax(0)
    near = _distance(points, best, count) < SAME
    near.scatter_(0, best.unsqueeze(0), False)
    return near.flatten()


def _mixture(points: _Points, kept: Tensor, count: int) -> Normals:
    r"""The heaviest modes of each datum, those that are not near to a heavier one."""
    precision = _positive(points.precision)
    points = replace(points, precision=precision)
    d, n = points.q.shape[1], len(kept) // count
    volume = 0.5 * (d * math.log(2 * math.pi) - torch.linalg.slogdet(precision).logabsdet)
    weight = torch.where(kept, points.value + volume, -math.inf).unflatten(0, (count, n))
    rows: list[Tensor] = []
    weights: list[Tensor] = []
    least = weight.amax(0) + math.log(LIGHT)
    while len(rows) < MODES and (not rows or bool((weight >= least).any())):
        one = weight.argmax(0)
        found = weight.gather(0, one.unsqueeze(0)).squeeze(0)
        there = found >= least if rows else torch.ones_like(found, dtype=torch.bool)
        row = one * n + torch.arange(n, device=one.device)
        rows.append(torch.where(there, row, rows[0]) if rows else row)
        weights.append(torch.where(there, found, -math.inf))
        near = _distance(points, one, count) < APART
        near.scatter_(0, one.unsqueeze(0), True)
        weight = weight.masked_fill(near, -math.inf)
    index, log_weight = torch.stack(rows, 1), torch.stack(weights, 1)
    log_weight[:, 0] = log_weight[:, 0].nan_to_num(0, 0, 0)  # one that has nowhere to start from
    chosen = points[index.flatten()]
    root = torch.linalg.cholesky(chosen.precision)
    # The step that is left is short, and without damping exact where the posterior is normal.
    rest = torch.cholesky_solve(chosen.gradient.unsqueeze(-1), root).squeeze(-1)
    short = (chosen.gradient * rest).sum(-1, keepdim=True) < 2 * ARRIVED
    loc = chosen.q.double() + torch.where(short, rest, 0.0)
    half = torch.linalg.solve_triangular(root, chosen.prior, upper=False)
    shares, turn = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.mT, upper=False))
    back = torch.linalg.solve_triangular(root.mT, turn, upper=True)
    parts = (loc, turn.mT @ root.mT, back, shares.clamp(0, 1))
    return Normals(log_weight.log_softmax(1), *(p.unflatten(0, index.shape) for p in parts))
