r"""One run of a pair's guide and model on a few data, and what it shows of the pair."""

import re
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_aevb.data.batch import Batch, Data, data_of
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.pairs.density import family, in_plate, is_delta, is_masked, run
from pyro_aevb.pairs.description import Site
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.probes import Positions
from pyro_aevb.pairs.tables import Asked

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


class _Mark(Messenger):
    r"""Put a leaf in the place of each auxiliary value, so that what is made of it can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["infer"].get("is_auxiliary") and msg["value"].is_floating_point():
            msg["value"] = msg["value"].detach().clone().requires_grad_()
            self.leaves[msg["name"]] = msg["value"]


class OneRun:
    r"""One run of guide and model on a batch, and what it shows of the pair.

    Arguments:
        pair: The pair, which is active.
        x: The batch, with the columns that the pair takes.
        again: The size of a batch that it has run on before, if there was one.
        num_data: N, the number of training data, where it is known.
    """

    def __init__(self, pair: Pair, x: Data, again: int = 0, num_data: int | None = None) -> None:
        self.pair, self.batch, self.mark, self.again = pair, len(x), _Mark(), again
        self.asked = Asked(len(x), num_data)
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
            look_up = self.asked.look_up if side == "guide" and not self.pair.tables else None
            positions = Positions(self.pair.name, side, plates, len(x), look_up)
            with self.asked, plates, pyro.validation_enabled(), positions:
                return run(function, x, values), plates.plates
        except UsageError:
            raise
        except Exception as error:  # the user's code: whatever it raises
            said = one_line(error)
            hints = (hint for words, hint in _HINTS.items() if re.search(words, said))
            hint = next(hints, f"is it made for data of shape {tuple(x.shape[1:])}?")
            if self.again:
                hint = (
                    f"it has run on a batch of {self.again}, whose size it keeps, as one normal "
                    "over the codes of all data does: guide sites of each datum by a function of "
                    "x, or by AutoNormal or AutoDelta, which keep parameters of each"
                )
            raise self.wrong(
                f"the {side} failed on a batch of shape {tuple(x.shape)}: "
                f"{type(error).__name__}: {said}; {hint}"
            ) from error

    def main(self) -> str:
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
        of_x = (n for n in self.observed if self.column(n, self.model[n]["value"]) is None)
        return next(of_x, self.observed[0])

    def column(self, own: str, value: Tensor) -> str | None:
        r"""The column of the batch that a value is; its namesake before others."""
        values = value.flatten().tolist()
        alike = [k for k, v in self.columns.items() if v.flatten().tolist() == values]
        return own if own in alike else next(iter(alike), None)

    def lacks_size(self, plate: str) -> bool:
        r"""Whether a plate has the size of the batch, and there is a site outside it, or the guide
        has parameters of each training datum."""
        outside = [name for name in self.shared if not in_plate(self.latent[name], plate)]
        return self.plates[plate].size == self.batch and bool(outside or self.pair.tables)

    def wrong(self, message: str) -> UsageError:
        return UsageError(f"{self.pair.name}: {message}")

    def sources(self, site: Any) -> list[str]:
        r"""The auxiliary sites that a Delta site is a function of."""
        if not is_delta(site["fn"]):
            return []
        reached = set(map(id, leaves([site["value"]])))
        drawn = self.mark.leaves
        return [name for name in self.auxiliary if name in drawn and id(drawn[name]) in reached]

    def site(self, name: str, local: bool) -> Site:
        r"""A latent site as both sides have it."""
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


def leaves(values: list[Tensor]) -> list[Tensor]:
    r"""The tensors that the values' gradients flow to."""
    found = [value for value in values if value.is_leaf and value.requires_grad]
    pending, visited = [value.grad_fn for value in values], set()
    while pending:
        node: Any = pending.pop()
        if node is not None and node not in visited:
            visited.add(node)
            pending.extend(parent for parent, _ in node.next_functions)
            found += [node.variable] if hasattr(node, "variable") else []
    return found
