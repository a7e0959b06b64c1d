"""Every autoguide of the installed Pyro, over the weights of a net."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.infer import autoguide
from torch import Tensor, nn

from .pairs import rows
from .row import Kind

WITHOUT = {
    "AutoGuide": "a base class",
    "AutoContinuous": "a base class",
    "AutoMessenger": "a base class",
    "AutoCallable": "wraps a function",
    "AutoGuideList": "a list of others",
}


class Weighted(nn.Module):
    """Rows around weights of a normal prior, of which an autoguide is made."""

    def __init__(self, make: Callable[..., Any], data: int = 40) -> None:
        super().__init__()
        self.num_data = data
        self.guide = make(self.model)

    def model(self, x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(w, scale).to_event(1), obs=x)


class Chosen(Weighted):
    """One of three means, for autoguides of discrete latents."""

    def model(self, x: Tensor) -> None:
        k = pyro.sample("k", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel"})
        loc = torch.tensor([-1.0, 0.0, 1.0])[k].unsqueeze(-1).unsqueeze(-1)
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            pyro.sample(
                "x", dist.Normal(loc.expand(*k.shape, 1, 3).squeeze(0), 1.0).to_event(1), obs=x
            )


def _normalizing_flow(flow: Callable[..., Any], model: Any) -> Any:
    return autoguide.AutoNormalizingFlow(model, partial(transforms.iterated, 1, flow))


def _list(model: Any) -> Any:
    guide = autoguide.AutoGuideList(model)
    block = pyro.poutine.block
    guide.append(autoguide.AutoNormal(block(model, expose=["w"])))
    guide.append(autoguide.AutoDelta(block(model, expose=["scale"])))
    return guide


BY_HAND: dict[str, Callable[..., Any]] = {
    "AutoGuideList": _list,
    "AutoNormalizingFlow, planar": partial(_normalizing_flow, transforms.planar),
    "AutoNormalizingFlow, radial": partial(_normalizing_flow, transforms.radial),
    "AutoNormalizingFlow, affine": partial(_normalizing_flow, transforms.affine_autoregressive),
    "AutoNormalizingFlow, block": partial(_normalizing_flow, transforms.block_autoregressive),
    "AutoNormalizingFlow, spline": partial(_normalizing_flow, transforms.spline),
    "AutoLowRankMultivariateNormal": lambda model: autoguide.AutoLowRankMultivariateNormal(
        model, rank=2
    ),
    "AutoStructured": lambda model: autoguide.AutoStructured(
        model, conditionals={"w": "mvn", "scale": "normal"}, dependencies={"w": {"scale": "linear"}}
    ),
}


def kinds() -> Iterator[Kind]:
    found: dict[str, Callable[..., Any]] = dict(BY_HAND)
    for name in autoguide.__all__:
        made = getattr(autoguide, name)
        if inspect.isclass(made) and name not in {*WITHOUT, *found, "AutoNormalizingFlow"}:
            found[name] = made
    for name, make in sorted(found.items()):
        discrete = name == "AutoDiscreteParallel"
        pair = Chosen if discrete else Weighted
        yield Kind(
            name,
            "autoguide",
            partial(pair, make),
            rows,
            objective="pyro.infer.TraceEnum_ELBO" if discrete else "elbo",
        )
