"""Weight noise for every datum against closed forms of linear layers and conjugate regression."""

import math
from contextlib import nullcontext

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import assert_mean, in_training
from linear_gaussian import PPCA, matrix, ready, with_data
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuideList, AutoNormal
from torch import nn
from torch.nn import functional

from pyro_aevb.errors import UsageError
from pyro_aevb.models.weights.noise import Flipout, LocalReparameterization
from pyro_aevb.pairs.density import guide_sites
from pyro_aevb.pairs.handlers import ScaleSites
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.training.objectives.elbo import TraceELBO

HANDLERS = [LocalReparameterization, Flipout]


# One layer


def weights(*shape, seed):
    """A mean and a standard deviation."""
    return matrix(*shape, seed=seed), 0.3 + 0.7 * matrix(*shape, seed=seed + 1).abs()


def sample(name, moments):
    loc, scale = moments
    return pyro.sample(name, dist.Normal(loc, scale).to_event(loc.dim()))


LAYERS = {
    "linear": (functional.linear, (2, 3), (4, 3), {}),
    "one row for all": (functional.linear, (3,), (4, 3), {}),
    "rows of a datum": (functional.linear, (2, 3, 2), (2, 2), {}),
    "one image for all": (functional.conv1d, (2, 4), (2, 2, 2), {}),
    "conv1d": (functional.conv1d, (2, 2, 4), (2, 2, 2), {}),
    "conv2d": (functional.conv2d, (2, 2, 3, 3), (2, 2, 2, 2), {"padding": 1, "stride": 2}),
    "groups": (functional.conv2d, (2, 4, 2, 2), (2, 2, 2, 2), {"padding": 1, "groups": 2}),
    "transposed": (functional.conv_transpose2d, (2, 2, 2, 2), (2, 3, 2, 2), {"stride": 2}),
}


@pytest.mark.parametrize(
    "layer, random",
    [(name, "both") for name in LAYERS]
    + [(name, random) for name in ("linear", "transposed") for random in ("weight", "bias")],
)
@pytest.mark.parametrize("handler", HANDLERS)
def test_outputs_have_the_joint_moments_of_weights_drawn_for_each_datum(handler, layer, random):
    function, shape, size, options = LAYERS[layer]
    h = matrix(*shape, seed=1)
    M, S = weights(*size, seed=2)
    channels = size[1] if layer == "transposed" else size[0]
    m, s = weights(channels, seed=4)
    # What the layer does is linear in its weights: its covariance is J diag(variance) J^T ...
    jacobians = torch.autograd.functional.jacobian(
        lambda w, b: function(h, w, b, **options).flatten(), (M, m)
    )
    parts = [J.flatten(1) for J in jacobians]
    variances = [(S**2).flatten() * (random != "bias"), s**2 * (random != "weight")]
    expected = sum(J @ torch.diag(v) @ J.T for J, v in zip(parts, variances, strict=True))
    mean = function(h, M, m, **options)
    # ... within a datum, and none between data.
    many = not layer.startswith("one ")
    if many:
        datum = torch.arange(len(expected)) // (len(expected) // 2)
        expected = expected * (datum[:, None] == datum)

    # 8 copies of each datum in one call, which are data of their own.
    draws, copies = (400, 8) if many else (2000, 1)
    rows, outputs = h.repeat(copies, *[1] * (len(shape) - 1)) if copies > 1 else h, []
    for _ in range(draws):
        with handler():
            weight = M if random == "bias" else sample("w", (M, S))
            bias = m if random == "weight" else sample("b", (m, s))
            outputs.append(function(rows, weight, bias, **options))
    y = torch.stack(outputs).reshape(draws * copies, -1).numpy() - mean.flatten().numpy()
    scale = expected.diagonal().sqrt().numpy()
    assert (np.abs(y.mean(0)) < 5 * scale / math.sqrt(draws * copies)).all()
    actual = y.T @ y / len(y)
    assert np.abs((actual - expected.numpy()) / np.outer(scale, scale)).max() < 0.25


