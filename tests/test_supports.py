"""A likelihood is asked for densities where it has some, in every split; by SciPy."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn.functional import softplus

import pyro_aevb
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.supports import telling

N, D = 40, 3
RNG = np.random.default_rng(0)


class Linear(nn.Module):
    def __init__(self, likelihood):
        super().__init__()
        self.likelihood = likelihood
        self.A, self.W = nn.Linear(D, 2), nn.Linear(2, D)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1).to_event(1))
            pyro.sample("x", self.likelihood(self.W(z)), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.A(x), x.new_tensor(0.5)).to_event(1))

    def at_means(self, x):
        r"""What the likelihood gets at the means of the codes of x, ``(N, D)``, by NumPy."""
        A, a, W, b = (
            v.detach().double().numpy()
            for v in (self.A.weight, self.A.bias, self.W.weight, self.W.bias)
        )
        return (x @ A.T + a) @ W.T + b


# A likelihood, data, a value that it refuses (which is neither the least nor the largest), one
# that it takes, and its density.
KINDS = {
    "Poisson": (
        lambda h: dist.Poisson(softplus(h) + 0.1).to_event(1),
        RNG.integers(0, 9, (N, D)),
        (2.5, 2.0),
        lambda x, h: scipy.stats.poisson(np.log1p(np.exp(h)) + 0.1).logpmf(x).sum(1),
    ),
    "Binomial": (
        lambda h: dist.Binomial(torch.tensor([4.0, 5.0, 6.0]), logits=h).to_event(1),
        RNG.integers(0, 5, (N, D)),
        (5.5, 5.0),
        lambda x, h: scipy.stats.binom([4, 5, 6], 1 / (1 + np.exp(-h))).logpmf(x).sum(1),
    ),
    "OneHotCategorical": (
        lambda h: dist.OneHotCategorical(logits=h),
        np.eye(D)[RNG.integers(0, D, N)],
        (0.5, None),
        lambda x, h: (x * h).sum(1) - np.log(np.exp(h).sum(1)),
    ),
    "LogNormal": (
        lambda h: dist.LogNormal(h, 1.0).to_event(1),
        RNG.lognormal(size=(N, D)),
        (0.0, 0.25),
        lambda x, h: scipy.stats.lognorm(1, scale=np.exp(h)).logpdf(x).sum(1),
    ),
}


def dataset(**splits):
    made = {k: Split(torch.from_numpy(v.astype(np.float32)), None, 1) for k, v in splits.items()}
    return DataSet("made", made["train"], made["valid"], made["test"], "", "none")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("name", KINDS)
def test_a_value_outside_the_support_is_found_in_every_split(name, split, tmp_path):
    likelihood, x, (refused, taken), density = KINDS[name]
    pair, splits = Linear(likelihood), {"train": x, "valid": x, "test": x}
    how = {"epochs": 1, "num_samples": 20, "compile": "off", "show": False}
    for value in (refused, taken):
        changed = x.astype(float).copy()
        if value is not None:
            changed[23, 1] = value
        data = dataset(**{**splits, split: changed})
        if value == refused:
            with pytest.raises(UsageError, match=f"outside the support of {name}") as error:
                pyro_aevb.fit(pair, data, out=str(tmp_path / "refused"), **how)
            assert "\n" not in str(error.value) and "tensor" not in str(error.value)
            assert not (tmp_path / "refused").exists()
            continue
        run = pyro_aevb.fit(pair, data, out=str(tmp_path / "taken"), **how)
        test = changed if split == "test" else x.astype(float)
        expected = density(test, pair.at_means(test))
        found = run.results["metrics"]["reconstruction_mean"]["value"]
        assert found == pytest.approx(expected.mean(), rel=1e-4)


def test_other_data_are_scored_where_the_likelihood_has_a_density(tmp_path):
    pair = Linear(KINDS["Poisson"][0])
    nn.init.zeros_(pair.W.weight)  # so that no draw of a code matters
    x, other = RNG.integers(0, 9, (2, N, D)).astype(np.float32)
    splits = {"train": x, "valid": x, "test": x}
    how = {"num_samples": 20, "show": False}
    run = pyro_aevb.fit(pair, dataset(**splits), epochs=0, out=str(tmp_path / "run"), **how)
    given = {"pair": pair, "data": dataset(**splits), **how}
    with pytest.raises(UsageError, match="noise, test split: .* outside the support of Poisson"):
        pyro_aevb.evaluate(run, against="noise", **given)
    path = tmp_path / "other.npz"
    np.savez(path, train=other, valid=other, test=other)
    found = pyro_aevb.evaluate(run, against=str(path), **given)["against"][str(path)]["metrics"]
    rates = np.log1p(np.exp(pair.W.bias.detach().double().numpy())) + 0.1
    ours, theirs = (scipy.stats.poisson(rates).logpmf(v).sum(1) for v in (x, other))
    assert found["reconstruction"]["test"]["value"] == pytest.approx(ours.mean(), rel=1e-6)
    assert found["reconstruction"]["other"]["value"] == pytest.approx(theirs.mean(), rel=1e-6)
    area = scipy.stats.mannwhitneyu(ours, theirs).statistic / N**2
    assert found["reconstruction"]["value"] == pytest.approx(area, abs=2 / N**2)


def test_the_telling_data_are_the_extremes():
    images = torch.full((9, 3), 0.25)
    images[2, 0], images[5, 1], images[7] = 8.0, -3.0, torch.tensor([3.0, 3.0, 3.0])
    images[4] = torch.tensor([-2.0, -2.0, -2.0])
    images[6, 2] = 0.5
    batches = Batches(Split(images, None, 1), "none")
    assert telling(batches).tolist() == [2, 4, 5, 6, 7]
