"""Stages of a run: a decoder alone, then both nets, against a loop of plain PyTorch."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import stopped
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

import pyro_aevb.training.step
from pyro_aevb.data.batches import Batches, order
from pyro_aevb.data.split import Split
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.runs.run import Run
from pyro_aevb.training.algorithm import Algorithm, Phase, Stage
from pyro_aevb.training.trainer import Trainer, seed_everything

N, D, L, B = 50, 6, 2, 12  # four batches of an epoch, and one of 2
FIRST, EPOCHS = 2, 5


class Nets(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(D, 2 * L)
        self.decoder = nn.Sequential(nn.Linear(L, 5), nn.Tanh(), nn.Linear(5, D))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), L), 1).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        loc, scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    def loss(self, x, noise):
        r"""Minus the ELBO per datum, with the KL in closed form."""
        m, s = self.encoder(x).chunk(2, -1)
        logits = self.decoder(m + s.exp() * noise)
        cross = binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        return (cross + 0.5 * (m**2 + (2 * s).exp() - 1 - 2 * s).sum(1)).mean()


class DecoderFirst(Algorithm):
    name = "decoder_first"

    def __init__(self, pair, first=FIRST):
        self.nets, named = pair.sources["pair"], pair.trainable()
        decoder = {name: value for name, value in named.items() if "decoder" in name}
        self.stages = [
            Stage([Phase("decoder", self.loss, decoder)], first),
            Stage([Phase("both", self.loss, named)]),
        ]

    def loss(self, x, index):
        return self.nets.loss(x, torch.normal(x.new_zeros(len(x), L), 1.0))


def data():
    bits = torch.from_numpy(np.random.default_rng(0).random((N, D)) > 0.5)
    return Batches(Split(bits.to(torch.uint8), None, 1), "none")


def trainer(path=None, algorithm=DecoderFirst, options=(), **settings):
    seed_everything(1)
    batches, pair = data(), load_pair(Nets())
    inspect(pair, batches.take(torch.arange(5)))
    settings = {"epochs": EPOCHS, "batch_size": B, "lr": 0.02, "seed": 1, **settings}
    made = Trainer(pair, batches, batches, algorithm(pair, *options), path, **settings)
    made.try_objective()
    return made


def rows(t):
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in t.history]


def copies(t):
    return {name: value.detach().clone() for name, value in t.pair.tensors().items()}


@pytest.fixture
def as_captured(monkeypatch):
    unfused = lambda captured, *args, **options: captured  # noqa: E731
    monkeypatch.setattr(pyro_aevb.training.step, "compile_captured", unfused)


@pytest.mark.parametrize("compile", ["off", "on"])
def test_stages_are_two_loops_of_plain_pytorch_one_after_the_other(compile):
    t = trainer(compile=compile)
    start, kept = copies(t), []
    t.on_epoch = lambda history: kept.append(copies(t))
    history = t.run()

    seed_everything(1)
    nets, x, objectives = Nets(), data().take(torch.arange(N)), []
    adams = [torch.optim.Adam(p, 0.02) for p in (nets.decoder.parameters(), nets.parameters())]
    for epoch in range(EPOCHS):
        adam, total = adams[epoch >= FIRST], 0.0
        for index in order(N, 1, epoch).split(B):
            loss = nets.loss(x[index], torch.normal(torch.zeros(len(index), L), 1.0))
            nets.zero_grad()
            loss.backward()
            adam.step()
            total -= loss.item() * len(index) / N
        objectives.append(total)
    assert [row["objective"] for row in history] == pytest.approx(objectives, rel=1e-6)
    for name, value in nets.state_dict().items():
        torch.testing.assert_close(kept[-1]["pair." + name], value, rtol=1e-5, atol=1e-6)

    for name, value in start.items():
        frozen, trained = kept[FIRST - 1][name], kept[-1][name]
        assert torch.equal(frozen, value) == ("encoder" in name), name
        assert not torch.equal(trained, frozen), name


@pytest.mark.parametrize("compile", ["off", "on"])
@pytest.mark.parametrize(
    "how, batch",
    [("killed", 8), ("interrupted", 3), ("interrupted", 17)]
    + [(how, 2 * 5) for how in ("killed", "interrupted", "paused")],
)
def test_a_run_resumed_in_any_stage_is_the_uninterrupted_one(
    how, batch, compile, tmp_path, as_captured
):
    r"""Stopped before a batch: in the first stage, exactly between the two, and in the second."""
    settings = {"compile": compile, "schedule": "cosine"}
    whole = trainer(tmp_path / "whole.pt", **settings)
    whole.run()
    if how == "paused":
        part = trainer(tmp_path / "part.pt", stop_after=batch // 5, **settings)
        part.run()
    else:
        stopped(trainer(tmp_path / "part.pt", **settings), how, batch + (how == "killed"))
    resumed = trainer(tmp_path / "part.pt", **settings)
    torch.rand(5)
    resumed.resume()
    resumed.run()
    assert rows(resumed) == rows(whole)
    ends = [torch.load(tmp_path / f"{name}.pt") for name in ("whole", "part")]
    assert [end["stage"] for end in ends] == [1, 1]
    for end in ends:
        end["history"] = end["best"] = None
    assert _flat(ends[0]) == _flat(ends[1])


def _flat(value):
    if isinstance(value, dict):
        return {name: _flat(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_flat(entry) for entry in value]
    return (value.dtype, value.tolist()) if isinstance(value, torch.Tensor) else value


def test_a_run_from_before_epochs_had_a_stage_goes_on(tmp_path):
    path = tmp_path / "c.pt"
    trainer(path, stop_after=1).run()
    state = torch.load(path)
    for row in state["history"]:
        del row["stage"]
    torch.save(state, path)
    resumed = trainer(path)
    resumed.resume()
    run = Run(tmp_path)
    run.write_history(resumed.run())
    assert [row["stage"] for row in run.history] == [None, 1, 2, 2, 2]


def test_each_stage_has_a_schedule_that_ends_with_it():
    t = trainer(schedule="cosine", schedule_options={"final": 0.0}, lr=0.1)
    lengths = [(e, FIRST) for e in range(2)] + [(e, EPOCHS - FIRST) for e in range(3)]
    expected = [0.1 * 0.5 * (1 + math.cos(math.pi * e / length)) for e, length in lengths]
    assert [row["learning_rate"] for row in t.run()] == pytest.approx(expected)
    with pytest.raises(UsageError, match="cannot take a step at the end of each of 3 epochs"):
        settings = {"max_lr": 0.1, "total_steps": 2}  # long enough for the first stage
        trainer(schedule="OneCycleLR", schedule_options=settings)


def test_stages_beyond_the_run_are_cut_and_the_last_one_takes_the_rest():
    assert trainer(options=[9]).run()[-1].keys() >= {"objective", "elbo"}
    for first, epochs, expected in ((9, 3, 0), (0, 2, 1), (2, 2, 0), (None, 3, 0)):
        t = trainer(options=[first], epochs=epochs)
        t.run()
        assert (t.progress.stage, len(t.history)) == (expected, epochs)


class Judged(DecoderFirst):
    r"""Validation that gives what is written down; in the second stage there is one more phase."""

    name = "judged"
    values = (0.0, 1.0, 0.5, 0.4, -2.0)

    def __init__(self, pair):
        super().__init__(pair, 4)
        second = Phase("again", self.loss, self.stages[1].phases[0].parameters)
        self.stages[1] = Stage([*self.stages[1].phases, second])
        self.state = {"epoch": torch.zeros((), dtype=torch.int64)}

    def validate(self, valid, scorer):
        assert not self.nets.training and not torch.is_grad_enabled()
        torch.rand(3), np.random.rand()
        self.seen = valid
        return {"accuracy": self.values[int(self.state["epoch"])]}, "accuracy"

    def report(self):
        self.state["epoch"] += 1
        return {}


def test_patience_ends_a_stage_and_the_next_goes_on_from_its_best_epoch(tmp_path, as_captured):
    settings = {"algorithm": Judged, "patience": 2, "epochs": 9, "compile": "on"}
    whole, kept = trainer(tmp_path / "whole.pt", **settings), []
    first = []
    update = whole._update

    def watching(index):
        if whole.progress.stage == 1 and not first:
            first.append(copies(whole))
        return update(index)

    whole._update = watching
    whole.on_epoch = lambda history: kept.append(copies(whole))
    history = whole.run()
    # What the algorithm counts goes back to the best epoch, too, which has seen two values.
    assert [row["accuracy"] for row in history] == [0.0, 1.0, 0.5, 0.4, 0.5, 0.4, -2.0]
    assert (whole.progress.stage, whole.progress.began) == (
        1,
        4,
    ) and whole._algorithm.seen is whole.valid
    for found, epoch in ((first[0], 2), (copies(whole), 5)):
        for name, value in found.items():
            assert torch.equal(value, kept[epoch - 1][name]), name
    for stop in range(1, 8):
        path = tmp_path / f"{stop}.pt"
        trainer(path, stop_after=stop, **settings).run()
        resumed = trainer(path, **settings)
        resumed.resume()
        resumed.run()
        assert rows(resumed) == rows(whole)
        for name, value in copies(whole).items():
            assert torch.equal(value, resumed.pair.tensors()[name]), (stop, name)

    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.write_history(history)
    assert [row["again_loss"] for row in run.history[:4]] == [None] * 4
    assert all(math.isfinite(row["again_loss"]) for row in run.history[4:])
    assert run.history[-1]["accuracy"] == -2.0 and "elbo" not in run.history[-1]


def test_a_watched_value_that_is_not_finite_is_named(tmp_path):
    class Bad(Judged):
        values = (0.0, math.nan)

    t = trainer(tmp_path / "c.pt", algorithm=Bad)
    with pytest.raises(UsageError, match=r"^accuracy is not finite in epoch 2; .*c.pt keeps epoch"):
        t.run()


def test_a_prior_on_parameters_of_several_stages_is_one(tmp_path):
    t = trainer(map_prior=0.5)
    decays = [learner.optimizer.param_groups[0]["weight_decay"] for learner in t._learners.each]
    assert decays == [1 / (N * 0.25)]
    with pytest.raises(UsageError, match="judged trains 'pair.encoder.weight' in several phases"):
        trainer(algorithm=Judged, map_prior=0.5)


def test_later_stages_are_tried_before_any_work():
    class Failing(DecoderFirst):
        def __init__(self, pair):
            super().__init__(pair)
            parameters = pair.trainable()
            self.stages[1] = Stage([Phase("both", lambda x, index: x / self.none, parameters)])

    with pytest.raises(UsageError, match="decoder_first cannot train Nets: .*'none'"):
        trainer(algorithm=Failing)


def test_a_stage_that_cannot_be_captured_runs_eagerly(as_captured):
    class Reading(DecoderFirst):
        def __init__(self, pair):
            super().__init__(pair)
            self.stages[1] = Stage([Phase("both", self.reading, pair.trainable())])

        def reading(self, x, index):
            return self.loss(x, index) * (1 if float(x.sum()) < 1e9 else 2)

    eager = trainer(algorithm=Reading, compile="off")
    eager.run()
    auto = trainer(algorithm=Reading, compile="auto")
    auto.compiling.on = True
    auto.run()
    assert not auto.compiling.on
    for row, other in zip(rows(auto), rows(eager), strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    with pytest.raises(UsageError, match="--compile on: .* reads a value back"):
        trainer(algorithm=Reading, compile="on").run()
