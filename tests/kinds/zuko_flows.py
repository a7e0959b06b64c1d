"""The flows of zuko, where it is installed, as guide and as prior."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from .pairs import Coded, Normals, Standard, rows
from .row import Kind

NAMES = ("MAF", "NSF", "NICE", "RealNVP", "NCSF", "NAF", "UNAF", "SOSPF", "BPF", "GF", "GMM", "CNF")


class Zuko(nn.Module):
    """A flow of zuko, as a distribution of Pyro or as it is."""

    def __init__(self, name: str, inputs: int, wrapped: bool) -> None:
        super().__init__()
        import zuko

        made: Callable[..., Any] = getattr(zuko.flows, name)
        small = {} if name == "GMM" else {"hidden_features": (8,)}
        self.flow, self.wrapped = made(2, inputs, **small), wrapped

    def forward(self, h: Tensor) -> Any:
        from pyro.contrib.zuko import ZukoToPyro

        fn = self.flow(h)
        return ZukoToPyro(fn) if self.wrapped else fn


def _guided(name: str, wrapped: bool) -> Coded:
    return Coded(Standard(), Zuko(name, 3, wrapped), Normals(2))


def _prior(name: str, wrapped: bool) -> Coded:
    return Coded(Zuko(name, 1, wrapped), Normals(3, 2), Normals(2))


def kinds() -> Iterator[Kind]:
    if find_spec("zuko") is None:
        return
    for name in NAMES:
        yield Kind(
            f"zuko {name} as guide",
            "zuko",
            partial(_guided, name, True),
            rows,
            refused=REFUSED.get(name, ""),
            slow=name in SLOW,
        )
        yield Kind(
            f"zuko {name} as prior",
            "zuko",
            partial(_prior, name, True),
            rows,
            ais=name in ("MAF", "NSF"),
            refused=REFUSED.get(name, ""),
            slow=name in SLOW,
        )
    name = "zuko MAF as guide, not wrapped"
    yield Kind(name, "zuko", partial(_guided, "MAF", False), rows, refused="ZukoToPyro")


REFUSED = {"GMM": "expand method"}
SLOW = ("NAF", "UNAF", "BPF", "CNF", "SOSPF")
"""Whose inverse is found step by step."""
