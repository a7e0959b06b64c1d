r"""Run a pair once on a few data and describe it, or say what is wrong with it.

The contract a pair keeps:

- one or more observed sample sites, all in one plate over the batch, the *data plate*;
- a latent site inside the data plate is *local* (one value per datum), outside it *global*; a local
  one has the data in its first dimension, so plates beside the data plate lie to its right;
- the model and the guide have the same latent sites, in the same plates; auxiliary guide sites,
  of which an autoguide makes the latent ones, apart;
- a pair with global sites declares ``pyro.plate("data", size=N, subsample_size=len(x))``;
- a datum's terms depend on that datum and the latents alone (:mod:`~pyro_aevb.pairs.probes`).
"""

from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.distributions import Unit
from torch import Tensor

from pyro_aevb.data.batch import Data, flatten
from pyro_aevb.device import forked
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.pairs.density import data_first, family, in_plate, masks, run
from pyro_aevb.pairs.description import Description
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.missing import LeftOut, Seen
from pyro_aevb.pairs.one_run import OneRun, leaves
from pyro_aevb.pairs.one_site import check_log_prob, check_shape
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.probes import Probe
from pyro_aevb.pairs.state.python import untouched
from pyro_aevb.pairs.tables import declare_size, holds_rows, joined, own_guides


def inspect(pair: Pair, x: Data, num_data: int | None = None) -> Description:
    r"""Check the contract on a few data and describe the pair; creates its lazy parameters.

    Arguments:
        pair: The pair.
        x: At least two data, ``(batch, *event_shape)``, as in training, with the columns that the
            pair takes; the first five are used.
        num_data: N, the number of training data, which a data plate declares from now on that has
            the size of the batch although there are global sites; None refuses such a pair.

    Raises:
        UsageError: The pair breaks the contract; the message names the site and the remedy.
    """
    if len(x) < 2:
        raise UsageError(f"a pair is checked on at least 2 data, not {len(x)}")
    x = x[:5]
    if any(bool(v.isnan().any()) for v in flatten([x]) if v.is_floating_point()):
        pair.in_handler(Seen())
    with pair.active(), pair.evaluating(), forked([x.device]):
        try:
            pair.description = description = _inspected(pair, x, num_data)
        except UsageError:
            raise
        except Exception as error:  # of a distribution at values that it does not have
            raise UsageError(
                f"{pair.name} fails on {len(x)} data: {type(error).__name__}: {one_line(error)}"
            ) from error
    return description


def _inspected(pair: Pair, x: Data, num_data: int | None) -> Description:
    _size_own_guides(pair, x, num_data)
    first = OneRun(pair, x, num_data=num_data)  # creates parameters, and moves no running averages
    x = _with_rows(pair, x, first, num_data)
    with untouched(pair.python):
        before = {name: value.detach().clone() for name, value in pair.tensors().items()}
        pair.train()
        description = _described(pair, x, set(before), num_data)
        pair.eval()
        pair.load_tensors(before, pair.name)
        try:
            return _probed(pair, x, description)
        finally:
            pair.load_tensors(before, pair.name)


def _size_own_guides(pair: Pair, x: Data, num_data: int | None) -> None:
    r"""Let Pyro's own guides that keep parameters of each datum make them for all N."""
    guides = list(own_guides(pair.modules()))
    if not guides or num_data is None:
        return
    with WholeBatch(), torch.no_grad():
        sites = run(pair.model, x)
        observed = [site for site in sites.values() if site["is_observed"]]
        frames = [f for site in observed[:1] for f in site["cond_indep_stack"] if f.size == len(x)]
        # Each may guide a part of the model alone, as of one that is blocked.
        if not frames or not any(
            holds_rows(guide, frames[0].name, run(pair.like_model(guide.model), x))
            for guide in guides
        ):
            return
    for guide in guides:
        declare_size(guide, frames[0], num_data)


def _with_rows(pair: Pair, x: Data, first: OneRun, num_data: int | None) -> Data:
    r"""A batch with rows of the guide's parameters of each datum, if it has some."""
    tables = first.asked.found()
    known = {id(value) for value in pair.tensors().values()}
    for name, table in tables.items():
        if num_data is not None and len(table.values) != num_data:
            raise first.wrong(
                f"parameter {name!r} has {len(table.values)} rows, one for each datum, and there "
                f"are {num_data} training data"
            )
        if id(table.values) not in known:
            raise first.wrong(f"{name!r} has a row for each datum; make it by pyro.param")
    if not tables:
        return x
    pair.hand_out(tables)
    return joined(x, {name: table.values[: len(x)] for name, table in tables.items()})


