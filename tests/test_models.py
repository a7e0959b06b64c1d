"""The shipped pairs, their networks and likelihoods, against closed forms in NumPy and SciPy."""

import copy
import itertools
import math

import numpy as np
import pyro
import pyro.optim
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from harness import assert_on_the_device_of_the_data
from pyro import poutine
from torch import nn

from pyro_aevb.errors import UsageError
from pyro_aevb.models import VAE, Autoencoder, likelihoods, networks
from pyro_aevb.models.continuous_bernoulli import ContinuousBernoulli

SIZES = [(1, 28, 28), (1, 28, 20), (2, 7, 5), (3, 32, 32), (1, 105, 105), (1, 1, 1), (1, 2, 3)]
NAMES = ["bernoulli", "gaussian", "gaussian_sigmoid", "continuous_bernoulli"]


def traces(pair, x):
    """Trace the guide, then the model at the guide's code."""

    guide = poutine.trace(pair.guide).get_trace(x)
    model = poutine.trace(poutine.replay(pair.model, trace=guide)).get_trace(x)
    guide.compute_log_prob()
    model.compute_log_prob()
    return model, guide


def numpy64(tensor):
    return tensor.detach().double().numpy()


# Likelihoods


@pytest.mark.parametrize("event_shape", [(11,), (1, 4, 3)])
def test_bernoulli_is_the_cross_entropy_of_binary_and_grey_data(event_shape):
    decoder = networks.Decoder(event_shape, 2, hidden=[6])
    likelihood = likelihoods.build("bernoulli", decoder).double()
    z = torch.randn(5, 2).double()
    px = likelihood(decoder.double()(z))
    x = torch.rand(5, *event_shape).double()
    x[0], x[1], x[2] = 0.0, 1.0, (x[2] > 0.5).double()

    w, b = numpy64(likelihood.heads.layer.weight), numpy64(likelihood.heads.layer.bias)
    y = scipy.special.expit(numpy64(decoder(z)) @ w.T + b)
    flat = x.flatten(1).numpy()
    expected = (flat * np.log(y) + (1 - flat) * np.log1p(-y)).sum(1)

    np.testing.assert_allclose(numpy64(px.log_prob(x)), expected, rtol=1e-10)
    np.testing.assert_allclose(numpy64(px.mean.flatten(1)), y, rtol=1e-10)
    assert px.batch_shape == (5,) and px.event_shape == event_shape


@pytest.mark.parametrize("sigmoid", [False, True])
def test_gaussian_is_scipys_with_the_variance_floor(sigmoid):
    decoder = networks.Decoder((2, 3, 2), 2, hidden=[6]).double()
    floor = 0.3
    likelihood = likelihoods.build(
        "gaussian_sigmoid" if sigmoid else "gaussian", decoder, min_scale=floor
    ).double()
    z, x = torch.randn(4, 2).double(), torch.randn(4, 2, 3, 2).double()
    px = likelihood(decoder(z))

    w, b = numpy64(likelihood.heads.layer.weight), numpy64(likelihood.heads.layer.bias)
    h = numpy64(decoder(z)) @ w.T + b
    loc, log_variance = h[:, :12], h[:, 12:]
    loc = scipy.special.expit(loc) if sigmoid else loc
    scale = np.sqrt(np.exp(log_variance) + floor**2)
    expected = scipy.stats.norm.logpdf(x.flatten(1).numpy(), loc, scale).sum(1)

    np.testing.assert_allclose(numpy64(px.log_prob(x)), expected, rtol=1e-10)
    np.testing.assert_allclose(numpy64(px.mean.flatten(1)), loc, rtol=1e-10)


