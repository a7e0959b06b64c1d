r"""What a pair's densities depend on, found by running it again on other data and at other places.

The terms of a datum are a function of that datum and of the latents alone, whatever stands beside
it in the batch: else no number per datum means anything. Where the model's distributions at fixed
latents change with x, as those of a decoder that is told the earlier pixels, its densities are
right, but nothing can be simulated by one call.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pyro_aevb.data.batch import Data, data_of, with_data
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import base, data_first, in_plate, is_delta, log_prob, run
from pyro_aevb.pairs.flows import Push, noise, scores_any_value
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair

TOLERANCE = 1e-4
r"""Relative difference of two values of the same quantity above which they are not the same."""
COMPONENTS = 128
r"""Components of a datum, chosen at random, that a likelihood is asked whether it reads."""


class Positions(TorchFunctionMode):
    r"""Refuse a look-up of the indices of a plate in what does not belong to the batch.

    The batch has been chosen before the pair sees it, so these indices are 0, ..., B - 1. ``x[i]``
    is right; a look-up in a parameter, or in labels that the pair holds, reads other data's rows.

    Arguments:
        pair: The name of the pair.
        side: ``model`` or ``guide``.
        plates: The handler that gives plates their indices.
        batch: B; plates of other sizes are not of the data.
        table: From the tensors beside indices to the name of a parameter that has a row for each
            training datum, whose rows a batch brings with it; None if there are none.
    """

    def __init__(
        self,
        pair: str,
        side: str,
        plates: WholeBatch,
        batch: int,
        table: Callable[[Iterable[Tensor]], str | None] | None = None,
    ) -> None:
        super().__init__()
        self.pair, self.side, self.plates, self.batch = pair, side, plates, batch
        self.table = table
        self.derived: list[tuple[str, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        found = None
        for plate, index in (*self.plates.indices.items(), *self.derived):
            if found is None and len(index) == self.batch and any(t is index for t in tensors):
                found = plate
                if name not in _HARMLESS | _CONVERSIONS and not name.startswith("new_"):
                    self._check(plate, [t for t in tensors if t is not index])
        result = func(*args, **kwargs)
        if found is not None and name in _CONVERSIONS:
            self.derived.append((found, result))
        return result

    def _check(self, plate: str, others: list[Tensor]) -> None:
        r"""Refuse indices beside other tensors, unless these are of the batch."""
        rows = [len(tensor) if tensor.dim() else 0 for tensor in others]
        if rows and all(count == self.batch for count in rows):
            return
        if self.table is not None and self.table(others) is not None:
            return
        what = f"computes with the indices of plate {plate!r}"
        if rows:
            what = f"looks the indices of plate {plate!r} up in {rows[0]} rows"
        raise UsageError(
            f"{self.pair}: the {self.side} {what}, but a batch is not told which data it holds, so "
            "these are other data's; a guide's parameters of each datum are looked up at once, "
            'pyro.param("loc", torch.zeros(N, d))[index], and what is known of a datum goes into x'
        )


_CONVERSIONS = {"to", "long", "int", "cpu", "cuda", "clone", "detach", "contiguous"}
_HARMLESS = {
    *("__get__", "__len__", "size", "dim", "numel", "stride", "__hash__", "__repr__", "__format__"),
    *("is_floating_point", "is_complex", "element_size", "zeros_like", "ones_like", "empty_like"),
    "unbind",  # by a plate that is a loop, which is refused for that
}


class Probe:
    r"""Runs of a pair in evaluation mode, all at the latents of a first one.

    Made and used inside ``pair.active()``, without gradients and Pyro's validation.

    Arguments:
        pair: The pair.
        x: A few different data, ``(B, *event_shape)``, with the columns that the pair takes.
        plate: The name of its data plate.
        observed: The names of its observed sites, that which is x first.
    """

    def __init__(self, pair: Pair, x: Data, plate: str, observed: Sequence[str]) -> None:
        self.pair, self.x, self.plate, self.observed = pair, x, plate, observed
        self.python = pair.python.read()
        self.sites = self._run(x, {})
        found = ((name, site) for (_, name), site in self.sites.items())
        latent = {name: site for name, site in found if not site["is_observed"]}
        self.values = {name: site["value"] for name, site in latent.items()}
        self.local = {name for name, site in latent.items() if in_plate(site, plate)}
        self.whole = self._terms(self.sites)
        # Before a flow without an inverse is asked for other densities, and forgets its draw.
        drawn = {n: noise(s) for (side, n), s in self.sites.items() if side == "guide"}
        self.own_draws = tuple(
            name
            for (side, name), site in self.sites.items()
            if side == "guide" and name in self.local and not scores_any_value(site)
        )
        r"""The guide's sites that have a log-density at their own draws alone."""
        self.noise = {n: v for n in self.own_draws if (v := drawn[n]) is not None}

    def check_neighbours(self) -> None:
        r"""Compare every site's terms with those without the first datum, in reverse order.

        Raises:
            UsageError: A site's terms depend on the other data of the batch. Not where two runs on
                the same data differ too: such a pair draws random numbers that are no sites.
        """
        rows = torch.arange(len(self.x) - 1, 0, -1, device=self.x.device)
        whole, fewer = self.whole, self._terms(self._run(*self._rows(rows), rows))
        differing = [k for k in whole if not _same(whole[k][rows], fewer.get(k, whole[k]))]
        again = self._terms(self._run(self.x, self.values)) if differing else {}
        for side, name in differing:
            if _same(whole[side, name], again[side, name]):
                change = _change(whole[side, name][rows], fewer[side, name])
                raise UsageError(
                    f"{self.pair.name}: {side} site {name!r} depends on the other data of the "
                    f"batch: of one datum {change} where another datum is left out; compute it "
                    "from that datum alone (no mean over the batch, no BatchNorm without running "
                    "statistics)"
                )

    def check_left_out(self) -> None:
        r"""Compare all sites' terms with those at another draw of the sites that are left out.

        Raises:
            UsageError: A site's terms depend on one of them, which the guide then has to draw.
        """
        sides = {name for side, name in self.sites if side == "model"}
        free = sides - {name for side, name in self.sites if side == "guide"}
        free = {name for name in free if self.sites["model", name]["mask"] is False}
        if not free:
            return
        others = {name: self.sites["model", name]["fn"].sample((8,)) for name in free}
        # Farther from what they were than one draw, which may well be the same.
        others = {
            name: drawn[(drawn != self.values[name]).flatten(1).sum(1).argmax()]
            for name, drawn in others.items()
        }
        again = self._terms(self._run(self.x, self.values | others))
        for side, name in self.whole:
            if name not in free and not _same(self.whole[side, name], again[side, name]):
                raise UsageError(
                    f"{self.pair.name}: {side} site {name!r} depends on {min(free)!r}, the values "
                    f"that obs_mask leaves out; sample {min(free)!r} in the guide, too"
                )

    def reads_data(self) -> tuple[bool, tuple[str, ...]]:
        r"""Whether x is observed, and the model's sites that change with it at fixed latents.

        Raises:
            UsageError: The likelihood of a component changes with that component itself.
        """
        others = with_data(self.x, data_of(self.x).roll(1, 0))
        other = self._side(self.pair.model, others, self.values)
        told = not torch.equal(data_of(others), data_of(self.x))  # by data that are not all alike
        own = [name for name in self.observed if name in other and self._changed(name, other)]
        if told and not own:
            return False, ()
        reading = tuple(
            name
            for (side, name), site in self.sites.items()
            if side == "model" and in_plate(site, self.plate) and name in other
            if not _same(*(base(s["fn"]).log_prob(site["value"]) for s in (site, other[name])))
        )
        for name in own:
            if name in reading:
                self._check_components(name)
        return True, reading

    def _changed(self, name: str, other: Mapping[str, Any]) -> bool:
        return not _same(self.sites["model", name]["value"], other[name]["value"])

    def _check_components(self, name: str) -> None:
        r"""Change one component of a datum at a time: its own likelihood must not change."""
        chosen = torch.randperm(self.x.shape[1:].numel(), device=self.x.device)[:COMPONENTS]
        first = torch.zeros(1 + len(chosen), dtype=torch.int64, device=self.x.device)
        x, values = self._rows(first)
        rows, all_ = data_of(x).flatten(1), data_of(self.x)
        low, high, own = all_.min(), all_.max(), rows[0, chosen]
        reflected = low + high - own
        rows[1 + torch.arange(len(chosen)), chosen] = torch.where(reflected == own, high, reflected)
        changed_x = with_data(x, rows.view(x.shape))
        site = self._side(self.pair.model, changed_x, values)[name]
        value, dim = site["value"], site["fn"].event_dim
        value = data_first(value, site, self.plate, dim)
        fixed = value[:1].expand_as(value)
        back = next(f.dim for f in site["cond_indep_stack"] if f.name == self.plate) - dim
        density = base(site["fn"]).log_prob(fixed.movedim(0, back))
        if density.shape != site["value"].shape:  # of components that are not independent
            return
        density = data_first(density, site, self.plate, dim)
        changed = (density - density[:1]).abs() > TOLERANCE * density[:1].abs().clamp(min=1.0)
        wrong = ((value != fixed) & changed).nonzero()
        if len(wrong):
            raise UsageError(
                f"{self.pair.name}: the likelihood of {name!r} reads the very component "
                f"that it predicts, such as {tuple(wrong[0, 1:].tolist())} of a datum of shape "
                f"{tuple(fixed.shape[1:])}, so it is no density of x; let the decoder see earlier "
                "components alone (shift or mask x), or put a summary into columns of x that are "
                "not observed"
            )

    def _rows(self, rows: Any) -> tuple[Data, dict[str, Tensor]]:
        taken = {name: self.values[name][rows] for name in self.local}
        return self.x[rows], self.values | taken

    def _run(
        self, x: Data, values: dict[str, Tensor], rows: Any = slice(None)
    ) -> dict[tuple[str, str], Any]:
        r"""By side and name the sites of the guide, and of the model at the guide's latents.

        Given are values, and of what has a density at its own draws alone the rows of its noise.
        """
        free = self.own_draws if values else ()
        given = {name: value for name, value in values.items() if name not in free}
        with Push({name: self.noise[name][rows] for name in free if name in self.noise}):
            guide = self._side(self.pair.guide, x, given)
        drawn = {name: site["value"] for name, site in guide.items()}
        model = self._side(self.pair.model, x, values | drawn)
        sides = (("guide", guide), ("model", model))
        return {(side, name): site for side, sites in sides for name, site in sites.items()}

    def _side(self, side: Any, x: Data, values: dict[str, Tensor]) -> dict[str, Any]:
        with WholeBatch():
            sites = run(side, x, values)
        self.pair.python.put(self.python)  # each run is a first one, also of what counts its calls
        return sites

    def _terms(self, sites: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Tensor]:
        r"""For each site of the data plate, a row of numbers for each datum: log-probabilities."""
        found = {}
        for key, site in sites.items():
            if in_plate(site, self.plate):
                terms = [(log_prob(site, 1.0), 0)]
                if is_delta(site["fn"]):
                    # Of a point computed in another batch, x == v fails in the last digit.
                    point, dim = base(site["fn"]), site["fn"].event_dim
                    terms = [(point.v, dim), (point.log_density, dim - point.event_dim)]
                rows = [data_first(t, site, self.plate, dim) for t, dim in terms]
                found[key] = torch.cat([t.reshape(len(t), -1).double() for t in rows], 1)
        return found


def _same(a: Tensor, b: Tensor) -> bool:
    r"""Whether two tensors hold the same numbers, up to rounding; also where they have none."""
    if a.shape != b.shape:
        return False
    alike = (a == b) | (a.isnan() & b.isnan())
    finite = [t[t.isfinite()].abs() for t in (a, b)]
    largest = max([1.0, *(float(t.max()) for t in finite if t.numel())])
    return bool((alike | ((a - b).abs() <= TOLERANCE * largest)).all())


def _change(a: Tensor, b: Tensor) -> str:
    r"""The two values that differ the most."""
    place = int((a - b).abs().flatten().argmax())
    return f"{float(a.flatten()[place]):.6g} becomes {float(b.flatten()[place]):.6g}"
