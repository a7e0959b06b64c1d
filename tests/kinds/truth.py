"""log p(x) by other means than the package's: sums over codes, and integrals on a grid.

Neither uses the guide, or anything that the package computes: only the pair's prior and likelihood.
"""

import itertools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, biject_to, constraints

from pyro_aevb.pairs.pair import Pair

from .pairs import Coded

POINTS, FAR = 161, (2.8, 4.0)
"""Points of the grid along each axis; how far it goes, as the area hyperbolic sine: the nearer
where that holds the prior, since far out a likelihood loses its digits."""
LARGEST = 40
"""The greatest count that a sum goes to."""
ROUNDED = (dist.RelaxedBernoulliStraightThrough, dist.RelaxedOneHotCategoricalStraightThrough)


def log_evidence(pair: Pair, x: Tensor) -> tuple[Tensor, str] | None:
    """log p(x) of every datum, float64, and how it was found; None where it is not this easy."""
    source = pair._origin[0]
    if type(source) is not Coded:
        return None
    with torch.no_grad(), pair.evaluating(), pyro.validation_enabled(False):
        fn = source.prior(x.new_ones(1, 1))
        tries = (_summed(fn), *(_integrated(fn, far) for far in FAR))
        # A grid may be too coarse, or too small, for the prior.
        whole = (t for t in tries if t is not None and abs(float(t[1].logsumexp(0))) < 0.005)
        found = next(whole, None)
        if found is None:
            return None
        codes, log_weight, how = found
        dims = len(fn.event_shape)
        h = codes.flatten(-dims) if dims else codes.unsqueeze(-1)
        seen = x.long() if source.whole else x
        try:
            likelihood = source.likelihood(h.to(x.dtype))
            log_p = torch.stack(
                [likelihood.log_prob(one.expand(len(h), *one.shape)).double() for one in seen]
            )
        except (RuntimeError, AssertionError):  # far out on the grid a likelihood may fail
            return None
    return (log_p + log_weight).nan_to_num(-math.inf, -math.inf, -math.inf).logsumexp(1), how


def _inner(fn: Any) -> Any:
    while isinstance(fn, (Independent, dist.Independent)):
        fn = fn.base_dist
    return fn


def _summed(fn: Any) -> tuple[Tensor, Tensor, str] | None:
    """All codes of a discrete prior, and their log-probabilities."""
    inner = _inner(fn)
    if isinstance(inner, ROUNDED[0]):  # a bit is 1 with the probability that its logit says
        inner = dist.Bernoulli(logits=inner.logits)
        fn = inner.to_event(1)
    if isinstance(inner, ROUNDED[1]):  # the largest is drawn as the Gumbel trick does
        fn = inner = dist.OneHotCategorical(logits=inner.logits)
    try:
        discrete = bool(inner.support.is_discrete)
    except (AttributeError, NotImplementedError):
        return None
    if not discrete:
        return None
    if inner.event_shape:
        if not isinstance(inner, torch.distributions.OneHotCategorical):
            return None
        codes = torch.eye(inner.event_shape[0]).unsqueeze(1)
        return codes[:, 0], fn.log_prob(codes)[:, 0].double(), "sum"
    if inner.has_enumerate_support:
        values = inner.enumerate_support(expand=False).flatten().tolist()
    else:
        values = [float(n) for n in range(LARGEST)]
    each = fn.event_shape.numel() if fn.event_shape else 1
    codes = torch.tensor(list(itertools.product(values, repeat=each)))
    codes = codes if fn.event_shape else codes.squeeze(1)
    return codes, fn.log_prob(codes.unsqueeze(1))[:, 0].double(), "sum"


def _integrated(fn: Any, far: float) -> tuple[Tensor, Tensor, str] | None:
    """A grid of the codes of one or two numbers, and the logarithm of density times area."""
    support = _support(fn)
    if support is None:
        return None
    real = support in (constraints.real, constraints.real_vector)
    try:
        transform = None if real else biject_to(support)
    except NotImplementedError:
        return None
    shape = fn.event_shape if transform is None else transform.inverse_shape(fn.event_shape)
    if torch.Size(shape).numel() > 2:
        return None
    t = torch.linspace(-1, 1, POINTS, dtype=torch.float64) * (far if real else 3.7)
    axis, log_step = t.sinh(), t.cosh().log() + (t[1] - t[0]).log()
    d = torch.Size(shape).numel()
    q = torch.cartesian_prod(*[axis] * d).view(-1, *shape)
    log_area = sum(torch.cartesian_prod(*[log_step] * d).view(-1, d).unbind(1))
    assert isinstance(log_area, Tensor)
    if transform is None:
        z = q
    else:
        z = transform(q)
        change = transform.log_abs_det_jacobian(q, z)
        log_area = log_area + change.reshape(len(q), -1).sum(1)
    z = z.float()
    log_prior = fn.log_prob(z.unsqueeze(1))[:, 0].double() if _wide(fn) else fn.log_prob(z).double()
    return z, (log_prior + log_area).nan_to_num(-math.inf, -math.inf, -math.inf), "integral"


def _wide(fn: Any) -> bool:
    return not isinstance(_inner(fn), (dist.TransformedDistribution, dist.TorchDistribution))


def _support(fn: Any) -> Any:
    try:
        support = fn.support
    except NotImplementedError:  # of zuko, which does not say
        return constraints.real_vector if hasattr(fn, "dist") else None
    inner = getattr(support, "base_constraint", support)
    if inner is constraints.real or isinstance(inner, type(constraints.real)):
        return constraints.real_vector if fn.event_shape else constraints.real
    if any(isinstance(value, Tensor) for value in vars(inner).values()):
        return None
    return support if isinstance(support, constraints.Constraint) else None
