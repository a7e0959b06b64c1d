"""What a pair keeps in Python counts in compiled steps, in checkpoints and in scores as it does
eagerly, in one run."""

import math
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

import pyro_aevb
import pyro_aevb.training.loop
import pyro_aevb.training.step
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.splits import DataSet, Split
from pyro_aevb.errors import UsageError
from pyro_aevb.inspection import inspect
from pyro_aevb.objectives import make_objective
from pyro_aevb.pairs import load_pair
from pyro_aevb.preparation import restore
from pyro_aevb.training.loop import Trainer, seed_everything
from pyro_aevb.training.svi import SVI

N, D = 60, 16


class Base(nn.Module):
    """A VAE whose code's terms are weighed by what it keeps."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(D, 4), nn.Linear(2, D)

    def tick(self):
        pass

    def weight(self):
        return 1.0

    def seen(self, x):
        return x

    def model(self, x):
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=self.weight()):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)

    def guide(self, x):
        if self.training:
            self.tick()
        m, s = self.enc(self.seen(x)).chunk(2, -1)
        with pyro.plate("data", len(x)), poutine.scale(scale=self.weight()):
            pyro.sample("z", dist.Normal(m, s.exp()).to_event(1))


class Counter(Base):
    """In stages, so that two calls in a row hardly ever differ."""

    step = 0

    def tick(self):
        self.step += 1

    def weight(self):
        return min(1.0, 0.1 + 0.3 * (self.step // 7))


class Gumbel(Counter):
    def model(self, x):
        with pyro.plate("data", len(x)):
            probs = x.new_ones(len(x), 2) / 2
            z = pyro.sample("z", dist.RelaxedOneHotCategorical(self.temperature(x), probs=probs))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)

    def guide(self, x):
        self.tick() if self.training else None
        with pyro.plate("data", len(x)):
            logits = self.enc(x)[:, :2]
            q = dist.RelaxedOneHotCategorical(self.temperature(x), logits=logits)
            pyro.sample("z", q)

    def temperature(self, x):
        return x.new_tensor(max(0.5, math.exp(-0.1 * (self.step // 3))))


class Schedule:
    def __init__(self):
        self.value, self.calls = 0.1, []


class Inside(Base):
    """In an object of its own, beside a list."""

    def __init__(self):
        super().__init__()
        self.schedule = Schedule()

    def tick(self):
        self.schedule.calls.append(1)
        self.schedule.value = 0.1 * (1 + len(self.schedule.calls) // 5)

    def weight(self):
        return self.schedule.value


class Choosing(Base):
    def seen(self, x):
        return torch.zeros_like(x) if random.random() < 0.3 else x


class Numpy(Base):
    def seen(self, x):
        return torch.zeros_like(x) if np.random.random() < 0.3 else x


class Own(Base):
    """With a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def seen(self, x):
        return torch.zeros_like(x) if self.generator.random() < 0.3 else x