@pytest.mark.parametrize("name", ["gaussian", "gaussian_sigmoid"])
def test_gaussian_density_is_bounded_by_the_floor(name):
    # A decoder that claims a variance of exp(-200): the density at the mean is that of the floor.
    decoder = networks.Decoder((3,), 2, hidden=[])
    likelihood = likelihoods.build(name, decoder)
    likelihood.heads.biases()[1].data.fill_(-200.0)
    z = torch.zeros(1, 2)
    px = likelihood(decoder(z))
    expected = 3 * scipy.stats.norm.logpdf(0.0, 0.0, 1e-3)
    assert px.log_prob(px.mean).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "logit", [-800.0, -40, -3, -0.201, -0.199, 0, 1e-3, 0.15, 0.25, 5, 100, 800]
)
def test_continuous_bernoulli_is_a_density_with_its_moments_and_quantiles(logit):
    p = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))

    def density(x):
        return p.log_prob(torch.tensor(x, dtype=torch.float64)).exp().item()

    # Where nearly all of the mass is, finely, and the rest.
    near = min(1.0, 40 / max(abs(logit), 1e-9))
    edges = [0.0, near, 1.0] if logit < 0 else [0.0, 1 - near, 1.0]

    def integral(power, upto=1.0):
        parts = [(a, min(b, upto)) for a, b in itertools.pairwise(edges) if a < upto]
        f = lambda x: density(x) * x**power  # noqa: E731
        return sum(scipy.integrate.quad(f, a, b, epsabs=1e-13, epsrel=1e-11)[0] for a, b in parts)

    total, first, second = (integral(power) for power in range(3))
    assert total == pytest.approx(1, abs=1e-9)
    assert p.mean.item() == pytest.approx(first, rel=1e-7)
    assert p.variance.item() == pytest.approx(second - first**2, rel=1e-5, abs=1e-10)
    for share in (0.01, 0.3, 0.5, 0.9):
        x = p.icdf(torch.tensor(share, dtype=torch.float64)).item()
        assert integral(0, x) == pytest.approx(share, abs=3e-6)
    if abs(logit) < 15:  # beyond, PyTorch's is no density
        other = torch.distributions.ContinuousBernoulli(logits=p.logits)
        x = torch.linspace(0, 1, 9, dtype=torch.float64)
        torch.testing.assert_close(p.log_prob(x), other.log_prob(x), rtol=1e-8, atol=1e-8)


def test_continuous_bernoulli_in_32_bits_and_its_draws():
    logits = torch.tensor([-500.0, -8, -0.2, -0.01, 0, 0.19, 3, 60], requires_grad=True)
    p = ContinuousBernoulli(logits)
    fine = ContinuousBernoulli(logits.detach().double())
    x = torch.rand(8)
    torch.testing.assert_close(p.log_prob(x).double(), fine.log_prob(x.double()))
    torch.testing.assert_close(p.mean.double(), fine.mean, rtol=1e-5, atol=1e-6)
    # The derivative of log p(x) by the logit is x - E[x].
    (gradient,) = torch.autograd.grad(p.log_prob(x).sum(), logits)
    torch.testing.assert_close(gradient.double(), x - fine.mean, rtol=1e-5, atol=1e-6)
    n = 200_000
    draws = p.rsample((n,))
    error = (fine.variance / n).sqrt()
    assert ((draws.double().mean(0) - fine.mean).abs() < 4.5 * error).all()
    with pytest.MonkeyPatch.context() as patch:  # once in 17 million numbers
        patch.setattr(torch, "rand", lambda shape, **how: torch.zeros(shape, **how))
        assert ((p.rsample() >= 0) & (p.rsample() <= 1)).all()
        patch.setattr(torch, "rand", lambda shape, **how: torch.ones(shape, **how))
        assert ((p.rsample() >= 0) & (p.rsample() <= 1)).all()
    # That of the mean by the logit is the variance: the draws follow their logits.
    (by_logit,) = torch.autograd.grad(draws.mean(0).sum(), logits)
    np.testing.assert_allclose(by_logit, fine.variance, rtol=0.03)
    wide = ContinuousBernoulli(torch.zeros(3, 1), validate_args=True).expand((3, 2))
    assert wide.sample().shape == (3, 2) and wide.log_prob(torch.ones(3, 2)).shape == (3, 2)
    with pytest.raises(ValueError):
        wide.log_prob(torch.full((3, 2), 1.5))


