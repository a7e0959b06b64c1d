r"""Corruption of data as denoising autoencoders use it: from a clean batch to a corrupted one.

A corruption is any callable that maps a batch :math:`x` of shape ``(B, *event_shape)`` to
:math:`\tilde x \sim c(\tilde x \mid x)` of the same shape, on the same device. The guide then sees
:math:`\tilde x`, and the model still observes :math:`x`. Those here draw from torch's generators,
anew at each call, and read nothing back from a tensor, so that a training step that uses them can
be captured. One that emphasizes some components has a method ``emphasized(x)`` too, which returns
:math:`\tilde x` and a weight for the term of each component of x, or None.

References:
    | Extracting and Composing Robust Features with Denoising Autoencoders (Vincent et al., 2008)
    | https://doi.org/10.1145/1390156.1390294
    | Stacked Denoising Autoencoders (Vincent et al., 2010)
    | https://www.jmlr.org/papers/v11/vincent10a.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

import torch
from torch import Tensor

from pyro_aevb.data.smallest import smallest
from pyro_aevb.errors import UsageError, of_kind, unknown

Corruption = Callable[[Tensor], Tensor]


@dataclass(frozen=True, repr=False)
class _SomeComponents:
    rate: float = 0.25
    exact: bool = False
    corrupted_weight: float = field(default=1.0, kw_only=True)
    intact_weight: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UsageError(f"a corruption with rate {self.rate}; it must lie in [0, 1]")
        weights = self.corrupted_weight, self.intact_weight
        if min(weights) < 0 or not 0 < max(weights) < math.inf:
            raise UsageError(
                f"a corruption with corrupted_weight {weights[0]} and intact_weight {weights[1]}; "
                "they must be 0 or more, and not both 0"
            )

    def __repr__(self) -> str:
        each = ((one.name, getattr(self, one.name)) for one in fields(self))
        said = [f"{k}={v}" for k, v in each if not (k.endswith("_weight") and v == 1)]
        return f"{type(self).__name__}({', '.join(said)})"

    def __call__(self, x: Tensor) -> Tensor:
        return self.hit(x)[0]

    def hit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""A corrupted batch, and which of its components were chosen, boolean, of its shape."""
        raise NotImplementedError

    def emphasized(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        r"""A corrupted batch, and the weights of its components' terms; None where all are 1."""
        seen, chosen = self.hit(x)
        if self.corrupted_weight == self.intact_weight == 1:
            return seen, None
        weight = torch.where(chosen, self.corrupted_weight, self.intact_weight).to(x.dtype)
        return seen, weight

    def chosen(self, x: Tensor) -> Tensor:
        r"""Which components of a batch are hit, a boolean tensor of its shape."""
        uniform = torch.rand_like(x)
        if not self.exact:
            return uniform < self.rate
        flat = uniform.flatten(1)
        count = round(self.rate * flat.shape[1])
        return smallest(flat, count).view_as(x)


@dataclass(frozen=True, repr=False)
class Masking(_SomeComponents):
    r"""Set components to 0.

    Each component of each datum (a channel of a pixel is one) with probability `rate`,
    independently of all others; or, with `exact`, the same number of them in every datum,
    ``round(rate * D)`` of its D components, chosen at random for each datum. The latter is the
    masking noise of Vincent et al., who destroy a fixed fraction :math:`\nu` of the components.

    With other weights than 1 the loss *emphasizes* some components: in training the term of each
    component i that was chosen, :math:`\log p(x_i | z)`, counts `corrupted_weight` times, and every
    other `intact_weight` times; 1 and 0 leave only what has to be guessed.

    Arguments:
        rate: The probability, or the fraction, from 0 to 1.
        exact: Whether it is the fraction.
        corrupted_weight: :math:`\alpha` of Vincent et al. (2010), 0 or more.
        intact_weight: :math:`\beta` of Vincent et al. (2010), 0 or more.

    Raises:
        UsageError: A rate outside [0, 1], or weights that are negative, or 0 both.
    """

    def hit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.chosen(x)
        return x.masked_fill(chosen, 0), chosen


@dataclass(frozen=True, repr=False)
class SaltAndPepper(_SomeComponents):
    r"""Set components to their lowest or highest value, by a fair coin for each.

    Which components is chosen as in :class:`Masking`; Vincent et al. (2010) choose a fixed
    fraction of each datum's, which is `exact`.

    Arguments:
        rate: The probability, or the fraction, from 0 to 1, of both kinds together.
        exact: Whether it is the fraction.
        low: The lowest value.
        high: The highest value.
        corrupted_weight, intact_weight: Of the components' terms, see :class:`Masking`.

    Raises:
        UsageError: A rate outside [0, 1], or weights that are negative, or 0 both.
    """

    low: float = 0.0
    high: float = 1.0

    def hit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        salt = torch.rand_like(x) < 0.5
        noise = torch.where(salt, self.high, self.low).to(x.dtype)
        chosen = self.chosen(x)
        return torch.where(chosen, noise, x), chosen


@dataclass(frozen=True)
class GaussianNoise:
    r"""Add independent :math:`\mathcal{N}(0, \mathrm{std}^2)` to every component.

    As it hits all components alike, there is nothing to emphasize.

    Arguments:
        std: The standard deviation.
        clip: Whether to clip what comes out to [0, 1], the range of pixels; the noise is then
            no longer Gaussian, nor of mean 0.

    Raises:
        UsageError: A standard deviation that is negative or not finite.
    """

    std: float = 0.1
    clip: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.std < math.inf:
            raise UsageError(f"a corruption with std {self.std}; it must be 0 or more")

    def __call__(self, x: Tensor) -> Tensor:
        noisy = x + self.std * torch.randn_like(x)
        return noisy.clamp(0, 1) if self.clip else noisy


KINDS: dict[str, Callable[..., Corruption]] = {
    "masking": Masking,
    "salt_and_pepper": SaltAndPepper,
    "gaussian": GaussianNoise,
}

OF_PAIR = ("--pair.corruption", "--pair.corruption_options")
r"""What messages call the parameters of a pair's constructor."""


def make_corruption(
    name: Any,
    options: Mapping[str, Any] | None = None,
    default: Any = None,
    flags: tuple[str, str] = ("--corruption", "--corruption-options"),
) -> Corruption | None:
    r"""A corruption from its name; None for none.

    Arguments:
        name: ``"masking"``, ``"salt_and_pepper"``, ``"gaussian"``, ``"none"``, any callable from
            batch to batch, or None for the default.
        options: Arguments of the named class, such as ``{"rate": 0.25}``.
        default: What a pair brings with it; none if it is not callable.
        flags: What messages call the name and the options; of a pair's constructor it is
            :data:`OF_PAIR`.

    Raises:
        UsageError: No such corruption, or options that it does not take.
    """
    flag, options_flag = flags
    of_kind(options_flag, options, dict[str, Any] | None)
    options = dict(options or {})
    if isinstance(name, (dict, list)):
        raise UsageError(f"{flag} is {name!r}; it takes a name, in Python also a function")
    if name in KINDS:
        make = KINDS[name]
        taken = [one.name for one in fields(make)]  # type: ignore[arg-type]
        for option, value in options.items():
            if option not in taken:
                raise UsageError(
                    f"{options_flag}: {name} has no option {option!r}; it takes {', '.join(taken)}"
                )
            of_kind(f"{options_flag}: {option}", value, get_type_hints(make)[option])
        return make(**options)
    if options:
        raise UsageError(
            f"{options_flag} are those of a corruption that is named: add {flag} "
            f"{' or '.join(KINDS)}"
        )
    if name is None:
        name = default if callable(default) else "none"
    if name == "none":
        return None
    if not callable(name):
        raise unknown("corruption", name, [*KINDS, "none"])
    found: Corruption = name
    return found
