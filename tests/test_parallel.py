"""Several processes against one: the same training, to rounding, random numbers included."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import rows
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.nn import functional

import pyro_aevb
from pyro_aevb.cli import run_command
from pyro_aevb.data import batches, from_arrays, load
from pyro_aevb.data.ahead import Ahead
from pyro_aevb.data.corruption import SaltAndPepper
from pyro_aevb.engine.processes import Alone, Processes, processes
from pyro_aevb.engine.shared_draws import Draws
from pyro_aevb.engine.streams import DATA_BLOCK
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import Scores
from pyro_aevb.estimators.work import score_together
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.algorithm import Stage, make_algorithm
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.svi import SVI
from pyro_aevb.training.trainer import Trainer, seed_everything

BAYESIAN = f"{Path(__file__).parent.parent}/examples/bayesian_decoder.py:BayesianDecoder"
CONDITIONAL = f"{Path(__file__).parent.parent}/examples/conditional_vae.py:ConditionalVAE"
CHAIN = f"{Path(__file__).parent.parent}/examples/hierarchical.py:TwoLayers"
SMALL = {"latent_dim": 3, "hidden": 20}


class Noisy(nn.Module):
    r"""Dropout and batch normalization, whose running averages the processes share."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Dropout(0.3), nn.ReLU())
        self.heads = nn.Linear(20, 6)
        self.decoder = nn.Sequential(nn.Linear(3, 64), nn.Unflatten(-1, (1, 8, 8)))
        self.seen = nn.BatchNorm1d(3, affine=False, momentum=0.2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Laplace(x.new_zeros(len(x), 3), 1).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(3), obs=x)

    def guide(self, x):
        loc, scale = self.heads(self.encoder(x)).chunk(2, -1)
        self.seen(loc.detach())  # normalizes nothing that is used
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Laplace(loc, scale.exp()).to_event(1))


class Unamortized(nn.Module):
    r"""A guide with parameters of each datum."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(3, 64), nn.Unflatten(-1, (1, 8, 8)))
        self.guide = AutoNormal(self.model)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3), 1).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(3), obs=x)


VAE = ("VAE", {"latent_dim": 4, "hidden": [30]})


class DecoderFirst(SVI):
    r"""An epoch of the decoder alone, then of both nets."""

    def __init__(self, *given):
        super().__init__(*given)
        (both,) = self.phases
        decoder = {name: value for name, value in both.parameters.items() if "decoder" in name}
        self.stages = [Stage([replace(both, parameters=decoder)], 1), Stage([both])]


# 1,297 training data: batches of 101 leave 85, in shares of 42 and 43; batches of 108 leave 1,
# none for the first process.
CASES = {
    "weights": (
        *(BAYESIAN, SMALL),
        {"optimizer": "sgd", "lr": 0.01, "batch_size": 108, "particles": 2, "clip_norm": 9.0},
    ),
    "corrupted": (
        *(CHAIN, {"dims": (4, 2), "hidden": 20}),
        {"objective": "dreg", "particles": 3, "corruption": SaltAndPepper(0.3, True), "beta": 2.0},
    ),
    "graph": (Noisy, {}, {"objective": "pyro.infer.TraceGraph_ELBO"}),
    "compiled": (BAYESIAN, SMALL, {"weight_noise": "local", "patience": 1, "compile": "on"}),
    "adversarial": ("AdversarialAutoencoder", {"latent_dim": 4, "hidden": [30]}, {}),
    # Counts that are equal cancel, to rounding, which Adam would make whole steps of.
    "contrast": ("RBM", {"hidden": 30}, {"optimizer": "sgd", "lr": 0.1}),
    "greedy": (
        *("StackedDenoisingAutoencoder", {"hidden": [20, 15]}),
        {"binarize": "none", "learning": {"pretraining_epochs": 1}, "epochs": 3},
    ),
    "tables": (Unamortized, {}, {"optimizer": "sgd", "lr": 0.05}),
    "stages": (*VAE, {"algorithm": DecoderFirst, "patience": 1}),
    "columns": (
        CONDITIONAL,
        {"latent_dim": 3, "hidden": 20},
        {"objective": "iwae", "particles": 3, "corruption": SaltAndPepper(0.3)},
    ),
    "streamed": (
        *("VAE", {"latent_dim": 4, "hidden": [30], "likelihood": "gaussian"}),
        {"binarize": "none"},
    ),
    "interrupted": (*VAE, {"schedule": "cosine", "kl_warm_up": 2}),
}


class Counted(Ahead):
    r"""Counts the data that are read ahead."""

    rows = 0

    def __init__(self, images, coming):
        Counted.rows += sum(map(len, coming))
        super().__init__(images, coming)


def on_disk():
    r"""The digits, in a file that stays on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", load("digits").train.images)
        mapped = np.load(f"{folder}/x.npy", mmap_mode="r")
        return from_arrays(train=mapped, memory=1000)  # which is there while it is mapped


