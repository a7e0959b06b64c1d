"""Pairs of Pyro's examples and of papers, by name, on small nets; each says what was changed."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal, AutoNormalMessenger
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import one_hot, softmax, softplus

from .pairs import rows
from .row import Kind

ENUM = "pyro.infer.TraceEnum_ELBO"


def net(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs))


def normal(parameters: Tensor) -> Any:
    """Vectors from their means and unconstrained scales, side by side."""
    loc, scale = parameters.chunk(2, -1)
    return dist.Normal(loc, softplus(scale) + 0.01).to_event(1)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(40, *shape, generator=torch.Generator().manual_seed(seed))


def proxies() -> Tensor:
    return numbers(3)


def counts() -> Tensor:
    return (3 * numbers(5)).abs().round()


def some_labels(unknown: int = -1) -> dict[str, Tensor]:
    label = torch.arange(40) % 3
    return {"label": torch.where(torch.arange(40) % 4 == 0, label, unknown)}


class DeepMarkov(nn.Module):
    """examples/dmm: the mask is made of a column, and the mini-batch is x."""

    def __init__(self) -> None:
        super().__init__()
        self.transition, self.emitter = net(2, 4), net(2, 3)
        self.rnn, self.combiner = nn.RNN(3, 2, batch_first=True), net(2, 4)

    def mask(self, x: Tensor, length: Tensor) -> Tensor:
        return torch.arange(x.shape[1]) < length[:, None]

    def model(self, x: Tensor, length: Tensor) -> None:
        z, mask = x.new_zeros(len(x), 2), self.mask(x, length)
        with pyro.plate("z_minibatch", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                there = mask[:, t : t + 1]
                fn = normal(self.transition(z)).base_dist
                z = pyro.sample(f"z_{t}", fn.mask(there).to_event(1))
                bits = dist.Bernoulli(logits=self.emitter(z)).mask(there)
                pyro.sample(f"obs_x_{t}", bits.to_event(1), obs=x[:, t])

    def guide(self, x: Tensor, length: Tensor) -> None:
        z, mask = x.new_zeros(len(x), 2), self.mask(x, length)
        hidden = self.rnn(x.flip(1))[0].flip(1)
        with pyro.plate("z_minibatch", len(x)):
            for t in pyro.markov(range(x.shape[1])):
                fn = normal(self.combiner(0.5 * (z.tanh() + hidden[:, t]))).base_dist
                z = pyro.sample(f"z_{t}", fn.mask(mask[:, t : t + 1]).to_event(1))


class SemiSupervised(nn.Module):
    """examples/vae/ss_vae_M2: labels that are not known are -1, and one model serves both."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.of_label, self.of_code = net(5, 3), net(3, 3), net(6, 4)

    def model(self, x: Tensor, label: Tensor) -> None:
        known = label >= 0
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            even = dist.Categorical(x.new_ones(len(x), 3) / 3)
            y = pyro.sample("y", even, obs=label.clamp(min=0), obs_mask=known)
            both = torch.cat([z.expand(*y.shape, 2), one_hot(y, 3)], -1)
            pyro.sample("x", dist.Normal(self.decoder(both), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor, label: Tensor) -> None:
        known = label >= 0
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=~known):
                fn = dist.Categorical(logits=self.of_label(x))
                y = pyro.sample("y_unobserved", fn, infer={"enumerate": "parallel"})
            y = torch.where(known, label, y)
            both = torch.cat([x.expand(*y.shape, 3), one_hot(y, 3)], -1)
            pyro.sample("z", normal(self.of_code(both)))


