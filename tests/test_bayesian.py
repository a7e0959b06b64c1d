"""The pairs with uncertain weights: their bounds and limits, and training like any other's."""

import math
from contextlib import nullcontext
from functools import partial

import numpy as np
import pyro
import pyro.optim
import pytest
import scipy.stats
import torch
from harness import (
    assert_compiles,
    assert_on_the_device_of_the_data,
    assert_resumes,
    capture_only,
    in_training,
    summary,
)
from linear_gaussian import batches, matrix, ready
from pyro import poutine
from torch.distributions import Normal, kl_divergence

import pyro_aevb.training.svi as learning
from pyro_aevb.cli import parse_pair_flags
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.metrics import log_mean, weight_kl
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.models import VAE, Autoencoder, BayesianAutoencoder, BayesianVAE
from pyro_aevb.models.weights.noise import Flipout, LocalReparameterization
from pyro_aevb.pairs.density import sample_sites
from pyro_aevb.pairs.handlers import Fix, WholeBatch
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.step import Step
from pyro_aevb.training.trainer import Trainer, seed_everything

N, EVENT = 50, (1, 6, 5)
POINT = {BayesianAutoencoder: Autoencoder, BayesianVAE: VAE}
POSTERIORS = {
    "normal": {"init_scale": 0.2},
    "low_rank": {"init_scale": 0.2, "rank": 2},
    "dropout": {"dropout": 0.2},
    "ensemble": {"members": 3},
}
both = pytest.mark.parametrize("make", POINT)
networks = pytest.mark.parametrize("network", ["mlp", "conv"])
likelihoods = pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])


def build(make, network="mlp", likelihood="bernoulli", posterior="normal", **options):
    torch.manual_seed(4)
    options = {"bayesian": "both", "prior": "fan_in", **POSTERIORS[posterior], **options}
    mean = torch.linspace(0.1, 0.9, 30).view(EVENT)
    return make(
        EVENT,
        num_data=N,
        latent_dim=3,
        hidden=[7, 4],
        network=network,
        likelihood=likelihood,
        data_mean=mean,
        posterior=posterior,
        **options,
    ).double()


def data(n=12):
    return (matrix(n, *EVENT, seed=3) > 0).double()


def loss(pair, x, objective=None, handler=nullcontext):
    with in_training(pair), handler():
        return (objective or TraceELBO()).differentiable_loss(pair.model, pair.guide, x)


def trace(function, x):
    with WholeBatch():
        return sample_sites(poutine.trace(function).get_trace(x))


def weights(source):
    """Every uncertain tensor: its site, its posterior mean and its scale."""
    lifted = source.weights
    for site in lifted.prior.shapes:
        net, _, name = site.partition(".")
        loc = source.nets.get_submodule(net).get_parameter(name)
        yield site, loc, lifted.log_scale[site.replace(".", "_")].exp()


def by_hand(source):
    """KL(q(w) || p(w)), tensor by tensor, with PyTorch's normals."""
    scales = source.weights.prior.scales()
    return sum(
        kl_divergence(Normal(loc, scale), Normal(0.0, scales[site])).sum()
        for site, loc, scale in weights(source)
    )


# Bounds


@both
@networks
@likelihoods
def test_the_objective_is_the_scaled_bound_computed_by_hand(make, network, likelihood):
    source, x = build(make, network, likelihood), data(12)
    points = build(make, network, likelihood).nets
    pair = ready(source, x)
    pyro.set_rng_seed(7)
    actual = loss(pair, x)
    # The same draws: weights in the order of their sites, then the codes.
    pyro.set_rng_seed(7)
    drawn = {
        site: loc + scale * torch.randn(loc.shape, dtype=loc.dtype)
        for site, loc, scale in weights(source)
    }
    with torch.no_grad():
        for site, value in drawn.items():
            net, _, name = site.partition(".")
            points.get_submodule(net).get_parameter(name).copy_(value)
    kl = 0.0
    if make is BayesianVAE:
        loc, log_variance = points.encoder(x)
        z = loc + (log_variance / 2).exp() * torch.randn(loc.shape, dtype=loc.dtype)
        kl = -0.5 * (1 + log_variance - loc**2 - log_variance.exp()).sum()
    else:
        (z,) = points.encoder(x)
    reconstruction = points.likelihood(points.decoder(z)).log_prob(x).sum()
    expected = -N / 12 * (reconstruction - kl) + by_hand(source)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)
    assert len(drawn) == len(list(points.parameters()))


