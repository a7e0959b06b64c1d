r"""What the project set out to reach, and whether a measurement does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measure import ratio

Seconds = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Target:
    r"""A bound on the ratio of two contenders' times on one network.

    Arguments:
        title: As the table calls it.
        network: A key of :data:`benchmarks.networks.NETWORKS`.
        above, below: The contenders in the ratio.
        bounds: By device; a device that is left out has its ratio reported without a bound.
        at_most: Whether the ratio should be small.
        unit: ``"x"``, or ``"%"`` for a share.
    """

    title: str
    network: str
    above: str
    below: str
    bounds: Mapping[str, float]
    at_most: bool = False
    unit: str = "x"

    def row(self, device: str, networks: Mapping[str, Seconds]) -> list[str]:
        r"""Title, bound, what was measured, and whether that is enough."""
        bound, seconds = self.bounds.get(device), networks.get(self.network, {})
        sense = "≤" if self.at_most else "≥"
        aim = "reported" if bound is None else f"{sense} {self._shown(bound)}"
        if self.above not in seconds or self.below not in seconds:
            return [self.title, aim, "not measured", ""]
        value = ratio(seconds[self.above], seconds[self.below])
        reached = bound is not None and (value <= bound if self.at_most else value >= bound)
        verdict = "" if bound is None else "yes" if reached else "**no**"
        return [self.title, aim, self._shown(value), verdict]

    def _shown(self, value: float) -> str:
        return f"{value:.0%}" if self.unit == "%" else f"{value:.2f}x"


def _floor(network: str, batch: int, cpu: float) -> list[Target]:
    return [
        Target(
            f"share of the {what}, {network}, batch {batch}",
            network,
            name,
            "project",
            bounds,
            unit="%",
        )
        for name, what, bounds in (
            ("floor", "floor (torch.mm, fused Adam)", {"cpu": cpu}),
            ("floor-fastest", "floor with this torch's fastest products", {"cpu": cpu}),
        )
    ]


TRAINING = [
    Target("against Pyro's example loop", "mlp100", "pyro", "project", {"cpu": 4.5, "cuda": 30}),
    Target(
        "against PyTorch, tensor batches", "mlp100", "pytorch", "project", {"cpu": 2.2, "cuda": 8}
    ),
    Target(
        "against NumPyro, jitted epoch", "mlp100", "numpyro", "project", {"cpu": 1.1, "cuda": 2}
    ),
    Target(
        "against NumPyro, with medium products",
        "mlp100",
        "numpyro",
        "project-medium",
        {"cpu": 1.4},
    ),
    *_floor("mlp100", 100, 0.7),
    *_floor("mlp512", 512, 0.9),
    *_floor("shapes2d", 64, 0.8),
    Target("against PyTorch, 4096-1200-1200-10", "shapes2d", "pytorch", "project", {"cpu": 1.2}),
    Target(
        "Bayesian layers in both nets over point weights, per step",
        "weights",
        "project-local",
        "project-point",
        {"cpu": 2.0, "cuda": 1.5},
        at_most=True,
    ),
]

SCORING = [
    Target("against pythae's `get_nll`", "mlp100", "pythae", "project", {"cpu": 4}),
    Target(
        "against pythae's `get_nll`, with medium products",
        "mlp100",
        "pythae",
        "project-medium",
        {"cpu": 8},
    ),
]

ANNEALING = [
    Target(f"share of the {what}", "deep1", name, "project", {"cpu": 0.5, "cuda": 0.5}, unit="%")
    for name, what in (
        ("floor", "floor (torch.mm)"),
        ("floor-fastest", "floor with this torch's fastest products"),
    )
]
