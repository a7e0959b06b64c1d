"""Restricted Boltzmann machines against sums over all states, quadrature, and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from harness import (
    assert_compiles,
    assert_mean,
    assert_on_the_device_of_the_data,
    assert_resumes,
    capture_only,
)
from scipy.integrate import dblquad
from scipy.special import logsumexp
from sklearn.neural_network import BernoulliRBM

import pyro_aevb
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import Split
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.partition import (
    annealed,
    enumerated,
    inverse_temperatures,
    log_likelihood,
    log_partition,
)
from pyro_aevb.models import RBM, VAE
from pyro_aevb.models.rbm import GibbsDraws
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.predict import encode, generate
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.contrastive_divergence import (
    cd_loss,
    free_energy_difference,
    pseudo_likelihood,
)
from pyro_aevb.training.trainer import Trainer, seed_everything


def small(units=5, hidden=4, visible="bernoulli", scale=1.0, seed=3):
    """A machine far from independent units, in float64."""
    rbm = RBM((units,), hidden, visible).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in rbm.parameters():
            value.copy_(scale * torch.randn(value.shape, generator=generator))
    return rbm


def states(n):
    """All of n bits, (2^n, n)."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * n).reshape(-1, n)


def minus_energy(rbm, v, h):
    """By the definition, for all pairs of rows, in NumPy: (len(v), len(h))."""
    W, b, c = (t.detach().numpy() for t in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    v, h = v.numpy(), h.numpy()
    own = v @ b if rbm.visible == "bernoulli" else -0.5 * ((v - b) ** 2).sum(1)
    return own[:, None] + h @ c + v @ W @ h.T


def joint(rbm):
    """p(v, h) of Bernoulli visibles, and log Z."""
    units, hidden = rbm.weight.shape
    table = minus_energy(rbm, states(units), states(hidden))
    return np.exp(table - logsumexp(table)), logsumexp(table)


def transition(rbm):
    """p(v' | v) of one step of Gibbs sampling, from the joint table alone."""
    table, _ = joint(rbm)
    up, down = table / table.sum(1, keepdims=True), table / table.sum(0)
    return up @ down.T


def gradient(rbm, loss):
    found = torch.autograd.grad(loss, list(rbm.parameters()), retain_graph=True)
    return torch.cat([value.flatten() for value in found])


def some_bits(n=10, units=5, seed=0):
    return (torch.rand(n, units, generator=torch.Generator().manual_seed(seed)) < 0.4).double()


# The machine


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_free_energy_and_conditionals_are_those_of_the_energy(visible):
    rbm, h = small(visible=visible), states(4)
    v = some_bits() if visible == "bernoulli" else torch.randn(10, 5).double()
    table = minus_energy(rbm, v, h)
    with torch.no_grad():
        np.testing.assert_allclose(rbm.free_energy(v), -logsumexp(table, 1), rtol=1e-12)
        up = np.exp(table - logsumexp(table, 1, keepdims=True))
        np.testing.assert_allclose(rbm.code(v), up @ h.numpy(), rtol=1e-10)
        for n, given in enumerate(h[1:9]):  # log p(v|h) is the energy up to a function of h
            row = rbm.hidden_given(v).log_prob(given).exp()
            np.testing.assert_allclose(row, up[:, n + 1], rtol=1e-10)
            fn = rbm.visible_given(given.expand(10, 4))
            free = -rbm.hidden_free_energy(given[None])
            np.testing.assert_allclose(fn.log_prob(v), table[:, n + 1] - free.numpy(), rtol=1e-10)
    if visible == "bernoulli":
        expected = -logsumexp(minus_energy(rbm, states(5), h), 0)
        with torch.no_grad():
            np.testing.assert_allclose(rbm.hidden_free_energy(h), expected, rtol=1e-12)


def test_conditionals_of_one_component_are_those_of_the_joint():
    rbm = small()
    p = joint(rbm)[0].sum(1)
    v, index = states(5), torch.tensor([[0, 3], [2, 4]])
    found = rbm.log_conditional(v[[6, 21]], index).detach()
    for row, state in enumerate((6, 21)):
        for column, i in enumerate(index[row].tolist()):
            other = v[state].clone()
            other[i] = 1 - other[i]
            flipped = int((v == other).all(1).nonzero())
            expected = math.log(p[state] / (p[state] + p[flipped]))
            assert float(found[row, column]) == pytest.approx(expected, rel=1e-10)


def test_gibbs_sampling_leaves_the_machine_and_reaches_it():
    """From all zeros to p(v), and the draws of a pair to p(h), in shares of 16,000 chains."""
    rbm = small(4, 3, scale=0.7)
    table, _ = joint(rbm)
    where = 2 ** torch.arange(3, -1, -1).double()
    v = rbm.gibbs(torch.zeros(16000, 4).double(), 40)
    shares = torch.bincount((v @ where).long(), minlength=16).numpy() / 16000
    p = table.sum(1)
    assert (np.abs(shares - p) < 4 * np.sqrt(p * (1 - p) / 16000)).all()
    h = GibbsDraws(rbm, 16000).sample()
    shares = torch.bincount((h @ where[1:]).long(), minlength=8).numpy() / 16000
    p = table.sum(0)
    assert (np.abs(shares - p) < 4 * np.sqrt(p * (1 - p) / 16000)).all()


def test_draws_of_gaussian_visibles_have_the_moments_of_the_mixture():
    rbm = small(3, 2, "gaussian", scale=0.8)
    h = states(2)
    with torch.no_grad():
        p = (-rbm.hidden_free_energy(h)).softmax(0)
        means = rbm.visible_bias + h @ rbm.weight.T
    second = torch.eye(3) + torch.einsum("h,hi,hj->ij", p, means, means)
    v = rbm.gibbs(torch.zeros(20000, 3).double(), 40)
    assert_mean(v, p @ means, precision=0.1)
    assert_mean((v[:, :, None] * v[:, None, :]).flatten(1), second.flatten(), precision=0.1)


def test_biases_start_where_independent_units_have_the_mean_of_the_data():
    mean = torch.tensor([[0.0, 0.25], [0.5, 1.0]])
    rbm = RBM((2, 2), 3, init_scale=1e-9, data_mean=mean)
    h = torch.ones(1, 3)
    torch.testing.assert_close(rbm.visible_given(h).mean[0], mean.clamp(0.001, 0.999))
    rbm = RBM((2, 2), 3, "gaussian", init_scale=1e-9, data_mean=mean)
    torch.testing.assert_close(rbm.visible_given(h).mean[0], mean)
    weight = RBM((100,), 200, init_scale=0.05).weight
    assert float(weight.detach().std()) == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_the_pair_lives_where_its_data_do(visible):
    rbm = RBM((1, 4, 4), 6, visible, sample_steps=2)
    assert_on_the_device_of_the_data(rbm, torch.zeros(3, 1, 4, 4))


# The partition function


def test_enumeration_is_the_sum_over_all_pairs_of_states():
    for units, hidden in ((5, 4), (3, 6)):
        rbm = small(units, hidden)
        assert enumerated(rbm).value == pytest.approx(joint(rbm)[1], rel=1e-12)
    rbm = small(14, 15, scale=0.5)  # in blocks
    expected = (-rbm.hidden_free_energy(states(15))).logsumexp(0).detach()
    assert enumerated(rbm).value == pytest.approx(float(expected), rel=1e-12)


def test_the_integral_over_gaussian_visibles_is_that_of_quadrature():
    rbm = small(2, 3, "gaussian", scale=0.8)

    def density(b, a):
        with torch.no_grad():
            return math.exp(-float(rbm.free_energy(torch.tensor([[a, b]]).double())))

    integral, _ = dblquad(density, -9, 9, -9, 9, epsabs=1e-6, epsrel=1e-6)
    assert enumerated(rbm).value == pytest.approx(math.log(integral), abs=1e-5)
    # One hidden unit: p(v) is a mixture of two normals.
    rbm = small(1, 1, "gaussian")
    w, b, c = (float(t.detach()) for t in rbm.parameters())
    expected = 0.5 * math.log(2 * math.pi) + math.log1p(math.exp(c + b * w + w**2 / 2))
    assert enumerated(rbm).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_annealing_finds_the_sum(visible):
    """Each within its standard errors, which are small; and the mean weight without bias."""
    rbm = small(8, 6, visible, scale=0.6)
    rbm.base_bias = 0.5 * rbm.visible_bias.detach() + 0.3
    exact = enumerated(rbm).value
    found = annealed(rbm, 400, 200, seed=1)
    assert found.standard_error < 0.03
    assert abs(found.value - exact) < 4 * found.standard_error
    # With one temperature it is plain importance sampling from independent units.
    few = annealed(small(3, 2, visible, scale=0.4), 20000, 1, seed=2)
    exact = enumerated(small(3, 2, visible, scale=0.4)).value
    weights = torch.from_numpy(np.exp(few.log_weights - exact))[:, None]
    assert_mean(weights, torch.ones(1).double(), precision=0.05)
    assert abs(few.value - exact) < 4 * few.standard_error < 0.1
    # Of a mean of few weights the logarithm is too low on average.
    low = np.log(np.exp(few.log_weights).reshape(-1, 2).mean(1)) - exact
    assert low.mean() < -4 * low.std() / math.sqrt(len(low))


def test_annealing_without_weights_is_exact_and_its_path_dense_at_the_end():
    rbm = RBM((6,), 3, data_mean=torch.full((6,), 0.2)).double()
    with torch.no_grad():
        rbm.weight.zero_()
    found = annealed(rbm, 5, 7)
    assert found.standard_error < 1e-9
    assert found.value == pytest.approx(6 * -math.log(0.8) + 3 * math.log(2), abs=1e-6)
    path = inverse_temperatures(14500)
    steps = [float(path[500]), float(path[4500]), float(path[14500])]
    assert steps == pytest.approx([0.5, 0.9, 1.0]) and (path.diff() > 0).all() and path[0] == 0


def test_log_likelihoods_add_up_to_one():
    rbm = small()
    z = log_partition(rbm).value
    assert float(log_likelihood(rbm, states(5), z).logsumexp(0)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(UsageError, match=r"2\^21 states are too many .* use method ais"):
        enumerated(RBM((30,), 21))


# Contrastive divergence


def test_the_gradient_of_the_likelihood_is_the_difference_of_statistics():
    """Autograd on enumerated log p(v), the formula, and the loss with exact particles."""
    rbm, v, everything = small(), some_bits(), states(5)
    log_z = (-rbm.free_energy(everything)).logsumexp(0)
    exact = gradient(rbm, -(-rbm.free_energy(v) - log_z).mean())
    p = torch.from_numpy(joint(rbm)[0].sum(1))
    with torch.no_grad():
        codes, theirs = rbm.code(v), rbm.code(everything)
        weight = everything.T @ (p[:, None] * theirs) - v.T @ codes / len(v)
        by_hand = [weight.flatten(), p @ everything - v.mean(0), p @ theirs - codes.mean(0)]
    torch.testing.assert_close(exact, torch.cat(by_hand))


@pytest.mark.parametrize("k", [1, 3])
def test_the_gradient_of_contrastive_divergence_in_expectation(k):
    """After k steps of the exact chain. It is not the likelihood's: that is several errors off."""
    rbm, v, everything = small(scale=2.0, seed=6), some_bits(), states(5)
    where = 2 ** torch.arange(4, -1, -1).double()
    data = np.bincount((v @ where).long(), minlength=32) / len(v)
    after = torch.from_numpy(data @ np.linalg.matrix_power(transition(rbm), k))
    energy = rbm.free_energy(everything)
    expected = gradient(rbm, rbm.free_energy(v).mean() - after @ energy)
    torch.manual_seed(1)
    samples = torch.stack([gradient(rbm, cd_loss(rbm, v, k)) for _ in range(1500)])
    assert_mean(samples, expected, precision=0.05)
    likelihood = gradient(rbm, rbm.free_energy(v).mean() + (-energy).logsumexp(0))
    error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - likelihood).abs() / error).max() > 6


