r"""Distributions over the weights of nets: for the guide, and as the pair of prior and guide.

The nets stay ordinary modules. Their own parameters are where a guide is centred, and what it draws
is put in their place for the length of one call:

>>> net = nn.Linear(3, 2)
>>> weights = MeanField({"net": net}, WeightPrior("fan_in", {"net": net}))
>>> drawn = weights.guide()  # global sites "net.weight" and "net.bias", outside of every plate
>>> y = torch.func.functional_call(net, drawn["net"], x)

A linear layer or a convolution then meets a drawn weight as its ``weight`` or ``bias``, which is
what the handlers of :mod:`~pyro_aevb.models.weights.noise` act upon.

References:
    | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix F
    | https://arxiv.org/abs/1312.6114
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_aevb.errors import UsageError, above_zero, one_of
from pyro_aevb.models.weights.normals import LogScaleNormal, LowRankNormal
from pyro_aevb.models.weights.priors import WeightPrior, tensors

Posterior = Literal["normal", "low_rank", "dropout", "ensemble"]
POINTS = ("dropout", "ensemble")
r"""Posteriors whose weights are points, given which inputs are dropped or which member it is."""
Weights = dict[str, dict[str, Tensor]]
r"""Tensors by net, then by parameter; what ``torch.func.functional_call`` takes."""


class WeightGuide(nn.Module):
    r"""What the posteriors share: a ``model`` and a ``guide`` that draw the weights of nets.

    Both draw the same sites, one for each tensor, named ``net.parameter``, outside of plates: the
    model from the prior, the guide from the posterior. A posterior may need discrete choices, such
    as units to drop; both sides draw them alike, from a fixed distribution, so that their
    Kullback-Leibler term is 0 and the model pays no attention to them.

    Arguments:
        nets: The nets by name, whose parameters are the guide's; whoever owns them registers them.
        prior: The prior of their weights.
    """

    def __init__(self, nets: Mapping[str, nn.Module], prior: WeightPrior) -> None:
        super().__init__()
        self._nets = dict(nets)
        self.prior = prior

    def model(self) -> Weights:
        r"""Draw the weights from the prior."""
        self.choose()
        priors = self.prior()
        return self._drawn(lambda name, _: priors[name])

    def guide(self) -> Weights:
        r"""Draw the weights from the guide."""
        choices = self.choose()
        return self._drawn(lambda name, loc: self.posterior(name, loc, choices))

    def choose(self) -> Any:
        r"""The discrete choices of one draw of all weights, if there are any."""

    def posterior(self, name: str, loc: Tensor, choices: Any) -> dist.TorchDistribution:
        r"""The distribution of one tensor, of its shape as the event shape.

        Arguments:
            name: The tensor's name, ``net.parameter``.
            loc: The parameter of the net, on which the distribution is centred.
            choices: What :meth:`WeightGuide.choose` returned.
        """
        raise NotImplementedError

    def _drawn(self, distribution: Callable[[str, Tensor], Any]) -> Weights:
        return {
            net_name: {
                name: pyro.sample(f"{net_name}.{name}", distribution(f"{net_name}.{name}", loc))
                for name, loc in net.named_parameters()
            }
            for net_name, net in self._nets.items()
        }

    def _parameters_like(self, initial: Callable[[str, Tensor], Tensor]) -> nn.ParameterDict:
        pairs = tensors(self._nets)
        return nn.ParameterDict({_key(name): initial(name, loc.detach()) for name, loc in pairs})


def _key(name: str) -> str:
    return name.replace(".", "_")  # no dots in the name of a parameter


class MeanField(WeightGuide):
    r"""Mean field: every weight has a normal of its own.

    .. math:: q(w) = \prod_i \mathcal{N}(w_i \mid \mu_i, e^{2 \rho_i})

    with the nets' parameters as :math:`\mu`. Its Kullback-Leibler term has a closed form under a
    normal prior, and layers may draw their noise for each datum
    (:class:`~pyro_aevb.models.weights.noise.LocalReparameterization`).

    Arguments:
        nets, prior: See :class:`WeightGuide`.
        init_scale: The standard deviation at the start, in units of the prior's scale.

    References:
        | Weight Uncertainty in Neural Networks (Blundell et al., 2015)
        | https://arxiv.org/abs/1505.05424
    """

    def __init__(
        self, nets: Mapping[str, nn.Module], prior: WeightPrior, init_scale: float = 0.1
    ) -> None:
        super().__init__(nets, prior)
        above_zero("init_scale", init_scale)
        scales = {name: init_scale * float(s.detach()) for name, s in prior.scales().items()}
        self.log_scale = self._parameters_like(
            lambda name, loc: torch.full_like(loc, math.log(scales[name]))
        )

    def posterior(self, name: str, loc: Tensor, choices: Any) -> dist.TorchDistribution:
        return LogScaleNormal(loc, self.log_scale[_key(name)]).to_event(loc.dim())


class LowRank(MeanField):
    r"""Every tensor of weights has a normal of its own, with a few directions of covariance.

    .. math:: q(W) = \mathcal{N}\big(\mathrm{vec}\, W \mid \mu, \;
        \mathrm{diag}(e^{2 \rho}) + V V^\top\big)

    with `rank` columns in :math:`V`; tensors are independent of one another. Its
    Kullback-Leibler term has a closed form under a normal prior. Draws are shared by the batch.

    Arguments:
        nets, prior: See :class:`WeightGuide`.
        init_scale: The standard deviation at the start, in units of the prior's scale, of the
            diagonal part and of the other part each.
        rank: The number of directions for each tensor.

    References:
        | Gaussian Variational Approximation with a Factor Covariance Structure (Ong et al., 2018)
        | https://arxiv.org/abs/1701.03208
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        prior: WeightPrior,
        init_scale: float = 0.1,
        rank: int = 4,
    ) -> None:
        super().__init__(nets, prior, init_scale)
        above_zero("rank", rank)

        def factor(name: str, loc: Tensor) -> Tensor:
            scale = self.log_scale[_key(name)].detach().exp()
            return scale * torch.randn(rank, *loc.shape, dtype=loc.dtype) / math.sqrt(rank)

        self.factor = self._parameters_like(factor)

    def posterior(self, name: str, loc: Tensor, choices: Any) -> dist.TorchDistribution:
        return LowRankNormal(loc, self.log_scale[_key(name)], self.factor[_key(name)])