def trainer(case, group, path=None):
    pair, parameters, settings = CASES[case]
    seed_everything(3)
    way = settings.get("binarize", "dynamic")
    data = on_disk() if case == "streamed" else "digits"
    prepared = prepare(pair, data, parameters, None, way, group.device)
    objective = settings.get("objective", "elbo")
    objective = make_objective(objective, settings.get("particles", 1))
    noise, corruption = settings.get("weight_noise", "shared"), settings.get("corruption")
    if prepared.pair.algorithm is None:
        algorithm = settings.get("algorithm", SVI)(prepared.pair, objective, noise, corruption)
    else:
        algorithm = make_algorithm(None, prepared.pair, prepared.train, settings.get("learning"))
    of_algorithm = ("algorithm", "objective", "particles", "weight_noise", "corruption", "learning")
    options = {k: v for k, v in settings.items() if k not in (*of_algorithm, "binarize")}
    options = {"compile": "off", "batch_size": 101, "epochs": 2, "seed": 3, **options}
    return Trainer(
        prepared.pair, prepared.train, prepared.valid, algorithm, path, group=group, **options
    )


def outcome(t):
    # An autoencoder has no ELBO.
    history = [{k: v for k, v in row.items() if v is not None} for row in rows(t.history)]
    tensors = {name: value.detach().clone() for name, value in t.pair.tensors().items()}
    return {"history": history, "tensors": tensors, "draw": torch.rand(3)}


def train(case, group):
    t = trainer(case, group)
    t.try_objective()
    Counted.rows = 0
    t.run()
    return {**outcome(t), "read": Counted.rows}


batches.Ahead = Counted


def interrupt(group, path):
    r"""Ctrl-C reaches the second process alone, within the second step of the second epoch."""

    class Interrupting(TraceELBO):
        def differentiable_loss(self, *args):
            if (t.progress.epoch, t.progress.step, group.rank) == (1, 1, 1):
                os.kill(os.getpid(), signal.SIGINT)
            return super().differentiable_loss(*args)

    t = trainer("interrupted", group, path)
    t._algorithm.objective = Interrupting()
    try:
        t.run()
    except KeyboardInterrupt:
        return {"stopped": (t.progress.epoch, t.progress.step)}


def work(folder):
    r"""What each process of the fixture below does."""
    results = {}
    for case in CASES:
        with processes("cpu") as group:
            if case == "interrupted":
                results[case] = interrupt(group, Path(folder) / "interrupted.pt")
            else:
                results[case] = train(case, group)
    torch.save(results, Path(folder) / f"{group.rank}.pt")


