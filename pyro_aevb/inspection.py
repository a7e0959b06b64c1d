r"""Run a pair once on a few data and describe it, or say what is wrong with it.

The contract a pair keeps:

- exactly one observed sample site, in exactly one batch plate of dim -1, the *data plate*;
- a latent site inside the data plate is *local* (one value per datum), outside it *global*;
- the model and the guide have the same latent sites, auxiliary guide sites apart;
- a pair with global sites declares ``pyro.plate("data", size=N, subsample_size=len(x))``.
"""

from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta, MaskedDistribution
from torch import Tensor
from torch.distributions import Independent

from pyro_aevb.errors import UsageError
from pyro_aevb.handlers import WholeBatch, in_plate, sample_sites
from pyro_aevb.pairs import Pair


@dataclass(frozen=True)
class Site:
    r"""One latent site, seen from both sides."""

    name: str
    event_shape: tuple[int, ...]
    prior: str
    posterior: str
    density: bool
    r"""Whether prior and guide both have a density there (not masked out, not a Delta)."""


@dataclass(frozen=True)
class Description:
    r"""What a pair is made of."""

    observed: str
    event_shape: tuple[int, ...]
    likelihood: str
    plate: str
    plate_size: int | None
    r"""The N of ``pyro.plate("data", size=N, subsample_size=len(x))``; None if not declared."""
    local_sites: tuple[Site, ...]
    global_sites: tuple[Site, ...]
    auxiliary: tuple[str, ...] = ()
    r"""Guide sites that the model lacks, marked ``infer={"is_auxiliary": True}``."""
    enumerated: tuple[str, ...] = ()
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def num_parameters(self) -> int:
        return sum(int(torch.Size(shape).numel()) for shape in self.parameters.values())

    def undefined(self) -> str | None:
        r"""Why quantities that need a density of the latents are not defined; None if they are."""
        if self.enumerated:
            return f"site {self.enumerated[0]!r} is enumerated, not sampled"
        for site in self.local_sites:
            if not site.density:
                return f"latent site {site.name!r} carries no density (masked prior or Delta guide)"
        return None

    def weights_undefined(self) -> str | None:
        r"""Why quantities that need a density of the weights are not defined; None if they are."""
        if not self.global_sites:
            return "the pair has no global latent sites (its weights are points)"
        for site in self.global_sites:
            if not site.density:
                return f"global site {site.name!r} carries no density (masked prior or Delta guide)"
        return None


def inspect(pair: Pair, x: Tensor) -> Description:
    r"""Check the contract on a few data and describe the pair; creates its lazy parameters.

    Arguments:
        pair: The pair.
        x: At least two data, ``(batch, *event_shape)``, as in training; the first five are used.

    Raises:
        UsageError: The pair breaks the contract; the message names the site and the remedy.
    """
    if len(x) < 2:
        raise UsageError(f"a pair is checked on at least 2 data, not {len(x)}")
    x = x[:5]
    with pair.active(), torch.random.fork_rng(_cuda(x)):
        traces = _run(pair, x)
        description = _describe(pair, len(x), *traces)
        before = set(pair.tensors())
        # A second batch size: shapes or parameters that hang on the first one show now.
        description_again = _describe(pair, len(x) - 1, *_run(pair, x[:-1]))
        created = sorted(set(pair.tensors()) - before)
    if created:
        raise UsageError(
            f"{pair.name}: parameter {created[0]!r} appears only on the second call; "
            "create every parameter on the first one"
        )
    if description_again.plate_size != description.plate_size:
        raise UsageError(
            f"{pair.name}: the size of plate {description.plate!r} changes with the batch; "
            'write pyro.plate("data", len(x)), or size=N, the number of training data'
        )
    _every_leaf_is_named(pair, traces)
    pair.description = description
    return description


def _cuda(x: Tensor) -> list[torch.device]:
    return [x.device] if x.device.type == "cuda" else []


def _run(pair: Pair, x: Tensor) -> tuple[Any, Any]:
    with WholeBatch(), pyro.validation_enabled():
        guide = _trace(pair, "guide", pair.guide, x)
        model = _trace(pair, "model", poutine.replay(pair.model, trace=guide), x)
    return model, guide


