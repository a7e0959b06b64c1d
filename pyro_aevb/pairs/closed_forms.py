r"""Closed forms of KL(q || p) that have gradients in both: PyTorch's, but for its general one.

What PyTorch says of any two of an exponential family takes the parameters of q for constants, so it
has no gradient in them, and fails where no gradients are kept. Which families fall to it only names
that are not public tell; without these, it is all that are not in a list.
"""

from typing import Any

from torch import Tensor
from torch.distributions import Independent, kl_divergence
from torch.distributions.exp_family import ExponentialFamily

try:
    from torch.distributions.kl import _dispatch_kl, _kl_expfamily_expfamily
except ImportError:  # in a PyTorch that calls them otherwise
    _dispatch_kl = None  # type: ignore[assignment]


def exact_kl(posterior: Any, prior: Any) -> Tensor:
    r"""KL(posterior || prior), ``(*batch_shape,)``, in nats.

    Raises:
        NotImplementedError: There is no closed form with gradients in both.
    """
    kinds = [type(_inner(fn)) for fn in (posterior, prior)]
    if _is_general(*kinds):
        raise NotImplementedError("no closed form")
    return kl_divergence(posterior, prior)


def _is_general(posterior: type, prior: type) -> bool:
    if _dispatch_kl is not None:
        return bool(_dispatch_kl(posterior, prior) is _kl_expfamily_expfamily)
    family = posterior is prior and issubclass(posterior, ExponentialFamily)
    return family and posterior.__name__ not in _OF_THEIR_OWN


_OF_THEIR_OWN = {
    *("Bernoulli", "Beta", "Binomial", "Categorical", "ContinuousBernoulli", "Dirichlet"),
    *("Exponential", "Gamma", "Geometric", "LowRankMultivariateNormal", "MultivariateNormal"),
    *("Normal", "OneHotCategorical", "Poisson"),
}


def _inner(fn: Any) -> Any:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn
