"""Hamiltonian Monte Carlo against exact posteriors, quadrature, and its own geometry."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import in_training
from linear_gaussian import PPCA, BayesianPPCA, GaussianMean, Hierarchy, posterior, ready, with_data
from scipy import stats

from pyro_aevb.data.sets import load
from pyro_aevb.engine.replay import Replay, Way
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.hmc import Point, adapt, evaluate, leapfrog, transition
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.models import VAE, Autoencoder
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import load_pair

ONE = torch.ones(1).double()
TWO = torch.ones(2).double()


def run(at, q, step_size, transitions, weights=TWO, num_steps=10):
    """Move chains and return where they are, with the mean acceptance."""
    point, probabilities = at(q), []
    for _ in range(transitions):
        point, move = transition(at, point, weights, torch.tensor(step_size).double(), num_steps)
        probabilities.append(float(move.probability.mean()))
    return point.q, np.mean(probabilities)


def ppca(n=3):
    """A pair, its p(x, z) as chains see it, and the mean and root of the covariance of p(z|x)."""
    pair, x, ready_pair = with_data(PPCA(), n)
    with ready_pair.active(), WholeBatch():
        joint = Joint(ready_pair, x)
    gain, covariance = posterior(pair.W.detach(), pair.noise)
    mean = (x - pair.mu.detach()) @ gain.T

    def at(q):
        with ready_pair.active(), WholeBatch():
            return Point(q, *joint.evaluate(x, q))

    return at, mean, torch.linalg.cholesky(covariance)


@pytest.mark.parametrize("start, transitions", [("posterior", 12), ("far", 40)])
def test_the_posterior_is_left_invariant_and_reached(start, transitions):
    """24,000 chains, a step size at which a trajectory that is never rejected would be 10% off."""
    at, mean, root = ppca()
    z = torch.randn(8000, 3, 2).double()
    q = mean + z @ root.T if start == "posterior" else 4 + 0.1 * z
    q, acceptance = run(at, q, 0.5, transitions, num_steps=4)
    assert 0.6 < acceptance < 0.9
    white = torch.linalg.solve_triangular(root, (q - mean).flatten(0, 1).T, upper=False).numpy()
    # Of N standard normals the mean has error 0.0065, a covariance 0.0065 or 0.009.
    np.testing.assert_allclose(white.mean(1), 0, atol=0.025)
    np.testing.assert_allclose(np.cov(white), np.eye(2), atol=0.035)
    for coordinate in white:
        assert stats.kstest(coordinate, "norm").pvalue > 0.01


def banana(q):
    r"""log p(x|z) and log p(z) of z1 ~ N(0, 1), x - z2 + z1^2 ~ N(0, 0.5^2), z2 ~ N(0, 1.5^2)."""
    likelihood = -((1.0 - q[..., 1] + q[..., 0] ** 2) ** 2) / (2 * 0.5**2)
    return torch.stack([likelihood, -(q[..., 0] ** 2) / 2 - q[..., 1] ** 2 / (2 * 1.5**2)])


@pytest.mark.parametrize("temper", [1.0, 0.3])
def test_a_curved_target_agrees_with_quadrature(temper):
    grid = torch.linspace(-8, 8, 1601).double()
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
    weights = torch.tensor([temper, 1.0]).double()
    density = torch.tensordot(weights, banana(points), 1).exp().numpy()
    density /= density.sum()
    # Chains start in draws from the target, all that is left is to stay there while they move.
    drawn = torch.multinomial(torch.from_numpy(density).flatten(), 20000, replacement=True)
    start = points.flatten(0, 1)[drawn] + (torch.rand(20000, 2).double() - 0.5) * 0.01
    q, acceptance = run(lambda q: evaluate(banana, q), start, 0.3, 15, weights)
    assert 0.6 < acceptance < 0.98
    assert abs(np.corrcoef(q[:, 0], start[:, 0])[0, 1]) < 0.3
    for power in ((1, 0), (0, 1), (2, 0), (0, 2), (2, 1)):
        values = [(v[..., 0] ** power[0] * v[..., 1] ** power[1]).numpy() for v in (points, q)]
        expected, drawn = (density * values[0]).sum(), values[1]
        assert drawn.mean() == pytest.approx(expected, abs=3.5 * drawn.std() / 20000**0.5), power


def test_leapfrog_is_reversible_and_its_energy_error_is_of_second_order():
    at, mean, _ = ppca()
    q, p = mean + torch.randn(200, 3, 2).double(), torch.randn(200, 3, 2).double()
    errors = []
    for halving in range(4):
        size, steps = torch.tensor(0.2 / 2**halving).double(), 5 * 2**halving
        end, momentum = leapfrog(at, at(q), p, TWO, size, steps)
        back, returned = leapfrog(at, end, -momentum, TWO, size, steps)
        torch.testing.assert_close(back.q, q, rtol=0, atol=1e-10)
        torch.testing.assert_close(returned, -p, rtol=0, atol=1e-10)
        energies = [
            0.5 * m.square().sum(-1) - e.terms.sum(0) for m, e in ((momentum, end), (p, at(q)))
        ]
        errors.append(float((energies[0] - energies[1]).abs().mean()))
    np.testing.assert_allclose(np.diff(np.log2(errors)), -2, atol=0.1)


@pytest.mark.parametrize("target", [0.65, 0.9])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_step_sizes_reach_the_target_acceptance(target, shape):
    """One for all chains, or one for each datum, whose posterior has a scale of its own."""
    scale = torch.tensor([0.05, 0.2, 1.0]).double()
    if not shape:
        scale = torch.full((3,), 0.2).double()

    def at(q):
        return evaluate(lambda q: -0.5 * (q / scale[:, None]).square().sum(-1)[None], q)

    point = at(scale[:, None] * torch.randn(300, 3, 4).double())
    step_size, average = torch.full(shape, 0.01).double(), torch.full(shape, target).double()
    found, sizes = [], []
    for i in range(500):
        point, move = transition(at, point, ONE, step_size)
        step_size, average = adapt(step_size, average, move.probability, target, (1e-4, 3.0))
        if i >= 300:
            found.append(move.probability.mean(0) if shape else move.probability.mean())
            sizes.append(step_size)
    torch.testing.assert_close(
        torch.stack(found).mean(0), torch.full(shape, target).double(), rtol=0, atol=0.02
    )
    if shape:  # the step size scales with the posterior
        relative = torch.stack(sizes).mean(0) / scale
        torch.testing.assert_close(relative, relative.mean().expand(3), rtol=0.1, atol=0)


def test_the_rule_of_adaptation():
    """By hand: averages 0.9 a + 0.1 mean, then 2% up or down, within the limits."""
    size, average = torch.tensor([0.1, 0.1, 0.499]), torch.tensor([0.65, 0.65, 0.9])
    probability = torch.tensor([[1.0, 0.0, 1.0], [0.6, 0.5, 1.0]])
    size, average = adapt(size, average, probability, 0.65)
    torch.testing.assert_close(average, torch.tensor([0.665, 0.61, 0.91]))
    torch.testing.assert_close(size, torch.tensor([0.102, 0.098, 0.5]))
    size, average = adapt(torch.tensor(1e-4), torch.tensor(0.5), probability, 0.65)
    torch.testing.assert_close(average, torch.tensor(0.9 * 0.5 + 0.1 * 4.1 / 6))
    torch.testing.assert_close(size, torch.tensor(1e-4))


def test_energies_that_are_not_finite_are_refused_and_escaped():
    """A half-normal: outside of it the density is not a number, or zero."""

    def half(outside):
        def terms(q):
            value = -0.5 * q[..., 0] ** 2
            return torch.where(q[..., 0] > 0, value, torch.full_like(value, outside))[None]

        return lambda q: evaluate(terms, q)

    for outside in (np.nan, -np.inf, np.inf):
        at = half(outside)
        point = at(torch.randn(20000, 1).double().abs())
        refused = 0
        for _ in range(5):
            point, move = transition(at, point, ONE, torch.tensor(0.3).double(), 5)
            assert not (move.accepted & move.diverged).any()
            assert bool((move.probability[move.diverged] == 0).all())
            refused += int(move.diverged.sum())
        assert refused > 1000
        assert bool(point.terms.isfinite().all()) and bool(point.gradients.isfinite().all())
        assert stats.kstest(point.q[:, 0].numpy(), "halfnorm").pvalue > 0.01
        # Chains that start outside: a finite proposal is taken, none other.
        point, move = transition(
            at, at(torch.full((1000, 1), -0.2).double()), ONE, torch.tensor(0.3).double(), 5
        )
        assert (
            bool((move.accepted == ~move.diverged).all()) and 200 < int(move.accepted.sum()) < 800
        )


def test_captured_and_compiled_transitions_are_the_eager_ones():
    pixels = load("digits").train
    x = (pixels.images[:6] / pixels.scale).flatten(1).gt(0.5).float()
    pair = load_pair(VAE((64,), latent_dim=3, hidden=[8]))
    inspect(pair, x)
    q, size, weights = torch.randn(5, 6, 3), torch.tensor(0.2), torch.tensor([0.7, 1.0])
    with in_training(pair):
        joint = Joint(pair, x)

        def moved(terms, x, q, size):
            def at(q):
                return Point(q, *terms(x, q))

            point, move = transition(at, at(q), weights, size, 3)
            return [*point, move.probability, move.accepted.float()]

        def step(x, q, size):
            return moved(joint.evaluate, x, q, size)

        results = []
        compiled = partial(moved, Replay(joint.evaluate, Way.COMPILED, pytest.fail))
        for run in (step, Replay(step, Way.GRAPH, pytest.fail), compiled):
            torch.manual_seed(3)
            results.append(run(x, q, size))
    assert 0 < float(results[0][-1].mean()) <= 1
    assert not torch.equal(results[0][0], q)
    for other in results[1:]:
        for value, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_the_joint_of_a_pair_is_its_log_density_at_plate_scale_one():
    """Two sites; global weights with a plate of another size; SciPy's densities."""
    torch.manual_seed(1)
    hierarchy, x = Hierarchy(), torch.randn(5, 4).double()
    pair = ready(hierarchy, x)
    q = torch.randn(3, 5, 3).double()
    with pair.active(), WholeBatch():
        joint = Joint(pair, x)
        terms, gradients = joint.evaluate(x, q)
        prior = joint.draw(pair.model, x.new_zeros(20000, 4))
    order = [site.name for site in pair.description.local_sites]
    z2, z1 = (joint.values(q)[name] for name in ("z2", "z1"))
    assert joint.dim == 3 and torch.equal(joint.vector(joint.values(q), 2), q)
    expected = stats.norm(z1 @ hierarchy.W.T, hierarchy.noise).logpdf(x).sum(-1)
    np.testing.assert_allclose(terms[0], expected)
    expected = stats.norm.logpdf(z2).sum(-1)
    expected += stats.norm(z2 * hierarchy.a, hierarchy.t).logpdf(z1).sum(-1)
    np.testing.assert_allclose(terms[1], expected)
    by_hand = (x - z1 @ hierarchy.W.T) @ hierarchy.W / hierarchy.noise**2
    torch.testing.assert_close(joint.values(gradients[0])["z1"], by_hand)
    assert float(joint.values(gradients[0])["z2"].abs().max()) == 0
    torch.testing.assert_close(
        joint.values(gradients[1])["z1"], -(z1 - z2 * hierarchy.a) / hierarchy.t**2
    )
    # The prior's covariance, errors up to about 0.015.
    values = joint.values(prior)
    both = torch.cat([values["z2"], values["z1"]], 1).numpy()
    loading = np.r_[1.0, hierarchy.a]
    expected = np.outer(loading, loading) + np.diag([0, hierarchy.t**2, hierarchy.t**2])
    np.testing.assert_allclose(np.cov(both.T), expected, atol=0.05)
    assert sorted(order) == ["z1", "z2"]

    weighted = BayesianPPCA(num_data=700)
    x, W = torch.randn(5, 3).double(), torch.randn(3, 2).double()
    pair = ready(weighted, x)
    q = torch.randn(2, 5, 2).double()
    with pair.active(), WholeBatch():
        joint = Joint(pair, x, {"W": W})
        terms = joint.terms(x, q, W)
        other = joint.terms(x, q, 2 * W)
    for found, weight in ((terms, W), (other, 2 * W)):
        np.testing.assert_allclose(
            found[0], stats.norm(q @ weight.T, weighted.noise).logpdf(x).sum(-1)
        )
        np.testing.assert_allclose(found[1], stats.norm.logpdf(q).sum(-1))


class Below:
    """A local latent that lies below a bound of its datum."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(-1.0, x[:, :1]).to_event(1))
            pyro.sample("x", dist.Normal(z, x.new_ones(64)).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(-1.0, x[:, :1]).to_event(1))


def test_what_cannot_be_drawn_from_says_why():
    x = torch.rand(4, 64)
    for source, said in (
        (GaussianMean(x), "no latent site inside the data plate"),
        (Autoencoder((64,)), "latent site 'z' has no prior density"),
        (
            Below(),
            "latent site 'z' lies in Interval, another for each datum, which no one",
        ),
    ):
        pair = ready(source, x)
        with pair.active(), WholeBatch(), pytest.raises(UsageError, match=said):
            Joint(pair, x)