class Conditional(nn.Module):
    """The conditional VAE of Sohn et al. (2015): the label is a column."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = net(5, 3), net(6, 4)

    def model(self, x: Tensor, label: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            loc = self.decoder(torch.cat([z, one_hot(label, 3)], 1))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor, label: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(self.encoder(torch.cat([x, one_hot(label, 3)], 1))))


class CausalEffect(nn.Module):
    """contrib/cevae: proxies are x, treatment and outcome columns; the guide reads all three."""

    def __init__(self) -> None:
        super().__init__()
        self.of_x, self.of_t, self.of_y, self.encoder = net(2, 6), net(2, 1), net(3, 1), net(5, 4)

    def model(self, x: Tensor, treatment: Tensor, outcome: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", normal(self.of_x(z)), obs=x)
            t = dist.Bernoulli(logits=self.of_t(z)[:, 0])
            pyro.sample("t", t, obs=treatment)
            loc = self.of_y(torch.cat([z, treatment[:, None]], 1))[:, 0]
            pyro.sample("y", dist.Normal(loc, 1.0), obs=outcome)

    def guide(self, x: Tensor, treatment: Tensor, outcome: Tensor) -> None:
        with pyro.plate("data", len(x)):
            beside = torch.stack([treatment, outcome], 1)
            pyro.sample("z", normal(self.encoder(torch.cat([x, beside], 1))))


class SingleCell(nn.Module):
    """examples/scanvi: counts are x, a label of -1 is not known; two codes, one of them below."""

    def __init__(self) -> None:
        super().__init__()
        self.of_y, self.decoder = net(5, 4), net(2, 5)
        self.first, self.second, self.classes = net(5, 6), net(5, 4), net(2, 3)
        self.inverse_dispersion = nn.Parameter(torch.zeros(5))

    def model(self, x: Tensor, label: Tensor) -> None:
        with pyro.plate("batch", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            even = dist.Categorical(x.new_ones(len(x), 3) / 3)
            y = pyro.sample("y", even, obs=label.clamp(min=0), obs_mask=label >= 0)
            both = torch.cat([z1.expand(*y.shape, 2), one_hot(y, 3)], -1)
            z2 = pyro.sample("z2", normal(self.of_y(both)))
            depth = pyro.sample("l", dist.LogNormal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            rate = softmax(self.decoder(z2), -1) * depth
            fn = dist.NegativeBinomial(
                total_count=self.inverse_dispersion.exp(), logits=(rate + 1e-4).log()
            )
            pyro.sample("x", fn.to_event(1), obs=x)

    def guide(self, x: Tensor, label: Tensor) -> None:
        known = label >= 0
        with pyro.plate("batch", len(x)):
            loc, scale = self.first(x.log1p()).split([3, 3], -1)
            scale = softplus(scale) + 0.01
            z2 = pyro.sample("z2", dist.Normal(loc[:, :2], scale[:, :2]).to_event(1))
            pyro.sample("l", dist.LogNormal(loc[:, 2:], scale[:, 2:]).to_event(1))
            with pyro.poutine.mask(mask=~known):
                fn = dist.Categorical(logits=self.classes(z2))
                y = pyro.sample("y_unobserved", fn, infer={"enumerate": "parallel"})
            y = torch.where(known, label, y)
            both = torch.cat([z2.expand(*y.shape, 2), one_hot(y, 3)], -1)
            pyro.sample("z1", normal(self.second(both)))


class Topics(nn.Module):
    """tutorial/prodlda: nothing but nets and names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.words = net(5, 4), nn.Linear(2, 5, bias=False)
        self.norm = nn.BatchNorm1d(5, affine=False)

    def model(self, x: Tensor) -> None:
        with pyro.plate("documents", len(x)):
            fn = dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1)
            theta = softmax(pyro.sample("logtheta", fn), -1)
            probs = softmax(self.norm(self.words(theta)), 1)
            total = int(x.sum(-1).max())
            pyro.sample("obs", dist.Multinomial(total, probs, validate_args=False), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("documents", len(x)):
            pyro.sample("logtheta", normal(self.encoder(x)))


class LocalTopics(nn.Module):
    """examples/lda: words are columns of x, their topics summed out; topics are global."""

    def __init__(self, num_data: int) -> None:
        super().__init__()
        self.num_data, self.encoder = num_data, net(4, 2)

    def model(self, x: Tensor) -> None:
        with pyro.plate("topics", 2):
            words = pyro.sample("topic_words", dist.Dirichlet(torch.ones(6) / 6))
        with pyro.plate("documents", self.num_data, len(x)):
            theta = pyro.sample("doc_topics", dist.Dirichlet(torch.ones(2)))
            with pyro.plate("words", 4):
                pyro.sample("doc_words", dist.Categorical(theta @ words), obs=x.long().T)

    def guide(self, x: Tensor) -> None:
        posterior = pyro.param(
            "topic_words_posterior", lambda: torch.ones(2, 6), constraint=constraints.positive
        )
        with pyro.plate("topics", 2):
            pyro.sample("topic_words", dist.Dirichlet(posterior))
        with pyro.plate("documents", self.num_data, len(x)):
            pyro.sample("doc_topics", dist.Dirichlet(softplus(self.encoder(x)) + 0.1))


class SparseGamma(nn.Module):
    """examples/sparse_gamma_def: one layer less; the guide of the codes is a net."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = net(5, 6)

    def model(self, x: Tensor) -> None:
        with pyro.plate("w_plate", 15):
            w = pyro.sample("w", dist.Gamma(0.5, 1.0)).reshape(3, 5)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(0.5, 1.0).expand([3]).to_event(1))
            pyro.sample("obs", dist.Poisson(z @ w + 1e-3).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        alpha = pyro.param("alpha", lambda: torch.ones(15), constraint=constraints.positive)
        with pyro.plate("w_plate", 15):
            pyro.sample("w", dist.Gamma(alpha + 0.1, alpha + 0.1))
        with pyro.plate("data", len(x)):
            a, b = (softplus(self.encoder(x)) + 0.2).chunk(2, -1)
            pyro.sample("z", dist.Gamma(a, b).to_event(1))


class Mixture(nn.Module):
    """tutorial/gmm: its assignments, summed out there, are guided by a net."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = net(3, 2)

    def model(self, x: Tensor) -> None:
        weights = pyro.sample("weights", dist.Dirichlet(torch.full((2,), 0.5)))
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", dist.Normal(torch.zeros(3), 3.0).to_event(1))
        with pyro.plate("data", len(x)):
            k = pyro.sample("assignment", dist.Categorical(weights))
            pyro.sample("obs", dist.Normal(locs[k], 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        alpha = pyro.param("alpha", lambda: torch.ones(2), constraint=constraints.positive)
        pyro.sample("weights", dist.Dirichlet(alpha))
        loc = pyro.param("loc", lambda: torch.eye(2, 3))
        with pyro.plate("components", 2):
            pyro.sample("locs", dist.Normal(loc, 0.1).to_event(1))
        with pyro.plate("data", len(x)):
            fn = dist.Categorical(logits=self.encoder(x))
            pyro.sample("assignment", fn, infer={"enumerate": "parallel"})


class Everything(nn.Module):
    """One autoguide over weights and codes, which has parameters of each datum."""

    def __init__(self) -> None:
        super().__init__()
        self.guide = AutoNormal(self.model)

    def model(self, x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w, 1.0).to_event(1), obs=x)


class Free(nn.Module):
    """Variational inference without amortization: rows of parameters, looked up by the plate."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(2, 3)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)) as index:
            loc = pyro.param("loc", torch.zeros(40, 2))[index]
            scale = pyro.param("scale", torch.ones(40, 2), constraints.positive)[index]
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


class OwnMessenger(Free):
    """A messenger guide with parameters of each datum."""

    def __init__(self) -> None:
        super().__init__()
        self.guide = AutoNormalMessenger(self.model)


class Points(Free):
    """The most probable code of each datum."""

    def __init__(self) -> None:
        super().__init__()
        self.guide = AutoDelta(self.model)


class Subsampled(nn.Module):
    """tutorial/svi_part_ii: the plate draws a part of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(3))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=2) as index:
            pyro.sample("x", dist.Normal(self.loc, 1.0).to_event(1), obs=x[index])

    def guide(self, x: Tensor) -> None:
        pass


