"""What draws of the weights do to a reconstruction, by the same draws and NumPy."""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.reports.uncertainty import over_weights
from pyro_aevb.runs.prepare import prepare

X = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
RATE = torch.tensor([0.5, -1.0, 2.0])


class Uncertain(nn.Module):
    """Codes of mean w a x, and data of mean w z: a reconstruction is w² a x."""

    def __init__(self, weights):
        super().__init__()
        self.weights, self.drawn = weights, []

    def model(self, x):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1).expand([len(x), 3]).to_event(1))
            pyro.sample("x", dist.Normal(w * z, 0.1).to_event(1), obs=x)

    def guide(self, x):
        w = pyro.sample("w", self.weights.to_event(1))
        self.drawn.append(w.detach().double().numpy())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(w * RATE * x, 0.3).to_event(1))


def pair_of(source):
    split = Split(X, None, 1)
    return prepare(source, DataSet("made", split, split, split, "", "none"), device="cpu").pair


def test_the_deviation_is_that_of_means_over_draws_of_the_weights():
    pair = pair_of(source := Uncertain(dist.Normal(torch.tensor([1.0, -2.0, 0.5]), 0.2)))
    source.drawn.clear()
    found = over_weights(pair, X, draws=5)
    weights = np.unique(source.drawn, axis=0)
    assert len(weights) == 5  # the codes are those of each draw
    means = weights[:, None] ** 2 * (RATE * X).double().numpy()
    np.testing.assert_allclose(found, means.std(0, ddof=1), rtol=1e-4)


def test_weights_that_are_points_have_none():
    assert over_weights(pair_of(Uncertain(dist.Delta(torch.ones(3)))), X) is None
