r"""The importance-weighted bound."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_aevb.data.batch import Data, repeated
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import base, by_datum, in_plate, is_delta, log_prob, sample_sites
from pyro_aevb.pairs.flows import broadcasts
from pyro_aevb.pairs.handlers import Fix, WholeBatch, relaxed
from pyro_aevb.training.objectives.elbo import TraceELBO, require_guided, require_reparameterized

Through = Callable[[Tensor], Tensor]


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

    A factor :math:`\beta` on the KL (warm-up, beta) stands inside the weights,
    :math:`p(x|z) (p(z) / q(z|x))^\beta`. With K = 1 that is the ELBO with the factor; with more it
    is a bound on nothing in particular.

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
        self.data_plate: str | None = None
        r"""The name of the data plate; None where it is that of dim -1 over the batch."""
        self._together: dict[type, bool] = {}

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        r"""Minus the estimate, differentiable; the first argument is the batch."""
        return -self._particles(model, guide, args, kwargs).bound()

    def _particles(
        self, model: Any, guide: Any, args: Any, kwargs: Any, through: Through | None = None
    ) -> "Particles":
        r"""Run guide and model on K particles of each datum.

        Arguments:
            model, guide, args, kwargs: What the objective is called with.
            through: What the densities see of each code that the guide draws.
        """
        x, *rest = args
        rows = repeated(x, self.num_particles)

        def run(batch: Data) -> dict[str, Any]:
            drawn = sample_sites(poutine.trace(guide).get_trace(batch, *rest, **kwargs))
            return {name: {**s, "value": relaxed(s["value"])} for name, s in drawn.items()}

        with WholeBatch():
            sites, codes = self._draw(run, x, rows, through)
            values = {name: site["value"] for name, site in sites.items()}
            with Fix(values):
                model_trace = poutine.trace(model).get_trace(rows, *rest, **kwargs)
        require_guided(model_trace, sites)
        plate = _data_plate(model_trace, len(rows), self.data_plate)
        declared = model_trace.nodes[plate.name]["fn"].subsample_size is not None
        log_p, log_q, outside = x.new_zeros(len(rows)), x.new_zeros(len(rows)), x.new_zeros(())
        kl_weight: float | Tensor = 1.0
        for site in sample_sites(model_trace).values():
            if in_plate(site, plate.name):
                term = by_datum(log_prob(site, 1.0), site, plate.name)
                log_p = log_p + term * _weight(site, plate.name)
            else:
                outside = outside + log_prob(site, site["scale"]).sum()
        for name, site in sites.items():
            if not in_plate(site, plate.name):
                outside = outside - log_prob(site, site["scale"]).sum()
                continue
            # A guide that ran once has one distribution for the K values of a datum.
            fn, weight = site["fn"], _weight(site, plate.name)
            value = values[name]
            if value.shape != fn.shape():  # else a flow without an inverse knows its draw
                value = value.reshape(-1, *fn.batch_shape, *fn.event_shape)
            term = log_prob({**site, "value": value}, weight)
            # In further plates it ran on all rows.
            several = len(fn.batch_shape) > 1
            term = by_datum(term, site, plate.name) if several else term.flatten()
            if name in codes:
                log_q, kl_weight = log_q + term, weight
            else:
                log_p = log_p - term
        scale = plate.full_size / len(x) if declared else 1.0
        log_p, log_q = log_p.view(-1, len(x)), log_q.view(-1, len(x))
        return Particles(log_p, log_q, outside, scale, kl_weight, [values[name] for name in codes])

    def _draw(
        self,
        run: Callable[[Data], dict[str, Any]],
        x: Data,
        rows: Data,
        through: Through | None,
    ) -> tuple[dict[str, Any], list[str]]:
        r"""The guide's sites, with values for all rows, and the names of those that are codes."""
        sites = _all_particles(run(x), len(x), self.num_particles, self.data_plate, self._together)
        local = _local(sites or {}, len(x), self.data_plate)
        if sites is None:  # the guide is a chain: every particle runs it
            sites = run(rows)
            require_reparameterized(sites)
            local = _local(sites, len(rows), self.data_plate)
        codes = [name for name in local if not is_delta(sites[name]["fn"])]
        if through is None:
            return sites, codes
        seen = {name: through(sites[name]["value"]) for name in codes}
        if len(local) > 1:  # what the guide makes of a code, it makes of what is seen of it
            drawn = {k: s["value"] for k, s in sites.items() if not is_delta(s["fn"])}
            with Fix(drawn | seen):
                sites = run(rows)
        return {k: {**s, "value": seen.get(k, s["value"])} for k, s in sites.items()}, codes


