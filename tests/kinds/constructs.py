"""What people write in pairs: parameters, precisions, masks, codes of all shapes."""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints, transforms
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from .pairs import Coded, Normals, Standard, bits, rows
from .row import Kind

GRAPH, ENUM = "pyro.infer.TraceGraph_ELBO", "pyro.infer.TraceEnum_ELBO"
FLAT = {"max_plate_nesting": 1}


def plain(**others: Any) -> Coded:
    """Normals everywhere, but for what is given."""
    parts: dict[str, Any] = {
        "prior": Standard(), "guide": Normals(3, 2), "likelihood": Normals(2), **others
    }  # fmt: skip
    return Coded(**parts)


class WithParam(PyroModule):
    """A PyroModule with PyroParams, one with a constraint and one a function."""

    def __init__(self) -> None:
        super().__init__()
        self.net = PyroModule[nn.Linear](2, 3)
        self.scale = PyroParam(torch.tensor(0.8), constraint=constraints.positive)
        self.lazy = PyroParam(lambda: torch.zeros(3))
        self.encoder = PyroModule[nn.Linear](3, 2)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1).to_event(1))
            fn = dist.Normal(self.net(z) + self.lazy, self.scale).to_event(1)
            pyro.sample("x", fn, obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))


class Sampled(PyroModule):
    """Weights by PyroSample, and an autoguide over them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = PyroModule[nn.Linear](1, 3)
        self.net.bias = PyroSample(dist.Normal(torch.zeros(3), 1.0).to_event(1))
        self.auto = pyro.infer.autoguide.AutoNormal(self.model)

    def model(self, x: Tensor) -> None:
        loc = self.net(x.new_ones(1))
        with pyro.plate("data", size=40, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        self.auto(x)


class ClassicParams:
    """pyro.param and pyro.module."""

    def __init__(self) -> None:
        self.net = nn.Linear(3, 2)

    def model(self, x: Tensor) -> None:
        weight = pyro.param("weight", lambda: 0.3 * torch.ones(2, 3))
        scale = pyro.param("noise", torch.tensor(0.7), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, scale).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("net", self.net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 0.5).to_event(1))


class Doubles(Coded):
    """A pair of float64 parameters, which converts the data."""

    def model(self, x: Tensor) -> None:
        super().model(x.double())

    def guide(self, x: Tensor) -> None:
        super().guide(x.double())


class Autocast(Coded):
    """A pair whose nets compute in bfloat16."""

    def model(self, x: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            super().model(x)

    def guide(self, x: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            super().guide(x)


class Tied(nn.Module):
    """The decoder's weight is the encoder's, transposed."""

    def __init__(self, latent_dim=2) -> None:  # type: ignore[no-untyped-def]  # as users write it
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.ones(latent_dim, 3))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight, 0.8).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.weight.T, 0.6).to_event(1))


class Autoregressive(nn.Module):
    """Every number of the code has a site, which the one before it leads to."""

    def __init__(self, length: int = 3) -> None:
        super().__init__()
        self.length, self.encoder = length, nn.Linear(3, length)
        self.step, self.decoder = nn.Linear(1, 1), nn.Linear(length, 3)

    def model(self, x: Tensor) -> None:
        z = x.new_zeros(len(x), 1)
        parts = []
        with pyro.plate("data", len(x)):
            for i in range(self.length):
                z = pyro.sample(f"z{i}", dist.Normal(self.step(z), 1.0).to_event(1))
                parts.append(z)
            pyro.sample(
                "x", dist.Normal(self.decoder(torch.cat(parts, -1)), 0.7).to_event(1), obs=x
            )

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            for i in range(self.length):
                loc = self.encoder(x)[:, i : i + 1]
                pyro.sample(f"z{i}", dist.Normal(loc, 0.6).to_event(1))


class AutoregressivePrior(nn.Module):
    """Prior of one site, whose numbers lead to one another by an affine flow."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = transforms.affine_autoregressive(2, [8])

    def forward(self, h: Tensor) -> Any:
        base = dist.Normal(h.new_zeros(len(h), 2), 1.0).to_event(1)
        return dist.TransformedDistribution(base, [self.flow])