def machine_pair(rbm, data):
    pair = load_pair(rbm)
    inspect(pair, data.take(torch.arange(5)))
    return pair


def batches(x, binarize="none"):
    return Batches(Split(x, None, 1), binarize)


def trainer(rbm, data, path=None, options=None, seed=1, **settings):
    seed_everything(seed)
    pair = machine_pair(rbm() if callable(rbm) and not isinstance(rbm, RBM) else rbm, data)
    algorithm = make_algorithm(None, pair, data, options)
    settings = {"epochs": 2, "batch_size": 10, "compile": "off", **settings}
    return Trainer(pair, data, data, algorithm, path, seed=seed, **settings)


def test_persistent_chains_in_equilibrium_give_the_gradient_of_the_likelihood():
    """Chains that are draws from the machine stay draws from it, and the loss takes them all.

    In two steps this machine does not forget where it started.
    """
    rbm, v, everything = small(scale=2.0, seed=6), some_bits(), states(5)
    t = trainer(rbm, batches(v), options={"persistent": True, "chains": 50, "k": 2})
    algorithm, index = t._algorithm, torch.arange(10)
    (phase,) = algorithm.phases
    assert {name.split(".")[1] for name in phase.parameters} == {
        *("weight", "visible_bias", "hidden_bias"),
    }
    log_z = (-rbm.free_energy(everything)).logsumexp(0)
    exact = gradient(rbm, rbm.free_energy(v).mean() + log_z)
    p = torch.from_numpy(joint(rbm)[0].sum(1))
    samples = []
    for _ in range(600):
        algorithm.chains.copy_(everything[torch.multinomial(p, 50, replacement=True)])
        before = algorithm.chains.clone()
        algorithm.before(v, index)
        assert not torch.equal(before, algorithm.chains)
        samples.append(gradient(rbm, phase.loss(v, index)))
    assert_mean(torch.stack(samples), exact, precision=0.05)
    negative = algorithm.chains
    expected = rbm.free_energy(v).mean() - rbm.free_energy(negative).mean()
    assert torch.equal(free_energy_difference(rbm, v, negative), expected)


