"""Monte Carlo EM against the maximum-likelihood solution of probabilistic PCA."""

import os
import signal
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import assert_resumes, assert_same_run, capture_only
from linear_gaussian import BayesianPPCA, GaussianMean, batches, marginal, matrix, posterior
from sklearn.decomposition import PCA
from torch import nn

import pyro_aevb
import pyro_aevb.engine.replay
import pyro_aevb.training.step
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import Split
from pyro_aevb.errors import UsageError
from pyro_aevb.models import VAE, Autoencoder
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.training.monte_carlo_em import MonteCarloEM
from pyro_aevb.training.trainer import Trainer, seed_everything


class LearnedPPCA(nn.Module):
    """x ~ N(W z + mu, s^2) with z ~ N(0, I), all learned; a linear guide with free variances."""

    def __init__(self, features=5, latent=2):
        super().__init__()
        self.W = nn.Parameter(0.5 * matrix(features, latent, seed=8))
        self.mu = nn.Parameter(torch.zeros(features).double())
        self.log_s = nn.Parameter(torch.zeros(()).double())
        self.encoder = nn.Linear(features, latent).double()
        self.log_scale = nn.Parameter(torch.zeros(latent).double())
        self.noise = nn.Dropout(0.3)  # of the codes; never in the energy of a chain

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.W.shape[1]), 1.0).to_event(1))
            loc = z @ self.W.T + self.mu
            pyro.sample("x", dist.Normal(loc, self.log_s.exp()).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            q = dist.Normal(self.encoder(x), self.log_scale.exp()).to_event(1)
            pyro.sample("z", q)


def ppca_data(n=400, seed=4):
    loading = np.array([[2.0, 0.3], [1.5, -0.5], [-1.0, 1.2], [0.5, 1.0], [0.0, -0.8]])
    z, noise = matrix(n, 2, seed=seed), matrix(n, 5, seed=seed + 1)
    return z @ torch.from_numpy(loading).T + 0.5 * noise + torch.arange(5) / 5


def trainer(source, data, path=None, options=None, **settings):
    seed_everything(1)
    pair = load_pair(source)
    inspect(pair, data.take(torch.arange(5)))
    algorithm = MonteCarloEM(pair, data, **(options or {}))
    return Trainer(pair, data, data, algorithm, path, seed=1, **settings)


def test_log_likelihood_rises_to_the_maximum_and_the_guide_to_the_posterior():
    """The maximum is scikit-learn's, by eigenvectors; 0.0005 to 0.002 nats are left."""
    x = ppca_data()
    t = trainer(LearnedPPCA, batches(x), epochs=130, batch_size=400, lr=0.04, schedule="cosine")
    pair = t.pair.sources["pair"]

    def value():
        with torch.no_grad():
            noise = float(pair.log_s.exp())
            return marginal(pair.W, pair.mu.detach(), noise).logpdf(x.numpy()).mean()

    before, maximum = value(), PCA(2).fit(x.numpy()).score(x.numpy())
    history = t.run()
    assert before < maximum - 4
    assert maximum - 0.01 < value() <= maximum
    tuned = [row["acceptance"] for row in history[60:]]
    assert np.mean(tuned) == pytest.approx(0.9, abs=0.02)
    # The chains are a draw from the posteriors of the last model: in coordinates in which these
    # are standard normal, 800 numbers, whose mean has error 0.035 and variance 0.05.
    gain, covariance = posterior(pair.W.detach(), float(pair.log_s.detach().exp()))
    mean = (x - pair.mu.detach()) @ gain.T
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (t._algorithm.chains - mean).T, upper=False
    )
    assert float(white.mean()) == pytest.approx(0, abs=0.12)
    assert float(white.var()) == pytest.approx(1, abs=0.2)
    # The guide has their mean, and of the diagonal normals the one with their variances.
    assert (pair.encoder.weight - gain).abs().max() < 0.05
    np.testing.assert_allclose(
        (2 * pair.log_scale).exp().detach(), covariance.diagonal(), rtol=0.15
    )


def test_the_gradient_of_the_model_is_that_of_the_joint_at_the_chains():
    """Against the formula: of log p(x, z), not of log p(x|z) with another scale or sign."""
    x = ppca_data(20)
    t = trainer(LearnedPPCA, batches(x))
    learned, (phase, guide) = t.pair.sources["pair"], t._algorithm.phases
    assert {name.split(".")[1] for name in phase.parameters} == {"W", "mu", "log_s"}
    assert {name.split(".")[1] for name in guide.parameters} == {"encoder", "log_scale"}
    index = torch.tensor([7, 3, 11, 0])
    with t.pair.active(), WholeBatch():
        phase.loss(x[index], index).backward()
    z = t._algorithm.chains[index]
    variance = float((2 * learned.log_s.detach()).exp())
    error = (x[index] - z @ learned.W.T - learned.mu).detach()
    torch.testing.assert_close(learned.W.grad, -error.T @ z / variance / 4)
    torch.testing.assert_close(learned.mu.grad, -error.mean(0) / variance)
    torch.testing.assert_close(
        learned.log_s.grad, 5 - error.square().sum() / variance / 4, check_dtype=False
    )
    assert learned.encoder.weight.grad is None
    # Its value, by SciPy.
    with torch.no_grad():
        scale = np.sqrt(variance)
        expected = dist.Normal(z @ learned.W.T + learned.mu, scale).log_prob(x[index]).sum()
        expected += dist.Normal(0.0, 1.0).log_prob(z).sum()
        with t.pair.active(), WholeBatch():
            torch.testing.assert_close(phase.loss(x[index], index), -expected / 4)


