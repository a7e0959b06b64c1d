r"""The stacked denoising autoencoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pyro_aevb.models.deep_classifier import DeepClassifier
from pyro_aevb.models.denoising_layer import DenoisingLayer, Loss


class StackedDenoisingAutoencoder(DeepClassifier):
    r"""A deep net whose layers first learn to denoise, one after the other, then to classify.

    Layer k is a :class:`~pyro_aevb.models.denoising_layer.DenoisingLayer` that is trained on the
    codes which the layers below, trained before and left alone, have of clean data; only its own
    input is corrupted. Then a softmax is put on top, and all is trained on the labels: see
    :class:`~pyro_aevb.training.greedy.Greedy`. The pair is the classifier,
    :math:`p(label \mid x)`. With three layers it is SdA-3 of Vincent et al., and with
    ``corruption="none"`` their SAA-3; ``--algorithm svi`` is the same net without pretraining.

    Data in [0, 1] suit the first layer's cross-entropy, and sigmoid codes that of the others.
    Of any other activation, the higher layers take the squared error.

    Arguments:
        event_shape: The shape of one datum; it is flattened.
        num_classes: The number of classes.
        hidden: The units of each layer.
        activation: The non-linearity of all layers, by name.
        loss: Of the first layer, ``"cross_entropy"`` or ``"squared_error"``.
        tied: Whether a decoder has the transposed weights of its encoder.
        corruption: masking, salt_and_pepper, gaussian, none, or a callable; the same for all
            layers.
        corruption_options: Its arguments, such as ``{"rate": 0.1}``; masking is exact unless they
            say otherwise.

    Raises:
        UsageError: When a value is not possible.

    References:
        | Extracting and Composing Robust Features with Denoising Autoencoders
        | (Vincent, Larochelle, Bengio and Manzagol, 2008)
        | https://doi.org/10.1145/1390156.1390294

        | Stacked Denoising Autoencoders: Learning Useful Representations in a Deep Network with a
        | Local Denoising Criterion (Vincent et al., 2010)
        | https://www.jmlr.org/papers/v11/vincent10a.html
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_classes: int,
        hidden: Sequence[int] = (1000, 1000, 1000),
        activation: str = "sigmoid",
        loss: Loss = "cross_entropy",
        tied: bool = True,
        corruption: Any = "masking",
        corruption_options: Mapping[str, Any] | None = None,
    ) -> None:
        higher: Loss = "cross_entropy" if activation == "sigmoid" else "squared_error"
        layers, shape = [], tuple(event_shape)
        for number, units in enumerate(hidden, 1):
            how = (units, activation, loss if number == 1 else higher, tied)
            noise = (corruption, corruption_options)
            layers.append(DenoisingLayer(shape, *how, *noise))
            shape = (units,)
        super().__init__(layers, math.prod(shape), num_classes)
