"""The same on a GPU; skipped, visibly, where there is none."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_aevb
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.sets import load
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.importance import score
from pyro_aevb.pairs.predict import draw_prior
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.trainer import Trainer

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


def trained(pair, binarize, compile, epochs=3, **settings):
    """Batches of 128 of the digits, 10 of them full: enough to record a graph and replay it."""
    torch.manual_seed(0)
    parameters = {"hidden": [64]} if isinstance(pair, str) else {}
    prepared = prepare(pair, "digits", parameters, binarize=binarize, device="cuda")
    algorithm = make_algorithm(settings.pop("algorithm", None), prepared.pair, prepared.train)
    trainer = Trainer(
        prepared.pair, prepared.train, prepared.valid, algorithm,
        epochs=epochs, batch_size=128, lr=1e-2, schedule="cosine", compile=compile, **settings,
    )  # fmt: skip
    trainer.run()
    return trainer


def test_a_cuda_graph_follows_the_eager_run():
    """Without random numbers, with a learning rate that changes: equal to rounding, which the
    division by the root of Adam's small second moments magnifies."""
    eager = trained("Autoencoder", "none", "off")
    graphed = trained("Autoencoder", "none", "on")
    assert graphed._learners.each[0].graph._graph is not None
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


class Quiet(nn.Module):
    """A VAE whose codes have next to no noise, and a KL in closed form."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 5), nn.Linear(5, 64)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(5), x.new_ones(5)).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1).to_event(1), obs=x.flatten(1))

    def guide(self, x):
        loc = self.encoder(x.flatten(1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1e-3).to_event(1))


def test_a_cuda_graph_reads_the_weight_of_the_kl():
    """It rises by a quarter an epoch, of about 30 nats."""
    eager = trained(Quiet, "none", "off", epochs=4, kl_warm_up=3)
    graphed = trained(Quiet, "none", "on", epochs=4, kl_warm_up=3)
    assert graphed._learners.each[0].graph._graph is not None
    for row, other in zip(eager.history, graphed.history, strict=True):
        assert row["kl_scale"] == other["kl_scale"]
        assert row["objective"] == pytest.approx(other["objective"], rel=1e-3)


@pytest.mark.parametrize(
    "pair, algorithm", [("AdversarialAutoencoder", None), ("VAE", "wake_sleep")]
)
def test_every_phase_has_a_cuda_graph(pair, algorithm):
    """Other random numbers, the same training: the losses agree to Monte Carlo error."""
    settings = {"binarize": "dynamic", "epochs": 10, "algorithm": algorithm}
    eager = trained(pair, compile="off", **settings)
    graphed = trained(pair, compile="on", **settings)
    assert all(learner.graph._graph is not None for learner in graphed._learners.each)
    row, other = eager.history[-1], graphed.history[-1]
    assert row["objective"] == pytest.approx(other["objective"], abs=0.7)
    for name in (name for name in row if name.endswith("_loss")):
        assert row[name] == pytest.approx(other[name], abs=0.3), name


def test_a_given_prior_moves_with_the_data():
    prior = dist.Normal(torch.tensor([3.0, -3.0]), torch.tensor([0.1, 0.1])).to_event(1)
    parameters = {"latent_dim": 2, "prior": prior}
    prepared = prepare("AdversarialAutoencoder", "digits", parameters, device="cuda")
    z = draw_prior(prepared.pair, prepared.train.take(torch.arange(400)))
    assert z.is_cuda
    torch.testing.assert_close(z.mean(0).cpu(), torch.tensor([3.0, -3.0]), rtol=0, atol=0.03)


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


def test_sprites_are_put_in_their_places_on_the_gpu():
    data = load("shapes2d").first(640)
    index = torch.randperm(640)[:100]
    there, here = (Batches(data.train, "none", d, ["x"]) for d in ("cuda", "cpu"))
    found, expected = there.take(index), here.take(index)
    assert found.x.is_cuda and torch.equal(found.x.cpu(), expected.x)
    assert torch.equal(found.columns["x"].cpu(), expected.columns["x"])
    tensors = []
    for compile in ("off", "on"):
        torch.manual_seed(0)
        made = prepare("VAE", data, {"hidden": [8]}, device="cuda")
        algorithm = make_algorithm(None, made.pair, made.train)
        valid = made.valid.first(10)
        Trainer(
            made.pair, made.train, valid, algorithm, epochs=1, batch_size=64, compile=compile
        ).run()
        tensors.append(made.pair.tensors())
    for name, value in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], value, rtol=1e-3, atol=1e-4)