class Dropout(WeightGuide):
    r"""Monte Carlo dropout: the inputs of every layer are dropped at random, by one draw for all.

    .. math:: q(W) = M \, \mathrm{diag}(m) / (1 - p), \qquad m_i \sim \mathrm{Bernoulli}(1 - p)

    for the weights of every linear layer and convolution, one :math:`m_i` for each input or input
    channel, with the nets' parameters as :math:`M`; the mean weights are :math:`M`. Biases are
    points, and so are the weights of a layer's only input, without which it would be blind.
    Given the masks, weights are points, so :math:`q` has no density; what is maximized is

    .. math:: \mathrm{E}_{q(W)}[\log p(\mathcal{D} \mid W) + \log p(W)],

    the bound without the entropy of :math:`q`, which does not depend on :math:`M`. Under
    a normal prior the second term is the decay of Gal and Ghahramani,
    :math:`-\frac{1}{2 s^2 (1 - p)} \|M\|^2`. The masks are global sites, ``net.layer.kept``.

    Arguments:
        nets, prior: See :class:`WeightGuide`.
        dropout: The probability :math:`p` that an input is dropped.

    References:
        | Dropout as a Bayesian Approximation (Gal and Ghahramani, 2016)
        | https://arxiv.org/abs/1506.02142
    """

    def __init__(
        self, nets: Mapping[str, nn.Module], prior: WeightPrior, dropout: float = 0.1
    ) -> None:
        super().__init__(nets, prior)
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout={dropout} is not possible; give a number from 0 to below 1")
        self.register_buffer("keep", torch.tensor(1 - dropout))
        self.masks: dict[str, list[int]] = {}
        r"""By dropped weight, the shape of the mask that it is multiplied by."""
        layers = [
            (f"{net_name}.{name}".rstrip("."), layer)
            for net_name, net in self._nets.items()
            for name, layer in net.named_modules()
            if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))
        ]
        for name, layer in layers:
            shape = [1] * layer.weight.dim()
            dim = 0 if getattr(layer, "transposed", False) else 1
            shape[dim] = layer.weight.shape[dim]
            if shape[dim] > 1:
                self.masks[f"{name}.weight"] = shape

    def choose(self) -> dict[str, Tensor]:
        keep: Any = self.keep
        masks = {}
        for name, shape in self.masks.items():
            kept = dist.Bernoulli(keep, validate_args=False).expand([math.prod(shape)])
            site = name.removesuffix("weight") + "kept"
            masks[name] = pyro.sample(site, kept.to_event(1)).view(shape) / keep
        return masks

    def posterior(self, name: str, loc: Tensor, choices: Any) -> dist.TorchDistribution:
        value = loc * choices[name] if name in choices else loc
        return dist.Delta(value, event_dim=loc.dim(), validate_args=False)


