"""Wake-sleep against closed forms of linear-Gaussian pairs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import assert_compiles, assert_resumes, capture_only, taken
from linear_gaussian import PPCA, BayesianPPCA, Hierarchy, batches, matrix, ready
from pyro import poutine
from scipy.stats import multivariate_normal

from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import Split
from pyro_aevb.errors import UsageError
from pyro_aevb.models import Autoencoder
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.step import Step
from pyro_aevb.training.trainer import Trainer, seed_everything
from pyro_aevb.training.wake_sleep import WakeSleep


def steps(source, x):
    pair = ready(source, x)
    algorithm = WakeSleep(pair, batches(x))
    return algorithm, [Step(pair, phase, batches(x)) for phase in algorithm.phases]


def drawn(function, x):
    torch.manual_seed(5)
    with torch.no_grad(), WholeBatch():
        return poutine.trace(function).get_trace(x).nodes


@pytest.mark.parametrize("num_data", [None, 1000])
def test_losses_and_gradients_are_the_closed_forms_at_the_same_draws(num_data):
    r"""-log p(x, z) = |x - Wz - mu|^2 / 2 s^2 + |z|^2 / 2 + const, -log q likewise, per datum."""
    net = PPCA(num_data=num_data)
    x = net.data(9)
    _, (wake, sleep) = steps(net, x)
    assert list(wake.parameters) == ["pair.W", "pair.mu"]
    assert list(sleep.parameters) == ["pair.A", "pair.c", "pair.log_s"]
    index, W, s = torch.arange(9), net.W.detach(), net.log_s.detach().exp()

    loss, gradients = taken(wake, index, x, seed=5)
    z = drawn(net.guide, x)["z"]["value"]
    error = (x - z @ W.T - net.mu.detach()) / net.noise**2
    expected = -multivariate_normal(cov=net.noise**2).logpdf((error * net.noise**2).reshape(-1, 1))
    expected = expected.sum() - multivariate_normal().logpdf(z.reshape(-1, 1)).sum()
    assert float(loss) == pytest.approx(expected / 9, rel=1e-12)
    torch.testing.assert_close(gradients["pair.W"], -error.T @ z / 9)
    torch.testing.assert_close(gradients["pair.mu"], -error.mean(0))

    loss, gradients = taken(sleep, index, x, seed=5)
    dream = drawn(poutine.uncondition(net.model), x)
    z, seen = dream["z"]["value"], dream["x"]["value"]
    assert not torch.equal(seen, x)
    scaled = (z - seen @ net.A.detach().T - net.c.detach()) / s
    expected = -multivariate_normal().logpdf(scaled.reshape(-1, 1)).sum() / 9 + float(s.log().sum())
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradients["pair.A"], -(scaled / s).T @ seen / 9)
    torch.testing.assert_close(gradients["pair.c"], -(scaled / s).mean(0))
    torch.testing.assert_close(gradients["pair.log_s"], 1 - scaled.square().mean(0))


def test_it_reaches_the_maximum_likelihood_of_probabilistic_pca():
    """By Tipping and Bishop (1999); with one latent the guide's family contains the posterior."""
    net, other = PPCA(latent=1), PPCA(latent=1)
    other.W.data, other.mu.data = matrix(4, 1, seed=9), matrix(4, seed=10)
    x = other.data(300)
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))
    top = vectors[:, -1:] * (values[-1] - net.noise**2).sqrt()
    best = PPCA(latent=1)
    best.W.data, best.mu.data = top, x.mean(0)
    maximum = best.log_likelihood(x).mean()
    assert net.log_likelihood(x).mean() < maximum - 8
    seed_everything(0)
    pair, data = ready(net, x), batches(x)
    few = Batches(Split(x[:20], None, 1), "none")
    algorithm = make_algorithm("wake_sleep", pair, data)
    settings = {"epochs": 500, "batch_size": 300, "lr": 0.03, "schedule": "cosine"}
    Trainer(pair, data, few, algorithm, **settings, compile="off").run()
    assert maximum - 0.02 < net.log_likelihood(x).mean() <= maximum
    reconstruction, kl = (value.detach().numpy() for value in net.closed_form(x))
    assert 0 <= (net.log_likelihood(x) - reconstruction + kl).mean() < 0.002


