"""The explorer: the space of codes against closed forms, all families, and a page in a browser."""

import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import refusal
from linear_gaussian import posterior
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from torch import nn

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.errors import UsageError
from pyro_aevb.explorer.page import page
from pyro_aevb.explorer.server import serve
from pyro_aevb.explorer.space import DRAWS, Space
from pyro_aevb.runs.prepare import prepare

LOC, SCALE, NOISE = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 0.5, 2.0]), 0.4


class Linear(nn.Module):
    """Two local sites, of two components and of one, and a mean that is linear in them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(np.random.default_rng(1).normal(size=(5, 3))))

    def model(self, x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(LOC[:2], SCALE[:2]).to_event(1))
            v = pyro.sample("v", dist.Normal(LOC[2], SCALE[2]))
            z = torch.cat([u, v[:, None]], 1).double()
            pyro.sample("x", dist.Normal((z @ self.weight.T).float(), NOISE).to_event(1), obs=x)

    def guide(self, x):
        gain, covariance = posterior(self.weight, NOISE)
        loc, scale = (x @ gain.T.float()), covariance.diagonal().sqrt().float()
        with pyro.plate("data", len(x)):
            pyro.sample("u", dist.Normal(loc[:, :2], scale[:2]).to_event(1))
            pyro.sample("v", dist.Normal(loc[:, 2], scale[2]))


@pytest.fixture(scope="module")
def linear():
    """The pair on data, its space, and the data."""
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    held = prepare(Linear, {"train": x, "test": x})
    return held, Space(held), x


def test_directions_are_the_principal_components_of_the_codes(linear):
    held, space, x = linear
    gain, covariance = (t.detach().numpy() for t in posterior(held.pair.origin.weight, NOISE))
    expected = PCA().fit(x @ gain.T)
    np.testing.assert_allclose(space.mean, expected.mean_, atol=1e-5)
    np.testing.assert_allclose(
        abs(space.directions.T @ expected.components_.T), np.eye(3), atol=1e-3
    )
    np.testing.assert_allclose(space.scales**2, expected.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(space.shares, expected.explained_variance_ratio_, rtol=1e-4)
    np.testing.assert_allclose(space.coordinates.std(0, ddof=1), 1, rtol=1e-5)
    # Mahalanobis' distance
    inverse = np.linalg.inv(np.cov(space.codes.T))
    centred = space.codes - space.mean
    squares = np.einsum("ni,ij,nj->n", centred, inverse, centred)
    np.testing.assert_allclose(space.distances**2, squares, rtol=1e-4)
    # Two of three coordinates are set, and the third stays that of the datum
    code = space.moved(space.codes[7], np.array([1.5, -0.5]))
    at = space.along(code[None])[0]
    np.testing.assert_allclose(at, [1.5, -0.5, space.coordinates[7, 2]], atol=1e-5)
    walk = space.between(3, 9, np.array([0, 0.25, 1]))
    np.testing.assert_allclose(walk[[0, 2]], space.codes[[3, 9]])
    np.testing.assert_allclose(walk[1], 0.75 * space.codes[3] + 0.25 * space.codes[9])
    decoded = space.decoded(walk)
    np.testing.assert_allclose(
        decoded, walk @ held.pair.origin.weight.detach().numpy().T, rtol=1e-4, atol=1e-5
    )
    prior = multivariate_normal(LOC.numpy(), np.diag(SCALE.numpy() ** 2))
    np.testing.assert_allclose(space.log_prior(walk), prior.logpdf(walk), rtol=1e-5)
    np.testing.assert_allclose(space.log_prior(walk[:1]), prior.logpdf(walk[:1]), rtol=1e-5)


def test_a_posterior_is_that_of_the_guide(linear):
    held, space, x = linear
    weight = held.pair.origin.weight
    _, covariance = (t.detach().numpy() for t in posterior(weight, NOISE))
    found = space.posterior(4)
    error = 4 / np.sqrt(DRAWS)
    exact = np.diag(np.diag(covariance))  # the guide's components are independent
    along = space.directions.T / space.scales[:, None]
    deviation = np.sqrt(np.diag(along @ exact @ along.T))
    np.testing.assert_allclose(found.draws.std(0, ddof=1), deviation, rtol=error / np.sqrt(2))
    assert (abs(found.draws.mean(0) - space.coordinates[4]) < error * deviation).all()
    w = weight.detach().numpy()
    np.testing.assert_allclose(
        found.deviation, np.sqrt(np.diag(w @ exact @ w.T)), rtol=error / np.sqrt(2)
    )
    np.testing.assert_array_equal(found.datum, x[4])
    np.testing.assert_allclose(found.decoded, w @ space.codes[4], rtol=1e-4, atol=1e-5)
    assert found.over_weights is None


SMALL = {"hidden": [8], "latent_dim": 4}
FAMILIES = {
    **dict.fromkeys(("VAE", "BetaVAE", "FactorVAE", "Autoencoder"), SMALL),
    **dict.fromkeys(("DenoisingAutoencoder", "AdversarialAutoencoder"), SMALL),
    **dict.fromkeys(("BayesianAutoencoder", "BayesianVAE"), SMALL),
    **dict.fromkeys(("DCIGN", "InfoGAN"), {}),
    "ConditionalVAE": SMALL,
    "RBM": {"hidden": 6, "sample_steps": 2},
    "StackedDenoisingAutoencoder": {"hidden": [8, 6]},
    "DeepBeliefNet": {"hidden": [8, 6]},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_of_every_family_is_drawn_anew_when_something_is_moved(family):
    panel = pytest.importorskip("panel")
    data = "mnist5k" if family in ("DCIGN", "InfoGAN") else "digits"
    held = prepare(family, data, FAMILIES[family])
    view = page(held)
    widgets = [w for w in view.select(panel.widgets.base.Widget) if not hasattr(w, "clicks")]
    # One slider of the first sheet, whose number alone moves nothing, and all of the others
    for widget in widgets if held.description.classifies() else [widgets[1], *widgets[-4:]]:
        panes = view.select(panel.pane.Matplotlib)
        before = [pane.object for pane in panes]
        widget.value = min(widget.end, widget.value + 1)
        assert any(pane.object is not b for pane, b in zip(panes, before, strict=True)), widget
    said = " ".join(pane.object for pane in view.select(panel.pane.HTML))
    expected = {
        "Autoencoder": "log p(z) is not defined: latent site 'z' has no prior",
        "DenoisingAutoencoder": "the guide gives a point, and no deviation",
        "RBM": "log p(h) is not defined: latent site 'h' is of bits",
        "BayesianVAE": "bars: mean ± 2 s.d. of 100 draws of q(z|x)",
        "InfoGAN": "log p(c, noise) = -",
    }
    assert expected.get(family, f"{family} on {data}").replace("'", "&#x27;") in said
    shown = titles(view, panel)
    assert ("over the weights" in shown) == family.startswith("Bayesian")
    # Rounding errors of codes that are points are no deviation.
    points = held.description.kind_of_codes() != "draws"
    assert ("over the code" in shown) == (not points)


def titles(view, panel):
    """The titles above all pictures."""
    figures = [pane.object for pane in view.select(panel.pane.Matplotlib)]
    return " ".join(axes.get_title() for figure in figures for axes in figure.axes)


def test_what_is_shown_is_what_lies_there(linear):
    panel = pytest.importorskip("panel")
    held, space, x = linear
    view = page(held)
    (number, *_), buttons = view.select(panel.widgets.IntInput), view.select(panel.widgets.Button)
    number.value = 7
    view.select(panel.widgets.IntInput)[-1].value = 10**6  # typed, and the last is meant
    assert "datum 199" in titles(view, panel)
    there = next(button for button in buttons if button.label == "to the datum")
    there.clicks += 1
    picture = view.select(panel.pane.Matplotlib)[0].object
    (line,) = picture.axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), space.decoded(space.codes[[7]])[0], atol=1e-4)
    sliders = view.select(panel.widgets.FloatSlider)
    np.testing.assert_allclose([s.value for s in sliders[:3]], space.coordinates[7], atol=1e-6)
    text = view.select(panel.pane.HTML)[1].object
    value = float(re.search(r"log p\(u, v\) = (\S+) nats", text).group(1))
    assert value == pytest.approx(space.log_prior(space.codes[[7]])[0], abs=0.006)
    distance = float(re.search(r"([\d.]+) standard deviations", text).group(1))
    assert distance == pytest.approx(space.distances[7], abs=0.006)
    farther = int(re.search(r"(\d+) % of them are farther", text).group(1))
    assert farther == round(100 * sum(space.distances > space.distances[7]) / 200)
    # Between 0 and the last datum a quarter of the way, and the posterior of the last
    share = sliders[-1]
    share.value = 0.25
    last = 0.75 * space.codes[0] + 0.25 * space.codes[199]
    view.select(panel.widgets.IntInput)[2].value = 199
    pictures = [pane.object for pane in view.select(panel.pane.Matplotlib)]
    np.testing.assert_allclose(
        pictures[3].axes[0].lines[0].get_ydata(), space.decoded(last[None])[0], atol=1e-4
    )
    found = space.posterior(199)
    (bars,) = (p for p in pictures if p.axes[0].get_ylabel() == "s.d. of the test codes")
    ends = np.array([line.get_segments() for line in bars.axes[0].collections])[0, :, :, 1]
    mean, deviation = found.draws.mean(0), found.draws.std(0, ddof=1)
    np.testing.assert_allclose(ends, np.stack([mean - 2 * deviation, mean + 2 * deviation], 1))


class Same(Linear):
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("u", dist.Normal(x.new_zeros(len(x), 2), 1).to_event(1))
            pyro.sample("v", dist.Normal(x.new_zeros(len(x)), 1))


def test_what_cannot_be_explored_is_said_in_one_line(linear, capsys, monkeypatch, tmp_path):
    held, _, x = linear
    with pytest.raises(UsageError, match="all codes of the test data of Same are the same"):
        Space(prepare(Same, {"train": x, "test": x}))
    said = refusal(lambda: run_command(pyro_aevb.explore, ["nowhere"], positional="run"), capsys)
    assert "nowhere is not a run" in said
    for port, words in (
        (-1, "--port is -1; it must lie between"),
        (1, "--address nowhere.invalid"),
    ):
        with pytest.raises(UsageError, match=words):
            serve(lambda: None, "", "nowhere.invalid", port, True, print)
    monkeypatch.setitem(sys.modules, "panel", None)
    with pytest.raises(UsageError, match="pip install panel"):
        page(held)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def address(tmp_path):
    """Where the explorer of a run is served."""
    options = {"pair_parameters": SMALL, "epochs": 1, "out": str(tmp_path / "run")}
    pyro_aevb.fit("VAE", "digits", **options, no_score=True, show=False)
    command = [sys.executable, "-m", "pyro_aevb.explore", str(tmp_path / "run"), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as served:
        yield re.match(r"http://\S+", served.stdout.readline()).group()
        served.send_signal(signal.SIGINT)
        assert served.wait(20) == 0
        assert served.stdout.read() == ""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_slider_moves_the_picture_in_a_browser(address):
    pytest.importorskip("panel")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        sheet, hosts, errors = browser.new_page(), set(), []
        sheet.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        sheet.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        sheet.goto(address)
        sheet.wait_for_selector("text=0.00 standard deviations")
        picture = sheet.locator("img").first
        before = picture.get_attribute("src")
        sheet.locator(".noUi-handle").first.press("End")
        # At its end of some standard deviations, and the picture with it.
        sheet.wait_for_selector("text=/^[3-9].00 standard deviations/")
        assert picture.get_attribute("src") != before
        sheet.click("text=posterior")
        sheet.wait_for_selector("text=draws of q(z|x)")
        browser.close()
    assert hosts == {address.removeprefix("http://")} and errors == []
