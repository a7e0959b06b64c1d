r"""Run a pair once on a few data and describe it, or say what is wrong with it.

The contract a pair keeps:

- exactly one observed sample site, in exactly one batch plate of dim -1, the *data plate*;
- a latent site inside the data plate is *local* (one value per datum), outside it *global*;
- the model and the guide have the same latent sites, in the same plates; auxiliary guide sites,
  of which an autoguide makes the latent ones, apart;
- a pair with global sites declares ``pyro.plate("data", size=N, subsample_size=len(x))``;
- a datum's terms depend on that datum and the latents alone (:mod:`~pyro_aevb.pairs.probes`).
"""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent

from pyro_aevb.data.batch import Data
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.pairs.density import family, in_plate, is_delta, is_masked, sample_sites
from pyro_aevb.pairs.description import Description, Site
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.probes import Positions, Probe
from pyro_aevb.pairs.state.python import untouched
from pyro_aevb.pairs.supports import outside


def inspect(pair: Pair, x: Data) -> Description:
    r"""Check the contract on a few data and describe the pair; creates its lazy parameters.

    Arguments:
        pair: The pair.
        x: At least two data, ``(batch, *event_shape)``, as in training, with the columns that the
            pair takes; the first five are used.

    Raises:
        UsageError: The pair breaks the contract; the message names the site and the remedy.
    """
    if len(x) < 2:
        raise UsageError(f"a pair is checked on at least 2 data, not {len(x)}")
    x = x[:5]
    with pair.active(), pair.evaluating(), torch.random.fork_rng(_cuda(x)), ExitStack() as left:
        _Run(pair, x)  # creates lazy parameters, and moves no running averages
        left.enter_context(untouched(pair.python))
        before = {name: value.detach().clone() for name, value in pair.tensors().items()}
        pair.train()
        run = _Run(pair, x)
        description = run.describe()
        run.check_parameters()
        # A second batch size: shapes or parameters that hang on the first one show now.
        again = _Run(pair, x[:-1]).describe()
        created = sorted(set(pair.tensors()) - set(before))
        if created:
            raise UsageError(
                f"{pair.name}: parameter {created[0]!r} appears only on the second call; "
                "create every parameter on the first one"
            )
        if again.plate_size != description.plate_size:
            raise UsageError(
                f"{pair.name}: the size of plate {description.plate!r} changes with the batch; "
                'write pyro.plate("data", len(x)), or size=N, the number of training data'
            )
        pair.eval()
        _restore(pair, before)
        try:
            _stir(pair)
            with torch.no_grad(), pyro.validation_enabled(False):
                probe = Probe(pair, x, description.plate, description.observed)
                probe.check_neighbours()
                own, reading = probe.reads_data()
                description = replace(description, observes_x=own, reads_data=reading)
        except UsageError:
            raise
        except Exception as error:  # of a density that knows its own last draw alone
            raise UsageError(
                f"{pair.name} fails where it is run again at latents that it has drawn: "
                f"{type(error).__name__}: {one_line(error)}; every density has to be one at any "
                "value, so a flow needs an inverse, as affine_autoregressive or spline has"
            ) from error
        finally:
            _restore(pair, before)
    pair.description = description
    return description


@torch.no_grad()
def _stir(pair: Pair) -> None:
    r"""Make parameters that are the same for all data, as they may be at the start, differ."""
    for value in pair.trainable().values():
        if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
            noise = 0.01 * torch.randn_like(value)
            value.copy_(torch.where(value == 0, noise, value * (1 + noise)))


@torch.no_grad()
def _restore(pair: Pair, before: dict[str, Tensor]) -> None:
    for name, value in pair.tensors().items():
        value.copy_(before[name])


