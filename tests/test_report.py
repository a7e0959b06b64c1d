"""The page of a run says what its files say, in a browser too, whatever things are called."""

import os
import shlex
import shutil
import subprocess
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
from harness import rendering
from matplotlib.image import imread

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.errors import UsageError
from pyro_aevb.reports import page as pages

PAIR = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale, self.A, self.B = scale, nn.Linear(3, 2), nn.Linear(2, 3)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1).to_event(1))
            pyro.sample("x", dist.Normal(self.B(z), self.scale).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.A(x), 0.5).to_event(1))
"""
EVIL = "<style>body{background:red}</style>&'"


@pytest.fixture(scope="module", autouse=True)
def _rendered():
    with rendering():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    name = EVIL.replace("/", "")  # of a file
    (folder / f"{name}.py").write_text(PAIR)
    data = folder / "da<b>ta.csv"
    values = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(data, values, delimiter=",", header="a,b,c", comments="")
    run = pyro_aevb.fit(
        *(f"{folder / name}.py:Tiny", str(data), {"scale": 0.5}),
        **{
            "epochs": 2,
            "num_samples": 20,
            "proposal": "guide",
            "out": str(folder / "my run"),
            "show": False,
        },
    )
    pyro_aevb.evaluate(run, "parzen", {"num_kernels": 50}, show=False)
    results = run.results
    results["pair"] = EVIL  # a class made in Python can be called anything
    results["notes"] = ["warning: <b>é", *results["notes"]]
    run.write_results(results)
    return run


class Page(HTMLParser):
    """The tags, the pictures, the cells of the tables and the texts by tag."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.pictures, self.rows, self.texts, self.open = [], {}, [], {}, []
        text = path.read_bytes().decode("ascii")
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        if tag == "img":
            known = dict(attrs)
            head, _, data = known["src"].partition(",")
            assert head == "data:image/png;base64" and len(known) == 2
            self.pictures[known["alt"]] = b64decode(data)
        self.rows += [[]] if tag == "tr" else []

    def handle_data(self, data):
        tag = self.open[-1] if self.open else ""
        self.texts.setdefault(tag, []).append(data)
        if tag in ("td", "th"):
            self.rows[-1].append(data)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass


@pytest.fixture(scope="module")
def page(run):
    path = run.report()
    assert path == run.path / "report.html"
    return Page(path)


def test_names_are_text_and_never_markup(run, page):
    title = f"{EVIL} on {run.results['data']}"
    assert page.texts["h1"] == page.texts["title"] == [title]
    assert page.tags.count("style") == 1 and not {"b", "script", "i"} & {*page.tags}
    assert "warning: <b>é" in page.texts["li"]
    assert ["pair_parameters", "{scale: 0.5}"] in page.rows
    assert ["pair", run.settings["pair"]] in page.rows and EVIL[:7] in run.settings["pair"]


def test_the_numbers_are_those_of_the_results(run, page):
    metrics = run.results["metrics"]
    rows = {row[0]: row for row in page.rows}
    for name in ("elbo", "log_likelihood", "reconstruction_mean", "parzen"):
        value, error = metrics[name]["value"], metrics[name]["standard_error"]
        assert rows[name][1:3] == [f"{value:.2f}", f"{error:.2f}"], name
    (headline,) = (p for p in page.texts["p"] if p.startswith("log p(x) = "))
    assert f"{metrics['log_likelihood']['value']:.2f} ± " in headline
    assert any(p.startswith("not defined: weight_kl") for p in page.texts["p"])
    assert rows["version"][1] == pyro_aevb.__version__


def test_every_figure_is_in_the_page(run, page):
    files = {path.stem: path.read_bytes() for path in run.figures.glob("*.png")}
    assert page.pictures == files and list(files)
    assert list(page.pictures)[:2] == ["history", "elbo_log_likelihood"]


def test_a_run_of_python_objects_says_what_is_to_be_given_again(run):
    class Named(type(run)):
        @property
        def settings(self):
            return {**super().settings, "pair": f"<{EVIL}>", "objective": "<f>"}

    text = pages.page_of(Named(run.path))
    assert "with pair=&lt;&lt;style&gt;" in text and "pyro_aevb.fit --config" not in text
    assert "pyro_aevb.evaluate with pair and objective" in text


def test_a_page_is_written_whole_or_not_at_all(run, page, tmp_path, monkeypatch):
    path = run.path / "report.html"
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(UsageError, match="cannot write .*report.html: No space left on device"):
            pyro_aevb.report(run)
    assert path.read_bytes() == before
    assert pyro_aevb.report(run.path, str(tmp_path / "a.html"), show=False).read_bytes() == before
    with pytest.raises(UsageError, match="is a directory; name a file"):
        pyro_aevb.report(run, str(tmp_path))
    with pytest.raises(UsageError, match="is not a run"):
        pyro_aevb.report(tmp_path)


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here to open the page in")
def test_a_browser_shows_the_page(run, page, tmp_path):
    picture = tmp_path / "page.png"
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'p'}"]
    words += ["--hide-scrollbars", "--window-size=900,1600", f"--screenshot={picture}"]
    url = (run.path / "report.html").as_uri()
    subprocess.run([BROWSER, *words, url], check=True, capture_output=True, timeout=100)
    pixels = imread(picture)[..., :3]
    assert pixels.shape[:2] == (1600, 900)
    np.testing.assert_array_equal(pixels[:, 0], 1.0)  # the page is white, not red
    # The history's curves, in Matplotlib's blue and orange, and the warning's red.
    for colour in ((31, 119, 180), (255, 127, 14), (164, 0, 0)):
        assert (abs(pixels - np.array(colour) / 255).max(-1) < 0.01).sum() > 20, colour


def test_the_commands_make_it_again(run, page):
    fit, *evaluate = "".join(page.texts["pre"]).splitlines()
    again = f"{run.path}-again"
    settings = str(run.path / "settings.yaml")
    start = ["python", "-m", "pyro_aevb.fit"]
    assert shlex.split(fit) == [*start, "--config", settings, "--out", again]
    before = run.results["metrics"]
    results = run.results
    results["metrics"]["elbo"]["value"] = results["metrics"]["parzen"]["value"] = 0.0
    run.write_results(results)
    for line in evaluate:
        assert shlex.split(line)[:3] == ["python", "-m", "pyro_aevb.evaluate"]
        words = [*shlex.split(line)[3:], "--show=false"]
        run_command(pyro_aevb.evaluate, words, positional="run", hidden=("data",))
    assert len(evaluate) == 2 and run.results["metrics"] == before
