r"""Uncertain weights for the families: the same nets and sites, and a guide over the weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

import pyro
from torch import Tensor, nn

from pyro_aevb.errors import one_of
from pyro_aevb.models import likelihoods, networks
from pyro_aevb.models.encoder_decoder import EncoderDecoder
from pyro_aevb.models.weights import posteriors, priors


class Bayesian(nn.Module):
    r"""A family's pair with weights that are drawn; a subclass names the family.

    The model draws the weights from a prior and the guide from a posterior, once, outside the data
    plate, which declares N; then the family's own model or guide runs with what was drawn. All
    tensors of a net are drawn, biases and the output layer included. The nets' own parameters are
    the means of the posterior, and start as the family's do.

    Arguments:
        event_shape, latent_dim, hidden, network, likelihood, activation, init, output_bias:
            See :class:`~pyro_aevb.models.encoder_decoder.EncoderDecoder`.
        data_mean, min_scale: See :class:`~pyro_aevb.models.encoder_decoder.EncoderDecoder`.
        num_data: N, the number of training data.
        bayesian: The nets whose weights are uncertain: ``"both"``, or the ``"decoder"`` alone, the
            encoder's weights then being points. Default the family's: `uncertain`.
        prior: ``"fan_in"``, ``"learned"`` or ``"mixture"``, see
            :class:`~pyro_aevb.models.weights.priors.WeightPrior`; default ``"learned"``, or
            ``"fan_in"`` if the posterior's weights are points.
        prior_scale: The prior's scale, in units of one over the root of the fan-in.
        posterior: ``"normal"``, ``"low_rank"``, ``"dropout"`` or ``"ensemble"``, see
            :mod:`pyro_aevb.models.weights.posteriors`.
        init_scale: The standard deviation at the start under ``"normal"`` and ``"low_rank"``, in
            units of the prior's; default 0.1.
        rank: The number of directions for each tensor under ``"low_rank"``; default 4.
        dropout: The probability that an input is dropped under ``"dropout"``; default 0.1.
        members: The number of members under ``"ensemble"``; default 5.

    Raises:
        UsageError: When a value is not possible, or a setting is that of another posterior.
    """

    nets: EncoderDecoder
    weights: posteriors.WeightGuide
    family: ClassVar[type[EncoderDecoder]]
    r"""The class of the pair whose weights are points."""
    uncertain: ClassVar[Literal["both", "decoder"]] = "both"
    r"""The nets whose weights are uncertain by default."""
    weight_noise = "local"
    r"""How the draws of the weights reach the data in ``fit``, unless it is told otherwise."""

    def __init__(
        self,
        event_shape: tuple[int, ...],
        num_data: int,
        latent_dim: int = 20,
        hidden: Sequence[int] | None = None,
        network: networks.Network = "mlp",
        likelihood: likelihoods.Likelihood = "bernoulli",
        activation: str = "tanh",
        init: networks.Init = "torch",
        output_bias: likelihoods.OutputBias = "data_mean",
        data_mean: Tensor | None = None,
        min_scale: float = 1e-3,
        bayesian: Literal["both", "decoder"] | None = None,
        prior: priors.Kind | None = None,
        prior_scale: float = 1.0,
        posterior: posteriors.Posterior = "normal",
        init_scale: float | None = None,
        rank: int | None = None,
        dropout: float | None = None,
        members: int | None = None,
    ) -> None:
        super().__init__()
        bayesian = self.uncertain if bayesian is None else bayesian
        one_of("bayesian", bayesian, ("both", "decoder"))
        if prior is None:
            prior = "fan_in" if posterior in posteriors.POINTS else "learned"
        points = partial(
            self.family,
            event_shape=event_shape,
            latent_dim=latent_dim,
            hidden=hidden,
            network=network,
            likelihood=likelihood,
            activation=activation,
            init=init,
            output_bias=output_bias,
            data_mean=data_mean,
            min_scale=min_scale,
        )

        def uncertain(nets: EncoderDecoder) -> dict[str, nn.Module]:
            names = ("encoder", "decoder", "likelihood")[bayesian == "decoder" :]
            return {name: nets.get_submodule(name) for name in names}

        self.nets = points()
        self.nets.num_data = num_data
        lifted = uncertain(self.nets)
        self.weights = posteriors.build(
            posterior,
            lifted,
            priors.WeightPrior(prior, lifted, prior_scale),
            lambda: uncertain(points()),
            init_scale=init_scale,
            rank=rank,
            dropout=dropout,
            members=members,
        )

    def model(self, x: Tensor) -> None:
        r"""The weights, then the family's generative process with them."""
        pyro.module("weights", self.weights)
        with self.nets.drawn(self.weights.model()):
            self.nets.model(x)  # type: ignore[operator]

    def guide(self, x: Tensor) -> None:
        r"""The approximate posterior of the weights, then the family's guide with them."""
        pyro.module("weights", self.weights)
        with self.nets.drawn(self.weights.guide()):
            self.nets.guide(x)  # type: ignore[operator]