@dataclass(frozen=True)
class Particles:
    r"""The terms of the bound at the particles of a batch, K for each of its B data."""

    log_p: Tensor
    r"""The model's log-densities, less those that points of the guide carry, ``(K, B)``."""
    log_q: Tensor
    r"""The guide's log-densities of the codes that it draws, ``(K, B)``."""
    outside: Tensor
    r"""What global sites add to the bound, a scalar."""
    scale: float
    r"""N/B where N is declared."""
    kl_weight: float | Tensor
    r"""The factor that `log_q` has been multiplied by."""
    codes: list[Tensor]
    r"""The codes, ``(K B, *event_shape)`` each, as the densities saw them."""

    def bound(self) -> Tensor:
        log_weights = self.log_p - self.log_q
        per_datum = log_weights.logsumexp(0) - math.log(len(log_weights))
        return per_datum.sum() * self.scale + self.outside


def _weight(site: Any, plate: str) -> float | Tensor:
    r"""What the plate's own scale leaves over of a site's: a weight on the KL."""
    frame = next(f for f in site["cond_indep_stack"] if f.name == plate)
    weight: float | Tensor = site["scale"] * (frame.size / frame.full_size)
    return weight


def _local(sites: dict[str, Any], rows: int, plate: str | None) -> dict[str, Any]:
    r"""The sites in the data plate, or where its name is not known in a plate over the batch."""
    return {
        name: site
        for name, site in sites.items()
        if any(_is_data(frame, rows, plate) for frame in site["cond_indep_stack"])
    }


def _is_data(frame: Any, rows: int, plate: str | None) -> bool:
    found = frame.dim == -1 and frame.size == rows if plate is None else frame.name == plate
    return bool(found)


def _all_particles(
    sites: dict[str, Any], batch: int, count: int, plate: str | None, together: dict[type, bool]
) -> dict[str, Any] | None:
    r"""All particles of a guide that makes one code from each datum, so that it runs once.

    None if the guide draws several local sites, or makes them of auxiliary ones, or of a
    distribution that cannot draw several values of each datum, as `together` says once it is known.
    """
    local = _local(sites, batch, plate)
    if len(local) != 1 or any(site["infer"].get("is_auxiliary") for site in sites.values()):
        return None
    ((name, site),) = local.items()
    if site["fn"].batch_shape != (batch,):
        return None
    require_reparameterized(sites)
    kind = type(base(site["fn"]))
    if kind not in together:
        together[kind] = broadcasts(site["fn"])
    if not together[kind]:
        return None
    # The guide's own draw is the first particle.
    more = relaxed(site["fn"]((count - 1,)))
    value = torch.cat([site["value"][None], more]).flatten(0, 1)
    return {**sites, name: {**site, "value": value}}


def _data_plate(model_trace: Any, rows: int, plate: str | None) -> Any:
    for name, site in sample_sites(model_trace).items():
        if site["is_observed"]:
            for frame in site["cond_indep_stack"]:
                if _is_data(frame, rows, plate):
                    return frame
            raise UsageError(f"observed site {name!r} lies in no plate of dim -1 over the batch")
    raise UsageError("the model has no observed site; it needs pyro.sample(..., obs=x)")
