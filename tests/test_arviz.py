"""A run in ArviZ: draws and log-likelihoods against closed forms, and the snippets of the page."""

import re
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from linear_gaussian import GaussianMean, matrix
from scipy.stats import multivariate_normal

import pyro_aevb
from pyro_aevb.data import from_arrays
from pyro_aevb.errors import UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its next version
    import arviz as az

PAGE = Path(__file__).parents[1] / "docs" / "arviz.md"
NOISE, TRAIN, D = 0.7, 40, 3


class Shifted(GaussianMean):
    """x ~ N(w + W z, noise^2), with a guide of codes that is the posterior given w."""

    def __init__(self, x):
        super().__init__(x, noise=NOISE)
        self.loading = matrix(D, 2).float()
        within = self.loading.T @ self.loading / NOISE**2 + torch.eye(2)
        self.covariance = torch.linalg.inv(within)

    def model(self, x):
        w = pyro.sample("w", dist.Normal(torch.zeros(D), self.prior).to_event(1))
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1).to_event(1))
            mean = w + z @ self.loading.T
            pyro.sample("x", dist.Normal(mean, NOISE).to_event(1), obs=x)

    def guide(self, x):
        w = pyro.sample("w", dist.Normal(self.loc, self.scale).to_event(1))
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            gain = self.covariance @ self.loading.T / NOISE**2
            pyro.sample("z", dist.MultivariateNormal((x - w) @ gain.T, self.covariance))


@pytest.fixture(scope="module")
def data():
    x = matrix(TRAIN + 30, D, seed=5).float() + 1
    labels = torch.arange(len(x)) % 4
    cut = {"train": slice(TRAIN), "valid": slice(TRAIN, TRAIN + 10), "test": slice(TRAIN + 10, 99)}
    parts = {part: x[rows] for part, rows in cut.items()}
    return from_arrays("mine", **parts, **{f"{p}_labels": labels[rows] for p, rows in cut.items()})


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A run of weights and codes, and one of weights alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_aevb.reports.assess.draw_figures", lambda *_: [])
        how = dict(epochs=0, num_samples=20, weight_samples=4, show=False, device="cpu")
        return {
            kind: pyro_aevb.fit(
                kind(data.train.images), data, **how, out=tmp_path_factory.mktemp("runs") / "run"
            )
            for kind in (Shifted, GaussianMean)
        }


def test_draws_and_log_likelihoods_belong_together(runs, data):
    run = runs[Shifted]
    idata = run.inference_data(num_draws=60, num_data=12, data=data, device="cpu")
    w, z = (idata["posterior"][name].to_numpy()[0] for name in ("w", "z"))
    assert idata["posterior"]["z"].dims == ("chain", "draw", "datum", "z_dim")
    assert idata["observed_data"]["x"].dims == ("datum", "feature")
    x = data.test.images[:12].numpy()
    np.testing.assert_array_equal(idata["observed_data"]["x"], x)
    np.testing.assert_array_equal(idata["observed_data"]["label"], data.test.labels[:12])

    loading = runs[Shifted].pair.attribute("loading").numpy()
    covariance = loading @ loading.T + NOISE**2 * np.eye(D)
    found = idata["heldout_log_likelihood"]["x"].to_numpy()[0]
    expected = [multivariate_normal(mean, covariance).logpdf(x) for mean in w[:4]]
    np.testing.assert_allclose(found, expected, atol=0.15)
    assert abs((found - expected).mean()) < 0.03

    drawn = idata["posterior_predictive"]["x"].to_numpy()[0]
    assert idata["posterior_predictive"]["x"].dims == ("chain", "draw", "datum", "feature")
    noise = (drawn - w[:, None] - z @ loading.T) / NOISE  # standard normal
    count = noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(count) and abs(noise.var() - 1) < 6 / np.sqrt(count)
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3


def test_loo_is_of_training_data_and_is_the_closed_form(runs, data):
    run = runs[GaussianMean]
    idata = run.inference_data(split="train", num_draws=300, num_data=6, data=data, device="cpu")
    x = data.train.images.double()
    expected = [GaussianMean(torch.cat([x[:n], x[n + 1 :]])).log_predictive(x[n]) for n in range(6)]
    found = az.loo(idata, pointwise=True)
    values = found.loo_i if "loo_i" in dir(found) else found.elpd_i
    np.testing.assert_allclose(values, expected, atol=0.07)


def test_what_has_no_leave_one_out_says_why(runs, data):
    held = runs[GaussianMean].inference_data(num_draws=3, data=data, device="cpu")
    assert "run.elpd()" in held["observed_data"].attrs["loo"]
    with pytest.raises((TypeError, AttributeError), match="log.likelihood"):
        az.loo(held)
    attributes = held["observed_data"].attrs
    assert (attributes["pair"], attributes["split"]) == ("GaussianMean", "test")


def test_elpd_is_the_sum_over_held_out_data(runs, data):
    elpds = {kind.__name__: run.elpd() for kind, run in runs.items()}
    unrounded = {} if hasattr(az, "psislw") else {"round_to": "none"}  # ArviZ 1.x rounds
    table = az.compare(elpds, **unrounded)
    best, worse = table.index
    values = {
        kind.__name__: run.per_datum("predictive", "log_likelihood") for kind, run in runs.items()
    }
    gap = values[best] - values[worse]
    assert abs(float(table.elpd_diff[worse])) == pytest.approx(gap.sum(), rel=0.02)
    assert float(table.dse[worse]) == pytest.approx(np.sqrt(len(gap)) * gap.std(), rel=0.02)
    assert f"{values[best].sum():.2f}" in str(elpds[best])


def test_mistakes_are_refused_in_a_line(runs, data):
    run = pyro_aevb.Run.open(runs[Shifted].path)
    for options, said in (
        ({"split": "valid"}, "choose one of test, train"),
        ({"num_draws": 0}, "num_draws is 0; it must be at least 1"),
        ({}, r"the Python object <Shifted>; .*run.restore\(pair=...\) with it"),
        ({"pair": Shifted}, r"the Python object <mine>; .*run.restore\(data=...\)"),
        (
            {"pair": Shifted(data.train.images), "data": data, "num_data": 99},
            "num_data is 99; it must lie between 2 and 20",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            run.inference_data(**options)


def test_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    monkeypatch.setattr("pyro_aevb.reports.assess.draw_figures", lambda *_: [])
    names = {}
    little = (
        (r"epochs=20\)", "epochs=0, num_data=20, num_samples=30, weight_samples=3, show=False)"),
        (r'{"latent_dim": 2}', '{"latent_dim": 2, "hidden": [10]}'),
        # ArviZ 1.x fits no tail to fewer than 25 draws.
        (r"num_draws=50, num_data=100", "num_draws=30, num_data=5"),
    )
    if not hasattr(az, "plot_ppc"):
        little += ((r"plot_ppc\(idata.*?\)", "plot_ppc_dist(idata)"),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of untrained weights, and few draws
        for source in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            for old, new in little:
                source = re.sub(old, new, source)
            exec(source, names)
    stored = az.from_netcdf("digits.nc")
    assert stored["posterior_predictive"]["x"].shape == (1, 30, 5, 1, 8, 8)
    assert stored["posterior"]["z"].shape == (1, 30, 5, 2)
    assert names["loo"]["n_samples"] == 30
    run = names["run"]
    tails = run.per_datum("sample_stats", "pareto_k")[0].max(0)
    np.testing.assert_array_equal(run.elpd()["pareto_k"], tails)
