"""The kinds of pairs that people bring, made from the installed Pyro by looking at it."""

import warnings

from . import autoguides, constructs, examples, flows, latents, likelihoods, zuko_flows
from .row import Kind


def table() -> list[Kind]:
    """All of them."""
    parts = (likelihoods, latents, flows, autoguides, constructs, examples, zuko_flows)
    with warnings.catch_warnings():  # of what Pyro calls old, and of nets without numbers
        warnings.simplefilter("ignore")
        return [kind for part in parts for kind in part.kinds()]
