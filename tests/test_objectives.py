"""Objectives against closed forms, Pyro's own with the same draws, and sums written out."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
import torch
from harness import assert_mean, bound, flat
from harness import gradient as gradients
from linear_gaussian import PPCA, BayesianPPCA, GaussianMean, Hierarchy, matrix, ready, with_data
from pyro.infer import Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_aevb.errors import UsageError
from pyro_aevb.models import Autoencoder
from pyro_aevb.pairs.handlers import ScaleSites
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.objectives.iwae import IWAE

BETA = 0.3


def gradient(objective, pair, x, seed=0):
    return flat(gradients(objective, pair, x, seed))


def normal(x, loc, scale):
    return scipy.stats.norm(loc, scale).logpdf(x)


def numpy(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def terms(source, x):
    """log p(x|z), log p(z), log q(z|x) at the model's last z, per row; x repeats with the rows."""
    z, W, mu, A, c, log_s = numpy(source.z, source.W, source.mu, source.A, source.c, source.log_s)
    x = np.resize(x.numpy(), (z.size // z.shape[-1], x.shape[1])).reshape(*z.shape[:-1], -1)
    return (
        normal(x, z @ W.T + mu, source.noise).sum(-1),
        normal(z, 0, 1).sum(-1),
        normal(z, x @ A.T + c, np.exp(log_s)).sum(-1),
    )


# The ELBO


@pytest.mark.parametrize("analytic", [True, False])
@pytest.mark.parametrize("vectorized", [True, False])
def test_elbo_and_its_gradient_equal_the_closed_form(analytic, vectorized):
    source, x, pair = with_data(PPCA(num_data=30), 4)
    reconstruction, kl = source.closed_form(x)
    exact = 30 / 4 * (reconstruction - kl).sum()
    parameters = list(pair.trainable().values())
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(exact, parameters)])

    draws = 20 if vectorized else 12
    particles = 1000 if vectorized else 20
    options = {"vectorize_particles": vectorized, "max_plate_nesting": 1}
    objective = TraceELBO(particles, analytic_kl=analytic, **options)
    values = np.array([bound(objective, pair, x, seed).item() for seed in range(draws)])
    error = scipy.stats.sem(values)
    assert error < 0.03 * abs(exact.item())
    assert abs(values.mean() - exact.item()) < 4.5 * error
    grads = torch.stack([gradient(objective, pair, x, seed) for seed in range(draws)])
    error = grads.std(0) / draws**0.5
    assert error.norm() < (0.02 if vectorized else 0.2) * expected.norm()
    assert ((grads.mean(0) - expected).abs() < 5.5 * error + 1e-9).all()


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("kind", [PPCA, BayesianPPCA])
def test_elbo_equals_pyros_with_the_same_draws(kind, particles):
    source = kind(num_data=30)
    x = matrix(4, 4 if kind is PPCA else 3)
    pair = ready(source, x)
    for ours, theirs in (
        (TraceELBO(particles, analytic_kl=False), Trace_ELBO(particles)),
        (TraceELBO(particles), TraceMeanField_ELBO(particles)),
    ):
        torch.testing.assert_close(bound(ours, pair, x), bound(theirs, pair, x), rtol=1e-12, atol=0)
        if kind is PPCA:
            torch.testing.assert_close(gradient(ours, pair, x), gradient(theirs, pair, x))


def test_the_value_read_and_the_value_differentiated_are_one():
    source, x, pair = with_data(PPCA(), 5)
    parameters = list(pair.trainable().values())
    for objective in (TraceELBO(2), IWAE(3)):
        expected, value = gradient(objective, pair, x), bound(objective, pair, x).item()
        pyro.set_rng_seed(0)
        assert objective.loss(pair.model, pair.guide, x) == pytest.approx(-value)
        pyro.set_rng_seed(0)
        assert objective.loss_and_grads(pair.model, pair.guide, x) == pytest.approx(-value)
        actual = -torch.cat([p.grad.flatten() for p in parameters])
        torch.testing.assert_close(actual, expected)
        for parameter in parameters:
            parameter.grad = None


