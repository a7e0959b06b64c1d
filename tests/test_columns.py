"""Pairs that see columns of the data, against closed forms, quadrature and scikit-learn."""

import math
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.distributions import MultivariateNormal

import pyro_aevb
from pyro_aevb.data import Batches, DataSet, Split, load
from pyro_aevb.data.batch import repeated
from pyro_aevb.data.corruption import GaussianNoise
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.gap import inference_gap
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.latents import latent_health
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.predict import decode, encode, generate, reconstruct
from pyro_aevb.runs.prepare import prepare, restore
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.trainer import Trainer, seed_everything

EXAMPLE = f"{Path(__file__).parent.parent}/examples/conditional_vae.py:ConditionalVAE"
N, D, CODES, CLASSES, NOISE = 40, 5, 2, 3, 0.7


class Shifted(nn.Module):
    """x | label ~ N(b[label], A A^T + NOISE^2), by a code; the guide is its posterior, wider."""

    def __init__(self, wider=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        # With orthogonal columns the components of the posterior are independent.
        columns = torch.linalg.qr(torch.randn(D, CODES, generator=generator))[0]
        self.a = nn.Parameter(columns * torch.tensor([1.5, 0.8]))
        self.b = nn.Parameter(3 * torch.randn(CLASSES, D, generator=generator))
        self.wider = wider

    def model(self, x, label):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), CODES), 1.0).to_event(1))
            loc = z @ self.a.T + self.b[label]
            pyro.sample("x", dist.Normal(loc, NOISE).to_event(1), obs=x)

    def guide(self, x, label):
        a = self.a.detach()
        variance = 1 / (1 + a.square().sum(0) / NOISE**2)
        loc = (x - self.b.detach()[label]) @ a * variance / NOISE**2
        scale = (self.wider * variance).sqrt()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def log_evidence(self, x, label):
        covariance = self.a @ self.a.T + NOISE**2 * torch.eye(D)
        return MultivariateNormal(self.b[label], covariance).log_prob(x)


def data():
    pyro.set_rng_seed(0)
    label = torch.arange(N) % CLASSES
    with torch.no_grad():
        x = Shifted().b[label] + torch.randn(N, D)
    return Batches(Split(x, label, 1), "none", columns=["label"])


def inspected(source):
    batches = data()
    pair = load_pair(source)
    inspect(pair, batches.take(torch.arange(5)))
    return pair, batches


def test_every_estimator_is_of_the_density_given_the_labels(monkeypatch):
    monkeypatch.setattr("pyro_aevb.estimators.ascent.HALVINGS", 2)
    source = Shifted(wider=1.5)
    pair, batches = inspected(source)
    whole = batches.take(torch.arange(N))
    exact = source.log_evidence(whole.x, whole.columns["label"]).detach().numpy()
    # Of a posterior with 1.5 times the covariance: KL = (d/2)(1.5 - 1 - log 1.5).
    gap = CODES / 2 * (0.5 - math.log(1.5))
    scores = Scorer(pair, 4000, 1, compile="off")(batches)
    assert np.abs(scores.log_weight[0] - exact).max() < 0.05
    assert abs((exact - scores.elbo[0]).mean() - gap) < 0.01
    annealed = Annealer(pair, whole[:5], num_chains=16, num_temperatures=200)(batches.first(10))
    assert np.abs(annealed.lower() - exact[:10]).mean() < 0.06
    best = inference_gap(pair, batches.first(5), 200).elbo["flow"]
    assert np.abs(best - exact[:5]).max() < 0.05
    # A wrong label moves the evidence by many nats, so all this is of the right ones.
    wrong = (whole.columns["label"] + 1) % CLASSES
    turned = source.log_evidence(whole.x, wrong).detach().numpy()
    assert np.abs(turned - exact).min() > 1
    health = latent_health(pair, batches)
    assert abs(health.kl.mean() - scores.kl[0].mean()) < 0.3


@pytest.mark.parametrize("name, particles", [("sampled_elbo", 1), ("iwae", 4), ("dreg", 4)])
def test_objectives_of_the_posterior_are_the_evidence(name, particles):
    source = Shifted()
    pair, batches = inspected(source)
    whole = batches.take(torch.arange(N))
    with pair.active(), WholeBatch():
        objective = make_objective(name, particles)
        loss = objective.differentiable_loss(pair.model, pair.guide, whole)
    exact = source.log_evidence(whole.x, whole.columns["label"]).sum()
    torch.testing.assert_close(-loss, exact, rtol=1e-5, atol=0)
    rows = repeated(whole, 2)
    assert torch.equal(rows.columns["label"], whole.columns["label"].repeat(2))


