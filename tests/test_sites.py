"""Several observed sites, and plates beside the data plate: the numbers of what is written plainly.

The oracle is a linear-Gaussian pair of two views, whose p(x, y), and posterior, are normals.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormalMessenger
from torch import nn

import pyro_aevb
from pyro_aevb.data.batch import Batch
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.estimators.curvature import Curvature
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.pairs import closed_forms
from pyro_aevb.pairs.closed_forms import exact_kl
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.density import run
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.predict import decode, encode
from pyro_aevb.training.objectives.decomposition import draw
from pyro_aevb.training.objectives.iwae import IWAE
from pyro_aevb.training.svi import SVI

A = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.8]])
B = torch.tensor([[0.7, -0.4], [0.1, 0.9]])
NOISE = 0.6
x = torch.tensor(np.random.default_rng(3).normal(size=(7, 3)), dtype=torch.float32)
y = torch.tensor(np.random.default_rng(4).normal(size=(7, 2)), dtype=torch.float32)


def normal(loc, scale=NOISE, event_dims=1):
    return dist.Normal(loc, scale).to_event(event_dims)


class Views(nn.Module):
    """Two columns are observed of each datum; `how` is the plates in which that is written."""

    def __init__(self, how="plain"):
        super().__init__()
        self.how = how
        self.encode = nn.Linear(5, 4)

    def model(self, x, y):
        n = len(x)
        if self.how == "plain":
            with pyro.plate("data", n):
                z = pyro.sample("z", normal(torch.zeros(n, 2), 1.0))
                pyro.sample("x", normal(z @ A), obs=x)
                pyro.sample("y", normal(z @ B), obs=y)
        elif self.how == "pixels on the left":  # of dim -2: (pixel, datum)
            with pyro.plate("data", n):
                z = pyro.sample("z", normal(torch.zeros(n, 2), 1.0))
                with pyro.plate("pixels", 3):
                    pyro.sample("x", dist.Normal((z @ A).T, NOISE), obs=x.T)
                with pyro.plate("others", 2):
                    pyro.sample("y", dist.Normal((z @ B).T, NOISE), obs=y.T)
        else:  # the data plate of dim -2, and a plate of the code's dimensions
            with pyro.plate("data", n, dim=-2):
                with pyro.plate("dimensions", 2, dim=-1):
                    z = pyro.sample("z", dist.Normal(torch.zeros(n, 2), 1.0))
                with pyro.plate("pixels", 3, dim=-1):
                    pyro.sample("x", dist.Normal(z @ A, NOISE), obs=x)
                pyro.sample("y", normal((z @ B).unsqueeze(1)), obs=y.unsqueeze(1))

    def guide(self, x, y):
        mean, scale = self.encode(torch.cat([x, y], 1)).chunk(2, 1)
        q = dist.Normal(mean, 0.5 + scale.sigmoid())
        if self.how != "data of dim -2":
            with pyro.plate("data", len(x)):
                pyro.sample("z", q.to_event(1))
            return
        with pyro.plate("data", len(x), dim=-2), pyro.plate("dimensions", 2, dim=-1):
            pyro.sample("z", q)


HOWS = ["plain", "pixels on the left", "data of dim -2"]


def exact():
    """log p(x, y) of each datum."""
    W = torch.cat([A, B], 1)
    covariance = W.T @ W + NOISE**2 * torch.eye(5)
    return dist.MultivariateNormal(torch.zeros(5), covariance).log_prob(torch.cat([x, y], 1))


def viewed(how):
    """The pair, inspected, and its data."""
    torch.manual_seed(0)
    pair = load_pair(Views(how))
    inspect(pair, Batch(x, {"y": y}))
    return pair, Batches(Split(x, None, 1, {"y": y}), "none", torch.device("cpu"), ["y"])


@pytest.mark.parametrize("how", HOWS)
def test_the_log_likelihood_is_of_all_sites_jointly(how):
    pair, rows = viewed(how)
    assert pair.description.observed_sites == ("x", "y")
    assert pair.description.event_shape == (3,)
    # The posterior is normal, so the proposal is exact but for its share of the guide.
    found = MarginalLikelihood(pair, "laplace", 400, compile="off")(rows)
    np.testing.assert_allclose(found.log_likelihood[0], exact(), atol=0.02)
    # By the guide, with the Monte Carlo error of 20,000 draws.
    scores = score(pair, rows, num_samples=20_000, compile="off")
    np.testing.assert_allclose(scores.log_weight[0], exact(), atol=0.1)


@pytest.mark.parametrize("how", HOWS)
def test_each_site_has_its_share_of_the_reconstruction(how):
    pair, rows = viewed(how)
    scores = score(pair, rows, num_samples=20_000, compile="off")
    with torch.no_grad():
        mean, scale = pair.sources["pair"].encode(torch.cat([x, y], 1)).chunk(2, 1)
        variance = (0.5 + scale.sigmoid()).square()
        for name, value, weight in (("x", x, A), ("y", y, B)):
            at_mean = normal(mean @ weight).log_prob(value)
            share = at_mean - variance @ weight.square().sum(1) / (2 * NOISE**2)
            # Of about 10 nats with a spread of 6, the mean of 20,000.
            np.testing.assert_allclose(scores.shares[name][0], share, atol=0.25)
    total = scores.shares["x"] + scores.shares["y"]
    np.testing.assert_allclose(scores.reconstruction, total, rtol=1e-5)


@pytest.mark.parametrize("how", HOWS)
def test_the_importance_weighted_objective_sees_the_same_plates(how):
    pair, rows = viewed(how)
    objective = make(how, pair)
    with torch.no_grad(), pair.running():
        loss = objective.differentiable_loss(pair.model, pair.guide, Batch(x, {"y": y}))
    assert float(-loss) == pytest.approx(float(exact().sum()), abs=0.2)


def make(how, pair):
    objective = IWAE(20_000)
    SVI(pair, objective)  # tells it the data plate
    return objective


@pytest.mark.parametrize("how", HOWS)
def test_codes_and_means_have_the_data_first(how):
    pair, rows = viewed(how)
    codes = encode(pair, x, y=y)
    mean = pair.sources["pair"].encode(torch.cat([x, y], 1)).chunk(2, 1)[0]
    torch.testing.assert_close(codes["z"].reshape(7, 2), mean)
    torch.testing.assert_close(decode(pair, codes, x, y=y), mean @ A)


def test_a_pair_of_several_sites_trains_and_reports_the_shares(tmp_path):
    split = Split(x.repeat(10, 1), None, 1, {"y": y.repeat(10, 1)})
    data = DataSet("views", split, split, split, "two views", "none")
    how = {"epochs": 2, "batch_size": 10, "num_samples": 5, "compile": "off", "show": False}
    run = pyro_aevb.fit(Views, data=data, out=str(tmp_path / "run"), **how)
    metrics = run.results["metrics"]
    shares = metrics["reconstruction"]["shares"]
    assert sum(shares.values()) == pytest.approx(metrics["reconstruction"]["value"])
    assert metrics["log_likelihood"]["value"] == pytest.approx(float(exact().mean()), abs=0.05)


@pytest.mark.parametrize("how", HOWS)
def test_the_curvature_is_that_of_all_sites(how):
    pair, _ = viewed(how)
    both = Batch(x, {"y": y})
    with torch.no_grad(), pair.running():
        joint, q = Joint(pair, both), torch.randn(7, 2)
        _, slope, precision, prior = Curvature(joint, both, q)(both, q)
    information = (A @ A.T + B @ B.T) / NOISE**2
    torch.testing.assert_close(prior, torch.eye(2).expand(7, 2, 2))
    torch.testing.assert_close(precision, (torch.eye(2) + information).expand(7, 2, 2))
    expected = ((x - q @ A) @ A.T + (y - q @ B) @ B.T) / NOISE**2 - q
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-4)


def test_a_decomposed_objective_has_the_reconstruction_of_all_sites():
    pair, _ = viewed("plain")
    both = Batch(x, {"y": y})
    with torch.no_grad(), pair.running():
        found = draw(pair.model, pair.guide, (both,), {})
    expected = normal(found.z @ A).log_prob(x) + normal(found.z @ B).log_prob(y)
    torch.testing.assert_close(found.reconstruction, expected)


@pytest.mark.parametrize("name", ["public", "by name"])
def test_a_kl_without_gradients_is_no_closed_form(name, monkeypatch):
    if name == "by name":  # as in a PyTorch without the names that are not public
        monkeypatch.setattr(closed_forms, "_dispatch_kl", None)
    q, p = dist.Normal(torch.tensor([0.3, -1.0]), 0.5), dist.Normal(torch.zeros(2), 2.0)
    expected = torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(exact_kl(q.to_event(1), p.to_event(1)), expected.sum())
    wishart = [torch.distributions.Wishart(torch.tensor(n), torch.eye(2)) for n in (4.0, 5.0)]
    with pytest.raises(NotImplementedError):
        exact_kl(*wishart)


class Weighted(nn.Module):
    """A global weight, and a code for each datum; N is declared, or is not."""

    def __init__(self, num_data: int, declares: bool = True):
        super().__init__()
        self.num_data, self.declares = num_data, declares
        self.loc, self.code = nn.Parameter(torch.tensor(0.3)), nn.Linear(3, 2)

    def plate(self, x):
        return pyro.plate("data", self.num_data if self.declares else len(x), len(x))

    def model(self, x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with self.plate(x):
            z = pyro.sample("z", normal(torch.zeros(len(x), 2), 1.0))
            pyro.sample("x", normal(w * z @ A), obs=x)

    def guide(self, x):
        pyro.sample("w", dist.Normal(self.loc, 0.2))
        with self.plate(x):
            pyro.sample("z", normal(self.code(x), 0.5))


@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_the_number_of_data_is_filled_in_where_the_plate_has_the_batch_alone(tmp_path, objective):
    split = Split(x.repeat(4, 1), None, 1)
    data = DataSet("few", split, split, split, "a few data", "none")
    runs = {}
    for declares in (True, False):
        torch.manual_seed(0)
        how = {"epochs": 2, "batch_size": 7, "num_samples": 5, "weight_samples": 2, "show": False}
        parameters = {"declares": declares}
        out = str(tmp_path / f"{declares}")
        more = {"objective": objective, "pair_parameters": parameters, "compile": "off"}
        runs[declares] = pyro_aevb.fit(Weighted, data=data, out=out, **how, **more)
    assert [row["objective"] for row in runs[True].history] == [
        row["objective"] for row in runs[False].history
    ]
    notes = runs[False].results["notes"]
    assert any("N = 28, the number of training data, is filled in" in note for note in notes)
    for name, metric in runs[True].results["metrics"].items():
        assert metric == runs[False].results["metrics"][name]


class Messenger(nn.Module):
    """A guide that runs the model, and replaces what it draws."""

    def __init__(self):
        super().__init__()
        self.guide = AutoNormalMessenger(self.model, amortized_plates=("data",))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(torch.zeros(len(x), 2), 1.0))
            pyro.sample("x", normal(z @ A), obs=x)


def test_a_guide_that_runs_the_model_observes_nothing():
    torch.manual_seed(0)
    pair = load_pair(Messenger())
    inspect(pair, x)
    scores = score(pair, Batches(Split(x, None, 1), "none"), num_samples=20_000, compile="off")
    with torch.no_grad(), pair.running():
        q = run(pair.guide, x)["z"]["fn"]
        while hasattr(q, "base_dist"):  # of a transform that is the identity
            q = q.base_dist
        at_mean = normal(q.loc @ A).log_prob(x)
        spread = q.variance @ A.square().sum(1) / (2 * NOISE**2)
        kl = torch.distributions.kl_divergence(q, dist.Normal(torch.zeros(7, 2), 1.0)).sum(1)
        expected = at_mean - spread - kl
    np.testing.assert_allclose(scores.elbo[0], expected, atol=0.1)
    joint = dist.MultivariateNormal(torch.zeros(3), A.T @ A + NOISE**2 * torch.eye(3))
    laplace = MarginalLikelihood(pair, "laplace", 400, compile="off")
    found = laplace(Batches(Split(x, None, 1), "none"))
    np.testing.assert_allclose(found.log_likelihood[0], joint.log_prob(x), atol=0.02)


class Recurrent(nn.Module):
    """A code of one number, unrolled over four steps by a recurrent net, in a plate of steps."""

    def __init__(self):
        super().__init__()
        self.net, self.last = nn.LSTM(1, 6, batch_first=True), nn.Linear(6, 2)

    def means(self, z):
        return self.last(self.net(z[:, None].expand(-1, 4, -1))[0])

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("steps", 4):
                loc = 3 * self.means(z).transpose(0, 1)
                pyro.sample("x", normal(loc), obs=x.transpose(0, 1))

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", normal(x.mean((1, 2))[:, None], 1.0))


def test_a_recurrent_decoder_is_searched_for_modes_too():
    torch.manual_seed(0)
    sequences = torch.randn(6, 4, 2)
    pair = load_pair(Recurrent())
    inspect(pair, sequences)
    found = MarginalLikelihood(pair, "laplace", 1000, compile="off")(
        Batches(Split(sequences, None, 1), "none")
    )
    assert found.proposal == "laplace"
    grid = torch.linspace(-8, 8, 4001)[:, None]
    with torch.no_grad():
        means = 3 * pair.sources["pair"].means(grid)[:, None]
    prior = normal(torch.zeros(len(grid), 1), 1.0).log_prob(grid)
    joint = normal(means, event_dims=2).log_prob(sequences) + prior[:, None]
    exact = joint.logsumexp(0) + torch.log(grid[1] - grid[0])
    np.testing.assert_allclose(found.log_likelihood[0], exact, atol=0.03)
