"""A datum's terms are its own: what a pair reads beside it is found, and named with its site."""

import itertools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import summary
from linear_gaussian import PPCA, batches, marginal, matrix, posterior, ready
from pyro.infer import autoguide
from pyro.nn import PyroModule, PyroSample
from torch import nn

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.gap import inference_gap
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.latents import latent_health
from pyro_aevb.estimators.metrics import weight_kl
from pyro_aevb.estimators.parzen import parzen
from pyro_aevb.estimators.variational import Flow
from pyro_aevb.pairs.predict import generate, reconstruct
from pyro_aevb.training.wake_sleep import WakeSleep

N, D = 12, 6


def bits(n=N, *shape, seed=0):
    return (torch.from_numpy(np.random.default_rng(seed).random((n, *(shape or (D,))))) > 0.5) * 1.0


class Pair(nn.Module):
    """Two codes, a linear encoder and decoder; what is told of a datum is left to be spoilt."""

    def __init__(self, features=D, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.enc, self.dec = nn.Linear(D, 4), nn.Linear(2, features)

    def plate(self, x):
        return pyro.plate("data", len(x))

    def seen(self, x):
        return x

    def likelihood(self, z, x, i):
        return dist.Bernoulli(logits=self.dec(z)).to_event(1)

    def data(self, x, i):
        return x

    def model(self, x):
        with self.plate(x) as i:
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", self.likelihood(z, x, i), obs=self.data(x, i))

    def guide(self, x):
        loc, scale = self.enc(self.seen(x).flatten(1)).chunk(2, -1)
        with self.plate(x):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    def at(self, z, x):
        """log p(x|z) of every datum by torch alone."""
        return dist.Bernoulli(logits=self.dec(z)).log_prob(x.flatten(1)).sum(1)


# Shapes that broadcast


class NoChannel(Pair):
    def likelihood(self, z, x, i):  # (B, 2, 3) beside data of (B, 1, 2, 3)
        return dist.Bernoulli(logits=self.dec(z).view(-1, 2, 3)).to_event(2)


class OneLogit(Pair):
    def __init__(self):
        super().__init__(features=1)


class Column(Pair):
    def __init__(self):
        super().__init__(features=1)
        self.enc = nn.Linear(1, 4)

    def likelihood(self, z, x, i):  # (B,) beside a column (B, 1)
        return dist.Normal(self.dec(z)[:, 0], 1.0)


@pytest.mark.parametrize("make, shape", [(NoChannel, (1, 2, 3)), (OneLogit, (D,)), (Column, (1,))])
def test_a_value_and_a_distribution_that_broadcast_are_refused(make, shape):
    with pytest.raises(UsageError, match="site 'x' has shape .* they broadcast"):
        ready(make().double(), bits(N, *shape).double())


# Neighbours


class Standardized(Pair):
    def seen(self, x):
        return (x - x.mean(0)) / (x.std(0) + 1e-3)


class BatchNorm(Pair):
    def __init__(self, running):
        super().__init__()
        self.norm = nn.BatchNorm1d(D, track_running_stats=running)

    def seen(self, x):
        return self.norm(x)


class Relative(Pair):
    """The likelihood alone knows the mean of the batch's codes."""

    def likelihood(self, z, x, i):
        return super().likelihood(z - z.mean(0), x, i)


class LastReads(Pair):
    """The last datum alone sees the one before it."""

    def seen(self, x):
        return torch.cat([x[:-1], (x[-1:] + x[-2:-1]) / 2]) if len(x) > 1 else x


class Cursor(Pair):
    """Labels of its own, read on from where the last call stopped."""

    def __init__(self):
        super().__init__()
        self.position, self.labels = 0, torch.arange(2.0 * N).view(N, 2)

    def likelihood(self, z, x, i):
        index = (torch.arange(len(x)) + self.position) % N
        self.position += len(x)
        return super().likelihood(z + self.labels[index], x, i)


class Points(Standardized):
    """Codes without a density, made of the whole batch."""

    def guide(self, x):
        with self.plate(x):
            code = self.enc(self.seen(x))[:, :2]
            pyro.sample("z", dist.Delta(code, event_dim=1).mask(False))

    def model(self, x):
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1).mask(False))
            pyro.sample("x", self.likelihood(z, x, None), obs=x)