@both
@networks
@likelihoods
@pytest.mark.parametrize("noise", [nullcontext, LocalReparameterization, Flipout])
def test_without_weight_noise_it_is_the_family_of_points(make, network, likelihood, noise):
    source, x = build(make, network, likelihood), data(12)
    points = POINT[make](EVENT, 3, [7, 4], network, likelihood).double()
    points.load_state_dict(source.nets.state_dict())
    with torch.no_grad():
        for value in source.weights.log_scale.values():
            value.fill_(-200.0)
    # A code that is drawn has to be the same one.
    codes = {"z": trace(points.guide, x)["z"]["value"].detach()} if make is BayesianVAE else {}
    pair, point_pair = ready(source, x), ready(points, x)
    with Fix(codes):
        # Up to the scale of the plate, and the weights' own term.
        actual = loss(pair, x, handler=noise) - by_hand(source)
        expected = N / 12 * loss(point_pair, x)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=0)


def linear_hybrid(spread):
    """x ~ N(w z + b, 0.25 I) in two dimensions, z ~ N(0, 1), q(w) = N(m, spread^2 I)."""
    torch.manual_seed(3)
    source = BayesianVAE(
        (2,),
        num_data=N,
        latent_dim=1,
        hidden=[],
        likelihood="gaussian",
        min_scale=0.5,
        bayesian="decoder",
        init_scale=0.1,
    ).double()
    m, b = torch.tensor([0.9, -0.6]).double(), torch.tensor([0.3, 0.1]).double()
    layer, encoder = source.nets.likelihood.heads.layer, source.nets.encoder.heads.layer
    log_scale = source.weights.log_scale
    with torch.no_grad():
        # The variance is its floor alone.
        layer.weight.copy_(torch.cat([m, torch.zeros(2).double()])[:, None])
        layer.bias.copy_(torch.cat([b, torch.full((2,), -80.0).double()]))
        log_scale["likelihood_heads_layer_weight"].fill_(-200.0)
        log_scale["likelihood_heads_layer_weight"][:2] = math.log(spread)
        log_scale["likelihood_heads_layer_bias"].fill_(-200.0)
        # The posterior given w = m, a little wider.
        precision = 1 + m @ m / 0.25
        encoder.weight.copy_(torch.stack([m / 0.25 / precision, torch.zeros(2).double()]))
        encoder.bias.copy_(torch.stack([-b @ m / 0.25 / precision, (1.5 / precision).log()]))
    return source, m.numpy(), b.numpy()


def test_the_nested_estimate_of_a_linear_hybrid_is_the_exact_predictive():
    source, m, b = linear_hybrid(0.3)
    x = 0.7 * matrix(9, 2, seed=8) + torch.from_numpy(b)
    pair = ready(source, x)
    scores = score(pair, batches(x), 100, 900)
    # Weights by quadrature, codes in closed form.
    nodes, masses = np.polynomial.hermite_e.hermegauss(40)
    masses = masses / masses.sum()
    predictive, expected, elbo = 0.0, 0.0, 0.0
    loc, log_variance = (h.detach().numpy() for h in source.nets.encoder(x))
    v = np.exp(log_variance[:, 0])
    centred = x.numpy() - b
    for (i, p), (j, q) in ((one, two) for one in enumerate(masses) for two in enumerate(masses)):
        w = m + 0.3 * np.array([nodes[i], nodes[j]])
        log_p = scipy.stats.multivariate_normal(b, np.outer(w, w) + 0.25 * np.eye(2)).logpdf(x)
        predictive += p * q * np.exp(log_p)
        expected += p * q * log_p
        squares = ((centred - loc * w) ** 2).sum(1) + v * (w @ w)
        elbo += p * q * (-squares / 0.5 - math.log(2 * math.pi * 0.25))
    elbo -= 0.5 * (loc[:, 0] ** 2 + v - 1 - np.log(v))
    per_draw = np.exp(scores.log_weight)
    error = per_draw.std(0) / 30 / per_draw.mean(0)
    assert error.max() < 0.06
    assert (np.abs(log_mean(scores.log_weight) - np.log(predictive)) < 4.5 * error).all()
    error = scores.log_weight.std(0) / 30
    assert (np.abs(scores.log_weight.mean(0) - expected) < 4.5 * error).all()
    error = scores.elbo.std(0) / 30
    assert (np.abs(scores.elbo.mean(0) - elbo) < 4.5 * error).all()
    assert (np.log(predictive) - expected).mean() > 0.05  # the order of the means matters

    kl = weight_kl(pair, x, 2, 0)
    assert kl[0] * N == pytest.approx(by_hand(source).item(), rel=1e-10)
    metrics = summary(scores, scores, pair.description, kl)
    bound = metrics["training_elbo"]["value"]
    error = scores.elbo.mean(1).std() / 30
    assert bound == pytest.approx(elbo.mean() - by_hand(source).item() / N, abs=4.5 * error)


