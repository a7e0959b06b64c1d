"""Objectives that weigh parts of the KL, against enumeration over all data and by hand."""

import copy
from itertools import combinations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from harness import bound
from scipy.special import logsumexp
from torch import nn
from torch.nn.utils import parametrize

import pyro_aevb
from pyro_aevb import FactorVAE, InfoGAN
from pyro_aevb.data.batches import Batches, order
from pyro_aevb.data.split import Split
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.disentanglement.codes import mean_codes
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.handlers import ScaleSites, WholeBatch
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.objectives.decomposition import draw
from pyro_aevb.training.trainer import Trainer, seed_everything

N, D, L = 7, 4, 3


class Nets(nn.Module):
    def __init__(self, size=None):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(D, 2 * L), nn.Linear(L, D)
        self.size = size

    def plate(self, x):
        return pyro.plate("data", self.size or len(x), subsample_size=self.size and len(x))

    def model(self, x):
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), L), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x):
        loc, scale = self.encoder(x).chunk(2, -1)
        with self.plate(x):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def ready(size=None):
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    pair = load_pair(Nets(size))
    inspect(pair, x)
    return pair, x


def parts(pair, x, seed):
    """One draw under a seed: codes, and all parts by SciPy, per datum of all of x."""
    pyro.set_rng_seed(seed)
    with pair.active(), WholeBatch(), torch.no_grad():
        one = draw(pair.model, pair.guide, (x,), {})
    loc, scale = (v.double().numpy() for v in (one.posterior.loc, one.posterior.scale))
    z = one.z.double().numpy()
    each = scipy.stats.norm.logpdf(z[:, None], loc, scale)  # (draw, datum, dimension)
    own = each[np.arange(len(x)), np.arange(len(x))].sum(-1)
    joint = logsumexp(each.sum(-1), axis=1) - np.log(len(x))
    product = (logsumexp(each, axis=1) - np.log(len(x))).sum(-1)
    prior = scipy.stats.norm.logpdf(z).sum(-1)
    with torch.no_grad():
        mean = pair.sources["pair"].decoder(one.z).double().numpy()
    likelihood = scipy.stats.norm.logpdf(x.double().numpy(), mean, 0.5).sum(-1)
    return one, each, (likelihood, own, joint, product, prior)


@pytest.mark.parametrize("size", [None, 70])
def test_of_all_data_the_parts_are_those_of_enumeration(size):
    pair, x = ready(size)
    one, _, (likelihood, own, joint, product, prior) = parts(pair, x, 3)
    found = one.aggregate(N)
    np.testing.assert_allclose(found[0], joint, atol=2e-5)
    np.testing.assert_allclose(found[1], product, atol=2e-5)
    a, b, c = 0.5, 6.0, 2.0
    objective = make_objective("beta_tcvae", 1, {"alpha": a, "beta": b, "gamma": c}, N)
    kl = a * (own - joint) + b * (joint - product) + c * (product - prior)
    value = float(bound(objective, pair, x, 3).detach())
    assert value == pytest.approx((likelihood - kl).sum() * (1 if size is None else 10), rel=1e-5)


def test_estimates_from_batches_have_the_aggregate_as_their_mean():
    """Over all batches of three that hold a datum, of its density at its draw."""
    pair, x = ready()
    one, each, (_, _, joint, product, _) = parts(pair, x, 4)
    for n in range(N):
        densities = []
        for others in combinations([m for m in range(N) if m != n], 2):
            rows = torch.tensor([n, *others])
            few = type(one)(
                one.reconstruction[rows],
                one.log_prior[rows],
                dist.Normal(one.posterior.loc[rows], one.posterior.scale[rows]),
                one.prior,
                one.z[rows],
                1.0,
                1.0,
            )
            densities.append([float(v[0]) for v in few.aggregate(N)])
        estimate = logsumexp([d[0] for d in densities]) - np.log(len(densities))
        assert estimate == pytest.approx(joint[n], abs=1e-5)
    # The marginals' own estimates have their means too, of which the first dimension is looked at.
    first = logsumexp(each[0, :, 0]) - np.log(N)
    found = []
    for others in combinations(range(1, N), 2):
        weights = np.array([1 / N, *[(N - 1) / (N * 2)] * 2])
        found.append((weights * np.exp(each[0, [0, *others], 0])).sum())
    assert np.log(np.mean(found)) == pytest.approx(first, abs=1e-9)