@pytest.mark.parametrize("handler", HANDLERS)
def test_nothing_is_drawn_but_the_noise_of_the_rows(handler):
    h, (M, S), (m, s) = matrix(5, 3), weights(4, 3, seed=2), weights(4, seed=4)
    pyro.set_rng_seed(1)
    with handler():
        w, b = sample("w", (M, S)), sample("b", (m, s))
        assert w.shape == (4, 3) and w.dtype == h.dtype and w.dim() == w.ndim == 2
        assert torch.equal(torch.zeros_like(w), torch.zeros(4, 3).double())
        y = functional.linear(h, weight=w, bias=b)
    pyro.set_rng_seed(1)
    expected = h @ M.T + m
    if handler is LocalReparameterization:
        expected += (h**2 @ (S**2).T + s**2).sqrt() * torch.randn(5, 4, dtype=h.dtype)
    else:
        dW = S * torch.randn(4, 3, dtype=h.dtype)
        signs = 1 - 2 * torch.randint(2, (5, 3), dtype=h.dtype)
        y0 = (h * signs) @ dW.T
        expected += (1 - 2 * torch.randint(2, (5, 4), dtype=h.dtype)) * y0
        expected += s * torch.randn(5, 4, dtype=h.dtype)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_scale_of_zero_is_a_point_and_a_row_of_zeros_has_gradients(handler):
    h, (M, S), (m, _) = matrix(5, 3), weights(4, 3, seed=2), weights(4, seed=4)
    with handler():
        zero = torch.tensor(1e-30).double()
        y = functional.linear(h, sample("w", (M, zero)), sample("b", (m, zero)))
    torch.testing.assert_close(y, functional.linear(h, M, m), rtol=1e-14, atol=1e-14)
    M, S = M.requires_grad_(), S.requires_grad_()
    with handler():
        y = functional.linear(torch.zeros_like(h), sample("w", (M, S)), m)
    grads = torch.autograd.grad(y.sum(), [M, S])
    torch.testing.assert_close(y, m.expand(5, 4), rtol=1e-14, atol=1e-14)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in grads)


@pytest.mark.parametrize("handler", HANDLERS)
def test_every_other_use_sees_the_ordinary_draw(handler):
    h, moments = matrix(5, 3), weights(3, 3, seed=2)
    uses = [
        lambda w: h @ w.T,
        lambda w: functional.linear(w, h).sum() + w,
        lambda w: torch.cat([w, w])[1:],
        lambda w: torch.einsum("ni,ji->nj", h, w).sum() * w.mean(),
        lambda w: functional.linear(h, w[0]),
        lambda w: functional.linear(h, w.view(3, 3)),
    ]

    def after_a_look(w):
        with torch.no_grad():
            w.mean()
        return torch.autograd.grad((h @ w.T).square().sum(), moments[1])[0]

    moments[1].requires_grad_()
    for use in [*uses, after_a_look]:
        pyro.set_rng_seed(2)
        with handler():
            actual = use(sample("w", moments))
        pyro.set_rng_seed(2)
        expected = use(moments[0] + moments[1] * torch.randn(3, 3, dtype=h.dtype))
        torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_local_latent_is_no_weight(handler):
    h, moments = matrix(5, 3), weights(4, 3, seed=2)
    pyro.set_rng_seed(2)
    with handler(), pyro.plate("data", 4):
        actual = functional.linear(h, pyro.sample("z", dist.Normal(*moments).to_event(1)))
    pyro.set_rng_seed(2)
    torch.testing.assert_close(actual, h @ torch.normal(*moments).T)


# Conjugate regression


