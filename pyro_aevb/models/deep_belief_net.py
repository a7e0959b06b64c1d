r"""The deep belief net, as a way to initialize a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from pyro_aevb.models.deep_classifier import DeepClassifier
from pyro_aevb.models.rbm import RBM, Visible


class DeepBeliefNet(DeepClassifier):
    r"""A deep net whose layers first learn as restricted Boltzmann machines, then to classify.

    Layer k is an :class:`~pyro_aevb.models.rbm.RBM` that is trained by contrastive divergence on
    :math:`p(h = 1 \mid \cdot)` of the layers below, taken as mean values of its visible units, as
    Hinton, Osindero and Teh (2006) train the recognition weights of a deep belief net. Then a
    softmax is put on top of the units' probabilities, and all is trained on the labels: see
    :class:`~pyro_aevb.training.greedy.Greedy`, whose ``layer_options`` are those of
    :class:`~pyro_aevb.training.contrastive_divergence.ContrastiveDivergence`. The pair is the
    classifier, :math:`p(label \mid x)`; with three layers it is DBN-3 of Larochelle et al. (2007).

    Arguments:
        event_shape: The shape of one datum; it is flattened.
        num_classes: The number of classes.
        hidden: The units of each layer.
        visible: The visible units of the first layer, ``"bernoulli"`` for data in [0, 1], or
            ``"gaussian"``.
        init_scale: The standard deviation of the normal that the machines' weights are drawn from.
        data_mean: The mean of the training data, where the first layer's visible biases start.

    Raises:
        UsageError: When a value is not possible.

    References:
        | A Fast Learning Algorithm for Deep Belief Nets (Hinton, Osindero and Teh, 2006)
        | https://doi.org/10.1162/neco.2006.18.7.1527

        | An Empirical Evaluation of Deep Architectures on Problems with Many Factors of Variation
        | (Larochelle, Erhan, Courville, Bergstra and Bengio, 2007)
        | https://doi.org/10.1145/1273496.1273556
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_classes: int,
        hidden: Sequence[int] = (1000, 1000, 1000),
        visible: Visible = "bernoulli",
        init_scale: float = 0.01,
        data_mean: Tensor | None = None,
    ) -> None:
        layers, shape = [], tuple(event_shape)
        for number, units in enumerate(hidden):
            first = number == 0
            kind: Visible = visible if first else "bernoulli"
            layers.append(RBM(shape, units, kind, init_scale, data_mean if first else None))
            shape = (units,)
        super().__init__(layers, math.prod(shape), num_classes)
