r"""Effect handlers: everything the package derives from a pair is one of these around it.

A pair is run as ``with pair.active(), handler: pair.model(x)``. None of them looks inside the
user's code; each answers Pyro's ``sample`` messages.
"""

from collections.abc import Container, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor


class WholeBatch(Messenger):
    r"""Let every plate take the batch it is given, instead of drawing a random subsample.

    ``pyro.plate("data", size=N, subsample_size=len(x))`` draws :math:`B` of :math:`N` indices, by a
    permutation of all :math:`N`, at every call. The batch has been chosen already, so the plate
    only has to carry the scale :math:`N/B`. The indices :math:`0, \dots, B - 1` stand in for the
    draw. This also lets :math:`B` exceed :math:`N`, as when a batch is repeated for :math:`K`
    particles.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) and msg["value"] is None:
            fn = msg["fn"]
            size = fn.size if fn.subsample_size is None else fn.subsample_size
            msg["value"] = torch.arange(size, device=fn.device)
            msg["done"] = True


class Fix(Messenger):
    r"""Give the named latent sites these values; unlike conditioning, they stay latent.

    Arguments:
        values: The values by site name. Other sites are left alone.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


class AtMean(Messenger):
    r"""Let every latent site return the mean of its distribution, where it has one.

    Around a guide this gives :math:`\mathrm{E}_q[z|x]` and :math:`\mathrm{E}_q[w]`, exactly when
    the sites do not depend on one another, and the values along the chain of means otherwise.
    A distribution without a mean is sampled.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["done"] or site_is_subsample(msg):
            return
        try:
            mean = msg["fn"].mean
        except NotImplementedError:
            return
        # A categorical distribution answers NaN.
        if bool(torch.isfinite(mean).all()):
            msg["value"], msg["done"] = mean, True


class ScaleSites(Messenger):
    r"""Multiply the log-probabilities of the named sites by a factor.

    Around the model and the guide, with the names of the latent sites
    (:meth:`~pyro_aevb.description.Description.kl_sites`), this scales the Kullback-Leibler term of
    any objective: KL warm-up, or the weight :math:`\beta` of a beta-VAE. In an importance-weighted
    bound it scales the terms within the weights.

    Arguments:
        scale: The factor, a number or a scalar tensor, not negative.
        names: The sites it applies to.
    """

    def __init__(self, scale: float | Tensor, names: Container[str]) -> None:
        super().__init__()
        self.scale = scale
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["scale"] = msg["scale"] * self.scale