@pytest.mark.parametrize("objective", [TraceELBO(), IWAE(4)])
def test_every_batch_is_scaled_to_the_whole_data_set(objective):
    source = GaussianMean(matrix(7, 2, seed=11))
    pair = ready(source, source.D)
    for x in (source.D[:4], source.D[4:], source.D):  # the last partial batch, and all
        value = bound(objective, pair, x).item()
        w = source.w.numpy()
        likelihood = 7 / len(x) * normal(x, w, source.noise).sum()
        kl = source.weight_kl()
        if isinstance(objective, IWAE):
            kl = (normal(w, source.loc, source.scale) - normal(w, 0, source.prior)).sum()
        assert value == pytest.approx(likelihood - kl, rel=1e-9)


def test_elbo_of_a_guide_that_draws_in_another_order():
    class Reversed(Hierarchy):
        def guide(self, x):  # the closed form of z1 would ignore z2, drawn from it
            with pyro.plate("data", len(x)):
                z1 = pyro.sample("z1", dist.Normal(x[:, :2], 0.5).to_event(1))
                pyro.sample("z2", dist.Normal(z1[:, :1], 0.7).to_event(1))

    pair, x = ready(Reversed(), matrix(5, 4)), matrix(5, 4)
    torch.testing.assert_close(bound(TraceELBO(), pair, x), bound(Trace_ELBO(), pair, x))


def test_the_weight_of_the_kl():
    source, x, pair = with_data(PPCA(num_data=30), 4)
    with ScaleSites(BETA, {"z"}):
        value = bound(TraceELBO(), pair, x).item()
        weighted = bound(IWAE(3), pair, x).item()
    log_x, log_z, log_q = terms(source, x)
    log_w = (log_x + BETA * (log_z - log_q)).reshape(3, 4)
    expected = 30 / 4 * (scipy.special.logsumexp(log_w, axis=0) - math.log(3)).sum()
    assert weighted == pytest.approx(expected, rel=1e-9)
    bound(TraceELBO(), pair, x)  # for its draw of z
    (kl,) = numpy(source.closed_form(x)[1])
    expected = 30 / 4 * (terms(source, x)[0] - BETA * kl).sum()
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["elbo", "sampled_elbo", "iwae", "dreg"])
def test_a_masked_prior_leaves_the_reconstruction(name):
    source = Autoencoder((5,), latent_dim=2, hidden=[4])
    x = (torch.rand(6, 5) > 0.5).float()
    pair, objective = ready(source, x), make_objective(name, 2)
    logits = source.likelihood(source.decoder(source.encoder(x)[0])).base_dist.logits
    expected = -binary_cross_entropy_with_logits(logits, x, reduction="sum")
    torch.testing.assert_close(bound(objective, pair, x), expected)
    grads = torch.autograd.grad(expected, list(pair.trainable().values()))
    expected = torch.cat([g.flatten() for g in grads])
    torch.testing.assert_close(gradient(objective, pair, x), expected)


# The importance-weighted bound


@pytest.mark.parametrize("num_data, K", [(None, 3), (50, 3), (10, 5)])  # 5 * 4 > 10
def test_iwae_keeps_the_weights_per_datum_and_the_scale_outside(num_data, K):
    source = PPCA(num_data=num_data)
    x = source.data(4)
    value = bound(IWAE(K), ready(source, x), x).item()
    log_x, log_z, log_q = terms(source, x)
    log_w = (log_x + log_z - log_q).reshape(K, 4)
    per_datum = scipy.special.logsumexp(log_w, axis=0) - math.log(K)
    assert value == pytest.approx((num_data or 4) / 4 * per_datum.sum(), rel=1e-10)


def test_iwae_draws_the_weights_once():
    source = BayesianPPCA(50)
    x = matrix(4, 3)
    value = bound(IWAE(6), ready(source, x), x).item()
    *_, W = source.seen  # after those of the inspection
    outside = normal(W, 0, 1).sum() - normal(W, source.loc, source.spread).sum()
    # Given W the guide is exact, so that every weight is p(x|W).
    assert value == pytest.approx(50 / 4 * source.log_likelihood(x, W).sum() + outside, rel=1e-9)