@pytest.mark.parametrize(
    "source, site",
    [
        (Standardized(), "guide site 'z'"),
        (BatchNorm(False), "guide site 'z'"),
        (Relative(), "model site 'x'"),
        (LastReads(), "guide site 'z'"),
        (Cursor(), "model site 'x'"),
        (Points(), "guide site 'z'"),
    ],
)
def test_a_datum_whose_terms_depend_on_its_neighbours_is_refused(source, site):
    with pytest.raises(UsageError, match=f"{site} depends on the other data of the batch"):
        ready(source.double(), bits().double())


def test_running_statistics_are_those_of_no_batch_and_stay_where_they_were():
    source, x = BatchNorm(True).double(), bits().double()
    source.norm.running_mean += 0.3
    before = {name: value.clone() for name, value in source.state_dict().items()}
    pair = ready(source, x)
    for name, value in source.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert source.training
    scores = score(pair, batches(x), 2)
    seen = (x - source.norm.running_mean) / (source.norm.running_var + source.norm.eps).sqrt()
    expected = source.at(source.enc(seen).chunk(2, -1)[0], x)
    np.testing.assert_allclose(scores.reconstruction_mean, expected.detach(), rtol=1e-10)


# Places


class Rows(Pair):
    """A declared plate, whose indices are not those of the data."""

    def __init__(self, what, declared=True):
        super().__init__()
        self.what, self.declared = what, declared
        # The same for all, as labels of sorted data and a parameter's start often are.
        self.labels, self.loc = torch.zeros(N, 2), nn.Parameter(torch.zeros(N, 2))
        self.table = nn.Embedding(N, 2)

    def plate(self, x):
        return pyro.plate("data", N, subsample_size=len(x) if self.declared else None)

    def likelihood(self, z, x, i):
        return super().likelihood(z + self.what(self, x, i), x, i)


READERS = {
    "labels": lambda self, x, i: self.labels[i],
    "parameter": lambda self, x, i: self.loc[i],
    "select": lambda self, x, i: self.loc.index_select(0, i),
    "embedding": lambda self, x, i: self.table(i),
    "subsample": lambda self, x, i: pyro.subsample(self.labels, event_dim=1),
    "param": lambda self, x, i: pyro.param("loc", torch.zeros(N, 2), event_dim=1),
    "covariate": lambda self, x, i: (i / N)[:, None],
    "converted": lambda self, x, i: self.labels[i.long().to("cpu")],
    "list": lambda self, x, i: self.labels[i.tolist()],
    "no index": lambda self, x, i: self.loc[: len(x)],
}


@pytest.mark.parametrize("name", READERS)
def test_a_pair_that_reads_rows_by_their_place_in_the_batch_is_refused(name):
    with pytest.raises(UsageError, match=r"the model (looks the indices|computes)|model site 'x'"):
        ready(Rows(READERS[name]), bits())


def test_own_data_by_place_are_refused_and_the_batch_by_place_is_the_batch():
    class Own(Pair):
        def __init__(self, rows):
            super().__init__()
            self.rows = rows

        def data(self, x, i):
            return self.rows(x)[i]

    held, x = bits(N, seed=1).double(), bits().double()
    with pytest.raises(UsageError, match="looks the indices of plate 'data' up in 12 rows"):
        ready(Own(lambda x: held).double(), x)
    source, plain = Own(lambda x: x).double(), Pair().double()
    values = [score(ready(pair, x), batches(x), 5).log_weight for pair in (source, plain)]
    np.testing.assert_array_equal(*values)


def test_a_whole_plate_of_something_else_may_be_indexed():
    class Groups(Pair):
        def likelihood(self, z, x, i):
            with pyro.plate("groups", 3, dim=-2) as k:
                shift = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)[k].sum()
            return super().likelihood(z + shift, x, i)

    source, x = Groups().double(), bits().double()
    scores = score(ready(source, x), batches(x), 2)
    expected = source.at(source.enc(x).chunk(2, -1)[0] + 0.7, x).detach()
    np.testing.assert_allclose(scores.reconstruction_mean, expected, rtol=1e-10)


def test_another_plate_that_is_subsampled_is_refused():
    class Part(Pair):
        def likelihood(self, z, x, i):
            with pyro.plate("groups", 30, subsample_size=3, dim=-2):
                return super().likelihood(z, x, i)

    with pytest.raises(UsageError, match="'groups' draws 3 of 30 at random"):
        ready(Part(), bits())


# A model that reads the data


