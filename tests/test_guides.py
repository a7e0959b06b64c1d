"""Priors and guides over weights against SciPy, dense normals, enumeration and conjugate models."""

import itertools
import math
from contextlib import nullcontext

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats
import torch
from harness import assert_mean, in_training
from linear_gaussian import batches, matrix, ready
from pyro import poutine
from torch import nn
from torch.distributions import kl_divergence
from torch.func import functional_call

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.metrics import log_mean, weight_kl
from pyro_aevb.models.weights import posteriors as guides
from pyro_aevb.models.weights.noise import LocalReparameterization
from pyro_aevb.models.weights.normals import LogScaleNormal, LowRankNormal
from pyro_aevb.models.weights.priors import IsotropicNormal, NormalMixture, WeightPrior, fan_in
from pyro_aevb.pairs.density import sample_sites
from pyro_aevb.pairs.handlers import AtMean, WholeBatch
from pyro_aevb.training.objectives.elbo import TraceELBO

SHAPE = torch.Size([3, 2])


def low_rank(rank=2):
    return LowRankNormal(
        matrix(*SHAPE, seed=1),
        0.3 * matrix(*SHAPE, seed=2) - 0.5,
        0.6 * matrix(rank, *SHAPE, seed=3),
    )


def dense(normal):
    """The same as a multivariate normal over the flattened tensor."""
    factor = normal.factor.flatten(1)
    covariance = factor.T @ factor + torch.diag((2 * normal.log_scale).exp().flatten())
    return torch.distributions.MultivariateNormal(normal.loc.flatten(), covariance)


# Priors


@pytest.mark.parametrize(
    "layer, size",
    [
        (nn.Linear(5, 3), (5,)),
        (nn.Conv2d(4, 6, (3, 2), groups=2), (4, 3, 2)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1), (4, 9, 9)),
        (nn.ConvTranspose1d(6, 4, 4, stride=2, groups=2), (6, 9)),
    ],
)
def test_fan_in_counts_the_products_of_a_unit(layer, size):
    # With weights and inputs of 1, an output is how many of them it sums up. Away from the border,
    # where there are fewer, and over one period of the stride.
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    counts = layer(torch.ones(1, *size))
    middle = counts.flatten(2)[..., 8:10] if counts.dim() == 3 else counts
    middle = counts[..., 8:10, 8:10] if counts.shape[-1] > 10 and counts.dim() == 4 else middle
    assert fan_in(layer) == {"weight": pytest.approx(middle.mean().item()), "bias": 1.0}
    assert fan_in(nn.Sequential(layer))["0.weight"] == fan_in(layer)["weight"]
    assert fan_in(nn.BatchNorm1d(3)) == {"weight": 1.0, "bias": 1.0}


def test_the_scale_of_each_tensor_falls_with_the_root_of_its_fan_in():
    net = nn.Sequential(nn.Linear(16, 9), nn.Linear(9, 4))
    for kind in ("fan_in", "learned", "mixture"):
        prior = WeightPrior(kind, {"net": net}, 2.0)
        scales = {name: scale.item() for name, scale in prior.scales().items()}
        assert scales == pytest.approx(
            {"net.0.weight": 2 / 4, "net.0.bias": 2, "net.1.weight": 2 / 3, "net.1.bias": 2}
        )
        assert {name: tuple(p.event_shape) for name, p in prior().items()} == {
            f"net.{name}": tuple(p.shape) for name, p in net.named_parameters()
        }
        assert len(list(prior.parameters())) == (kind == "learned")


def mixture_density(w, s):
    pi, r = NormalMixture.wide, NormalMixture.ratio
    return pi * scipy.stats.norm.pdf(w, 0, s) + (1 - pi) * scipy.stats.norm.pdf(w, 0, r * s)


def test_densities_of_the_priors_are_scipys():
    log_scale, w = torch.tensor(-0.4, dtype=torch.float64), 0.5 * matrix(7, *SHAPE, seed=4)
    w[0] = 0.0
    s = math.exp(-0.4)
    actual = IsotropicNormal(SHAPE, log_scale).log_prob(w).numpy()
    np.testing.assert_allclose(actual, scipy.stats.norm.logpdf(w, 0, s).sum((1, 2)), rtol=1e-12)
    actual = NormalMixture(SHAPE, log_scale).log_prob(w).numpy()
    np.testing.assert_allclose(actual, np.log(mixture_density(w.numpy(), s)).sum((1, 2)), rtol=1e-9)


