r"""A deep net that classifies, made of layers that can be learnt one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyro_aevb.errors import UsageError


class DeepClassifier(nn.Module):
    r"""The label given x: a softmax on the codes of the last of some layers.

    .. math:: p(label \mid x) = \mathrm{softmax}(V h_L + c), \qquad h_k = f_k(h_{k-1}),
        \qquad h_0 = x

    A pair that observes the column ``label`` of the data, int64 in 0, …, C - 1, ``(B,)``,
    and has no latent sites: its log-likelihood is :math:`\log p(label \mid x)`, in nats per datum,
    and is exact. Each layer is a pair of its own, with a method ``code(x)`` from
    ``(B, *event_shape)`` to ``(B, hidden)``, which ``--algorithm greedy``, the default of these
    pairs, trains one by one, without labels, before all of it learns the labels.

    Arguments:
        layers: The layers, the lowest first.
        width: The number of units of the last one.
        num_classes: C.

    Raises:
        UsageError: There are no layers.
    """

    algorithm = "greedy"

    def __init__(self, layers: Sequence[nn.Module], width: int, num_classes: int) -> None:
        super().__init__()
        if not layers:
            raise UsageError("hidden=[] leaves no layers; give the units of at least one")
        self.layers = nn.ModuleList(layers)
        self.output = nn.Linear(width, num_classes)
        nn.init.zeros_(self.output.bias)

    def codes(self, x: Tensor, depth: int | None = None) -> Tensor:
        r"""The units of a layer at data.

        Arguments:
            x: ``(B, *event_shape)``.
            depth: How many layers; None is all of them.

        Returns:
            ``(B, hidden)``; of no layers, `x` itself.
        """
        for layer in self.layers[:depth]:
            x = layer.code(x)  # type: ignore[operator]
        return x

    def logits(self, x: Tensor) -> Tensor:
        r"""Log-probabilities of the classes up to a constant, ``(B, C)``."""
        logits: Tensor = self.output(self.codes(x).flatten(1))
        return logits

    def model(self, x: Tensor, label: Tensor) -> None:
        r"""The labels of `x`, observed."""
        pyro.module("classifier", self)
        with pyro.plate("data", len(x), dim=-1):
            fn = dist.Categorical(logits=self.logits(x), validate_args=False)
            pyro.sample("label", fn, obs=label)

    def guide(self, x: Tensor, label: Tensor) -> None:
        r"""Nothing: there are no latent sites."""
