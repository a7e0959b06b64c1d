"""The weight of the KL against closed forms, and the true ELBO beside it."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from harness import bound, flat, refusal, taken
from linear_gaussian import PPCA, BayesianPPCA, GaussianMean, batches, matrix, ready
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.distributions import kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.errors import UsageError
from pyro_aevb.models import VAE, Autoencoder, BetaVAE
from pyro_aevb.pairs.handlers import ScaleSites
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.objectives.dreg import DReG
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.objectives.iwae import IWAE
from pyro_aevb.training.optimizers import latent_weight
from pyro_aevb.training.step import Step
from pyro_aevb.training.svi import SVI
from pyro_aevb.training.trainer import Trainer, seed_everything


def weighted(objective, pair, x, beta, seed=0):
    with ScaleSites(beta, pair.description.kl_sites()):
        return bound(objective, pair, x, seed).item()


# The objective


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_a_step_is_the_reconstruction_less_beta_times_the_kl(beta):
    source = VAE((1, 4, 4), latent_dim=2, hidden=[5]).double()
    x = (torch.rand(9, 1, 4, 4) > 0.5).double()
    pair = ready(source, x)
    step = Step(pair, SVI(pair, TraceELBO()).phases[0], batches(x))
    loss, gradients = taken(step, torch.arange(9), seed=2, kl_scale=beta)

    torch.manual_seed(2)
    mean, log_variance = source.encoder(x)
    s = (0.5 * log_variance).exp()
    z = mean + s * torch.randn(9, 2, dtype=torch.double)
    logits = source.likelihood(source.decoder(z)).base_dist.logits
    expected = binary_cross_entropy_with_logits(logits, x, reduction="sum")
    expected = expected + beta * 0.5 * (mean**2 + s**2 - 1 - log_variance).sum()
    torch.testing.assert_close(loss, (expected / 9).detach(), rtol=1e-9, atol=0)
    parameters = list(pair.trainable().values())
    grads = torch.autograd.grad(expected / 9, parameters)
    torch.testing.assert_close(flat(gradients), flat(dict(enumerate(grads))), rtol=1e-9, atol=1e-12)


def test_the_weights_kl_is_not_scaled_beside_codes():
    r"""Given W the guide is exact, so that at beta 1 the terms of a datum are log p(x|W)."""
    source = BayesianPPCA(50)
    x = matrix(4, 3)
    pair = ready(source, x)
    one, none = (weighted(TraceELBO(), pair, x, beta) for beta in (1.0, 0.0))
    W, again = source.seen[-2:]
    assert torch.equal(W, again)
    weight_kl = kl_divergence(dist.Normal(source.loc, source.spread), dist.Normal(0, 1))
    exact = 50 / 4 * source.log_likelihood(x, W).sum() - weight_kl.sum().item()
    assert one == pytest.approx(exact, rel=1e-9)
    # At 0 the likelihood is left, and the whole KL of the weights.
    with ScaleSites(0.0, {"W", "z"}):
        likelihood = bound(TraceELBO(), pair, x).item()
    assert none == pytest.approx(likelihood - weight_kl.sum().item(), rel=1e-9)
    assert none > one + 10


class Masked(GaussianMean):
    """The same beside a code without a density, as in a Bayesian autoencoder."""

    def model(self, x):
        w = pyro.sample("w", dist.Normal(torch.zeros_like(self.loc), self.prior).to_event(1))
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1).mask(False))
            pyro.sample("x", dist.Normal(w, self.noise).to_event(1), obs=x)

    def guide(self, x):
        super().guide(x)
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            pyro.sample("z", dist.Delta(x).to_event(1))


@pytest.mark.parametrize("kind", [GaussianMean, Masked])
def test_without_codes_of_a_density_it_is_the_weights_kl_that_is_scaled(kind):
    source = kind(matrix(7, 2, seed=11))
    pair = ready(source, source.D)
    one, half = (weighted(TraceELBO(), pair, source.D, beta) for beta in (1.0, 0.5))
    assert half - one == pytest.approx(0.5 * source.weight_kl(), rel=1e-9)


@pytest.mark.parametrize("objective", [TraceELBO(), TraceELBO(analytic_kl=False), IWAE(1), DReG(1)])
def test_auxiliary_sites_of_the_guide_are_scaled_too(objective):
    r"""s = exp(u) by an autoguide: log q(s) is that of u and of the Jacobian, -u."""

    def model(x):
        s = pyro.sample("s", dist.Gamma(2.0, 2.0))
        seen.append(s.item())
        with pyro.plate("data", size=20, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(0.0, s).expand([3]).to_event(1), obs=x)

    seen, x = [], matrix(6, 3).float()
    guide = AutoNormal(model)
    pair = ready((model, guide), x)
    assert pair.description.kl_sites() == {"s", "s_unconstrained"}
    value = weighted(objective, pair, x, 0.3)
    s, u = seen[-1], math.log(seen[-1])
    likelihood = 20 / 6 * scipy.stats.norm(0, s).logpdf(x.numpy()).sum()
    with pair.active():
        loc, scale = guide.locs.s.item(), guide.scales.s.item()
    log_q = scipy.stats.norm(loc, scale).logpdf(u) - u
    log_p = scipy.stats.gamma(2, scale=0.5).logpdf(s)
    assert value == pytest.approx(likelihood + 0.3 * (log_p - log_q), rel=1e-5)


# Training


def trainer(source, x, objective=None, **settings):
    seed_everything(3)
    pair = ready(source, x)
    settings = {"epochs": 2, "batch_size": len(x), "compile": "off", **settings}
    return Trainer(pair, batches(x), batches(x), objective or TraceELBO(), **settings)


@pytest.mark.parametrize("beta", [0.3, 4.0])
@pytest.mark.parametrize("objective, tolerance", [(TraceELBO(4), 0.03), (DReG(1), 5e-3)])
def test_training_reaches_the_optimal_guide(beta, objective, tolerance):
    r"""q(z) in proportion to p(z) p(x|z)^(1/beta); log w is constant there, DReG without noise."""
    source = PPCA(latent=1)
    for p in (source.W, source.mu):
        p.requires_grad_(False)
    x = source.data(300)
    settings = {"epochs": 150, "lr": 0.05, "schedule_options": {"final": 1e-3}}
    trainer(source, x, objective, beta=beta, schedule="cosine", **settings).run()
    W, v = source.W[:, 0].double(), beta * source.noise**2
    gain, variance = W / (v + W @ W), v / (v + W @ W)
    torch.testing.assert_close(source.A[0], gain, rtol=0, atol=tolerance)
    torch.testing.assert_close(source.c[0], -gain @ source.mu, rtol=0, atol=tolerance)
    torch.testing.assert_close(source.log_s[0].exp() ** 2, variance, rtol=2 * tolerance, atol=0)


def test_the_validation_is_of_the_true_elbo():
    settings = {"optimizer": "sgd", "lr": 1e-12, "epochs": 4}
    x = PPCA().data(200)
    plain = trainer(PPCA(), x, **settings).run()
    rows = trainer(PPCA(), x, beta=2.5, kl_warm_up=2, **settings).run()
    scales = [0.0, 1.25, 2.5, 2.5]  # of epochs of one step
    assert [row["kl_scale"] for row in rows] == scales
    for name in ("elbo", "reconstruction", "kl"):
        assert [r[name] for r in rows] == pytest.approx([r[name] for r in plain], rel=1e-9)
    reconstruction, kl = (value.mean().item() for value in PPCA().closed_form(x))
    assert kl > 1 and rows[0]["elbo"] == pytest.approx(reconstruction - kl, abs=0.3)
    # The same draws, so the objectives differ by the KL alone.
    for row, other, beta in zip(rows, plain, scales, strict=True):
        assert row["objective"] - other["objective"] == pytest.approx((1 - beta) * kl, rel=1e-6)


def test_a_flag_has_the_last_word_over_the_pairs_own_beta():
    x = torch.rand(6, 1, 4, 4)
    pair = ready(BetaVAE((1, 4, 4), beta=3.0, latent_dim=2, hidden=[5]), x)
    assert latent_weight(pair) == 3.0 and latent_weight(pair, 1.0) == 1.0
    assert latent_weight(ready(VAE((1, 4, 4)), x)) == 1.0
    assert latent_weight(ready(BetaVAE((1, 4, 4)), x)) == 4.0

    class Own(VAE):
        def __init__(self, event_shape):
            super().__init__(event_shape)
            self.beta = nn.Parameter(torch.ones(3))  # of the model: none of ours

    assert latent_weight(ready(Own((1, 4, 4)), x)) == 1.0
    for beta in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match=f"--beta is {beta}"):
            latent_weight(pair, beta)
    points = ready(Autoencoder((1, 4, 4)), x)
    points.name = "Autoencoder"
    with pytest.raises(UsageError, match="--beta 2: Autoencoder has no KL to weigh: .*'z'"):
        latent_weight(points, 2.0)


def test_a_subclass_takes_the_parameters_that_it_hands_on(tmp_path, capsys):
    words = ["--data=digits", "--epochs=1", "--num-samples=20", "--num-data=20", "--show=false"]
    out = tmp_path / "run"
    flags = ["--pair=BetaVAE", "--pair.beta", "2.5", "--pair.latent_dim", "3", "--pair.hidden=[7]"]
    run_command(pyro_aevb.fit, [*words, *flags, f"--out={out}"])
    run = pyro_aevb.Run.open(out)
    assert run.settings["pair_parameters"] == {"beta": 2.5, "latent_dim": 3, "hidden": [7]}
    assert run.results["parameters"] == 64 * 7 + 7 + 7 * 6 + 6 + 3 * 7 + 7 + 7 * 64 + 64
    assert run.history[0]["kl_scale"] == 2.5
    assert any("with the KL times 2.5" in note for note in run.results["notes"])
    metrics = {k: v["value"] for k, v in run.results["metrics"].items()}
    assert metrics["elbo"] == pytest.approx(metrics["reconstruction"] - metrics["kl"], abs=0.3)

    for flag, hint in (("--pair.latent_dmi=3", "'latent_dim'"), ("--pair.event_shape=3", "beta")):
        wrong = [*words, "--pair=BetaVAE", flag, f"--out={tmp_path / 'b'}"]
        assert hint in refusal(partial(run_command, pyro_aevb.fit, wrong), capsys)

    class Free(VAE):  # takes anything, and hands on only some of it
        def __init__(self, event_shape, scale=1.0, **options):
            super().__init__(event_shape, **options)

    pair = load_pair(Free, {"scale": 2.0, "hidden": [3], "latent_dim": 2, "event_shape": (1, 2, 2)})
    assert pair.tensors()["pair.encoder.heads.layer.weight"].shape == (4, 3)
    with pytest.raises(UsageError, match="no parameter 'widht'"):
        load_pair(Free, {"widht": 2.0, "event_shape": (1, 2, 2)})


def test_wake_sleep_has_no_kl_to_scale():
    x = PPCA().data(20)
    pair = ready(PPCA(), x)
    algorithm = make_algorithm("wake_sleep", pair, batches(x))
    with pytest.raises(UsageError, match="--beta 2 is for --algorithm svi; wake_sleep has no KL"):
        Trainer(pair, batches(x), batches(x), algorithm, beta=2.0)
    pair.attribute = {"beta": 4.0}.get
    with pytest.raises(UsageError, match="--beta 4 is for --algorithm svi.*: use --beta 1"):
        Trainer(pair, batches(x), batches(x), algorithm)
    assert Trainer(pair, batches(x), batches(x), algorithm, beta=1.0)._beta == 1.0