@pytest.mark.parametrize("make", [IsotropicNormal, NormalMixture])
def test_draws_from_the_priors_have_their_density(make):
    prior = make(SHAPE, torch.tensor(-0.4, dtype=torch.float64))
    draws = prior.sample((4000,)).flatten().numpy()
    pi = 1.0 if make is IsotropicNormal else NormalMixture.wide

    def cdf(w):
        s = math.exp(-0.4)
        narrow = scipy.stats.norm.cdf(w, 0, NormalMixture.ratio * s)
        return pi * scipy.stats.norm.cdf(w, 0, s) + (1 - pi) * narrow

    assert scipy.stats.kstest(draws, cdf).pvalue > 1e-3
    assert prior.variance.mean().item() == pytest.approx(draws.var(), rel=0.05)
    assert prior.variance.shape == prior.mean.shape == SHAPE


def test_impossible_priors_and_guides_are_refused():
    nets = {"net": nn.Linear(2, 2)}
    prior = WeightPrior("fan_in", nets)
    for make, words in [
        (lambda: WeightPrior("flat", nets), "prior='flat' is unknown; choose one of fan_in"),
        (lambda: WeightPrior("fan_in", nets, 0.0), "prior_scale=0.0 is not possible"),
        (lambda: guides.MeanField(nets, prior, 0.0), "init_scale=0.0 is not possible"),
        (lambda: guides.LowRank(nets, prior, rank=0), "rank=0 is not possible"),
        (lambda: guides.Dropout(nets, prior, 1.0), "dropout=1.0 is not possible"),
        (lambda: guides.build("flow", nets, prior, dict), "posterior='flow' is unknown"),
        (
            lambda: guides.build("normal", nets, prior, dict, rank=3),
            'rank is a setting of posterior="low_rank"; remove it',
        ),
        (
            lambda: guides.build("dropout", nets, prior, dict, init_scale=0.1),
            'init_scale is a setting of posterior="normal" or "low_rank"; remove it',
        ),
        (lambda: guides.build("ensemble", nets, prior, dict, members=0), "members=0 is not poss"),
    ]:
        with pytest.raises(UsageError) as error:
            make()
        assert words in str(error.value)


@pytest.mark.parametrize("family", ["dropout", "ensemble"])
def test_the_scale_of_a_prior_is_not_learned_from_points(family):
    # Its optimum is s = 0 with all weights 0, where the density is infinite.
    nets = {"net": nn.Linear(2, 2)}
    with pytest.raises(UsageError, match='prior="learned" needs a posterior with a density'):
        guides.build(family, nets, WeightPrior("learned", nets), lambda: nets)


# Guides


def test_a_normal_from_its_log_scale_is_torchs():
    loc, log_scale, w = matrix(3, 2), matrix(3, 2, seed=2).requires_grad_(), matrix(3, 2, seed=3)
    ours = LogScaleNormal(loc, log_scale)
    theirs = torch.distributions.Normal(loc, log_scale.exp())
    torch.testing.assert_close(ours.log_prob(w), theirs.log_prob(w))
    torch.testing.assert_close(ours.variance, theirs.variance)
    prior = torch.tensor(0.3).double().requires_grad_()
    closed = kl_divergence(ours.to_event(2), IsotropicNormal(SHAPE, prior))
    expected = kl_divergence(theirs, torch.distributions.Normal(0.0, prior.exp())).sum()
    torch.testing.assert_close(closed, expected)
    grads, wanted = (torch.autograd.grad(kl, [log_scale, prior]) for kl in (closed, expected))
    torch.testing.assert_close(grads, wanted)