def test_continuous_bernoulli_density_is_bounded_by_the_floor():
    # The output asks for a density at 0 of 1e6; a standard deviation of 0.01 allows for 100.
    decoder = networks.Decoder((3,), 2, hidden=[])
    likelihood = likelihoods.build("continuous_bernoulli", decoder, min_scale=0.01)
    likelihood.heads.biases()[0].data.fill_(-1e6)
    px = likelihood(decoder(torch.zeros(1, 2)))
    assert px.log_prob(torch.zeros(1, 3)).item() == pytest.approx(3 * math.log(100), abs=1e-4)


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("name", NAMES)
def test_output_starts_at_the_clipped_training_mean(name, network):
    mean = torch.rand(3, 5, 4)
    mean[0, 0], mean[1, 1] = 0.0, 1.0
    pair = VAE(
        (3, 5, 4), 2, [3, 4], network, name, init="aevb", output_bias="data_mean", data_mean=mean
    )
    for weight in pair.likelihood.heads.weights():
        weight.data.zero_()
    got = pair.likelihood(pair.decoder(torch.randn(2, 2)))
    edge = {"gaussian": 0.0, "continuous_bernoulli": 0.01}.get(name, 0.001)
    expected = mean.clip(edge, 1 - edge)
    torch.testing.assert_close(got.mean, expected.expand(2, 3, 5, 4), atol=1e-6, rtol=1e-5)
    if name.startswith("gaussian"):  # the bias of the log-variance is 0
        variance = torch.full((2, 3, 5, 4), 1 + 1e-6)
        torch.testing.assert_close(got.variance, variance, atol=1e-6, rtol=0)


def test_output_bias_zero_and_as_drawn():
    zero = VAE((9,), output_bias="zero", data_mean=torch.rand(9))
    assert zero.likelihood.heads.layer.bias.abs().max() == 0
    no_mean = VAE((9,), output_bias="data_mean")
    assert no_mean.likelihood.heads.layer.bias.abs().max() == 0
    drawn = VAE((5000,), hidden=[2], init="aevb", output_bias="init")
    std = drawn.likelihood.heads.layer.bias.std().item()
    assert abs(std - 0.01) < 5 * 0.01 / math.sqrt(2 * 5000)


# Networks


@pytest.mark.parametrize("name", sorted(networks.ACTIVATIONS))
def test_mlp_equals_the_formula(name):
    f = {
        "tanh": np.tanh,
        "relu": lambda a: np.maximum(a, 0),
        "elu": lambda a: np.where(a > 0, a, np.expm1(a)),
        "leaky_relu": lambda a: np.where(a > 0, a, 0.01 * a),
        "softplus": lambda a: np.logaddexp(a, 0),
        "gelu": lambda a: a * scipy.stats.norm.cdf(a),
        "silu": lambda a: a * scipy.special.expit(a),
        "sigmoid": scipy.special.expit,
    }[name]
    encoder = networks.Encoder((4,), 2, hidden=[5, 3], activation=name).double()
    x = torch.randn(7, 4).double()
    first, second, last = (m for m in encoder.modules() if isinstance(m, nn.Linear))
    h = x.numpy()
    for layer in (first, second):
        h = f(h @ numpy64(layer.weight).T + numpy64(layer.bias))
    expected = h @ numpy64(last.weight).T + numpy64(last.bias)
    np.testing.assert_allclose(numpy64(encoder(x)[0]), expected, rtol=1e-7)


def test_decoder_mirrors_the_encoder():
    pair = VAE((1, 4, 3), latent_dim=2, hidden=[7, 5])
    shapes = [tuple(m.weight.shape) for m in pair.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(7, 12), (5, 7), (4, 5), (5, 2), (7, 5), (12, 7)]


def test_a_decoder_may_have_widths_and_a_non_linearity_of_its_own():
    own = {"decoder_hidden": [7, 5, 3], "decoder_activation": "relu"}
    pair = VAE((1, 4, 3), latent_dim=2, hidden=[6], **own).double()
    z, (encode, *_) = torch.randn(4, 2).double(), pair.encoder.body[1:]
    layers = [m for m in (*pair.decoder.modules(), *pair.likelihood.modules())
              if isinstance(m, nn.Linear)]  # fmt: skip
    h = z.numpy()
    for layer in layers[:-1]:
        h = np.maximum(h @ numpy64(layer.weight).T + numpy64(layer.bias), 0)
    expected = h @ numpy64(layers[-1].weight).T + numpy64(layers[-1].bias)
    found = pair.decode(z).base_dist.logits.flatten(1)
    np.testing.assert_allclose(numpy64(found), expected, rtol=1e-7)
    assert [layer.out_features for layer in layers] == [3, 5, 7, 12]
    assert encode.out_features == 6 and isinstance(pair.encoder.body[2], nn.Tanh)