def test_with_weights_of_one_it_is_the_elbo_of_any_batch():
    pair, x = ready()
    few = x[:4]
    plain = make_objective("sampled_elbo")
    for seed in range(3):
        objective = make_objective("beta_tcvae", 1, {"alpha": 1, "beta": 1, "gamma": 1}, 1000)
        expected = float(bound(plain, pair, few, seed).detach())
        assert float(bound(objective, pair, few, seed).detach()) == pytest.approx(
            expected, rel=1e-5
        )


@pytest.mark.parametrize(
    "options, diagonal", [({"kind": "i"}, 100), ({"kind": "ii"}, 10), ({"diagonal": 3.0}, 3)]
)
def test_dip_vae_penalizes_what_numpy_calls_the_covariance(options, diagonal):
    pair, x = ready()
    one, _, (likelihood, own, _, _, prior) = parts(pair, x, 5)
    loc, scale = one.posterior.loc.numpy(), one.posterior.scale.numpy()
    c = np.cov(loc.T, bias=True)
    if options.get("kind", "ii") == "ii":
        c = c + np.diag((scale**2).mean(0))
    off = sum(c[i, j] ** 2 for i in range(L) for j in range(L) if i != j)
    penalty = 10 * off + diagonal * sum((c[i, i] - 1) ** 2 for i in range(L))
    value = float(bound(make_objective("dip_vae", 1, options), pair, x, 5).detach())
    expected = (likelihood - own + prior).sum() - N * penalty
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("progress", [1.0, 0.25])
def test_the_kl_is_held_at_a_capacity_that_the_warm_up_raises(progress):
    pair, x = ready()
    one, _, (likelihood, *_) = parts(pair, x, 6)
    loc, scale = one.posterior.loc.double().numpy(), one.posterior.scale.double().numpy()
    kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * np.log(scale)).sum(-1).mean()
    objective = make_objective("capacity", 1, {"gamma": 30.0, "capacity": 8.0})
    with ScaleSites(progress, {"z"}):
        value = float(bound(objective, pair, x, 6).detach())
    expected = likelihood.sum() - N * 30 * abs(kl - 8 * progress)
    assert value == pytest.approx(expected, rel=1e-5)


def test_a_weight_of_the_kl_is_not_one_of_the_capacity(tmp_path):
    how = {"objective": "capacity", "epochs": 1, "out": str(tmp_path / "run"), "show": False}
    for pair, more in (("BetaVAE", {}), ("VAE", {"beta": 2.0})):
        with pytest.raises(UsageError, match="capacity weighs it by its gamma: use --beta 1"):
            pyro_aevb.fit(pair, "digits:60", {"hidden": [4]}, **how, **more)


class Correlated(Nets):
    def guide(self, x):
        loc, _ = self.encoder(x).chunk(2, -1)
        with self.plate(x):
            pyro.sample("z", dist.MultivariateNormal(loc, torch.eye(L)))


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("beta_tcvae", {"betta": 3}, "did you mean 'beta'"),
        ("beta_tcvae", {"beta": -1.0}, "beta is -1.0"),
        ("dip_vae", {"kind": "iii"}, "choose one of i, ii"),
        ("capacity", {"capacity": -2.0}, "0 or more"),
        ("elbo", {"beta": 3}, "elbo has no option 'beta'"),
    ],
)
def test_wrong_options_are_one_line(name, options, words):
    with pytest.raises(UsageError, match=words):
        make_objective(name, 1, options, 100)


def test_a_guide_of_dependent_dimensions_is_refused():
    x = torch.randn(N, D)
    pair = load_pair(Correlated())
    inspect(pair, x)
    with pytest.raises(UsageError, match="needs a guide of independent dimensions"):
        bound(make_objective("dip_vae"), pair, x)


