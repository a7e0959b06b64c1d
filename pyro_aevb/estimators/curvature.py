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

References:
    | Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent (Schraudolph, 2002)
    | https://doi.org/10.1162/08997660260028683
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.func import grad, jvp, vmap

from pyro_aevb.data.batch import Data
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.pairs.density import base, log_prob, run

Parameters = dict[str, Tensor]


class Curvature:
    r"""The expansion of a pair's joint log-density; run inside ``pair.running()``.

    Arguments:
        joint: The density.
        x: Some data, to look at the likelihood with.
        q: Their latents, ``(n, d)``.
        weights: Values of the global sites.
    """

    def __init__(self, joint: Joint, x: Data, q: Tensor, *weights: Tensor) -> None:
        self.joint = joint
        self.information = self._choose(x, q, weights)
        self._whole_prior = self._priors_depend(x, q, weights)

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
            gradient, likelihood = self._gauss_newton(x, q, weights)
        return [terms.sum(0), gradient + prior_gradient, likelihood + prior, prior]

    def _choose(self, x: Data, q: Tensor, weights: tuple[Tensor, ...]) -> Any:
        r"""How the information of the parameters is found; None where the exact Hessian stands in.

        That of independent pixels, each with parameters of its own, whose distribution is what its
        parameters say: neither masked, nor made of others.
        """
        site = self._observed(x, q, weights)
        fn, masked = base(site["fn"], masks=False), site["mask"] is not None
        try:
            parameters = _parameters(fn)
            again = type(fn)(**parameters, validate_args=False).log_prob(site["value"])
            own = all(value.shape == again.shape for value in parameters.values())
            if masked or not parameters or not own:
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

    def _gauss_newton(
        self, x: Data, q: Tensor, weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        n = len(q)

        def parameters(q: Tensor) -> Parameters:
            return _parameters(base(self._observed(x, q, weights)["fn"]))

        site = self._observed(x, q, weights)
        family, value, eta = type(base(site["fn"])), site["value"], parameters(q)
        tangents = vmap(lambda axis: jvp(parameters, (q,), (axis,))[1])(_axes(q))
        with torch.enable_grad():
            names = list(eta)
            leaves = [eta[name].detach().requires_grad_() for name in names]
            fn = family(**dict(zip(names, leaves, strict=True)), validate_args=False)
            # Kept, as a distribution may hold on to what it has computed of its parameters.
            slopes = torch.autograd.grad(fn.log_prob(value).sum(), leaves, retain_graph=True)
            information = self.information(family, fn, value, names, leaves)
        jacobians = [tangents[name].reshape(q.shape[1], n, -1).transpose(0, 1) for name in names]
        gradient, precision = torch.zeros_like(q), q.new_zeros(n, q.shape[1], q.shape[1])
        for i, one in enumerate(jacobians):
            gradient = gradient + (one @ slopes[i].reshape(n, -1, 1)).squeeze(-1)
            for j, other in enumerate(jacobians):
                weighted = other * information[i][j].reshape(n, 1, -1)
                precision = precision + one @ weighted.transpose(1, 2)
        return gradient, precision

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

        def log_prior(q: Tensor) -> Tensor:
            values = self.joint.values(q)
            terms = (log_prob({**sites[k], "value": v}, 1.0) for k, v in values.items())
            return sum((t.reshape(-1, len(q)).sum(0) for t in terms), self.joint.log_det(q))

        return _second(log_prior, q)

    def _observed(self, x: Data, q: Tensor, weights: tuple[Tensor, ...]) -> Any:
        assert self.joint.pair.description is not None
        return self._sites(x, q, weights)[self.joint.pair.description.observed]

    def _sites(self, x: Data, q: Tensor, weights: tuple[Tensor, ...]) -> dict[str, Any]:
        named = self.joint.values(q) | dict(zip(self.joint.weights, weights, strict=True))
        return run(self.joint.pair.model, x, named)


def _second(function: Callable[[Tensor], Tensor], q: Tensor) -> tuple[Tensor, Tensor]:
    r"""The gradient of a function ``(n, d) -> (n,)``, each on its own, and minus its Hessian."""
    slope = grad(lambda q: function(q).sum())
    columns = vmap(lambda axis: jvp(slope, (q,), (axis,))[1])(_axes(q))
    return slope(q), -columns.movedim(0, -1)


def _axes(q: Tensor) -> Tensor:
    r"""Each of the d axes for all data, ``(d, n, d)``."""
    n, d = q.shape
    return torch.eye(d, dtype=q.dtype, device=q.device).unsqueeze(1).expand(d, n, d)


def _parameters(fn: Any) -> Parameters:
    r"""The tensors that a distribution was made of, by name."""
    held = vars(fn)
    return {k: held[k] for k in fn.arg_constraints if isinstance(held.get(k), Tensor)}


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
