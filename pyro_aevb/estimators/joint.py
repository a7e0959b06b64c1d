r"""The joint log-density of data and their local latents, as a function of the latents."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from pyro_aevb.data.batch import Data, repeated, with_data
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.hmc import evaluate
from pyro_aevb.pairs.density import is_delta, is_masked, local_terms, log_prob, run
from pyro_aevb.pairs.pair import Pair


class Joint:
    r""":math:`\log p(x|z, w)` and :math:`\log p(z|w)` per datum and chain, at plate scale 1.

    All local latents of a datum are one vector :math:`q \in \mathbb{R}^d`, their sites one after
    the other; the global latents w are held fixed. The guide, :math:`q(z|x, w)`, is used only where
    it is asked for. In nats.

    Valid for local latents that are real-valued and have a density. Run inside ``pair.active()``
    and ``WholeBatch()``. Every method is a function of its tensors that can be captured.

    Arguments:
        pair: An inspected pair.
        x: Some data, to look at the model with.
        weights: Values of the global sites.
        guide: Whether the guide will be used.

    Raises:
        UsageError: There is no local latent site; or one is masked out, or not real-valued; or
            the guide would be used and has no density.
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
        for name in (site.name for site in local):
            fn = sites[name]["fn"]
            if is_masked(sites[name]) or is_delta(fn):
                raise UsageError(
                    f"{pair.name}: latent site {name!r} has no prior density (it is masked or a "
                    "Delta), so there is no p(z|x) to draw from"
                )
            if not _is_real(fn.support):
                raise UsageError(
                    f"{pair.name}: latent site {name!r} lies in {fn.support}; Hamiltonian Monte "
                    "Carlo needs a real-valued site, of which the model computes the constrained "
                    "value"
                )
        reason = pair.description.undefined()
        if reason is None and pair.description.auxiliary:
            reason = f"{pair.description.auxiliary[0]!r} is an auxiliary guide site"
        if guide and reason is not None:
            raise UsageError(
                f"{pair.name}: its guide has no density at given codes: {reason}; start from the "
                "prior"
            )
        self.shapes = {site.name: torch.Size(site.event_shape) for site in local}
        self.dim = sum(shape.numel() for shape in self.shapes.values())
        r"""d, how many numbers the local latents of a datum are."""

    def values(self, q: Tensor) -> dict[str, Tensor]:
        r"""What vectors ``(*chains, d)`` stand for: each site's values, ``(*chains, *shape)``."""
        parts = q.split([shape.numel() for shape in self.shapes.values()], -1)
        return {
            name: part.reshape(*q.shape[:-1], *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def vector(self, values: Mapping[str, Tensor], chains: int = 1) -> Tensor:
        r"""The vectors of sites' values whose first `chains` dimensions are those of the chains."""
        return torch.cat([values[name].flatten(chains) for name in self.shapes], -1)

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
        terms = local_terms(self.pair, self.pair.model, *self._rows(x, q, weights))
        assert self.pair.description is not None
        likelihood = terms.pop(self.pair.description.observed)
        prior = sum(terms.values(), torch.zeros_like(likelihood))
        return torch.stack([likelihood, prior]).view(2, *q.shape[:-1])

    def log_guide(self, x: Data, q: Tensor, *weights: Tensor) -> Tensor:
        r""":math:`\log q(z|x, w)`, ``(*chains, n)``."""
        if len(self.shapes) > 1:
            terms = local_terms(self.pair, self.pair.guide, *self._rows(x, q, weights))
            return torch.stack(list(terms.values())).sum(0).view(q.shape[:-1])
        # A single site depends on x alone, so that the encoder runs once for all chains.
        ((name, values),) = self.values(q).items()
        first = {name: values.view(-1, *values.shape[q.dim() - 2 :])[0], **self._named(weights)}
        site = run(self.pair.guide, x, first)[name]
        return log_prob({**site, "value": values}, 1.0)

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


def _is_real(support: constraints.Constraint) -> bool:
    while hasattr(support, "base_constraint"):  # of an independent or a mixture
        support = support.base_constraint
    return support is constraints.real