class Scalar(nn.Module):
    """A code of shape ()."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 1), nn.Linear(1, 3)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(self.decoder(z.unsqueeze(-1)), 0.7).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x).squeeze(-1), 0.6))


class Discrete(nn.Module):
    """Several discrete codes: a class, two bits, a one-hot vector."""

    def __init__(self, infer: str | None = None, sites: str = "kbo") -> None:
        super().__init__()
        self.infer = {"enumerate": infer} if infer else {}
        self.encoder, self.decoder, self.sites = nn.Linear(3, 7), nn.Linear(7, 3), sites

    def priors(self, x: Tensor) -> Any:
        ones = x.new_ones(len(x), 1)
        return torch.zeros_like(ones).expand(-1, 7)

    def draw(self, logits: Tensor) -> list[Tensor]:
        parts = []
        if "k" in self.sites:
            k = pyro.sample("k", dist.Categorical(logits=logits[:, :3]), infer=self.infer)
            parts.append(one_hot(k, 3).to(logits.dtype))
        if "b" in self.sites:
            for i in (3, 4):
                b = pyro.sample(f"b{i}", dist.Bernoulli(logits=logits[:, i]), infer=self.infer)
                parts.append(b.unsqueeze(-1))
        if "o" in self.sites:
            o = pyro.sample("o", dist.OneHotCategorical(logits=logits[:, 5:]), infer=self.infer)
            parts.append(o)
        return parts

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            parts = self.draw(self.priors(x))
            h = sum(
                part @ self.decoder.weight.T[i : i + part.shape[-1]]
                for i, part in zip((0, 3, 4, 5), parts, strict=False)
            )
            pyro.sample("x", dist.Normal(self.decoder.bias + h, 0.8).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            self.draw(self.encoder(x))


class ManyInOne(nn.Module):
    """One site of four classes or bits, as columns of an event."""

    def __init__(self, bits: bool) -> None:
        super().__init__()
        self.bits = bits
        self.encoder, self.decoder = nn.Linear(3, 4 if bits else 12), nn.Linear(4, 3)

    def fn(self, logits: Tensor) -> Any:
        if self.bits:
            return dist.Bernoulli(logits=logits).to_event(1)
        return dist.Categorical(logits=logits.unflatten(-1, (4, 3))).to_event(1)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.fn(x.new_zeros(len(x), self.encoder.out_features)))
            pyro.sample("x", dist.Normal(self.decoder(z.to(x.dtype)), 0.8).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.fn(self.encoder(x)))


class MixturePrior(nn.Module):
    """Three normals."""

    def __init__(self) -> None:
        super().__init__()
        self.loc, self.logits = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.zeros(3))

    def forward(self, h: Tensor) -> Any:
        logits = self.logits.expand(*h.shape[:-1], 3)
        parts = dist.Normal(self.loc.expand(*h.shape[:-1], 3, 2), 0.7).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=logits), parts)


class DiagMixture(nn.Module):
    """MixtureOfDiagNormals, reparameterized."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = nn.Linear(inputs, 10)

    def forward(self, h: Tensor) -> Any:
        h = self.net(h)
        locs, logits = h[..., :4].unflatten(-1, (2, 2)), h[..., 8:]
        scales = softplus(h[..., 4:8]).unflatten(-1, (2, 2)) + 0.1
        return dist.MixtureOfDiagNormals(locs, scales, logits)