@pytest.mark.parametrize("name", ["beta_tcvae", "dip_vae", "capacity"])
def test_a_run_is_the_same_resumed(name, tmp_path):
    """With the options that it was given, which its settings keep."""
    options = {"beta_tcvae": {"beta": 3.0}, "dip_vae": {"kind": "i"}, "capacity": {"capacity": 4.0}}
    how = {
        "pair_parameters": {"latent_dim": 3, "hidden": [20]},
        "epochs": 3,
        "objective": name,
        "objective_options": options[name],
        "kl_warm_up": 1,
        "num_samples": 2,
        "proposal": "guide",
        "show": False,
    }
    whole = pyro_aevb.fit("VAE", "digits", **how, compile="off", out=str(tmp_path / "whole"))
    out = str(tmp_path / "again")
    pyro_aevb.fit("VAE", "digits", **how, compile="off", out=out, stop_after=1)
    resumed = pyro_aevb.fit(out=out, resume=True, show=False)
    assert resumed.settings["objective_options"] == options[name]
    one, other = ([row["objective"] for row in run.history] for run in (whole, resumed))
    assert one == other


def against_plain_pytorch(net, options, losses):
    """A run of SGD, and the same in plain PyTorch: two losses in turn, which a generator yields.

    Returns the twin that was trained by hand, the algorithm, the pair and the data.
    """
    x = (torch.rand(40, D, generator=torch.Generator().manual_seed(2)) < 0.5).to(torch.uint8)
    data, pair = Batches(Split(x, None, 1), "none"), load_pair(net)
    inspect(pair, data.take(torch.arange(5)))
    learning = make_algorithm(None, pair, data, {**options, "discriminator_rate": 0.5})
    how = {"epochs": 3, "batch_size": 20, "optimizer": "sgd", "lr": 0.1, "compile": "off"}
    made = Trainer(pair, data, data, learning, **how)
    made.try_objective()
    twin = copy.deepcopy(net)
    state = torch.get_rng_state()
    rows = made.run()
    torch.set_rng_state(state)
    judge = list(twin.discriminator.parameters())
    own = [p for p in twin.parameters() if all(p is not q for q in judge)]
    values = []
    for epoch in range(3):
        for index in order(40, 0, epoch).split(20):
            for loss, (parameters, rate) in zip(
                losses(twin, x[index].float()), ((own, 0.1), (judge, 0.05)), strict=True
            ):
                step(parameters, loss, rate)
                values.append(float(loss.detach()))
    for value, expected in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    last = np.mean([values[-4:-2], values[-2:]], axis=0)
    assert [-rows[-1]["objective"], rows[-1]["discriminator_loss"]] == pytest.approx(last, rel=1e-4)
    return twin, learning, pair, data


def test_factor_vae_is_two_losses_of_plain_pytorch():
    """A pair's step, then the discriminator's, at other draws, of the same numbers."""

    def losses(twin, batch):
        def codes():
            loc, log_variance = twin.encoder(batch)
            scale = (0.5 * log_variance).exp()
            return loc, scale, loc + scale * torch.normal(torch.zeros(20, L), 1.0)

        loc, scale, z = codes()
        logits = twin.likelihood(twin.decoder(z)).base_dist.logits
        cross = nn.functional.binary_cross_entropy_with_logits(logits, batch, reduction="none")
        q, p = dist.Normal(loc, scale), dist.Normal(0.0, 1.0)
        kl = (q.log_prob(z) - p.log_prob(z)).sum(-1)
        yield (cross.sum(-1) + kl + 7 * twin.discriminator(z)[:, 0]).mean()
        with torch.no_grad():
            _, _, z = codes()
            places = torch.rand(20, L).argsort(0)
            shuffled = torch.stack([z[places[:, d], d] for d in range(L)], 1)
        real, other = twin.discriminator(z)[:, 0], twin.discriminator(shuffled)[:, 0]
        yield -0.5 * (real.sigmoid().log() + (1 - other.sigmoid()).log()).mean()

    seed_everything(0)
    net = FactorVAE((D,), [5, 4], latent_dim=L, hidden=[6])
    against_plain_pytorch(net, {"gamma": 7.0}, losses)


