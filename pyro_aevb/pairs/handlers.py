r"""Effect handlers: everything the package derives from a pair is one of these around it.

A pair is run as ``with pair.active(), handler: pair.model(x)``; handlers answer Pyro's ``sample``
messages.
"""

from collections.abc import Container, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pyro.distributions import (
    Categorical,
    MaskedDistribution,
    RelaxedBernoulliStraightThrough,
    RelaxedOneHotCategoricalStraightThrough,
    TorchDistribution,
)
from pyro.distributions.relaxed_straight_through import QuantizeBernoulli, QuantizeCategorical
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    Independent,
    IndependentTransform,
    Normal,
    TransformedDistribution,
)

from pyro_aevb.errors import UsageError

_QUANTIZE: dict[type, Any] = {
    RelaxedBernoulliStraightThrough: QuantizeBernoulli,
    RelaxedOneHotCategoricalStraightThrough: QuantizeCategorical,
}


class WholeBatch(Messenger):
    r"""Let every plate take the batch it is given, instead of drawing a random subsample.

    ``pyro.plate("data", size=N, subsample_size=len(x))`` draws :math:`B` of :math:`N` indices, by a
    permutation of all :math:`N`, at every call. The batch has been chosen already, so the indices
    :math:`0, \dots, B - 1` stand in for the draw, and the plate only carries the scale :math:`N/B`.
    :math:`B` may exceed :math:`N`, as when a batch is repeated for :math:`K` particles.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plates: dict[str, Any] = {}
        r"""What each plate draws its indices from, by name."""
        self.indices: dict[str, Tensor] = {}
        r"""What each plate was given."""

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) and msg["value"] is None:
            fn = self.plates[msg["name"]] = msg["fn"]
            size = fn.size if fn.subsample_size is None else fn.subsample_size
            msg["value"] = self.indices[msg["name"]] = torch.arange(size, device=fn.device)
            msg["done"] = True


class Declared(Messenger):
    r"""Let a data plate that was made with the size of the batch, B, declare N training data.

    It is then ``pyro.plate(name, size=N, subsample_size=B)``: its sites are scaled by N/B. One that
    declares N itself is left as it is.

    Arguments:
        name: The plate.
        num_data: N.
    """

    def __init__(self, name: str, num_data: int) -> None:
        super().__init__()
        self.name, self.num_data = name, num_data

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            fn = msg["fn"]
            if msg["name"] == self.name and fn.size != self.num_data:
                msg["fn"] = type(fn)(self.num_data, fn.size, device=fn.device)
        elif (own := self._frame(msg)) is not None:
            self._pyro_inspect(msg)
            msg["scale"] = msg["scale"] * (self.num_data / own.size)

    def _pyro_inspect(self, msg: Any) -> None:
        r"""Answer what plates there are, as a guide that makes its parameters asks."""
        if (own := self._frame(msg)) is not None:
            frames = {frame.name: frame for frame in msg["cond_indep_stack"]}
            frames[self.name] = own._replace(full_size=self.num_data)
            msg["cond_indep_stack"] = tuple(frames.values())

    def _pyro_post_param(self, msg: Any) -> None:
        r"""Of a parameter of N rows take B, as a plate does that declares N."""
        own, event_dim = self._frame(msg), msg["kwargs"].get("event_dim")
        if own is not None and event_dim is not None:
            value, dim = msg["value"], own.dim - event_dim
            if value.dim() >= -dim and value.shape[dim] == self.num_data:
                msg["value"] = value.narrow(dim, 0, own.size)

    def _frame(self, msg: Any) -> Any:
        r"""The plate in a message's stack, if it does not declare N by itself."""
        own = (f for f in msg["cond_indep_stack"] if f.name == self.name)
        return next((f for f in own if f.full_size != self.num_data), None)


def relaxed(value: Tensor) -> Tensor:
    r"""The numbers that have the density, of a draw that is rounded by a straight-through site.

    The pair sees 0 and 1, and Pyro keeps what it has rounded beside them, for gradients and for the
    density of these relaxed numbers; they are the latents.
    """
    found: Tensor = getattr(value, "_unquantize", value)
    return found


