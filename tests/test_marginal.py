r"""The log-likelihood by fitted proposals, against closed forms and quadrature."""

import math
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.special import logsumexp
from sklearn.decomposition import PCA
from torch import nn

from pyro_aevb.data.sets import load
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators import curvature, laplace
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.curvature import Curvature
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.estimators.proposals import Normals, fit, refined
from pyro_aevb.estimators.reliability import contradicts
from pyro_aevb.estimators.spot_check import spot_check
from tests.linear_gaussian import PPCA, batches, ready
from tests.linear_gaussian import marginal as closed_form


class Linear(nn.Module):
    """Any likelihood of a linear map of any code, whose guide is one normal or what it is told."""

    def __init__(self, likelihood, prior, guide, features, latent, scale=1.0, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.W = nn.Parameter(scale * torch.randn(latent, features, generator=generator))
        self.likelihood, self.prior, self.posterior = likelihood, prior, guide

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.likelihood(z, self.W).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))


def standard(latent):
    return lambda x: dist.Normal(x.new_zeros(len(x), latent), 1.0).to_event(1)


def grid(joint, x, low, high, points=401):
    """log p(x) by the trapezoidal rule over a square in the unconstrained latents."""
    line = torch.linspace(low, high, points)
    axes = torch.meshgrid(*[line] * joint.dim, indexing="ij")
    q = torch.stack([axis.flatten() for axis in axes], -1)
    found = []
    for datum in x.split(1):
        terms = [
            joint.terms(datum.expand(len(part), *datum.shape[1:]), part).sum(0)
            for part in q.split(20_000)
        ]
        cell = joint.dim * math.log(float(line[1] - line[0]))
        found.append(logsumexp(torch.cat(terms).double().numpy()) + cell)
    return np.array(found)


def by_quadrature(pair, x, low=-7.0, high=7.0, points=401):
    with torch.no_grad(), pair.running():
        return grid(Joint(pair, x), x, low, high, points)


def assert_right(pair, x, expected, most=0.08, **options):
    """Within four Monte Carlo errors, of 0.02 nats or of what 64 chains leave."""
    found = MarginalLikelihood(pair, target=0.02, max_samples=20_000, **options)(batches(x))
    assert found.proposal == "laplace"
    errors = np.sqrt(found.relative_variance[0])
    assert errors.max() < most and np.median(errors) < 0.03
    assert (abs(found.log_likelihood[0] - expected) < 4 * errors + 1e-4).all()
    return found


@pytest.mark.parametrize("latent", [2, 10, 50])
def test_a_linear_gaussian_posterior_is_the_proposal(latent):
    source = PPCA(features=60, latent=latent)
    x = torch.randn(8, 60, dtype=torch.float64)
    pair, exact = ready(source, x), closed_form(source.W, source.mu.detach(), 0.6).logpdf(x)
    with torch.no_grad(), pair.running():
        joint = Joint(pair, x)
        curvature = Curvature(joint, x[:2], x.new_zeros(2, latent))
        normals = fit(lambda x, q: curvature(x, q), x, 3 * torch.randn(3, 8, latent).double())
        q = normals.sample(200, 1.0)
        log_weights = joint.terms(x, q).sum(0) - normals.log_prob(q, 1.0)
    # One mode, and every weight is p(x): as many effective samples as there are draws.
    assert normals.modes().tolist() == [1] * 8
    np.testing.assert_allclose(log_weights, np.broadcast_to(exact, (200, 8)), rtol=0, atol=1e-8)
    # The guide, far from it, has a twentieth of the draws by default, at no more than their cost.
    found = MarginalLikelihood(pair)(batches(x))
    assert (found.ess[0] / found.num_samples[0] > 0.9).all() and not found.num_temperatures.any()
    np.testing.assert_allclose(found.log_likelihood[0], exact, rtol=0, atol=0.05)


def normals_at(loc, scales):
    """One normal for each datum with its axes along the coordinates, as Laplace's would be."""
    n, d = loc.shape
    back = torch.diag_embed(scales)
    ones = torch.full((n, 1, d), 0.5, dtype=loc.dtype)
    parts = (value.unsqueeze(1) for value in (loc, back.inverse(), back))
    return Normals(torch.zeros(n, 1, dtype=loc.dtype), *parts, ones)


