"""The prior on point weights against the gradient of the whole objective, and exact resumption."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from harness import assert_resumes, capture_only
from linear_gaussian import PPCA, BayesianPPCA, batches, matrix, ready
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_aevb.data.batches import order
from pyro_aevb.errors import UsageError
from pyro_aevb.models import AdversarialAutoencoder, Autoencoder
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.optimizers import map_options
from pyro_aevb.training.trainer import Trainer, seed_everything

N, D = 37, 6
PIXELS = torch.from_numpy(np.random.RandomState(0).rand(N, D).astype(np.float32))
PIXELS = (PIXELS > 0.5).double()


def trainer(path=None, **settings):
    seed_everything(2)
    pair = ready(Autoencoder((D,), latent_dim=2, hidden=[4]).double(), PIXELS)
    settings = {"epochs": 3, "batch_size": 10, "seed": 2, "compile": "off", **settings}
    return Trainer(pair, batches(PIXELS), batches(PIXELS), TraceELBO(), path, **settings)


ADAGRAD = [("adagrad", lr, {"initial_accumulator_value": 0.0}) for lr in (0.01, 0.02, 0.1)]


@pytest.mark.parametrize(
    "optimizer, lr, options",
    [
        *ADAGRAD,
        ("adam", 0.02, {}),
        ("sgd", 0.05, {"momentum": 0.9}),
        ("rmsprop", 0.01, {}),
        ("adadelta", 0.5, {}),
        ("adamax", 0.02, {}),
        ("nadam", 0.02, {}),
        ("radam", 0.02, {}),
        ("asgd", 0.05, {}),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_it_is_the_gradient_of_the_bound_plus_the_log_prior(optimizer, lr, options, scale):
    t = trainer(optimizer=optimizer, lr=lr, optimizer_options=options, map_prior=scale)
    source = Autoencoder((D,), latent_dim=2, hidden=[4]).double()
    source.load_state_dict({k[5:]: v.clone() for k, v in t.pair.tensors().items()})
    history = t.run()

    parameters = list(source.parameters())
    make = {name.lower(): kind for name, kind in vars(torch.optim).items()}[optimizer]
    steps = make(parameters, lr=lr, **options)
    prior = torch.distributions.Normal(0.0, torch.tensor(scale, dtype=torch.double))
    for epoch in range(3):
        index, objective = order(N, 2, epoch), 0.0
        for chosen in index.split(10):
            x = PIXELS[chosen]
            logits = source.likelihood(source.decoder(source.encoder(x)[0])).base_dist.logits
            bound = -binary_cross_entropy_with_logits(logits, x, reduction="sum") * N / len(x)
            whole = bound + sum(prior.log_prob(p).sum() for p in parameters)
            steps.zero_grad()
            (-whole / N).backward()
            steps.step()
            objective += bound.item() * len(x) / N**2  # of the data alone
        assert history[epoch]["objective"] == pytest.approx(objective, rel=1e-6)
    for name, value in source.state_dict().items():
        torch.testing.assert_close(t.pair.tensors()[f"pair.{name}"], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "optimizer, prior, compile", [("adagrad", None, "off"), ("sgd", 0.3, "on")]
)
def test_gradients_of_the_bound_are_clipped_as_torch_does(optimizer, prior, compile, monkeypatch):
    capture_only(monkeypatch)
    t = trainer(
        optimizer=optimizer, lr=0.05, clip_norm=1.2, map_prior=prior, compile=compile, batch_size=12
    )
    source = Autoencoder((D,), latent_dim=2, hidden=[4]).double()
    source.load_state_dict({k[5:]: v.clone() for k, v in t.pair.tensors().items()})
    t.run()
    parameters, norms = list(source.parameters()), []
    make = {"adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}[optimizer]
    steps = make(parameters, lr=0.05, weight_decay=0 if prior is None else 1 / (N * prior**2))
    for epoch in range(3):
        for chosen in order(N, 2, epoch).split(12):
            x = PIXELS[chosen]
            logits = source.likelihood(source.decoder(source.encoder(x)[0])).base_dist.logits
            steps.zero_grad()
            binary_cross_entropy_with_logits(logits, x, reduction="sum").div(len(x)).backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 1.2)))
            steps.step()
    assert min(norms) < 1.2 < max(norms)
    for name, value in source.state_dict().items():
        torch.testing.assert_close(t.pair.tensors()[f"pair.{name}"], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_a_resumed_run_equals_an_uninterrupted_one(optimizer, tmp_path):
    settings = {"optimizer": optimizer, "lr": 0.1, "map_prior": 0.5, "epochs": 5}
    assert_resumes(partial(trainer, **settings), tmp_path / "c.pt", 9)  # of 20


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"map_prior": 0.0}, ["--map-prior is 0.0", "above 0"]),
        ({"map_prior": math.nan}, ["--map-prior is nan"]),
        ({"map_prior": 1.0, "optimizer": "AdamW"}, ["AdamW does not", "adagrad"]),
        ({"map_prior": 1.0, "optimizer_options": {"weight_decay": 0.1}}, ["sets weight_decay"]),
        (
            {"map_prior": 1.0, "optimizer_options": {"decoupled_weight_decay": True}},
            ["sets weight_decay"],
        ),
    ],
)
def test_what_it_cannot_go_with_is_refused(settings, words):
    with pytest.raises(UsageError) as error:
        trainer(**settings)
    assert all(word in str(error.value) for word in words)


def test_a_pair_with_a_distribution_over_weights_has_a_prior_already():
    pair = ready(BayesianPPCA(20), matrix(4, 3))
    with pytest.raises(UsageError, match="distribution over 'W', whose prior is in the model"):
        map_options(pair, "adam", {}, 1.0, 20)
    assert map_options(pair, "adam", {"eps": 1e-4}, None, 20) == {"eps": 1e-4}


def test_wake_sleep_has_it_in_both_phases_and_an_adversary_in_none():
    x = PPCA().data(20)
    pair = ready(PPCA(), x)
    algorithm = make_algorithm("wake_sleep", pair, batches(x))
    t = Trainer(pair, batches(x), batches(x), algorithm, map_prior=0.5)
    decays = [learner.optimizer.param_groups[0]["weight_decay"] for learner in t._learners.each]
    assert decays == [1 / (20 * 0.25)] * 2
    pair = ready(AdversarialAutoencoder((D,), latent_dim=2, hidden=[4]).double(), PIXELS)
    algorithm = make_algorithm(None, pair, batches(PIXELS))
    with pytest.raises(UsageError, match="adversarial trains 'pair.encoder.* in several phases"):
        Trainer(pair, batches(PIXELS), batches(PIXELS), algorithm, map_prior=0.5)