class Fix(Messenger):
    r"""Give the named latent sites these values; unlike conditioning, they stay latent.

    Arguments:
        values: The values by site name. Other sites are left alone. Those of straight-through sites
            are the relaxed ones (:func:`relaxed`), of which the pair is given the rounded ones.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = _rounded(msg["fn"], self.values[msg["name"]])
            msg["done"] = True


def _rounded(fn: Any, value: Tensor) -> Tensor:
    r"""What a straight-through distribution shows of relaxed values; else the values."""
    while isinstance(fn, (Independent, MaskedDistribution)):
        fn = fn.base_dist
    quantize = _QUANTIZE.get(type(fn))
    if quantize is None:
        return value
    shown: Any = quantize.apply(value)
    shown._unquantize = value
    return shown


def typical(fn: Any) -> tuple[Tensor, str]:
    r"""A value that stands for a distribution, and what it is: ``mean``, ``mode``, ``median`` or
    ``draw``.

    The mode where there is no finite mean, as for an index; the median of a normal that is
    transformed component by component, as a messenger guide's; a draw where there is none of them.
    """
    # By a call, which is what every distribution of Pyro has; not all have a method sample.
    return _middle(fn) or (fn(), "draw")


def _middle(fn: Any) -> tuple[Tensor, str] | None:
    r"""The mean of a distribution, or its mode, where it has one that is finite."""
    for name in ("mean", "mode"):
        try:
            value = getattr(fn, name)
        except (NotImplementedError, AttributeError):
            continue
        # A categorical distribution answers NaN where it is asked for its mean.
        if bool(torch.isfinite(value).all()):
            return value, name
    return _transformed(fn)


def _transformed(fn: Any) -> tuple[Tensor, str] | None:
    r"""The median of a normal that monotone functions of single numbers were applied to."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    if not isinstance(fn, TransformedDistribution):
        return None
    base = fn.base_dist
    while isinstance(base, Independent):
        base = base.base_dist
    transforms = [_of_numbers(transform) for transform in fn.transforms]
    alone = all(t.bijective and t.domain.event_dim == 0 for t in transforms)
    if not isinstance(base, Normal) or not alone:
        return None
    value = base.mean
    for transform in transforms:
        value = transform(value)
    affine = all(map(_is_affine, transforms))
    return (value, "mean" if affine else "median") if bool(value.isfinite().all()) else None


def _of_numbers(transform: Any) -> Any:
    r"""A transform without what only declares its dimensions."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return transform


def _is_affine(transform: Any) -> bool:
    if isinstance(transform, ComposeTransform):
        return all(map(_is_affine, transform.parts))
    return isinstance(transform, AffineTransform)


class AtMean(Messenger):
    r"""Let every latent site return the mean of its distribution, where it has one.

    Around a guide this gives :math:`\mathrm{E}_q[z|x]` and :math:`\mathrm{E}_q[w]`, exactly when
    the sites do not depend on one another, and the values along the chain of means otherwise;
    :func:`typical` says what stands for a mean where there is none.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["done"] or site_is_subsample(msg):
            return
        if (found := _middle(msg["fn"])) is not None:
            msg["value"], msg["done"] = found[0], True


class InTurn(Messenger):
    r"""Let a uniform index, such as that of an ensemble's member, take all its values in turn.

    Every M draws that follow one another hold each of the M values once, in random order, so a mean
    over draws, of which M divides the number, is that over values. Acts on a ``Categorical`` site
    outside all plates, whose values are equally likely.

    Arguments:
        number: The number of this draw, 0 or more.
        seed: Fixes the orders.
    """

    def __init__(self, number: int, seed: int) -> None:
        super().__init__()
        self.number, self.seed = number, seed

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        free = not msg["done"] and not msg["is_observed"] and msg["value"] is None
        alone = isinstance(fn, Categorical) and not fn.batch_shape and not msg["cond_indep_stack"]
        if not free or not alone or bool((fn.logits != fn.logits[0]).any()):
            return
        turn, place = divmod(self.number, len(fn.logits))
        order = np.random.default_rng([self.seed, turn]).permutation(len(fn.logits))
        msg["value"] = torch.tensor(order[place], device=fn.logits.device)
        msg["done"] = True


class Emphasis(Messenger):
    r"""Let the components of an observed site count more or less than once each.

    Its log-probability becomes :math:`\sum_i w_i \log p(x_i | z)`, in place of the sum of all.

    Arguments:
        name: The site, whose components are independent given the latents.
        weights: w, ``(B, *event_shape)``; repeated where the batch is repeated for particles.

    Raises:
        UsageError: When its components are not independent.
    """

    def __init__(self, name: str, weights: Tensor) -> None:
        super().__init__()
        self.name, self.weights = name, weights

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.name and msg["is_observed"]:
            times = len(msg["value"]) // len(self.weights)
            msg["fn"] = _Weighted(
                msg["fn"], self.weights.repeat(times, *[1] * (self.weights.dim() - 1))
            )


class _Weighted(TorchDistribution):
    r"""Independent components, the log-probability of each times a weight."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, fn: Any, weights: Tensor) -> None:
        apart = fn
        while isinstance(apart, Independent):
            apart = apart.base_dist
        if apart.event_shape or apart.batch_shape[-weights.dim() + 1 :] != weights.shape[1:]:
            raise UsageError(
                "corrupted_weight and intact_weight need a likelihood of independent components of "
                f"the shape of a datum, and this is a {type(apart).__name__} of shape "
                f"{tuple(fn.event_shape)}; leave them out"
            )
        self.apart, self.weights = apart, weights
        super().__init__(fn.batch_shape, fn.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        terms: Tensor = self.apart.log_prob(value) * self.weights
        return terms.flatten(-len(self.event_shape)).sum(-1) if self.event_shape else terms


class ScaleSites(Messenger):
    r"""Multiply the log-probabilities of the named sites by a factor.

    Around the model and the guide, with the names of the latent sites
    (:meth:`~pyro_aevb.pairs.description.Description.kl_sites`), this scales the Kullback-Leibler
    term of any objective, as for a warm-up; in an importance-weighted bound, within the weights.

    Arguments:
        scale: The factor, a number or a scalar tensor, not negative.
        names: The sites it applies to.
    """

    def __init__(self, scale: float | Tensor, names: Container[str]) -> None:
        super().__init__()
        self.scale = scale
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["scale"] = msg["scale"] * self.scale