def test_a_low_rank_normal_is_the_dense_one():
    ours = low_rank()
    for value in (ours.loc, ours.log_scale, ours.factor):
        value.requires_grad_()
    theirs, w = dense(ours), matrix(7, *SHAPE, seed=5)
    torch.testing.assert_close(ours.log_prob(w), theirs.log_prob(w.flatten(1)))
    torch.testing.assert_close(ours.variance.flatten(), theirs.variance)
    s = torch.tensor(0.3, dtype=torch.float64)
    prior = torch.distributions.MultivariateNormal(
        torch.zeros(6).double(), torch.eye(6).double() * (2 * s).exp()
    )
    closed = kl_divergence(ours, IsotropicNormal(SHAPE, s))
    torch.testing.assert_close(closed, kl_divergence(theirs, prior))
    parameters = [ours.loc, ours.log_scale, ours.factor]
    grads = torch.autograd.grad(closed, parameters)
    expected = torch.autograd.grad(kl_divergence(dense(ours), prior), parameters)
    torch.testing.assert_close(grads, expected)
    draws = ours.sample((20_000,)).flatten(1).detach().numpy()
    covariance = theirs.covariance_matrix.detach().numpy()
    scale = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(0) - ours.loc.flatten().detach().numpy()) < 5 * scale / 141).all()
    assert np.abs((np.cov(draws.T) - covariance) / np.outer(scale, scale)).max() < 5 * 1.5 / 141


class Regression(nn.Module):
    """y ~ N(net(h), noise^2) with an uncertain net; a datum is (h, y)."""

    noise, prior_scale = 0.7, 1.3

    def __init__(
        self, family, num_data=60, inputs=3, outputs=2, bias=True, prior="fan_in", **options
    ):
        super().__init__()
        self.num_data, self.inputs, self.outputs = num_data, inputs, outputs
        torch.manual_seed(5)
        self.net = nn.Linear(inputs, outputs, bias=bias).double()
        nets = {"net": self.net}
        lifted = WeightPrior(prior, nets, self.prior_scale).double()
        others = [{"net": nn.Linear(inputs, outputs, bias=bias).double()} for _ in range(2)]
        self.others = iter(others)
        self.weights = guides.build(
            family, nets, lifted, lambda: next(self.others), **options
        ).double()

    def data(self, h, seed=27):
        truth = matrix(self.outputs, self.inputs, seed=26)
        return torch.cat([h, h @ truth.T + self.noise * matrix(len(h), self.outputs, seed=seed)], 1)

    def model(self, x):
        drawn = self.weights.model()
        h, y = x.split([self.inputs, self.outputs], 1)
        loc = functional_call(self.net, drawn["net"], h)
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            pyro.sample("y", dist.Normal(loc, self.noise).to_event(1), obs=y)

    def guide(self, x):
        self.weights.guide()


OPTIONS = {
    "normal": {"init_scale": 0.4},
    "low_rank": {"init_scale": 0.3, "rank": 2},
    "dropout": {"dropout": 0.3},
    "ensemble": {"members": 3},
}


def sites(function, x):
    with WholeBatch():
        return sample_sites(poutine.trace(function).get_trace(x))


@pytest.mark.parametrize("family", OPTIONS)
def test_model_and_guide_draw_one_site_for_each_tensor_around_the_nets_parameters(family):
    source = Regression(family, **OPTIONS[family])
    x = source.data(matrix(8, 3, seed=6))
    model, guide = sites(source.model, x), sites(source.guide, x)
    choices = {"dropout": ["net.kept"], "ensemble": ["member"]}.get(family, [])
    assert list(guide) == [*choices, "net.weight", "net.bias"] == [*model][:-1]
    for name in ("net.weight", "net.bias"):
        assert guide[name]["fn"].event_shape == model[name]["fn"].event_shape
        assert not guide[name]["cond_indep_stack"]
    with AtMean():
        means = sites(source.guide, x)
    first = dict(source.net.named_parameters())
    if family == "ensemble":  # at the mode, which is the first
        first = {name: value[0] for name, value in first.items()}
    torch.testing.assert_close(means["net.weight"]["value"], first["weight"])
    torch.testing.assert_close(means["net.bias"]["value"], first["bias"])
    assert ready(source, x).description.weights_undefined() == (
        "global site 'net.weight' carries no density (masked prior or Delta guide)"
        if choices
        else None
    )


