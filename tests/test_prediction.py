"""Predicted means against a linear Gaussian's closed form and against plain NumPy."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import PPCA, GaussianMean, batches, matrix, posterior, ready

from pyro_aevb.engine import streams
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.prediction import BINS, prediction
from pyro_aevb.models import Autoencoder
from pyro_aevb.pairs.predict import reconstruct
from pyro_aevb.reports.text import counts, with_error


@pytest.mark.parametrize("draws", [1, 3])
def test_its_square_is_that_of_the_posterior_mean_plus_the_spread_of_the_draws(draws):
    source = PPCA(exact=True)
    x = source.data(10_000)
    found = prediction(ready(source, x), batches(x), num_draws=draws)["rmse"]
    gain, covariance = (value.detach() for value in posterior(source.W, source.noise))
    W, mu = source.W.detach(), source.mu.detach()
    squares = (x - mu - (x - mu) @ gain.T @ W.T).square().mean(1)
    spread = torch.trace(W @ covariance @ W.T).item() / len(W)
    # The squares of 10,000 data's draws have a standard error of 0.5 % of their mean.
    expected = squares.mean().item() + spread / draws
    assert found["value"] ** 2 == pytest.approx(expected, rel=0.02)
    assert (found["num_draws"], found["num_data"], found["unit"]) == (draws, 10_000, "units of x")


def test_weights_are_averaged_over():
    x = matrix(4, 3)  # few data: the posterior of their mean is wide
    source = GaussianMean(x)
    found = prediction(ready(source, x), batches(x), num_draws=120)["rmse"]["value"]
    assert found**2 == pytest.approx((x - source.loc).square().mean().item(), rel=0.1)
    single = [prediction(ready(source, x), batches(x), 1, seed)["rmse"]["value"] for seed in (1, 2)]
    assert abs(single[0] - single[1]) > 0.01


def test_points_are_compared_as_numpy_does(monkeypatch):
    monkeypatch.setattr(streams, "DATA_BLOCK", 7)  # several blocks, the last one short
    pair = Autoencoder((1, 3, 2), 2, hidden=[4])
    x = torch.rand(30, 1, 3, 2)
    loaded = ready(pair, x)
    found = prediction(loaded, batches(x), num_draws=2)
    y = reconstruct(loaded, x).flatten(1).double().numpy()
    x = x.flatten(1).double().numpy()
    squares = ((x - y) ** 2).mean(1)
    assert found["rmse"]["value"] == pytest.approx(np.sqrt(squares.mean()), rel=1e-6)
    # The delta method: the derivative of a root is half of its inverse.
    error = squares.std(ddof=1) / np.sqrt(30) * 0.5 / np.sqrt(squares.mean())
    assert found["rmse"]["standard_error"] == pytest.approx(error, rel=1e-6)
    edges = np.linspace(x.min(), x.max(), BINS + 1)[1:-1]
    bins = np.digitize(y.ravel(), edges)
    gaps = [abs((x - y).ravel()[bins == b].sum()) for b in range(BINS)]
    expected = sum(gaps) / x.size
    assert found["mean_calibration_error"]["value"] == pytest.approx(expected, rel=1e-6)
    assert expected > 0.03 and len(set(bins)) > 2


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_true_mean_is_calibrated_and_a_shifted_one_is_not(shift):
    class Signal:
        """x and z of x ~ N(z + shift, 0.5^2), of which the guide sees z."""

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1).to_event(1))
                mean = torch.cat([z, z], 1) + shift
                pyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Delta(x[:, 1:]).to_event(1))

    z, noise = matrix(20_000, 1, seed=1), matrix(20_000, 1, seed=2)
    x = torch.cat([z + 0.5 * noise, z], 1)
    found = prediction(ready(Signal(), x), batches(x))["mean_calibration_error"]["value"]
    assert found == pytest.approx(shift, abs=0.01)


def test_a_likelihood_without_a_mean_is_refused():
    class Heavy(PPCA):
        def model(self, x):
            with self.plate(x):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Cauchy(z @ self.W.T, 1.0).to_event(1), obs=x)

    source = Heavy()
    x = source.data(10)
    with pytest.raises(UsageError, match="prediction compares means.*a likelihood of Cauchy has n"):
        prediction(ready(source, x), batches(x))
    with pytest.raises(UsageError, match="num_draws"):
        prediction(ready(PPCA(), x), batches(x), num_draws=0)


def test_small_units_are_shown_to_four_places():
    metric = {"value": 0.23749, "standard_error": 0.00158, "unit": "units of x", "num_draws": 10}
    assert with_error(metric) == "0.2375 ± 0.0016" and counts(metric) == "draws = 10"
    assert with_error({**metric, "value": 23.749}) == "23.75 ± 0.00"
