r"""The space of a pair's codes: its principal directions, and what lies at a point of it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import Data, data_of, repeated
from pyro_aevb.device import forked
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import at_least_two, base, data_first, run
from pyro_aevb.pairs.description import Site
from pyro_aevb.pairs.predict import decode, latents
from pyro_aevb.reports.uncertainty import over_weights
from pyro_aevb.runs.prepare import Prepared

MANY = 2000
r"""Test data at most whose codes make the directions."""
DRAWS = 100
r"""Draws from the posterior of a datum."""


@dataclass(frozen=True)
class Posterior:
    r"""What the guide says of the code of one datum, and what the model makes of it."""

    draws: np.ndarray
    r"""Coordinates of draws from :math:`q(z|x)`, ``(S, k)``, in standard deviations of test codes;
    of a guide that gives a point all are the same."""
    datum: np.ndarray
    r"""x, ``event_shape``."""
    decoded: np.ndarray
    r""":math:`\mathrm{E}[x'|z]` at the mean of :math:`q(z|x)`, ``event_shape``."""
    deviation: np.ndarray
    r"""The standard deviation of :math:`\mathrm{E}[x'|z]` over the draws, with S - 1 in the
    denominator, ``event_shape``."""
    over_weights: np.ndarray | None
    r"""That of :math:`\mathrm{E}[x'|z, w]` over draws of the weights; None of weights that are
    points."""


class Space:
    r"""Codes of a run's test data as vectors, and the directions in which they vary most.

    The codes are the means of the guide at all local sites whose values are no categories, one
    after the other, :math:`z \in \mathbb{R}^d`. With their mean :math:`\bar z`, the eigenvectors
    V of their covariance by falling variance, and the standard deviations s along them (N - 1 in
    the denominator), the coordinates of a code are :math:`c = V^T (z - \bar z) / s`, in standard
    deviations of the codes. Directions in which the codes do not vary are left out, so that
    k may be below d.

    Arguments:
        prepared: A trained pair and its data.

    Raises:
        UsageError: The pair has no codes, cannot be decoded, or its codes are all the same.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared, self.pair = prepared, prepared.pair
        described = prepared.description
        self.sites = [site for site in described.local_sites if site.posterior != "Categorical"]
        if (reason := described.no_x()) is not None:
            raise UsageError(f"{self.pair.name} has nothing to decode: {reason}")
        if not self.sites:
            raise UsageError(f"{self.pair.name} has no codes that one could move")
        self.count = min(MANY, len(prepared.test))
        x = prepared.test.take(torch.arange(self.count, device=prepared.test.device))
        self.codes = self._joined(latents(self.pair, x))
        self.mean = self.codes.mean(0)
        _, sizes, rows = np.linalg.svd(self.codes - self.mean, full_matrices=False)
        varies = sizes > 1e-6 * max(float(sizes.max(initial=0.0)), 1e-12)
        if not varies.any():
            raise UsageError(
                f"all codes of the test data of {self.pair.name} are the same ({self.count:,} "
                "data); the directions to move in are those in which codes of at least two differ"
            )
        self.directions: np.ndarray = rows[varies].T
        r"""V, orthonormal, ``(d, k)``."""
        self.scales: np.ndarray = sizes[varies] / np.sqrt(self.count - 1)
        r"""s, ``(k,)``."""
        self.shares: np.ndarray = sizes[varies] ** 2 / (sizes**2).sum()
        r"""The share of the codes' variance along each direction, ``(k,)``."""
        self.coordinates: np.ndarray = self.along(self.codes)
        r"""Those of the test codes, ``(N, k)``."""
        self.distances: np.ndarray = np.linalg.norm(self.coordinates, axis=1)
        r"""Their Mahalanobis distances from the mean code, ``(N,)``."""

    @property
    def called(self) -> str:
        r"""The names of the code's sites, one after the other."""
        return ", ".join(site.name for site in self.sites)

    def along(self, z: np.ndarray) -> np.ndarray:
        r"""The coordinates of codes ``(n, d)`` along the directions, ``(n, k)``."""
        along: np.ndarray = (z - self.mean) @ self.directions / self.scales
        return along

    def moved(self, start: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
        r"""A code ``(d,)`` whose first coordinates are replaced by given ones."""
        change = coordinates - self.along(start[None])[0, : len(coordinates)]
        first = self.directions[:, : len(coordinates)]
        code: np.ndarray = start + first @ (change * self.scales[: len(coordinates)])
        return code

    def between(self, first: int, second: int, shares: np.ndarray) -> np.ndarray:
        r"""Codes on the straight line from that of a test datum to that of another, ``(n, d)``.

        Arguments:
            first, second: Their places among the test data.
            shares: How far along the line, 0 to 1, ``(n,)``.
        """
        ends = self.codes[[first, second]]
        line: np.ndarray = ends[0] + shares[:, None] * (ends[1] - ends[0])
        return line

    @torch.no_grad()
    def decoded(self, codes: np.ndarray, datum: int = 0) -> np.ndarray:
        r"""The decoded means :math:`\mathrm{E}[x|z, w]` at codes ``(n, d)``, ``(n, *event_shape)``.

        The weights are the guide's means.

        Arguments:
            codes: Where; of bits, what lies outside of 0 to 1 is taken to the nearer of both.
            datum: The test datum whose columns, and whose categories, the model is given.
        """
        x = repeated(self.datum(datum), len(codes))
        with forked([x.device]):
            torch.manual_seed(0)  # of what is drawn, as enumerated sites are, the same each time
            return as_numpy(decode(self.pair, self._values(codes, x), x))

    @torch.no_grad()
    def log_prior(self, codes: np.ndarray, datum: int = 0) -> np.ndarray | str:
        r"""The density of the prior at codes, log p(z) in nats, ``(n,)``; or why there is none.

        Of sites whose prior is masked out in training because other means make codes follow it
        (``infer={"matched": True}``) it is that prior's.

        Arguments:
            codes: ``(n, d)``.
            datum: The test datum whose columns, and whose categories, the model is given.
        """
        if (reason := self._prepared.description.no_prior()) is not None:
            return reason
        if bits := [site.name for site in self.sites if _is_bits(site)]:
            return f"latent site {bits[0]!r} is of bits, and has no density"
        x = at_least_two(repeated(self.datum(datum), len(codes)))
        values = self._values(np.resize(codes, (len(x), codes.shape[1])), x)
        with self.pair.running():  # unchecked: outside of a support a density is 0, and no error
            model = run(self.pair.model, x, self._weights(x) | values)
            total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
            for site in (model[s.name] for s in self.sites):
                fn = base(site["fn"])
                terms = fn.log_prob(site["value"])
                plate = self._prepared.description.plate
                terms = data_first(terms, site, plate, terms.dim() - len(site["fn"].batch_shape))
                total = total + terms.double().reshape(len(x), -1).sum(1)
        return as_numpy(total)[: len(codes)]

    @torch.no_grad()
    def posterior(self, datum: int) -> Posterior:
        r"""What the guide says of a test datum, and what the model makes of it."""
        x = self.datum(datum)
        many = repeated(x, DRAWS)
        with forked([x.device]):
            torch.manual_seed(0)
            drawn = self._joined(latents(self.pair, many, True, self._weights(many)))
            spread = over_weights(self.pair, x)
        each = self.decoded(drawn, datum)
        return Posterior(
            self.along(drawn),
            as_numpy(data_of(x))[0],
            self.decoded(self.codes[[datum]], datum)[0],
            each.std(0, ddof=1),
            None if spread is None else spread[0],
        )

    def datum(self, place: int) -> Data:
        r"""A test datum, ``(1, *event_shape)``, with its columns."""
        test = self._prepared.test
        return test.take(torch.tensor([place], device=test.device))

    def _weights(self, x: Data) -> dict[str, Tensor]:
        r"""The means of the global latents."""
        named = [site.name for site in self._prepared.description.global_sites]
        means = latents(self.pair, at_least_two(x)[:2]) if named else {}
        return {name: means[name] for name in named}

    def _joined(self, values: dict[str, Tensor]) -> np.ndarray:
        parts = [as_numpy(values[site.name]) for site in self.sites]
        return np.concatenate([p.reshape(len(p), -1) for p in parts], 1).astype(np.float64)

    def _values(self, codes: np.ndarray, x: Data) -> dict[str, Tensor]:
        r"""Codes by site, with categories as the guide has them."""
        found = latents(self.pair, at_least_two(x))
        described, values, at = self._prepared.description, {}, 0
        for site in self.sites:
            size = int(np.prod(site.event_shape))
            part = codes[:, at : at + size].reshape(len(codes), *site.event_shape)
            part = part.clip(0, 1) if _is_bits(site) else part
            values[site.name] = torch.as_tensor(part).to(found[site.name])
            at += size
        others = [s.name for s in described.local_sites if s.name not in values]
        return values | {name: found[name][: len(x)] for name in others}


def _is_bits(site: Site) -> bool:
    return site.posterior == "Bernoulli"
