"""The snippets of pages that have no test of their own: each is run as it stands."""

import re
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import softplus

import pyro_aevb

ROOT = Path(__file__).parents[1]
OWN = {"arviz", "elsewhere", "python", "studies", "commands"}
"""Pages whose snippets other tests run."""
FEW = {"epochs": 1, "num_samples": 2, "proposal": "guide", "num_data": 20, "show": False}
X = np.random.default_rng(0).random((60, 64)).astype(np.float32)


def snippets(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def test_no_page_has_snippets_that_nothing_runs():
    pages = {path.stem for path in (ROOT / "docs").glob("*.md") if "```python" in path.read_text()}
    assert pages - OWN == {"api", "index", "data", "pairs"}


@pytest.mark.parametrize("page", ["index.md", "api.md"])
def test_the_sessions_run(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyro_aevb.reports.assess.draw_figures", lambda *_: [])
    whole, scored, against = pyro_aevb.fit, pyro_aevb.evaluate, []

    def small(pair, data, parameters, epochs):
        assert (pair, data, epochs) == ("VAE", "mnist5k", 20)
        return whole(pair, "digits:200", {**parameters, "hidden": [8]}, **FEW)

    def evaluate(run, *args, **options):
        if "against" in options:  # a set that has to be downloaded
            return against.append(options)
        of = {"num_samples": 2} if options.get("num_samples") else {}
        return scored(run, *args, num_data=20, show=False, **{**options, **of})

    monkeypatch.setattr(pyro_aevb, "fit", small)
    monkeypatch.setattr(pyro_aevb, "evaluate", evaluate)
    (source,) = snippets(page)
    exec(source.replace('max_samples": 50_000', 'max_samples": 20'), found := {})
    assert len(found["run"].codes("test")) == 250
    if page == "api.md":
        assert {"parzen", "log_likelihood"} <= set(found["run"].results["metrics"])
        assert len(found["run"].results["corrupted"]) == 1 and len(against) == 1


def test_a_heart_is_found_by_its_factors():
    (source,) = snippets("data.md")
    *lines, last = source.strip().splitlines()
    exec("\n".join(lines), found := {"pyro_aevb": pyro_aevb, "torch": torch})
    image = eval(last, found)
    data, index = found["data"], found["index"]
    assert image.shape == (1, 1, 64, 64) and image.dtype == torch.uint8
    assert data.factors == {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}
    assert [int(data.train.columns[name][index]) for name in data.factors] == [2, 5, 0, 15, 15]
    rows, columns = image[0, 0].nonzero(as_tuple=True)
    middle = (float(rows.double().mean()), float(columns.double().mean()))
    assert middle == pytest.approx((31.5, 31.5), abs=3)


class Nets(nn.Module):
    """What the fragments of pairs.md call, for data of 64 components and ten classes."""

    def __init__(self, num_data: int):
        super().__init__()
        self.num_data = num_data
        self.net, self.first, self.second = nn.Linear(64, 10), nn.Linear(8, 64), nn.Linear(8, 3)
        self.decoder = nn.Linear(self.of_decoder, 64)
        self.encoder = nn.Linear(self.of_encoder, 2 * self.codes)
        self.one_hot = nn.Parameter(torch.eye(10), requires_grad=False)

    codes, of_decoder, of_encoder = 8, 8, 64

    def guide(self, x, *_):
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, 1)
            pyro.sample("z", dist.Normal(loc, softplus(scale)).to_event(1))


class Labelled(Nets):
    of_decoder = 18

    def guide(self, x, label):
        super().guide(x)


class TwoViews(Nets):
    def guide(self, x, view):
        super().guide(x)


class Missing(Nets):
    of_encoder = 128


class Weights(Nets):
    codes = 2

    def __init__(self, num_data: int):
        super().__init__(num_data)
        self.weights = AutoNormal(pyro.poutine.block(self.model, hide=["x", "z"]))

    def guide(self, x):
        self.weights(x)
        with pyro.plate("data", size=self.num_data, subsample_size=len(x)):
            loc, scale = self.encoder(x).chunk(2, 1)
            pyro.sample("z", dist.Normal(loc, softplus(scale)).to_event(1))


class Rows(Nets):
    of_decoder = 2

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.1).to_event(1), obs=x)


NAMES = {"pyro": pyro, "dist": dist, "torch": torch, "softplus": softplus, "nn": nn}
NAMES |= {"constraints": constraints, "pyro_aevb": pyro_aevb}
SEEN = np.where(np.random.default_rng(1).random(X.shape) < 0.1, np.nan, X)
DATA = {
    Labelled: {"x": X.round(), "label": np.arange(60) % 10},
    Nets: {"x": X, "label": np.arange(60) % 10},
    TwoViews: {"x": X, "view": X[:, :3]},
    Missing: {"x": SEEN},
    Weights: {"x": X},
    Rows: {"x": X},
}
"""What the fragments need beside themselves, in the order of the page."""


def test_the_pairs_of_the_page_are_pairs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first, *fragments = snippets("pairs.md")
    exec(first, found := dict(NAMES))
    described = pyro_aevb.check(found["MyVAE"], X.round(), show=False)
    assert [site.name for site in described.local_sites] == ["z"]
    used = [f for f in fragments if f.startswith("def ")]
    assert len(used) == len(DATA)
    kinds = []
    for (base, columns), fragment in zip(DATA.items(), used, strict=True):
        exec(fragment, made := dict(NAMES))
        own = {name: made[name] for name in ("model", "guide") if name in made}
        pair = type(base.__name__, (base,), own)
        missing = {"missing": True} if base is Missing else {}
        data = pyro_aevb.data.from_arrays(**columns, **missing)
        described = pyro_aevb.check(pair, data, show=False)
        sites = [site.name for site in (*described.local_sites, *described.global_sites)]
        kinds.append((sites, *described.observed_sites))
        if base in (Nets, Missing):  # the use of it that stands below
            made["run"] = pyro_aevb.fit(pair, data, **{**FEW, "num_data": 5})
            made["x"] = torch.from_numpy(columns["x"][:6]).float()
            use = fragments[fragments.index(fragment) + 1]
            exec(use, made)
            if base is Nets:
                total = made["probabilities"].sum(1)
                torch.testing.assert_close(total, torch.ones(6))
            else:
                assert made["whole"].isfinite().all()
                assert torch.equal(made["error"] > 0, made["x"].isnan())
    expected = [["z"], [], ["z"], ["z"], ["z", "w"], ["z"]]
    assert [sites for sites, *_ in kinds] == expected
    assert [observed for _, *observed in kinds][1:3] == [["label"], ["x", "view"]]
