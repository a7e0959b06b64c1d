"""Data that stay on the disk: the same numbers as in memory, in bounded memory."""

import os
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

import pyro_aevb
from pyro_aevb.data import Batches, disk, from_arrays, load
from pyro_aevb.data.disk import OnDisk
from pyro_aevb.errors import UsageError
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.order import Order

PEAK = """
import resource
import sys
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.trainer import Trainer
for path in sys.argv[1:]:
    made = prepare("VAE", path, {"hidden": [8], "likelihood": "gaussian"}, memory=8)
    objective = make_objective("elbo")
    Trainer(
        made.pair, made.train, made.valid, objective, epochs=1, batch_size=500, compile="off"
    ).run()
    assert Scorer(made.pair, 2, 1, memory=8 << 20, compile="off")(made.test).elbo.min() > -1e9
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def save(path, n, shape, dtype=np.uint8, seed=0):
    rng, rows = (
        np.random.default_rng(seed),
        np.lib.format.open_memmap(path, "w+", dtype, (n, *shape)),
    )
    for start in range(0, n, 1000):
        block = rows[start : start + 1000]
        block[:] = 255 * rng.random(block.shape)
    rows.flush()
    return str(path)


@pytest.mark.parametrize(
    "shape, dtype",
    [((6, 7), np.uint8), ((6, 7, 3), np.uint8), ((9,), np.float64), ((9,), np.int16)],
)
def test_a_set_on_the_disk_is_the_one_in_memory(shape, dtype, tmp_path):
    path = save(tmp_path / "data.npy", 200, shape, dtype)
    here, there = load(path), load(path, memory=100)
    assert (
        there.description
        == f"{here.description.rpartition('; ')[0]}; read from the disk; "
        + (here.description.rpartition("; ")[2])
    )
    torch.testing.assert_close(there.mean, here.mean, rtol=1e-6, atol=0)
    for name in ("train", "valid", "test"):
        one, other = getattr(here, name), getattr(there, name)
        assert isinstance(other.images, OnDisk) and other.images.shape == one.images.shape
        assert one.scale == other.scale and one.range() == other.range()
        index = torch.tensor([5, 0, 7, 5])
        rows = other.images.index_select(0, index)
        assert rows.dtype == one.images.dtype and torch.equal(rows, one.images[index])
        assert torch.equal(torch.cat([*other.images.split(7)]), one.images)


def test_a_run_from_the_disk_is_the_one_from_memory(tmp_path):
    path = save(tmp_path / "data.npy", 1500, (30, 40))
    parameters = {"hidden": [10], "likelihood": "gaussian", "latent_dim": 2}
    runs = [
        pyro_aevb.fit(
            "VAE",
            f"{path}",
            parameters,
            epochs=2,
            num_samples=20,
            num_data=70,
            compile="off",
            proposal="guide",
            memory=memory,
            out=str(tmp_path / str(memory)),
            show=False,
        )
        for memory in (None, 1)
    ]
    one, other = (run.results["metrics"] for run in runs)
    assert "read from the disk" in runs[1].results["data_description"]
    assert one.keys() == other.keys()
    for name, metric in one.items():
        if metric["value"] is not None:
            assert metric["value"] == pytest.approx(other[name]["value"], rel=1e-4, abs=1e-4), name
    again = pyro_aevb.evaluate(
        runs[1], num_samples=20, num_data=70, compile="off", proposal="guide", show=False
    )
    # Of another budget, so in chunks of other lengths.
    expected = pytest.approx(other["log_likelihood"]["value"], rel=1e-6)
    assert again["metrics"]["log_likelihood"]["value"] == expected


def test_a_file_larger_than_the_budget_takes_bounded_memory(tmp_path):
    paths = [save(tmp_path / f"{n}.npy", n, (64, 64)) for n in (1000, 10_000)]
    # A fixed threshold: glibc then gives large blocks back when they are freed.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "100000"}
    command = [sys.executable, "-c", PEAK, *paths]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    one, both = (int(peak) for peak in re.findall(r"PEAK (\d+)", done.stdout))
    # The files have 4 and 39 MiB; with the second in memory the difference is 96.
    assert both - one < 60


def test_bits_that_are_drawn_once_are_in_memory(tmp_path):
    path = save(tmp_path / "data.npy", 1500, (30, 40))
    made, whole = (prepare("VAE", path, {"hidden": [4]}, None, "dynamic", memory=m) for m in (1, 9))
    index = torch.arange(30)
    assert torch.equal(made.test.take(index), whole.test.take(index))
    with pytest.raises(UsageError, match="stay on the disk, and bits that are drawn once stay in"):
        Batches(load(path, memory=1000).test, "fixed")
    np.save(tmp_path / "objects.npy", np.array([{}] * 300), allow_pickle=True)
    with pytest.raises(UsageError, match="Python objects"):
        load(str(tmp_path / "objects.npy"), memory=10)


@pytest.fixture
def small_windows(monkeypatch):
    r"""Blocks of 50 rows of three float32, and windows of 400."""
    for name, rows in (("BLOCK", 50), ("WINDOW", 400), ("GAP", 2)):
        monkeypatch.setattr(disk, name, rows * 12)


@pytest.fixture(params=["mapped", "chunked"])
def numbered(request, small_windows, tmp_path):
    r"""4,000 rows that begin with three times their number, which is a column too."""
    arrays = {"x": np.arange(12_000, dtype=np.float32).reshape(-1, 3), "number": np.arange(4000)}
    if request.param == "chunked":
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("x", data=arrays["x"], chunks=(16, 2), compression="gzip")
            file["number"] = arrays["number"]
        return load(str(tmp_path / "a.h5"), memory=40_000)
    np.save(tmp_path / "a.npy", arrays["x"])
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    return from_arrays(**(arrays | {"x": mapped}), memory=40_000)


def test_splits_hold_what_they_do_in_memory_and_neighbours_lie_together(numbered):
    parts = np.split(np.random.RandomState(0).permutation(4000), [3200, 3600])
    for split, rows in zip((numbered.train, numbered.valid, numbered.test), parts, strict=True):
        number = split.columns["number"]
        assert sorted(number.tolist()) == sorted(rows)
        data = torch.cat([*split.images.split(37)])
        assert torch.equal(data, 3 * number[:, None] + torch.arange(3.0))
    # 100 data in their order are of 3 or 4 blocks of 64 or 50 rows, and those not the first
    blocks = numbered.train.columns["number"][:100] // 50
    assert len(blocks.unique()) < 7 and blocks.max() > 10


def test_an_epoch_shuffles_blocks_that_are_read_ahead(numbered):
    batches = Batches(numbered.train, "none", columns=["number"])
    order = Order(batches, 40, False, seed=3, processes=2)
    coming = order.batches(0, torch.device("cpu"))
    visited = torch.cat(coming)
    assert sorted(visited.tolist()) == list(range(3200))
    assert torch.equal(visited, torch.cat(order.batches(0, visited.device)))
    assert not torch.equal(visited, torch.cat(order.batches(1, visited.device)))
    with batches.ahead(coming):
        other = batches.take(torch.tensor([7, 3199]))  # that was not announced
        taken = [batches.take(index) for index in coming]
    for batch in (other, *taken):
        number = batch.columns["number"]
        assert torch.equal(batch.x, 3 * number[:, None] + torch.arange(3.0))
    numbers = torch.stack([batch.columns["number"] for batch in taken])  # 80 batches of 40
    assert torch.equal(numbers.flatten(), numbered.train.columns["number"][visited])
    blocks = numbers // numbered.train.images._block
    # A window, ten batches, is of a few blocks, of which each batch has many.
    assert max(len(some.unique()) for some in blocks.split(10)) <= 30
    assert min(len(batch.unique()) for batch in blocks) >= 8
    # Half of each batch, as one of two processes computes it, is of blocks of its own.
    first, second = (set(half.unique().tolist()) for half in blocks.split(20, 1))
    assert len(first & second) <= 1
    # And within a window the order is a random one: ranks of neighbours are not correlated.
    lane = numbers[:10, :5].flatten().double()
    assert abs(float(torch.corrcoef(torch.stack([lane[1:], lane[:-1]]))[0, 1])) < 0.5


def test_what_goes_wrong_ahead_is_raised_where_the_batch_is_asked_for(numbered, monkeypatch):
    batches = Batches(numbered.train, "none")

    def gone(self):
        raise OSError("the disk is gone")

    monkeypatch.setattr(type(numbered.train.images.stored), "opened", gone)
    coming = [torch.arange(10)]
    with batches.ahead(coming), pytest.raises(OSError, match="the disk is gone"):
        batches.take(coming[0])
