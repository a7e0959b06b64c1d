r"""Missing values: the density is that of what was seen, and the rest can be imputed.

A value that is NaN where the model observes it is left out of the likelihood, which for independent
components is the marginal density of the others. Pyro's ``obs_mask`` splits a site in two,
``x_observed`` and the latent ``x_unobserved``; where the guide does not draw the latter, the
model's own conditional stands for it on both sides, and the two cancel.
"""

from collections.abc import Container
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import is_validation_enabled
from torch import Tensor
from torch.distributions import Independent, biject_to

from pyro_aevb.data.batch import Data, data_of, with_data
from pyro_aevb.errors import UsageError, at_least_one
from pyro_aevb.pairs.density import by_datum, data_first, in_plate, log_prob, run, run_both
from pyro_aevb.pairs.handlers import typical
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.settle import settled


class Seen(Messenger):
    r"""Leave the values that are NaN out of what a model observes.

    Raises:
        UsageError: A part of an event is missing whose components are not independent.
    """

    def _pyro_sample(self, msg: Any) -> None:
        value = msg["value"]
        if not msg["is_observed"] or msg["infer"].get("_deterministic"):
            return
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        apart, events, mask = msg["fn"], 0, None
        while isinstance(apart, (Independent, MaskedDistribution)):
            if isinstance(apart, Independent):
                events += apart.reinterpreted_batch_ndims
            else:
                mask = apart._mask if mask is None else mask & apart._mask
            apart = apart.base_dist
        missing = value.isnan()
        if apart.event_shape:
            whole = missing.flatten(-len(apart.event_shape))
            missing = whole.any(-1)
            if is_validation_enabled() and bool((missing != whole.all(-1)).any()):
                raise UsageError(
                    f"observed site {msg['name']!r} has events of which a part is missing, and "
                    f"{type(apart).__name__} does not say what the others' density is"
                )
        seen = ~missing if mask is None else ~missing & mask
        inside = _inside(apart.support, value)
        msg["fn"] = apart.mask(seen).to_event(events)
        msg["value"] = torch.where(value.isnan(), inside, value)


def _inside(support: Any, like: Tensor) -> Tensor:
    r"""A value in a support, in the place of those that are missing."""
    while isinstance(support, torch.distributions.constraints.independent):
        support = support.base_constraint
    if support.is_discrete:
        return torch.zeros_like(like) + getattr(support, "lower_bound", 0)
    transform = biject_to(support)
    return transform(like.new_zeros(transform.inverse_shape(like.shape)))


