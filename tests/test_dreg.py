"""The doubly reparameterized gradient against IWAE's, closed forms, and itself written out."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import assert_compiles, bound, capture_only, flat, gradient
from linear_gaussian import PPCA, BayesianPPCA, batches, matrix, ready, with_data
from torch import nn
from torch.distributions import Normal

from pyro_aevb.pairs.handlers import ScaleSites
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.objectives.dreg import DReG
from pyro_aevb.training.objectives.iwae import IWAE
from pyro_aevb.training.step import Step
from pyro_aevb.training.svi import SVI


class Chain(nn.Module):
    """z1 ~ N(0, 1), z2 ~ N(b z1, 1), x ~ N(W z2, 0.6^2), with N declared moved by w ~ N(0, 1)."""

    def __init__(self, num_data=None):
        super().__init__()
        self.num_data = num_data
        self.b = nn.Parameter(torch.tensor(0.8).double())
        self.W = nn.Parameter(matrix(3, 2, seed=1))
        self.A1 = nn.Parameter(0.3 * matrix(2, 3, seed=2))
        self.A2 = nn.Parameter(0.3 * matrix(2, 3, seed=3))
        self.c = nn.Parameter(torch.tensor(0.4).double())
        self.log_s = nn.Parameter(torch.tensor([-0.5, -0.8]).double())
        self.loc = nn.Parameter(torch.tensor(0.2).double())

    def plate(self, x):
        if self.num_data is None:
            return pyro.plate("data", len(x))
        return pyro.plate("data", size=self.num_data, subsample_size=len(x))

    def model(self, x):
        one = x.new_ones(2)
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0)) if self.num_data else 0.0
        with self.plate(x):
            z1 = pyro.sample("z1", dist.Normal(0 * one, one).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(self.b * z1, one).to_event(1))
            pyro.sample("x", dist.Normal(z2 @ self.W.T + w, 0.6).to_event(1), obs=x)

    def guide(self, x):
        s1, s2 = self.log_s.exp()
        w = pyro.sample("w", dist.Normal(self.loc, 0.3)) if self.num_data else 0.0
        with self.plate(x):
            z1 = pyro.sample("z1", dist.Normal((x - w) @ self.A1.T, s1).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(x @ self.A2.T + self.c * z1, s2).to_event(1))
        self.drawn = w, z1, z2


CODE = ["A", "c", "log_s"]
CHAIN = ["A1", "A2", "c", "log_s"]


@pytest.mark.parametrize("K", [1, 4])
def test_the_value_is_iwaes_with_the_same_draws(K):
    for source, x in (
        (PPCA(num_data=9), matrix(4, 4)),
        (BayesianPPCA(9), matrix(4, 3)),
        (Chain(9), matrix(4, 3)),
    ):
        pair = ready(source, x)
        torch.testing.assert_close(
            bound(DReG(K), pair, x), bound(IWAE(K), pair, x), rtol=1e-12, atol=0
        )
    with torch.no_grad():
        assert bound(DReG(K), pair, x) == bound(IWAE(K), pair, x)
    assert isinstance(make_objective("dreg", K), DReG)


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_it_equals_the_estimator_written_out_with_the_same_noise(beta):
    K = 5
    source, x, pair = with_data(PPCA(num_data=30), 4)
    with ScaleSites(beta, {"z"}):
        found = gradient(DReG(K), pair, x)

    names = ["W", "mu", "A", "c", "log_s"]
    W, mu, A, c, log_s = (getattr(source, name) for name in names)
    rows = x.repeat(K, 1)
    eps = ((source.z - rows @ A.T - c) / log_s.exp()).detach()
    # log w(z, theta) with the guide's own parameters held: d/dz alone carries the gradient of phi.
    z = rows @ A.T + c + eps * log_s.exp()

    def log_w(z, W, mu):
        q = Normal(rows @ A.detach().T + c.detach(), log_s.detach().exp())
        likelihood = Normal(z @ W.T + mu, source.noise).log_prob(rows).sum(1)
        kl = (Normal(0, 1).log_prob(z) - q.log_prob(z)).sum(1)
        return (likelihood + beta * kl).view(K, 4)

    w = log_w(z, W, mu).detach().softmax(0)
    model = (w * log_w(z.detach(), W, mu)).sum() * 30 / 4
    factor = (1 - beta) * w + beta * w**2
    guide = (factor * log_w(z, W.detach(), mu.detach())).sum() * 30 / 4
    expected = torch.autograd.grad(model, [W, mu]) + torch.autograd.grad(guide, [A, c, log_s])
    for name, value in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_data", [None, 30])
def test_a_chain_of_codes_and_global_latents_written_out(num_data):
    source, K = Chain(num_data), 3
    x = matrix(4, 3, seed=9)
    pair = ready(source, x)
    found = gradient(DReG(K), pair, x)
    w, z1, z2 = (torch.as_tensor(v).detach() for v in source.drawn)  # of the last run

    rows, copy = x.repeat(K, 1), Chain(num_data)
    s1, s2 = copy.log_s.exp()
    shift = (copy.loc + (w - source.loc.detach())) if num_data else 0.0  # reparameterized
    eps1 = (z1 - (rows - w) @ source.A1.detach().T) / source.log_s.detach().exp()[0]
    loc2 = rows @ source.A2.detach().T + source.c.detach() * z1
    eps2 = (z2 - loc2) / source.log_s.detach().exp()[1]

    def paths(p, w):
        s1, s2 = p["log_s"].exp()
        z1 = (rows - w) @ p["A1"].T + s1 * eps1
        return z1, rows @ p["A2"].T + p["c"] * z1 + s2 * eps2

    def log_w(z1, z2, p, w, w_of_q):
        s1, s2 = p["log_s"].detach().exp()
        q1 = Normal((rows - w_of_q) @ p["A1"].detach().T, s1)
        q2 = Normal(rows @ p["A2"].detach().T + p["c"].detach() * z1, s2)
        total = Normal(0, 1).log_prob(z1) + Normal(p["b"] * z1, 1).log_prob(z2)
        total = (total - q1.log_prob(z1) - q2.log_prob(z2)).sum(1)
        return (total + Normal(z2 @ p["W"].T + w, 0.6).log_prob(rows).sum(1)).view(K, 4)

    p = dict(copy.named_parameters())
    held = {name: value.detach() for name, value in p.items()}
    fixed = shift.detach() if num_data else 0.0
    z = paths(p, shift)
    weights = log_w(*z, p, shift, fixed).detach().softmax(0)
    model = (weights * log_w(*(v.detach() for v in z), p, shift, fixed)).sum()
    guide = (weights**2 * log_w(*z, held, fixed, fixed)).sum()
    value = (model + guide) * ((num_data or 4) / 4)
    if num_data:
        value = value + Normal(0, 1).log_prob(shift) - Normal(copy.loc, 0.3).log_prob(shift)
    names = [name for name in p if num_data or name != "loc"]
    expected = torch.autograd.grad(value, [p[name] for name in names])
    for name, grad in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("kind, guide", [(PPCA, CODE), (Chain, CHAIN)])
def test_it_is_unbiased_for_both_sides(kind, guide, beta):
    r"""The mean over draws is IWAE's, and for the model the two are equal draw by draw."""
    source, K, repeats = kind(num_data=30), 3, 400
    x = matrix(50, 4 if kind is PPCA else 3, seed=6)
    pair = ready(source, x)
    others = [n.removeprefix("pair.") for n in pair.trainable() if n[5:] not in guide]
    differences, means = [], []
    with ScaleSites(beta, {"z", "z1", "z2"}):
        for seed in range(repeats):
            one, two = (gradient(o, pair, x, seed) for o in (IWAE(K), DReG(K)))
            if kind is PPCA:
                torch.testing.assert_close(flat(one, others), flat(two, others))
            differences.append(flat(one, guide) - flat(two, guide))
            means.append(flat(one, guide))
    differences, scale = torch.stack(differences), torch.stack(means).mean(0).norm()
    error = differences.std(0) / repeats**0.5
    assert error.norm() < 0.1 * scale  # so that a wrong factor would show
    assert (differences.mean(0).abs() < 4.5 * error).all()


