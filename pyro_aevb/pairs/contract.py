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

import re
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent

from pyro_aevb.data.batch import Batch, Data, data_of, flatten
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.pairs.density import data_first, family, in_plate, is_delta, is_masked, masks, run
from pyro_aevb.pairs.description import Description, Site
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.missing import LeftOut, Seen
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.probes import Positions, Probe
from pyro_aevb.pairs.state.python import untouched
from pyro_aevb.pairs.supports import outside

_HINTS = {
    "must also define a custom .expand": "a plate expands every distribution: give its class an "
    "expand method, or take another",
    "Shape mismatch inside plate": "distributions over vectors need .to_event(number of dims)",
    "Multiple sample sites": "use a site's name once; make a plate once, and enter it often",
    "invalid values|constraint": "a distribution's parameter is not finite or not in its range",
    "object is not callable": "wrap what is no distribution of Pyro: one of zuko by "
    "pyro.contrib.zuko.ZukoToPyro",
    "concatenate list": "give its distribution an expand method that takes a list, as Pyro's do",
    "dtype|Double": "data are float32: make the pair's parameters float32 too, by .float()",
}
r"""Words in what an error of the pair's code says, and the remedy."""


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
    with pair.active(), pair.evaluating(), torch.random.fork_rng([x.device] if x.is_cuda else []):
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
    _Run(pair, x)  # creates lazy parameters, and moves no running averages
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


def _described(pair: Pair, x: Data, known: set[str], num_data: int | None) -> Description:
    r"""Describe a pair, if it keeps the contract on two batch sizes by the tensors known so far."""
    run = _Run(pair, x)
    plates = _data_plates(run)
    if num_data is not None and run.lacks_size(plates[0]):
        pair.declare(plates[0], num_data)
        return replace(_described(pair, x, known, None), filled_in=True)
    description = run.describe(plates[0])
    if run.left_out:
        pair.in_handler(LeftOut(run.left_out))
    _check_parameters(run)
    # A second batch size: shapes or parameters that hang on the first one show now, and a plate
    # that has the size of the batch by chance.
    second = _Run(pair, x[:-1], again=True)
    both = [name for name in plates if name in _data_plates(second)]
    if both and both[0] != plates[0]:
        description = run.describe(both[0])
    again = second.describe(description.plate)
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


