r"""How log p(x, q|w) bends around a point: its gradient, and a precision that is positive.

Where the pixels of x are independent given q, with parameters :math:`\eta(q)` (logits, means,
scales, rates), the likelihood's part of the precision is that of Gauss and Newton,

.. math:: J^\top F J, \qquad J = \frac{\partial \eta}{\partial q}, \qquad
    F_{ab} = \frac{\partial^2}{\partial \eta_a \partial \eta_b}
        \mathrm{KL}(p(x|\eta_0) \| p(x|\eta)) \Big|_{\eta = \eta_0},

with the Fisher information F, which is positive wherever q is; of a family whose divergence
PyTorch does not know (Student's t) F is the observed information, :math:`-\partial^2 \log
p(x|\eta) / \partial \eta^2`, where that is positive, and zero elsewhere. J is found forwards, a
product with each of the d axes. Of any other likelihood, and of the prior, it is the exact
:math:`-\partial^2 / \partial q^2`.

In more than :data:`FULL` dimensions d products are too many, and few directions are of use: those
in which the data say more than the prior. In coordinates in which the prior's precision has a unit
diagonal, :math:`G = J^\top F J` is then sought in a subspace,

.. math:: Y = G \Omega, \qquad Q = \mathrm{qr}(Y), \qquad
    G \approx Q (J Q)^\top F (J Q) Q^\top,

with r random columns of :math:`\Omega`; it is exact where G is of that rank, and else too small, in
directions in which the data say little, so that a normal is too wide there. On the data that the
pair is looked at with, r is doubled until the least of the r eigenvalues is below :data:`LEFT`; if
as many products would not be fewer than d, all directions are found.

References:
    | Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent (Schraudolph, 2002)
    | https://doi.org/10.1162/08997660260028683
    | Finding Structure with Randomness: Probabilistic Algorithms for Constructing Approximate
      Matrix Decompositions (Halko, Martinsson and Tropp, 2011)
    | https://arxiv.org/abs/0909.4061
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.func import grad, jvp, vjp, vmap

from pyro_aevb.data.batch import Data
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.pairs.density import base, by_datum, log_prob, run

Parameters = dict[str, Tensor]
FULL, LARGEST = 200, 400
r"""Dimensions up to which a precision is found in all directions; and up to which it is made."""
RANK, LEFT = 64, 0.1
r"""Directions, at first, in which the likelihood's part is sought in more dimensions; and what it
may be, in units of the prior's, in those that are left out."""


