r"""The mean KL of a code split into information, total correlation, and the rest.

With the aggregate posterior :math:`q(z) = \frac{1}{N} \sum_n q(z|x_n)` of N training data and its
marginals :math:`q(z_d)`, for a code of independent dimensions under the prior,

.. math::
    \frac{1}{N} \sum_n \mathrm{KL}(q(z|x_n) \| p(z)) =
    \underbrace{\mathrm{E} \log \frac{q(z|x_n)}{q(z)}}_{\text{information}}
    + \underbrace{\mathrm{E} \log \frac{q(z)}{\prod_d q(z_d)}}_{\text{total correlation}}
    + \underbrace{\sum_d \mathrm{E} \log \frac{q(z_d)}{p(z_d)}}_{\text{dimension-wise KL}} .

Of a batch of B data, drawn without replacement, :math:`q(z_n)` at a draw :math:`z_n \sim
q(z|x_n)` is estimated by

.. math::
    \hat q(z_n) = \frac{1}{N} q(z_n|x_n) + \frac{N - 1}{N (B - 1)} \sum_{m \ne n} q(z_n|x_m),

whose mean over the other data of the batch is :math:`q(z_n)`; its marginals likewise. Its
logarithm is too low on average, by Jensen's inequality, and exact where the batch is all data.

References:
    | ELBO Surgery (Hoffman and Johnson, 2016)
    | http://approximateinference.org/accepted/HoffmanJohnson2016.pdf
    | Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018), section
      3 and appendix C, beside whose two estimators this is a third
    | https://arxiv.org/abs/1802.04942
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.density import base, by_datum, log_prob, sample_sites
from pyro_aevb.training.objectives.elbo import importance_traces


@dataclass(frozen=True)
class Draw:
    r"""One draw of a guide with one code, and the model at it; B data, d dimensions, in nats.

    Arguments:
        reconstruction: :math:`\log p(x_n|z_n)`, ``(B,)``.
        log_prior: :math:`\log p(z_n)`, ``(B,)``.
        posterior: The guide's distribution, of batch shape ``(B, d)``.
        prior: The model's, of the same shape.
        z: The codes, ``(B, d)``.
        weight: What multiplies the code's terms, as a KL warm-up; a number or a scalar tensor.
        scale: That of the data plate, N/B where the pair declares N, else 1.
    """

    reconstruction: Tensor
    log_prior: Tensor
    posterior: Any
    prior: Any
    z: Tensor
    weight: Any
    scale: Any

    @property
    def log_posterior(self) -> Tensor:
        r""":math:`\log q(z_n|x_n)`, ``(B,)``."""
        values: Tensor = self.posterior.log_prob(self.z).sum(-1)
        return values

    def aggregate(self, num_data: int) -> tuple[Tensor, Tensor]:
        r""":math:`\log \hat q(z_n)` and :math:`\sum_d \log \hat q(z_{nd})`, ``(B,)`` each.

        Arguments:
            num_data: N.
        """
        each = self.posterior.log_prob(self.z.unsqueeze(1))  # (B draws, B data, d)
        count = len(self.z)
        others = math.log((num_data - 1) / (num_data * (count - 1))) if num_data > 1 else -math.inf
        log_weights = torch.full((count, count), others, dtype=each.dtype, device=each.device)
        log_weights.fill_diagonal_(-math.log(num_data))
        joint = (each.sum(-1) + log_weights).logsumexp(1)
        return joint, (each + log_weights.unsqueeze(-1)).logsumexp(1).sum(-1)


def draw(model: Any, guide: Any, args: Any, kwargs: Any) -> Draw:
    r"""Run a guide and the model at what it draws.

    Raises:
        UsageError: There is not one code alone, of independent real dimensions and a prior.
    """
    model_trace, guide_trace = importance_traces(model, guide, args, kwargs)
    guided, modelled = sample_sites(guide_trace), sample_sites(model_trace)
    latent = [name for name, site in modelled.items() if not site["is_observed"]]
    observed = [site for site in modelled.values() if site["is_observed"]]
    if len(latent) != 1 or list(guided) != latent or len(modelled[latent[0]]["fn"].batch_shape) > 1:
        raise UsageError(
            "this objective is for pairs with one code and no random weights; this one's latent "
            f"sites are {', '.join(map(repr, guided)) or 'none'}"
        )
    (name,), site = latent, observed[0]
    posterior = base(guided[name]["fn"])
    if posterior.event_shape or posterior.batch_shape != guided[name]["value"].shape:
        raise UsageError(
            f"this objective needs a guide of independent dimensions, and {name!r} is "
            f"{type(posterior).__name__}"
        )
    scale = site["scale"]
    (plate,) = (frame.name for frame in modelled[name]["cond_indep_stack"])
    each = (by_datum(log_prob(one, 1.0), one, plate) for one in observed)
    return Draw(
        torch.stack([*each]).sum(0),
        log_prob(modelled[name], 1.0),
        posterior,
        base(modelled[name]["fn"]),
        guided[name]["value"],
        guided[name]["scale"] / scale,
        scale,
    )