def test_steps_towards_the_best_normal_end_at_the_posterior_where_that_is_one():
    torch.manual_seed(0)
    mean, deviations = torch.randn(3, 4).double(), 0.5 + torch.rand(3, 4).double()

    def slope(q):
        return (mean - q) / deviations**2

    there = refined(normals_at(mean, deviations), slope)
    for found, exact in zip(
        vars(there).values(), vars(normals_at(mean, deviations)).values(), strict=True
    ):
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)
    found = normals_at(torch.zeros(3, 4).double(), torch.ones(3, 4).double())
    for _ in range(60):
        found = refined(found, slope)
    torch.testing.assert_close(found.loc[:, 0], mean, rtol=0, atol=1e-6)
    scales = found.back[:, 0].diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(scales, deviations, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.into @ found.back, torch.eye(4).double().expand(3, 1, 4, 4))


@pytest.mark.parametrize("case", ["few", "faint", "many"])
def test_few_directions_of_many_hold_what_the_data_say(case):
    """300 codes: 40 of the data's directions say much; or 80 more a little; or 120 much."""
    torch.manual_seed(0)
    features = 40 if case == "few" else 120
    source = PPCA(features=features, latent=300)
    if case == "faint":  # squared singular values of 40 are a sixteenth of the noise's
        with torch.no_grad():
            source.W[40:] *= 0.25 * 0.6 / math.sqrt(300)
    x = torch.randn(6, features, dtype=torch.float64)
    pair, exact = ready(source, x), closed_form(source.W, source.mu.detach(), 0.6).logpdf(x)
    with torch.no_grad(), pair.running():
        joint = Joint(pair, x)
        expand = Curvature(joint, x[:2], x.new_zeros(2, 300))
        normals = fit(lambda x, q: expand(x, q), x, torch.randn(1, 6, 300).double())
        q = normals.sample(200, 1.0)
        log_weights = joint.terms(x, q).sum(0) - normals.log_prob(q, 1.0)
    assert expand.rank == (0 if case == "many" else 64)
    if case == "faint":  # some of it is left out, and no more than a little of the draws' worth
        found = MarginalLikelihood(pair)(batches(x))
        assert (found.ess / found.num_samples > 0.7).all() and not found.num_temperatures.any()
        errors = np.sqrt(found.relative_variance[0])
        assert errors.max() < 0.03
        assert (abs(found.log_likelihood[0] - exact) < 4 * errors).all()
        assert log_weights.std(0).min() > 1e-3
    else:
        np.testing.assert_allclose(log_weights, np.broadcast_to(exact, (200, 6)), rtol=0, atol=1e-8)


def test_in_many_dimensions_priors_that_depend_on_one_another_leave_the_guide(monkeypatch):
    monkeypatch.setattr(curvature, "FULL", 1)
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    said = []
    found = MarginalLikelihood(ready(Chain(), x), num_samples=50, say=said.append)(batches(x))
    assert found.proposal == "guide" and "more than 1, and its priors depend" in said[0]


@pytest.mark.parametrize("data, latent", [("digits", 10), ("mnist5k", 20)])
def test_probabilistic_pca_equals_that_of_scikit_learn(data, latent):
    train = load(data).train
    values = (train.images.double() / train.scale).flatten(1).numpy()
    pca = PCA(latent).fit(values)
    x = torch.from_numpy(values[:40])
    source = PPCA(features=x.shape[1], latent=latent, noise=math.sqrt(pca.noise_variance_))
    with torch.no_grad():
        variances = pca.explained_variance_ - pca.noise_variance_
        source.W.copy_(torch.from_numpy(pca.components_.T * np.sqrt(variances)))
        source.mu.copy_(torch.from_numpy(pca.mean_))
    assert_right(ready(source, x), x, pca.score_samples(values[:40]))


def folded(likelihood_of, latent=2):
    return Linear(
        lambda z, W: dist.Normal(likelihood_of(z) @ W, 0.4),
        standard(latent),
        standard(latent),
        5,
        2,
    )


def one_sided(x):
    """A guide that knows of one of two modes."""
    return dist.Normal(torch.ones(len(x), 2), 0.3).to_event(1)