def test_the_example_on_digits_equals_quadrature_over_its_code():
    seed_everything(0)
    prepared = prepare(EXAMPLE, "digits", {"latent_dim": 2, "hidden": 20})
    trainer = Trainer(
        prepared.pair, prepared.train, prepared.valid, make_objective("iwae", 3), epochs=5
    )
    trainer.run()
    test = prepared.test.first(20)
    whole = test.take(torch.arange(20))
    steps = torch.linspace(-7, 7, 281)
    grid = torch.cartesian_prod(steps, steps)
    net, one_hot = prepared.pair.attribute("decoder"), torch.eye(10)
    log_prior = dist.Normal(0, 1).log_prob(grid).sum(1) + 2 * math.log(14 / 280)
    exact = []
    for x, label in zip(whole.x, whole.columns["label"], strict=True):
        with torch.no_grad():
            logits = net(torch.cat([grid, one_hot[label].expand(len(grid), 10)], 1))
        log_p = -nn.functional.binary_cross_entropy_with_logits(
            logits, x.flatten().expand_as(logits), reduction="none"
        ).sum(1)
        exact.append(float(torch.logsumexp(log_p.double() + log_prior, 0)))
    found = Scorer(prepared.pair, 5000, 1)(test).log_weight[0]
    assert np.abs(found - exact).max() < 0.05


def tensors(settings, path=None, epochs=2, stop_after=None, resume=False):
    seed_everything(1)
    prepared = prepare(EXAMPLE, "digits", {"hidden": 20, "latent_dim": 3})
    given = {"objective": "elbo", "num_particles": 1, **settings}
    compile = given.pop("compile", "off")
    algorithm = make_algorithm(
        given.pop("algorithm", "svi"), prepared.pair, prepared.train, **given
    )
    trainer = Trainer(
        prepared.pair,
        prepared.train,
        prepared.valid,
        algorithm,
        path,
        epochs=epochs,
        stop_after=stop_after,
        compile=compile,
    )
    trainer.try_objective()
    if resume:
        trainer.resume()
    trainer.run()
    return {k: v.clone() for k, v in prepared.pair.tensors().items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"corruption": GaussianNoise(0.3)},
        {"algorithm": "wake_sleep"},
    ],
)
def test_compiled_steps_with_columns_are_the_eager_ones(settings):
    eager, compiled = tensors(settings), tensors({**settings, "compile": "on"})
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)


def test_a_run_with_columns_resumes_exactly(tmp_path):
    whole = tensors({}, tmp_path / "whole")
    tensors({}, tmp_path / "paused", stop_after=1)
    resumed = tensors({}, tmp_path / "paused", resume=True)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_run_predicts_and_is_restored_with_its_labels(tmp_path):
    run = pyro_aevb.fit(
        EXAMPLE, "digits", {"hidden": 20}, epochs=1, num_samples=20, out=str(tmp_path), show=False
    )
    prepared = restore(run)
    x = prepared.test.take(torch.arange(6))
    labels = x.columns["label"]
    (codes,) = encode(prepared.pair, x.x, label=labels).values()
    assert torch.equal(codes, encode(prepared.pair, x)["z"])
    shown = reconstruct(prepared.pair, x.x, label=labels)
    assert torch.equal(shown, decode(prepared.pair, {"z": codes}, x))
    others = decode(prepared.pair, {"z": codes}, x.x, label=(labels + 1) % 10)
    assert not torch.allclose(shown, others)
    pyro.set_rng_seed(0)
    drawn = generate(prepared.pair, x.x, label=labels)
    pyro.set_rng_seed(0)
    torch.testing.assert_close(drawn, generate(prepared.pair, x))
    for estimator, options in (("parzen", {"num_kernels": 100}), ("bdmc", {"num_chains": 2})):
        small = options | ({"num_temperatures": 5} if estimator == "bdmc" else {})
        found = pyro_aevb.evaluate(run, estimator, small, num_data=4, show=False)
    assert found["metrics"]["parzen"]["value"] is not None
    noisy = pyro_aevb.evaluate(run, against="noise", num_samples=5, num_data=20, show=False)
    assert noisy["against"]["noise"]["metrics"]["iwae_bound"]["value"] > 0.8


def of_functions(model, guide):
    def make(event_shape):
        return model, guide

    return make


def model(x, age, label=None):
    shift = pyro.param("shift", torch.zeros(())) * age
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
        loc = (z + shift)[:, None].expand_as(x) + (0 if label is None else label[:, None])
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.mean(1), 0.5))


def aged(labelled=True):
    x = torch.randn(30, 3)
    label = torch.arange(30) % 2 if labelled else None
    split = Split(x, label, 1, {"age": torch.rand(30)})
    return DataSet("aged", split, split.subset(slice(9)), split.subset(slice(9)), "aged", "none")


def test_a_side_takes_what_it_names_and_a_default_stands_for_what_is_not_there():
    for labelled in (True, False):
        prepared = prepare((model, guide), aged(labelled))
        x = prepared.test.take(torch.arange(3))
        assert sorted(x.columns) == (["age", "label"] if labelled else ["age"])
        exact = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 1)
        shift = x.columns.get("label", torch.zeros(3))[:, None]
        found = Scorer(prepared.pair, 20_000, 1)(prepared.test.first(3)).log_weight[0]
        np.testing.assert_allclose(found, exact.log_prob(x.x - shift), atol=0.08)