@pytest.mark.parametrize("event_shape", SIZES)
@pytest.mark.parametrize("name", ["bernoulli", "gaussian"])
def test_conv_meets_every_size_exactly(event_shape, name):
    pair = VAE(event_shape, latent_dim=3, hidden=[4, 5, 6], network="conv", likelihood=name)
    x = torch.rand(2, *event_shape)
    model, guide = traces(pair, x)
    assert guide.nodes["z"]["value"].shape == (2, 3)
    assert model.nodes["x"]["fn"].mean.shape == (2, *event_shape)
    features = pair.decoder(torch.zeros(2, 3))
    halved = tuple(math.ceil(n / 2) for n in event_shape[1:])
    assert features.shape == (2, 4, *halved)


def test_conv_encoder_and_decoder_are_adjoint():
    # A transposed convolution with the encoder's kernel is the transpose of the encoder's matrix:
    # <conv(x), y> = <x, conv_transpose(y)> for every size, which fixes padding and alignment.
    for size in [(28, 28), (7, 5), (6, 9), (1, 1)]:
        encoder = networks.Encoder((2, *size), 3, 1, "conv", [4]).double()
        heads = networks.Decoder((2, *size), 3, "conv", [4]).double().output(1).double()
        down = next(m for m in encoder.modules() if isinstance(m, nn.Conv2d))
        (weight,) = heads.weights()
        weight.data.copy_(down.weight.data)
        x = torch.randn(1, 2, *size).double()
        y = torch.randn(1, 4, *(math.ceil(n / 2) for n in size)).double()
        down_x = down(x) - down.bias.view(1, -1, 1, 1)
        torch.testing.assert_close((down_x * y).sum(), (x * heads(y)[0]).sum())


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("name", NAMES)
def test_leading_dims_give_the_same_as_one_at_a_time(network, name):
    event_shape = (2, 5, 6)
    pair = VAE(event_shape, 3, [4, 3], network, name, data_mean=torch.rand(event_shape)).double()
    z = torch.randn(4, 2, 3).double()
    many = pair.likelihood(pair.decoder(z))
    assert many.batch_shape == (4, 2)
    for k in range(4):
        one = pair.likelihood(pair.decoder(z[k]))
        torch.testing.assert_close(many.mean[k], one.mean)
        torch.testing.assert_close(many.variance[k], one.variance)
    x = torch.rand(4, 2, *event_shape).double()
    for many_codes, codes in zip(pair.encoder(x), pair.encoder(x[3]), strict=True):
        torch.testing.assert_close(many_codes[3], codes)


# Initialization


def parameters(pair):
    return torch.cat([p.detach().flatten() for p in pair.parameters()])


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("init, std", [("aevb", 0.01), ("aevb_std0.1", 0.1)])
def test_aevb_draws_every_parameter_from_one_gaussian(network, init, std):
    pair = VAE((1, 28, 28), 5, [30, 20], network, init=init, output_bias="init")
    for p in pair.parameters():
        n = p.numel()
        assert abs(p.detach().square().mean().sqrt() / std - 1) < 5 / math.sqrt(2 * n) + 4 / n
        assert abs(p.detach().mean()) < 5 * std / math.sqrt(n)
    draws = parameters(pair).numpy()
    assert scipy.stats.kstest(draws / std, "norm").pvalue > 1e-4


def layers(pair, kind):
    return [m.weight for m in pair.modules() if isinstance(m, kind)]


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_glorot_is_uniform_within_its_bounds_layer_by_layer_and_head_by_head(network):
    if network == "mlp":
        pair = VAE((30,), 10, [40], likelihood="gaussian", init="glorot", output_bias="init")
        first, q, third, p = layers(pair, nn.Linear)
        # Heads are the mean and the log-variance.
        cases = [(first, 70), (third, 50), *((w, 50) for w in q.chunk(2))]
        cases += [(w, 70) for w in p.chunk(2)]
    else:
        pair = VAE((3, 8, 8), 4, [20, 24], "conv", "gaussian", init="glorot", output_bias="init")
        down, up = layers(pair.encoder, nn.Conv2d), layers(pair.decoder, nn.ConvTranspose2d)
        cases = [(down[0], 9 * (3 + 20)), (down[1], 9 * (20 + 24)), (up[0], 9 * (24 + 20))]
        cases += [(w, 9 * 23) for w in pair.likelihood.heads.weights()]
    for weight, fans in cases:
        unit = weight.detach().flatten() / math.sqrt(6 / fans)
        assert scipy.stats.kstest(unit, "uniform", args=(-1, 2)).pvalue > 1e-4
        assert 0.95 < unit.abs().max() <= 1
    for name, p in pair.named_parameters():
        assert not name.endswith("bias") or p.abs().max() == 0


