r"""What to say when an objective is no longer finite."""

import torch

from pyro_aevb.data.batch import Data
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import log_prob, run_both
from pyro_aevb.pairs.pair import Pair


@torch.no_grad()
def not_finite(pair: Pair, x: Data, said: str) -> UsageError:
    r"""An error that names the log-probability per datum of every site.

    Arguments:
        pair: What is trained; its parameter store is active.
        x: The batch on which it happened.
        said: What is not finite and when, and what is kept.
    """
    guide, model = run_both(pair, x)
    terms = [
        f"{side} {name} {float(log_prob(site, 1.0).sum()) / len(x):.6g}"
        for side, sites in (("model", model), ("guide", guide))
        for name, site in sites.items()
    ]
    return UsageError(
        f"{said}. Log-probabilities per datum of each site: {', '.join(terms)}. Lower --lr, or "
        "look at the site that is not finite"
    )