def test_iwae_gradient_equals_that_of_the_bound_written_out():
    K = 5
    source, x, pair = with_data(PPCA(num_data=30), 4)
    actual = gradient(IWAE(K), pair, x)
    rows = x.repeat(K, 1)
    loc, scale = rows @ source.A.T + source.c, source.log_s.exp()
    eps = ((source.z - loc) / scale).detach()
    z = loc + eps * scale
    squares = ((rows - source.mu - z @ source.W.T) / source.noise) ** 2
    log_w = -0.5 * squares.sum(1) - 0.5 * (z**2).sum(1) + 0.5 * (eps**2).sum(1) + scale.log().sum()
    exact = 30 / 4 * torch.softmax(log_w.view(K, 4), 0).detach().mul(log_w.view(K, 4)).sum()
    grads = torch.autograd.grad(exact, list(pair.trainable().values()))
    expected = torch.cat([g.flatten() for g in grads])
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


# Names and misuse


def test_objectives_by_name():
    assert (
        isinstance(make_objective("iwae", 7), IWAE) and make_objective("iwae", 7).num_particles == 7
    )
    assert make_objective("elbo", 2).analytic_kl and not make_objective("sampled_elbo").analytic_kl
    stock = make_objective("pyro.infer.TraceGraph_ELBO", 3)
    assert isinstance(stock, TraceGraph_ELBO) and stock.num_particles == 3
    assert make_objective(stock) is stock


@pytest.mark.parametrize(
    "name, particles, words",
    [
        ("elbow", 1, ["'elbow'", "sampled_elbo"]),
        ("pyro.infer.NoELBO", 1, ["NoELBO", "pyro.infer.Trace_ELBO"]),
        ("pyro.infer.SVI", 1, ["SVI", "not a subclass"]),
        ("iwae", 0, ["--num-particles is 0", "at least 1"]),
    ],
)
def test_wrong_objectives_are_named_in_one_line(name, particles, words):
    with pytest.raises(UsageError) as error:
        make_objective(name, particles)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


@pytest.mark.parametrize("objective", [TraceELBO(), IWAE(2)])
def test_a_guide_without_reparameterization_is_refused(objective):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli((pyro.param("slope", torch.tensor(1.0)) * x).sigmoid()))

    x = torch.randn(4)
    with pytest.raises(UsageError, match="'z' is not reparameterized.*TraceGraph_ELBO"):
        bound(objective, ready((model, guide), x), x)


class Choice(nn.Module):
    """x ~ N(theta c, 1), of which the guide draws c as the prior does."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.7, -0.4]).double())
        self.register_buffer("p", torch.tensor([0.2, 0.8]).double())

    def choose(self):
        return pyro.sample("c", dist.Bernoulli(self.p).to_event(1))

    def model(self, x):
        loc = self.theta * self.choose()
        with pyro.plate("data", size=30, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x):
        self.choose()


@pytest.mark.parametrize("analytic", [True, False])
def test_a_fixed_choice_needs_no_reparameterization(analytic):
    source, x = Choice(), matrix(6, 2)
    pair, objective = ready(source, x), TraceELBO(analytic_kl=analytic)
    rows = []
    for seed in range(2000):
        value = bound(objective, pair, x, seed)
        (slope,) = torch.autograd.grad(value, source.theta)
        rows.append(torch.cat([value.detach()[None], slope]))
    samples = torch.stack(rows)
    exact = 0.0  # over all values of c, by theta
    for c, p in ((0.0, 1 - source.p), (1.0, source.p)):
        fit = 0.5 * (x - source.theta * c) ** 2 + 0.5 * math.log(2 * math.pi)
        exact = exact - 5 * (p * fit).sum()
    (slope,) = torch.autograd.grad(exact, source.theta)
    expected = torch.cat([exact.detach()[None], slope])
    assert_mean(samples, expected)
    assert samples[:, 0].std() / math.sqrt(2000) < 0.01 * exact.abs()


def test_a_choice_that_hangs_on_what_is_trained_is_refused():
    class Hanging(Choice):
        def choose(self):
            z = pyro.sample("z", dist.Normal(self.theta, 1.0).to_event(1))
            return pyro.sample("c", dist.Bernoulli(z.sigmoid()).to_event(1))

    x = matrix(6, 2)
    with pytest.raises(UsageError, match="'c' is not reparameterized.*TraceGraph_ELBO"):
        bound(TraceELBO(), ready(Hanging(), x), x)