def _described(pair: Pair, x: Data, known: set[str], num_data: int | None) -> Description:
    r"""Describe a pair, if it keeps the contract on two batch sizes by the tensors known so far."""
    run = OneRun(pair, x)
    plates = _data_plates(run)
    if num_data is not None and run.lacks_size(plates[0]):
        pair.declare(plates[0], num_data)
        return replace(_described(pair, x, known, None), filled_in=True)
    description = _describe(run, plates[0])
    if run.left_out:
        pair.in_handler(LeftOut(run.left_out))
    _check_parameters(run)
    # A second batch size: shapes or parameters that hang on the first one show now, and a plate
    # that has the size of the batch by chance.
    second = OneRun(pair, x[:-1], again=len(x))
    both = [name for name in plates if name in _data_plates(second)]
    if both and both[0] != plates[0]:
        description = _describe(run, both[0])
    again = _describe(second, description.plate)
    # After that, as a flow knows the draws of its last run alone.
    for few in (second, OneRun(pair, x[:2], again=len(x)), OneRun(pair, x[-2:], again=len(x))):
        for side, other in ((run.model, few.model), (run.guide, few.guide)):
            if changing := sorted(side.keys() ^ other.keys()):
                raise run.wrong(
                    f"site {changing[0]!r} is there in some batches alone; sites are the same for "
                    "all data: loop over all steps, x.shape[1], and mask those that are not there"
                )
    created = sorted(set(pair.tensors()) - known)
    if created:
        raise run.wrong(
            f"parameter {created[0]!r} appears only on the second call; "
            "create every parameter on the first one"
        )
    if again.plate_size != description.plate_size:
        raise run.wrong(
            f"the size of plate {description.plate!r} changes with the batch; "
            'write pyro.plate("data", len(x)), or size=N, the number of training data'
        )
    return description


def _describe(run: OneRun, plate: str) -> Description:
    r"""Check the contract and describe the pair, whose data plate is the one of that name."""
    _check_sites(run, plate)
    local = [name for name in run.shared if in_plate(run.latent[name], plate)]
    outside = [name for name in run.shared if name not in local]
    declared = run.plates[plate].subsample_size is not None
    if outside and not declared:
        raise run.wrong(
            f"{outside[0]!r} is a global latent site, so the data plate must know the number N "
            'of training data: pyro.plate("data", size=N, subsample_size=len(x))'
        )
    main = run.main()
    seen, value = (run.model[main][key] for key in ("fn", "value"))
    shape = data_first(value, run.model[main], plate, seen.event_dim).shape[1:]
    return Description(
        observed=main,
        also_observed=tuple(name for name in run.observed if name != main),
        event_shape=tuple(shape),
        in_parts=len(run.observed) > 1 and value.numel() != run.x.numel(),
        likelihood=family(seen),
        plate=plate,
        plate_size=run.plates[plate].size if declared else None,
        local_sites=tuple(run.site(name, True) for name in local),
        global_sites=tuple(run.site(name, False) for name in outside),
        auxiliary=run.auxiliary,
        local_auxiliary=tuple(a for a in run.auxiliary if in_plate(run.guide[a], plate)),
        enumerated=run.enumerated,
        column=run.column(main, value),
        parameters={name: tuple(v.shape) for name, v in run.pair.trainable().items()},
    )


