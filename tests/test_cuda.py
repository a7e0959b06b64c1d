"""The same on a GPU; skipped, visibly, where there is none."""

import pytest
import torch

import pyro_aevb
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.sets import load
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.importance import score
from pyro_aevb.objectives import make_objective
from pyro_aevb.preparation import prepare
from pyro_aevb.training.loop import Trainer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_scores_agree_with_the_cpu(network):
    """Other random numbers, the same integral: the difference is Monte Carlo error, about 0.1."""
    values = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        prepared = prepare("VAE", "digits", {"network": network}, device="cpu")
        pair = prepared.pair.move(device)
        data = Batches(load("digits").test, "fixed", device)
        values[device] = score(pair, data, num_samples=500)
    for name in ("log_weight", "elbo", "kl", "reconstruction_mean"):
        cpu, cuda = (getattr(values[d], name).mean() for d in ("cpu", "cuda"))
        assert cuda == pytest.approx(cpu, abs=0.1 if name in ("log_weight", "elbo") else 1e-3)


def test_fit_on_cuda_resumes(tmp_path):
    settings = {"data": "digits", "num_samples": 50, "device": "cuda", "show": False}
    run = pyro_aevb.fit(epochs=3, out=str(tmp_path / "r"), **settings)
    assert run.history[-1]["elbo"] > run.history[0]["elbo"] + 1
    again = pyro_aevb.fit(epochs=5, out=str(tmp_path / "r"), resume=True, **settings)
    assert len(again.history) == 5


def trained(pair, binarize, compile, schedule="cosine", epochs=3):
    """Batches of 128 of the digits, 10 of them full: enough to record a graph and replay it."""
    torch.manual_seed(0)
    prepared = prepare(pair, "digits", {"hidden": [64]}, binarize=binarize, device="cuda")
    trainer = Trainer(
        prepared.pair, prepared.train, prepared.valid, make_objective("elbo", 1),
        epochs=epochs, batch_size=128, lr=1e-2, schedule=schedule, kl_warm_up=2, compile=compile,
    )  # fmt: skip
    trainer.run()
    return trainer


def test_a_cuda_graph_follows_the_eager_run():
    """Without random numbers, learning rate and KL weight changing: equal to rounding, which the
    division by the root of Adam's small second moments magnifies."""
    eager = trained("Autoencoder", "none", "off")
    graphed = trained("Autoencoder", "none", "on")
    assert graphed._learners[0].graph._graph is not None
    for row, other in zip(eager.history, graphed.history, strict=True):
        assert row["learning_rate"] == other["learning_rate"]
        assert row["objective"] == pytest.approx(other["objective"], rel=1e-3)
        assert row["reconstruction"] == pytest.approx(other["reconstruction"], rel=1e-3)


def test_a_cuda_graph_draws_anew_at_every_replay():
    """Other random numbers, the same training: the objectives agree to Monte Carlo error."""
    eager = trained("VAE", "dynamic", "off", epochs=10).history
    graphed = trained("VAE", "dynamic", "on", epochs=10).history
    assert len({row["objective"] for row in graphed}) == 10
    assert graphed[-1]["elbo"] == pytest.approx(eager[-1]["elbo"], abs=0.3)


def test_annealing_agrees_with_the_cpu():
    """Other random numbers, the same bound, whose Monte Carlo error is about 0.05."""
    values = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        prepared = prepare("VAE", "digits", {"hidden": [16], "latent_dim": 3}, device="cpu")
        pair = prepared.pair.move(device)
        data = Batches(load("digits").test, "fixed", device).first(50)
        annealer = Annealer(pair, data.take(torch.arange(5)), 16, 100, 5)
        values[device] = annealer(data).lower().mean()
        bracket = annealer.bracket(data.take(torch.arange(50)))
        assert abs((bracket.back.upper() - bracket.there.lower()).mean()) < 0.1
    assert values["cuda"] == pytest.approx(values["cpu"], abs=0.1)


@pytest.mark.parametrize("compile", ["off", "on"])
def test_monte_carlo_em_on_cuda(tmp_path, compile):
    settings = {"data": "digits", "binarize": "fixed", "num_samples": 50, "device": "cuda"}
    settings |= {"algorithm": "monte_carlo_em", "compile": compile, "show": False}
    run = pyro_aevb.fit(epochs=4, out=str(tmp_path / "r"), **settings)
    assert run.history[-1]["objective"] > run.history[0]["objective"] + 1
    assert 0.7 < run.history[-1]["acceptance"] < 1
    again = pyro_aevb.fit(epochs=6, out=str(tmp_path / "r"), resume=True, **settings)
    assert len(again.history) == 6