class Bernoulli(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = torch.nn.Linear(5, 4), torch.nn.Linear(2, 5)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1).to_event(1))
            fn = dist.Bernoulli(logits=self.decoder(z), validate_args=False).to_event(1)
            pyro.sample("x", fn, obs=x)

    def guide(self, x):
        self.seen = x
        loc, scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def test_dreams_of_a_bernoulli_are_binary_and_have_its_frequencies():
    x = torch.rand(4000, 5)
    net = Bernoulli()
    _, (_, sleep) = steps(net, x)
    with torch.no_grad():
        net.decoder.weight.zero_()
    taken(sleep, torch.arange(len(x)), x)
    assert set(net.seen.unique().tolist()) == {0.0, 1.0}
    p = net.decoder.bias.detach().sigmoid()
    assert ((net.seen.mean(0) - p).abs() < 4 * (p * (1 - p) / len(x)).sqrt()).all()


def test_two_layers_of_codes():
    """From the posterior, the losses of both phases differ by log p(x); errors of about 0.02."""

    class Scaled(Hierarchy):
        def __init__(self):
            super().__init__()
            self.module = torch.nn.ParameterList([torch.ones(1).double(), torch.ones(1).double()])

        def model(self, x):
            with poutine.scale(scale=1.0):
                super().model(x * self.module[0])

        def guide(self, x):
            super().guide(x * self.module[1])

    pair = Scaled()
    x = drawn(poutine.uncondition(pair.model), torch.zeros(20000, 4).double())["x"]["value"]
    algorithm = WakeSleep(ready(pair, x), batches(x))
    index = torch.arange(len(x))
    wake, sleep = (float(phase.loss(x, index).detach()) for phase in algorithm.phases)
    assert wake - sleep == pytest.approx(-pair.log_likelihood(x).mean(), abs=0.08)


def test_a_captured_step_is_the_eager_one(monkeypatch):
    capture_only(monkeypatch)
    x = (torch.rand(40, 5) > 0.5).float()
    index = torch.randperm(40)[:16]
    for step in steps(Bernoulli(), x)[1]:
        assert_compiles(step, (index, x[:16]), (index, x[:16].flip(0)))


@pytest.mark.parametrize("compile", ["off", "on"])
def test_a_resumed_run_equals_an_uninterrupted_one(compile, tmp_path, monkeypatch):
    capture_only(monkeypatch)

    def trainer(path):
        seed_everything(2)
        x = torch.rand(50, 5)
        data, fixed = (Batches(Split(x, None, 1), how) for how in ("dynamic", "fixed"))
        pair = ready(Bernoulli(), data.take(torch.arange(5)))
        settings = {"epochs": 3, "batch_size": 20, "compile": compile, "schedule": "cosine"}
        return Trainer(pair, data, fixed, WakeSleep(pair, data), path, **settings)

    assert_resumes(trainer, tmp_path / "c.pt", 5)  # of 9


def test_what_it_cannot_train_is_refused():
    x = PPCA().data(9)
    for source, said in [
        (PPCA(exact=True), "model and its guide share the parameter 'pair.W'"),
        (BayesianPPCA(9), "'W' is a global latent site"),
        (Autoencoder((4,), 2).double(), "latent site 'z' carries no density"),
    ]:
        data = x[:, :3] if isinstance(source, BayesianPPCA) else x.abs().clamp(0, 1)
        with pytest.raises(UsageError, match=f"wake_sleep cannot train .*: .*{said}"):
            steps(source, data)