@pytest.mark.parametrize("options", [{}, {"k": 3}, {"persistent": True, "k": 3}])
def test_the_algorithm_takes_as_many_steps_as_it_is_told(options):
    """From the batch, or from the chains, by the same random numbers."""
    rbm, x, index = small(), some_bits(20), torch.arange(10)
    algorithm = trainer(rbm, batches(x), options=options)._algorithm
    start = algorithm.chains.clone() if "persistent" in options else x[index]
    torch.manual_seed(4)
    negative = rbm.gibbs(start, options.get("k", 1))
    torch.manual_seed(4)
    algorithm.before(x[index], index)
    found = gradient(rbm, algorithm.phases[0].loss(x[index], index))
    expected = gradient(rbm, free_energy_difference(rbm, x[index], negative))
    torch.testing.assert_close(found, expected)


def test_chains_start_in_the_data_and_go_on():
    x = some_bits(23, 6)
    t = trainer(
        lambda: small(6, 3), batches(x), options={"persistent": True, "chains": 40}, epochs=1
    )
    start = t._algorithm.chains.clone()
    assert all((x == chain).all(1).any() for chain in start)
    assert len(start[:23].unique(dim=0)) == len(x.unique(dim=0))  # every datum, then again
    t.try_objective()
    assert torch.equal(start, t._algorithm.chains)
    t.run()
    assert not torch.equal(start, t._algorithm.chains)


