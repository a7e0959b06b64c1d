"""The kinds of pairs that people bring, made from the installed Pyro by looking at it."""

from . import autoguides, constructs, flows, latents, likelihoods, zuko_flows
from .row import Kind


def table() -> list[Kind]:
    """All of them."""
    parts = (likelihoods, latents, flows, autoguides, constructs, zuko_flows)
    return [kind for part in parts for kind in part.kinds()]
