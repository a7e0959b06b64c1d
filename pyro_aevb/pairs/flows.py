r"""Guides whose log-density is known at their own draws alone: flows without an inverse.

A planar flow, for example, remembers what it has pushed forward last, and by that alone it scores a
value. Such a guide trains, and every estimate from its own draws is right; what asks for its
density at other values is not defined. Where it is run again at draws that it has made, it is
their *noise*, the draws of the distribution that the flow starts from, that is given to it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import TransformedDistribution

from pyro_aevb.device import everywhere, forked
from pyro_aevb.pairs.density import base, log_prob
from pyro_aevb.pairs.handlers import relaxed


def scores_any_value(site: Any) -> bool:
    r"""Whether a site has a log-density at a value that it has not just drawn; forgets its draw."""
    try:
        log_prob({**site, "value": site["value"].clone()}, 1.0)
    except Exception:  # KeyError, NotImplementedError, RuntimeError, by the transform
        return False
    return True


def noise(site: Any) -> Tensor | None:
    r"""What the transforms of a site made its draw of; None of a site without transforms."""
    fn, value = base(site["fn"]), site["value"]
    if not isinstance(fn, TransformedDistribution):
        return None
    for transform in reversed(fn.transforms):
        value = transform.inv(value)
    return value.detach()


class Push(Messenger):
    r"""Let the named sites draw what their transforms make of given noise.

    Arguments:
        noise: The noise by site name.
    """

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.noise and not msg["done"]:
            value = self.noise[msg["name"]]
            for transform in base(msg["fn"]).transforms:
                value = transform(value)
            msg["value"], msg["done"] = value, True


def broadcasts(fn: Any) -> bool:
    r"""Whether a distribution of n data draws, and scores, several values of each at once rightly.

    Some take no further dimension, and a flow that depends on x may pair it with the wrong one. It
    is tried, and leaves random numbers as they were.
    """
    try:
        with torch.no_grad(), forked(everywhere()):
            value = relaxed(fn.sample((fn.batch_shape[0] + 1,)))
            together = fn.log_prob(value)
            apart = torch.stack([fn.log_prob(one) for one in value])
            first = fn.log_prob(value[:, :1])
    except Exception:  # whatever a distribution does with a shape that it does not expect
        return False
    return bool(
        torch.allclose(together, apart, rtol=1e-4, atol=1e-4, equal_nan=True)
        and torch.allclose(together[:, :1], first[:, :1], rtol=1e-4, atol=1e-4, equal_nan=True)
    )
