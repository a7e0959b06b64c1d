"""Adversarial training: who may touch what, the losses, the optimum, and codes like the prior."""

import math
from itertools import product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from harness import assert_compiles, assert_resumes, capture_only, taken
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

import pyro_aevb
import pyro_aevb.training.step
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.errors import UsageError
from pyro_aevb.models import VAE, AdversarialAutoencoder, Autoencoder
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.predict import encode, generate
from pyro_aevb.training.adversarial import Adversarial
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.trainer import Trainer, seed_everything

SHAPE = (1, 4, 4)
PRIORS = {
    "normal": {"prior_scale": 0.5},
    "mixture": {"prior": "mixture", "components": 3, "radius": 2.0, "prior_scale": 0.3},
    "given": {"prior": dist.Uniform(torch.zeros(3), torch.ones(3)).to_event(1)},
}


def make(x=None, binarize="none", **parameters):
    """A small pair, inspected, and its data."""
    x = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0)) if x is None else x
    split = Split(x, None, 1)
    parameters = {"latent_dim": 3, "hidden": [8], "discriminator_hidden": [6], **parameters}
    pair = load_pair(
        AdversarialAutoencoder, parameters, DataSet("made", split, split, split, "none", "")
    )
    data = Batches(split, binarize)
    inspect(pair, data.take(torch.arange(5)))
    return pair, data


def trainer(pair, data, path=None, options=None, **settings):
    algorithm = make_algorithm(None, pair, data, options)
    settings = {"epochs": 2, "batch_size": 16, "seed": 1, "compile": "off", **settings}
    valid = Batches(Split(data.images, None, 1), "fixed" if data.binarize == "dynamic" else "none")
    return Trainer(pair, data, valid, algorithm, path, **settings)


# Which networks a step touches


@pytest.mark.parametrize("encoder", ["deterministic", "gaussian"])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_a_step_touches_its_networks_alone(encoder, network):
    pair, data = make(encoder=encoder, network=network)
    t = trainer(pair, data, optimizer="sgd", lr=0.1)
    touched = {
        "reconstruction": {"encoder", "decoder", "likelihood"},
        "discriminator": {"discriminator"},
        "generator": {"encoder"},
    }
    index = torch.arange(16)
    assert [learner.step.phase.name for learner in t._learners.each] == list(touched)
    for learner in t._learners.each:
        mine = touched[learner.step.phase.name]
        _, gradients = taken(learner.step, index, data.take(index))
        assert {name.split(".")[1] for name in gradients} == mine
        before = {k: v.detach().clone() for k, v in pair.trainable().items()}
        with pair.active(), WholeBatch():
            learner.update(index, data.take(index))
        for name, value in pair.trainable().items():
            assert torch.equal(value, before[name]) != (name.split(".")[1] in mine), name


def test_optimizers_of_the_phases():
    pair, data = make()

    def groups(options=None, **settings):
        t = trainer(pair, data, options=options, lr=0.2, **settings)
        assert len({id(learner.optimizer) for learner in t._learners.each}) == 3
        return [learner.optimizer.param_groups[0] for learner in t._learners.each]

    found = groups({"discriminator_rate": 2.0, "generator_rate": 0.5, "momentum": 0.25})
    assert [group["lr"] for group in found] == pytest.approx([0.2, 0.4, 0.1])
    assert {tuple(group["betas"]) for group in found} == {(0.25, 0.999)}
    found = groups(optimizer_options={"betas": [0.8, 0.9]})
    assert {tuple(group["betas"]) for group in found} == {(0.8, 0.9)}
    assert {group["momentum"] for group in groups(optimizer="sgd")} == {0}


# The losses