def losses(source, x, draws, objective=None):
    """The loss and its gradient, a row for each draw."""
    pair, objective, rows = ready(source, x), objective or TraceELBO(), []
    parameters = list(pair.trainable().values())
    for _ in range(draws):
        with in_training(pair):
            loss = objective.differentiable_loss(pair.model, pair.guide, x)
        grads = torch.autograd.grad(loss, parameters)
        rows.append(torch.cat([loss.detach()[None], *(g.flatten() for g in grads)]))
    return torch.stack(rows)


@pytest.mark.parametrize("family", ["normal", "low_rank"])
@pytest.mark.parametrize("prior", ["fan_in", "learned"])
def test_sampled_and_closed_kl_agree_in_value_and_gradient(family, prior):
    source = Regression(family, prior=prior, **OPTIONS[family])
    x = source.data(matrix(8, 3, seed=6))
    closed, sampled = (
        losses(source, x, 300, TraceELBO(analytic_kl=analytic)) for analytic in (True, False)
    )
    difference = sampled.mean(0) - closed.mean(0)
    error = ((sampled.var(0) + closed.var(0)) / 300).sqrt()
    assert (difference.abs() < 4.5 * error).all()
    assert error[0] < 0.02 * closed[:, 0].mean()
    # The closed form is what is reported, and a draw of the sampled one has it as its mean.
    pair = ready(source, x)
    reported = weight_kl(pair, x, 2, 0)
    assert reported[0] == reported[1]
    drawn = []
    for _ in range(2000):
        guide = sites(source.guide, x)
        values = {name: site["value"] for name, site in guide.items()}
        model = sites(poutine.condition(source.model, values), x)
        drawn.append(
            sum(
                (site["fn"].log_prob(site["value"]) - model[name]["fn"].log_prob(site["value"]))
                for name, site in guide.items()
            ).item()
        )
    expected = reported[0] * source.num_data
    assert np.mean(drawn) == pytest.approx(expected, abs=4 * np.std(drawn) / math.sqrt(2000))


def test_kl_from_a_mixture_is_that_of_quadrature():
    source = Regression("normal", prior="mixture", **OPTIONS["normal"])
    pair = ready(source, source.data(matrix(8, 3, seed=6)))
    drawn = weight_kl(pair, source.data(matrix(2, 3, seed=6)), 3000, 0) * source.num_data
    expected = 0.0
    scales = {name.removeprefix("net."): s for name, s in source.weights.prior.scales().items()}
    for name, loc in source.net.named_parameters():
        q_scale = source.weights.log_scale[f"net_{name}"].exp()
        for m, s in zip(loc.flatten().tolist(), q_scale.flatten().tolist(), strict=True):
            w = np.linspace(m - 9 * s, m + 9 * s, 20_001)
            q = scipy.stats.norm(m, s)
            integrand = q.pdf(w) * (q.logpdf(w) - np.log(mixture_density(w, scales[name].item())))
            expected += np.trapezoid(integrand, w)
    error = drawn.std() / math.sqrt(3000)
    assert error < 0.02 * expected
    assert drawn.mean() == pytest.approx(expected, abs=4 * error)


# Choices


def test_masks_lie_on_the_inputs_of_every_layer():
    nets = {
        "net": nn.Sequential(nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(6, 4, 3), nn.Linear(7, 2)),
        "last": nn.Linear(2, 3),
    }
    dropout = guides.Dropout(nets, WeightPrior("fan_in", nets), 0.5)
    torch.manual_seed(3)
    drawn = poutine.trace(dropout.guide).get_trace()
    shapes = {"net.0": (4, 1), "net.1": (6, 0), "net.2": (7, 1), "last": (2, 1)}
    for name, (inputs, dim) in shapes.items():
        kept = drawn.nodes[f"{name}.kept"]["value"]
        assert kept.shape == (inputs,)
        weight = drawn.nodes[f"{name}.weight"]["value"]
        alive = weight.movedim(dim, 0).flatten(1)
        assert torch.equal((alive != 0).all(1), kept == 1) and not alive[kept == 0].any()