def test_torch_init_is_pytorchs():
    torch.manual_seed(3)
    expected = [nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(2, 4), nn.Linear(4, 6)]
    torch.manual_seed(3)
    pair = VAE((6,), 2, [4], init="torch", output_bias="init")
    got = [m for m in pair.modules() if isinstance(m, nn.Linear)]
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)


# Pairs


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("name", NAMES)
def test_vae_log_probabilities_against_torch_and_by_hand(network, name):
    pair = VAE((1, 6, 5), 3, [4, 4], network, name, data_mean=torch.rand(1, 6, 5)).double()
    x = torch.rand(7, 1, 6, 5).double()
    model, guide = traces(pair, x)
    z = guide.nodes["z"]["value"]
    loc, log_variance = pair.encoder(x)
    prior = torch.distributions.Normal(0.0, 1.0)
    q = torch.distributions.Normal(loc, torch.exp(log_variance / 2))
    px = model.nodes["x"]["fn"]

    for trace in (model, guide):
        assert trace.nodes["z"]["log_prob"].shape == (7,)
    assert model.nodes["x"]["log_prob"].shape == (7,)
    torch.testing.assert_close(model.nodes["z"]["log_prob"], prior.log_prob(z).sum(1))
    torch.testing.assert_close(guide.nodes["z"]["log_prob"], q.log_prob(z).sum(1))
    torch.testing.assert_close(model.nodes["x"]["log_prob"], px.log_prob(x))

    by_hand = -0.5 * (1 + log_variance - loc**2 - log_variance.exp()).sum(1)
    kl = torch.distributions.kl_divergence(guide.nodes["z"]["fn"], model.nodes["z"]["fn"])
    torch.testing.assert_close(kl, by_hand)


