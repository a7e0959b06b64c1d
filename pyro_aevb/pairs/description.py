r"""What an inspected pair is made of, and which quantities that defines."""

import re
from dataclasses import dataclass, field

import torch

NO_DENSITY = "no density (masked prior or Delta guide)"


@dataclass(frozen=True)
class Site:
    r"""One latent site, seen from both sides."""

    name: str
    event_shape: tuple[int, ...]
    prior: str
    posterior: str
    density: bool
    r"""Whether prior and guide both have a density there (not masked out, not a Delta)."""
    masked: bool = False
    r"""Whether the prior is masked out, and so says nothing about codes that are not `matched`."""
    matched: bool = False
    r"""Whether codes are made to follow the prior by other means than a density, as the guide's
    site says by ``infer={"matched": True}``."""


@dataclass(frozen=True)
class Description:
    r"""What a pair is made of."""

    observed: str
    r"""The observed site that is x, or the first of several of which none is all of it."""
    event_shape: tuple[int, ...]
    likelihood: str
    plate: str
    plate_size: int | None
    r"""The N of ``pyro.plate("data", size=N, subsample_size=len(x))``; None if not declared."""
    local_sites: tuple[Site, ...]
    global_sites: tuple[Site, ...]
    also_observed: tuple[str, ...] = ()
    r"""The other observed sites."""
    in_parts: bool = False
    r"""Whether x is observed by several sites, none of which is all of it."""
    filled_in: bool = False
    r"""Whether that N was filled in, where the plate had been made with the size of the batch."""
    auxiliary: tuple[str, ...] = ()
    r"""Guide sites that the model lacks, marked ``infer={"is_auxiliary": True}``."""
    local_auxiliary: tuple[str, ...] = ()
    r"""Those of them that lie in the data plate."""
    enumerated: tuple[str, ...] = ()
    own_draws: tuple[str, ...] = ()
    r"""Guide sites in the data plate that have a log-density at their own draws alone
    (:mod:`~pyro_aevb.pairs.flows`)."""
    column: str | None = None
    r"""The name of the column of the data that is observed, where it is one."""
    observes_x: bool = True
    r"""Whether what is observed is x, or a part of it; a classifier's is a column of the data."""
    reads_data: tuple[str, ...] = ()
    r"""The model's sites whose distribution at fixed latents changes with the x it observes."""
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def observed_sites(self) -> tuple[str, ...]:
        r"""All observed sites, whose joint log-density is ``log_likelihood``."""
        return (self.observed, *self.also_observed)

    def shares(self) -> dict[str, list[str]]:
        r"""The observed sites whose parts of the log-likelihood are told apart, in groups by name.

        Sites that differ by a number at their end alone, as those of the steps of a sequence, are
        one group; nothing where there is one group.
        """
        groups: dict[str, list[str]] = {}
        for name in self.observed_sites:
            stem = re.sub(r"_?\d+$", "", name.removesuffix("_observed"))
            groups.setdefault(stem or name, []).append(name)
        return groups if len(groups) > 1 else {}

    @property
    def num_parameters(self) -> int:
        return sum(int(torch.Size(shape).numel()) for shape in self.parameters.values())

    def kl_sites(self) -> frozenset[str]:
        r"""The sites whose log-probabilities are the KL that a weight (warm-up, beta) multiplies.

        Those of the codes, unless only the weights have densities: a prior of codes may stand
        beside a point guide.
        """
        codes = any(site.density for site in self.local_sites)
        if codes or not any(site.density for site in self.global_sites):
            return frozenset([*(s.name for s in self.local_sites), *self.local_auxiliary])
        outside = set(self.auxiliary) - set(self.local_auxiliary)
        return frozenset([*(s.name for s in self.global_sites), *outside])

    def undefined(self) -> str | None:
        r"""Why quantities that need a density of the latents are not defined; None if they are."""
        if self.enumerated:
            return f"site {self.enumerated[0]!r} is enumerated, not sampled"
        points = [site.name for site in self.local_sites if not site.density]
        return f"latent site {points[0]!r} carries {NO_DENSITY}" if points else None

    def no_guide_density(self) -> str | None:
        r"""Why the guide has no density at codes that are given to it; None if it has one."""
        if (reason := self.undefined()) is not None:
            return reason
        if self.auxiliary:
            return f"{self.auxiliary[0]!r} is an auxiliary guide site"
        if self.own_draws:
            return f"the guide's {self.own_draws[0]!r} is a flow without an inverse"
        return None

    def classifies(self) -> bool:
        r"""Whether it is one class of each datum that is observed, given x and no local latents."""
        of_x = self.observes_x or self.local_sites or self.event_shape or self.also_observed
        return self.likelihood == "Categorical" and not of_x

    def no_simulation(self) -> str | None:
        r"""Why all that is observed does not follow from the latents by one call of the model; None
        if it does."""
        if self.also_observed:
            return f"it observes {self.also_observed[0]!r} too, beside {self.observed!r}"
        return self.no_x()

    def no_x(self) -> str | None:
        r"""Why x does not follow from the latents by one call of the model; None if it does."""
        if not self.observes_x:
            return f"what it observes, {self.observed!r}, is not x, so no x can be simulated"
        if self.in_parts:
            return f"it observes x in parts, of which {self.observed!r} is one"
        if self.reads_data:
            return (
                f"the model reads the data: at fixed latents the distribution of "
                f"{self.reads_data[0]!r} changes with x, so one call simulates none"
            )
        return None

    def no_prior(self) -> str | None:
        r"""Why nothing can be drawn from the prior of the codes; None if it can."""
        if (reason := self.no_x()) is not None:
            return reason
        if self.enumerated:
            return f"site {self.enumerated[0]!r} is enumerated, not sampled"
        free = [site.name for site in self.local_sites if site.masked and not site.matched]
        return f"latent site {free[0]!r} has no prior (it is masked out)" if free else None

    def kind_of_codes(self) -> str:
        r"""``points`` where the guide gives every code as one, so that no draw costs; ``draws``;
        ``none`` of a pair without codes."""
        if not self.local_sites:
            return "none"
        return "points" if {site.posterior for site in self.local_sites} == {"Delta"} else "draws"

    def weights_undefined(self) -> str | None:
        r"""Why quantities that need a density of the weights are not defined; None if they are."""
        if not self.global_sites:
            return "the pair has no global latent sites: its weights are points"
        points = [site.name for site in self.global_sites if not site.density]
        return f"global site {points[0]!r} carries {NO_DENSITY}" if points else None
