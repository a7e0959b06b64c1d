r"""Greedy layer-wise training: the layers of a net one after the other, then all of it."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_aevb.data.batch import data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.coded import Coded
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.classification import predict
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import Pair, load_pair
from pyro_aevb.training.algorithm import Algorithm, Row, Stage, make_algorithm, reached
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.svi import SVI


class Greedy(Algorithm):
    r"""Stages 1 to L train one layer each, by its own algorithm; the last one trains the pair.

    Layer k is a pair. Its data are the codes :math:`f_{k-1}(\dots f_1(x))` that the layers below
    have of the training data, clean, computed once when the stage begins; the layers below stay as
    they are. A layer that names no algorithm (attribute ``algorithm``) learns by SVI, with its
    attribute ``corruption``. ``--epochs`` counts those of all stages together: each of the first L
    takes `pretraining_epochs` of them, and the last, which is gradient ascent on the pair's own
    ELBO (the mean of :math:`\log p(label|x)` of a classifier), takes the rest; parameters that this
    objective does not depend on, such as those of the decoders, are left alone.

    In stages 1 to L the validation value is the layer's, such as its ``reconstruction`` of clean
    codes; in the last one it is the ``accuracy``, the share of validation data whose most probable
    class is their label, where the pair is a classifier. So ``--patience`` stops early by the
    validation error, and of epochs with the same error by the ELBO.

    Valid for pairs with ``layers``, a sequence of modules that are pairs themselves and have a
    method ``code(x)``, and for data that look the same whenever they are seen.

    Arguments:
        pair: An inspected pair.
        data: The training data.
        pretraining_epochs: Epochs of each of the first L stages; 0 leaves them out.
        pretraining_rate: The learning rate in these, as a multiple of the run's.
        num_labels: Train the last stage on the first so many training data alone, as if only these
            had labels; None is all.
        layer_options: Options of the layers' algorithm, such as ``{"k": 10}`` for contrastive
            divergence.

    Raises:
        UsageError: The pair is not of this kind, or a number is not possible.

    References:
        | Greedy Layer-Wise Training of Deep Networks (Bengio et al., 2007)
        | https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks
        | Stacked Denoising Autoencoders (Vincent et al., 2010), section 3.5
        | https://www.jmlr.org/papers/v11/vincent10a.html
    """

    name = "greedy"
    needs_last_stage = True

    def __init__(
        self,
        pair: Pair,
        data: Batches,
        pretraining_epochs: int = 15,
        pretraining_rate: float = 1.0,
        num_labels: int | None = None,
        layer_options: dict[str, Any] | None = None,
    ) -> None:
        layers = pair.attribute("layers")
        if not isinstance(layers, (nn.ModuleList, list, tuple)) or not len(layers):
            raise UsageError(
                f"greedy cannot train {pair.name}: it has no `layers`, modules that are pairs and "
                "have a method code(x), as StackedDenoisingAutoencoder has; take such a pair, or "
                "leave --algorithm greedy out"
            )
        if data.binarize == "dynamic":
            raise UsageError(
                "greedy computes the codes of all data once, and they would be others with every "
                "new binarization: add --binarize none"
            )
        if pretraining_epochs < 0 or not pretraining_rate > 0:
            raise UsageError(
                f"--algorithm-options: pretraining_epochs is {pretraining_epochs} and "
                f"pretraining_rate {pretraining_rate}; the one must be 0 or more, the other above 0"
            )
        if num_labels is not None and not 2 <= num_labels <= len(data):
            raise UsageError(
                f"--algorithm-options: num_labels is {num_labels}; it must lie between 2 and "
                f"{len(data)}, the number of training data"
            )
        self.pair, self.stages, notes = pair, [], []
        state: dict[str, Tensor] = {}
        for number, layer in enumerate(layers if pretraining_epochs else [], 1):
            see = partial(Coded, code=partial(_below, pair, layers, number - 1))
            coded = see(data)
            own = load_pair(layer).move(data.device)
            own.name = f"layer {number} of {pair.name}"
            with pair.evaluating():
                inspect(own, coded.take(torch.arange(min(5, len(data)), device=data.device)))
            if number == 1:
                _check_range(own, data)
            taken = make_algorithm(None, own, coded, layer_options)
            phases = [replace(p, rate=p.rate * pretraining_rate) for p in taken.phases]
            self.stages.append(Stage(phases, pretraining_epochs, taken, see))
            state |= {f"layer{number}.{name}": value for name, value in taken.state.items()}
            notes += [f"layer {number}: {note}" for note in taken.notes]
        tuned = FineTuning(pair, TraceELBO())
        loss = tuned.phases[0].loss
        phase = replace(tuned.phases[0], parameters=reached(pair, data, loss), name="fine_tuning")
        seen = None if num_labels is None else partial(_labelled, data, num_labels)
        self.stages.append(Stage([phase], None, tuned, seen))
        if num_labels is not None:
            notes.append(f"note: fine-tuned on {num_labels:,} of {len(data):,} training data alone")
        self.state, self.notes = state, notes


class FineTuning(SVI):
    r"""SVI that watches the share of validation data that a classifier gets right."""

    def validate(self, valid: Batches, scorer: Scorer) -> tuple[Row, str]:
        row, watched = super().validate(valid, scorer)
        predictions = predict(self.pair, valid)
        if predictions is None:
            return row, watched
        return {**row, "accuracy": 1 - float(predictions.wrong().mean())}, "accuracy"


def _check_range(layer: Pair, data: Batches) -> None:
    r"""A UsageError where a first layer's cross-entropy, or its bits, meet other data."""
    assert layer.description is not None
    if "Bernoulli" not in layer.description.likelihood:
        return
    few = data_of(data.take(torch.arange(min(len(data), 1000), device=data.device)))
    low, high = float(few.min()), float(few.max())
    if low < 0 or high > 1:
        raise UsageError(
            f"{layer.name} takes data in [0, 1], and these lie in [{low:.4g}, {high:.4g}]; rescale "
            "them, or use --pair.loss squared_error (of a machine, --pair.visible gaussian)"
        )


def _below(pair: Pair, layers: Any, depth: int, x: Tensor) -> Tensor:
    r"""Codes of data, ``(B, hidden)``, by the first layers; of none, the data themselves."""
    with pair.evaluating():
        for layer in layers[:depth]:
            x = layer.code(x)
    return x


def _labelled(data: Batches, n: int, batches: Batches) -> Batches:
    r"""Of the training data the first n; of the validation data, all."""
    return batches.first(n) if batches is data else batches
