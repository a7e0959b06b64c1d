"""Guides with parameters of each training datum: trained, and found for other data."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoHierarchicalNormalMessenger,
    AutoNormal,
    AutoNormalMessenger,
)
from torch import nn

import pyro_aevb
from pyro_aevb.data import from_arrays
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.settle import search
from pyro_aevb.pairs.tables import joined
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.svi import SVI
from pyro_aevb.training.trainer import Trainer, seed_everything

N, NOISE = 40, 0.5
# Orthogonal rows: the posterior is a product of normals, which a mean field holds.
WEIGHT = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 0.5, -0.5]])


class Linear(nn.Module):
    """z ~ N(0, I), x ~ N(z W, s^2 I), with the size of the data plate filled in."""

    def plate(self, x):
        return pyro.plate("data", len(x))

    def model(self, x):
        with self.plate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ WEIGHT, NOISE).to_event(1), obs=x)


class Indexed(Linear):
    """Parameters that are looked up by what the plate returns."""

    rows = N

    def guide(self, x):
        with self.plate(x) as index:
            loc = pyro.param("loc", torch.zeros(self.rows, 2))[index]
            scale = pyro.param("scale", torch.ones(N, 2), dist.constraints.positive)[index]
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


class Declared(Linear):
    def plate(self, x):
        return pyro.plate("data", N, subsample_size=len(x))


class Subsampled(Declared):
    """Parameters that the plate itself takes rows of."""

    def guide(self, x):
        positive = dist.constraints.positive
        with self.plate(x):
            loc = pyro.param("loc", torch.zeros(N, 2), event_dim=1)
            scale = pyro.param("scale", torch.ones(N, 2), positive, event_dim=1)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


class ByPlate(Declared):
    """Parameters that ``pyro.subsample`` takes rows of."""

    def guide(self, x):
        loc, scale = pyro.param("loc", torch.zeros(N, 2)), pyro.param("scale", torch.ones(N, 2))
        with self.plate(x):
            loc, scale = pyro.subsample(loc, event_dim=1), pyro.subsample(scale, event_dim=1).exp()
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


class Embedded(Linear):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(N, 2)

    def guide(self, x):
        with self.plate(x) as index:
            pyro.sample("z", dist.Normal(self.embedding(index), 1.0).to_event(1))


class Level(nn.Module):
    """A level of all data above one of each: m ~ N(0, 1), z ~ N(m, 1), x ~ N(z, s^2)."""

    def __init__(self):
        super().__init__()
        self.guide = AutoNormal(self.model)

    def model(self, x):
        level = pyro.sample("level", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(level, 1.0))
            pyro.sample("x", dist.Normal(z[:, None], NOISE).to_event(1), obs=x)


def of(make, base=Linear):
    """A pair whose guide Pyro makes of the model."""

    class Guided(base):
        def __init__(self):
            super().__init__()
            self.guide = make(self.model)

    return Guided()


def listed(model):
    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=["z"])))
    return guide


def drawn(count, seed):
    """Data that the model makes."""
    random = np.random.default_rng(seed)
    codes, noise = random.normal(size=(count, 2)), random.normal(size=(count, 4))
    return (codes @ WEIGHT.numpy() + NOISE * noise).astype(np.float32)


def dataset(dim=4):
    return from_arrays(
        "linear",
        x_train=drawn(N, 1)[:, :dim],
        x_valid=drawn(4, 2)[:, :dim],
        x_test=drawn(12, 3)[:, :dim],
    )


def posterior(x):
    """Means and standard deviations of p(z|x), by Bayes' rule."""
    precision = 1 + (WEIGHT.double() ** 2).sum(1) / NOISE**2
    means = torch.as_tensor(x).double() @ WEIGHT.double().T / NOISE**2 / precision
    return means.numpy(), precision.rsqrt().expand(means.shape).numpy()


def evidence(x):
    """log p(x), as a normal's density."""
    covariance = WEIGHT.double().T @ WEIGHT.double() + NOISE**2 * torch.eye(4)
    normal = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance)
    return normal.log_prob(torch.as_tensor(x).double()).mean().item()


