r"""Families that see the label of a datum, so that their codes need only say what it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_aevb.models.adversarial_autoencoder import AdversarialAutoencoder
from pyro_aevb.models.bayesian_vae import BayesianVAE
from pyro_aevb.models.encoder_decoder import EncoderDecoder
from pyro_aevb.models.vae import VAE


class Labelled(EncoderDecoder):
    r"""Nets whose inputs stand beside a label, one-hot: of the encoder the data, of the decoder the
    code. An MLP gets C numbers more; a convolutional encoder gets C planes of ones and zeros.

    Arguments:
        event_shape: The shape of one datum.
        num_classes: C, the number of classes; labels are 0, …, C - 1.
        options: The other arguments of the family.
    """

    one_hot: Tensor

    def __init__(self, event_shape: tuple[int, ...], num_classes: int, **options: Any) -> None:
        self.told_classes = self.num_classes = num_classes
        super().__init__(event_shape, **options)
        self.register_buffer("one_hot", torch.eye(num_classes), persistent=False)
        self._label: Tensor | None = None

    def shapes(
        self, event_shape: tuple[int, ...], latent_dim: int, network: str
    ) -> tuple[tuple[int, ...], int]:
        r"""The shape of what the encoder sees, and the number of values that the decoder does."""
        told = latent_dim + self.num_classes
        if network == "conv" and len(event_shape) == 3:
            return (event_shape[0] + self.num_classes, *event_shape[1:]), told
        return (math.prod(event_shape) + self.num_classes,), told

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        r"""The heads of the encoder, ``(batch, latent_dim)`` each."""
        label = self._codes_of_labels()
        if self.encoder_shape[1:]:
            planes = label[..., None, None].expand(*label.shape, *x.shape[2:])
            return super().encode(torch.cat([x, planes], 1))
        return super().encode(torch.cat([x.flatten(1), label], 1))

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        r"""The distribution of data given codes and labels, ``(batch, *event_shape)``."""
        label = self._codes_of_labels().expand(*z.shape[:-1], self.num_classes)
        return super().decode(torch.cat([z, label], -1))

    def _codes_of_labels(self) -> Tensor:
        assert self._label is not None, "use it inside given(label)"
        return self.one_hot[self._label]

    @contextmanager
    def given(self, label: Tensor) -> Iterator[None]:
        r"""Inside, the data that nets see have these labels, int64, ``(batch,)``."""
        self._label = label
        try:
            yield
        finally:
            self._label = None


class TakesLabel:
    r"""The family's model and guide, told the labels of the data.

    ``told_classes`` says how many there may be: labels of data are looked at before training.
    """

    told_classes: int
    given: Callable[[Tensor], AbstractContextManager[None]]

    def model(self, x: Tensor, label: Tensor) -> None:
        r"""The generative process of `x`, ``(batch, *event_shape)``, given its `label`."""
        with self.given(label):
            super().model(x)  # type: ignore[misc]

    def guide(self, x: Tensor, label: Tensor) -> None:
        r"""The family's guide, which sees the labels too."""
        with self.given(label):
            super().guide(x)  # type: ignore[misc]


class LabelledVAE(Labelled, VAE):
    r"""The nets of :class:`ConditionalVAE`, with labels from ``given``."""


class ConditionalVAE(TakesLabel, LabelledVAE):  # type: ignore[misc]
    r"""A VAE given the label: the code is drawn without it, data and guide depend on both.

    .. math:: z \sim \mathcal{N}(0, I), \qquad x \mid z, c \sim p_\theta(x \mid z, c), \qquad
        q_\phi(z \mid x, c)
        = \mathcal{N}(z \mid \mu_\phi(x, c), \mathrm{diag}\, \sigma_\phi^2(x, c))

    with the label c of the column ``label``. What the label tells need not be in the code: content
    and style are apart, and one style can be written in all classes (``decode`` with other labels).
    All scores are of :math:`\log p(x \mid c)`, in nats per datum. It is assumed that every datum
    has its label, in training and in use.

    Arguments:
        event_shape: The shape of one datum.
        num_classes: C, the number of classes, from the data.
        options: The other arguments of :class:`~pyro_aevb.models.encoder_decoder.EncoderDecoder`.

    References:
        | Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014)
        | https://arxiv.org/abs/1406.5298
        | Learning Structured Output Representation using Deep Conditional Generative Models
        | (Sohn, Lee and Yan, 2015)
    """


class ConditionalAdversarialAutoencoder(TakesLabel, Labelled, AdversarialAutoencoder):  # type: ignore[misc]
    r"""An adversarial autoencoder given the label, its supervised form: content and style apart.

    Encoder and decoder see the label; the discriminator sees the code alone, which is made to look
    like a draw of the prior whatever the label
    (:class:`~pyro_aevb.models.adversarial_autoencoder.AdversarialAutoencoder`).

    Arguments:
        event_shape: The shape of one datum.
        num_classes: C, the number of classes, from the data.
        options: The other arguments of the family.

    References:
        | Adversarial Autoencoders (Makhzani et al., 2016), section 4
        | https://arxiv.org/abs/1511.05644
    """


class ConditionalBayesianVAE(TakesLabel, BayesianVAE):  # type: ignore[misc]
    r"""The hybrid given the label: :class:`ConditionalVAE` with uncertain weights.

    Arguments:
        event_shape: The shape of one datum.
        num_data: N, the number of training data.
        num_classes: C, the number of classes, from the data.
        options: The other arguments of :class:`~pyro_aevb.models.bayesian.Bayesian`.
    """

    nets: LabelledVAE

    def __init__(
        self, event_shape: tuple[int, ...], num_data: int, num_classes: int, **options: Any
    ) -> None:
        self.told_classes = num_classes
        self.family = partial(LabelledVAE, num_classes=num_classes)  # type: ignore[misc, assignment]
        super().__init__(event_shape, num_data, **options)

    def given(self, label: Tensor) -> AbstractContextManager[None]:
        return self.nets.given(label)