def test_the_guide_does_not_touch_the_model_and_may_be_left_alone():
    """Without dropout in the encoder, fitting the guide spends no random number."""
    x = ppca_data(60)
    runs = {}
    for fit_guide in (True, False):
        t = trainer(
            LearnedPPCA, batches(x), None, {"fit_guide": fit_guide, "updates": 2}, epochs=3,
            batch_size=20,
        )  # fmt: skip
        start = {k: v.detach().clone() for k, v in t.pair.tensors().items()}
        t.run()
        runs[fit_guide] = t
        for name, value in t.pair.tensors().items():
            of_guide = "encoder" in name or "log_scale" in name
            assert torch.equal(value, start[name]) == (of_guide and not fit_guide), name
    for name in ("pair.W", "pair.mu", "pair.log_s"):
        a, b = (runs[fit].pair.tensors()[name] for fit in (True, False))
        assert torch.equal(a, b)
    assert torch.equal(runs[True]._algorithm.chains, runs[False]._algorithm.chains)
    assert (
        runs[True]._algorithm.notes == () and "has not trained" in runs[False]._algorithm.notes[0]
    )


def bits(n=37):
    pixels = np.random.RandomState(0).rand(n, 9) < 0.4
    return Batches(Split(torch.from_numpy(pixels.astype(np.float32)), None, 1), "none")


def small():
    return VAE((9,), latent_dim=2, hidden=[4])


@pytest.mark.parametrize("stop", ["between epochs", "in the middle"])
def test_a_resumed_run_equals_an_uninterrupted_one(stop, tmp_path):
    settings = {"epochs": 4, "batch_size": 10, "lr": 0.05, "optimizer": "adagrad"}
    fresh, path = partial(trainer, small, bits(), **settings), tmp_path / "parts.pt"
    if stop == "between epochs":
        assert_resumes(fresh, path, 9)  # of 16
        return
    whole, part = fresh(), fresh(path)
    moves = part._algorithm.before

    def before(x, index):
        if (part.progress.epoch, part.progress.step) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)
        moves(x, index)

    part._algorithm.before = before
    seed_everything(1)
    whole.run()
    seed_everything(1)
    with pytest.raises(KeyboardInterrupt):
        part.run()
    resumed = fresh(path)
    resumed.resume()
    assert (resumed.progress.epoch, resumed.progress.step) == (1, 3)
    resumed.run()
    assert_same_run(whole, resumed)


def test_a_captured_run_is_the_eager_one(monkeypatch):
    """Trajectories and both phases from their graphs, which read the chains where they are now."""
    capture_only(monkeypatch)
    monkeypatch.setattr(pyro_aevb.engine.replay, "compile_captured", lambda graph, *_, **__: graph)
    settings = {"epochs": 2, "batch_size": 10, "optimizer": "sgd"}
    eager, captured = (trainer(small, bits(), compile=way, **settings) for way in ("off", "on"))
    for run in (eager, captured):
        seed_everything(1)
        run.run()
    assert captured._learners.compiled and captured._algorithm._evaluate._graphs
    for name, value in eager.pair.tensors().items():
        torch.testing.assert_close(captured.pair.tensors()[name], value, rtol=1e-4, atol=1e-5)
    for name, value in eager._algorithm.state.items():
        torch.testing.assert_close(captured._algorithm.state[name], value, rtol=1e-4, atol=1e-5)


def test_what_it_cannot_train_says_why():
    x = ppca_data(20)
    for source, data, options, said in (
        (LearnedPPCA, batches(x), {"updates": 0}, "updates is 0; it must be at least 1"),
        (LearnedPPCA, batches(x), {"leapfrog_steps": 0}, "leapfrog_steps is 0"),
        (LearnedPPCA, batches(x), {"acceptance": 1.0}, "acceptance is 1.0; it must lie between"),
        (BayesianPPCA(20), batches(x[:, :3]), {}, "'W' is a global latent site"),
        (GaussianMean(x), batches(x), {}, "'w' is a global latent site"),
        (Autoencoder((9,)), bits(), {}, "latent site 'z' has no prior density"),
        (
            VAE((9,)),
            Batches(Split(bits().images, None, 1), "dynamic"),
            {},
            "add --binarize fixed",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            trainer(source, data, None, options)


def test_fit_and_evaluate(tmp_path):
    settings = {"data": "digits", "num_samples": 30, "device": "cpu", "show": False, "epochs": 2}
    settings |= {"num_data": 20, "proposal": "guide"}
    settings |= {"algorithm": "monte_carlo_em", "binarize": "fixed", "batch_size": 200}
    run = pyro_aevb.fit(pair_parameters={"hidden": [8]}, out=str(tmp_path / "a"), **settings)
    assert {"guide_loss", "step_size", "acceptance"} <= set(run.history[0])
    assert run.history[1]["objective"] > run.history[0]["objective"]
    assert not any("Monte Carlo EM" in note for note in run.results["notes"])
    settings["algorithm_options"] = {"fit_guide": False}
    run = pyro_aevb.fit(pair_parameters={"hidden": [8]}, out=str(tmp_path / "b"), **settings)
    assert any("has not trained the guide" in note for note in run.results["notes"])
    again = pyro_aevb.evaluate(run, num_samples=5, proposal="guide", device="cpu", show=False)
    assert any("has not trained the guide" in note for note in again["notes"])