class Curvature:
    r"""The expansion of a pair's joint log-density; run inside ``pair.running()``.

    Arguments:
        joint: The density.
        x: Some data, to look at the likelihood with.
        q: Their latents, ``(n, d)``.
        weights: Values of the global sites.

    Raises:
        UsageError: There are more than :data:`LARGEST` dimensions, or more than :data:`FULL` and a
            likelihood or a prior for which all directions are needed.
    """

    def __init__(self, joint: Joint, x: Data, q: Tensor, *weights: Tensor) -> None:
        self.joint = joint
        self.information = self._choose(x, q, weights)
        self._whole_prior = self._priors_depend(x, q, weights)
        self._apart = False
        r"""Whether the prior is one of each number by itself, so that its precision is diagonal."""
        if not self._whole_prior:
            prior = self._prior_alone(x, q, weights)[1]
            self._apart = torch.equal(prior, torch.diag_embed(prior.diagonal(dim1=1, dim2=2)))
        if joint.dim > LARGEST:
            raise UsageError(f"its {joint.dim} latent dimensions are more than {LARGEST}")
        self.rank = 0
        r"""r; 0 where all directions are found."""
        if joint.dim > FULL:
            if self._whole_prior or self.information is None:
                why = "priors depend on latents" if self._whole_prior else "pixels are not apart"
                raise UsageError(
                    f"its {joint.dim} latent dimensions are more than {FULL}, and its {why}"
                )
            self.rank = self._enough(x, q, weights)
        self.products = 3 * self.rank or joint.dim
        r"""About how many rows of the decoder one point is worth, beside itself."""

    def __call__(self, x: Data, q: Tensor, *weights: Tensor) -> list[Tensor]:
        r"""The expansion of n data at one point each.

        Arguments:
            x: ``(n, *event_shape)``.
            q: ``(n, d)``.
            weights: Values of the global sites.

        Returns:
            :math:`\log p(x, q|w)`, ``(n,)``; its gradient, ``(n, d)``; its precision, and the part
            of it that is the prior's, ``(n, d, d)`` each, the whole not positive where neither the
            likelihood nor the prior is log-concave.
        """
        terms = self.joint.terms(x, q, *weights)
        of_prior = self._prior if self._whole_prior else self._prior_alone
        prior_gradient, prior = of_prior(x, q, weights)
        if self.information is None:
            gradient, likelihood = _second(lambda q: self.joint.terms(x, q, *weights)[0], q)
        else:
            gradient, likelihood = self._gauss_newton(x, q, weights, prior)
        return [terms.sum(0), gradient + prior_gradient, likelihood + prior, prior]

    def _choose(self, x: Data, q: Tensor, weights: tuple[Tensor, ...]) -> Any:
        r"""How the information of each observed site's parameters is found; None where the exact
        Hessian stands in."""
        found = [_information(site) for site in self._observed(x, q, weights)]
        return None if None in found else found

    def _enough(self, x: Data, q: Tensor, weights: tuple[Tensor, ...]) -> int:
        r"""The rank beyond which the data say little; 0 where all directions are no more work."""
        prior = self._prior_alone(x, q, weights)[1]
        scale = _scale(prior)
        self.rank = RANK
        while 3 * self.rank < q.shape[1]:
            found = self._gauss_newton(x, q, weights, prior)[1]
            values = torch.linalg.eigvalsh(found * scale.unsqueeze(1) * scale.unsqueeze(2))
            if bool((values[:, -self.rank] < LEFT).all()):
                return self.rank
            self.rank *= 2
        return 0

    def _gauss_newton(
        self, x: Data, q: Tensor, weights: tuple[Tensor, ...], prior: Tensor
    ) -> tuple[Tensor, Tensor]:
        def parameters(q: Tensor) -> list[Tensor]:
            return [v for s in self._observed(x, q, weights) for v in _parameters(s).values()]

        parts = [
            _part(site, of)
            for site, of in zip(self._observed(x, q, weights), self.information, strict=True)
        ]
        slopes = [slope for own, _ in parts for slope in own]
        information = [matrix for _, matrix in parts]

        def along(directions: Tensor) -> list[Tensor]:
            r"""J times directions ``(r, n, d)``, ``(r, *eta.shape)`` for each parameter."""
            found: list[Tensor] = vmap(lambda axis: jvp(parameters, (q,), (axis,))[1])(directions)
            return found

        if not self.rank:
            jacobians = along(_axes(q))
            along_slopes = [
                _rows(one, len(q)) @ slope.reshape(len(q), -1, 1)
                for one, slope in zip(jacobians, slopes, strict=True)
            ]
            gradient = torch.stack(along_slopes).sum(0).squeeze(-1)
            return gradient, _between(jacobians, information, len(q))
        back = vjp(parameters, q)[1]

        def against(cotangents: Sequence[Tensor]) -> Tensor:
            r"""Their products with J, of the shape of q."""
            (found,) = back([*cotangents])
            return found

        scale = _scale(prior)
        through = iter(along(_noise(q, self.rank) * scale))
        weighted = []
        for matrix in information:
            own = [next(through) for _ in matrix]
            weighted += [sum(f * one for f, one in zip(row, own, strict=True)) for row in matrix]
        found = vmap(lambda *parts: against(parts))(*weighted) * scale
        basis = torch.linalg.qr(found.permute(1, 2, 0)).Q  # (n, d, r)
        core = _between(along(basis.permute(2, 0, 1) * scale), information, len(q))
        basis = basis / scale.unsqueeze(-1)
        return against(slopes), basis @ core @ basis.mT

    def _priors_depend(self, x: Data, q: Tensor, weights: tuple[Tensor, ...]) -> bool:
        r"""Whether the prior of some latent follows from others."""
        with torch.enable_grad():
            q = q.detach().requires_grad_()
            sites, fixed = self._sites(x, q, weights), self.joint.values(q.detach())
            terms = [log_prob({**sites[k], "value": v}, 1.0).sum() for k, v in fixed.items()]
            total = torch.stack(terms).sum()
            if not total.requires_grad:
                return False
            slope = torch.autograd.grad(total, q, materialize_grads=True)[0]
        return bool((slope != 0).any())

    def _prior(self, x: Data, q: Tensor, weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return _second(lambda q: self.joint.terms(x, q, *weights)[1], q)

    def _prior_alone(
        self, x: Data, q: Tensor, weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        r"""The same where no prior depends on other latents, without a run of the decoder."""
        sites = self._sites(x, q, weights)
        assert self.joint.pair.description is not None
        plate = self.joint.pair.description.plate

        def log_prior(q: Tensor) -> Tensor:
            values = self.joint.values(q)
            terms = (log_prob({**sites[k], "value": v}, 1.0) for k, v in values.items())
            each = zip(terms, values, strict=True)
            return sum((by_datum(t, sites[k], plate) for t, k in each), self.joint.log_det(q))

        return _second(log_prior, q, self._apart)

    def _observed(self, x: Data, q: Tensor, weights: tuple[Tensor, ...]) -> list[Any]:
        assert self.joint.pair.description is not None
        sites = self._sites(x, q, weights)
        return [sites[name] for name in self.joint.pair.description.observed_sites]

    def _sites(self, x: Data, q: Tensor, weights: tuple[Tensor, ...]) -> dict[str, Any]:
        named = self.joint.values(q) | dict(zip(self.joint.weights, weights, strict=True))
        return run(self.joint.pair.model, x, named)


def _second(
    function: Callable[[Tensor], Tensor], q: Tensor, diagonal: bool = False
) -> tuple[Tensor, Tensor]:
    r"""The gradient of a function ``(n, d) -> (n,)``, each on its own, and minus its Hessian; of
    one that is diagonal by the product with the sum of all axes alone."""
    slope = grad(lambda q: function(q).sum())
    if diagonal:
        at, along = jvp(slope, (q,), (torch.ones_like(q),))[:2]
        return at, torch.diag_embed(-along)
    columns = vmap(lambda axis: jvp(slope, (q,), (axis,))[1])(_axes(q))
    return slope(q), -columns.movedim(0, -1)


def _rows(one: Tensor, n: int) -> Tensor:
    r"""Products ``(r, n, ...)`` as matrices ``(n, r, pixels)``."""
    return one.reshape(len(one), n, -1).transpose(0, 1)


def _between(products: list[Tensor], information: list[list[list[Tensor]]], n: int) -> Tensor:
    r"""The information between r directions, of J times each, ``(n, r, r)``: of every observed site
    the products with its own parameters."""
    rows, parts = iter([_rows(one, n) for one in products]), []
    for matrix in information:
        own = [next(rows) for _ in matrix]
        parts += [
            one @ (other * matrix[i][j].reshape(n, 1, -1)).mT
            for i, one in enumerate(own)
            for j, other in enumerate(own)
        ]
    return torch.stack(parts).sum(0)


def _scale(prior: Tensor) -> Tensor:
    r"""Standard deviations of a prior of which these are the precisions, ``(n, d)``."""
    return prior.diagonal(dim1=1, dim2=2).abs().clamp_min(1e-12).rsqrt()


def _noise(q: Tensor, rank: int) -> Tensor:
    r"""The same random directions at every call, for all data, ``(r, 1, d)``."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(rank, 1, q.shape[1], generator=generator, dtype=q.dtype)
    return noise.to(q.device).expand(rank, *q.shape)


def _axes(q: Tensor) -> Tensor:
    r"""Each of the d axes for all data, ``(d, n, d)``."""
    n, d = q.shape
    return torch.eye(d, dtype=q.dtype, device=q.device).unsqueeze(1).expand(d, n, d)


def _parameters(site: Any) -> Parameters:
    r"""The tensors that a site's distribution was made of, by name."""
    fn = base(site["fn"])
    held = vars(fn)
    return {k: held[k] for k in fn.arg_constraints if isinstance(held.get(k), Tensor)}


def _information(site: Any) -> Any:
    r"""How the information of a site's parameters is found; None where that is not known.

    It is of independent pixels, each with parameters of its own, whose distribution is what its
    parameters say: neither masked, nor made of others; and with the data in the first dimension.
    """
    fn, masked = base(site["fn"], masks=False), site["mask"] is not None
    try:
        parameters = _parameters(site)
        again = type(fn)(**parameters, validate_args=False).log_prob(site["value"])
        own = all(value.shape == again.shape for value in parameters.values())
        if masked or not parameters or not own or len(site["fn"].batch_shape) != 1:
            return None
        if not torch.equal(again, fn.log_prob(site["value"])):
            return None
    except Exception:  # of a distribution that is not made of its parameters alone
        return None
    try:
        kl_divergence(fn, fn)
    except NotImplementedError:
        return _observed_information
    return _fisher_information


def _part(site: Any, of: Any) -> tuple[list[Tensor], list[list[Tensor]]]:
    r"""The slope of a site's log-density in each of its parameters, and their information."""
    eta = _parameters(site)
    with torch.enable_grad():
        names = list(eta)
        leaves = [eta[name].detach().requires_grad_() for name in names]
        family = type(base(site["fn"]))
        fn = family(**dict(zip(names, leaves, strict=True)), validate_args=False)
        # Kept, as a distribution may hold on to what it has computed of its parameters.
        total = fn.log_prob(site["value"]).sum()
        slopes = torch.autograd.grad(total, leaves, retain_graph=True)
        return list(slopes), of(family, fn, site["value"], names, leaves)


def _fisher_information(
    family: Any, fn: Any, value: Tensor, names: list[str], leaves: list[Tensor]
) -> list[list[Tensor]]:
    r"""Of each pair of parameters, pixel by pixel."""
    fixed = [leaf.detach() for leaf in leaves]
    here = family(**dict(zip(names, fixed, strict=True)), validate_args=False)
    first = torch.autograd.grad(
        kl_divergence(here, fn).sum(), leaves, create_graph=True, materialize_grads=True
    )
    return [_slopes(one, leaves) for one in first]


def _observed_information(
    family: Any, fn: Any, value: Tensor, names: list[str], leaves: list[Tensor]
) -> list[list[Tensor]]:
    r"""Of each parameter by itself, where it is positive."""
    first = torch.autograd.grad(
        -fn.log_prob(value).sum(), leaves, create_graph=True, materialize_grads=True
    )
    zero = torch.zeros_like(leaves[0])
    return [
        [part.clamp_min(0) if i == j else zero for j, part in enumerate(_slopes(one, leaves))]
        for i, one in enumerate(first)
    ]


def _slopes(one: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    if not one.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(one.sum(), leaves, retain_graph=True, materialize_grads=True)
    return list(found)
