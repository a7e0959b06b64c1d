"""From Python: data that are in memory, runs that are used, what is refused in one line."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import pyro_aevb
from pyro_aevb.data.own import of_object
from pyro_aevb.errors import UsageError

GENES = ["Ada", "Bex", "Cux", "Dll", "Eya"]
KINDS = np.array(["B", "T", "NK"])
CELLS = [f"cell{n}" for n in range(60)]
KIND = KINDS[np.arange(60) % 3]
MEANS = np.exp(np.random.default_rng(1).normal(1, 0.7, (3, 5)))
COUNTS = np.random.default_rng(0).poisson(MEANS[np.arange(60) % 3])
TABLE = pd.DataFrame(COUNTS, CELLS, GENES)
BATCH = np.arange(60) % 2


class Counts(nn.Module):
    r"""Poisson counts of a two-dimensional code."""

    def __init__(self, event_shape: tuple[int, ...], latent_dim: int = 2):
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = nn.Linear(event_shape[0], 2 * latent_dim)
        self.decoder = nn.Linear(latent_dim, event_shape[0])

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1).to_event(1))
            pyro.sample("x", dist.Poisson(self.decoder(z).exp()).to_event(1), obs=x)

    def guide(self, x):
        loc, log_scale = self.encoder(torch.log1p(x)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


QUICK = {"epochs": 2, "num_samples": 5, "proposal": "guide", "show": False, "batch_size": 20}


# Data that are in memory


def anndata_of():
    anndata = pytest.importorskip("anndata")
    obs = pd.DataFrame({"label": KIND, "batch": pd.Categorical(BATCH)}, CELLS)
    return anndata.AnnData(COUNTS.astype(np.float32), obs, pd.DataFrame(index=GENES))


@pytest.mark.parametrize(
    "make, known",
    [
        (lambda: COUNTS, ""),
        (lambda: torch.tensor(COUNTS), ""),
        (lambda: (COUNTS, KIND), "label"),
        (lambda: {"x": COUNTS, "label": pd.Series(KIND), "batch": BATCH}, "label batch"),
        (lambda: TensorDataset(torch.tensor(COUNTS), torch.arange(60) % 3), "number"),
        (lambda: random_split(TensorDataset(torch.tensor(COUNTS)), [60, 0])[0], "moved"),
        (lambda: TABLE, "rows features"),
        (lambda: TABLE.assign(label=KIND), "rows features label"),
        (
            lambda: {"x": TABLE, "y": pd.Categorical(KIND), "batch": BATCH},
            "rows features label batch",
        ),
        (anndata_of, "rows features label batch"),
    ],
)
def test_data_in_memory_are_what_a_file_of_them_is(make, known):
    data, known = of_object(make()), known.split()
    assert [len(part) for part in (data.train, data.valid, data.test)] == [48, 6, 6]
    rows = data.test.rows
    if "moved" in known:
        assert set(map(tuple, data.test.images.tolist())) <= set(map(tuple, COUNTS.tolist()))
        return
    places = TABLE.index.get_indexer(rows) if "rows" in known else rows
    np.testing.assert_array_equal(data.test.images, COUNTS[places])
    assert list(data.features) == (GENES if "features" in known else [])
    if "label" in known:
        assert data.classes == ("B", "NK", "T")
        assert list(data.called(data.test.labels)) == list(KIND[places])
    if "number" in known:
        assert data.called(data.test.labels).tolist() == (places % 3).tolist()
    if "batch" in known:
        assert data.test.columns["batch"].tolist() == BATCH[places].tolist()


def test_splits_in_memory_stay_as_they_are_given():
    train, test = TABLE.assign(label=KIND)[:40], TABLE.assign(label=KIND)[40:]
    unlabelled = test.assign(label=[None, *test["label"][1:]])
    data = of_object({"train": train, "valid": test[:8], "test": unlabelled})
    assert list(data.test.rows) == CELLS[40:] and list(data.train.rows) == CELLS[:40]
    assert list(data.called(data.test.labels)) == ["", *KIND[41:]]
    data = of_object({"x_train": TABLE[:40], "y_train": train["label"], "test": TABLE[40:]})
    assert len(data.valid) == 4 and data.test.labels is None
    assert set(data.train.rows) | set(data.valid.rows) == set(CELLS[:40])


@pytest.mark.parametrize(
    "data, words",
    [
        (None, "data is a NoneType; give a data set's name or path, an array"),
        ([[1.0, 2.0]] * 60, "data is a list"),
        (DataLoader(TensorDataset(torch.tensor(COUNTS))), "DataLoader; give its .dataset"),
        (TABLE["Ada"], r"shape \(60,\); data are \(N, D\)"),
        ({"train": TABLE, "test": TABLE[GENES[:4]]}, "the columns of test are not .*: Eya"),
        ({"train": TABLE, "test": TABLE[GENES[::-1]]}, "columns of test .*: their order"),
        ({"train": COUNTS, "tset": COUNTS}, "'tset', which is not known"),
        ((COUNTS, KIND[:9]), r"60 data in images but labels of .* shape \(9,\)"),
        (TensorDataset(torch.tensor(COUNTS), *[torch.rand(60)] * 2), "have 3 parts"),
    ],
)
def test_data_that_are_none_end_in_one_line(data, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        pyro_aevb.fit(Counts, data, out=str(tmp_path / "run"), **QUICK)
    assert not (tmp_path / "run").exists()


# Keywords


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: pyro_aevb.fit(Counts, COUNTS, epoch=3), r"fit .*'epoch' \(did you mean 'epochs'"),
        (lambda: pyro_aevb.fit(Counts, COUNTS, latent_dim=3), r"give pair_parameters=.*: 3\}"),
        (lambda: pyro_aevb.check(latent_dims=3), r"check .* 'latent_dim' is a parameter of the"),
        (lambda: pyro_aevb.evaluate("run", num_sample=3), "did you mean 'num_samples'"),
        (lambda: pyro_aevb.compare(["run"], foo=3), "no argument 'foo'; it has runs, out, export"),
    ],
)
def test_unknown_keywords_name_the_nearest(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_what_on_epoch_raises_ends_a_run_that_goes_on_as_if_it_had_not(tmp_path):
    class Pruned(Exception):
        pass

    seen = []

    def look(history):
        seen.append(history)
        history[-1]["elbo"] = None  # its own
        if len(history) == 1:
            raise Pruned

    how = {**QUICK, "data": COUNTS, "pair": Counts}
    with pytest.raises(Pruned):
        pyro_aevb.fit(on_epoch=look, out=str(tmp_path / "a"), **how)
    run = pyro_aevb.fit(on_epoch=look, out=str(tmp_path / "a"), resume=True, **how)
    whole = pyro_aevb.fit(out=str(tmp_path / "b"), **how)
    assert [len(history) for history in seen] == [1, 2]
    assert "on_epoch" not in run.settings
    assert run.results["metrics"] == whole.results["metrics"]
    assert [row["elbo"] for row in run.history] == [row["elbo"] for row in whole.history]