def test_an_autoguide_is_given_what_its_model_takes():
    torch.manual_seed(0)

    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.auto = AutoNormal(self.model, init_scale=0.1)

        def model(self, x, age):
            slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
            with pyro.plate("data", size=30, subsample_size=len(x)):
                loc = (slope * age)[:, None].expand_as(x)
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

        @property
        def guide(self):
            return self.auto

    prepared = prepare(Regression(), aged())
    assert prepared.pair.columns == {"age": True}
    assert [site.name for site in prepared.description.global_sites] == ["slope"]


@pytest.mark.parametrize(
    "act, said",
    [
        (
            lambda: prepare((model, guide), "digits"),
            "'age' beside x, and the train split has no column of that name; columns there: label",
        ),
        (
            lambda: prepare(EXAMPLE, aged(labelled=False)),
            "'label' beside x, and the train split has no column of that name; columns there: age",
        ),
        (
            lambda: encode(prepare(EXAMPLE, "digits").pair, torch.zeros(2, 1, 8, 8)),
            "takes 'label' beside x, and the data have no column of that name; columns there: none",
        ),
        (
            lambda: encode(prepare("VAE", "digits").pair, torch.zeros(2, 1, 8, 8), label=[1, 2]),
            "VAE takes no 'label' beside x; it takes nothing",
        ),
        (
            lambda: encode(prepare(EXAMPLE, "digits").pair, torch.zeros(2, 1, 8, 8), label=[1]),
            "'label' has shape (1,), and there are 2 data",
        ),
    ],
)
def test_a_missing_column_is_one_line_that_lists_those_there_are(act, said):
    with pytest.raises(UsageError) as error:
        act()
    assert said in str(error.value) and "\n" not in str(error.value)


# A pair that observes a column


class Classifier(nn.Module):
    def __init__(self, event_shape):
        super().__init__()
        self.net = nn.Linear(math.prod(event_shape), 10, bias=False)

    def model(self, x, label):
        with pyro.plate("data", len(x)):
            logits = self.net(x.flatten(1))
            pyro.sample("y", dist.Categorical(logits=logits), obs=label)

    def guide(self, x):
        pass


def test_a_classifier_is_a_pair_and_equals_scikit_learns():
    seed_everything(0)
    prepared = prepare(Classifier, load("digits").first(300), None, None, "none")
    Trainer(
        prepared.pair,
        prepared.train,
        prepared.valid.first(2),
        make_objective("elbo", 1),
        epochs=1500,
        batch_size=300,
        lr=0.05,
        schedule="cosine",
        map_prior=1.0,
        compile="off",
    ).run()
    train, test = ((b.take(torch.arange(len(b))), b) for b in (prepared.train, prepared.test))
    x, label = train[0].x.flatten(1).numpy(), train[0].columns["label"].numpy()
    fitted = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8, max_iter=10_000).fit(x, label)
    seen = test[0].x.flatten(1).numpy()
    expected = fitted.predict_log_proba(seen)[np.arange(len(seen)), test[0].columns["label"]]
    scores = Scorer(prepared.pair, 1, 1)(prepared.test)
    np.testing.assert_allclose(scores.log_weight[0], expected, atol=2e-3)
    predicted = decode(
        prepared.pair, {}, test[0].x, label=torch.zeros(len(seen), dtype=torch.int64)
    )
    np.testing.assert_array_equal(predicted, fitted.predict(seen))
    description = prepared.description
    assert not description.observes_x and description.reads_data == ()
    assert description.column == "label"
    with pytest.raises(UsageError, match="what it observes, 'y', is not x"):
        generate(prepared.pair, test[0])
    probabilities = pyro_aevb.predict(prepared.pair, test[0].x)
    np.testing.assert_allclose(probabilities, fitted.predict_proba(seen), atol=2e-3)
    torch.testing.assert_close(pyro_aevb.predict(prepared.pair, test[0].x[:1]), probabilities[:1])
    with pytest.raises(UsageError, match="Classifier has no codes.* predict gives what"):
        encode(prepared.pair, test[0])
    with pytest.raises(UsageError, match="Shifted is no classifier"):
        pyro_aevb.predict(*inspected(Shifted()))


# From a user's own file, and from the disk


def test_arrays_beside_the_data_are_columns(tmp_path):
    rng = np.random.default_rng(0)
    x, age, site = rng.normal(size=(50, 4)), rng.random(50), rng.integers(5, size=(50, 2))
    np.savez(tmp_path / "whole.npz", x=x, age=age, site=site, other=np.zeros(3))
    whole = load(str(tmp_path / "whole.npz"))
    assert "columns age, site" in whole.description and "other left out" in whole.description
    for split in (whole.train, whole.valid, whole.test):
        rows = [
            int(np.abs(x.astype(np.float32) - one).sum(1).argmin()) for one in split.images.numpy()
        ]
        np.testing.assert_array_equal(split.columns["age"], age[rows].astype(np.float32))
        np.testing.assert_array_equal(split.columns["site"], site[rows])
    arrays = {"x_train": x[:40], "train_age": age[:40], "x_test": x[40:], "test_age": age[40:]}
    np.savez(tmp_path / "split.npz", **arrays)
    split = load(str(tmp_path / "split.npz"))
    np.testing.assert_array_equal(split.test.columns["age"], age[40:].astype(np.float32))