class Ensemble(WeightGuide):
    r"""A deep ensemble: one of several sets of weights, each as likely as the others.

    .. math:: q(W) = \frac{1}{M} \sum_{m=1}^{M} \delta(W - W_m)

    All weights of a draw are of one member, the global site ``member``. The parameters of the nets
    become those of all members, ``(members, *shape)``. The members' weights are points, so
    :math:`q` has no density; each member maximizes :math:`\log p(\mathcal{D} \mid W_m) + \log
    p(W_m)` on its own, from its own start. A step draws and trains one member: give as
    many times the epochs as there are members.

    Arguments:
        nets, prior: See :class:`WeightGuide`.
        others: The nets of each other member, by name, as they start.

    References:
        | Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles
        | (Lakshminarayanan, Pritzel and Blundell, 2017)
        | https://arxiv.org/abs/1612.01474
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        prior: WeightPrior,
        others: list[Mapping[str, nn.Module]],
    ) -> None:
        super().__init__(nets, prior)
        self.register_buffer("logits", torch.zeros(1 + len(others)))
        for net_name, net in self._nets.items():
            for name, _ in list(net.named_parameters()):
                starts = [of[net_name].get_parameter(name).detach() for of in (nets, *others)]
                owner, _, leaf = name.rpartition(".")
                setattr(net.get_submodule(owner), leaf, nn.Parameter(torch.stack(starts)))

    def choose(self) -> Tensor:
        logits: Any = self.logits
        member = pyro.sample("member", dist.Categorical(logits=logits, validate_args=False))
        return torch.as_tensor(member)

    def posterior(self, name: str, loc: Tensor, choices: Any) -> dist.TorchDistribution:
        # An index of no dimensions would be read back from its tensor.
        value = loc.index_select(0, choices.reshape(1)).squeeze(0)
        return dist.Delta(value, event_dim=value.dim(), validate_args=False)


def build(
    posterior: Posterior,
    nets: Mapping[str, nn.Module],
    prior: WeightPrior,
    others: Callable[[], Mapping[str, nn.Module]],
    **settings: Any,
) -> WeightGuide:
    r"""Makes the guide of this name.

    Arguments:
        posterior: ``"normal"``, ``"low_rank"``, ``"dropout"`` or ``"ensemble"``.
        nets, prior: See :class:`WeightGuide`.
        others: Makes the nets of one more member of an ensemble.
        settings: `init_scale`, `rank`, `dropout`, `members`; None leaves one at its default.

    Raises:
        UsageError: The name is unknown, or a setting is not possible or another posterior's.
    """
    kinds: dict[str, tuple[Any, tuple[str, ...]]] = {
        "normal": (MeanField, ("init_scale",)),
        "low_rank": (LowRank, ("init_scale", "rank")),
        "dropout": (Dropout, ("dropout",)),
        "ensemble": (Ensemble, ("members",)),
    }
    one_of("posterior", posterior, kinds)
    make, takes = kinds[posterior]
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given:
        if name not in takes:
            homes = [f'"{home}"' for home, (_, names) in kinds.items() if name in names]
            raise UsageError(f"{name} is a setting of posterior={' or '.join(homes)}; remove it")
    if prior.kind == "learned" and posterior in POINTS:
        raise UsageError(
            'prior="learned" needs a posterior with a density; with '
            f'posterior="{posterior}" the best prior would be a point at 0: use prior="fan_in"'
        )
    if posterior == "ensemble":
        members = given.pop("members", 5)
        above_zero("members", members)
        given["others"] = [others() for _ in range(members - 1)]
    guide: WeightGuide = make(nets, prior, **given)
    return guide