class _Mark(Messenger):
    r"""Put a leaf in the place of each auxiliary value, so that what is made of it can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["infer"].get("is_auxiliary") and msg["value"].is_floating_point():
            msg["value"] = msg["value"].detach().clone().requires_grad_()
            self.leaves[msg["name"]] = msg["value"]


class _Run:
    r"""One run of guide and model on a batch, and what it shows of the pair."""

    def __init__(self, pair: Pair, x: Data, again: bool = False) -> None:
        self.pair, self.batch, self.mark, self.again = pair, len(x), _Mark(), again
        self.x, self.columns = data_of(x), x.columns if isinstance(x, Batch) else {}
        self.guide, guide_plates = self._run("guide", self.mark(pair.guide), x, {})
        drawn = {name: site["value"] for name, site in self.guide.items()}
        self.model, self.plates = self._run("model", pair.model, x, drawn)
        self.all_plates = [*guide_plates.items(), *self.plates.items()]
        self.sites = [("model", site) for site in self.model.values()]
        self.sites += [("guide", site) for site in self.guide.values()]
        self.auxiliary = tuple(k for k, v in self.guide.items() if v["infer"].get("is_auxiliary"))
        self.observed = [name for name, site in self.model.items() if site["is_observed"]]
        self.latent = {k: site for k, site in self.model.items() if k not in self.observed}
        self.enumerated = tuple(
            name
            for name, site in self.latent.items()
            if name not in self.guide and site["infer"].get("enumerate")
        )
        self.left_out = tuple(
            name
            for name in self.latent
            if name not in self.guide
            and name.endswith("_unobserved")
            and name.removesuffix("_unobserved") + "_observed" in self.model
        )
        one_sided = self.enumerated + self.left_out
        self.shared = [name for name in self.latent if name not in one_sided]

    def _run(self, side: str, function: Any, x: Data, values: dict[str, Tensor]) -> Any:
        r"""The sites of a side, and the plates that it makes."""
        plates = WholeBatch()
        try:
            with plates, pyro.validation_enabled(), Positions(self.pair.name, side, plates, len(x)):
                return run(function, x, values), plates.plates
        except UsageError:
            raise
        except Exception as error:  # the user's code: whatever it raises
            said = one_line(error)
            hints = (hint for words, hint in _HINTS.items() if re.search(words, said))
            hint = next(hints, f"is it made for data of shape {tuple(x.shape[1:])}?")
            if self.again:
                hint = (
                    f"it has run on a batch of {len(x) + 1}, whose size it keeps, as an autoguide "
                    "of sites of each datum does: guide these by a function of x, or share its "
                    "parameters (amortized_plates of AutoNormalMessenger)"
                )
            raise self.wrong(
                f"the {side} failed on a batch of shape {tuple(x.shape)}: "
                f"{type(error).__name__}: {said}; {hint}"
            ) from error

    def _main(self) -> str:
        r"""The observed site that is x, else the first that is none of the columns, or of all."""
        whole = []
        for name in self.observed:
            value = self.model[name]["value"]
            if value.numel() == self.x.numel():
                same = (value.reshape(self.x.shape) == self.x) | self.x.isnan()
                whole += [name] if bool(same.all()) else []
        if len(whole) > 1:
            raise self.wrong(
                f"observed sites {whole[0]!r} and {whole[1]!r} are both x, which would count it "
                "twice; observe it once, by exactly one pyro.sample(..., obs=x)"
            )
        if whole:
            return whole[0]
        of_x = (n for n in self.observed if self._column(n, self.model[n]["value"]) is None)
        return next(of_x, self.observed[0])

    def _column(self, own: str, value: Tensor) -> str | None:
        r"""The column of the batch that a value is; its namesake before others."""
        values = value.flatten().tolist()
        alike = [k for k, v in self.columns.items() if v.flatten().tolist() == values]
        return own if own in alike else next(iter(alike), None)

    def lacks_size(self, plate: str) -> bool:
        r"""Whether a plate has the size of the batch, and there is a site outside it."""
        outside = (name for name in self.shared if not in_plate(self.latent[name], plate))
        return self.plates[plate].size == self.batch and next(outside, None) is not None

    def wrong(self, message: str) -> UsageError:
        return UsageError(f"{self.pair.name}: {message}")

    def describe(self, plate: str) -> Description:
        r"""Check the contract and describe the pair, whose data plate is the one of that name."""
        _check_sites(self, plate)
        local = [name for name in self.shared if in_plate(self.latent[name], plate)]
        outside = [name for name in self.shared if name not in local]
        declared = self.plates[plate].subsample_size is not None
        if outside and not declared:
            raise self.wrong(
                f"{outside[0]!r} is a global latent site, so the data plate must know the number N "
                'of training data: pyro.plate("data", size=N, subsample_size=len(x))'
            )
        main = self._main()
        seen, value = (self.model[main][key] for key in ("fn", "value"))
        shape = data_first(value, self.model[main], plate, seen.event_dim).shape[1:]
        return Description(
            observed=main,
            also_observed=tuple(name for name in self.observed if name != main),
            event_shape=tuple(shape),
            likelihood=family(seen),
            plate=plate,
            plate_size=self.plates[plate].size if declared else None,
            local_sites=tuple(self._site(name, True) for name in local),
            global_sites=tuple(self._site(name, False) for name in outside),
            auxiliary=self.auxiliary,
            local_auxiliary=tuple(a for a in self.auxiliary if in_plate(self.guide[a], plate)),
            enumerated=self.enumerated,
            column=self._column(main, value),
            parameters={name: tuple(v.shape) for name, v in self.pair.trainable().items()},
        )

    def sources(self, site: Any) -> list[str]:
        r"""The auxiliary sites that a Delta site is a function of."""
        if not is_delta(site["fn"]):
            return []
        reached = set(map(id, _leaves([site["value"]])))
        leaves = self.mark.leaves
        return [name for name in self.auxiliary if name in leaves and id(leaves[name]) in reached]

    def _site(self, name: str, local: bool) -> Site:
        prior, posterior = self.model[name], self.guide[name]
        # An autoguide draws auxiliary sites and puts a Delta on what it makes of them: a density,
        # unless such a site is a point too, as a Laplace approximation's is until it is finished.
        sources = self.sources(posterior)
        drawn = bool(sources) and not any(is_delta(self.guide[name]["fn"]) for name in sources)
        point = is_delta(posterior["fn"]) and not drawn
        return Site(
            name,
            tuple(prior["value"].shape[local:]),
            family(prior["fn"]),
            "auxiliary" if drawn else family(posterior["fn"]),
            density=not (point or is_masked(prior) or is_masked(posterior)),
            masked=is_masked(prior),
            matched=bool(posterior["infer"].get("matched")),
        )


def _data_plates(run: _Run) -> list[str]:
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


def _check_sites(run: _Run, plate: str) -> None:
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
        _check_log_prob(run, side, site)
    for name in run.shared:
        _check_plates(run, name, plate)
    for side, site in run.sites:
        _check_shape(run, side, site)
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


def _check_plates(run: _Run, name: str, plate: str) -> None:
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


def _check_log_prob(run: _Run, side: str, site: dict[str, Any]) -> None:
    name, fn = site["name"], site["fn"]
    plates = {frame.dim: frame for frame in site["cond_indep_stack"] if frame.vectorized}
    for dim, size in enumerate(reversed(fn.batch_shape), 1):
        if size != 1 and -dim not in plates:
            raise run.wrong(
                f"{side} site {name!r} has batch shape {tuple(fn.batch_shape)} in "
                f"{len(plates)} plate(s): dim {-dim} belongs to no plate; declare the dims of "
                "one datum with .to_event(n)"
            )
    try:
        log_prob = fn.log_prob(site["value"])
    except ValueError as error:
        said = f"{side} site {name!r}: {one_line(error)}"
        raise run.wrong(outside(side, site) if "support" in str(error) else said) from error
    except Exception as error:  # of a distribution that draws alone, or scores its own draws alone
        said = f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")
        raise run.wrong(
            f"{side} site {name!r} has no log-probability at the value {_whose(side, site)}: "
            f"{said}; take a distribution with a density there (of a flow, one with an inverse, as "
            "affine_autoregressive or spline has)"
        ) from error
    finite = bool(torch.isfinite(log_prob).all())
    if not finite and side == "model" and is_delta(fn):
        raise run.wrong(
            f"model site {name!r} is a Delta, a point, and its value is another; give it a spread, "
            "as Normal(value, scale), or where it is no random number use pyro.deterministic"
        )
    if not finite and _at_edge(site):
        raise run.wrong(
            f"the log-probability of {side} site {name!r} is not finite at the edge of its "
            f"support, where a draw or a datum of {family(fn)} was rounded to; keep values inside, "
            "by other parameters or a transform"
        )
    if not finite:
        remedy = "look at its distribution's parameters and at the scale of the data"
        if bool(run.x.isnan().any()):
            remedy = "x has missing values (NaN): give nets x.nan_to_num(), beside x.isnan()"
        raise run.wrong(f"the log-probability of {side} site {name!r} is not finite; {remedy}")


def _at_edge(site: dict[str, Any]) -> bool:
    r"""Whether a value, at which there is no finite density, is 0 or 1, where a support ends."""
    value, support = site["value"], getattr(site["fn"], "support", None)
    inner = getattr(support, "base_constraint", support)
    ends = [getattr(inner, name, None) for name in ("lower_bound", "upper_bound")]
    known = [end for end in ends if isinstance(end, (int, float))]
    return any(bool((value == end).any()) for end in known)


def _whose(side: str, site: dict[str, Any]) -> str:
    if site["is_observed"]:
        return "that it observes"
    return "that the guide draws" if side == "model" else "that it draws"


def _check_shape(run: _Run, side: str, site: dict[str, Any]) -> None:
    r"""A value and its distribution that broadcast give numbers, of other data or pixels."""
    fn, shape, expected = site["fn"], tuple(site["value"].shape), tuple(site["fn"].shape())
    same = fn.log_prob(site["value"]).shape == fn.batch_shape
    # Some families, such as a homogeneous hidden Markov model, take events of any length.
    if same and (shape == expected or not isinstance(fn, Independent)):
        return
    raise run.wrong(
        f"the value of {side} site {site['name']!r} has shape {shape}, its distribution "
        f"{expected}: they broadcast, which mixes data or pixels; give both one shape (a "
        "decoder that ends in nn.Unflatten, or x.flatten(1)), and .to_event(its dims)"
    )


def _check_parameters(run: _Run) -> None:
    r"""Every tensor that receives a gradient must be one the pair trains, saves and resumes."""
    known = {id(v) for v in [*run.pair.tensors().values(), *run.mark.leaves.values()]}
    values = [site["value"] for _, site in run.sites]
    values += [site["fn"].log_prob(site["value"]) for _, site in run.sites]
    for leaf in _leaves(values):
        if id(leaf) not in known:
            raise run.wrong(
                f"a trainable tensor of shape {tuple(leaf.shape)} belongs to no module of the "
                "pair, so it could be neither trained nor saved; register its module with "
                "pyro.module(name, module), or the tensor with pyro.param"
            )


def _leaves(values: list[Tensor]) -> list[Tensor]:
    r"""The tensors that the values' gradients flow to."""
    leaves = [value for value in values if value.is_leaf and value.requires_grad]
    pending, visited = [value.grad_fn for value in values], set()
    while pending:
        node: Any = pending.pop()
        if node is not None and node not in visited:
            visited.add(node)
            pending.extend(parent for parent, _ in node.next_functions)
            leaves += [node.variable] if hasattr(node, "variable") else []
    return leaves