@pytest.mark.parametrize(("fold", "modes"), [("one", 2), ("both", 4)])
def test_every_mode_of_a_posterior_is_found(fold, modes):
    fold_of = (
        (lambda z: torch.cat([z[..., :1].abs(), z[..., 1:]], -1)) if fold == "one" else torch.abs
    )
    pair_of = folded(fold_of)
    pair_of.posterior = one_sided
    torch.manual_seed(1)
    x = (1.5 + 0.5 * torch.rand(12, 2)) @ pair_of.W.detach() + 0.2 * torch.randn(12, 5)
    pair = ready(pair_of, x)
    expected = by_quadrature(pair, x, points=801)
    found = assert_right(pair, x, expected)
    assert (found.num_modes == modes).mean() > 0.9
    # From the guide alone one mode is found: too low by log 2 or log 4, and its k-hat is good.
    with torch.no_grad(), pair.running():
        joint = Joint(pair, x)
        curvature = Curvature(joint, x[:2], x.new_ones(2, 2))
        normals = fit(lambda x, q: curvature(x, q), x, torch.ones(1, 12, 2))
        q = normals.sample(4000, 1.2)
        log_weights = joint.terms(x, q.float()).sum(0) - normals.log_prob(q, 1.2)
    weights = laplace.LogWeights(4000, tail=True)
    weights.add(log_weights)
    missing = expected - weights.log_mean().numpy()
    np.testing.assert_allclose(missing, math.log(modes), rtol=0, atol=0.15)
    assert float(weights.pareto_k().max()) < 0.5


CASES = {
    "poisson": (
        lambda z, W: dist.Poisson((z @ W).exp()),
        standard(2),
        lambda g: torch.poisson(torch.full((6, 5), 2.0), generator=g),
    ),
    "student_t": (
        lambda z, W: dist.StudentT(3.0, z @ W, 0.5),
        standard(2),
        lambda g: 2 * torch.randn(6, 5, generator=g),
    ),
    "mixture": (  # no parameters of its own: the exact Hessian
        lambda z, W: dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2)),
            dist.Normal(torch.stack([z @ W, z @ W + 0.5], -1), 0.6),
        ),
        standard(2),
        lambda g: torch.randn(6, 5, generator=g),
    ),
    "gamma": (
        lambda z, W: dist.Normal(z @ W, 0.5),
        lambda x: dist.Gamma(x.new_full((len(x), 2), 1.5), 1.0).to_event(1),
        lambda g: torch.randn(6, 5, generator=g),
    ),
    "dirichlet": (
        lambda z, W: dist.Normal(z @ W, 0.5),
        lambda x: dist.Dirichlet(x.new_full((len(x), 3), 0.8)),
        lambda g: torch.randn(6, 5, generator=g),
    ),
    "uniform": (
        lambda z, W: dist.Normal(z @ W, 0.5),
        lambda x: dist.Uniform(x.new_full((len(x), 2), -1.0), 2.0).to_event(1),
        lambda g: torch.randn(6, 5, generator=g),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_other_likelihoods_and_constrained_latents_equal_quadrature(name):
    likelihood, prior, draw = CASES[name]
    latent = 3 if name == "dirichlet" else 2
    source = Linear(likelihood, prior, prior, 5, latent, scale=0.7)
    x = draw(torch.Generator().manual_seed(3))
    pair = ready(source, x)
    wide = 20.0 if name in ("gamma", "dirichlet", "uniform") else 7.0
    assert_right(pair, x, by_quadrature(pair, x, -wide, wide, points=1201))


class Chain(nn.Module):
    """Two sites of which one is the mean and the scale of the other, and a constrained one."""

    def __init__(self, closed=True):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 1.5]))

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(len(x)), 1.0))
            b = pyro.sample("b", dist.LogNormal(0.5 * a, 0.7))
            loc = torch.stack([a, b], -1) @ torch.stack([self.w, self.w.flip(0)])
            pyro.sample("x", dist.Normal(loc, 0.5).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.3 * x[:, 0], 0.8))
            pyro.sample("b", dist.LogNormal(0.2 * a, 0.6))


def test_sites_that_depend_on_one_another_are_one_vector():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    pair = ready(Chain(), x)
    assert_right(pair, x, by_quadrature(pair, x, -8.0, 8.0, points=801))