def test_the_objective_of_dropout_is_the_sum_over_all_masks():
    source = Regression("dropout", inputs=3, dropout=0.3)
    x = source.data(matrix(8, 3, seed=6))
    h, y = x.split([3, 2], 1)
    prior = source.weights.prior.scales()
    s, b = prior["net.weight"], prior["net.bias"]
    expected = 0.0
    for mask in itertools.product([0.0, 1.0], repeat=3):
        probability = 0.7 ** sum(mask) * 0.3 ** (3 - sum(mask))
        W = source.net.weight * torch.tensor(mask).double() / 0.7
        loc = h @ W.T + source.net.bias
        fit = torch.distributions.Normal(loc, source.noise).log_prob(y).sum() * 60 / 8
        expected = expected + probability * fit
    # The decay of Gal and Ghahramani, and constants.
    expected = expected - source.net.weight.square().sum() / (2 * s**2 * 0.7)
    expected = expected - source.net.bias.square().sum() / (2 * b**2)
    expected = expected - 6 * (s.log() + 0.5 * math.log(2 * math.pi))
    expected = expected - 2 * (b.log() + 0.5 * math.log(2 * math.pi))
    grads = torch.autograd.grad(-expected, [source.net.weight, source.net.bias])
    exact = torch.cat([-expected.detach()[None], *(g.flatten() for g in grads)])
    samples = losses(source, x, 1500)
    assert_mean(samples, exact, 4.5)
    assert samples[:, 0].std() / math.sqrt(1500) < 0.01 * exact[0]


def test_an_ensemble_is_the_average_over_its_members():
    source = Regression("ensemble", members=3)
    x = source.data(matrix(8, 3, seed=6))
    assert tuple(source.net.weight.shape) == (3, 2, 3)
    pair = ready(source, x)
    h, y = x.split([3, 2], 1)
    W, b = source.net.weight, source.net.bias
    loc = torch.einsum("mji,ni->mnj", W, h) + b[:, None]
    per_member = torch.distributions.Normal(loc, source.noise).log_prob(y).sum(-1)
    scores = score(pair, batches(x), 1, 12)
    # Draw by draw the members; 12 draws are four of each, whatever the order.
    members = [
        [m for m in range(3) if np.allclose(row, per_member[m].detach())]
        for row in scores.reconstruction
    ]
    assert sorted(itertools.chain(*members)) == [0] * 4 + [1] * 4 + [2] * 4
    mixture = per_member.logsumexp(0) - math.log(3)
    np.testing.assert_allclose(log_mean(scores.log_weight), mixture.detach().numpy(), rtol=1e-9)


def test_a_member_of_an_ensemble_learns_on_its_own():
    source = Regression("ensemble", members=3)
    x = source.data(matrix(8, 3, seed=6))
    h, y = x.split([3, 2], 1)
    prior = source.weights.prior.scales()
    rows = losses(source, x, 60)
    seen = set()
    for row in rows:
        gradient = row[1 : 7 * 3 + 1 - 3].view(3, 2, 3)
        (member,) = (m for m in range(3) if gradient[m].any())
        seen.add(member)
        W, b = source.net.weight[member], source.net.bias[member]
        loc = h @ W.T + b
        value = torch.distributions.Normal(loc, source.noise).log_prob(y).sum() * 60 / 8
        for parameter, name in ((W, "net.weight"), (b, "net.bias")):
            value = value + torch.distributions.Normal(0.0, prior[name]).log_prob(parameter).sum()
        (expected,) = torch.autograd.grad(-value, source.net.weight)
        torch.testing.assert_close(row[0], -value.detach())
        torch.testing.assert_close(gradient, expected)
    assert seen == {0, 1, 2}


# Conjugate regression