def test_many_steps_recover_a_machine():
    """From 4,000 of its draws; the maximum of the likelihood is about 19 / 8,000 = 0.0024 off."""
    torch.manual_seed(0)
    true = small(4, 3, scale=1.2, seed=11)
    p = joint(true)[0].sum(1)
    x = states(4)[torch.multinomial(torch.from_numpy(p), 4000, replacement=True)]

    def divergence(rbm):
        return float((p * np.log(p / joint(rbm)[0].sum(1))).sum())

    rbm = RBM((4,), 3).double()
    before = divergence(rbm)
    settings = {"batch_size": 500, "lr": 0.03, "schedule": "cosine"}
    history = trainer(rbm, batches(x), options={"k": 10}, epochs=60, **settings).run()
    assert before > 0.1 and divergence(rbm) < 0.01
    exact = rbm.log_conditional(x, torch.arange(4).expand(4000, 4)).sum(1).mean().detach()
    assert history[-1]["pseudo_likelihood"] == pytest.approx(float(exact), rel=1e-6)


def test_the_pseudo_likelihood_of_a_few_components_stands_for_all():
    rbm, x = small(40, 5, scale=0.3), some_bits(700, 40)
    exact = float(rbm.log_conditional(x, torch.arange(40).expand(700, 40)).detach().sum(1).mean())
    assert pseudo_likelihood(rbm, batches(x), 40) == pytest.approx(exact, rel=1e-9)
    some = pseudo_likelihood(rbm, batches(x), 16)
    assert some != exact and some == pytest.approx(exact, rel=0.03)
    assert some == pseudo_likelihood(rbm, batches(x), 16)