ROOT = Path(pyro_aevb.__file__).parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@contextmanager
def launched(*commands):
    r"""Processes that are gone afterwards, whatever happens."""
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        started = []
        for words, environment in commands:
            how = {"env": {**ENVIRONMENT, **environment}, "stdout": pipe, "stderr": pipe}
            process = subprocess.Popen([sys.executable, *words], text=True, **how)
            started.append(stack.enter_context(process))
            stack.callback(process.terminate)
        yield started


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    r"""The folder of what two processes have trained, and what one has."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    commands = [
        ([__file__, str(folder)], {**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    with launched(*commands) as started:
        one = {case: train(case, Alone("cpu")) for case in CASES}
        for process in started:
            _, error = process.communicate(timeout=200)
            assert process.returncode == 0, error
    return folder, one


@pytest.mark.parametrize("case", [case for case in CASES if case != "interrupted"])
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_train_as_one_does(case, rank, two):
    r"""Sums in another order differ by 1e-7; a factor or a draw that is wrong, by 1e-2.

    A difference of two sums, as a contrast is, has the error of either.
    """
    folder, one = two
    expected, found = one[case], torch.load(folder / f"{rank}.pt", weights_only=False)[case]
    assert torch.equal(found["draw"], expected["draw"])  # the generators have not come apart
    for row, other in zip(expected["history"], found["history"], strict=True):
        assert row == pytest.approx(other, rel=3e-6, abs=1e-5)
    for name, value in expected["tensors"].items():
        if name.endswith("running_var") or (rank and name.startswith("held:")):
            continue  # a mean of variances within shares; and what process 0 alone looks for
        limit = 3e-5 * float(value.abs().max())
        torch.testing.assert_close(found["tensors"][name], value, rtol=0, atol=limit)


def test_processes_hold_the_same_bits(two):
    first, second = (torch.load(two[0] / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    for case in CASES:
        for name, value in first[case].get("tensors", {}).items():
            if not name.startswith("held:"):
                assert torch.equal(value, second[case]["tensors"][name]), (case, name)


def test_a_process_reads_its_own_rows_alone(two):
    folder, one = two
    read = [
        torch.load(folder / f"{rank}.pt", weights_only=False)["streamed"]["read"] for rank in (0, 1)
    ]
    # Two epochs of 1,039 data, ten batches of 101 and one of 29, of which the first has the less.
    assert one["streamed"]["read"] == 2078 and read == [2 * (10 * 50 + 14), 2 * (10 * 51 + 15)]


def test_ctrl_c_in_one_process_stops_all_at_one_step_and_one_process_resumes(two):
    folder, one = two
    for rank in (0, 1):
        found = torch.load(folder / f"{rank}.pt", weights_only=False)["interrupted"]
        assert found["stopped"] == (1, 3)  # the step after the one that asked has been taken
    t = trainer("interrupted", Alone("cpu"), folder / "interrupted.pt")
    t.resume()
    t.run()
    found = outcome(t)
    for name, value in one["interrupted"]["tensors"].items():
        limit = 3e-5 * float(value.abs().max())
        torch.testing.assert_close(found["tensors"][name], value, rtol=0, atol=limit)


QUICK = ["--data=digits", "--num-samples=30", "--num-data=40", "--batch-size=101", "--show=false"]
QUICK += ["--pair.hidden=[30]", "--compile=off"]


def torchrun(*words):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    return launched(([*launcher, "-m", "pyro_aevb.fit", *QUICK, *words], {}))


def said(process):
    r"""Status and lines of a launched command, without what torchrun reports of itself."""
    output, error = process.communicate(timeout=100)
    return process.returncode, [line for line in error.splitlines() if line.startswith("error:")]


def metrics(path):
    found = json.loads((path / "results.json").read_text())["metrics"]
    return {
        name: entry["value"]
        for name, entry in found.items()
        # A fit to the few largest weights, and a small difference of sums: they magnify rounding.
        if entry["value"] is not None and name not in ("pareto_k", "mutual_information")
    }


def test_the_command_in_two_processes_writes_the_run_of_one(tmp_path):
    with torchrun("--epochs=2", f"--out={tmp_path / 'two'}") as (process,):
        run_command(pyro_aevb.fit, [*QUICK, "--epochs=2", f"--out={tmp_path / 'one'}"])
        assert said(process) == (0, [])
    assert metrics(tmp_path / "two") == pytest.approx(metrics(tmp_path / "one"), rel=1e-5)
    names = [sorted(str(p.relative_to(d)) for p in d.rglob("*")) for d in tmp_path.iterdir()]
    assert names[0] == names[1]


def test_a_mistake_is_one_line_of_one_process(tmp_path):
    with torchrun("--batch-size=1", f"--out={tmp_path / 'run'}") as (process,):
        status, lines = said(process)
    assert status != 0 and not (tmp_path / "run").exists()
    assert len(lines) == 1 and "--batch-size is 1 for 2 processes" in lines[0]


def test_a_batch_has_a_row_for_every_process():
    group = Processes(0, 3, "cpu", None)
    with pytest.raises(UsageError, match="--batch-size is 2 for 3 processes"):
        pair, parameters = VAE
        prepared = prepare(pair, "digits", parameters, None, "dynamic", "cpu")
        objective = make_objective("elbo", 1)
        Trainer(prepared.pair, prepared.train, prepared.valid, objective, batch_size=2, group=group)


@pytest.mark.parametrize("size, batch", [(2, 7), (3, 7), (3, 2), (4, 9)])
def test_rows_partition_the_batch(size, batch):
    found = []
    for rank in range(size):
        group = Processes(rank, size, "cpu", None)
        start, stop = group._range(batch)
        found += range(start, stop)
        rows = group.rows(batch)
        assert rows.stop - rows.start == max(1, stop - start) and rows.stop <= batch
    assert found == list(range(batch))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_scores_are_gathered_in_the_order_of_the_data(size):
    n = 3 * DATA_BLOCK + 7
    values = np.random.RandomState(0).rand(n, 2)

    def scorer(blocks):
        rows = slice(blocks.start * DATA_BLOCK, blocks.stop * DATA_BLOCK)
        own = values[rows]
        return Scores(5, 2, own.T, None, codes={"z": own}, shares={"x": own.T})

    class Waiting(Processes):
        def gather(self, value):
            gathered[self.rank] = value
            return list(gathered.values()) if len(gathered) == size else None

    gathered = {}
    groups = [Waiting(rank, size, "cpu", None) if size > 1 else Alone() for rank in range(size)]
    *_, scores = [score_together(group, n, scorer) for group in groups]
    np.testing.assert_array_equal(scores.reconstruction, values.T)
    np.testing.assert_array_equal(scores.codes["z"], values)
    np.testing.assert_array_equal(scores.shares["x"], values.T)
    assert (scores.num_samples, scores.weight_samples) == (5, 2) and scores.kl is None


def draws(x):
    r"""Every way to draw for the data, and two draws that are not of the data."""
    few, weight = x.new_empty(len(x), 3), torch.randn(4, 3)
    repeated = x.repeat(5, 1)
    rows = [
        torch.rand(len(x), 2),
        torch.rand_like(x),
        torch.randn(len(x), 3, generator=None),
        few.normal_(2.0, 3.0) @ weight.T,
        torch.randint(0, 9, (len(x), 2)),
        torch.randint_like(x, 5, 9),
        torch.empty(len(x), 20).exponential_(2.0),
        torch.bernoulli(x, 0.4),
        functional.dropout(torch.ones(len(x), 30), 0.3),
        functional.dropout(x[:, None].expand(-1, 3, -1), 0.5).flatten(1),
        dist.Laplace(x, 1.0).rsample(),
        torch.randn(4, len(x), 3).transpose(0, 1).flatten(1),
        functional.dropout(repeated, 0.5).unflatten(0, (5, -1)).transpose(0, 1).flatten(1),
        torch.rand(1) * x,
    ]
    return torch.cat([row.double() for row in rows], 1)


@pytest.mark.parametrize("batch, sizes", [(7, [3, 4]), (40, [13, 13, 14]), (9, [8, 1])])
def test_shared_draws_are_those_of_the_whole_batch(batch, sizes):
    plan = Draws(draws, torch.rand(3, 3), "draws")
    x = torch.rand(batch, 3)
    torch.manual_seed(0)
    whole, after = draws(x), torch.rand(2)
    start = 0
    for rank, size in enumerate(sizes):
        torch.manual_seed(0)
        rows = slice(start, start + size)
        with plan.of(batch, rows, rank):
            # Products of other shapes may round differently.
            torch.testing.assert_close(draws(x[rows]), whole[rows], rtol=1e-6, atol=1e-6)
        assert torch.equal(torch.rand(2), after)
        start += size


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch._standard_gamma(1 + x),
        lambda x: torch.poisson(1 + 5 * x),
        lambda x: torch.multinomial(torch.ones(len(x), 50), 1).double(),
        lambda x: torch.randn(len(x) + 1, 3),
    ],
)
def test_what_cannot_be_shared_comes_from_streams_of_their_own(draw):
    plan = Draws(draw, torch.rand(3, 3), "draws")
    assert len(plan.own) == 1
    x = torch.rand(6, 3)
    x[3:] = x[:3]
    drawn, after = [], []
    for rank, part in enumerate((slice(0, 3), slice(3, 6))):
        torch.manual_seed(0)
        with plan.of(6, part, rank):
            drawn.append(draw(x[part]))
        after.append(torch.rand(2))
    assert not torch.equal(*drawn)
    assert torch.equal(*after)


def test_what_several_processes_cannot_share_is_refused():
    def changing(x):
        return [torch.rand(2) for _ in range(len(x))]

    def numpy(x):
        return x + torch.from_numpy(np.random.rand(*x.shape))

    def late(x):
        return torch.rand(len(x)) if len(x) < 4 else torch.randn(len(x))

    with pytest.raises(UsageError, match="order that changes"):
        Draws(changing, torch.rand(3, 3), "draws")
    with pytest.raises(UsageError, match="NumPy"):
        Draws(numpy, torch.rand(3, 3), "draws")
    plan = Draws(late, torch.rand(3, 3), "draws")
    with pytest.raises(UsageError, match="order that changes"), plan.of(8, slice(0, 4), 0):
        late(torch.rand(4, 3))


@pytest.mark.parametrize(
    "pair, objective",
    [*(("VAE", name) for name in ("beta_tcvae", "dip_vae", "capacity")), ("FactorVAE", "elbo")],
)
def test_a_loss_of_a_batch_together_is_not_shared(pair, objective):
    made = prepare(pair, "digits:100", {"hidden": [4]})
    data = made.train, made.valid
    algorithm = make_algorithm(None, made.pair, made.train, {}, objective)
    Trainer(made.pair, *data, algorithm)
    with pytest.raises(UsageError, match="of all data of a batch together.*train it in one proc"):
        Trainer(made.pair, *data, algorithm, group=Processes(0, 2, "cpu", None))


if __name__ == "__main__":
    work(sys.argv[1])