def _cuda(x: Data) -> list[torch.device]:
    return [x.device] if x.device.type == "cuda" else []


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
    r"""One run of guide and model on a batch, and everything that is asked of it."""

    def __init__(self, pair: Pair, x: Data) -> None:
        self.pair, self.batch = pair, len(x)
        self.mark = _Mark()
        self.plates = WholeBatch()
        with self.plates, pyro.validation_enabled():
            self.guide_trace = guide = self._trace("guide", self.mark(pair.guide), x)
            self.model_trace = self._trace("model", poutine.replay(pair.model, trace=guide), x)
        self.model, self.guide = sample_sites(self.model_trace), sample_sites(guide)

    def _trace(self, side: str, function: Any, x: Data) -> Any:
        try:
            with Positions(self.pair.name, side, self.plates, len(x)):
                return poutine.trace(function).get_trace(x)
        except UsageError as error:  # Pyro appends the shapes of the sites so far
            raise UsageError(one_line(error)) from error
        except Exception as error:  # the user's code: whatever it raises
            said = one_line(error)
            hint = f"is it made for data of shape {tuple(x.shape[1:])}?"
            if "Shape mismatch inside plate" in said:
                hint = "a distribution over vectors or images needs .to_event(number of dims)"
            elif "Multiple sample sites" in said:
                hint = (
                    "a site's name is used once; make a plate once, and enter it as often as needed"
                )
            elif "invalid values" in said or "constraint" in said:
                hint = "a parameter of that distribution is not finite or not in its range"
            elif "dtype" in said or "Double" in said:
                hint = "data are float32: make the pair's parameters float32 too, by .float()"
            raise self._wrong(
                f"the {side} failed on a batch of shape {tuple(x.shape)}: "
                f"{type(error).__name__}: {said}; {hint}"
            ) from error

    def _wrong(self, message: str) -> UsageError:
        return UsageError(f"{self.pair.name}: {message}")

    def describe(self) -> Description:
        r"""Check the contract and describe the pair."""
        observed = self._observed()
        plate = self._data_plate(observed)
        auxiliary = tuple(k for k, v in self.guide.items() if v["infer"].get("is_auxiliary"))
        latent = {name: site for name, site in self.model.items() if name != observed}
        enumerated = tuple(
            name
            for name, site in latent.items()
            if name not in self.guide and site["infer"].get("enumerate")
        )
        for name in [*latent, *self.guide]:
            if name not in auxiliary + enumerated and (name in latent) != (name in self.guide):
                has, lacks = ("model", "guide") if name in latent else ("guide", "model")
                raise self._wrong(
                    f"latent site {name!r} is in the {has} but not in the {lacks}; "
                    f"sample it in the {lacks} under the same name"
                )
        for side, sites in (("model", self.model), ("guide", self.guide)):
            for site in sites.values():
                self._check_log_prob(side, site)
        shared = [name for name in latent if name not in enumerated]
        for name in shared:
            self._check_plates(name, plate.name)
        for side, sites in (("model", self.model), ("guide", self.guide)):
            for site in sites.values():
                self._check_shape(side, site)
        for name in auxiliary:
            if not any(self._made_of(site, [name]) for site in self.guide.values()):
                raise self._wrong(
                    f"auxiliary guide site {name!r} is not what a Delta site is made of, so the "
                    "guide would have no density; draw the latent site from it through a Delta"
                )
        for name, fn in self.subsampling():
            if name != plate.name:
                raise self._wrong(
                    f"plate {name!r} draws {fn.subsample_size} of {fn.size} at random; only the "
                    f"data plate, {plate.name!r} here, may hold a part, the batch that it is given"
                )
        local = [name for name in shared if in_plate(latent[name], plate.name)]
        outside = [name for name in shared if name not in local]
        declared = self.model_trace.nodes[plate.name]["fn"].subsample_size is not None
        if outside and not declared:
            raise self._wrong(
                f"{outside[0]!r} is a global latent site, so the data plate must know the number N "
                'of training data: pyro.plate("data", size=N, subsample_size=len(x))'
            )
        seen = self.model[observed]["fn"]
        return Description(
            observed=observed,
            event_shape=tuple(seen.event_shape),
            likelihood=family(seen),
            plate=plate.name,
            plate_size=self.model_trace.nodes[plate.name]["fn"].size if declared else None,
            local_sites=tuple(self._site(name, auxiliary, True) for name in local),
            global_sites=tuple(self._site(name, auxiliary, False) for name in outside),
            auxiliary=auxiliary,
            local_auxiliary=tuple(a for a in auxiliary if in_plate(self.guide[a], plate.name)),
            enumerated=enumerated,
            parameters={name: tuple(v.shape) for name, v in self.pair.trainable().items()},
        )

    def subsampling(self) -> list[tuple[str, Any]]:
        r"""The plates, by name, that hold only a part of what they are of."""
        nodes = [*self.guide_trace.nodes.items(), *self.model_trace.nodes.items()]
        plates = [(name, node["fn"]) for name, node in nodes if site_is_subsample(node)]
        return [(name, fn) for name, fn in plates if fn.subsample_size not in (None, fn.size)]

    def _observed(self) -> str:
        for side, sites in (("model", self.model), ("guide", self.guide)):
            for name, site in sites.items():
                if isinstance(site["fn"], Unit):
                    raise self._wrong(
                        f"pyro.factor {name!r} in the {side} is a term of no distribution, so what "
                        "is scored would be no density; make it part of a sample site"
                    )
        observed = [name for name, site in self.model.items() if site["is_observed"]]
        for name in observed:
            base = name.removesuffix("_observed")
            if base != name and f"{base}_unobserved" in self.model:
                raise self._wrong(
                    f"site {base!r} has an obs_mask, which makes what is missing a latent site; "
                    "leave it out of the density instead: mask the distribution, as in "
                    "Normal(...).mask(seen).to_event(1), and give obs=x with any values there"
                )
        if len(observed) != 1:
            what = "no observed site"
            if observed:
                what = f"{len(observed)} observed sites {observed}"
            raise self._wrong(f"the model has {what}; it needs exactly one pyro.sample(..., obs=x)")
        if any(site["is_observed"] for site in self.guide.values()):
            raise self._wrong("the guide observes a site; only the model has obs=x")
        return observed[0]

    def _data_plate(self, observed: str) -> Any:
        frames = [f for f in self.model[observed]["cond_indep_stack"] if f.vectorized]
        if len(frames) != 1 or frames[0].dim != -1:
            found = "must lie in one plate, of dim -1" if frames else "lies in no plate"
            raise self._wrong(
                f"observed site {observed!r} {found}; wrap it and the latent sites of each datum "
                'in `with pyro.plate("data", len(x)):`'
            )
        if frames[0].size != self.batch:
            raise self._wrong(
                f"plate {frames[0].name!r} has size {frames[0].size} for a batch of {self.batch}; "
                'write pyro.plate("data", len(x)), or size=N, subsample_size=len(x) with N the '
                "number of training data"
            )
        return frames[0]

    def _check_plates(self, name: str, plate: str) -> None:
        model, guide = self.model[name], self.guide[name]
        if in_plate(model, plate) != in_plate(guide, plate):
            inside, outside = ("model", "guide") if in_plate(model, plate) else ("guide", "model")
            raise self._wrong(
                f"latent site {name!r} lies inside plate {plate!r} in the {inside} and outside it "
                f"in the {outside}; put it in the same plate on both sides"
            )
        if in_plate(model, plate) and len(model["cond_indep_stack"]) > 1:
            raise self._wrong(
                f"latent site {name!r} lies in a further plate inside {plate!r}; make that a "
                "dimension of the site with .to_event(1)"
            )
        if float(model["scale"]) != float(guide["scale"]):
            raise self._wrong(
                f"latent site {name!r} is scaled by {float(model['scale']):g} in the model and "
                f"{float(guide['scale']):g} in the guide; declare the same plate, "
                f"pyro.plate({plate!r}, size=N, subsample_size=len(x)), on both sides"
            )

    def _check_log_prob(self, side: str, site: dict[str, Any]) -> None:
        name, fn = site["name"], site["fn"]
        plates = {frame.dim: frame for frame in site["cond_indep_stack"] if frame.vectorized}
        for dim, size in enumerate(reversed(fn.batch_shape), 1):
            if size != 1 and -dim not in plates:
                raise self._wrong(
                    f"{side} site {name!r} has batch shape {tuple(fn.batch_shape)} in "
                    f"{len(plates)} plate(s): dim {-dim} belongs to no plate; declare the dims of "
                    "one datum with .to_event(n)"
                )
        try:
            log_prob = fn.log_prob(site["value"])
        except ValueError as error:
            said = " ".join(str(error).split())
            if "support" not in said:
                raise self._wrong(f"{side} site {name!r}: {said[:200]}") from error
            raise self._wrong(outside(side, site)) from error
        if not bool(torch.isfinite(log_prob).all()):
            raise self._wrong(
                f"the log-probability of {side} site {name!r} is not finite; look at its "
                "distribution's parameters and at the scale of the data"
            )

    def _made_of(self, site: Any, auxiliary: Any) -> bool:
        r"""Whether a Delta site is a function of some of the auxiliary sites."""
        return bool(self._sources(site, auxiliary))

    def _check_shape(self, side: str, site: dict[str, Any]) -> None:
        r"""A value and its distribution that broadcast give numbers, of other data or pixels."""
        fn, shape, expected = site["fn"], tuple(site["value"].shape), tuple(site["fn"].shape())
        same = fn.log_prob(site["value"]).shape == fn.batch_shape
        # Some families, such as a homogeneous hidden Markov model, take events of any length.
        if same and (shape == expected or not isinstance(fn, Independent)):
            return
        raise self._wrong(
            f"the value of {side} site {site['name']!r} has shape {shape}, its distribution "
            f"{expected}: they broadcast, which mixes data or pixels; give both one shape (a "
            "decoder that ends in nn.Unflatten, or x.flatten(1)), and .to_event(its dims)"
        )

    def _sources(self, site: Any, auxiliary: Any) -> list[str]:
        r"""The auxiliary sites that a Delta site is a function of."""
        if not is_delta(site["fn"]):
            return []
        reached = set(map(id, _leaves([site["value"]])))
        leaves = self.mark.leaves
        return [name for name in auxiliary if name in leaves and id(leaves[name]) in reached]

    def _site(self, name: str, auxiliary: tuple[str, ...], local: bool) -> Site:
        prior, posterior = self.model[name], self.guide[name]
        # An autoguide draws auxiliary sites and puts a Delta on what it makes of them: a density,
        # unless such a site is a point too, as a Laplace approximation's is until it is finished.
        sources = self._sources(posterior, auxiliary)
        drawn = bool(sources) and not any(is_delta(self.guide[name]["fn"]) for name in sources)
        point = is_delta(posterior["fn"]) and not drawn
        return Site(
            name,
            tuple(prior["fn"].event_shape if local else prior["value"].shape),
            family(prior["fn"]),
            "auxiliary" if drawn else family(posterior["fn"]),
            density=not (point or is_masked(prior) or is_masked(posterior)),
            masked=is_masked(prior),
            matched=bool(posterior["infer"].get("matched")),
        )

    def check_parameters(self) -> None:
        r"""Every tensor that receives a gradient must be one the pair trains, saves and resumes."""
        known = {id(v) for v in [*self.pair.tensors().values(), *self.mark.leaves.values()]}
        values = [
            value
            for site in [*self.model.values(), *self.guide.values()]
            for value in (site["fn"].log_prob(site["value"]), site["value"])
        ]
        for leaf in _leaves(values):
            if id(leaf) not in known:
                raise self._wrong(
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
