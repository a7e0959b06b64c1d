"""The effect handlers, and what is predicted with them."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from linear_gaussian import PPCA, BayesianPPCA, Hierarchy, matrix, posterior, ready, with_data
from pyro import poutine
from pyro.distributions.transforms import AffineTransform, SigmoidTransform
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample

from pyro_aevb.errors import UsageError
from pyro_aevb.models import Autoencoder
from pyro_aevb.pairs.density import in_plate, log_prob, sample_sites
from pyro_aevb.pairs.handlers import (
    AtMean,
    Fix,
    InTurn,
    ScaleSites,
    WholeBatch,
    typical,
)
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.predict import (
    decode,
    decode_grid,
    encode,
    generate,
    latents,
    reconstruct,
    traverse,
)


def traced(function, *args):
    return poutine.trace(function).get_trace(*args)


# Handlers


@pytest.mark.parametrize("num_data, batch", [(50, 4), (4, 4), (3, 12)])
def test_whole_batch_draws_nothing_and_keeps_the_scale(num_data, batch):
    def model(x):
        with pyro.plate("data", size=num_data, subsample_size=len(x)) as index:
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        return index

    x = torch.randn(batch)
    state = torch.get_rng_state()
    with WholeBatch():
        trace = traced(model, x)
    assert torch.equal(state, torch.get_rng_state())
    assert trace.nodes["_RETURN"]["value"].tolist() == list(range(batch))
    assert trace.nodes["x"]["scale"] == pytest.approx(num_data / batch)
    expected = num_data / batch * scipy.stats.norm.logpdf(x).sum()
    assert trace.log_prob_sum().item() == pytest.approx(expected, rel=1e-5)


def test_whole_batch_leaves_an_undeclared_plate_and_given_indices_alone():
    chosen = torch.tensor([5, 2])

    def model(x):
        with pyro.plate("data", len(x), dim=-1) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("others", 9, subsample=chosen) as given:
            pyro.sample("w", dist.Normal(0.0, 1.0))
        return index, given, z

    with WholeBatch():
        trace = traced(model, torch.zeros(6))
    index, given, z = trace.nodes["_RETURN"]["value"]
    assert index.tolist() == list(range(6)) and torch.equal(given, chosen)
    assert trace.nodes["z"]["scale"] == 1 and trace.nodes["w"]["scale"] == 4.5
    assert z.unique().numel() == 6  # drawn


def test_fixed_sites_take_the_values_and_stay_latent():
    source = Hierarchy()
    x, value = matrix(5, 4), torch.full((5, 1), 0.7).double()
    with Fix({"z2": value, "x": x + 100}):
        sites = sample_sites(traced(source.model, x))
    assert sites["z2"]["value"] is value and not sites["z2"]["is_observed"]
    assert sites["x"]["is_observed"] and torch.equal(sites["x"]["value"], x)  # data stay
    assert sites["z1"]["value"].unique().numel() == 10  # drawn
    loc = sites["z1"]["fn"].base_dist.loc
    torch.testing.assert_close(loc, (value * source.a).expand_as(loc))


def test_at_mean_follows_the_chain_of_means():
    source = Hierarchy()
    x = matrix(5, 4)
    state = torch.get_rng_state()
    with AtMean():
        sites = sample_sites(traced(source.guide, x))
    assert torch.equal(state, torch.get_rng_state())
    # For a linear-Gaussian chain that is the mean of p(z1, z2|x), here by conditioning.
    C = source.t**2 * torch.eye(2).double() + torch.outer(source.a, source.a)
    joint = source.W @ C @ source.W.T + source.noise**2 * torch.eye(4).double()
    mean1 = (C @ source.W.T @ torch.linalg.solve(joint, x.T)).T
    mean2 = source.a @ source.W.T @ torch.linalg.solve(joint, x.T)
    torch.testing.assert_close(sites["z1"]["value"], mean1)
    torch.testing.assert_close(sites["z2"]["value"][:, 0], mean2)


def test_at_mean_takes_the_mode_of_what_has_no_mean_and_keeps_what_is_given():
    def guide(x):
        sigmoid = dist.transforms.SigmoidTransform()
        flow = dist.TransformedDistribution(dist.Normal(0.0, 1.0), [sigmoid])
        with pyro.plate("data", len(x)):
            pyro.sample("flow", flow)  # neither of them, but a median
            pyro.sample("fixed", dist.Normal(3.0, 1.0))
            pyro.sample("gamma", dist.Gamma(6.0, 2.0))
            pyro.sample("index", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
            pyro.sample("mask", dist.Bernoulli(0.3).expand([8, 4]).to_event(1))

    with AtMean(), Fix({"fixed": torch.ones(8)}):
        sites = sample_sites(traced(guide, torch.zeros(8)))
    for name, expected in (
        ("flow", 0.5),
        ("fixed", 1),
        ("gamma", 3.0),
        ("index", 1),
        ("mask", 0.3),
    ):
        value = sites[name]["value"]
        torch.testing.assert_close(value, torch.full_like(value, expected))


@pytest.mark.parametrize("scale", [0.0, 0.3, torch.tensor(0.3)])
def test_scaled_sites_multiply_their_log_probabilities_and_the_plates_scale(scale):
    source = PPCA(num_data=30)
    x = source.data(4)
    with WholeBatch(), ScaleSites(scale, {"z"}):
        sites = sample_sites(traced(source.model, x))
    z, loc = source.z.numpy(), (source.z @ source.W.T + source.mu).detach().numpy()
    actual = log_prob(sites["z"], sites["z"]["scale"]).sum().item()
    assert actual == pytest.approx(float(scale) * 7.5 * scipy.stats.norm.logpdf(z).sum(), rel=1e-6)
    actual = log_prob(sites["x"], sites["x"]["scale"]).sum().item()
    assert actual == pytest.approx(7.5 * scipy.stats.norm(loc, 0.6).logpdf(x).sum(), rel=1e-9)


def test_log_probabilities_at_any_scale_and_under_a_mask():
    mask = torch.tensor([True, False, True, True])

    def model(x):
        with pyro.plate("data", size=40, subsample_size=4), poutine.mask(mask=mask):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([4, 3]).to_event(1), obs=x)
        pyro.sample("w", dist.Normal(0.0, 1.0))

    x = torch.randn(4, 3)
    sites = sample_sites(traced(model, x))
    assert set(sites) == {"x", "w"}  # the choice of the subsample is none
    expected = scipy.stats.norm.logpdf(x).sum(1) * mask.numpy()
    np.testing.assert_allclose(log_prob(sites["x"], 1.0), expected, rtol=1e-5)
    np.testing.assert_allclose(log_prob(sites["x"], 2.5), 2.5 * expected, rtol=1e-5)
    assert in_plate(sites["x"], "data") and not in_plate(sites["w"], "data")
    assert not in_plate(sites["x"], "other")


# Predictions


def test_encode_and_reconstruct_at_the_means():
    source, x, pair = with_data(PPCA(), 6)
    m = x @ source.A.T + source.c
    torch.testing.assert_close(encode(pair, x), {"z": m.detach()})
    torch.testing.assert_close(reconstruct(pair, x), (m @ source.W.T + source.mu).detach())
    drawn = encode(pair, x.repeat(20_000, 1), sample=True)["z"].view(20_000, 6, 2)
    s = source.log_s.exp().detach()
    assert ((drawn.mean(0) - m).abs() < 5 * s / math.sqrt(20_000)).all()
    torch.testing.assert_close(drawn.std(0), s.expand(6, 2), rtol=0.03, atol=0)
    # A drawn code is decoded as it is.
    pyro.set_rng_seed(3)
    z = encode(pair, x, sample=True)["z"]
    pyro.set_rng_seed(3)
    expected = (z @ source.W.T + source.mu).detach()
    torch.testing.assert_close(reconstruct(pair, x, sample=True), expected)


def test_weights_take_their_mean_unless_drawn():
    source = BayesianPPCA(40)
    x = matrix(5, 3)
    pair = ready(source, x)
    gain, _ = posterior(source.loc, source.noise)
    torch.testing.assert_close(latents(pair, x)["W"], source.loc)
    torch.testing.assert_close(encode(pair, x)["z"], x @ gain.T)
    torch.testing.assert_close(reconstruct(pair, x), x @ gain.T @ source.loc.T)
    drawn = latents(pair, x, sample=True)
    assert (drawn["W"] != source.loc).all() and drawn["z"].shape == (5, 2)
    z = matrix(5, 2, seed=9)
    torch.testing.assert_close(decode(pair, {"z": z, "W": drawn["W"]}, x), z @ drawn["W"].T)
    torch.testing.assert_close(decode(pair, {"z": z}, x), z @ source.loc.T)
    for same in (z.tolist(), z.numpy(), z.float()):
        torch.testing.assert_close(
            decode(pair, {"z": same}, x), z @ source.loc.T, rtol=1e-6, atol=0
        )
    for values, said in (
        ({"Z": z}, "has no latent site 'Z' .did you mean 'z'.*it has z, W"),
        ({"z": z[:3]}, r"'z' have shape \(3, 2\), and need \(5, 2\)"),
        ({"z": z, "W": z}, r"'W' have shape \(5, 2\), and need \(3, 2\)"),
    ):
        with pytest.raises(UsageError, match=said):
            decode(pair, values, x)


def test_weights_behind_an_autoguide_take_their_mean_too():
    class Net(PyroModule):
        def __init__(self):
            super().__init__()
            self.lin = PyroModule[torch.nn.Linear](2, 3)
            self.lin.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
            self.weights = AutoNormal(poutine.block(self.model, hide=["z", "x", "data"]))

        def model(self, x):
            weight, bias = self.lin.weight, self.lin.bias
            with pyro.plate("data", 9, subsample_size=len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z @ weight.T + bias, 0.1).to_event(1), obs=x)

        def guide(self, x):
            self.weights(x)
            with pyro.plate("data", 9, subsample_size=len(x)):
                pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))

    source, x = Net(), matrix(5, 3).float()
    pair, z = ready(source, x), matrix(5, 2, seed=9).float()
    mean = source.weights.median()["lin.weight"]
    torch.testing.assert_close(decode(pair, {"z": z}, x), (z @ mean.T + source.lin.bias).detach())


def test_weights_that_are_not_given_follow_from_those_that_are():
    class Chain(torch.nn.Module):
        def model(self, x):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            v = pyro.sample("v", dist.Normal(w, 1.0))
            with pyro.plate("data", 9, subsample_size=len(x)):
                pyro.sample("x", dist.Normal(x.new_zeros(x.shape) + v, 1.0).to_event(1), obs=x)

        def guide(self, x):
            w = pyro.sample("w", dist.Normal(0.3, 0.1))
            pyro.sample("v", dist.Normal(0.5 * w, 0.1))

    x = matrix(5, 3).float()
    pair = ready(Chain(), x)
    assert decode(pair, {}, x).unique().tolist() == pytest.approx([0.15])
    assert decode(pair, {"w": torch.tensor(2.0)}, x).unique().tolist() == [1.0]
    assert decode(pair, {"v": torch.tensor(2.0)}, x).unique().tolist() == [2.0]


def test_a_pair_is_used_in_evaluation_mode_whatever_mode_it_is_in():
    class Normed(PPCA):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(4).double()

        def guide(self, x):
            super().guide(self.norm(x))

    source = Normed()
    x = source.data(6)
    source.norm.running_mean += 0.4
    pair = ready(source, x)
    pair.train()
    seen = (x - 0.4) / (1 + source.norm.eps) ** 0.5
    expected = seen @ source.A.T + source.c
    torch.testing.assert_close(encode(pair, x[:1])["z"], expected[:1].detach())
    assert source.norm.training and float(source.norm.running_mean[0]) == pytest.approx(0.4)


def test_what_stands_for_a_distribution_is_its_mean_or_else_its_mode():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    normal = dist.Normal(torch.tensor([0.3, -2.0]), 1.0)
    halves = [AffineTransform(1.0, 0.5), SigmoidTransform()]
    logit_normal = dist.TransformedDistribution(normal, halves)
    affine = dist.TransformedDistribution(normal.to_event(1), halves[:1])
    skewed = dist.TransformedDistribution(dist.Gumbel(normal.loc, 1.0), halves[1:])
    medians = torch.sigmoid(1 + 0.5 * normal.loc).tolist()
    for fn, expected, kind in (
        (normal, [0.3, -2.0], "mean"),
        (dist.Categorical(logits=logits), [1, 0], "mode"),
        (dist.Cauchy(torch.tensor([0.5, 1.0]), 1.0), [0.5, 1.0], "mode"),
        (dist.StudentT(torch.tensor([0.7, 1.0]), 2.0, 1.0), [2.0, 2.0], "mode"),
        (dist.StudentT(torch.tensor([3.0, 4.0]), 2.0, 1.0), [2.0, 2.0], "mean"),
        (logit_normal, medians, "median"),
        (affine, [1.15, 0.0], "mean"),
    ):
        value, found = typical(fn)
        assert found == kind and value.tolist() == pytest.approx(expected)
    draws = torch.stack([typical(skewed)[0] for _ in range(4000)]).logit()
    assert typical(skewed)[1] == "draw"
    mean = normal.loc + 0.57722  # Euler's constant
    np.testing.assert_allclose(draws.mean(0), mean, atol=4 * 1.2826 / 4000**0.5)


def test_generated_data_follow_the_marginal_means():
    source, x, pair = with_data(PPCA(), 40_000)
    means = generate(pair, x)
    covariance = (source.W @ source.W.T).detach().numpy()
    np.testing.assert_allclose(np.cov(means.numpy().T), covariance, atol=0.06)
    np.testing.assert_allclose(means.mean(0), source.mu.detach(), atol=0.06)
    drawn = generate(pair, x, sample=True)
    noisy = covariance + source.noise**2 * np.eye(4)
    np.testing.assert_allclose(np.cov(drawn.numpy().T), noisy, atol=0.06)


def test_generated_data_share_one_draw_of_the_weights():
    source = BayesianPPCA(40, spread=1.0)
    x = matrix(50, 3)
    first, second = (generate(ready(source, x), x) for _ in range(2))
    for means in (first, second):  # on a plane through the origin
        assert np.linalg.matrix_rank(means.numpy(), tol=1e-8) == 2
    assert np.linalg.matrix_rank(torch.cat([first, second]).numpy(), tol=1e-8) == 3
    # Of the guide, not of the prior.
    narrow = generate(ready(BayesianPPCA(40, spread=1e-6), x), x).numpy()
    plane, _ = np.linalg.qr(source.loc.numpy())
    np.testing.assert_allclose(narrow @ plane @ plane.T, narrow, atol=1e-4)


def test_grids_and_walks_decode_the_points_they_name():
    source, x, pair = with_data(PPCA(), 6)
    W, mu = source.W.detach().numpy(), source.mu.detach().numpy()
    points = np.random.default_rng(0).normal(size=(9, 2))
    np.testing.assert_allclose(decode_grid(pair, points, x), points @ W.T + mu)
    code = (x[0] @ source.A.T + source.c).detach().numpy()
    values = np.array([-2.0, 0.0, 1.0])
    walk = traverse(pair, x[:1], [1, 0], values)
    assert walk.shape == (2, 3, 4)
    for row, dimension in enumerate([1, 0]):
        for column, value in enumerate(values):
            z = np.where(np.arange(2) == dimension, value, code)
            np.testing.assert_allclose(walk[row, column], W @ z + mu)


def test_what_cannot_be_predicted_is_said():
    x = (torch.rand(6, 5) > 0.5).float()
    pair = ready(Autoencoder((5,), latent_dim=2, hidden=[4]), x)
    with pytest.raises(UsageError, match="Autoencoder cannot generate: latent site 'z'"):
        generate(pair, x)
    with pytest.raises(UsageError, match="one local site"):
        decode_grid(ready(Hierarchy(), matrix(5, 4)), np.zeros((2, 2)), matrix(5, 4))
    with pytest.raises(UsageError, match=r"call inspect\(pair, x\)"):
        encode(load_pair(PPCA()), matrix(5, 4))


def test_a_uniform_index_takes_its_values_in_turn_and_in_random_order():
    def guide(x):
        pyro.sample("fair", dist.Categorical(logits=torch.zeros(3)))
        pyro.sample("loaded", dist.Categorical(torch.tensor([0.98, 0.01, 0.01])))
        with pyro.plate("data", 50):
            pyro.sample("local", dist.Categorical(logits=torch.zeros(3)))

    draws = []
    for number in range(300):
        with InTurn(number, seed=4):
            sites = sample_sites(traced(guide, torch.zeros(8)))
        draws.append(sites["fair"]["value"].item())
        assert sites["local"]["value"].unique().numel() > 1
        assert number > 2 or sites["loaded"]["value"].item() == 0
    turns = np.array(draws).reshape(100, 3)
    assert (np.sort(turns, 1) == np.arange(3)).all()
    orders, counts = np.unique(turns, axis=0, return_counts=True)
    assert len(orders) == 6 and scipy.stats.chisquare(counts).pvalue > 1e-3
    with InTurn(0, seed=4), Fix({"fair": torch.tensor(2)}):
        assert sample_sites(traced(guide, torch.zeros(8)))["fair"]["value"].item() == 2