SETTINGS = {
    "batch_size": 10,
    "lr": 0.05,
    "compile": "off",
    "show": False,
    "num_samples": 50,
    "proposal": "guide",
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """An indexed guide, trained in one go, and its pair."""
    pair = load_pair(Indexed())
    out = tmp_path_factory.mktemp("tables") / "whole"
    run = pyro_aevb.fit(pair, data=dataset(), epochs=100, num_particles=5, out=str(out), **SETTINGS)
    return run, pair


def test_each_training_datum_finds_its_own_posterior(fitted):
    _, pair = fitted
    means, deviations = posterior(drawn(N, 1))
    tables = {name: table.values.detach() for name, table in pair.tables.items()}
    np.testing.assert_allclose(tables["loc"], means, atol=0.15)  # the spread of the means is 1
    np.testing.assert_allclose(tables["scale"].exp(), deviations, rtol=0.25)
    assert abs((tables["loc"].numpy() - means).mean()) < 0.02


def test_other_data_are_inferred_with_the_rest_fixed(fitted):
    run, pair = fitted
    metrics, x = run.results["metrics"], drawn(12, 3)
    # At the posterior every weight is p(x), so the bound has no gap, and no Monte Carlo error.
    assert metrics["elbo"]["value"] == pytest.approx(evidence(x), abs=0.01)
    assert metrics["log_likelihood"]["value"] == pytest.approx(evidence(x), abs=0.001)
    before = {name: table.values.detach().clone() for name, table in pair.tables.items()}
    np.testing.assert_allclose(
        pyro_aevb.encode(pair, torch.from_numpy(x))["z"], posterior(x)[0], atol=0.02
    )
    messenger = load_pair(of(AutoNormalMessenger))  # whose normals are behind a transform
    inspect(messenger, torch.from_numpy(drawn(N, 1)), N)
    np.testing.assert_allclose(
        pyro_aevb.encode(messenger, torch.from_numpy(x))["z"], posterior(x)[0], atol=0.02
    )
    for name, values in before.items():
        assert torch.equal(values, pair.tables[name].values)


def test_the_run_is_scored_again_to_the_last_digit(fitted):
    run, _ = fitted
    kept = dict(run.results["metrics"]["elbo"])
    again = pyro_aevb.evaluate(
        run, pair=Indexed(), data=dataset(), num_samples=50, proposal="guide", show=False
    )
    assert again["metrics"]["elbo"]["value"] == kept["value"]


def trainer(checkpoint, **settings):
    prepared = prepare(Indexed(), dataset(), device="cpu")
    learning = make_algorithm("svi", prepared.pair, prepared.train)
    split = (prepared.pair, prepared.train, prepared.valid)
    seed_everything(0)
    return Trainer(*split, learning, checkpoint, epochs=3, batch_size=10, lr=0.1, **settings)


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path):
    """Rows of validation data, which go on from epoch to epoch, are in the checkpoint."""
    whole = trainer(None)
    whole.run()
    trainer(tmp_path / "checkpoint.pt", stop_after=1).run()
    parts = trainer(tmp_path / "checkpoint.pt")
    parts.resume()
    parts.run()
    elbos = [[row["elbo"] for row in each.history] for each in (whole, parts)]
    assert elbos[0] == elbos[1] and elbos[0][2] > elbos[0][0]
    for name, value in whole.pair.tensors().items():
        assert torch.equal(value, parts.pair.tensors()[name])


@pytest.mark.parametrize(
    "make",
    [Indexed, Subsampled, ByPlate]
    + [
        lambda guide=guide, base=base: of(guide, base)
        for guide in (AutoNormal, AutoNormalMessenger)
        for base in (Linear, Declared)
    ]
    + [lambda: of(listed), lambda: of(AutoHierarchicalNormalMessenger)],
)
def test_a_batch_brings_its_rows_however_they_are_written(make):
    """The gradient of a batch is that of its own rows alone, and that of a hundred draws."""
    pair, x = load_pair(make()), torch.from_numpy(drawn(N, 1))
    description = inspect(pair, x, N)
    assert description.plate_size == N and description.local_sites[0].event_shape == (2,)
    index = torch.tensor([7, 3, 31])
    loc = next(table.values for name, table in pair.tables.items() if "loc" in name)
    with torch.no_grad():
        for name, table in pair.tables.items():
            table.values.fill_(0.0 if name.startswith(("loc", "Auto")) and "loc" in name else -1.0)
        loc.copy_(torch.arange(2.0 * N).reshape(N, 2) / N)
    rows = {name: table.values[index] for name, table in pair.tables.items()}
    batch = joined(x[index], rows)
    with pair.running(), poutine.trace() as seen:
        pair.guide(batch)
    z = seen.trace.nodes["z"]
    assert z["scale"] == pytest.approx(N / 3)
    z["value"].sum().backward()
    reached = loc.grad.abs().sum(1).nonzero().flatten()
    assert reached.tolist() == sorted(index.tolist())