# scikit-learn's machine


def theirs_as_ours(theirs):
    units = theirs.components_.shape[1]
    ours = RBM((units,), len(theirs.components_)).double()
    with torch.no_grad():
        ours.weight.copy_(torch.from_numpy(theirs.components_.T.copy()))
        ours.visible_bias.copy_(torch.from_numpy(theirs.intercept_visible_))
        ours.hidden_bias.copy_(torch.from_numpy(theirs.intercept_hidden_))
    return ours


def mean_log_likelihood(rbm, x):
    with torch.no_grad():
        return float(log_likelihood(rbm, x, enumerated(rbm).value).mean())


def two_bars(n=200):
    """Two patterns of six pixels with a tenth of them flipped."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]]).double()
    x = patterns[torch.randint(2, (n,), generator=generator)]
    flip = torch.rand(x.shape, generator=generator) < 0.1
    return torch.where(flip, 1 - x, x)


def test_scikit_learn_has_the_same_machine_and_learns_as_well():
    x = two_bars()
    settings = {"learning_rate": 0.05, "batch_size": 20, "n_iter": 150}
    theirs = BernoulliRBM(4, **settings, random_state=0).fit(x.numpy())
    same = theirs_as_ours(theirs)
    with torch.no_grad():
        np.testing.assert_allclose(same.free_energy(x), theirs._free_energy(x.numpy()), rtol=1e-10)
        np.testing.assert_allclose(same.code(x), theirs.transform(x.numpy()), rtol=1e-10)
        # It flips one component of each datum, drawn anew.
        each = 6 * same.log_conditional(x, torch.arange(6).expand(200, 6)).numpy()
    theirs.set_params(random_state=np.random.RandomState(1))
    scores = np.stack([theirs.score_samples(x.numpy()) for _ in range(40)])
    nearest = np.abs(scores[:, :, None] - each).argmin(-1)
    taken = np.take_along_axis(np.broadcast_to(each, (40, 200, 6)), nearest[:, :, None], -1)
    np.testing.assert_allclose(scores, taken[..., 0], rtol=1e-8)
    assert_mean(torch.from_numpy(scores.mean(1)), torch.tensor(each.mean()), precision=0.02)
    ours = RBM((6,), 4).double()
    start = mean_log_likelihood(ours, x)
    options = {"persistent": True, "chains": 20}
    trainer(
        ours, batches(x), options=options, epochs=150, batch_size=20, lr=0.05, optimizer="sgd"
    ).run()
    reached = mean_log_likelihood(ours, x)
    assert reached > start + 0.8
    assert reached == pytest.approx(mean_log_likelihood(same, x), abs=0.1)


# Runs


@pytest.mark.parametrize(
    "options", [{"k": 2}, {"persistent": True, "chains": 7}], ids=["cd", "pcd"]
)
def test_a_resumed_run_equals_an_uninterrupted_one(options, tmp_path):
    x = some_bits(37, 6)

    def fresh(path):
        return trainer(lambda: small(6, 3), batches(x), path, options, epochs=4, lr=0.05)

    whole = assert_resumes(fresh, tmp_path / "part.pt", 9)  # of 16
    assert set(whole._algorithm.state) == ({"chains"} if "chains" in options else set())


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("options", [{"k": 3}, {"persistent": True}], ids=["cd", "pcd"])
def test_a_captured_step_is_the_eager_one(options, visible, monkeypatch):
    capture_only(monkeypatch)
    data = batches(some_bits(40, 6))
    t = trainer(lambda: small(6, 3, visible), data, options=options)
    (learner,) = t._learners.each
    index = torch.arange(10)
    assert_compiles(learner.step, (index,), (index,), (index + 13,), rtol=1e-5)


def test_fit_and_evaluate(tmp_path):
    settings = {"data": "digits", "num_samples": 5, "device": "cpu", "show": False, "epochs": 2}
    run = pyro_aevb.fit("RBM", pair_parameters={"hidden": 12}, out=str(tmp_path / "a"), **settings)
    row = run.history[-1]
    assert row["pseudo_likelihood"] > run.history[0]["pseudo_likelihood"]
    assert row["elbo"] is None and row["reconstruction"] < 0
    metrics = run.results["metrics"]
    for name in ("elbo", "log_likelihood", "kl"):
        assert metrics[name]["value"] is None and "no density" in metrics[name]["reason"]
    names = {path.name for path in run.figures.glob("*.png")}
    assert names == {"history.png", "reconstructions.png", "samples.png"}
    found = pyro_aevb.evaluate(run, "partition", device="cpu", show=False)["metrics"]
    exact = found["rbm_log_likelihood"]
    assert exact["monte_carlo_error"] == 0 and "exact" in exact["note"]
    options = {"method": "ais", "num_temperatures": 300, "num_chains": 200}
    found = pyro_aevb.evaluate(run, "partition", options, device="cpu", show=False)["metrics"]
    annealing = found["rbm_log_likelihood"]
    assert 0 < annealing["monte_carlo_error"] < 0.1 and "upwards" in annealing["note"]
    error = abs(annealing["value"] - exact["value"])
    assert 0 < error < 4 * annealing["monte_carlo_error"]
    rbm = run.pair.sources["pair"]
    x = pyro_aevb.data.load("digits")
    bits = Batches(x.test, run.results["binarization"]).take(torch.arange(len(x.test)))
    values = run.per_datum("partition", "rbm_log_likelihood")
    by_hand = log_likelihood(rbm, bits, annealed(rbm, 200, 300).value).numpy()
    np.testing.assert_allclose(values, by_hand, rtol=1e-5)
    assert annealing["value"] == pytest.approx(values.mean())
    torch.testing.assert_close(encode(run.pair, bits[:4])["h"], rbm.code(bits[:4]))
    assert generate(run.pair, bits[:4]).shape == (4, 1, 8, 8)


def test_what_cannot_be_says_why(tmp_path):
    for given, said in (
        ({"visible": "binary"}, "visible='binary' is unknown; choose one of bernoulli, gaussian"),
        ({"hidden": 0}, "hidden is 0; it must be at least 1"),
        ({"sample_steps": 0}, "sample_steps is 0"),
        ({"init_scale": 0.0}, "init_scale=0.0 is not possible"),
        ({"data_mean": torch.zeros(4)}, "data_mean has shape .4,.; give the mean"),
        ({"data_mean": torch.full((5,), math.nan)}, "data_mean is not finite"),
    ):
        with pytest.raises(UsageError, match=said):
            RBM((5,), **given)
    data = batches(some_bits())
    for source, options, said in (
        (small(), {"k": 0}, "--algorithm-options: k is 0"),
        (small(), {"chains": 0}, "--algorithm-options: chains is 0"),
        (small(), {"persist": True}, "no option 'persist' .did you mean 'persistent'"),
        (VAE((5,)).double(), {}, "contrastive_divergence cannot train VAE: it has no free_energy"),
    ):
        with pytest.raises(UsageError, match=said):
            make_algorithm("contrastive_divergence", machine_pair(source, data), data, options)
    run = pyro_aevb.fit(
        "VAE", "digits", {"hidden": [4], "latent_dim": 2}, epochs=0, num_samples=2,
        out=str(tmp_path / "a"), show=False, device="cpu",
    )  # fmt: skip
    with pytest.raises(UsageError, match="for restricted Boltzmann machines .*VAE has no free_en"):
        pyro_aevb.evaluate(run, "partition", device="cpu", show=False)