def _probed(pair: Pair, x: Data, description: Description) -> Description:
    r"""Add what running the pair again tells; its parameters are changed."""
    try:
        with torch.no_grad(), pyro.validation_enabled(False):
            # Parameters that are the same for all data, as they may be at the start, are to differ.
            for value in pair.trainable().values():
                if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
                    noise = 0.01 * torch.randn_like(value)
                    value.copy_(torch.where(value == 0, noise, value * (1 + noise)))
            probe = Probe(pair, x, description.plate, description.observed_sites)
            probe.check_neighbours()
            probe.check_left_out()
            own, reading = probe.reads_data()
            return replace(
                description, observes_x=own, reads_data=reading, own_draws=probe.own_draws
            )
    except UsageError:
        raise
    except Exception as error:  # of the pair's code
        raise UsageError(
            f"{pair.name} fails where it is run again at latents that it has drawn: "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error


def _data_plates(run: OneRun) -> list[str]:
    r"""The plates over the batch that all observed sites are in, the outermost one first."""
    for side, site in run.sites:
        if not callable(site["fn"]):
            raise run.wrong(
                f"{side} site {site['name']!r} has a {type(site['fn']).__name__}, which is no "
                "distribution of Pyro; wrap one of zuko by pyro.contrib.zuko.ZukoToPyro"
            )
        # A likelihood may be a factor, if its user says that it is one.
        if isinstance(site["fn"], Unit) and run.observed != [site["name"]]:
            raise run.wrong(
                f"pyro.factor {site['name']!r} in the {side} is a term of no distribution, so what "
                "is scored would be no density; make it part of a sample site"
            )
    if not run.observed:
        raise run.wrong("the model has no observed site; it needs a pyro.sample(..., obs=x)")
    if any(site["is_observed"] for site in run.guide.values()):
        raise run.wrong("the guide observes a site; only the model has obs=x")
    found: list[str] = []
    for name in run.observed:
        frames = [f for f in run.model[name]["cond_indep_stack"] if f.vectorized]
        if not frames:
            raise run.wrong(
                f"observed site {name!r} lies in no plate; wrap it and the latent sites of each "
                'datum in `with pyro.plate("data", len(x)):`'
            )
        over = [str(f.name) for f in frames if f.size == run.batch]
        part = next((f for f in frames if f.size < run.batch == f.full_size), None)
        if part is not None and not over:
            raise run.wrong(
                f"plate {part.name!r} draws {part.size} of the {run.batch} data of a batch; leave "
                f"subsample_size out there, and train with --batch-size {part.size}"
            )
        if not over:
            raise run.wrong(
                f"plate {frames[0].name!r} of observed site {name!r} has size {frames[0].size} for "
                f'a batch of {run.batch}; write pyro.plate("data", len(x)), or size=N, '
                "subsample_size=len(x) with N the number of training data"
            )
        if name != run.observed[0] and not set(over) & set(found):
            raise run.wrong(
                f"observed sites {run.observed[0]!r} and {name!r} share no plate; put all that is "
                "observed of a datum into the one data plate"
            )
        found = [p for p in found if p in over] if found else over
    return found


def _check_sites(run: OneRun, plate: str) -> None:
    r"""The same latent sites on both sides, in the same plates, with a density of each datum."""
    one_sided = run.auxiliary + run.enumerated + run.left_out
    for name in [*run.latent, *run.guide]:
        if name not in one_sided and (name in run.latent) != (name in run.guide):
            has, lacks = ("model", "guide") if name in run.latent else ("guide", "model")
            raise run.wrong(
                f"latent site {name!r} is in the {has} but not in the {lacks}; "
                f"sample it in the {lacks} under the same name"
            )
    for side, site in run.sites:
        check_log_prob(run, side, site)
    for name in run.shared:
        _check_plates(run, name, plate)
    for side, site in run.sites:
        check_shape(run, side, site)
    made_of = {name for site in run.guide.values() for name in run.sources(site)}
    for name in run.auxiliary:
        if name not in made_of:
            raise run.wrong(
                f"auxiliary guide site {name!r} is not what a Delta site is made of, so the "
                "guide would have no density; draw the latent site from it through a Delta"
            )
    for name, fn in run.all_plates:
        if name != plate and fn.subsample_size not in (None, fn.size):
            raise run.wrong(
                f"plate {name!r} draws {fn.subsample_size} of {fn.size} at random; only the "
                f"data plate, {plate!r} here, may hold a part, the batch that it is given"
            )


def _check_plates(run: OneRun, name: str, plate: str) -> None:
    model, guide = run.model[name], run.guide[name]
    inside = in_plate(model, plate)
    if inside != in_plate(guide, plate):
        here, there = ("model", "guide") if inside else ("guide", "model")
        raise run.wrong(
            f"latent site {name!r} lies inside plate {plate!r} in the {here} and outside it "
            f"in the {there}; put it in the same plate on both sides"
        )
    for site in (model, guide) if inside else ():
        dims = {frame.name: frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
        if dims[plate] != min(dims.values()):
            other = min(dims, key=lambda plate: dims[plate])
            raise run.wrong(
                f"latent site {name!r} has plate {other!r} to the left of {plate!r}; its values "
                f"need the data first: pyro.plate({plate!r}, len(x), dim=-2) and "
                f"pyro.plate({other!r}, ..., dim=-1), or a dimension of the site, .to_event(1)"
            )
    if not torch.equal(*(_where(side) for side in (model, guide))):
        raise run.wrong(
            f"latent site {name!r} is masked for other data in the guide than in the model, so "
            "that the two densities would not be of the same; put both in poutine.mask(mask=...)"
        )
    scales = float(model["scale"]), float(guide["scale"])
    if scales[0] != scales[1]:
        raise run.wrong(
            f"latent site {name!r} is scaled by {scales[0]:g} in the model and {scales[1]:g} in "
            f"the guide; declare the same plate, pyro.plate({plate!r}, size=N, "
            "subsample_size=len(x)), on both sides"
        )


def _where(site: dict[str, Any]) -> Tensor:
    r"""Where a site has a density, of its batch shape."""
    found = torch.ones(site["fn"].batch_shape, dtype=torch.bool)
    for mask in masks(site):  # those of components are left out
        found = found & mask.to(found.device) if mask.dim() <= found.dim() else found
    return found


def _check_parameters(run: OneRun) -> None:
    r"""Every tensor that receives a gradient must be one the pair trains, saves and resumes."""
    known = {id(v) for v in [*run.pair.tensors().values(), *run.mark.leaves.values()]}
    values = [site["value"] for _, site in run.sites]
    values += [site["fn"].log_prob(site["value"]) for _, site in run.sites]
    for leaf in leaves(values):
        if id(leaf) not in known:
            raise run.wrong(
                f"a trainable tensor of shape {tuple(leaf.shape)} belongs to no module of the "
                "pair, so it could be neither trained nor saved; register its module with "
                "pyro.module(name, module), or the tensor with pyro.param"
            )
