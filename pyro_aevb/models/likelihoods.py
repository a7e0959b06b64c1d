r"""Likelihoods: from the features of a decoder to a distribution over data, :math:`p(x \mid z)`.

Each is a small module that owns the last layer of the decoder. Its ``forward`` returns a Pyro
distribution with the event shape of a datum, whose ``mean`` is the reconstruction.
"""

from __future__ import annotations

from typing import Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_aevb.errors import UsageError, above_zero, one_of
from pyro_aevb.models import continuous_bernoulli
from pyro_aevb.models.networks import Decoder

Likelihood = Literal["bernoulli", "gaussian", "gaussian_sigmoid", "continuous_bernoulli"]
OutputBias = Literal["data_mean", "zero", "init"]


class Bernoulli(nn.Module):
    r"""Independent pixels that are 1 with probability :math:`y = \sigma(h)`.

    .. math:: \log p(x \mid z) = \sum_i x_i \log y_i + (1 - x_i) \log (1 - y_i)

    Grey levels between 0 and 1 are scored by the same formula, the negative cross-entropy, which
    then is no normalized density.

    Arguments:
        decoder: The decoder, which gives the features; its last layer is made here.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.event_dim = len(decoder.event_shape)
        self.heads = decoder.output(1)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        (logits,) = self.heads(features)
        # Unvalidated, because a grey level is outside of the support {0, 1}.
        return dist.Bernoulli(logits=logits, validate_args=False).to_event(self.event_dim)

    def bias(self, mean: Tensor) -> Tensor:
        r"""Returns the bias with which the distribution has this mean if the weights are zero."""
        return _logit(mean)


class Gaussian(nn.Module):
    r"""Independent pixels with a mean and a variance that both depend on the code.

    .. math:: \log p(x \mid z) = \sum_i \log \mathcal{N}(x_i \mid \mu_i, \sigma_i^2)
        \quad \text{with} \quad \sigma_i^2 = \exp(h_i) + \sigma_{min}^2

    The floor is what keeps the density of a pixel that is constant in all data, such as the border
    of a digit, from growing without end. Its default is about the rounding error of an eight-bit
    image in [0, 1], :math:`1 / (255 \sqrt{12}) = 0.0011`; data in other units need another.

    Arguments:
        decoder: The decoder, which gives the features; its last layer is made here.
        min_scale: The smallest standard deviation, :math:`\sigma_{min} > 0`.
        sigmoid: Whether the mean goes through a sigmoid into (0, 1), as the AEVB paper has it for
            images, or is linear in the features.

    Raises:
        UsageError: When the floor is not positive.
    """

    def __init__(self, decoder: Decoder, min_scale: float = 1e-3, sigmoid: bool = False) -> None:
        super().__init__()
        above_zero("min_scale", min_scale)
        self.event_dim = len(decoder.event_shape)
        self.min_variance = min_scale**2
        self.sigmoid = sigmoid
        self.heads = decoder.output(2)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        loc, log_variance = self.heads(features)
        if self.sigmoid:
            loc = loc.sigmoid()
        scale = (log_variance.exp() + self.min_variance).sqrt()
        return dist.Normal(loc, scale, validate_args=False).to_event(self.event_dim)

    def bias(self, mean: Tensor) -> Tensor:
        r"""Returns the bias with which the distribution has this mean if the weights are zero."""
        return _logit(mean) if self.sigmoid else mean


class ContinuousBernoulli(nn.Module):
    r"""Independent pixels between 0 and 1, with the density that the Bernoulli lacks there.

    .. math:: \log p(x \mid z)
        = \sum_i h_i (x_i - \tfrac{1}{2}) - \log \frac{\sinh(h_i / 2)}{h_i / 2}

    This is the negative cross-entropy plus what makes it integrate to 1
    (:class:`~pyro_aevb.models.continuous_bernoulli.ContinuousBernoulli`). As the standard deviation
    of a pixel goes to :math:`1 / |h|`, the floor of the Gaussian is kept by
    :math:`|h| < 1 / \sigma_{min}`: the decoder's output o gives
    :math:`h = \tanh(\sigma_{min} \, o) / \sigma_{min}`.

    Arguments:
        decoder: The decoder, which gives the features; its last layer is made here.
        min_scale: The smallest standard deviation, :math:`\sigma_{min} > 0`.

    Raises:
        UsageError: When the floor is not positive.
    """

    def __init__(self, decoder: Decoder, min_scale: float = 1e-3) -> None:
        super().__init__()
        above_zero("min_scale", min_scale)
        self.event_dim = len(decoder.event_shape)
        self.min_scale = min_scale
        self.heads = decoder.output(1)

    def forward(self, features: Tensor) -> dist.TorchDistribution:
        (output,) = self.heads(features)
        logits = torch.tanh(self.min_scale * output) / self.min_scale
        # Unvalidated, as the others: what lies outside of [0, 1] is looked for before training.
        p = continuous_bernoulli.ContinuousBernoulli(logits, validate_args=False)
        return p.to_event(self.event_dim)

    def bias(self, mean: Tensor) -> Tensor:
        r"""Returns the bias with which the distribution has this mean if the weights are zero, as
        near to 0 and 1 as 0.01 and the floor allow.
        """
        logits = continuous_bernoulli.logit_of_mean(mean.clamp(0.01, 0.99))
        return torch.atanh((self.min_scale * logits).clamp(-0.99, 0.99)) / self.min_scale


AnyLikelihood = Bernoulli | Gaussian | ContinuousBernoulli


def build(name: Likelihood, decoder: Decoder, min_scale: float = 1e-3) -> AnyLikelihood:
    r"""Makes the likelihood of this name; ``"gaussian_sigmoid"`` has its mean in (0, 1).

    Raises:
        UsageError: When the name is unknown, or the floor is not positive.
    """
    one_of("likelihood", name, get_args(Likelihood))
    if name == "bernoulli":
        return Bernoulli(decoder)
    if name == "continuous_bernoulli":
        return ContinuousBernoulli(decoder, min_scale)
    return Gaussian(decoder, min_scale, sigmoid=name == "gaussian_sigmoid")


@torch.no_grad()
def set_output_bias(
    likelihood: AnyLikelihood, output_bias: OutputBias, data_mean: Tensor | None
) -> None:
    r"""Sets where the output starts.

    - ``"data_mean"`` makes the mean of the distribution start at the training mean: the bias is
      :math:`\mathrm{logit}(\mathrm{clip}(m, 0.001, 0.999))` where a sigmoid follows, as in the
      IWAE paper, and :math:`m` itself for a linear mean; of a continuous Bernoulli m is kept
      within 0.01 and 0.99. Without a `data_mean`, as ``"zero"``.
    - ``"zero"`` sets it to 0.
    - ``"init"`` leaves it as it was drawn with all other parameters.

    The bias of a log-variance is 0 except with ``"init"``, which leaves it as drawn too.

    Arguments:
        likelihood: The likelihood, which owns the last layer of a decoder.
        output_bias: One of these names.
        data_mean: The mean of the training data, of the shape of a datum.

    Raises:
        UsageError: When the name is unknown, or the mean is of another shape or not finite.
    """
    one_of("output_bias", output_bias, get_args(OutputBias))
    event_shape = likelihood.heads.shape
    if data_mean is not None and tuple(data_mean.shape) != event_shape:
        raise UsageError(
            f"data_mean has shape {tuple(data_mean.shape)}; give the mean of the training data "
            f"in their shape, {event_shape}"
        )
    if data_mean is not None and not data_mean.isfinite().all():
        raise UsageError("data_mean is not finite; look for NaN or infinity in the training data")
    if output_bias != "init":
        likelihood.heads.layer.bias.zero_()
    if output_bias == "data_mean" and data_mean is not None:
        likelihood.heads.biases()[0].copy_(likelihood.bias(data_mean))


def _logit(mean: Tensor) -> Tensor:
    return mean.clamp(0.001, 0.999).logit()