def test_infogan_is_two_losses_of_plain_pytorch():
    """The generator with the recognition net, then the discriminator, at other draws."""

    def generate(twin, n):
        c = 2 * torch.rand(n, L) - 1
        noise = torch.normal(torch.zeros(n, 2), 1.0)
        fake = twin.likelihood(twin.decoder(torch.cat([c, noise], 1))).base_dist.logits.sigmoid()
        loc, log_variance = twin.encoder(fake)
        return fake, dist.Normal(loc, (0.5 * log_variance).exp()).log_prob(c).sum(-1)

    def losses(twin, batch):
        fake, found = generate(twin, 20)
        torch.normal(torch.zeros(20, 2), 1.0)  # the guide's noise
        yield -twin.discriminator(fake).sigmoid().log().mean() - 3 * found.mean()
        with torch.no_grad():
            fake, _ = generate(twin, 20)
        with parametrize.cached():
            real, other = twin.discriminator(batch).sigmoid(), twin.discriminator(fake).sigmoid()
        yield -(real.log() + (1 - other).log()).mean()

    seed_everything(0)
    net = InfoGAN((D,), latent_dim=L, noise_dim=2, hidden=[6])
    twin, learning, pair, data = against_plain_pytorch(net, {"information": 3.0}, losses)
    # H(c) = L log 2, and the mean log-density of codes under what is found of them.
    with torch.no_grad():
        torch.manual_seed(9)
        row, watched = learning.validate(data, Scorer(pair, 1, 1, 0, details=False))
        torch.manual_seed(9)
        _, found = generate(twin, 40)
    assert watched == "information_bound"
    assert row[watched] == pytest.approx(float(found.mean()) + L * np.log(2), rel=1e-4)
    # Metrics of disentanglement see the means of the codes, not the noise beside them.
    means = twin.encoder(data.take(torch.arange(40)))[0].detach()
    np.testing.assert_allclose(mean_codes(pair, data), means, rtol=1e-4, atol=1e-5)
    # Each matrix of the discriminator has a largest singular value of 1, after enough calls.
    x = torch.randn(5, D)
    for _ in range(60):
        net.discriminator(x)
    net.eval()
    layers = [layer for layer in net.discriminator.modules() if hasattr(layer, "bias")]
    matrices, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    largest = [float(np.linalg.svd(m.detach().numpy())[1].max()) for m in matrices]
    np.testing.assert_allclose(largest, [1.0, 1.0], atol=1e-4)
    inner, outer = matrices
    hidden = x @ inner.T + biases[0]
    logits = torch.where(hidden > 0, hidden, 0.2 * hidden) @ outer.T + biases[1]
    torch.testing.assert_close(net.discriminator(x), logits)


def step(parameters, loss, rate):
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.data -= rate * gradient


@pytest.mark.parametrize(
    "pair, algorithm, options, words",
    [
        ("VAE", "factor_vae", {}, "no module `discriminator`"),
        ("FactorVAE", "factor_vae", {"gamma": -1.0}, "0 or more"),
        ("VAE", "infogan", {}, "one code that the guide marks as matched"),
        ("InfoGAN", "infogan", {"momentum": 1.0}, "from 0 to below 1"),
        ("InfoGAN", "infogan", {"information": -1.0}, "information is -1.0; it must be 0 or more"),
        ("AdversarialAutoencoder", "adversarial", {"momentum": 1.0}, "from 0 to below 1"),
        ("AdversarialAutoencoder", "adversarial", {"generator_rate": 0.0}, "generator_rate is 0.0"),
    ],
)
def test_what_adversaries_are_not_for(pair, algorithm, options, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        pyro_aevb.fit(
            pair,
            "digits",
            algorithm=algorithm,
            algorithm_options=options,
            out=str(tmp_path),
            show=False,
        )
