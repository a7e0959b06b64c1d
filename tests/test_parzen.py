"""The Parzen window against scikit-learn's kernel density and a Gaussian's exact density."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from linear_gaussian import PPCA, batches, matrix, ready
from sklearn.neighbors import KernelDensity
from torch import nn

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators import parzen as module
from pyro_aevb.estimators.parzen import log_density, parzen


@pytest.mark.parametrize("sizes", [[300], [1, 99, 200]])
def test_the_density_is_scikit_learns(sizes):
    rng = np.random.default_rng(0)
    x, samples = rng.random((50, 20)), rng.random((300, 20))
    tried = [0.05, 0.3, 2.0]
    exact = {"kernel": "gaussian", "leaf_size": 1000}  # one leaf: sums, and no bounds of a tree
    blocks = torch.from_numpy(samples).split(sizes)
    found = log_density(torch.from_numpy(x), blocks, tried)
    for bandwidth, values in zip(tried, found, strict=True):
        density = KernelDensity(bandwidth=bandwidth, **exact).fit(samples)
        np.testing.assert_allclose(values, density.score_samples(x), rtol=1e-8)


def test_far_from_every_sample_nothing_underflows():
    x, samples = torch.zeros(1, 784).double(), torch.ones(5, 784).double()
    expected = -784 / (2 * 0.01**2) - 392 * math.log(2 * math.pi * 0.01**2)
    assert log_density(x, [samples], [0.01]).item() == pytest.approx(expected, rel=1e-9)


def test_around_many_samples_it_is_the_marginal_with_the_noise_as_bandwidth():
    # Mean images W z + mu of z ~ N(0, I), a window of the width of the noise: p(x) itself.
    source = PPCA(features=3, latent=2, noise=0.6)
    valid, test = source.data(1500, seed=8), source.data(800, seed=9)
    pair = ready(source, test)
    metric, values = parzen(pair, batches(test), batches(valid), num_kernels=8000)
    exact = source.log_likelihood(test)
    # 800 data know the mean of their own log-likelihood; the window has an error of its own.
    assert abs(values.mean() - exact.mean()) < 0.03
    assert np.corrcoef(values, exact)[0, 1] > 0.99
    # The curvature over log-bandwidth is 2 D per datum: 1500 data know it to about 2 percent.
    assert metric["bandwidth"] == pytest.approx(0.6, rel=0.06)
    assert metric["value"] == pytest.approx(values.mean())
    assert metric["standard_error"] == pytest.approx(scipy.stats.sem(values))
    assert (metric["num_kernels"], metric["num_data"], metric["num_valid"]) == (8000, 800, 1500)


def test_the_bandwidth_is_the_best_for_validation_data(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 70)
    source, drawn, real = PPCA(), [], module.generate
    monkeypatch.setattr(module, "generate", lambda *a: drawn.append(real(*a)) or drawn[-1])
    valid, test = source.data(60, seed=8), source.data(40, seed=9)
    done: list[int] = []
    metric, values = parzen(
        ready(source, test), batches(test), batches(valid), 200, seed=3, progress=done.append
    )
    samples = torch.cat(drawn[-3:]).numpy()
    assert samples.shape == (200, 4) and sum(done) == 600
    # Three passes see the same samples.
    assert np.array_equal(samples, torch.cat(drawn[1:4]).numpy())
    assert len(np.unique(samples[:, 0])) == 200

    def mean(bandwidth):
        return KernelDensity(bandwidth=bandwidth).fit(samples).score_samples(valid).mean()

    finer = np.geomspace(metric["bandwidth"] / 5, metric["bandwidth"] * 5, 400)
    best = finer[np.argmax([mean(bandwidth) for bandwidth in finer])]
    assert metric["bandwidth"] == pytest.approx(best, rel=0.015)
    expected = KernelDensity(bandwidth=metric["bandwidth"]).fit(samples).score_samples(test)
    np.testing.assert_allclose(values, expected, rtol=1e-8)


class Levels(nn.Module):
    """Three levels for each of four components, by their index or one-hot."""

    def __init__(self, family):
        super().__init__()
        self.family, self.logits = family, nn.Parameter(matrix(2, 12, seed=8))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            h = (z @ self.logits).view(-1, 4, 3)
            pyro.sample("x", self.family(logits=h).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.flatten(1)[:, :2], 0.1).to_event(1))


def test_a_likelihood_without_a_mean_has_no_window(monkeypatch):
    levels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (40, 4)))
    x, hot = levels.double(), nn.functional.one_hot(levels, 3).double()
    drawn, real = [], module.generate
    monkeypatch.setattr(module, "generate", lambda *a: drawn.append(real(*a)) or drawn[-1])
    metric, values = parzen(
        ready(Levels(dist.OneHotCategorical), hot), batches(hot), batches(hot), 50
    )
    means = drawn[-1]
    torch.testing.assert_close(means.sum(-1), torch.ones(50, 4).double())
    window = KernelDensity(bandwidth=metric["bandwidth"]).fit(means.flatten(1))
    np.testing.assert_allclose(values, window.score_samples(hot.flatten(1)), rtol=1e-8)
    with pytest.raises(UsageError, match="a likelihood of Categorical has none"):
        parzen(ready(Levels(dist.Categorical), x), batches(x), batches(x), 50)
