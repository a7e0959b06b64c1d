"""A distribution of any family, with parameters that a net gives."""

import inspect
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

COUNTS = 6
"""Trials of a binomial, and their like."""
GIVEN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("Binomial", "BetaBinomial", "ExtendedBinomial", "ExtendedBetaBinomial"),
        {"total_count": COUNTS},
    ),
    "Multinomial": {"total_count": COUNTS},
    "DirichletMultinomial": {"total_count": COUNTS, "is_sparse": False},
    "NegativeBinomial": {"total_count": 4.0},
    "AffineBeta": {"loc": 0.0, "scale": 2.0},
    "Pareto": {"scale": 0.5},
    "GeneralizedPareto": {"loc": 0.0, "concentration": 0.2},
    "StudentT": {"df": 5.0},
    "MultivariateStudentT": {"df": torch.tensor(5.0)},
    "TruncatedPolyaGamma": {},
    "Wishart": {"df": torch.tensor(6.0)},
    "LogNormalNegativeBinomial": {"num_quad_points": 4},
    "ZeroInflatedNegativeBinomial": {"total_count": 4.0},
    "StableWithLogProb": {"stability": 1.5, "skew": 0.1},
    **dict.fromkeys(
        (
            "RelaxedBernoulli",
            "RelaxedBernoulliStraightThrough",
            "RelaxedOneHotCategorical",
            "RelaxedOneHotCategoricalStraightThrough",
        ),
        {"temperature": torch.tensor(0.7)},
    ),
    "VonMises3D": {},
    "LKJ": {"dim": 3},
    "LKJCholesky": {"dim": 3},
    "LKJCorrCholesky": {"d": 3},
    "OneOneMatching": {"bp_iters": 5},
    "OneTwoMatching": {"bp_iters": 5},
}
"""Parameters that are fixed, of families that have some."""
ALIKE = (
    ("logits", "probs"),
    ("scale_tril", "covariance_matrix", "precision_matrix"),
    ("rate", "gate_logits"),
)
"""Names of which one is given, the first that there is."""


def parameters(family: str) -> dict[str, Any]:
    """The constraints of a family's parameters that a net gives, by name."""
    made = getattr(dist, family)
    signature = inspect.signature(made.__init__).parameters
    found = {n: c for n, c in made.arg_constraints.items() if n in signature}
    for names in (ALIKE[0], ALIKE[1]):
        for other in [name for name in names if name in found][1:]:
            del found[other]
    if "gate_logits" in found:
        found.pop("gate", None)
    return {n: c for n, c in found.items() if n not in GIVEN.get(family, {})}


class Heads(nn.Module):
    """From ``(B, inputs)`` to a distribution of B rows of `size` numbers, of a family.

    Every parameter is an affine function of the inputs, brought to where it has to lie. A family of
    single numbers has `size` of them in an event, unless `size` is 0.
    """

    def __init__(self, family: str, inputs: int, size: int = 3) -> None:
        super().__init__()
        self.family, self.size = family, size
        self.constraints = parameters(family)
        joint = any(constraint.event_dim for constraint in self.constraints.values())
        self.shapes = {}
        for name, constraint in self.constraints.items():
            dims = constraint.event_dim if joint else int(size > 0)
            shape = torch.Size([size] * dims)
            self.shapes[name] = (
                transform_to(constraint).inverse_shape(shape) if constraint.event_dim else shape
            )
        total = sum(shape.numel() for shape in self.shapes.values())
        self.net = nn.Linear(inputs, total)
        nn.init.normal_(self.net.weight, 0, 0.3)
        nn.init.zeros_(self.net.bias)

    def forward(self, h: Tensor) -> Any:
        parts = self.net(h).split([shape.numel() for shape in self.shapes.values()], -1)
        values = {
            name: transform_to(self.constraints[name])(part.unflatten(-1, shape or (1,)))
            if shape
            else transform_to(self.constraints[name])(part.squeeze(-1))
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }
        fn = getattr(dist, self.family)(**values, **GIVEN.get(self.family, {}))
        if self.size and len(fn.batch_shape) > h.dim() - 1:
            fn = fn.to_event(1)
        if not fn.batch_shape:
            fn = fn.expand(h.shape[:-1])
        return fn


def needs_help(family: str) -> bool:
    """Whether a family's parameters cannot be made by looking at it."""
    made = getattr(dist, family)
    return any(constraints.is_dependent(constraint) for constraint in made.arg_constraints.values())
