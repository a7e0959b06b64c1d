"""Every distribution that a code can have, as its prior and its guide."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from . import likelihoods
from .likelihoods import distribution, families
from .pairs import Coded, Normals, rows
from .row import Kind

SIZE = 2
GRAPH = "pyro.infer.TraceGraph_ELBO"
ENUM = "pyro.infer.TraceEnum_ELBO"


def drawn(family: str, size: int = SIZE) -> Any:
    with torch.no_grad():
        return distribution(family, 1, size)(torch.ones(40, 1))


def _pair(family: str, size: int, infer: dict[str, Any] | None = None) -> Coded:
    fn = drawn(family, size)
    width = torch.Size(fn.event_shape).numel()
    return Coded(
        distribution(family, 1, size), distribution(family, 3, size), Normals(width), infer
    )


REFUSED = {**likelihoods.REFUSED, "Uniform": "is outside the support of Uniform"}


def kinds() -> Iterator[Kind]:
    for family in families():
        fn = drawn(family)
        reparameterized = fn.has_rsample
        yield Kind(
            f"{family} of z",
            "latent",
            partial(_pair, family, SIZE),
            rows,
            objective="elbo" if reparameterized else GRAPH,
            refused=REFUSED.get(family, ""),
            slow=family in likelihoods.SLOW,
            ais=family in ("Normal", "Gamma", "Beta", "Dirichlet"),
        )
        if _enumerable(family):
            yield Kind(
                f"{family} of z, summed over",
                "latent",
                partial(_pair, family, _single(family), {"enumerate": "parallel"}),
                rows,
                objective=ENUM,
                options={"max_plate_nesting": 1},
            )


def _single(family: str) -> int:
    return 3 if drawn(family, 3).event_shape and family.startswith("OneHot") else 0


def _enumerable(family: str) -> bool:
    try:
        fn = drawn(family, _single(family))
        return bool(fn.has_enumerate_support) and fn.enumerate_support(expand=False) is not None
    except (NotImplementedError, AssertionError, RuntimeError, IndexError, ValueError):
        return False
