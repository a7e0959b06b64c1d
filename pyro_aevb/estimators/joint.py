r"""The joint log-density of data and their local latents, as a function of the latents."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.terms import model_terms
from pyro_aevb.handlers import Fix
from pyro_aevb.hmc import evaluate
from pyro_aevb.pairs import Pair
from pyro_aevb.sites import is_delta, is_masked, sample_sites


class Joint:
    r""":math:`\log p(x|z, w)` and :math:`\log p(z|w)` per datum and chain, at plate scale 1.

    All local latents of a datum are one vector :math:`q \in \mathbb{R}^d`, their sites one after
    the other; the global latents w are held fixed. The guide is not used. In nats.

    Valid for local latents that are real-valued and have a density. Run inside ``pair.active()``
    and ``WholeBatch()``. Every method is a function of its tensors that can be captured.

    Arguments:
        pair: An inspected pair.
        x: Some data, to look at the model with.
        weights: Values of the global sites.

    Raises:
        UsageError: There is no local latent site; or one is masked out, or not real-valued.
    """

    def __init__(self, pair: Pair, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> None:
        assert pair.description is not None, "inspect the pair first"
        self.pair = pair
        self.weights = list(weights or {})
        local = pair.description.local_sites
        if not local:
            raise UsageError(
                f"{pair.name} has no latent site inside the data plate, so there is no p(z|x) to "
                "draw from"
            )
        with Fix(weights or {}):
            sites = sample_sites(poutine.trace(pair.model).get_trace(x))
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

    def draw(self, x: Tensor, *weights: Tensor) -> Tensor:
        r"""One draw from the prior, :math:`z \sim p(z|w)`, for each datum, ``(n, d)``."""
        with Fix(dict(zip(self.weights, weights, strict=True))):
            trace: Any = poutine.trace(self.pair.model).get_trace(x)
        values = {name: trace.nodes[name]["value"] for name in self.shapes}
        return self.vector(values)

    def terms(self, x: Tensor, q: Tensor, *weights: Tensor) -> Tensor:
        r""":math:`\log p(x|z, w)` and :math:`\log p(z|w)`.

        Arguments:
            x: ``(n, *event_shape)``.
            q: The latents, ``(*chains, n, d)``.
            weights: Values of the global sites.

        Returns:
            ``(2, *chains, n)``.
        """
        chains = q.shape[:-2].numel()
        rows = x.expand(chains, *x.shape).flatten(0, 1)
        fixed = self.values(q.flatten(0, -2)) | dict(zip(self.weights, weights, strict=True))
        terms = model_terms(self.pair, rows, fixed)
        assert self.pair.description is not None
        likelihood = terms.pop(self.pair.description.observed)
        prior = sum(terms.values(), torch.zeros_like(likelihood))
        return torch.stack([likelihood, prior]).view(2, *q.shape[:-1])

    def evaluate(self, x: Tensor, q: Tensor, *weights: Tensor) -> list[Tensor]:
        r"""The :meth:`terms` and the gradient of each with respect to q, ``(2, *q.shape)``."""
        _, terms, gradients = evaluate(lambda q: self.terms(x, q, *weights), q)
        return [terms, gradients]


def _is_real(support: constraints.Constraint) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real