class LogitNormal(nn.Module):
    """Of data between 0 and 1, without a mean in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 3)

    def forward(self, h: Tensor) -> Any:
        normal = dist.Normal(self.net(h), 1.0)
        return dist.TransformedDistribution(normal, [transforms.SigmoidTransform()]).to_event(1)


class DiscretizedLogistics(dist.TorchDistribution):  # type: ignore[misc]
    """A mixture of two logistics, cut into 8 levels from 0 to 1, without a mean."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real

    def __init__(self, loc: Tensor, logits: Tensor) -> None:
        self.loc, self.logits = loc, logits
        super().__init__(loc.shape[:-1], validate_args=False)

    def expand(self, shape: Any, _instance: Any = None) -> Any:
        shape = torch.Size(shape)
        loc, logits = self.loc, self.logits
        return DiscretizedLogistics(
            loc.expand(*shape, loc.shape[-1]), logits.expand(*shape, logits.shape[-1])
        )

    def log_prob(self, value: Tensor) -> Tensor:
        edge = value.unsqueeze(-1) - self.loc
        upper = ((edge + 1 / 14) / 0.2).sigmoid().masked_fill(value.unsqueeze(-1) > 0.99, 1.0)
        lower = ((edge - 1 / 14) / 0.2).sigmoid().masked_fill(value.unsqueeze(-1) < 0.01, 0.0)
        cell = (upper - lower).clamp_min(1e-9).log()
        return torch.logsumexp(cell + self.logits.log_softmax(-1), -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        k = dist.Categorical(logits=self.logits.expand(*shape, 2)).sample()
        loc = self.loc.expand(*shape, 2).gather(-1, k.unsqueeze(-1)).squeeze(-1)
        u = torch.rand(shape).clamp(1e-5, 1 - 1e-5)
        return ((loc + 0.2 * u.logit()) * 7).round().clamp(0, 7) / 7


class Levels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 12)

    def forward(self, h: Tensor) -> Any:
        h = self.net(h)
        return DiscretizedLogistics(
            0.5 + h[..., :6].unflatten(-1, (3, 2)), h[..., 6:].unflatten(-1, (3, 2))
        ).to_event(1)