class Regression(nn.Module):
    """y ~ N(W h + b, noise^2) with normal priors; a datum is (h, y). The guide is a free normal."""

    noise, prior = 0.7, 1.3

    def __init__(self, num_data=60, inputs=3, outputs=2):
        super().__init__()
        self.num_data, self.inputs, self.outputs = num_data, inputs, outputs
        self.M = nn.Parameter(0.5 * matrix(outputs, inputs, seed=21))
        self.m = nn.Parameter(0.5 * matrix(outputs, seed=22))
        self.S = nn.Parameter(0.2 + 0.3 * matrix(outputs, inputs, seed=23).abs())
        self.s = nn.Parameter(0.3 + 0.3 * matrix(outputs, seed=24).abs())

    def data(self, n):
        h = matrix(n, self.inputs, seed=25)
        truth = matrix(self.outputs, self.inputs, seed=26)
        return torch.cat([h, h @ truth.T + self.noise * matrix(n, self.outputs, seed=27)], 1)

    def layer(self, h, w, b):
        return functional.linear(h, w, b)

    def model(self, x):
        h, y = x.split([self.inputs, self.outputs], 1)
        zero = x.new_zeros(())
        w = pyro.sample("w", dist.Normal(zero, self.prior).expand(self.M.shape).to_event(2))
        b = pyro.sample("b", dist.Normal(zero, self.prior).expand(self.m.shape).to_event(1))
        loc = pyro.deterministic("loc", self.layer(h, w, b))
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            pyro.sample("y", dist.Normal(loc, self.noise).to_event(1), obs=y)

    def guide(self, x):
        sample("w", (self.M, self.S))
        sample("b", (self.m, self.s))

    def likelihood(self, x):
        """Minus the expected log-likelihood of the data set, from a batch."""
        h, y = x.split([self.inputs, self.outputs], 1)
        squares = (y - h @ self.M.T - self.m) ** 2 + h**2 @ (self.S**2).T + self.s**2
        constant = 0.5 * math.log(2 * math.pi * self.noise**2) * y.numel()
        return self.num_data / len(x) * (squares.sum() / (2 * self.noise**2) + constant)

    def weight_kl(self):
        total = 0.0
        for loc, scale in ((self.M, self.S), (self.m, self.s)):
            ratio = (scale / self.prior) ** 2
            total = total + 0.5 * (ratio + (loc / self.prior) ** 2 - 1 - ratio.log()).sum()
        return total


def evaluate(objective, pair, x, handler=nullcontext):
    with in_training(pair), handler():
        return objective.differentiable_loss(pair.model, pair.guide, x)