@pytest.mark.parametrize("encoder", ["deterministic", "gaussian"])
def test_losses_and_gradients_are_those_of_cross_entropies(encoder):
    """On the same draws: noise of the code first, then codes of the prior."""
    pair, data = make(encoder=encoder, prior_scale=0.5)
    steps = [learner.step for learner in trainer(pair, data)._learners.each]
    net, index = pair.sources["pair"], torch.arange(16)
    x = data.take(index)

    def code():
        heads = net.encoder(x)
        if encoder == "deterministic":
            return heads[0]
        return heads[0] + (0.5 * heads[1]).exp() * torch.randn(16, 3)

    def reconstruction():
        (logits,) = net.likelihood.heads(net.decoder(code()))
        return binary_cross_entropy_with_logits(logits, x, reduction="sum") / 16

    def discriminator():
        fake, real = code().detach(), 0.5 * torch.randn(16, 3)
        return binary_cross_entropy_with_logits(
            net.discriminator(real), torch.ones(16, 1)
        ) + binary_cross_entropy_with_logits(net.discriminator(fake), torch.zeros(16, 1))

    def generator():
        return binary_cross_entropy_with_logits(net.discriminator(code()), torch.ones(16, 1))

    for step, expected in zip(steps, (reconstruction, discriminator, generator), strict=True):
        loss, gradients = taken(step, index, x, seed=4)
        torch.manual_seed(4)
        value = expected()
        torch.testing.assert_close(loss, value.detach(), rtol=1e-5, atol=0)
        others = torch.autograd.grad(value, list(step.parameters.values()))
        for name, gradient in zip(step.parameters, others, strict=True):
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6)


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Linear(2, 1)

    def forward(self, z):
        return self.weights(torch.cat([z, z**2], 1))


class Gaussians(nn.Module):
    r"""Codes are the data, N(0.5, 0.7^2), the prior is N(0, 1): the log-ratio is quadratic."""

    algorithm = "adversarial"

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))
        self.discriminator = Quadratic()

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x + self.shift).to_event(1))


def test_the_discriminator_is_the_density_ratio_at_its_optimum():
    """From 20,000 codes the standard error is 0.03; a sign or a factor 2 is off by 0.5."""
    torch.manual_seed(0)
    x = 0.5 + 0.7 * torch.randn(20000, 1)
    pair = load_pair(Gaussians())
    data = Batches(Split(x, None, 1), "none")
    inspect(pair, x[:5])
    t = trainer(
        pair, data, optimizer="adam", lr=0.05, batch_size=4000, schedule="cosine", epochs=60
    )
    learner = t._learners.each[1]
    with pair.active(), WholeBatch(), pyro.validation_enabled(False):
        for _ in range(60):
            for index in torch.randperm(len(x)).split(4000):
                learner.update(index, data.take(index))
            learner.schedule.step()
    z = torch.linspace(-1.5, 2.0, 50)[:, None]
    found = pair.sources["pair"].discriminator(z).detach().numpy()
    ratio = scipy.stats.norm(0, 1).logpdf(z) - scipy.stats.norm(0.5, 0.7).logpdf(z)
    assert np.abs(found - ratio).max() < 0.12
    # At an optimum where codes and prior agree both losses are known.
    with torch.no_grad():
        for value in pair.sources["pair"].discriminator.parameters():
            value.zero_()
    _, judge, fool = (taken(a.step, torch.arange(9), x[:9])[0] for a in t._learners.each)
    assert float(judge) == pytest.approx(2 * math.log(2)) and float(fool) == pytest.approx(
        math.log(2)
    )


def test_codes_match_the_prior_after_training(monkeypatch):
    """Codes of new data against draws, along five directions and by length; not without phases."""
    capture_only(monkeypatch)
    u, v = torch.rand(2, 1300, generator=torch.Generator().manual_seed(0))
    x = torch.stack([u, v, u * v, (u - v).abs(), (3 * u).sin()], 1)

    def p_values(phases):
        seed_everything(0)
        nets = {"latent_dim": 2, "hidden": [50], "discriminator_hidden": [50]}
        pair, data = make(x[:1000], **nets)
        settings = {"epochs": 250, "batch_size": 200, "lr": 4e-3, "schedule": "cosine"}
        settings["optimizer_options"] = {"betas": (0.5, 0.9)}
        t = trainer(pair, data, None, {"discriminator_rate": 2.0}, compile="on", **settings)
        del t._learners.each[phases:]
        t.run()
        z = encode(pair, x[1000:])["z"].double().numpy()
        drawn = np.random.default_rng(0).normal(size=z.shape)
        directions = [(1, 0), (0, 1), (0.6, 0.8), (0.8, -0.6), (-0.28, 0.96)]
        tests = [scipy.stats.ks_2samp(z @ d, drawn @ d) for d in directions]
        lengths = (np.linalg.norm(values, axis=1) for values in (z, drawn))
        return [test.pvalue for test in (*tests, scipy.stats.ks_2samp(*lengths))]

    found = p_values(3)
    assert min(found) > 0.001
    assert p_values(1)[0] < 1e-9