class Sequential(Pair):
    """Each pixel's logit knows the pixels before it, which is a density of x."""

    def __init__(self, diagonal=-1):
        super().__init__()
        self.weight = nn.Parameter(matrix(D, D, seed=4).float())
        self.register_buffer("before", torch.ones(D, D).tril(diagonal))

    def likelihood(self, z, x, i):
        logits = self.dec(z) + (x - 0.5) @ (self.weight * self.before).T
        return dist.Bernoulli(logits=logits).to_event(1)


def total(source):
    """The sum over all x of p(x|z) at one z, which is 1 for a density."""
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=D))).double()
    z = torch.tensor([0.3, -0.7]).double().expand(len(every), 2)
    return float(source.likelihood(z, every, None).log_prob(every).exp().sum().detach())


def test_a_decoder_of_earlier_pixels_has_a_density_and_no_simulation():
    source, x = Sequential().double(), bits().double()
    assert total(source) == pytest.approx(1, rel=1e-10)
    pair = ready(source, x)
    assert pair.description.reads_data == ("x",)
    z = source.enc(x).chunk(2, -1)[0]
    expected = source.likelihood(z, x, None).log_prob(x).detach()
    scores = score(pair, batches(x), 2)
    np.testing.assert_allclose(scores.reconstruction_mean, expected, rtol=1e-10)
    anneal = Annealer(pair, x, num_chains=2, num_temperatures=3, start="guide")
    for simulating in (
        lambda: generate(pair, x),
        lambda: reconstruct(pair, x),
        lambda: parzen(pair, batches(x), batches(x), 10),
        lambda: anneal.bracket(x),
        lambda: WakeSleep(pair, batches(x)),
    ):
        with pytest.raises(UsageError, match="the model reads the data"):
            simulating()
    assert ready(Pair().double(), x).description.reads_data == ()


@pytest.mark.parametrize("leaking", [Sequential(0), Sequential(D)])
def test_a_likelihood_that_reads_its_own_pixel_is_no_density(leaking):
    assert abs(total(leaking.double()) - 1) > 0.1
    with pytest.raises(UsageError, match="reads the very component that it predicts"):
        ready(leaking, bits().double())


def test_a_part_of_x_may_be_observed_given_the_other():
    class Given(Pair):
        def __init__(self):
            super().__init__(features=D - 2)

        def data(self, x, i):
            return x[:, 2:]

        def likelihood(self, z, x, i):
            return dist.Bernoulli(logits=self.dec(z) + x[:, :1]).to_event(1)

    source, x = Given().double(), bits().double()
    pair = ready(source, x)
    assert pair.description.reads_data == ("x",)
    z = source.enc(x).chunk(2, -1)[0]
    expected = dist.Bernoulli(logits=source.dec(z) + x[:, :1]).log_prob(x[:, 2:]).sum(1)
    scores = score(pair, batches(x), 2)
    np.testing.assert_allclose(scores.reconstruction_mean, expected.detach(), rtol=1e-10)


def test_random_numbers_of_a_guide_that_are_no_sites_are_not_taken_for_neighbours():
    class Noisy(Pair):
        def seen(self, x):
            return x + 0.3 * torch.randn_like(x)

    assert ready(Noisy(), bits()).description.undefined() is None


# Weights: which are points, and which draw of them