class InPlace(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def tick(self):
        self.count += 1

    def weight(self):
        return (self.count / 20).clamp(0.01, 1.0)


class Anew(InPlace):
    def tick(self):
        self.count = self.count + 1


class Plain(Anew):
    """A tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        del self.count
        self.count = torch.zeros(())


GLOBAL = 0


class Outside(Counter):
    """By a name of its module."""

    def guide(self, x):
        global GLOBAL
        if self.training:
            GLOBAL += 1
        super().guide(x)

    def tick(self):
        pass

    def weight(self):
        return min(1.0, 0.1 + 0.3 * (GLOBAL // 7))


KINDS = {
    kind.__name__: kind
    for kind in (Counter, Gumbel, Inside, Choosing, Numpy, Own, InPlace, Anew, Plain, Outside)
}
EAGER = {
    "Counter": "'pair.step'", "Gumbel": "'pair.step'", "Inside": "'pair.schedule.calls'",
    "Choosing": "Python's random module", "Numpy": "NumPy's global random numbers",
    "Own": "'pair.generator'", "Anew": "'pair._buffers.count'", "Plain": "'pair.count'",
    "Outside": "GLOBAL",
}  # fmt: skip


def data():
    bits = torch.from_numpy(np.random.default_rng(0).random((N, D)) > 0.5).to(torch.uint8)
    return Split(bits, None, 1)


def trainer(source, checkpoint=None, **settings):
    global GLOBAL
    GLOBAL = 0
    seed_everything(0)
    pair, batches = load_pair(source), Batches(data(), "none")
    inspect(pair, batches.take(torch.arange(5)))
    settings = {"epochs": 6, "batch_size": 20, "lr": 0.01, **settings}
    svi = SVI(pair, make_objective("elbo"))
    made = Trainer(pair, batches, batches, svi, checkpoint, **settings)
    made.try_objective()
    return made


def rows(history):
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in history]


@pytest.fixture
def compiling(monkeypatch):
    """Every run compiles, that is: repeats what was captured."""
    monkeypatch.setattr(pyro_aevb.training.loop, "COMPILE_FROM", 1)
    as_captured = lambda captured, *args, **options: captured  # noqa: E731
    monkeypatch.setattr(pyro_aevb.training.step, "compile_captured", as_captured)


@pytest.mark.parametrize("name", KINDS)
def test_a_run_that_could_be_compiled_is_the_eager_one(name, compiling):
    expected = rows(trainer(KINDS[name], compile="off").run())
    auto = trainer(KINDS[name], compile="auto")
    found = rows(auto.run())
    assert auto.compiled == (name not in EAGER)
    for row, other in zip(expected, found, strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    if name in EAGER:
        with pytest.raises(UsageError, match=f"has to run eagerly: .*{EAGER[name]}"):
            trainer(KINDS[name], compile="on").run()


def test_without_python_values_a_run_stays_compiled(compiling):
    compiled = trainer(Base, compile="auto")
    compiled.run()
    assert compiled.compiled and all(learner.step.compiled for learner in compiled._learners)


def test_a_value_that_is_set_between_epochs_counts_from_there(compiling):
    class Set(Base):
        kl = 0.1

        def weight(self):
            return self.kl

    histories = []
    for how in ("off", "auto"):
        run = trainer(Set, compile=how)
        source = run.pair.sources["pair"]
        source.kl = 0.1

        def anneal(history, source=source):
            source.kl = 0.5 * len(history)

        run.on_epoch = anneal
        histories.append(rows(run.run()))
    for row, other in zip(*histories, strict=True):
        assert row == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    "name", ["Counter", "Gumbel", "Inside", "Own", "Choosing", "Anew", "Plain"]
)
def test_a_resumed_run_goes_on_from_the_values_that_it_had(name, tmp_path):
    make, path = KINDS[name], tmp_path / "checkpoint.pt"
    whole = trainer(make)
    whole.run()
    trainer(make, path, stop_after=3).run()
    rest = trainer(make, path)
    rest.resume()
    assert rows(rest.run()) == rows(whole.history)
    for name, value in whole.pair.tensors().items():
        assert torch.equal(value, rest.pair.tensors()[name]), name
    assert not rest.notes


def test_trials_leave_python_values_and_running_averages_where_they_were(tmp_path):
    class Normed(Counter):
        def __init__(self):
            super().__init__()
            self.enc = nn.Sequential(nn.Linear(D, 4), nn.BatchNorm1d(4))

    source = Normed()
    source.step = 5
    before = {name: value.clone() for name, value in source.state_dict().items()}
    numbers = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    pair, batches = load_pair(source), Batches(data(), "none")
    inspect(pair, batches.take(torch.arange(5)))
    Trainer(pair, batches, batches, SVI(pair, make_objective("elbo"))).try_objective()
    split = data()
    whole = DataSet("bits", split, split, split, "bits", "none")
    pyro_aevb.fit(source, whole, epochs=0, num_samples=5, out=str(tmp_path / "r"), show=False)
    assert source.step == 5
    for name, value in source.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert random.getstate() == numbers[0]


def test_scores_of_a_run_that_is_opened_again_are_those_of_the_run(tmp_path):
    split = data()
    whole = DataSet("bits", split, split, split, "bits", "none")
    settings = {"epochs": 3, "batch_size": 20, "num_samples": 20, "show": False}
    run = pyro_aevb.fit(Gumbel, whole, out=str(tmp_path / "r"), **settings)
    opened = restore(run, pair=Gumbel, data=whole)
    assert opened.pair.sources["pair"].step == run.pair.sources["pair"].step == 9
    before = run.results["metrics"]
    again = pyro_aevb.evaluate(run, pair=Gumbel, data=whole, num_samples=20, show=False)
    for name in ("elbo", "log_likelihood", "reconstruction"):
        assert again["metrics"][name]["value"] == before[name]["value"], name
    # At the temperature of the start it is another number.
    with_start = load_pair(Gumbel)
    with_start.python.load({"pair.step": ["plain", 0]}, "cpu")
    assert Gumbel().temperature(torch.zeros(1)) != opened.pair.sources["pair"].temperature(
        torch.zeros(1)
    )


def test_values_that_no_checkpoint_holds_are_named(tmp_path):
    class Odd(Base):
        def __init__(self):
            super().__init__()
            self.kept = np.zeros(3)

        def tick(self):
            self.kept = self.kept + 1

    run = trainer(Odd, tmp_path / "checkpoint.pt")
    run.run()
    (note,) = run.notes
    assert "may not resume exactly: pair.kept change" in note