def trained(source, x, steps, handler=nullcontext, lr=0.03):
    """Trained with a rate that falls to 0."""
    pair = ready(source, x)
    optimizer = torch.optim.Adam(pair.trainable().values(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    objective = TraceELBO()
    with in_training(pair):
        for _ in range(steps):
            optimizer.zero_grad()
            with handler():
                objective.differentiable_loss(pair.model, pair.guide, x).backward()
            optimizer.step()
            schedule.step()
    return pair


def conjugate(source, x):
    """Mean (outputs, inputs) and covariance (inputs, inputs) of each row of weights given data,
    the predictive density and the log evidence."""
    h, y = (v.numpy() for v in x.split([source.inputs, source.outputs], 1))
    s2 = source.weights.prior.scales()["net.weight"].item() ** 2
    precision = h.T @ h / source.noise**2 + np.eye(source.inputs) / s2
    covariance = np.linalg.inv(precision)
    mean = (covariance @ h.T @ y / source.noise**2).T

    def log_predictive(new):
        h, y = (v.numpy() for v in new.split([source.inputs, source.outputs], 1))
        scale = np.sqrt(np.einsum("ni,ij,nj->n", h, covariance, h) + source.noise**2)
        return scipy.stats.norm.logpdf(y, h @ mean.T, scale[:, None]).sum(1)

    joint = scipy.stats.multivariate_normal(
        np.zeros(len(h)), source.noise**2 * np.eye(len(h)) + s2 * h @ h.T
    )
    return mean, covariance, log_predictive, joint.logpdf(y.T).sum()


@pytest.mark.parametrize(
    "family, options, handler",
    [
        ("normal", {"init_scale": 0.3}, LocalReparameterization),
        ("low_rank", {"init_scale": 0.1, "rank": 3}, nullcontext),
    ],
)
def test_conjugate_regression_is_recovered(family, options, handler):
    outputs = 2 if family == "normal" else 1
    source = Regression(family, num_data=40, outputs=outputs, bias=False, **options)
    h = matrix(40, 3, seed=25)
    if family == "normal":  # orthogonal columns: the posterior is in the guide's family
        h = torch.linalg.qr(h)[0] * math.sqrt(40)
    else:  # two columns that are nearly one
        h[:, 1] = h[:, 0] + 0.3 * h[:, 1]
    x = source.data(h)
    mean, covariance, log_predictive, evidence = conjugate(source, x)
    with torch.no_grad():
        source.net.weight.copy_(torch.from_numpy(mean) + 0.3)
    steps, lr = (800, 0.03) if family == "normal" else (1500, 0.03)
    pair = trained(source, x, steps, handler, lr)

    q = sites(source.guide, x)["net.weight"]["fn"]
    scale = np.sqrt(np.diag(covariance))
    assert np.abs((q.mean.detach().numpy() - mean) / scale).max() < 0.1
    if family == "normal":
        np.testing.assert_allclose(q.variance.sqrt().detach().numpy(), [scale] * 2, rtol=0.05)
    else:
        actual = dense(q).covariance_matrix.detach().numpy()
        assert np.abs((actual - covariance) / np.outer(scale, scale)).max() < 0.15
        assert abs(covariance[0, 1] / scale[0] / scale[1]) > 0.9  # what mean field cannot have

    new = source.data(1.5 * matrix(50, 3, seed=31), seed=32)
    scores = score(pair, batches(new), 1, 1000)
    np.testing.assert_allclose(log_mean(scores.log_weight), log_predictive(new), atol=0.2)
    assert log_mean(scores.log_weight).mean() == pytest.approx(log_predictive(new).mean(), abs=0.02)
    scores = score(pair, batches(x), 1, 1000)
    bound = scores.elbo.mean() - weight_kl(pair, x, 1, 0)[0]
    error = scores.elbo.mean(1).std() / math.sqrt(1000)
    assert error < 0.003
    assert evidence / 40 - 0.01 < bound < evidence / 40 + 4 * error


def test_a_learned_prior_rises_to_the_maximum_of_the_evidence():
    source = Regression("normal", num_data=40, bias=False, prior="learned", init_scale=0.3)
    h = torch.linalg.qr(matrix(40, 3, seed=25))[0] * math.sqrt(40)
    x = source.data(h)
    pair = trained(source, x, 1000, LocalReparameterization)
    found = source.weights.prior.scales()["net.weight"].item()
    y = x[:, 3:].numpy()

    def log_evidence(s):
        covariance = source.noise**2 * np.eye(40) + s**2 * (h @ h.T).numpy()
        return scipy.stats.multivariate_normal(np.zeros(40), covariance).logpdf(y.T).sum()

    best = scipy.optimize.minimize_scalar(lambda s: -log_evidence(s), (0.3, 1.0)).x
    assert found == pytest.approx(best, rel=0.03)
    assert found != pytest.approx(1.3 / math.sqrt(3), rel=0.1)  # where it began
    assert "pair.weights.prior.log_scale" in pair.trainable()
