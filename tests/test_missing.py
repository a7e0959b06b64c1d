"""Missing values: the density of what was seen, and imputation, against a linear-Gaussian model."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_aevb
from pyro_aevb.data.batch import Batch
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.missing import impute
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.training.objectives.elbo import TraceELBO

W = torch.tensor([[1.0, 0.5, -0.3, 0.9], [0.2, -1.0, 0.8, 0.4]])
NOISE = 0.6
COVARIANCE = W.T @ W + NOISE**2 * torch.eye(4)
whole = torch.tensor(np.random.default_rng(3).normal(size=(9, 4)), dtype=torch.float32)
gone = torch.tensor(np.random.default_rng(5).random((9, 4)) < 0.3)
gone[0] = torch.tensor([True, True, True, False])
gone[1] = False
x = whole.masked_fill(gone, torch.nan)


class Factors(nn.Module):
    def __init__(self, how="nothing"):
        super().__init__()
        self.how = how
        self.weight = nn.Parameter(W.clone())
        self.encode = nn.Linear(8, 4)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            fn = dist.Normal(z @ self.weight, NOISE)
            if self.how == "masked":
                pyro.sample("x", fn.mask(~x.isnan()).to_event(1), obs=x)
            elif self.how == "filled":  # by hand, as Pyro needs it
                pyro.sample("x", fn.mask(~x.isnan()).to_event(1), obs=x.nan_to_num())
            elif self.how == "obs_mask":
                for i in range(4):
                    column = dist.Normal(fn.loc[:, i], NOISE)
                    pyro.sample(
                        f"x{i}", column, obs=x[:, i].nan_to_num(), obs_mask=~x[:, i].isnan()
                    )
            else:
                pyro.sample("x", fn.to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            seen = torch.cat([x.nan_to_num(), x.isnan().float()], 1)
            loc, scale = self.encode(seen).chunk(2, 1)
            pyro.sample("z", dist.Normal(loc, 0.5 + scale.sigmoid()).to_event(1))


HOWS = ["nothing", "masked", "filled", "obs_mask"]


def made(how):
    torch.manual_seed(0)
    pair = load_pair(Factors(how))
    inspect(pair, x)
    return pair


def exact(row):
    """log p of what was seen of a datum, and the mean of all of it given that."""
    seen = ~row.isnan()
    inner = COVARIANCE[seen][:, seen]
    fn = dist.MultivariateNormal(torch.zeros(int(seen.sum())), inner)
    return fn.log_prob(row[seen]), COVARIANCE[:, seen] @ torch.linalg.solve(inner, row[seen])


@pytest.mark.parametrize("how", HOWS)
def test_the_density_is_that_of_what_was_seen(how):
    rows = Batches(Split(x, None, 1), "none")
    found = MarginalLikelihood(made(how), "laplace", 400, compile="off")(rows)
    expected = [float(exact(row)[0]) for row in x]
    np.testing.assert_allclose(found.log_likelihood[0], expected, atol=0.02)


@pytest.mark.parametrize("how", ["nothing", "masked", "obs_mask"])
def test_gradients_are_those_of_a_model_that_is_masked_and_filled_by_hand(how):
    gradients = []
    for each in (how, "filled"):
        pair = made(each)
        torch.manual_seed(1)
        with pair.running():
            TraceELBO().differentiable_loss(pair.model, pair.guide, x).backward()
        gradients.append({name: value.grad for name, value in pair.trainable().items()})
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name])


@pytest.mark.parametrize("how", ["nothing", "obs_mask"])
def test_imputed_values_are_the_conditional_means(how):
    """Also of an x that is observed column by column."""
    torch.manual_seed(2)
    found, deviation = impute(made(how), x, num_samples=2000, return_std=True)
    assert torch.equal(found[~gone], x[~gone]) and not deviation[~gone].any()
    expected = torch.stack([exact(row)[1] for row in x])
    # The mean of 2,000 draws of spread below 1.2, four hundred of which count.
    torch.testing.assert_close(found[gone], expected[gone], atol=0.18, rtol=0)
    spreads = torch.zeros(9, 4)
    for n, row in enumerate(x):
        seen = ~row.isnan()
        given = COVARIANCE[:, seen] @ torch.linalg.solve(
            COVARIANCE[seen][:, seen], COVARIANCE[seen]
        )
        spreads[n] = (COVARIANCE - given).diagonal().clamp(min=0).sqrt()
    torch.testing.assert_close(deviation[gone], spreads[gone], atol=0.1, rtol=0)


def test_a_likelihood_on_part_of_the_line_is_filled_inside_its_support():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Gamma(2.0, torch.ones(4)).to_event(1), obs=x)

    pair = load_pair((model, lambda x: None))
    positive = x.abs() + 0.1
    description = inspect(pair, positive)
    with pair.running():
        loss = TraceELBO().differentiable_loss(pair.model, pair.guide, positive)
    expected = dist.Gamma(2.0, 1.0).log_prob(positive[~gone]).sum()
    torch.testing.assert_close(-loss, expected)
    assert description.likelihood == "Gamma"


def test_a_run_on_a_table_with_missing_values(tmp_path):
    split = Split(x.repeat(20, 1), None, 1)
    data = DataSet("table", split, split, split, "a table with missing values", "none")
    how = {"epochs": 2, "batch_size": 20, "lr": 1e-6, "num_samples": 50, "show": False}
    run = pyro_aevb.fit(Factors, data=data, out=str(tmp_path / "run"), **how)
    expected = float(np.mean([float(exact(row)[0]) for row in x]))
    assert run.results["metrics"]["log_likelihood"]["value"] == pytest.approx(expected, abs=0.02)


class Steps(nn.Module):
    """A chain of two steps, of which the second is there for some data alone."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(4, 4)

    def steps(self, x, length):
        return torch.stack([torch.ones(len(x), dtype=torch.bool), length > 1], 1)

    def model(self, x, length):
        there, z = self.steps(x, length), torch.zeros(len(x), 1)
        with pyro.plate("data", len(x)):
            for t in pyro.markov(range(2)):
                mask = there[:, t : t + 1]
                z = pyro.sample(f"z_{t}", dist.Normal(0.8 * z, 1.0).mask(mask).to_event(1))
                fn = dist.Normal(z * torch.ones(2), NOISE)
                seen = x[:, 2 * t : 2 * t + 2]
                pyro.sample(f"x_{t}", fn.mask(mask).to_event(1), obs=seen)

    def guide(self, x, length):
        there, q = self.steps(x, length), self.encode(x)
        with pyro.plate("data", len(x)):
            for t in range(2):
                fn = dist.Normal(q[:, t : t + 1], 0.5 + q[:, t + 2 : t + 3].sigmoid())
                pyro.sample(f"z_{t}", fn.mask(there[:, t : t + 1]).to_event(1))