def test_the_precision_is_that_of_gauss_and_newton():
    likelihood, prior, draw = CASES["poisson"]
    source, x = Linear(likelihood, prior, prior, 5, 2), draw(torch.Generator().manual_seed(3))
    pair, q = ready(source, x), torch.randn(6, 2)
    with torch.no_grad(), pair.running():
        joint = Joint(pair, x)
        value, slope, precision, prior_part = Curvature(joint, x, q)(x, q)
        rates = (q @ source.W).exp()
        # eta = rate, its Jacobian rate W, its information 1 / rate.
        by_hand = torch.einsum("di,ni,ei->nde", source.W, rates, source.W) + torch.eye(2)
    torch.testing.assert_close(precision, by_hand, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prior_part, torch.eye(2).expand(6, 2, 2))
    torch.testing.assert_close(slope, (x - rates) @ source.W.T - q, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(value, joint.terms(x, q).sum(0))


def test_the_exact_hessian_stands_in_for_other_likelihoods():
    likelihood, prior, draw = CASES["mixture"]
    source, x = Linear(likelihood, prior, prior, 5, 2), draw(torch.Generator().manual_seed(3))
    pair, q = ready(source, x), torch.randn(6, 2)
    with torch.no_grad(), pair.running():
        joint = Joint(pair, x)
        found = Curvature(joint, x, q)(x, q)[2]
        for i in range(6):
            exact = torch.autograd.functional.hessian(
                lambda q, i=i: joint.terms(x[i : i + 1], q[None]).sum(), q[i]
            )
            torch.testing.assert_close(found[i], -exact, rtol=1e-4, atol=1e-4)


def test_a_hard_datum_is_annealed_from_the_proposal_to_the_same_value(monkeypatch):
    likelihood, prior, draw = CASES["student_t"]
    source, x = Linear(likelihood, prior, prior, 5, 2), draw(torch.Generator().manual_seed(3))
    pair = ready(source, x)
    monkeypatch.setattr(laplace, "HARD", -1.0)
    monkeypatch.setattr(laplace, "HARD_IF_BENT", -1.0)
    monkeypatch.setattr(laplace, "CHAINS", 2000)
    found = MarginalLikelihood(pair)(batches(x))
    assert (found.num_temperatures == laplace.TEMPERATURES).all()
    assert (found.num_samples == 2000).all()
    errors = np.sqrt(found.relative_variance[0])
    assert errors.max() < 0.02
    assert (abs(found.log_likelihood[0] - by_quadrature(pair, x)) < 4 * errors + 1e-3).all()


def test_an_estimate_is_a_bound_in_expectation():
    """Of few draws from a poor proposal: E[p-hat] = p(x), to 4 standard errors of 400 repeats."""
    likelihood, prior, draw = CASES["student_t"]
    source, x = Linear(likelihood, prior, prior, 5, 2), draw(torch.Generator().manual_seed(3))[:3]
    pair = ready(source, x)
    expected = by_quadrature(pair, x)
    many = batches(x.repeat(300, 1))
    found = MarginalLikelihood(pair, target=1.0, max_samples=100)(many).log_likelihood[0]
    ratio = np.exp(found.reshape(300, 3) - expected)
    errors = ratio.std(0, ddof=1) / math.sqrt(300)
    assert errors.max() < 0.02
    assert (abs(ratio.mean(0) - 1) < 4 * errors).all()


def test_the_prior_and_the_guide_as_proposals():
    source, x = PPCA(features=4), torch.randn(5, 4, dtype=torch.float64)
    pair, exact = ready(source, x), closed_form(source.W, source.mu.detach(), 0.6).logpdf(x)
    plain = MarginalLikelihood(pair, "prior", num_samples=400_000)(batches(x))
    errors = np.sqrt(plain.relative_variance[0])
    assert errors.max() < 0.05 and (abs(plain.log_likelihood[0] - exact) < 4 * errors).all()
    guided = MarginalLikelihood(pair, "guide", num_samples=500, seed=3)(batches(x))
    bound = score(pair, batches(x), 500, seed=3)
    np.testing.assert_array_equal(guided.log_likelihood, bound.log_weight)
    np.testing.assert_allclose(guided.relative_variance, (1 / bound.ess - 1 / 500) * 500 / 499)


def test_memory_and_blocks_change_no_value():
    likelihood, prior, draw = CASES["poisson"]
    source, x = Linear(likelihood, prior, prior, 5, 2), draw(torch.Generator().manual_seed(3))
    pair = ready(source, x)
    whole = MarginalLikelihood(pair)(batches(x))
    small = MarginalLikelihood(pair, memory=4000, compile="off")(batches(x))
    np.testing.assert_allclose(whole.log_likelihood, small.log_likelihood, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(whole.num_samples, small.num_samples)


class Counted(nn.Module):
    """A code that is an index."""

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([-1.0, 1.0]))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(x.new_ones(len(x), 2)))
            loc = self.loc[z].unsqueeze(-1)
            pyro.sample("x", dist.Normal(loc.expand_as(x), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=torch.stack([-x.sum(-1), x.sum(-1)], -1)))


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.round()

    @staticmethod
    def backward(ctx, slope):
        return slope


