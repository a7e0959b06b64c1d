r"""What to say when an objective is no longer finite."""

import torch
from pyro import poutine
from torch import Tensor

from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import log_prob, sample_sites
from pyro_aevb.pairs.pair import Pair


@torch.no_grad()
def not_finite(pair: Pair, x: Tensor, said: str) -> UsageError:
    r"""An error that names the log-probability per datum of every site.

    Arguments:
        pair: What is trained; its parameter store is active.
        x: The batch on which it happened.
        said: What is not finite and when, and what is kept.
    """
    guide = poutine.trace(pair.guide).get_trace(x)
    model = poutine.trace(poutine.replay(pair.model, trace=guide)).get_trace(x)
    terms = [
        f"{side} {name} {float(log_prob(site, 1.0).sum()) / len(x):.6g}"
        for side, trace in (("model", model), ("guide", guide))
        for name, site in sample_sites(trace).items()
    ]
    return UsageError(
        f"{said}. Log-probabilities per datum of each site: {', '.join(terms)}. Lower --lr, or "
        "look at the site that is not finite"
    )
