r"""The joint log-density of data and their local latents, as a function of the latents."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import Transform, identity_transform

from pyro_aevb.data.batch import Data, repeated, with_data
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.hmc import evaluate
from pyro_aevb.pairs.density import (
    is_delta,
    is_masked,
    local_terms,
    log_joint,
    log_prob,
    masks,
    run,
)
from pyro_aevb.pairs.pair import Pair


class Joint:
    r""":math:`\log p(x|z, w)` and :math:`\log p(z|w)` per datum and chain, at plate scale 1.

    All local latents of a datum are one vector :math:`q \in \mathbb{R}^d`, their sites one after
    the other; the global latents w are held fixed. A site of another support than the real numbers
    is :math:`z = T(q)` by Pyro's transform to it, and its densities, the prior's and the guide's,
    are those of q, with :math:`\log |\partial T / \partial q|`, so that the integral over q is
    :math:`p(x|w)`. The guide, :math:`q(z|x, w)`, is used only where it is asked for. In nats.

    Valid for local latents that have a density and a support of real numbers that does not depend
    on the datum. Run inside ``pair.active()`` and ``WholeBatch()``. Every method is a function of
    its tensors that can be captured.

    Arguments:
        pair: An inspected pair.
        x: Some data, to look at the model with.
        weights: Values of the global sites.
        guide: Whether the guide will be used.

    Raises:
        UsageError: There is no local latent site; or one is masked out, or discrete, or of a
            support that is not the same for all data; or the guide would be used and has no
            density.
    """

    def __init__(
        self,
        pair: Pair,
        x: Data,
        weights: Mapping[str, Tensor] | None = None,
        guide: bool = False,
    ) -> None:
        assert pair.description is not None, "inspect the pair first"
        self.pair = pair
        self.weights = list(weights or {})
        local = pair.description.local_sites
        if not local:
            raise UsageError(
                f"{pair.name} has no latent site inside the data plate, so there is no p(z|x) to "
                "draw from"
            )
        sites = run(pair.model, x, weights)
        self.transforms: dict[str, Transform] = {}
        for name in (site.name for site in local):
            fn = sites[name]["fn"]
            if is_masked(sites[name]) or is_delta(fn):
                raise UsageError(
                    f"{pair.name}: latent site {name!r} has no prior density (it is masked or a "
                    "Delta), so there is no p(z|x) to draw from"
                )
            if masks(sites[name]):
                raise UsageError(
                    f"{pair.name}: latent site {name!r} has no density where it is masked, so "
                    "p(z|x) cannot be drawn from there"
                )
            self.transforms[name] = _to_support(pair.name, name, fn)
        if guide and (reason := pair.description.no_guide_density()) is not None:
            raise UsageError(
                f"{pair.name}: its guide has no density at given codes: {reason}; start from the "
                "prior"
            )
        self.shapes = {
            site.name: torch.Size(self.transforms[site.name].inverse_shape(site.event_shape))
            for site in local
        }
        r"""Of the part of q that is each site's."""
        self.dim = sum(shape.numel() for shape in self.shapes.values())
        r"""d, how many numbers the local latents of a datum are."""
        # In the data plate alone, so that a guide's batch is that of the data.
        self._alone = len(local) == 1 and len(sites[local[0].name]["fn"].batch_shape) == 1

    def values(self, q: Tensor) -> dict[str, Tensor]:
        r"""What vectors ``(*chains, d)`` stand for: each site's values, ``(*chains, *shape)``."""
        return {name: self.transforms[name](part) for name, part in self._parts(q).items()}

    def vector(self, values: Mapping[str, Tensor], chains: int = 1) -> Tensor:
        r"""The vectors of sites' values whose first `chains` dimensions are those of the chains."""
        parts = (self.transforms[name].inv(values[name]) for name in self.shapes)
        return torch.cat([part.reshape(*part.shape[:chains], -1) for part in parts], -1)

    def log_det(self, q: Tensor) -> Tensor:
        r""":math:`\log |\partial T / \partial q|` of all sites, of the shape of the chains."""
        total = q.new_zeros(q.shape[:-1])
        for name, part in self._parts(q).items():
            transform = self.transforms[name]
            if transform is not identity_transform:
                change = transform.log_abs_det_jacobian(part, transform(part))
                total = total + change.reshape(*q.shape[:-1], -1).sum(-1)
        return total

    def _parts(self, q: Tensor) -> dict[str, Tensor]:
        parts = q.split([shape.numel() for shape in self.shapes.values()], -1)
        return {
            name: part.reshape(*q.shape[:-1], *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def draw(self, side: Any, x: Data, *weights: Tensor) -> Tensor:
        r"""A draw for each datum by the model (from the prior) or the guide, ``(n, d)``."""
        sites = run(side, x, self._named(weights))
        return self.vector({name: sites[name]["value"] for name in self.shapes})

    def simulate(self, x: Data, *weights: Tensor) -> tuple[Data, Tensor]:
        r"""Data drawn from the model, of the shape of x, and their latents, ``(n, d)``.

        Raises:
            UsageError: The model reads the data, so one call draws none.
        """
        assert self.pair.description is not None
        if (reason := self.pair.description.no_simulation()) is not None:
            raise UsageError(f"{self.pair.name} cannot simulate data: {reason}")
        sites = run(poutine.uncondition(self.pair.model), x, self._named(weights))
        drawn = sites[self.pair.description.observed]["value"].reshape(x.shape)
        codes = self.vector({name: sites[name]["value"] for name in self.shapes})
        return with_data(x, drawn), codes

    def terms(self, x: Data, q: Tensor, *weights: Tensor) -> Tensor:
        r""":math:`\log p(x|z, w)` and :math:`\log p(z|w)`.

        Arguments:
            x: ``(n, *event_shape)``.
            q: The latents, ``(*chains, n, d)``.
            weights: Values of the global sites.

        Returns:
            ``(2, *chains, n)``.
        """
        observed, prior = log_joint(self.pair, *self._rows(x, q, weights))
        likelihood = torch.stack([*observed.values()]).sum(0)
        prior = prior.view(q.shape[:-1]) + self.log_det(q)
        return torch.stack([likelihood.view(q.shape[:-1]), prior])

    def log_guide(self, x: Data, q: Tensor, *weights: Tensor) -> Tensor:
        r""":math:`\log q(z|x, w)`, ``(*chains, n)``."""
        if not self._alone:
            terms = local_terms(self.pair, self.pair.guide, *self._rows(x, q, weights))
            return torch.stack(list(terms.values())).sum(0).view(q.shape[:-1]) + self.log_det(q)
        # A single site depends on x alone, so that the encoder runs once for all chains.
        ((name, values),) = self.values(q).items()
        first = {name: values.view(-1, *values.shape[q.dim() - 2 :])[0], **self._named(weights)}
        site = run(self.pair.guide, x, first)[name]
        return log_prob({**site, "value": values}, 1.0) + self.log_det(q)

    def evaluate(self, x: Data, q: Tensor, *weights: Tensor) -> list[Tensor]:
        r"""The :meth:`terms` and the gradient of each with respect to q, ``(2, *q.shape)``."""
        _, terms, gradients = evaluate(lambda q: self.terms(x, q, *weights), q)
        return [terms, gradients]

    def _rows(
        self, x: Data, q: Tensor, weights: Sequence[Tensor]
    ) -> tuple[Data, dict[str, Tensor]]:
        r"""The data repeated for every chain, and the values of all sites there."""
        rows = repeated(x, q.shape[:-2].numel())
        return rows, self.values(q.flatten(0, -2)) | self._named(weights)

    def _named(self, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.weights, weights, strict=True))


def _to_support(pair: str, name: str, fn: Any) -> Transform:
    r"""From vectors of real numbers to the support of a latent site."""
    known = _support(fn)
    if known is None:
        raise UsageError(
            f"{pair}: latent site {name!r} does not say what its support is: there is no gradient "
            "to follow; give its distribution a support"
        )
    inner = known
    while hasattr(inner, "base_constraint"):  # of an independent or a mixture
        inner = inner.base_constraint
    if inner is constraints.real:
        return identity_transform
    support = _alike_for_all(known)
    try:
        if support is None or support.is_discrete:
            raise NotImplementedError
        transform: Transform = biject_to(support)
    except NotImplementedError:
        kind = type(inner).__name__.strip("_")
        where = f"in {kind}" if support is not None else f"in {kind}, another for each datum"
        raise UsageError(
            f"{pair}: latent site {name!r} lies {where}, which no one transform makes of real "
            "numbers: there is no gradient to follow"
        ) from None
    return transform


def _support(fn: Any) -> Any:
    r"""The support of a distribution, or of the one that it wraps, as ZukoToPyro does."""
    try:
        return fn.support
    except NotImplementedError:
        if hasattr(fn, "dist"):
            return _support(fn.dist)
        # A flow of zuko goes from its values to noise.
        return getattr(getattr(fn, "transform", None), "domain", None)


def _alike_for_all(support: Any) -> Any:
    r"""A support with numbers for bounds where these are the same for all data; else None."""
    parts = dict(vars(support))
    for key, value in parts.items():
        if isinstance(value, constraints.Constraint):
            parts[key] = _alike_for_all(value)
            if parts[key] is None:
                return None
        elif isinstance(value, Tensor):
            parts[key] = float(value.flatten()[0])
            if bool((value != parts[key]).any()):
                return None
    if parts.get("upper_bound") == math.inf and "lower_bound" in parts:  # as of a Pareto
        return constraints.greater_than(parts["lower_bound"])
    return type(support)(**parts) if parts else support