@pytest.mark.parametrize("case", ["discrete", "rough", "large"])
def test_pairs_it_is_not_for_are_drawn_from_the_guide(case, monkeypatch):
    x = torch.randn(6, 5)
    if case == "discrete":
        source, reason = Counted(), "no one transform makes of real numbers"
    elif case == "rough":
        source = folded(Rounded.apply)
        reason = "cannot be differentiated"
    else:
        monkeypatch.setattr(curvature, "LARGEST", 1)
        source, reason = folded(torch.abs), "2 latent dimensions are more than 1"
    pair, said = ready(source, x), []
    found = MarginalLikelihood(pair, num_samples=50, say=said.append)(batches(x))
    assert found.proposal == "guide" and len(said) == 1 and reason in said[0]
    np.testing.assert_array_equal(found.log_likelihood, score(pair, batches(x), 50).log_weight)


def test_a_target_that_cannot_be_is_refused():
    source, x = PPCA(features=4), torch.randn(5, 4, dtype=torch.float64)
    with pytest.raises(UsageError, match="monte_carlo_error is 0"):
        MarginalLikelihood(ready(source, x), target=0)


def test_annealing_from_the_proposal_brackets_the_exact_value():
    source, x = PPCA(features=20, latent=10), torch.randn(30, 20, dtype=torch.float64)
    pair, exact = ready(source, x), closed_form(source.W, source.mu.detach(), 0.6)
    gaps = {}
    for start in ("laplace", "prior"):
        anneal = Annealer(pair, x, 16, 8, 3, start=start)
        below = anneal(batches(x)).lower() - exact.logpdf(x)
        bracket = anneal.bracket(x)
        truth = exact.logpdf(bracket.x)
        low, high = (bracket.there.lower() - truth).mean(), (bracket.back.upper() - truth).mean()
        gaps[start] = below.mean(), low, high
    # The prior is 8 temperatures away by nats; the fitted normals, of width 1.3, by hundredths.
    assert all(abs(gap) < 0.05 for gap in gaps["laplace"])
    assert gaps["prior"][0] < -1 and gaps["prior"][2] - gaps["prior"][1] > 1


def test_a_spot_check_sees_a_mode_that_an_estimate_lacks(tempered):
    pair_of = folded(lambda z: torch.cat([z[..., :1].abs(), z[..., 1:]], -1))
    torch.manual_seed(1)
    x = (1.5 + 0.5 * torch.rand(8, 2)) @ pair_of.W.detach() + 0.2 * torch.randn(8, 5)
    pair = ready(pair_of, x)
    found = MarginalLikelihood(pair)(batches(x))
    check = spot_check(pair, batches(x), found)
    assert check["standard_error"] < 0.2 and not contradicts(check)
    assert abs(check["value"]) < 4 * check["standard_error"]
    lacking = replace(found, log_likelihood=found.log_likelihood - math.log(2))
    other = spot_check(pair, batches(x), lacking)
    assert other["value"] == pytest.approx(check["value"] + math.log(2)) and contradicts(other)


class Auxiliary(PPCA):
    """Its guide draws what the model does not have, so its density at given codes is unknown."""

    def guide(self, x):
        with self.plate(x):
            posterior = dist.Normal(x @ self.A.T + self.c, self.log_s.exp()).to_event(1)
            u = pyro.sample("u", posterior, infer={"is_auxiliary": True})
            pyro.sample(
                "z", dist.Delta(2 * u, log_density=x.new_tensor(-2 * math.log(2)), event_dim=1)
            )


def test_where_the_guide_has_no_density_the_prior_takes_its_share():
    source, x = Auxiliary(), torch.randn(8, 4, dtype=torch.float64)
    assert_right(ready(source, x), x, closed_form(source.W, source.mu.detach(), 0.6).logpdf(x))