def _trace(pair: Pair, side: str, function: Any, x: Tensor) -> Any:
    try:
        trace = poutine.trace(function).get_trace(x)
    except UsageError:
        raise
    except Exception as error:  # the user's code: whatever it raises
        said = " ".join(str(error).partition("Trace Shapes:")[0].split())
        said = said if len(said) < 300 else said[:300] + " …"
        hint = f"; is it made for data of shape {tuple(x.shape[1:])}?"
        if "Shape mismatch inside plate" in said:
            hint = "; a distribution over vectors or images needs .to_event(number of event dims)"
        elif "invalid values" in said or "constraint" in said:
            hint = "; a parameter of that distribution is not finite or not in its range"
        raise UsageError(
            f"{pair.name}: the {side} failed on a batch of shape {tuple(x.shape)}: "
            f"{type(error).__name__}: {said}{hint}"
        ) from error
    return trace


def _describe(pair: Pair, batch: int, model: Any, guide: Any) -> Description:
    in_model, in_guide = sample_sites(model), sample_sites(guide)
    observed = [name for name, site in in_model.items() if site["is_observed"]]
    if len(observed) != 1:
        what = "no observed site" if not observed else f"{len(observed)} observed sites {observed}"
        raise UsageError(
            f"{pair.name}: the model has {what}; it needs exactly one pyro.sample(..., obs=x)"
        )
    if any(site["is_observed"] for site in in_guide.values()):
        raise UsageError(f"{pair.name}: the guide observes a site; only the model has obs=x")
    site = in_model[observed[0]]
    plates = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    if len(plates) != 1 or plates[0].dim != -1:
        found = "lies in no plate" if not plates else "must lie in one plate, of dim -1"
        raise UsageError(
            f"{pair.name}: observed site {observed[0]!r} {found}; wrap it and the latent sites of "
            'each datum in `with pyro.plate("data", len(x)):`'
        )
    plate = plates[0]
    if plate.size != batch:
        raise UsageError(
            f"{pair.name}: plate {plate.name!r} has size {plate.size} for a batch of {batch}; "
            'write pyro.plate("data", len(x)), or size=N, subsample_size=len(x) with N the number '
            "of training data"
        )
    auxiliary = tuple(k for k, v in in_guide.items() if v["infer"].get("is_auxiliary"))
    latent = {name: site for name, site in in_model.items() if name != observed[0]}
    enumerated = tuple(
        name
        for name, site in latent.items()
        if name not in in_guide and site["infer"].get("enumerate")
    )
    _same_sites(pair, latent, in_guide, auxiliary + enumerated)
    for side, sites in (("model", in_model), ("guide", in_guide)):
        for site in sites.values():
            _check_log_prob(pair, side, site, batch)
    local = {k for k, v in latent.items() if in_plate(v, plate.name)}
    for name in latent:
        if name in in_guide and in_plate(in_guide[name], plate.name) != (name in local):
            inside, outside = ("model", "guide") if name in local else ("guide", "model")
            raise UsageError(
                f"{pair.name}: latent site {name!r} lies inside plate {plate.name!r} in the "
                f"{inside} and outside it in the {outside}; put it in the same plate on both sides"
            )
    declared = model.nodes[plate.name]["fn"].subsample_size is not None
    global_names = [name for name in latent if name not in local and name not in enumerated]
    if global_names and not declared:
        raise UsageError(
            f"{pair.name}: {global_names[0]!r} is a global latent site, so the data plate must "
            'know the number N of training data: pyro.plate("data", size=N, subsample_size=len(x))'
        )

    # An autoguide draws auxiliary sites and puts a Delta on what it makes of them: a density.
    drawn = {in_guide[name]["value"].grad_fn for name in auxiliary} - {None}

    def site_of(name: str) -> Site:
        prior, posterior = latent[name], in_guide[name]
        point = _is_delta(posterior["fn"]) and not drawn & _ancestors([posterior["value"]])
        density = not (point or _masked(prior) or _masked(posterior))
        shape = prior["fn"].event_shape if name in local else prior["value"].shape
        family = "auxiliary" if _is_delta(posterior["fn"]) and not point else _name(posterior["fn"])
        return Site(name, tuple(shape), _name(prior["fn"]), family, density)

    seen = in_model[observed[0]]
    return Description(
        observed=observed[0],
        event_shape=tuple(seen["fn"].event_shape),
        likelihood=_name(seen["fn"]),
        plate=plate.name,
        plate_size=model.nodes[plate.name]["fn"].size if declared else None,
        local_sites=tuple(site_of(n) for n in latent if n in local and n not in enumerated),
        global_sites=tuple(site_of(n) for n in global_names),
        auxiliary=auxiliary,
        enumerated=enumerated,
        parameters={name: tuple(value.shape) for name, value in pair.trainable().items()},
    )