class Factor(nn.Module):
    """A likelihood that is a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 2), nn.Linear(2, 3)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            fn = dist.Normal(self.decoder(z), 0.8).to_event(1)
            pyro.factor("x", fn.log_prob(x))

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.6).to_event(1))


class MaskedRows(nn.Module):
    """A mask of numbers that do not count, by a handler or by the distribution."""

    def __init__(self, handler: bool) -> None:
        super().__init__()
        self.handler, self.encoder, self.decoder = handler, nn.Linear(3, 2), nn.Linear(2, 3)

    def model(self, x: Tensor) -> None:
        fn = dist.Normal
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            one = fn(self.decoder(z), 0.8)
            if self.handler:
                with pyro.poutine.mask(mask=x[:, 0] > -1):
                    pyro.sample("x", one.to_event(1), obs=x)
            else:
                pyro.sample("x", one.mask(x > -1).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.6).to_event(1))


class Shaped(nn.Module):
    """A code of the shape of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 4), nn.Linear(4, 3)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1, 2, 2), 1.0).to_event(3))
            pyro.sample("x", dist.Normal(self.decoder(z.flatten(1)), 0.7).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc = self.encoder(x).unflatten(-1, (1, 2, 2))
            pyro.sample("z", dist.Normal(loc, 0.6).to_event(3))


class Inside(nn.Module):
    """A uniform distribution, of a width that the inputs do not change."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width

    def forward(self, h: Tensor) -> Any:
        ends = h.new_full((*h.shape[:-1], 2), self.width)
        return dist.Uniform(-ends, ends).to_event(1)


class KumaraswamyCode(nn.Module):
    """Between 0 and 1, by a transform of a uniform number."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.net = nn.Linear(inputs, 4)

    def forward(self, h: Tensor) -> Any:
        a, b = (1 + softplus(self.net(h))).chunk(2, -1)
        return dist.Kumaraswamy(a, b).to_event(1)


def _class() -> Any:
    return Tied


def _doubles() -> Coded:
    return Doubles(Standard(), Normals(3, 2), Normals(2)).double()


def _autocast() -> Coded:
    return Autocast(Standard(), Normals(3, 2), Normals(2))


def _bernoulli() -> Any:
    class Bits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(2, 3)

        def forward(self, h: Tensor) -> Any:
            return dist.Bernoulli(logits=self.net(h)).to_event(1)

    return plain(likelihood=Bits())


def levels() -> Tensor:
    return (rows().sigmoid() * 7).round() / 7


def unit() -> Tensor:
    return rows().sigmoid()


def _conditional_base() -> Coded:
    from .flows import Flow

    return plain(guide=Flow(lambda n: transforms.conditional_spline(2, n), 3, (2,)))


def kinds() -> Iterator[Kind]:
    made: list[tuple[str, Callable[[], Any], dict[str, Any]]] = [
        ("normals", plain, {"ais": True}),
        ("PyroParam, PyroModule", WithParam, {}),
        ("PyroSample weights", Sampled, {}),
        ("pyro.param, pyro.module", ClassicParams, {}),
        ("float64", _doubles, {"ais": True}),
        ("autocast, bfloat16", _autocast, {"ais": True}),
        ("tied weights, a constructor without annotation", _class, {}),
        ("one site for each number of the code", Autoregressive, {"ais": True}),
        ("autoregressive prior", lambda: plain(prior=AutoregressivePrior()), {"ais": True}),
        ("a code of shape ()", Scalar, {"ais": True}),
        ("a code of the shape of an image", Shaped, {"ais": True}),
        ("mixture of normals as prior", lambda: plain(prior=MixturePrior()), {"ais": True}),
        ("MixtureOfDiagNormals as guide", lambda: plain(guide=DiagMixture(3)), {"ais": True}),
        ("MixtureOfDiagNormals on both sides",
         lambda: plain(guide=DiagMixture(3), prior=DiagMixture(1)), {"ais": True}),
        ("uniform inside uniform",
         lambda: plain(prior=Inside(2.0), guide=Inside(1.5)), {}),
        ("Kumaraswamy codes",
         lambda: plain(prior=KumaraswamyCode(1), guide=KumaraswamyCode(3)), {"ais": True}),
        ("logit-normal likelihood", lambda: plain(likelihood=LogitNormal()), {"data": unit}),
        ("discretized logistics", lambda: plain(likelihood=Levels()), {"data": levels}),
        ("pyro.factor as likelihood", Factor, {}),
        ("poutine.mask", lambda: MaskedRows(True), {}),
        ("a distribution's mask", lambda: MaskedRows(False), {}),
        ("Bernoulli likelihood", _bernoulli, {"data": bits}),
        ("several discrete sites", Discrete, {"objective": GRAPH}),
        ("several discrete sites, summed over", lambda: Discrete("parallel"),
         {"objective": ENUM, "options": FLAT}),
        ("several discrete sites, one after the other", lambda: Discrete("sequential"),
         {"objective": ENUM, "options": FLAT}),
        ("a class, summed over", lambda: Discrete("parallel", "k"),
         {"objective": ENUM, "options": FLAT}),
        ("two bits, summed over", lambda: Discrete("parallel", "b"),
         {"objective": ENUM, "options": FLAT}),
        ("a one-hot code, summed over", lambda: Discrete("parallel", "o"),
         {"objective": ENUM, "options": FLAT}),
        ("four classes in one site", lambda: ManyInOne(False), {"objective": GRAPH}),
        ("four bits in one site", lambda: ManyInOne(True), {"objective": GRAPH}),
        ("discrete sites by elbo", Discrete, {"refused": "TraceGraph_ELBO"}),
        ("conditional spline as guide", _conditional_base, {"ais": True}),
    ]  # fmt: skip
    for name, make, options in made:
        yield Kind(name, "construct", make, **{"data": rows, **options})
    for objective in OBJECTIVES:
        yield Kind(f"normals by {objective}", "objective", plain, rows, objective=objective)
    for objective in OBJECTIVES[:-2]:
        refused = "at its own draws alone" if objective == "dreg" else ""
        yield Kind(
            f"planar guide by {objective}", "objective", _planar, rows, objective, refused=refused
        )
    for objective in ("sampled_elbo", "iwae"):
        yield Kind(f"straight-through guide by {objective}", "objective", _relaxed, rows, objective)
        yield Kind(
            f"mixture guide by {objective}",
            "objective",
            lambda: plain(guide=DiagMixture(3)),
            rows,
            objective,
        )


OBJECTIVES = (
    *("sampled_elbo", "iwae", "dreg", "pyro.infer.Trace_ELBO", GRAPH, ENUM),
    *("pyro.infer.TraceMeanField_ELBO", "pyro.infer.RenyiELBO", "beta_tcvae", "dip_vae"),
)


def _relaxed() -> Coded:
    from .heads import Heads

    family = "RelaxedBernoulliStraightThrough"
    return plain(prior=Heads(family, 1, 2), guide=Heads(family, 3, 2))


def _planar() -> Coded:
    from .flows import Flow

    return plain(guide=Flow(lambda n: transforms.planar(2), 3, (2,)))
