r"""The evidence lower bound, with sampled or analytic Kullback-Leibler terms."""

from collections.abc import Iterator
from typing import Any

import torch
from pyro import poutine
from pyro.infer.elbo import ELBO
from torch import Tensor

from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import closed_form_kls, guide_sites, log_prob, sample_sites


class TraceELBO(ELBO):
    r"""The ELBO of reparameterized guides, free of host synchronization.

    .. math::
        \mathcal{L} = \mathrm{E}_{q(w)}\Big[ \frac{N}{B} \sum_{n=1}^{B}
        \mathrm{E}_{q(z_n|x_n)} \Big[\log \frac{p(x_n, z_n|w)}{q(z_n|x_n)}\Big] \Big]
        - \mathrm{KL}(q(w) \,\|\, p(w))

    for a plate of declared size N and a batch of B data; without a declared size N/B is 1.
    The expectations are means over ``num_particles`` joint draws (estimator A of the reference),
    with the Kullback-Leibler terms in closed form where PyTorch knows them (estimator B).
    :meth:`differentiable_loss` is :math:`-\mathcal{L}` in nats (a sum over data, as in
    ``pyro.infer.Trace_ELBO``), with exact pathwise gradients.

    Valid when every guide site is reparameterized, or is drawn from a fixed distribution, of which
    no parameter is trained (the choice of a dropout mask): then the score-function term of the
    gradient is 0. A closed form replaces the sampled term of a
    site only if guide and model sample their latent sites in the same order, which is sufficient
    for the term to be the conditional expectation of the sampled one.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014)
        https://arxiv.org/abs/1312.6114

    Arguments:
        num_particles: Draws per datum.
        analytic_kl: Use closed forms where there are some.
        options: Those of ``pyro.infer.ELBO``.
    """

    def __init__(self, num_particles: int = 1, analytic_kl: bool = True, **options: Any) -> None:
        super().__init__(num_particles=num_particles, **options)
        self.analytic_kl = analytic_kl

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return importance_traces(model, guide, args, kwargs)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        r"""Minus the estimate, differentiable."""
        losses = [
            -torch.stack(list(_terms(model_trace, guide_trace, self.analytic_kl))).sum()
            for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs)
        ]
        # With vectorized particles there is one trace, whose plate sums over the particles.
        return torch.stack(losses).sum() / self.num_particles

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        r"""Minus the estimate, as a number."""
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        r"""Minus the estimate, after back-propagating it; what ``pyro.infer.SVI`` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward(retain_graph=self.retain_graph)
        return float(loss.detach())


def importance_traces(model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    r"""A trace of the guide, and of the model run on its values.

    Raises:
        UsageError: See :func:`require_reparameterized` and :func:`require_guided`.
    """
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    require_reparameterized(sample_sites(guide_trace))
    require_guided(model_trace, guide_trace)
    return model_trace, guide_trace


def require_guided(model_trace: Any, guide_trace: Any) -> None:
    r"""Every latent site of the model that has a density is drawn by the guide.

    Raises:
        UsageError: One is not, as one that is meant to be enumerated.
    """
    for name, site in sample_sites(model_trace).items():
        if not site["is_observed"] and name not in guide_trace and site["mask"] is not False:
            raise UsageError(
                f"latent site {name!r} is not in the guide, and this objective does not enumerate; "
                "use --objective pyro.infer.TraceEnum_ELBO"
            )


def require_reparameterized(sites: dict[str, Any]) -> None:
    r"""The pathwise gradient of every site is the whole of it.

    It is where the value is reparameterized, and where the log-probability depends on no parameter
    and on no value that does: of :math:`\nabla \mathrm{E}_q[f] = \mathrm{E}_q[\nabla f + f \nabla
    \log q]` the second term is then 0.

    Raises:
        UsageError: A site has another gradient.
    """
    for name, site in sites.items():
        fn = site["fn"]
        if not fn.has_rsample and fn.log_prob(site["value"]).requires_grad:
            raise UsageError(
                f"guide site {name!r} is not reparameterized (its distribution has no rsample, and "
                "parameters that are trained); use --objective pyro.infer.TraceGraph_ELBO"
            )


def _terms(model_trace: Any, guide_trace: Any, analytic: bool) -> Iterator[Tensor]:
    r"""The scaled terms whose sum is one draw of the bound."""
    model, guide = sample_sites(model_trace), guide_sites(guide_trace)
    closed = closed_form_kls(guide, model) if analytic else {}
    for name, site in model.items():
        if name not in closed:
            yield log_prob(site, site["scale"]).sum()
    for name, site in guide.items():
        yield -closed[name].sum() if name in closed else -log_prob(site, site["scale"]).sum()