def _same_sites(
    pair: Pair, model: dict[str, Any], guide: dict[str, Any], exempt: tuple[str, ...]
) -> None:
    for name in [*model, *guide]:
        if name in exempt or (name in model and name in guide):
            continue
        has, lacks = ("model", "guide") if name in model else ("guide", "model")
        raise UsageError(
            f"{pair.name}: latent site {name!r} is in the {has} but not in the {lacks}; "
            f"sample it in the {lacks} under the same name"
        )


def _check_log_prob(pair: Pair, side: str, site: dict[str, Any], batch: int) -> None:
    name, fn = site["name"], site["fn"]
    plates = {frame.dim: frame for frame in site["cond_indep_stack"] if frame.vectorized}
    for dim, size in enumerate(reversed(fn.batch_shape), 1):
        if size != 1 and -dim not in plates:
            raise UsageError(
                f"{pair.name}: {side} site {name!r} has batch shape {tuple(fn.batch_shape)} in "
                f"{len(plates)} plate(s): dim {-dim} belongs to no plate; declare the dims of one "
                "datum with .to_event(n)"
            )
    try:
        log_prob = fn.log_prob(site["value"])
    except ValueError as error:
        said = " ".join(str(error).split())
        if "support" not in said:
            raise UsageError(f"{pair.name}: {side} site {name!r}: {said[:200]}") from error
        raise UsageError(
            f"{pair.name}: the value of {side} site {name!r} is outside the support of "
            f"{_name(fn)}; for grey pixels under a Bernoulli use --binarize dynamic, or "
            "Bernoulli(..., validate_args=False) for their cross-entropy"
        ) from error
    if not bool(torch.isfinite(log_prob).all()):
        raise UsageError(
            f"{pair.name}: the log-probability of {side} site {name!r} is not finite; look at its "
            "distribution's parameters and at the scale of the data"
        )


def _every_leaf_is_named(pair: Pair, traces: tuple[Any, Any]) -> None:
    r"""Every tensor that receives a gradient must be one the pair trains, saves and resumes."""
    named = {id(value) for value in pair.tensors().values()}
    values = [
        value
        for trace in traces
        for site in sample_sites(trace).values()
        for value in (site["fn"].log_prob(site["value"]), site["value"])
    ]
    for node in _ancestors(values):
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in named:
            raise UsageError(
                f"{pair.name}: a trainable tensor of shape {tuple(leaf.shape)} belongs to no "
                "module of the pair, so it could be neither trained nor saved; register its module "
                "with pyro.module(name, module), or the tensor with pyro.param"
            )


def _ancestors(values: list[Tensor]) -> set[Any]:
    r"""Every node of the autograd graph that the values are computed from."""
    pending, visited = [value.grad_fn for value in values], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in visited:
            visited.add(node)
            pending.extend(parent for parent, _ in node.next_functions)
    return visited


def _masked(site: Any) -> bool:
    fn = site["fn"]
    while isinstance(fn, Independent):
        fn = fn.base_dist
    masks = [site["mask"], fn._mask if isinstance(fn, MaskedDistribution) else None]
    return any(mask is False for mask in masks)


def _is_delta(fn: Any) -> bool:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return isinstance(fn, Delta)


def _name(fn: Any) -> str:
    while isinstance(fn, (Independent, MaskedDistribution)):
        fn = fn.base_dist
    return type(fn).__name__.removeprefix("Expanded")