# Quantities


def test_an_autoencoder_has_the_mixture_of_its_reconstructions():
    source, x = build(BayesianAutoencoder), data(12)
    pair = ready(source, x)
    scores = score(pair, batches(x), 30, 5)
    kl = weight_kl(pair, x, 2, 0)
    metrics = summary(scores, scores, pair.description, kl)
    densities = []
    for s in range(5):
        with torch.no_grad(), WholeBatch(), pair.active():
            drawn = weight_draw(pair, x, 0, s)[1].items()
            with Fix({k: torch.from_numpy(np.asarray(site["value"])) for k, site in drawn}):
                guide = poutine.trace(source.guide).get_trace(x)
                model = poutine.trace(poutine.replay(source.model, trace=guide)).get_trace(x)
        densities.append(model.nodes["x"]["fn"].log_prob(x).numpy())
    np.testing.assert_allclose(scores.reconstruction, densities, rtol=1e-10)
    mixture = metrics["reconstruction_mixture"]
    per_datum = np.log(np.exp(densities).mean(0))
    assert mixture["value"] == pytest.approx(per_datum.mean(), rel=1e-10)
    assert mixture["standard_error"] == pytest.approx(per_datum.std(ddof=1) / math.sqrt(12))
    assert mixture["weight_samples"] == 5
    assert mixture["value"] > metrics["reconstruction"]["value"]
    assert metrics["weight_kl"]["value"] == pytest.approx(by_hand(source).item() / N, rel=1e-10)
    for name in ("elbo", "training_elbo", "log_likelihood"):
        assert metrics[name]["value"] is None
    hybrid = ready(build(BayesianVAE), x)
    scores = score(hybrid, batches(x), 3, 2)
    assert "reconstruction_mixture" not in summary(scores, scores, hybrid.description, kl)


# Trained like any other pair


@both
@networks
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_gradient_reaches_every_parameter(make, network, posterior):
    prior = "learned" if posterior in ("normal", "low_rank") else "fan_in"
    source, x = build(make, network, "gaussian", posterior, prior=prior), data(12)
    pair = ready(source, x)
    for handler in (nullcontext, LocalReparameterization, Flipout):
        for parameter in source.parameters():
            parameter.grad = None
        # A mask takes it away from what it drops, a member from the others.
        for _ in range(40 if prior == "fan_in" else 1):
            loss(pair, x, handler=handler).backward()
        for name, parameter in source.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).double().mean() > 0.9, name


@both
@pytest.mark.parametrize("posterior", POSTERIORS)
@networks
def test_no_tensor_is_made_on_another_device_than_the_data(make, posterior, network):
    assert_on_the_device_of_the_data(build(make, network, posterior=posterior), data(7))


def trainer(make, path=None, noise=None, **options):
    seed_everything(1)
    source = build(make, **options).float()
    x = data(30).float()
    pair = ready(source, x)
    return Trainer(
        *(pair, batches(x), batches(x), learning.SVI(pair, TraceELBO(), noise), path),
        **{"epochs": 3, "batch_size": 10, "seed": 1, "compile": "off"},
    )


@pytest.mark.parametrize("posterior", POSTERIORS)
@both
def test_a_resumed_run_equals_an_uninterrupted_one(make, posterior, tmp_path):
    fresh = partial(trainer, make, posterior=posterior)
    assert_resumes(fresh, tmp_path / "c.pt", 7)  # of 9