# The pair


@pytest.mark.parametrize("prior", PRIORS)
def test_generated_data_come_from_the_prior(prior):
    pair, data = make(**PRIORS[prior])
    net = pair.sources["pair"]
    seen = []
    net.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = data.take(torch.arange(10)).repeat(300, 1, 1, 1)
    torch.manual_seed(3)
    assert generate(pair, x).shape == x.shape
    z = seen[-1].numpy()
    if prior == "mixture":
        angles = 2 * np.pi * np.arange(3) / 3
        centres = np.stack([2 * np.cos(angles), 2 * np.sin(angles), 0 * angles], 1)
        distances = np.linalg.norm(z[:, None] - centres, axis=-1)
        nearest = distances.argmin(1)
        assert scipy.stats.chisquare(np.bincount(nearest, minlength=3)).pvalue > 0.001
        z = (z - centres[nearest]) / 0.3
    else:
        z = z / 0.5 if prior == "normal" else scipy.stats.norm.ppf(z)
    for column in z.T:
        assert scipy.stats.kstest(column, "norm").pvalue > 0.001
    assert np.abs(np.corrcoef(z.T) - np.eye(3)).max() < 4 / np.sqrt(len(z))


def test_what_is_defined():
    point, _ = make()
    assert point.description.undefined() == (
        "latent site 'z' carries no density (masked prior or Delta guide)"
    )
    assert point.description.no_prior() is None
    gaussian, data = make(encoder="gaussian")
    assert gaussian.description.undefined() is None
    # Its bound is that of a VAE with the same nets.
    vae = VAE(SHAPE, 3, [8])
    own = {k: v for k, v in gaussian.sources["pair"].state_dict().items() if "discrim" not in k}
    vae.load_state_dict(own)
    x, values = data.take(torch.arange(20)), []
    for pair in (gaussian, vae):
        torch.manual_seed(0)
        values.append(float(TraceELBO().loss(pair.model, pair.guide, x)))
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"encoder": "normal"}, "encoder='normal' is unknown; choose one of deterministic"),
        ({"prior": "uniform"}, "prior='uniform' is unknown; choose one of normal, mixture"),
        ({"prior_scale": 0.0}, "prior_scale=0.0 is not possible"),
        ({"prior": "mixture", "components": 1}, "a mixture of components=1 .* is not possible"),
        ({"prior": "mixture", "latent_dim": 1}, "latent_dim=1 is not possible; give two"),
        ({"prior": dist.Normal(torch.zeros(3), 1.0)}, "batch shape .3,. and event shape .."),
        ({"prior": dist.Normal(torch.zeros(2), 1.0).to_event(1)}, r"event shape \(2,\); it needs"),
    ],
)
def test_parameters_that_are_not_possible_are_refused(parameters, said):
    with pytest.raises(UsageError, match=said):
        make(**parameters)


class Coded(Gaussians):
    """Of a code that is made of x in another way."""

    def __init__(self, code):
        super().__init__()
        self.code = code

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(self.code(self, x)).to_event(1))


class Masked(Autoencoder):
    def __init__(self):
        super().__init__((1,), 1)
        self.discriminator = Quadratic()