def test_a_sequence_ends_where_its_latents_are_masked():
    length = torch.tensor([1, 2, 1, 2, 2, 1, 1, 2, 1])
    torch.manual_seed(0)
    pair = load_pair(Steps())
    inspect(pair, Batch(whole, {"length": length}))
    rows = Batches(
        Split(whole, None, 1, {"length": length}), "none", torch.device("cpu"), ["length"]
    )
    found = MarginalLikelihood(pair, "laplace", 20_000, compile="off")(rows)
    assert found.proposal == "guide"  # what is masked has no density that a search could follow
    W = torch.tensor([[1.0, 1.0, 0.8, 0.8], [0, 0, 1, 1]])
    covariance = W.T @ W + NOISE**2 * torch.eye(4)
    for n, row in enumerate(whole):
        d = 2 * int(length[n])
        exact = dist.MultivariateNormal(torch.zeros(d), covariance[:d, :d]).log_prob(row[:d])
        assert found.log_likelihood[0, n] == pytest.approx(float(exact), abs=0.1)


def view(x, y, feeds):
    has = y >= 0
    with pyro.plate("data", len(x)):
        y = pyro.sample("y", dist.Bernoulli(0.3 * torch.ones(len(x))), obs=y.abs(), obs_mask=has)
        loc = y[:, None] * torch.ones(4) if feeds else torch.zeros(4)
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def test_what_obs_mask_leaves_out_and_others_depend_on_is_for_the_guide():
    y = torch.tensor([1.0, -1, 0, -1, 1, 0, -1, 1, 0])
    data = Batch(whole, {"y": y})
    pair = load_pair((lambda x, y: view(x, y, False), lambda x, y: None))
    inspect(pair, data)
    with pair.running():
        loss = TraceELBO().differentiable_loss(pair.model, pair.guide, data)
    labels = dist.Bernoulli(0.3).log_prob(y[y >= 0]).sum()
    torch.testing.assert_close(-loss, labels + dist.Normal(0.0, 1.0).log_prob(whole).sum())
    pair = load_pair((lambda x, y: view(x, y, True), lambda x, y: None))
    with pytest.raises(UsageError, match="'x' depends on 'y_unobserved'.*in the guide"):
        inspect(pair, data)


def test_masks_of_the_two_sides_have_to_agree():
    def side(x, mask):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=mask(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    def both(x, mask):
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=mask(x)):
                pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(0.0, 1.0).expand(x.shape).to_event(1), obs=x)

    some, all_ = lambda x: x[:, 3] > 0, lambda x: x[:, 3] < 9  # noqa: E731
    inspect(load_pair((lambda x: both(x, some), lambda x: side(x, some))), whole)
    other = load_pair((lambda x: both(x, some), lambda x: side(x, all_)))
    with pytest.raises(UsageError, match="'z' is masked for other data in the guide"):
        inspect(other, whole)
