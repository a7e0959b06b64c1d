r"""The restricted Boltzmann machine, a layer of a deep belief net and a pair by itself."""

from __future__ import annotations

from typing import Any, Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_aevb.errors import UsageError, above_zero, at_least_one, one_of

Visible = Literal["bernoulli", "gaussian"]


class RBM(nn.Module):
    r"""Restricted Boltzmann machine: visible and binary hidden units, joined by one matrix.

    The joint density of data :math:`v` of D components, flattened, and :math:`h \in \{0, 1\}^H` is
    :math:`p(v, h) = e^{-E(v, h)} / Z`, with

    .. math::
        E(v, h) = e(v) - c^\top h - v^\top W h, \qquad
        e(v) = -b^\top v \;\text{(Bernoulli)}, \quad
        e(v) = \tfrac{1}{2} \Vert v - b \Vert^2 \;\text{(Gaussian)}.

    Both conditionals are independent: :math:`p(h_j = 1 \mid v) = \sigma(c + W^\top v)_j`, and
    :math:`v \mid h` is Bernoulli with logits :math:`b + W h`, or :math:`\mathcal{N}(b + W h, I)`.
    With the hidden units summed out, :math:`p(v) = e^{-F(v)} / Z` with the *free energy*

    .. math:: F(v) = e(v) - \sum_j \log \big(1 + e^{(c + W^\top v)_j}\big)

    in nats. The *partition function* Z is a sum over :math:`2^{\min(D, H)}` states and cannot be
    computed but for small machines; :mod:`~pyro_aevb.estimators.partition` estimates it.

    Data in [0, 1] are taken for the mean values of Bernoulli visibles, as Hinton's guide has it:
    they enter every formula as they are, and F of grey data is then that of no density.
    Gaussian visibles have a variance of 1, so give them data whose components have a standard
    deviation of about 1 given the hidden units.

    As a pair it is undirected and so has no prior over codes that could be scored: the model's
    site is masked, as an :class:`~pyro_aevb.models.autoencoder.Autoencoder`'s is, and the guide
    draws from :math:`p(h \mid x)`. Hence ``reconstruction`` is
    :math:`\mathrm{E}_{p(h|x)}[\log p(x \mid h)]` and no part of a bound, and ``elbo`` and
    ``log_likelihood`` are not defined; ``evaluate --estimator partition`` estimates
    :math:`\log p(x)`. The hidden units of the machine's own distribution can be drawn, by Gibbs
    sampling, so that the pair generates. It is trained by
    :class:`~pyro_aevb.training.contrastive_divergence.ContrastiveDivergence`.

    Sites: the latent ``"h"`` of event shape ``(hidden,)`` and the observed ``"x"`` of event shape
    `event_shape`, in the plate ``"data"`` over the batch.

    Arguments:
        event_shape: The shape of one datum.
        hidden: H, the number of hidden units.
        visible: ``"bernoulli"`` or ``"gaussian"``.
        init_scale: The standard deviation of the normal that weights are drawn from; hidden biases
            start at 0.
        data_mean: The mean of the training data, of shape `event_shape`. Visible biases start
            where a machine without weights has this mean:
            :math:`\mathrm{logit}(\mathrm{clip}(m, 0.001, 0.999))`, or m itself for Gaussian
            visibles; without it at 0.
        sample_steps: Steps of Gibbs sampling until a draw from the machine, from the
            independent units that the biases started as. How many are enough is not known.

    Raises:
        UsageError: A value is not possible.

    References:
        | Information processing in dynamical systems: foundations of harmony theory
        | (Smolensky, 1986)

        | A Practical Guide to Training Restricted Boltzmann Machines (Hinton, 2012)
        | https://www.cs.toronto.edu/~hinton/absps/guideTR.pdf
    """

    algorithm = "contrastive_divergence"
    base_bias: Tensor
    r"""Where the visible biases started, ``(D,)``: those of the machine without weights."""

    def __init__(
        self,
        event_shape: tuple[int, ...],
        hidden: int = 500,
        visible: Visible = "bernoulli",
        init_scale: float = 0.01,
        data_mean: Tensor | None = None,
        sample_steps: int = 200,
    ) -> None:
        super().__init__()
        one_of("visible", visible, get_args(Visible))
        at_least_one("hidden", hidden)
        at_least_one("sample_steps", sample_steps)
        above_zero("init_scale", init_scale)
        self.event_shape, self.visible, self.sample_steps = (
            torch.Size(event_shape),
            visible,
            sample_steps,
        )
        units = self.event_shape.numel()
        self.weight = nn.Parameter(init_scale * torch.randn(units, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(units))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        if data_mean is not None:
            self._start_at(data_mean)
        # No part of a checkpoint: the constructor's parameters say what it is.
        self.register_buffer("base_bias", self.visible_bias.detach().clone(), persistent=False)

    @torch.no_grad()
    def _start_at(self, mean: Tensor) -> None:
        if mean.shape != self.event_shape:
            raise UsageError(
                f"data_mean has shape {tuple(mean.shape)}; give the mean of the training data in "
                f"their shape, {tuple(self.event_shape)}"
            )
        if not mean.isfinite().all():
            raise UsageError(
                "data_mean is not finite; look for NaN or infinity in the training data"
            )
        if self.visible == "bernoulli":
            mean = mean.clamp(0.001, 0.999).logit()
        self.visible_bias.copy_(mean.flatten())

    # The machine

    def free_energy(self, v: Tensor) -> Tensor:
        r""":math:`-\log \sum_h e^{-E(v, h)}` of data ``(B, *event_shape)``: ``(B,)``, in nats."""
        v = v.flatten(1)
        return self._visible_energy(v) - softplus(self._up(v)).sum(1)

    def hidden_free_energy(self, h: Tensor) -> Tensor:
        r""":math:`-\log \sum_v e^{-E(v, h)}` of hidden units ``(B, hidden)``: ``(B,)``, in nats.

        Of Gaussian visibles the sum is an integral.
        """
        down = h @ self.weight.T
        if self.visible == "bernoulli":
            visible = softplus(self.visible_bias + down).sum(1)
        else:
            normalizer = down.shape[1] / 2 * torch.tensor(2 * torch.pi, dtype=h.dtype).log()
            visible = (
                down @ self.visible_bias + 0.5 * down.square().sum(1) + normalizer.to(h.device)
            )
        return -(h @ self.hidden_bias) - visible

    def code(self, v: Tensor) -> Tensor:
        r"""The up-pass: :math:`p(h_j = 1 \mid v)` of ``(B, *event_shape)``, ``(B, hidden)``."""
        return self._up(v.flatten(1)).sigmoid()

    def hidden_given(self, v: Tensor) -> dist.TorchDistribution:
        r""":math:`p(h \mid v)`, of batch shape ``(B,)`` and event shape ``(hidden,)``."""
        logits = self._up(v.flatten(1))
        return dist.Bernoulli(logits=logits, validate_args=False).to_event(1)

    def visible_given(self, h: Tensor) -> dist.TorchDistribution:
        r""":math:`p(v \mid h)`, of batch shape ``(B,)`` and event shape `event_shape`."""
        natural = self._down(h).reshape(-1, *self.event_shape)
        if self.visible == "bernoulli":
            # Unvalidated, because a grey level is outside of the support {0, 1}.
            fn: Any = dist.Bernoulli(logits=natural, validate_args=False)
        else:
            fn = dist.Normal(natural, torch.ones_like(natural), validate_args=False)
        return fn.to_event(len(self.event_shape))

    def log_conditional(self, v: Tensor, index: Tensor) -> Tensor:
        r""":math:`\log p(v_i \mid v_{-i})` of some components of each datum, exactly.

        Its sum over all components is the pseudo-log-likelihood. Of grey data it is the
        cross-entropy :math:`v_i \log p_i + (1 - v_i) \log(1 - p_i)`, with :math:`p_i` the
        probability that the component is 1 if the others are what they are.

        Arguments:
            v: Data, ``(B, *event_shape)``, of Bernoulli visibles.
            index: Components i of the flattened data, ``(B, P)``.

        Returns:
            ``(B, P)``, in nats.
        """
        v = v.flatten(1)
        own, rows = v.gather(1, index), self.weight[index]
        without = self._up(v)[:, None] - own[..., None] * rows
        logit = self.visible_bias[index] + (softplus(without + rows) - softplus(without)).sum(-1)
        return own * logit - softplus(logit)

    # Draws

    @torch.no_grad()
    def draw_hidden(self, v: Tensor) -> Tensor:
        r"""A draw from :math:`p(h \mid v)`, ``(B, hidden)``."""
        p = self.code(v)
        return (torch.rand_like(p) < p).to(p)

    @torch.no_grad()
    def draw_visible(self, h: Tensor) -> Tensor:
        r"""A draw from :math:`p(v \mid h)`, ``(B, *event_shape)``."""
        natural = self._down(h).reshape(-1, *self.event_shape)
        if self.visible == "gaussian":
            return natural + torch.randn_like(natural)
        return (torch.rand_like(natural) < natural.sigmoid()).to(natural)

    def gibbs(self, v: Tensor, k: int = 1) -> Tensor:
        r"""Block Gibbs sampling: k times, draw h given v and then v given h.

        A fixed number of tensor operations that reads no value back, so that it can be captured;
        no gradient passes.

        Arguments:
            v: Where the chains are, ``(B, *event_shape)``.
            k: Steps.

        Returns:
            Where they are then, ``(B, *event_shape)``, without gradient.
        """
        v = v.detach()
        for _ in range(k):
            v = self.draw_visible(self.draw_hidden(v))
        return v

    # The pair

    def model(self, x: Tensor) -> None:
        r"""Data given hidden units, with `x` of shape `(batch, *event_shape)` observed."""
        pyro.module("rbm", self)
        with pyro.plate("data", len(x), dim=-1):
            h = pyro.sample("h", GibbsDraws(self, len(x)).mask(False))
            pyro.sample("x", self.visible_given(h), obs=x)

    def guide(self, x: Tensor) -> None:
        r"""The hidden units given `x`, from their exact conditional."""
        pyro.module("rbm", self)
        with pyro.plate("data", len(x), dim=-1):
            # Training the machine is what makes codes of data like its own.
            matched: Any = {"matched": True}
            pyro.sample("h", self.hidden_given(x), infer=matched)

    def _visible_energy(self, v: Tensor) -> Tensor:
        if self.visible == "bernoulli":
            return -(v @ self.visible_bias)
        return 0.5 * (v - self.visible_bias).square().sum(1)

    def _up(self, v: Tensor) -> Tensor:
        return self.hidden_bias + v @ self.weight

    def _down(self, h: Tensor) -> Tensor:
        return self.visible_bias + h @ self.weight.T


class GibbsDraws(dist.TorchDistribution):
    r"""Hidden units of a machine, drawn by Gibbs sampling; of its density all but the constant.

    A draw follows p(h) as nearly as ``sample_steps`` steps bring it there. Its ``log_prob`` lacks
    :math:`-\log Z`, so a pair masks it.

    Arguments:
        rbm: The machine.
        batch: B, how many independent chains a draw is of.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.independent(constraints.boolean, 1)

    def __init__(self, rbm: RBM, batch: int) -> None:
        self.rbm = rbm
        shape = torch.Size([batch]), rbm.hidden_bias.shape
        super().__init__(*shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> GibbsDraws:
        r"""Draws of another number of chains."""
        (batch,) = batch_shape
        return GibbsDraws(self.rbm, batch)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        r"""Where chains are after ``sample_steps`` steps, ``(*sample_shape, B, hidden)``."""
        rbm, shape = self.rbm, torch.Size(sample_shape) + self.batch_shape
        base = rbm.base_bias.to(rbm.weight).expand(shape.numel(), -1)
        if rbm.visible == "bernoulli":
            v = (torch.rand_like(base) < base.sigmoid()).to(base)
        else:
            v = base + torch.randn_like(base)
        h = rbm.draw_hidden(rbm.gibbs(v, rbm.sample_steps))
        return h.reshape(shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        r""":math:`\log \sum_v e^{-E(v, h)}`, ``(B,)``."""
        flat = -self.rbm.hidden_free_energy(value.flatten(0, -2))
        return flat.reshape(value.shape[:-1])