@pytest.mark.parametrize(
    "make, said",
    [
        (
            lambda: Coded(lambda pair, x: x * pair.discriminator.weights.bias),
            "'pair.discriminator.weights.bias' belongs to its discriminator",
        ),
        (lambda: Coded(lambda pair, x: x), "no gradient passes through its code"),
        (Masked, "the prior of .z. is masked; say in the guide"),
    ],
)
def test_a_pair_that_it_cannot_train_is_refused(make, said):
    pair, x = load_pair(make()), torch.randn(9, 1).sigmoid()
    inspect(pair, x)
    with pytest.raises(UsageError, match=f"adversarial cannot train .*{said}"):
        Adversarial(pair, Batches(Split(x, None, 1), "none"))


@pytest.mark.parametrize("latent, encoder", [(2, "deterministic"), (3, "gaussian")])
def test_the_commands_know_the_pair(latent, encoder, tmp_path, capsys):
    settings = {"data": "digits", "epochs": 1, "num_samples": 30, "num_data": 20, "show": False}
    parameters = {"latent_dim": latent, "hidden": [8], "encoder": encoder}
    run = pyro_aevb.fit(
        "AdversarialAutoencoder", pair_parameters=parameters, out=str(tmp_path / "a"), **settings
    )
    metrics = run.results["metrics"]
    if encoder == "gaussian":
        assert metrics["log_likelihood"]["value"] > metrics["elbo"]["value"]
    else:
        assert "no density" in metrics["elbo"]["reason"] and metrics["elbo"]["value"] is None
    figures = {path.name for path in run.figures.iterdir()}
    assert {"samples.png", "latent.png", "history.png", "reconstructions.png"} <= figures
    assert ("manifold.png" in figures) == (latent == 2)
    before = metrics["reconstruction"]["value"]
    scored = pyro_aevb.evaluate(run.path, num_samples=30, num_data=20, show=False)
    assert scored["metrics"]["reconstruction"]["value"] == pytest.approx(before, rel=1e-6)
    other = pyro_aevb.fit(
        "VAE", pair_parameters={"hidden": [8]}, out=str(tmp_path / "b"), **settings
    )
    table = pyro_aevb.compare([run, other], out=str(tmp_path / "c"), show=False)
    assert table["a"]["metrics"]["reconstruction"]["value"] == pytest.approx(before, rel=1e-6)
    pyro_aevb.check("AdversarialAutoencoder", "digits", parameters)
    said = " ".join(capsys.readouterr().out.split())
    assert "matched to its prior" in said and "learns by adversarial" in said


# The engine and the loop


@pytest.mark.parametrize(
    "prior, encoder",
    [*product(PRIORS, ["deterministic", "gaussian"]), ("compiled", "gaussian")],
)
def test_captured_and_compiled_steps_are_the_eager_ones(prior, encoder, monkeypatch):
    if prior in PRIORS:
        capture_only(monkeypatch)
    pair, data = make(encoder=encoder, **PRIORS.get(prior, PRIORS["mixture"]))
    index = torch.randperm(40)[:16]
    x = data.take(index)
    for learner in trainer(pair, data)._learners.each:
        assert_compiles(learner.step, (index, x.flip(0)), (index, x))


@pytest.mark.parametrize("compile", ["off", "on"])
def test_a_resumed_run_equals_an_uninterrupted_one(compile, tmp_path, monkeypatch):
    capture_only(monkeypatch)

    def fresh(path):
        seed_everything(2)
        pair, data = make(binarize="dynamic", encoder="gaussian")
        settings = {"epochs": 4, "schedule": "cosine", "compile": compile}
        return trainer(pair, data, path, {"discriminator_rate": 3.0}, **settings)

    whole = assert_resumes(fresh, tmp_path / "c.pt", 8)  # of 12
    assert {"discriminator_loss", "generator_loss"} <= set(whole.history[0])


def test_codes_that_were_not_matched_are_told_of(tmp_path):
    settings = {"data": "digits", "epochs": 1, "num_samples": 5, "device": "cpu", "show": False}
    settings |= {"pair_parameters": {"hidden": [8]}}
    notes = []
    for name in ("adversarial", "svi"):
        out = str(tmp_path / name)
        run = pyro_aevb.fit("AdversarialAutoencoder", algorithm=name, out=out, **settings)
        notes.append([note for note in run.results["notes"] if "were not matched" in note])
    assert [len(said) for said in notes] == [0, 1]
