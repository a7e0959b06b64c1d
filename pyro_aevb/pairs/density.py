r"""A model and a guide as densities: run on a batch, their sites, and the terms of these."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pyro import poutine
from pyro.distributions import Delta, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent

from pyro_aevb.data.batch import Data, repeated
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.pairs.closed_forms import exact_kl
from pyro_aevb.pairs.handlers import Fix, relaxed
from pyro_aevb.pairs.pair import Pair


def run(side: Any, x: Data, values: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    r"""The random sites of a model or a guide on a batch, by name, in the order of the draws.

    Arguments:
        side: ``pair.model`` or ``pair.guide``, or one of them in a handler.
        x: The batch, ``(B, *event_shape)``, with the columns that the pair sees.
        values: Values of latent sites, which are not drawn then.
    """
    try:
        with Fix(values or {}):
            sites = sample_sites(poutine.trace(side).get_trace(x))
        for site in sites.values():
            site["value"] = relaxed(site["value"])
        return sites
    except UsageError as error:  # Pyro appends the shapes of the sites so far
        raise UsageError(one_line(error)) from error


def run_both(
    pair: Pair, x: Data, values: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    r"""The sites of the guide on a batch, and those of the model at what the guide has drawn."""
    guide = run(pair.guide, x, values)
    return guide, run(pair.model, x, {name: site["value"] for name, site in guide.items()})


def local_terms(pair: Pair, side: Any, x: Data, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""Log-probabilities of a side's sites inside the data plate, at plate scale 1.

    Arguments:
        pair: An inspected pair.
        side: Its model or its guide.
        x: The batch, B data.
        values: Values of the latent sites.

    Returns:
        ``(B,)`` by name, in nats.
    """
    assert pair.description is not None, "inspect the pair first"
    plate = pair.description.plate
    return {
        name: by_datum(log_prob(site, 1.0), site, plate)
        for name, site in run(side, x, values).items()
        if in_plate(site, plate)
    }