@pytest.mark.parametrize(
    "make, options, noise",
    [(BayesianVAE, {"posterior": name}, "shared") for name in POSTERIORS]
    + [(BayesianAutoencoder, {"prior": prior}, None) for prior in ("learned", "mixture")]
    + [(BayesianVAE, {"network": "conv"}, noise) for noise in ("shared", "local", "flipout")]
    + [(BayesianAutoencoder, {"network": "conv", "likelihood": "gaussian"}, "local")]
    + [(BayesianVAE, {"network": "conv", "posterior": "dropout"}, None)],
)
def test_a_captured_step_is_the_eager_one(make, options, noise, monkeypatch):
    capture_only(monkeypatch)
    source, x = build(make, **options).float(), data(30).float()
    pair = ready(source, x)
    algorithm = learning.SVI(pair, TraceELBO(), noise)
    step = Step(pair, algorithm.phases[0], batches(x))
    assert_compiles(step, (torch.arange(12),), (torch.randperm(30)[:12],), rtol=1e-5)


# Settings


def test_weights_are_drawn_for_each_datum_unless_something_else_is_asked_for():
    x = data(30)
    pair, points = ready(build(BayesianVAE), x), ready(VAE(EVENT).double(), x)

    def noise(pair, objective="elbo", chosen=None):
        return learning.SVI(pair, make_objective(objective, 2), chosen).weight_noise

    assert noise(pair) == "local" and noise(pair, "sampled_elbo") == "local"
    assert noise(pair, "iwae") == "shared"  # it would not be a bound
    assert noise(pair, chosen="shared") == "shared" and noise(pair, chosen="flipout") == "flipout"
    assert noise(points) == "shared"


@pytest.mark.parametrize("posterior", ["low_rank", "dropout", "ensemble"])
def test_weight_noise_that_cannot_reach_the_weights_is_refused_where_it_is_asked_for(posterior):
    parameters = {"posterior": posterior, "hidden": [5]}
    pair = prepare("BayesianVAE", "digits", parameters, device="cpu").pair
    assert learning.SVI(pair, TraceELBO()).weight_noise == "local"  # the family's, and harmless
    with pytest.raises(UsageError, match="--weight-noise flipout is for .*: use --weight-noise sh"):
        learning.SVI(pair, TraceELBO(), "flipout")


def test_settings_are_flags_and_wrong_ones_are_refused():
    flags = ["--pair.prior=mixture", "--pair.posterior=low_rank", "--pair.rank=3"]
    flags += ["--pair.init_scale=0.2", "--pair.bayesian=decoder", "--pair.hidden=[8]"]
    values = parse_pair_flags("BayesianVAE", flags)
    source = BayesianVAE((9,), num_data=N, **values)
    assert source.weights.factor["decoder_body_0_weight"].shape == (3, 8, 20)
    assert source.weights.prior.kind == "mixture"
    assert {site.partition(".")[0] for site in source.weights.prior.shapes} == {
        "decoder",
        "likelihood",
    }
    assert BayesianVAE((9,), num_data=N).weights.prior.kind == "learned"
    for posterior in ("dropout", "ensemble"):  # points have no scale to learn a prior from
        source = BayesianVAE((9,), num_data=N, posterior=posterior)
        assert source.weights.prior.kind == "fan_in"
    with pytest.raises(UsageError, match="--pair.posterior takes normal"):
        parse_pair_flags("BayesianAutoencoder", ["--pair.posterior=flow"])
    with pytest.raises(UsageError, match="bayesian='encoder' is unknown; choose one of both, dec"):
        BayesianVAE((9,), num_data=N, bayesian="encoder")


def test_an_ensembles_members_start_apart_and_as_the_family_does():
    source = build(BayesianVAE, posterior="ensemble", members=3)
    layer = source.nets.decoder.body[0]
    assert layer.weight.shape == (3, 4, 3)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.isclose(layer.weight[one], layer.weight[other]).any()
    assert layer.weight.abs().max() <= 3**-0.5  # PyTorch's bound
    bias = source.nets.likelihood.heads.layer.bias.view(3, 30)
    expected = torch.linspace(0.1, 0.9, 30).logit().double()
    torch.testing.assert_close(bias, expected.expand(3, 30), rtol=1e-5, atol=1e-5)
