"""Codes in a plane: principal components by scikit-learn, and where the prior's circle belongs."""

import sys
from types import ModuleType

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.errors import UsageError
from pyro_aevb.reports.planes import plane_of, standard_normal
from pyro_aevb.runs.prepare import prepare

CODES = np.random.default_rng(0).normal(size=(60, 5)) @ np.diag([0.1, 3, 1, 2, 0.5]) + 4


def test_the_plane_is_that_of_the_principal_components():
    plane, pca = plane_of(CODES, "u"), PCA(2, svd_solver="full").fit(CODES)
    found, expected = plane.points - CODES.mean(0) @ plane.axes, pca.transform(CODES)
    # scikit-learn's versions differ in the signs
    np.testing.assert_allclose(found * np.sign(found[0] * expected[0]), expected, rtol=1e-9)
    assert plane.axes[1, 0] == abs(plane.axes[:, 0]).max()
    np.testing.assert_allclose(plane.axes.T @ plane.axes, np.eye(2), atol=1e-12)
    shares = 100 * pca.explained_variance_ratio_
    assert plane.names == tuple(f"PC {i + 1} of u, {shares[i]:.0f} % of variance" for i in (0, 1))


def test_codes_of_two_dimensions_are_drawn_as_they_are_and_constant_ones_are_drawn():
    plane = plane_of(CODES[:, :2], "z")
    assert plane.points is not CODES and plane.names == ("z[0]", "z[1]")
    np.testing.assert_array_equal(plane.points, CODES[:, :2])
    flat = plane_of(np.ones((2, 3)), "z")
    assert np.isfinite(flat.points).all() and flat.names[0] == "PC 1 of z, 0 % of variance"


def test_umap_is_asked_for_where_it_is_and_has_no_axes(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UsageError, match="by='umap' needs umap-learn: pip install umap-learn"):
        plane_of(CODES, "z", "umap")

    class Stand:
        def __init__(self, **options):
            assert options == {"random_state": 0, "n_jobs": 1}

        def fit_transform(self, codes):
            return codes[:, 3:] ** 2

    module = ModuleType("umap")
    module.UMAP = Stand
    monkeypatch.setitem(sys.modules, "umap", module)
    plane = plane_of(CODES, "z", "umap")
    np.testing.assert_array_equal(plane.points, CODES[:, 3:] ** 2)
    assert plane.axes is None and plane.names == ("UMAP 1 of z", "UMAP 2 of z")
    with pytest.raises(UsageError, match="by='tsne' is unknown; choose one of pca, umap"):
        plane_of(CODES, "z", "tsne")
    with pytest.raises(UsageError, match="from two data on"):
        plane_of(CODES[:1], "z")


class Prior(nn.Module):
    def __init__(self, prior):
        super().__init__()
        self.prior, self.net = prior, nn.Linear(3, 4)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior.expand([len(x), 4]).to_event(1))
            pyro.sample("x", dist.Normal(z[:, :3], 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("prior", "standard"),
    [
        (dist.Normal(0.0, 1.0), True),
        (dist.Normal(0.1, 1.0), False),
        (dist.Normal(0.0, 2.0), False),
        (dist.Laplace(0.0, 1.0), False),
    ],
)
def test_the_circle_is_that_of_a_standard_normal_alone(prior, standard):
    x = Split(torch.randn(6, 3), None, 1)
    prepared = prepare(Prior(prior), DataSet("made", x, x, x, "", "none"), device="cpu")
    assert standard_normal(prepared.pair, x.images, "z") is standard
