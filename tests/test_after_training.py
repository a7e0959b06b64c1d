"""Whatever the likelihood: a run ends with its numbers, which are right, and says what it cannot
draw."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import SigmoidTransform
from torch import nn
from torch.nn.functional import softplus

import pyro_aevb
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.pairs.handlers import typical

N, D = 60, 6


class Pair(nn.Module):
    def __init__(self, likelihood, event_dims=1, outputs=D):
        super().__init__()
        self.likelihood, self.event_dims = likelihood, event_dims
        self.enc, self.dec = nn.Linear(D, 4), nn.Linear(2, outputs)

    def at(self, z):
        return self.likelihood(self.dec(z)).to_event(self.event_dims)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", self.at(z), obs=x)

    def guide(self, x):
        loc, scale = self.enc(x.flatten(1)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, softplus(scale) + 0.1).to_event(1))


def logit_normal(a):
    return dist.TransformedDistribution(dist.Normal(a, 1.0), [SigmoidTransform()])


def mixture(a):
    parts = dist.Normal(torch.stack([a, a + 1], -1), 1.0)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(*a.shape, 2)), parts)


def positive(a):
    return softplus(a) + 0.1


LIKELIHOODS = {
    "Normal": (lambda a: dist.Normal(a, 1.0), "real"),
    "Laplace": (lambda a: dist.Laplace(a, 1.0), "real"),
    "StudentT": (lambda a: dist.StudentT(3.0, a, 1.0), "real"),
    "StudentT without a mean": (lambda a: dist.StudentT(0.5, a, 1.0), "real"),
    "Cauchy": (lambda a: dist.Cauchy(a, 1.0), "real"),
    "MixtureSameFamily": (mixture, "real"),
    "VonMises": (lambda a: dist.VonMises(a, 2.0), "real"),
    "LogNormal": (lambda a: dist.LogNormal(a, 1.0), "positive"),
    "Gamma": (lambda a: dist.Gamma(2.0, positive(a)), "positive"),
    "Beta": (lambda a: dist.Beta(positive(a), 2.0), "unit"),
    "ContinuousBernoulli": (lambda a: dist.ContinuousBernoulli(logits=a), "unit"),
    "logit-normal": (logit_normal, "unit"),
    "Poisson": (lambda a: dist.Poisson(positive(a)), "counts"),
    "NegativeBinomial": (lambda a: dist.NegativeBinomial(5.0, logits=a), "counts"),
    "Binomial": (lambda a: dist.Binomial(9, logits=a), "counts"),
    "Categorical": (lambda a: dist.Categorical(logits=a.unflatten(-1, (D, 10))), "counts"),
    "OneHotCategorical": (lambda a: dist.OneHotCategorical(logits=a), "one hot"),
}


def data(kind):
    rng = np.random.default_rng(0)
    x = {
        "real": rng.normal(size=(N, D)),
        "positive": rng.gamma(2.0, size=(N, D)),
        "unit": rng.uniform(0.05, 0.95, (N, D)),
        "counts": rng.integers(0, 10, (N, D)),
        "one hot": np.eye(D)[rng.integers(0, D, N)],
    }[kind]
    split = Split(torch.from_numpy(x).float(), None, 1)
    return DataSet(kind, split, split, split, f"{N} data", "none")


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_likelihood_is_trained_scored_and_drawn(name, tmp_path, capsys):
    likelihood, kind = LIKELIHOODS[name]
    event_dims = 0 if name == "OneHotCategorical" else 1
    pair = Pair(likelihood, event_dims, 10 * D if name == "Categorical" else D)
    how = {"epochs": 1, "num_samples": 20, "compile": "off", "batch_size": 20}
    run = pyro_aevb.fit(pair, data(kind), out=str(tmp_path / "r"), **how)
    printed = capsys.readouterr().out
    assert "reconstruction" in printed and "log_likelihood" in printed
    x = data(kind).test.images
    code = pair.enc(x).chunk(2, -1)[0]
    exact = pair.at(code).log_prob(x).detach().double().numpy()
    found = run.results["metrics"]["reconstruction_mean"]
    assert found["value"] == pytest.approx(exact.mean(), rel=1e-4)
    assert found["standard_error"] == pytest.approx(exact.std(ddof=1) / math.sqrt(N), rel=1e-3)
    figures = {path.name for path in run.figures.glob("*.png")}
    assert {"history.png", "reconstructions.png", "samples.png", "manifold.png"} <= figures
    assert not [note for note in run.results["notes"] if "not drawn" in note]
    value, _ = typical(pair.at(code))
    assert torch.isfinite(value).all() and value.shape == x.shape
    if name == "Categorical":
        expected = pair.dec(code).view(N, D, 10).argmax(-1)
        assert torch.equal(pyro_aevb.reconstruct(run.pair, x), expected)


def test_a_figure_that_fails_is_named_and_the_numbers_stand(tmp_path, capsys, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("no\npaper")

    monkeypatch.setattr(pyro_aevb.reports.plots, "history", broken)
    monkeypatch.setattr(pyro_aevb.reports.plots, "samples", broken)
    pair = Pair(LIKELIHOODS["Normal"][0])
    how = {"epochs": 1, "num_samples": 20, "compile": "off"}
    run = pyro_aevb.fit(pair, data("real"), out=str(tmp_path / "r"), **how)
    said = [f"note: {n}.png is not drawn: RuntimeError: no paper" for n in ("history", "samples")]
    assert run.results["notes"] == said
    printed = " ".join(capsys.readouterr().out.split())
    assert all(line in printed for line in said) and "log_likelihood" in printed
    scale = run.results["metrics"]["log_likelihood"]["value"]
    assert -20 < scale < -6 and (run.figures / "reconstructions.png").exists()
