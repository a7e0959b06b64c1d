r"""What scoring evaluates of a pair, as functions of tensors that can be captured."""

from typing import Any

import torch
from torch import Tensor

from pyro_aevb.data.batch import Data, repeated
from pyro_aevb.engine.streams import seeded
from pyro_aevb.pairs.density import (
    at_least_two,
    by_datum,
    closed_form_kl,
    component_kl,
    in_plate,
    log_joint,
    log_prob,
    run,
    same_order,
)
from pyro_aevb.pairs.flows import broadcasts
from pyro_aevb.pairs.handlers import InTurn, relaxed
from pyro_aevb.pairs.pair import Pair


class Terms:
    r"""Draws from the guide, and the terms of the log-weights at them, at plate scale 1.

    Run inside ``pair.active()`` and ``WholeBatch()``.

    Arguments:
        pair: An inspected pair.
        x: Some data, to look at the guide with.
        weights: Values of the global sites.
    """

    def __init__(self, pair: Pair, x: Data, weights: dict[str, Tensor]) -> None:
        assert pair.description is not None, "inspect the pair first"
        self.pair = pair
        self.description = pair.description
        self.weights = list(weights)
        sites = self._guide(x, weights)
        self.sites = list(sites)
        r"""The guide's sites inside the data plate, in the order in which it draws them."""
        self.numbers = sum(site["value"].numel() for site in sites.values()) // len(x) + 1
        r"""How many numbers one draw makes for each datum."""
        self.shares = self.description.shares()
        # One site, a function of x alone: the encoder runs once for many draws.
        self.independent = len(sites) == 1 and not self.description.own_draws
        if self.independent:
            ((name, site),) = sites.items()
            few = self._guide(at_least_two(x)[:2], weights)[name]["fn"]
            self.independent = site["fn"].batch_shape == x.shape[:1] and broadcasts(few)
        # Without auxiliary sites a closed-form KL of the one local site is the whole of it.
        self.closed_form = (
            self.description.undefined() is None
            and len(self.description.local_sites) == 1
            and not self.description.auxiliary
            and self._has_closed_form(x, weights, sites)
        )

    def draw(self, k: int, x: Data, *weights: Tensor) -> list[Tensor]:
        r"""Draw the sites of n data k times.

        Returns:
            :math:`\log q(z|x, w)`, ``(k, n)``; :math:`\mathrm{KL}(q(z|x, w) \| p(z|w))`, ``(n,)``,
            if there is a closed form; and the values of the sites, ``(k, n, *shape)``.
        """
        named = dict(zip(self.weights, weights, strict=True))
        if self.independent:
            ((name, site),) = self._guide(x, named).items()
            value = site["fn"].sample((k,))
            log_q = log_prob({**site, "value": value}, 1.0)
            value = relaxed(value)
            sites, values = {name: {**site, "value": value[0]}}, [value]
        else:
            rows = repeated(x, k)
            sites = self._guide(rows, named)
            log_q = self._log_prob(sites, rows)
            values = [site["value"].unflatten(0, (k, len(x))) for site in sites.values()]
        if not self.closed_form:
            return [log_q.view(k, -1), *values]
        if not self.independent:
            sites = self._guide(x, named)
        return [log_q.view(k, -1), self._kl(x, named, sites), *values]

    def log_q(self, x: Data, *values: Tensor, most: int = 1 << 21) -> Tensor:
        r"""The guide's density at given codes, for every datum.

        Arguments:
            x: ``(n, *event_shape)``.
            values: Those of the global sites, then of :attr:`sites`, these ``(k, *shape)``.
            most: About how many numbers are made at once.

        Returns:
            :math:`\log q(z_k|x_n, w)`, ``(k, n)``.
        """
        weights = dict(zip(self.weights, values[: len(self.weights)], strict=True))
        codes = values[len(self.weights) :]
        n, numbers = len(x), sum(code[0].numel() for code in codes)
        if self.independent:
            ((_, site),) = self._guide(x, weights).items()
            parts = codes[0].unsqueeze(1).split(max(1, most // (n * numbers)))
            return torch.cat([log_prob({**site, "value": part}, 1.0) for part in parts])
        each = max(1, most // (n * (numbers + x.shape[1:].numel())))
        blocks = (code.split(each) for code in codes)
        parts = [self._log_q(x, weights, part) for part in zip(*blocks, strict=True)]
        return torch.cat(parts)

    def _log_q(self, x: Data, weights: dict[str, Tensor], codes: tuple[Tensor, ...]) -> Tensor:
        k, n = len(codes[0]), len(x)
        each = (code.repeat_interleave(n, 0) for code in codes)
        fixed = weights | dict(zip(self.sites, each, strict=True))
        sites = self._guide(repeated(x, k), fixed)
        return self._log_prob(sites, x.new_zeros(k * n)).view(k, n)

    def kl_by_dimension(
        self, x: Data, weights: list[Tensor], values: list[Tensor]
    ) -> dict[str, Tensor]:
        r"""What each dimension of each local site adds to KL(q(z|x, w) || p(z|w)).

        In closed form given what was drawn before, where there is one and the model draws its sites
        in the guide's order; else :math:`\log q - \log p` at the draw.

        Arguments:
            x: ``(n, *event_shape)``.
            weights: Values of the global sites.
            values: Those of :attr:`sites`, ``(n, *shape)``, drawn from the guide at `x`.

        Returns:
            ``(n, d)`` by site; nothing where the dimensions of a site are not independent.
        """
        fixed = dict(zip([*self.weights, *self.sites], [*weights, *values], strict=True))
        posterior = self._guide(x, fixed)
        model = run(self.pair.model, x, fixed)
        prior = {name: site for name, site in model.items() if name in posterior}
        try:
            return {
                name: component_kl(site, prior[name], exact=same_order(posterior, prior))
                for name, site in posterior.items()
            }
        except NotImplementedError:
            return {}

    def evaluate(self, x: Data, *values: Tensor) -> list[Tensor]:
        r"""The model's terms of n data at k draws each.

        Arguments:
            x: ``(n, *event_shape)``.
            values: Those of the global sites, then of :attr:`sites`, these ``(k n, *shape)``.

        Returns:
            :math:`\log p(x|z, w)` and :math:`\log p(z|w)`, then the parts of the first that each
            of :attr:`shares` has, together ``(2 + len(shares), k, n)``.
        """
        globals_ = len(self.weights)
        rows = len(values[globals_]) if self.sites else len(x)
        k = rows // len(x)
        named = dict(zip([*self.weights, *self.sites], values, strict=True))
        observed, prior = log_joint(self.pair, repeated(x, k), named)
        parts = [
            sum((observed[name] for name in names), torch.zeros_like(prior))
            for names in self.shares.values()
        ]
        likelihood = sum(observed.values(), torch.zeros_like(prior))
        return [torch.stack([likelihood, prior, *parts]).view(-1, k, len(x))]

    def _guide(self, x: Data, weights: dict[str, Tensor]) -> dict[str, Any]:
        sites = run(self.pair.guide, x, weights)
        return {k: site for k, site in sites.items() if in_plate(site, self.description.plate)}

    def _kl(self, x: Data, weights: dict[str, Tensor], sites: dict[str, Any]) -> Tensor:
        posterior = sites[self.description.local_sites[0].name]
        model = run(self.pair.model, x, {**weights, posterior["name"]: posterior["value"]})
        kl = closed_form_kl(posterior, model[posterior["name"]], 1.0)
        return by_datum(kl, posterior, self.description.plate)

    def _log_prob(self, sites: dict[str, Any], rows: Data) -> Tensor:
        plate, zero = self.description.plate, rows.new_zeros(len(rows))
        return sum((by_datum(log_prob(s, 1.0), s, plate) for s in sites.values()), zero)

    def _has_closed_form(self, x: Data, weights: dict[str, Tensor], sites: Any) -> bool:
        try:
            self._kl(x, weights, sites)
        except NotImplementedError:
            return False
        return True


def weight_draw(pair: Pair, x: Data, seed: int, s: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    r"""The draw number s of the global sites from the guide, the same for every estimator.

    Of an ensemble, or any other index whose values are equally likely, draws in turn take each
    value (:class:`~pyro_aevb.pairs.handlers.InTurn`). The caller's random numbers are left as they
    were.

    Arguments:
        pair: An inspected pair.
        x: Some data, of which the first is looked at.
        seed: Fixes all draws.
        s: The number of this one.

    Returns:
        Values by name, and the sites themselves; both empty where there are no global sites.
    """
    assert pair.description is not None, "inspect the pair first"
    if not pair.description.global_sites:
        return {}, {}
    with seeded(x.device, seed, s), InTurn(s, seed):
        sites = run(pair.guide, x[:1])
    plate = pair.description.plate
    outside = {name: site for name, site in sites.items() if not in_plate(site, plate)}
    return {name: site["value"].contiguous() for name, site in outside.items()}, outside