def bits_in_time() -> Tensor:
    return (numbers(4, 3) > 0).float()


def lengths() -> dict[str, Tensor]:
    return {"length": torch.arange(40) % 4 + 1}


def word_numbers() -> Tensor:
    return torch.arange(160).reshape(40, 4).remainder(6).float()


def effects() -> dict[str, Tensor]:
    return {"treatment": (numbers(seed=1) > 0).float(), "outcome": numbers(seed=2)}


def kinds() -> Iterator[Kind]:
    none: Callable[[], Mapping[str, Tensor]] = dict
    known = {"label": torch.arange(40) % 3}
    for name, pair, data, columns, objective, refused in (
        ("deep Markov model", DeepMarkov, bits_in_time, lengths, "elbo", ""),
        ("semi-supervised VAE, M2", SemiSupervised, rows, some_labels, ENUM, ""),
        ("conditional VAE", Conditional, rows, lambda: known, "elbo", ""),
        ("causal effect VAE", CausalEffect, proxies, effects, "elbo", ""),
        ("scANVI", SingleCell, counts, some_labels, ENUM, ""),
        ("ProdLDA", Topics, counts, none, "elbo", ""),
        ("latent Dirichlet allocation", partial(LocalTopics, 40), word_numbers, none, "elbo", ""),
        ("sparse gamma DEF", SparseGamma, counts, none, "elbo", ""),
        ("Gaussian mixture", Mixture, rows, none, ENUM, ""),
        ("AutoNormal over codes too", Everything, rows, none, "elbo", ""),
        ("free parameters of each datum", Free, rows, none, "elbo", ""),
        ("AutoNormalMessenger over codes", OwnMessenger, rows, none, "elbo", ""),
        ("AutoDelta over codes", Points, rows, none, "elbo", ""),
        ("a plate that subsamples", Subsampled, rows, none, "elbo", "draws 2 of the"),
    ):
        note = getattr(pair, "func", pair).__doc__ or ""
        yield Kind(name, "example", pair, data, objective, {}, note, refused, columns=columns)