class LeftOut(Messenger):
    r"""Give some latent sites of a model no density, as their conditional is the guide's too, and
    a typical value.

    Arguments:
        names: The sites.
    """

    def __init__(self, names: Container[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["mask"] = False
            if not msg["done"]:  # with the same value at each call, as nothing depends on it
                fn = msg["fn"]
                msg["value"] = fn.mode if fn.support.is_discrete else typical(fn)[0].detach()
                msg["done"] = True


@torch.no_grad()
def impute(
    pair: Pair, x: Data, num_samples: int = 100, return_std: bool = False, **columns: Any
) -> Any:
    r"""Data with their missing values replaced by what the pair expects of them.

    .. math:: \mathrm{E}[x_m | x_s] \approx \sum_k \omega_k \, \mathrm{E}[x_m | z_k, w_k], \qquad
        \omega_k \propto \frac{p(x_s, z_k | w_k)}{q(z_k | x, w_k)}, \quad
        z_k, w_k \sim q,

    with what was seen, :math:`x_s`, by importance sampling with the guide; exact as K grows where
    the guide reaches all of the posterior, and the components of x are independent given z. Where
    the latents have no density, the draws count alike. The variance, from the same draws, is
    :math:`\mathrm{E}[\mathrm{var}(x_m | z, w) | x_s] + \mathrm{var}(\mathrm{E}[x_m | z, w] | x_s)`.

    Arguments:
        pair: An inspected pair.
        x: The data, ``(batch, *event_shape)``, in which NaN stands for a missing value.
        num_samples: K.
        return_std: Return the standard deviation of each value given what was seen, too.
        columns: Columns that the pair takes beside x, ``(batch, *shape)``.

    Returns:
        ``(batch, *event_shape)``; what is not missing is as it was. With `return_std` also the
        standard deviations, of the same shape, 0 of what is not missing.

    Raises:
        UsageError: The pair was not inspected, observes something else than the values of x, K is
            below 1, or a likelihood has no variance where it is asked for.
    """
    if pair.description is None:
        raise UsageError(f"{pair.name} has not been inspected yet; call inspect(pair, x) first")
    at_least_one("num_samples", num_samples)
    description, x = pair.description, settled(pair, pair.batch(x, columns))
    total = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
    own = data_of(x)
    mean, square = (torch.zeros_like(own, dtype=torch.float64) for _ in range(2))
    with pair.running():
        places = _places(pair, x)
        for _ in range(num_samples):
            guide, model = run_both(pair, x)
            weight = torch.zeros_like(total)
            for sign, side in ((1, model), (-1, guide)):
                for one in side.values():
                    if in_plate(one, description.plate) and description.undefined() is None:
                        terms = by_datum(log_prob(one, 1.0), one, description.plate)
                        weight += sign * terms.double()
            both = torch.logaddexp(total, weight)
            share = (weight - both).exp().reshape(-1, 1)
            for name, at in places.items():
                value = _rows(pair, model[name], typical(model[name]["fn"])[0])
                _towards(mean, at, share, value)
                if return_std:
                    variance = _rows(pair, model[name], _variance(pair, name, model[name]["fn"]))
                    _towards(square, at, share, variance + value**2)
            total = both
    filled = torch.where(own.isnan(), mean.to(own.dtype), own)
    if not return_std:
        return filled
    deviation = (square - mean**2).clamp(min=0).sqrt().to(own.dtype)
    return filled, torch.where(own.isnan(), deviation, torch.zeros_like(own))


def _rows(pair: Pair, site: Any, values: Tensor) -> Tensor:
    r"""What a site has for each datum, ``(batch, k)``."""
    assert pair.description is not None
    first = data_first(values, site, pair.description.plate, site["fn"].event_dim)
    return first.reshape(len(first), -1).double()


def _towards(mean: Tensor, at: Tensor, share: Tensor, values: Tensor) -> None:
    r"""Move a running mean of some components towards new values, by their share of the weight."""
    flat = mean.view(len(mean), -1)
    flat[:, at] += share * (values - flat[:, at])


def _variance(pair: Pair, name: str, fn: Any) -> Tensor:
    try:
        found: Tensor = fn.variance
        if bool(found.isfinite().all()):
            return found
    except (NotImplementedError, AttributeError):
        pass
    raise UsageError(
        f"{pair.name}: the likelihood of {name!r} has no variance; leave return_std out"
    )


def _places(pair: Pair, x: Data) -> dict[str, Tensor]:
    r"""Which components of x, flattened, each observed site is: found by numbering them.

    Raises:
        UsageError: An observed site is none of them, as one of what was computed of x.
    """
    assert pair.description is not None
    own = data_of(x)
    numbers = torch.arange(own[0].numel(), device=own.device)
    numbered = numbers.to(own.dtype).expand(len(own), -1).reshape(own.shape)
    drawn = {name: site["value"] for name, site in run(pair.guide, x).items()}
    sites = run(pair.model, with_data(x, numbered), drawn)
    found = {}
    for name in pair.description.observed_sites:
        values = _rows(pair, sites[name], sites[name]["value"])
        at = values[0].round().long()
        if bool((values == at).all()) and bool(((at >= 0) & (at < len(numbers))).all()):
            found[name] = at
    if not found or torch.cat([*found.values()]).sort().values.tolist() != numbers.tolist():
        name = pair.description.observed
        raise UsageError(
            f"{pair.name} does not observe x as it is, each component once: {name!r} has shape "
            f"{tuple(sites[name]['value'].shape)}, and the data {tuple(x.shape)}"
        )
    return found