def log_joint(
    pair: Pair, x: Data, values: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    r"""The model's log-densities of each datum at given latents, at plate scale 1.

    Arguments:
        pair: An inspected pair.
        x: The batch, B data.
        values: Values of the latent sites.

    Returns:
        Those of its observed sites by name, and the sum of those of its local latents, ``(B,)``
        each, in nats.
    """
    assert pair.description is not None, "inspect the pair first"
    terms = local_terms(pair, pair.model, x, values)
    observed = {name: terms.pop(name) for name in pair.description.observed_sites}
    return observed, sum(terms.values(), x.new_zeros(len(x)))


def at_least_two(x: Data) -> Data:
    r"""A batch as a pair is checked on: of one datum alone, ``squeeze`` makes none."""
    return x if len(x) > 1 else repeated(x, 2)


def sample_sites(trace: Any) -> dict[str, Any]:
    r"""The random sites of a trace by name: no plate's subsample, and no ``pyro.deterministic``."""
    return {
        name: node
        for name, node in trace.nodes.items()
        if node["type"] == "sample"
        and not site_is_subsample(node)
        and not node["infer"].get("_deterministic")
    }


def guide_sites(trace: Any) -> dict[str, Any]:
    r"""The random sites of a guide's trace, an autoguide's pair of sites as the one that it is.

    ``AutoNormal`` draws an auxiliary site ``w_unconstrained`` from :math:`q(u)` and puts ``w``
    where a transform takes it, by a Delta that carries the Jacobian. Where the support of the prior
    is real the transform is the identity: then ``w`` is distributed as :math:`q(u)`, which has a
    closed form. Other transforms are left as they are.
    """
    sites = sample_sites(trace)
    for name, site in list(sites.items()):
        drawn, fn = sites.get(f"{name}_unconstrained"), site["fn"]
        if drawn is None or not drawn["infer"].get("is_auxiliary") or not isinstance(fn, Delta):
            continue
        if fn.v is drawn["value"] and fn.batch_shape == drawn["fn"].batch_shape:
            sites[name] = {**site, "fn": drawn["fn"]}
            del sites[drawn["name"]]
    return sites


def in_plate(site: Any, plate: str) -> bool:
    r"""Whether a site lies inside the plate of that name."""
    return any(frame.name == plate for frame in site["cond_indep_stack"])


def by_datum(terms: Tensor, site: Any, plate: str) -> Tensor:
    r"""The sum of a site's terms over all plates but the data plate, ``(B,)``.

    Arguments:
        terms: Numbers of its batch shape, such as log-probabilities.
        site: A site in the data plate.
        plate: The name of the data plate.
    """
    if terms.dim() == 1:
        return terms
    terms = data_first(terms, site, plate)
    return terms.reshape(len(terms), -1).sum(1)


def data_first(values: Tensor, site: Any, plate: str, event_dim: int = 0) -> Tensor:
    r"""What a site has for each datum, with the data in the first dimension.

    Arguments:
        values: ``(*plates, *event)``, the data plate among the plates.
        site: A site in the data plate.
        plate: The name of the data plate.
        event_dim: How many dimensions belong to an event.
    """
    dim = next(frame.dim for frame in site["cond_indep_stack"] if frame.name == plate)
    return values.movedim(dim - event_dim, 0)


def log_prob(site: Any, scale: Any) -> Tensor:
    r"""A site's log-probability with its mask and a given scale, ``(*batch_shape,)``."""
    return scale_and_mask(site["fn"].log_prob(site["value"]), scale, site["mask"])


def closed_form_kl(posterior: Any, prior: Any, scale: Any) -> Tensor:
    r"""KL(posterior || prior) of one latent site, with its mask and a scale, ``(*batch_shape,)``.

    Raises:
        NotImplementedError: There is no closed form; or the sides are masked differently; or the
            posterior is a Delta, whose own density (an autoguide's Jacobian) they leave out.
    """
    if posterior["mask"] is not prior["mask"] or is_delta(posterior["fn"]):
        raise NotImplementedError("no closed form")
    return scale_and_mask(exact_kl(posterior["fn"], prior["fn"]), scale, posterior["mask"])


def closed_form_kls(
    posterior: Mapping[str, Any], prior: Mapping[str, Any], scale: Any = None
) -> dict[str, Tensor]:
    r"""The KL of each latent site that may stand in the place of its :math:`\log q - \log p`.

    Valid only where guide and model draw the sites in the same order: then no later site feeds an
    earlier one's closed form, which so is the conditional expectation of the sampled term.

    Arguments:
        posterior, prior: Sites by name, in the order in which guide and model draw them; those of
            one side alone are left out.
        scale: Multiplies each; None is the scale of the guide's site.

    Returns:
        ``(*batch_shape,)`` in nats for each site that both sides have and PyTorch knows; none where
        the orders differ.
    """
    if not same_order(posterior, prior):
        return {}
    found = {}
    for name in (name for name in posterior if name in prior):
        own = posterior[name]["scale"] if scale is None else scale
        with suppress(NotImplementedError):
            found[name] = closed_form_kl(posterior[name], prior[name], own)
    return found


def same_order(posterior: Mapping[str, Any], prior: Mapping[str, Any]) -> bool:
    r"""Whether both sides draw the sites that they share in the same order."""
    return [n for n in prior if n in posterior] == [n for n in posterior if n in prior]


def component_kl(posterior: Any, prior: Any, exact: bool) -> Tensor:
    r"""What each component of one latent site adds to KL(posterior || prior), ``(batch, d)``.

    Arguments:
        posterior, prior: The site on both sides, with the same value.
        exact: In closed form, where PyTorch knows it, else :math:`\log q - \log p` at the value.

    Raises:
        NotImplementedError: The components are not independent; or the site is masked.
    """
    sides = []
    for site in (posterior, prior):
        fn = base(site["fn"], masks=False)
        if fn.event_shape or isinstance(fn, MaskedDistribution) or site["mask"] is not None:
            raise NotImplementedError("the components are not independent")
        sides.append(fn)
    value = posterior["value"]
    try:
        if not exact:
            raise NotImplementedError
        kl = exact_kl(*sides)
    except NotImplementedError:
        kl = sides[0].log_prob(value) - sides[1].log_prob(value)
    return kl.expand(value.shape).reshape(len(value), -1)


def is_delta(fn: Any) -> bool:
    r"""Whether a distribution is a point, under any number of event dimensions."""
    return isinstance(base(fn), Delta)


def is_masked(site: Any) -> bool:
    r"""Whether a site's log-probability is masked out altogether."""
    fn = base(site["fn"], masks=False)
    return site["mask"] is False or (isinstance(fn, MaskedDistribution) and fn._mask is False)


def masks(site: Any) -> list[Tensor]:
    r"""The masks of a site that are tensors, and so tell data, or their components, apart."""
    found, fn = [site["mask"]], site["fn"]
    while isinstance(fn, (Independent, MaskedDistribution)):
        found += [fn._mask] if isinstance(fn, MaskedDistribution) else []
        fn = fn.base_dist
    return [mask for mask in found if isinstance(mask, Tensor)]


def family(fn: Any) -> str:
    r"""The name of a distribution's family."""
    return type(base(fn)).__name__


def base(fn: Any, masks: bool = True) -> Any:
    r"""A distribution without what only declares its dimensions or, unless left out, masks it."""
    while isinstance(fn, (Independent, MaskedDistribution) if masks else Independent):
        fn = fn.base_dist
    return fn