class Regression(PyroModule):
    """x ~ N(w, 1) in D dimensions, w under an autoguide."""

    def __init__(self, auto):
        super().__init__()
        self.w = PyroSample(dist.Normal(torch.zeros(D).double(), 1.0).to_event(1))
        self.weights = auto(pyro.poutine.block(self.model, hide=["x", "data"]))

    def model(self, x):
        w = self.w
        with pyro.plate("data", N, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    def guide(self, x):
        self.weights(x)


POINTS = ("LaplaceApproximation", "Delta")
OTHERS = "Normal DiagonalNormal MultivariateNormal LowRankMultivariateNormal IAFNormal Structured"


@pytest.mark.parametrize("name", [*POINTS, *OTHERS.split()])
def test_a_point_is_no_density_under_whatever_autoguide(name):
    density, make = name not in POINTS, getattr(autoguide, f"Auto{name}")
    source, x = Regression(make), bits().double()
    pair = ready(source, x)
    assert (pair.description.weights_undefined() is None) == density
    scores = score(pair, batches(x), 1, 3)
    drawn = weight_kl(pair, x, 3, 0) if density else None
    metrics = summary(scores, scores, pair.description, drawn)
    assert (metrics["weight_kl"]["value"] is not None) == density
    assert (metrics["training_elbo"]["value"] is not None) == density
    if not density:  # every draw is the point
        point = source.weights(x)["w"].detach()
        expected = dist.Normal(point, 1.0).log_prob(x).sum(1).numpy()
        np.testing.assert_allclose(scores.log_weight, np.tile(expected, (3, 1)), rtol=1e-6)


class Chain:
    """w1 ~ N(0, 1), w2 ~ N(w1, 1); the guide draws w2 first, its means moved by `shift`."""

    def __init__(self, shift):
        self.shift = shift

    def model(self, x):
        w1 = pyro.sample("w1", dist.Normal(x.new_zeros(()), 1.0))
        w2 = pyro.sample("w2", dist.Normal(w1, 1.0))
        with pyro.plate("data", N, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(w2, 1.0).expand([D]).to_event(1), obs=x)

    def guide(self, x):
        w2 = pyro.sample("w2", dist.Normal(x.new_tensor(self.shift), 2.0**0.5))
        pyro.sample("w1", dist.Normal((w2 - self.shift) / 2, 0.5**0.5))


def test_the_weights_kl_of_sites_that_the_guide_draws_in_another_order():
    x = bits().double()
    same = weight_kl(ready(Chain(0.0), x), x, 50, 0)
    np.testing.assert_allclose(same, 0, atol=1e-12)  # guide and model are one distribution
    # The closed form in the wrong order has the mean 1/N.
    covariance = torch.tensor([[1.0, 1.0], [1.0, 2.0]]).double()
    joint = [
        torch.distributions.MultivariateNormal(torch.tensor([0.0, b]).double(), covariance)
        for b in (0.8, 0.0)
    ]
    exact = float(torch.distributions.kl_divergence(*joint)) / N
    drawn = weight_kl(ready(Chain(0.8), x), x, 3000, 0)
    assert drawn.mean() == pytest.approx(exact, abs=4 * drawn.std() / 3000**0.5)
    assert drawn.std() / 3000**0.5 < exact / 20


class Members(PPCA):
    """PPCA with one of three means, under the exact posterior of the codes given it."""

    def __init__(self):
        super().__init__(exact=True, num_data=N)
        del self.mu
        self.means = matrix(3, 4, seed=9)

    def choose(self, x):
        self.mu = self.means[pyro.sample("member", dist.Categorical(x.new_ones(3)))]

    def model(self, x):
        self.choose(x)
        super().model(x)

    def guide(self, x):
        self.choose(x)
        super().guide(x)


def test_all_estimators_draw_the_members_that_are_scored(monkeypatch):
    monkeypatch.setattr("pyro_aevb.estimators.ascent.HALVINGS", 1)
    source, x = Members(), matrix(N, 4, seed=3)
    pair = ready(source, x)
    scored = score(pair, batches(x), 2, 3, seed=5).log_weight
    exact = np.stack(
        [marginal(source.W, mu, source.noise).logpdf(x.numpy()) for mu in source.means]
    )
    order = [int(abs(exact - row).max(1).argmin()) for row in scored]
    assert sorted(order) == [0, 1, 2]  # each once
    np.testing.assert_allclose(scored, exact[order], rtol=1e-9)
    anneal = Annealer(
        pair, x, num_chains=2, num_temperatures=3, start="guide", seed=5, compile="off"
    )
    for s in range(3):
        np.testing.assert_allclose(anneal(batches(x), s).lower(), exact[order[s]], rtol=1e-6)
    gap = inference_gap(pair, batches(x), 100, seed=5, flow=Flow(0))
    np.testing.assert_allclose(gap.elbo["guide"], exact[order[0]], rtol=1e-9)
    np.testing.assert_allclose(gap.log_likelihood["normal"], exact[order[0]], atol=0.3)
    # One draw of each code: its mean over data is near that of the KL under the same member.
    gain, covariance = posterior(source.W.detach(), source.noise)
    of_shape = covariance.trace() - 2 - covariance.logdet()
    kl = [float((of_shape + ((x - mu) @ gain.T).square().sum(1).mean()) / 2) for mu in source.means]
    found = latent_health(pair, batches(x), seed=5).kl.mean()
    assert np.abs(found - np.array(kl)).argmin() == order[0]
    assert min(abs(kl[order[0]] - kl[m]) for m in order[1:]) > 2 * abs(found - kl[order[0]])
