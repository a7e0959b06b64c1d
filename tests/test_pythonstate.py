"""What a pair keeps in Python counts in compiled steps, in checkpoints and in scores as it does
eagerly, in one run."""

import math
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import assert_same_run, capture_only, rows
from pyro import poutine
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

import pyro_aevb
import pyro_aevb.training.compiling
from pyro_aevb.data.batches import Batches, order
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.engine.capture import NotCapturable, capture
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.pairs.state.python import PythonState
from pyro_aevb.runs.prepare import restore
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.svi import SVI
from pyro_aevb.training.trainer import Trainer, seed_everything

N, D = 60, 16


def stage(calls):
    """Of so many calls that two in a row hardly ever differ."""
    return min(1.0, 0.1 + 0.3 * (calls // 7))


class Base(nn.Module):
    """A VAE whose code's terms are weighed by what it keeps, which `start` sets."""

    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(D, 4), nn.Linear(2, D)
        self.start()

    def start(self):
        pass

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
    step = 0

    def tick(self):
        self.step += 1

    def weight(self):
        return stage(self.step)


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

    def start(self):
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

    def start(self):
        self.generator = np.random.default_rng(0)

    def seen(self, x):
        return torch.zeros_like(x) if self.generator.random() < 0.3 else x


class InPlace(Base):
    def start(self):
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

    def start(self):
        self.count = torch.zeros(())


GLOBAL = 0


class Outside(Base):
    """By a name of its module."""

    def guide(self, x):
        global GLOBAL
        if self.training:
            GLOBAL += 1
        super().guide(x)

    def weight(self):
        return stage(GLOBAL)


def helped():
    global GLOBAL
    GLOBAL += 1


class Helped(Outside):
    """In a function that its code calls."""

    guide = Base.guide

    def tick(self):
        helped()


class Annealing:
    """An object that is called, and has no dictionary."""

    __slots__ = ("calls",)

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1


class Called(Base):
    def start(self):
        self.tick = Annealing()

    def weight(self):
        return stage(self.tick.calls)


class Listed(Base):
    """Objects in a list."""

    def start(self):
        self.parts = [Annealing()]

    def tick(self):
        self.parts[0]()

    def weight(self):
        return stage(self.parts[0].calls)


class Mixed(Base):
    """A number beside a tensor."""

    def start(self):
        self.state = {"calls": 0, "mean": torch.zeros(2)}

    def tick(self):
        self.state["calls"] += 1

    def weight(self):
        return stage(self.state["calls"])


class Common(Base):
    """One dictionary in two places."""

    def start(self):
        self.common = self.enc.common = {"calls": 0}

    def tick(self):
        self.enc.common["calls"] += 1

    def weight(self):
        return stage(self.common["calls"])


class OfClass(Base):
    """By its class."""

    calls = 0

    def tick(self):
        type(self).calls += 1

    def weight(self):
        return stage(self.calls)


class Legacy(Base):
    def start(self):
        self.numbers = np.random.RandomState(0)

    def seen(self, x):
        return torch.zeros_like(x) if self.numbers.random_sample() < 0.3 else x


class Scalar(Base):
    """A number of NumPy's."""

    def start(self):
        self.kl = np.float64(0.1)

    def tick(self):
        self.kl = np.minimum(1.0, self.kl * 1.05)

    def weight(self):
        return float(self.kl)


class Loose(InPlace):
    """A buffer that is in no checkpoint of torch's."""

    def start(self):
        self.register_buffer("count", torch.zeros(()), persistent=False)


class PlainInPlace(InPlace):
    start = Plain.start


class Aside(Base):
    """What each call sets alike, or anew, and none follows."""

    def seen(self, x):
        self.rows, self.last, self.shown = len(x), x * 1.0, dist.Normal(x, 1.0)
        return self.last


SEEN = (
    *(
        Base,
        Counter,
        Gumbel,
        Inside,
        Choosing,
        Numpy,
        Own,
        InPlace,
        Anew,
        Plain,
        Outside,
        Helped,
        Called,
    ),
    *(Listed, Mixed, Common, OfClass, Legacy, Scalar, Loose, PlainInPlace, Aside),
)
KINDS = {kind.__name__: kind for kind in SEEN}
EAGER = {
    "Counter": "'pair.step'", "Gumbel": "'pair.step'", "Inside": "'pair.schedule.calls'",
    "Choosing": "Python's random module", "Numpy": "NumPy's global random numbers",
    "Own": "'pair.generator'", "Anew": "'pair._buffers.count'", "Plain": "'pair.count'",
    "Outside": "GLOBAL", "Helped": "GLOBAL", "Called": "'pair.tick.calls'",
    "Listed": "parts", "Mixed": "'pair.state'", "Common": "common",
    "OfClass": "'OfClass.calls'", "Legacy": "'pair.numbers'", "Scalar": "'pair.kl'",
}  # fmt: skip


def data():
    bits = torch.from_numpy(np.random.default_rng(0).random((N, D)) > 0.5).to(torch.uint8)
    return Split(bits, None, 1)


def whole_set():
    return DataSet("bits", data(), data(), data(), "bits", "none")


def trainer(source, checkpoint=None, objective="elbo", **settings):
    global GLOBAL
    GLOBAL = OfClass.calls = 0
    seed_everything(0)
    pair, batches = load_pair(source), Batches(data(), "none")
    inspect(pair, batches.take(torch.arange(5)))
    settings = {"epochs": 6, "batch_size": 20, "lr": 0.01, **settings}
    svi = SVI(pair, make_objective(objective, 1))
    made = Trainer(pair, batches, batches, svi, checkpoint, **settings)
    made.try_objective()
    return made


def agree(one, other):
    for row, same in zip(rows(one), rows(other), strict=True):
        assert row == pytest.approx(same, rel=1e-5)


@pytest.fixture
def compiling(monkeypatch):
    """Every run compiles, that is: repeats what was captured."""
    monkeypatch.setattr(pyro_aevb.training.compiling, "COMPILE_FROM", 1)
    capture_only(monkeypatch)


@pytest.mark.parametrize("name", KINDS)
def test_a_run_that_could_be_compiled_is_the_eager_one(name, compiling):
    expected = trainer(KINDS[name], compile="off").run()
    auto = trainer(KINDS[name], compile="auto")
    agree(expected, auto.run())
    assert auto.compiling.on == (name not in EAGER)
    if name in EAGER:
        with pytest.raises(UsageError, match=f"has to be trained eagerly: .*{EAGER[name]}"):
            trainer(KINDS[name], compile="on").run()


def by_hand(epochs=6, batch=20, lr=0.01):
    """The objectives of plain PyTorch, with the weight that a counter would give at each step."""
    seed_everything(0)
    source, x, count, objectives = Base(), data().images.float(), 0, []
    adam = torch.optim.Adam(source.parameters(), lr)
    for epoch in range(epochs):
        total = 0.0
        for index in order(N, 0, epoch).split(batch):
            count += 1
            m, s = source.enc(x[index]).chunk(2, -1)
            logits = source.dec(m + s.exp() * torch.normal(torch.zeros(batch, 2), 1.0))
            kl = 0.5 * (m**2 + (2 * s).exp() - 1 - 2 * s).sum(1)
            cross = binary_cross_entropy_with_logits(logits, x[index], reduction="none").sum(1)
            loss = (cross + min(1.0, 0.1 + 0.3 * (count // 7)) * kl).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            total -= loss.item() * batch / N
        objectives.append(total)
    return objectives


@pytest.mark.parametrize(
    "name",
    ["Counter", "Outside", "Helped", "Called", "Listed", "Mixed", "Common", "OfClass"],
)
def test_stages_of_a_counter_are_those_of_plain_pytorch(name, compiling):
    found = [row["objective"] for row in trainer(KINDS[name], compile="auto").run()]
    assert found == pytest.approx(by_hand(), rel=1e-5)


def test_a_value_that_is_set_between_epochs_counts_from_there(compiling):
    class Set(Base):
        kl = 0.1

        def weight(self):
            return self.kl

    histories = []
    for how in ("off", "auto"):
        run = trainer(Set, compile=how)
        source = run.pair.sources["pair"]
        run.on_epoch = lambda history, source=source: setattr(source, "kl", 0.5 * len(history))
        histories.append(run.run())
    agree(*histories)


@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_run_goes_on_from_the_values_that_it_had(name, tmp_path):
    make, path = KINDS[name], tmp_path / "checkpoint.pt"
    whole = trainer(make)
    whole.run()
    trainer(make, path, stop_after=3).run()
    rest = trainer(make, path)
    rest.resume()
    rest.run()
    assert_same_run(rest, whole)
    assert not rest.notes


def test_trials_leave_python_values_and_running_averages_where_they_were(tmp_path):
    class Normed(Counter):
        def start(self):
            self.enc = nn.Sequential(nn.Linear(D, 4), nn.BatchNorm1d(4))

    source = Normed()
    source.step = 5
    before = {name: value.clone() for name, value in source.state_dict().items()}
    numbers = random.getstate()
    pair, batches = load_pair(source), Batches(data(), "none")
    inspect(pair, batches.take(torch.arange(5)))
    Trainer(pair, batches, batches, SVI(pair, make_objective("elbo"))).try_objective()
    out = str(tmp_path / "r")
    pyro_aevb.fit(source, whole_set(), epochs=0, num_samples=5, out=out, show=False)
    assert source.step == 5
    for name, value in source.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert random.getstate() == numbers


def test_scores_of_a_run_that_is_opened_again_are_those_of_the_run(tmp_path):
    whole = whole_set()
    settings = {"epochs": 3, "batch_size": 20, "num_samples": 20, "show": False}
    run = pyro_aevb.fit(Gumbel, whole, out=str(tmp_path / "r"), **settings)
    opened = restore(run, pair=Gumbel, data=whole)
    assert opened.pair.sources["pair"].step == run.pair.sources["pair"].step == 9
    before = run.results["metrics"]
    again = pyro_aevb.evaluate(run, pair=Gumbel, data=whole, num_samples=20, show=False)
    for name in ("elbo", "log_likelihood", "reconstruction"):
        assert again["metrics"][name]["value"] == before[name]["value"], name
    # At the temperature of the start it is another number.
    start, now = (
        pair.temperature(torch.zeros(1)) for pair in (Gumbel(), opened.pair.sources["pair"])
    )
    assert start != now


def test_values_that_no_checkpoint_holds_are_named(compiling, tmp_path, capsys):
    class Odd(Base):
        """It follows an iterator, of which nobody knows how far it is."""

        def start(self):
            self.weights = iter([0.1 + 0.05 * n for n in range(100)])
            self.kl = 0.1

        def tick(self):
            self.kl = next(self.weights)

        def weight(self):
            return self.kl

    expected = rows(trainer(Odd, compile="off").run())
    path = tmp_path / "checkpoint.pt"
    run = trainer(Odd, path, stop_after=3, show=True)
    assert rows(run.run()) == expected[:3]  # eager, and a refused capture has taken none
    (note,) = run.notes
    assert "do not resume exactly" in note and "'pair.weights'" in note
    assert capsys.readouterr().out.count("do not resume exactly") == 1
    rest = trainer(Odd, path)
    rest.resume()
    assert rows(rest.run())[3:] != expected[3:]


def test_validation_by_graphs_follows_values_that_training_changes(monkeypatch):
    """One capture, at the first epoch, would keep the temperature that there was then."""
    monkeypatch.setattr("pyro_aevb.estimators.importance.CAPTURE_FROM", 1)
    agree(*(trainer(Gumbel, compile=how, lr=0.05).run() for how in ("off", "auto")))


def test_a_look_at_validation_data_moves_no_value():
    class Always(Counter):
        """It counts in evaluation mode, too."""

        def guide(self, x):
            self.step += 0 if self.training else 1
            super().guide(x)

    run = trainer(Always, compile="off")
    run.pair.sources["pair"].step = 0
    run.run()
    assert run.pair.sources["pair"].step == 6 * 3
    assert rows(run.history) == rows(trainer(Counter, compile="off").run())


@pytest.mark.parametrize("resumed", [False, True])
def test_the_best_epoch_comes_with_the_values_that_it_had(resumed, tmp_path):
    settings = {"patience": 2, "lr": 1.0, "epochs": 20}
    run = trainer(Gumbel, tmp_path / "checkpoint.pt", **settings)
    history = run.run()
    best = max(range(len(history)), key=lambda i: history[i]["elbo"]) + 1
    assert best == len(history) - 2
    if resumed:
        run = trainer(Gumbel, tmp_path / "checkpoint.pt", **settings)
        run.resume()
        run.run()
    assert run.pair.sources["pair"].step == 3 * best
    assert run._learners.validation()[0]["elbo"] == history[best - 1]["elbo"]


class Staged(TraceELBO):
    """An objective that counts."""

    calls = 0

    def differentiable_loss(self, *arguments):
        self.calls += 1
        return super().differentiable_loss(*arguments) * (0.1 + 0.3 * (self.calls // 7))


def test_values_of_an_objective_count_too(compiling, tmp_path):
    expected = rows(trainer(Base, objective=Staged(), compile="off").run())
    made = trainer(Base, objective=Staged(), compile="auto")
    assert rows(made.run()) == expected and not made.compiling.on
    path = tmp_path / "checkpoint.pt"
    trainer(Base, path, objective=Staged(), stop_after=3).run()
    rest = trainer(Base, path, objective=Staged())
    rest.resume()
    assert rows(rest.run()) == expected
    assert expected[-1]["objective"] != pytest.approx(
        rows(trainer(Base, compile="off").run())[-1]["objective"], rel=1e-2
    )


def test_a_first_call_that_is_unlike_the_others_is_not_repeated():
    first = {"done": False}

    def function(x):
        factor = 1.0 if first["done"] else 2.0
        first["done"] = True
        return [x * factor]

    x = torch.arange(4.0)
    with pytest.raises(NotCapturable, match="function: first' from call to call"):
        capture(function, (x,), (x + 1,), python=PythonState([("", function)]))
    assert first == {"done": False}
    first["done"] = True  # set alike by every call from here on
    captured = capture(function, (x,), (x + 1,), python=PythonState([("", function)]))
    assert torch.equal(captured(x)[0], x)


@pytest.mark.parametrize("change, refused", [(1e-6, False), (1e-4, True)])
def test_a_trace_may_differ_by_rounding_alone(change, refused):
    """Traced with one factor, run with another, and traced with the first one again."""
    factors = iter([1.0, 1.0 + change, 1.0])
    x = torch.linspace(1.0, 2.0, 5)
    if refused:
        with pytest.raises(NotCapturable, match="changes from call to call"):
            capture(lambda x: [x * next(factors)], (x,), (x,))
        return
    captured = capture(lambda x: [x * next(factors)], (x,), (x,))
    assert torch.equal(captured(x)[0], x)


def test_a_value_that_cannot_be_seen_shows_where_it_changes_at_each_call():
    """Five thousand calls of it would double the result; two differ by less than rounding."""
    x, calls = torch.linspace(1.0, 2.0, 5), iter(range(9))
    with pytest.raises(NotCapturable, match="changes from call to call"):
        capture(lambda x: [x * (1.0 + 2e-7 * next(calls))], (x,), (x + 1,))
    steady = capture(lambda x: [x * (1.0 + 2e-7)], (x,), (x + 1,))
    assert torch.equal(steady(x)[0], x * (1.0 + 2e-7))


class Centred(Base):
    """Data around the mean of their batch; in evaluation around that of the last one."""

    def start(self):
        self.center, self.rows = torch.zeros(D), 1

    def leave(self, mean):
        self.center = mean

    def seen(self, x):
        if self.training:
            self.leave(x.mean(0))
            self.rows = len(x)
            return x - x.mean(0)
        return (x - self.center) * self.rows / 20


class Reassigned(Centred):
    def leave(self, mean):
        self.center.data = mean


@pytest.mark.parametrize("kind, compiled", [(Centred, True), (Reassigned, False)])
def test_what_the_last_step_leaves_is_what_evaluation_sees(kind, compiled, compiling):
    """A graph sets no attribute, but no step follows these: one eager step an epoch leaves them."""
    auto = trainer(kind, compile="auto")
    agree(auto.run(), trainer(kind, compile="off").run())
    assert auto.compiling.on == compiled
    last = order(N, 0, 5).split(20)[-1]
    source = auto.pair.sources["pair"]
    torch.testing.assert_close(source.center, data().images[last].float().mean(0))
    assert source.rows == 20


def test_a_buffer_counted_through_its_data_is_counted(compiling):
    class Through(InPlace):
        def tick(self):
            self.count.data = self.count + 1

        def weight(self):
            return 0.1 + 1e-6 * self.count

    with pytest.raises(UsageError, match="'pair._buffers.count' other data by .data"):
        trainer(Through, compile="on").run()
    run = trainer(Through, compile="auto")
    run.run()
    assert run.pair.sources["pair"].count == 18