def estimates(objective, pair, x, handler, draws):
    """Losses and gradients, one row for each draw."""
    parameters, rows = list(pair.trainable().values()), []
    for _ in range(draws):
        loss = evaluate(objective, pair, x, handler)
        grads = torch.autograd.grad(loss, parameters)
        rows.append(torch.cat([loss.detach()[None], *[g.flatten() for g in grads]]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "handler, objective",
    [
        (LocalReparameterization, TraceELBO()),
        (LocalReparameterization, TraceELBO(2, analytic_kl=False)),
        (LocalReparameterization, Trace_ELBO()),
        (LocalReparameterization, TraceMeanField_ELBO()),
        (Flipout, TraceELBO()),
        (Flipout, TraceELBO(analytic_kl=False)),
    ],
)
def test_loss_and_gradient_are_those_of_the_closed_form_in_expectation(handler, objective):
    source, x, pair = with_data(Regression(), 20)
    exact = source.likelihood(x) + source.weight_kl()
    parameters = list(pair.trainable().values())
    grads = torch.autograd.grad(exact, parameters)
    expected = torch.cat([exact.detach()[None], *[g.flatten() for g in grads]])
    samples = estimates(objective, pair, x, handler, 400)
    assert_mean(samples, expected, precision=0.02)
    assert_mean(samples[:, 1:], expected[1:], precision=0.05)


def test_gradient_variance_is_that_of_independent_weights_and_below_that_of_shared_ones():
    source, x, pair = with_data(Regression(num_data=60), 60)
    h = x[:, :3]
    S2, s2 = source.S.detach() ** 2, source.s.detach() ** 2
    # The gradient of the mean of w_ji is a sum over data of (residual_nj h_ni) / noise^2, and the
    # residual's noise is independent between data, or that of one common draw.
    independent = (h**2 @ S2.T + s2).T @ h**2 / source.noise**4
    shared = (S2 @ (h.T @ h) ** 2 + torch.outer(s2, h.sum(0) ** 2)) / source.noise**4
    total = {}
    for handler in (nullcontext, *HANDLERS):
        gradients = estimates(TraceELBO(), pair, x, handler, 400)[:, 1:]
        total[handler] = gradients.var(0).sum()
        expected = shared if handler is nullcontext else independent
        actual = gradients.var(0)[: source.M.numel()].view_as(expected)
        torch.testing.assert_close(actual, expected, rtol=5 * math.sqrt(3 / 400), atol=0)
    assert total[LocalReparameterization] < total[Flipout] / 3 < total[nullcontext] / 9


# Autoguides


def automatic(source, x, guide=AutoNormal):
    """The regression with an autoguide of the same parameters."""
    pair = ready((source.model, guide(source.model)), x)
    auto = pair.guide
    auto = auto[0] if isinstance(auto, AutoGuideList) else auto
    with torch.no_grad():
        for name, loc, scale in (("w", source.M, source.S), ("b", source.m, source.s)):
            setattr(auto.locs, name, loc.detach().clone())
            setattr(auto.scales, name, scale.detach().clone())
    return pair


def listed(model):
    guide = AutoGuideList(model)
    guide.append(AutoNormal(model))
    return guide


@pytest.mark.parametrize("guide", [AutoNormal, listed])
@pytest.mark.parametrize("handler", [nullcontext, *HANDLERS])
@pytest.mark.parametrize("analytic", [True, False])
def test_an_automatic_guide_equals_the_one_written_out(guide, handler, analytic):
    source = Regression()
    x = source.data(20)
    pairs = automatic(source, x, guide), ready(source, x)
    losses = []
    for pair in pairs:
        pyro.set_rng_seed(3)
        losses.append(evaluate(TraceELBO(analytic_kl=analytic), pair, x, handler))
    torch.testing.assert_close(*losses, rtol=1e-14, atol=0)


def test_closed_and_sampled_kl_of_an_automatic_guide_agree_and_scale():
    source = Regression()
    x = source.data(20)
    pair = automatic(source, x)
    kl = source.weight_kl().detach()

    def draws(analytic, beta):
        pyro.set_rng_seed(3)
        with ScaleSites(beta, {"w", "b"}), torch.no_grad():
            objective = TraceELBO(analytic_kl=analytic)
            return torch.stack([evaluate(objective, pair, x) for _ in range(200)])

    # The same draws, so that the likelihood cancels.
    closed, sampled = ([draws(how, beta) for beta in (1.0, 0.25)] for how in (True, False))
    torch.testing.assert_close(closed[0] - closed[1], 0.75 * kl.expand(200))
    assert_mean((sampled[0] - sampled[1])[:, None], 0.75 * kl[None], precision=0.05)
    assert_mean((sampled[0] - closed[0] + kl)[:, None], kl[None], precision=0.05)


def test_a_latent_site_that_is_named_like_an_auxiliary_one_stays_two_sites():
    def guide():
        a = pyro.sample("a_unconstrained", dist.Normal(0.0, 1.0))
        pyro.sample("a", dist.Delta(a))

    assert list(guide_sites(poutine.trace(guide).get_trace())) == ["a_unconstrained", "a"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_is_no_independent_normal_weight_stays_shared(handler):
    source = Regression()
    x = source.data(20)
    auto = AutoDiagonalNormal(source.model)
    codes = PPCA(num_data=30)  # a local site, drawn inside the plate
    objectives = [TraceELBO(), TraceELBO(4, vectorize_particles=True, max_plate_nesting=1)]
    for pair, batch, objective in [
        (ready((source.model, auto), x), x, objectives[0]),
        (ready(codes, codes.data(5)), codes.data(5), objectives[0]),
        (ready(codes, codes.data(5)), codes.data(5), objectives[1]),
    ]:
        losses = []
        for chosen in (nullcontext, handler):
            pyro.set_rng_seed(3)
            losses.append(evaluate(objective, pair, batch, chosen))
        torch.testing.assert_close(*losses, rtol=0, atol=0)


# A network


def decoder(x):
    pair = load_pair(
        "examples/bayesian_decoder.py:BayesianDecoder",
        {"event_shape": tuple(x.shape[1:]), "num_data": 40, "latent_dim": 2, "hidden": 6},
    )
    return ready(pair, x)


def widen(pair, scale):
    """Noise large enough to be seen through the non-linearities."""
    with torch.no_grad():
        for name, value in pair.trainable().items():
            if ".scales." in name:
                value.fill_(math.log(math.expm1(scale)))


def test_a_nested_network_has_the_loss_of_shared_draws_in_expectation():
    x = (torch.rand(20, 1, 3, 3) > 0.5).float()
    pair = decoder(x)
    widen(pair, 0.5)
    shared, local, flipout = (
        estimates(TraceELBO(), pair, x, handler, 200) for handler in (nullcontext, *HANDLERS)
    )
    for actual in (local, flipout):
        error = ((shared.var(0) + actual.var(0)) / 200).sqrt()
        assert error[0] < 0.03 * shared[:, 0].mean()
        assert ((shared.mean(0) - actual.mean(0)).abs() < 4.5 * error + 1e-6).all()
    variances = [samples[:, 1:].var(0).sum() for samples in (local, flipout, shared)]
    assert variances[0] < variances[1] / 1.3 < variances[2] / 2


# Misuse


class Twice(Regression):
    """Uses its weight as told."""

    def __init__(self, use):
        super().__init__(outputs=3)
        self.layer = use


@pytest.mark.parametrize(
    "use, message",
    [
        (lambda h, w, b: functional.linear(functional.linear(h, w, b), w), "'w' is used twice"),
        (lambda h, w, b: functional.linear(h, w) + functional.linear(2 * h, w), "and by a layer"),
        (lambda h, w, b: functional.linear(h, w, b) + b, "'b' is used twice"),
        (lambda h, w, b: functional.linear(h @ w, w, b), "'w' is used twice"),
        (lambda h, w, b: functional.linear(h, w) * w.square().sum(), "by another operation"),
        (
            lambda h, w, b: functional.linear(h.repeat(2, 1), w, b).view(2, *h.shape).mean(0),
            r"'w' meets 40 rows for the \[20\] data",
        ),
    ],
)
@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("guide", [None, AutoNormal])
def test_a_weight_used_twice_for_a_datum_is_refused(handler, guide, use, message):
    source = Twice(use)
    x = source.data(20)
    pair = ready((source.model, guide(source.model)) if guide else source, x)
    evaluate(TraceELBO(), pair, x)
    with pytest.raises(UsageError, match=f"{message}.*--weight-noise shared") as raised:
        evaluate(TraceELBO(), pair, x, handler)
    assert "\n" not in str(raised.value)
    evaluate(TraceELBO(), pair, x)  # everything is left as it was


def test_a_handler_starts_afresh_each_time():
    handler, source = LocalReparameterization(), Regression()
    x = source.data(20)
    with handler:
        functional.linear(matrix(7, 3), sample("v", weights(4, 3, seed=2)))
    pair = ready(source, x)
    pyro.set_rng_seed(3)
    actual = evaluate(TraceELBO(), pair, x, lambda: handler)
    pyro.set_rng_seed(3)
    torch.testing.assert_close(actual, evaluate(TraceELBO(), pair, x, LocalReparameterization))


def test_a_weight_of_guide_and_model_is_refused():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3, 3]).to_event(2))
        with pyro.plate("data", size=9, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(functional.linear(z, w), 1.0).to_event(1), obs=x)

    def guide(x):
        w = sample("w", (torch.zeros(3, 3), torch.ones(())))
        with pyro.plate("data", size=9, subsample_size=len(x)):
            pyro.sample("z", dist.Normal(functional.linear(x, w), 1.0).to_event(1))

    x = torch.randn(5, 3)
    pair, said = (
        ready((model, guide), x),
        "'w' is used twice for each datum, by a layer and by a la",
    )
    with pytest.raises(UsageError, match=said):
        evaluate(TraceELBO(), pair, x, LocalReparameterization)