def test_guide_samples_follow_the_encoder():
    pair = VAE((8,), 2, [5], init="aevb_std0.1")
    for p in pair.encoder.parameters():
        p.data.mul_(8)
    x = torch.rand(1, 8).expand(40_000, 8)
    z = numpy64(poutine.trace(pair.guide).get_trace(x).nodes["z"]["value"])
    loc, log_variance = (numpy64(h[0]) for h in pair.encoder(x[:1]))
    for j in range(2):
        cdf = scipy.stats.norm(loc[j], np.exp(log_variance[j] / 2)).cdf
        assert scipy.stats.kstest(z[:, j], cdf).pvalue > 1e-4
    prior = numpy64(poutine.trace(pair.model).get_trace(x).nodes["z"]["value"])
    assert scipy.stats.kstest(prior.flatten(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("name", NAMES)
def test_autoencoders_elbo_is_the_reconstruction_alone(network, name):
    pair = Autoencoder((1, 6, 5), 3, [4, 4], network, name).double()
    x = torch.rand(7, 1, 6, 5).double()
    (code,) = pair.encoder(x)
    px = pair.likelihood(pair.decoder(code))
    loss = pyro.infer.Trace_ELBO().loss(pair.model, pair.guide, x)
    assert loss == -px.log_prob(x).sum().item()

    model, guide = traces(pair, x)
    assert torch.equal(guide.nodes["z"]["value"], code)
    assert torch.equal(model.nodes["z"]["log_prob"], torch.zeros(7))
    assert torch.equal(guide.nodes["z"]["log_prob"], torch.zeros(7).double())
    assert code.shape == (7, 3)


@pytest.mark.parametrize("pair_class", [VAE, Autoencoder])
@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(pair_class, network, name):
    pair = pair_class((2, 6, 5), 3, [4, 4], network, name)
    x = torch.rand(7, 2, 6, 5)
    pyro.infer.Trace_ELBO().differentiable_loss(pair.model, pair.guide, x).backward()
    for name, p in pair.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert (p.grad != 0).double().mean() > 0.9, name


@pytest.mark.parametrize("pair_class", [VAE, Autoencoder])
@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_is_made_on_another_device_than_the_data(pair_class, network, name):
    pair = pair_class((1, 6, 5), 3, [4], network, name)
    assert_on_the_device_of_the_data(pair, torch.empty(7, 1, 6, 5))


def test_linear_gaussian_vae_with_the_exact_posterior_gives_the_exact_evidence():
    # Probabilistic PCA: p(x) = N(b, W W^T + s^2 I). With orthogonal columns of W the posterior is
    # diagonal, so the guide can equal it, and log p(x, z) - log q(z | x) is log p(x) for every z.
    pair = VAE((5,), 2, [], likelihood="gaussian").double()
    rng = np.random.default_rng(0)
    w = np.linalg.qr(rng.normal(size=(5, 2)))[0] * [1.5, 0.7]
    b, s2 = rng.normal(size=5), 0.3
    covariance = np.linalg.inv(np.eye(2) + w.T @ w / s2)
    a = covariance @ w.T / s2

    decode, encode = pair.likelihood.heads.layer, pair.encoder.heads.layer
    log_variances = np.full(5, np.log(s2 - 1e-6))
    for parameter, value in (
        (decode.weight, np.concatenate([w, np.zeros((5, 2))])),
        (decode.bias, np.concatenate([b, log_variances])),
        (encode.weight, np.concatenate([a, np.zeros((2, 5))])),
        (encode.bias, np.concatenate([-a @ b, np.log(np.diag(covariance))])),
    ):
        parameter.data.copy_(torch.from_numpy(value))

    x = torch.randn(6, 5).double()
    model, guide = traces(pair, x)
    log_prob = model.nodes["x"]["log_prob"] + model.nodes["z"]["log_prob"]
    expected = scipy.stats.multivariate_normal(b, w @ w.T + s2 * np.eye(5)).logpdf(x.numpy())
    np.testing.assert_allclose(
        numpy64(log_prob - guide.nodes["z"]["log_prob"]), expected, rtol=1e-10
    )


# Wrong use


@pytest.mark.parametrize("pair_class", [VAE, Autoencoder])
@pytest.mark.parametrize(
    "event_shape, kwargs, words",
    [
        ((784,), {"latent_dim": 0}, "latent_dim"),
        ((784,), {"latent_dim": 2.5}, "latent_dim"),
        ((784,), {"hidden": [10, 0]}, "hidden"),
        ((784,), {"hidden": [-3]}, "hidden"),
        ((), {}, "event_shape"),
        ((1, 0, 3), {}, "event_shape"),
        ((784,), {"network": "conv"}, 'network="mlp"'),
        ((28, 28), {"network": "conv"}, "(C, H, W)"),
        ((1, 28, 28), {"network": "conv", "hidden": []}, "hidden"),
        ((784,), {"decoder_hidden": [0]}, "decoder_hidden"),
        ((784,), {"decoder_activation": "tahn"}, "decoder_activation"),
        ((784,), {"network": "transformer"}, "mlp, conv"),
        ((784,), {"likelihood": "poisson"}, "gaussian_sigmoid"),
        ((784,), {"likelihood": "gaussian", "min_scale": 0.0}, "min_scale"),
        ((784,), {"activation": "Tanh"}, "leaky_relu"),
        ((784,), {"init": "he"}, "glorot"),
        ((784,), {"output_bias": "mean"}, "data_mean"),
        ((784,), {"data_mean": torch.zeros(28, 28)}, "(784,)"),
        ((784,), {"data_mean": torch.full((784,), torch.nan)}, "data_mean"),
    ],
)
def test_wrong_values_are_named_in_one_line(pair_class, event_shape, kwargs, words):
    with pytest.raises(UsageError) as error:
        pair_class(event_shape, **kwargs)
    message = str(error.value)
    assert words in message and "\n" not in message


@pytest.mark.parametrize("family", [VAE, Autoencoder])
def test_pyros_own_svi_trains_the_registered_parameters(family):
    x = torch.rand(6, 5).round()
    torch.manual_seed(0)
    by_svi = family((5,), latent_dim=2, hidden=[3])
    by_hand = copy.deepcopy(by_svi)

    svi = pyro.infer.SVI(
        by_svi.model, by_svi.guide, pyro.optim.SGD({"lr": 0.1}), pyro.infer.Trace_ELBO()
    )
    torch.manual_seed(1)
    svi.step(x)

    pyro.clear_param_store()
    torch.manual_seed(1)
    pyro.infer.Trace_ELBO().differentiable_loss(by_hand.model, by_hand.guide, x).backward()
    for trained, start in zip(by_svi.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(trained, start - 0.1 * start.grad)
        assert (trained != start).any()