def test_weights_and_codes_by_one_autoguide_are_the_mean_field():
    """The gradient is zero at the fixed point of coordinate ascent, with N filled in."""
    x = torch.from_numpy(drawn(N, 1)[:, :1]) + 3
    pair = load_pair(Level())
    assert inspect(pair, x, N).filled_in
    # q(level) has precision 1 + N, q(z) has 1 + 1 / s^2.
    level, precision = 0.0, 1 + 1 / NOISE**2
    for _ in range(200):
        codes = (level + x[:, 0] / NOISE**2) / precision
        level = codes.sum() / (1 + N)
    inverse = dist.constraints.softplus_positive
    unconstrained = torch.distributions.transform_to(inverse).inv
    at = {
        "locs.level_unconstrained": level,
        "scales.level_unconstrained": unconstrained(torch.tensor((1 + N) ** -0.5)),
        "locs.z_unconstrained": codes,
        "scales.z_unconstrained": unconstrained(torch.full((N,), precision**-0.5)),
    }
    tensors = pair.trainable()
    with torch.no_grad():
        for name, value in at.items():
            tensors[f"pair.guide.{name}"].copy_(value)
    learning = SVI(pair, Trace_ELBO())
    torch.manual_seed(0)
    gradients = []
    with pair.running():
        for index in torch.arange(N).split(10) * 100:
            rows = {name: table.values[index] for name, table in pair.tables.items()}
            loss = learning.phases[0].loss(joined(x[index], rows), index)
            found = torch.autograd.grad(loss, list(tensors.values()))
            gradients.append(torch.cat([value.flatten() for value in found]))
    gradients = torch.stack(gradients).reshape(100, 4, -1).mean(1)
    error = gradients.std(0) / 10
    assert (gradients.mean(0).abs() < 4.5 * error).all()
    # By the batch's size in the place of N the prior of the level would weigh four times as much.
    assert 4.5 * error.max() < 3 * level / N


def test_codes_are_found_with_the_weights_as_they_are():
    """Given q(level), a code's posterior is a normal in closed form."""
    x = torch.from_numpy(drawn(12, 3)[:, :1])
    pair = load_pair(Level())
    inspect(pair, x, 12)
    with torch.no_grad():
        pair.trainable()["pair.guide.locs.level_unconstrained"].fill_(1.5)
    rows, risen = search(pair, x, seed=0)
    precision = 1 + 1 / NOISE**2
    loc, scale = rows["AutoNormal.locs.z"], nn.functional.softplus(rows["AutoNormal.scales.z"])
    np.testing.assert_allclose(loc, (1.5 + x[:, 0] / NOISE**2) / precision, atol=0.02)
    np.testing.assert_allclose(scale, precision**-0.5, rtol=0.03)
    assert risen < 0.01


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Embedded, 'looked up at once, pyro.param("loc", torch.zeros(N, d))[index]'),
        (lambda: of(AutoDiagonalNormal), "or by AutoNormal or AutoDelta"),
        (lambda: type("Few", (Indexed,), {"rows": 7})(), "parameter 'loc' has 7 rows"),
    ],
)
def test_what_has_no_rows_for_each_datum_is_refused_in_one_line(make, said):
    with pytest.raises(pyro_aevb.UsageError) as refusal:
        inspect(load_pair(make()), torch.from_numpy(drawn(N, 1)), N)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_points_of_each_datum_train_and_other_algorithms_say_no():
    pair = load_pair(of(AutoDelta))
    run = pyro_aevb.fit(pair, data=dataset(), epochs=60, **SETTINGS)
    means, _ = posterior(drawn(12, 3))  # the mode of a normal
    np.testing.assert_allclose(
        pyro_aevb.encode(pair, torch.from_numpy(drawn(12, 3)))["z"], means, atol=0.005
    )
    assert "elbo" not in run.results["metrics"] or run.results["metrics"]["elbo"]["value"] is None
    with pytest.raises(
        pyro_aevb.UsageError, match="wake_sleep does not train; use --algorithm svi"
    ):
        pyro_aevb.fit(Indexed(), data=dataset(), algorithm="wake_sleep", **SETTINGS)


def test_a_run_in_memory_is_scored_by_a_copy_of_its_guide(tmp_path):
    """Pyro's guides lose their model, and a list its parts, where they are copied."""
    few = {"data": dataset(), "epochs": 1, "out": str(tmp_path), **SETTINGS}
    run = pyro_aevb.fit(of(listed), **few)
    first = run.results["metrics"]["elbo"]["value"]
    for _ in range(2):
        again = run.evaluate(num_samples=50, proposal="guide", show=False)
        assert again["metrics"]["elbo"]["value"] == first


def test_other_sets_are_inferred_and_corrupted_data_refused(fitted, tmp_path):
    run, _ = fitted
    np.savez(tmp_path / "far.npz", train=drawn(20, 5), test=drawn(12, 6) + 3, valid=drawn(4, 7))
    far = {"pair": Indexed(), "data": dataset(), "num_samples": 50, "show": False}
    results = pyro_aevb.evaluate(run, against=str(tmp_path / "far.npz"), **far)
    (entry,) = results["against"].values()
    found = [entry["metrics"]["iwae_bound"][name]["value"] for name in ("test", "other")]
    expected = [evidence(drawn(12, 3)), evidence(drawn(12, 6) + 3)]
    assert found == pytest.approx(expected, abs=0.02)
    with pytest.raises(pyro_aevb.UsageError, match="--corruption is what the guide sees"):
        pyro_aevb.evaluate(run, corruption="gaussian", **far)