def test_it_is_zero_where_the_guide_is_exact():
    r"""The posterior's own mean, and a diagonal covariance that is its own."""
    exact = PPCA(latent=1)
    gain = exact.W.T / (exact.noise**2 + (exact.W**2).sum())
    exact.A.data, exact.c.data = gain.detach(), -(gain @ exact.mu).detach()
    exact.log_s.data = 0.5 * (1 / (1 + (exact.W**2).sum() / exact.noise**2)).log().detach()[None]
    x = exact.data(4)
    pair = ready(exact, x)
    for K in (1, 7):
        assert flat(gradient(DReG(K), pair, x), CODE).abs().max() < 1e-12
        assert flat(gradient(IWAE(K), pair, x), CODE).abs().max() > 1e-3


class Warped(nn.Module):
    r"""z = exp(u), u ~ N(m(x), s), by an auxiliary site, under z ~ Gamma(3, 1)."""

    def __init__(self):
        super().__init__()
        self.m = nn.Parameter(torch.tensor([0.3, -0.2]).double())
        self.t = nn.Parameter(torch.tensor(1.3).double())

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(x.new_tensor(3.0), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(self, x):
        m, s = self.m
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(m * x, s.exp()), infer={"is_auxiliary": True})
            z = (self.t * u).exp()  # the transform has a parameter of its own
            pyro.sample("z", dist.Delta(z, log_density=-(self.t * u + self.t.log())))


def test_a_code_made_of_an_auxiliary_one_is_unbiased():
    source, repeats = Warped(), 250
    x = matrix(40, seed=2).exp()
    pair = ready(source, x)
    assert pair.description.kl_sites() == {"z", "u"}
    for beta in (1.0, 0.5):
        with ScaleSites(beta, pair.description.kl_sites()):
            rows = [
                [flat(gradient(o, pair, x, s), ["m", "t"]) for s in range(repeats)]
                for o in (IWAE(3), DReG(3))
            ]
        one, two = (torch.stack(r) for r in rows)
        error = (one - two).std(0) / repeats**0.5
        assert error.norm() < 0.1 * one.mean(0).norm()
        assert ((one - two).mean(0).abs() < 4.5 * error).all()


@pytest.mark.parametrize("kind", [Chain, PPCA])
def test_a_captured_step_is_the_eager_one(kind, monkeypatch):
    capture_only(monkeypatch)
    x = matrix(60, 4 if kind is PPCA else 3)
    pair = ready(kind(num_data=60), x)
    step = Step(pair, SVI(pair, DReG(3)).phases[0], batches(x))
    index = torch.from_numpy(np.random.RandomState(0).permutation(60)[:20])
    assert_compiles(step, (index,), rtol=1e-6, scales=(1.0, 0.3))
