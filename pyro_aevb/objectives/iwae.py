r"""The importance-weighted bound."""

import math
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_aevb.errors import UsageError
from pyro_aevb.handlers import Fix, WholeBatch
from pyro_aevb.objectives.elbo import (
    TraceELBO,
    importance_traces,
    require_guided,
    require_reparameterized,
)
from pyro_aevb.sites import in_plate, log_prob, sample_sites


class IWAE(TraceELBO):
    r"""The importance-weighted bound with K particles per datum.

    .. math::
        \mathcal{L}_K = \mathrm{E}_{q(w)}\Big[ \frac{N}{B} \sum_{n=1}^{B} \mathrm{E} \Big[
        \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x_n, z_{nk}|w)}{q(z_{nk}|x_n)} \Big] \Big]
        - \mathrm{KL}(q(w) \,\|\, p(w)), \qquad z_{nk} \sim q(z|x_n)

    The weights are per datum: the mean over particles lies inside the logarithm and the plate's
    scale N/B outside it (``pyro.infer.RenyiELBO`` puts the scale inside, and takes the particles of
    the whole batch jointly). Global latents are drawn once and shared by all particles.
    The model sees the batch repeated K times, so that any pair works, convolutional ones included;
    a guide that draws one code from each datum runs once.
    In nats, a sum over data; rises with K towards :math:`\log p(x|w)`.

    Valid when every guide site is reparameterized, or drawn from a fixed distribution, and every
    local latent has a density.

    References:
        Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016)
        https://arxiv.org/abs/1509.00519

    Arguments:
        num_particles: K.
        options: Those of ``pyro.infer.ELBO``.
    """

    def __init__(self, num_particles: int = 5, **options: Any) -> None:
        super().__init__(num_particles=num_particles, analytic_kl=False, **options)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        r"""Minus the estimate, differentiable; the first argument is the batch."""
        x, *rest = args
        rows = x.repeat(self.num_particles, *[1] * (x.dim() - 1))
        with WholeBatch():
            guide_trace = poutine.trace(guide).get_trace(x, *rest, **kwargs)
            values = _particles(guide_trace, len(x), self.num_particles)
            if values is None:  # the guide is a chain: every particle runs it
                model_trace, guide_trace = importance_traces(model, guide, (rows, *rest), kwargs)
            else:
                with Fix(values):
                    model_trace = poutine.trace(model).get_trace(rows, *rest, **kwargs)
        require_guided(model_trace, guide_trace)
        plate = _data_plate(model_trace, len(rows))
        declared = model_trace.nodes[plate.name]["fn"].subsample_size is not None
        log_weights, outside = x.new_zeros(len(rows)), x.new_zeros(())
        for trace, sign in ((model_trace, 1.0), (guide_trace, -1.0)):
            for name, site in sample_sites(trace).items():
                if in_plate(site, plate.name):
                    # What the plate's own scale leaves over is a weight on the KL.
                    frame = next(f for f in site["cond_indep_stack"] if f.name == plate.name)
                    weight = site["scale"] * (frame.size / frame.full_size)
                    if values is not None and trace is guide_trace:
                        site = {**site, "value": values[name].unflatten(0, (-1, len(x)))}
                    log_weights = log_weights + sign * log_prob(site, weight).flatten()
                else:
                    outside = outside + sign * log_prob(site, site["scale"]).sum()
        bound = log_weights.view(self.num_particles, -1).logsumexp(0) - math.log(self.num_particles)
        scale = plate.full_size / len(x) if declared else 1.0
        return -(bound.sum() * scale + outside)


def _particles(guide_trace: Any, batch: int, count: int) -> dict[str, Tensor] | None:
    r"""All particles of a guide that makes one code from each datum, so that it runs once.

    None if the guide draws several local sites, or makes them of auxiliary ones.
    """
    sites = sample_sites(guide_trace)
    local = {
        name: site
        for name, site in sites.items()
        if any(f.dim == -1 and f.size == batch for f in site["cond_indep_stack"])
    }
    if len(local) != 1 or any(site["infer"].get("is_auxiliary") for site in sites.values()):
        return None
    ((name, site),) = local.items()
    if site["fn"].batch_shape != (batch,):
        return None
    require_reparameterized(sites)
    outside = {key: other["value"] for key, other in sites.items() if key != name}
    # The guide's own draw is the first particle.
    more = site["fn"]((count - 1,))
    return {**outside, name: torch.cat([site["value"][None], more]).flatten(0, 1)}


def _data_plate(model_trace: Any, rows: int) -> Any:
    for name, site in sample_sites(model_trace).items():
        if site["is_observed"]:
            for frame in site["cond_indep_stack"]:
                if frame.dim == -1 and frame.size == rows:
                    return frame
            raise UsageError(f"observed site {name!r} lies in no plate of dim -1 over the batch")
    raise UsageError("the model has no observed site; it needs pyro.sample(..., obs=x)")
