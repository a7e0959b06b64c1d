"""The mechanism of learning algorithms: phases, state and hook, against arithmetic by hand."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import stopped
from torch import nn

import pyro_aevb.training.step
from pyro_aevb.data.batches import Batches, order
from pyro_aevb.data.split import Split
from pyro_aevb.engine.capture import NotCapturable
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.training.algorithm import Algorithm, Phase, make_algorithm, reached
from pyro_aevb.training.trainer import Trainer, seed_everything

N, D, B = 23, 3, 6


class Locations(nn.Module):
    r"""x ~ N(a, 1); b is trained by the algorithm below alone, c by none."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.zeros(D).double()) for _ in range(3))

    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.a, 1).to_event(1), obs=x)

    def guide(self, x):
        pass


class TwoPhases(Algorithm):
    r"""`a` twice towards the batch, `b` once towards `a` and a noisy memory of each datum."""

    name = "two_phases"

    def __init__(self, pair, data):
        named = pair.trainable()
        self.a, self.b = named["pair.a"], named["pair.b"]
        self.state = {"memory": torch.zeros(len(data), D).double(), "calls": torch.zeros(())}
        self.phases = [
            Phase("first", self.first, {"pair.a": self.a}, repeat=2),
            Phase("second", self.second, {"pair.b": self.b}, rate=2.0),
        ]

    def before(self, x, index):
        self.state["calls"] += 1
        self.state["memory"][index] = 0.5 * self.state["memory"][index] + x + torch.rand(D)

    def first(self, x, index):
        return 0.5 * (self.a - x).square().sum() / len(x)

    def second(self, x, index):  # reaches `a` too, which it may not change
        return 0.5 * (self.b - self.a - self.state["memory"][index]).square().sum() / len(x)


def data():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(N, D)))
    return Batches(Split(x, None, 1), "none")


def trainer(path=None, algorithm=TwoPhases, **settings):
    seed_everything(1)
    batches = data()
    pair = load_pair(Locations())
    inspect(pair, batches.take(torch.arange(5)))
    settings = {"epochs": 3, "batch_size": B, "optimizer": "sgd", "lr": 0.3, "seed": 1, **settings}
    return Trainer(pair, batches, batches, algorithm(pair, batches), path, **settings)


def uncompiled(captured, example, same_draws):
    return captured


def ready(monkeypatch):
    monkeypatch.setattr(pyro_aevb.training.step, "compile_captured", uncompiled)


@pytest.mark.parametrize("compile", ["off", "on"])
def test_phases_state_and_repeats_are_those_of_a_loop_by_hand(compile, monkeypatch):
    ready(monkeypatch)
    t = trainer(compile=compile)
    t.try_objective()  # changes nothing, the state included
    history = t.run()
    x, a, b, memory = data().images.numpy(), np.zeros(D), np.zeros(D), np.zeros((N, D))
    seed_everything(1)
    for epoch in range(3):
        losses = np.zeros(2)
        for rows in np.split(order(N, 1, epoch).numpy(), range(B, N, B)):
            memory[rows] = 0.5 * memory[rows] + x[rows] + torch.rand(D).numpy()
            for _ in range(2):
                losses[0] += 0.5 * ((a - x[rows]) ** 2).sum() / N / 2
                a = a - 0.3 * (a - x[rows].mean(0))
            losses[1] += 0.5 * ((b - a - memory[rows]) ** 2).sum() / N
            b = b - 0.6 * (b - a - memory[rows].mean(0))
        assert history[epoch]["objective"] == pytest.approx(-losses[0], rel=1e-6)
        assert history[epoch]["second_loss"] == pytest.approx(losses[1], rel=1e-6)
    found = t.pair.trainable()
    for name, value in (("pair.a", a), ("pair.b", b), ("pair.c", np.zeros(D))):
        np.testing.assert_allclose(found[name].detach().numpy(), value, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(t._algorithm.state["memory"].numpy(), memory, rtol=1e-6)
    assert int(t._algorithm.state["calls"]) == 3 * 4


class Looks(Algorithm):
    r"""One phase, which keeps the batches it is given."""

    name = "looks"

    def __init__(self, pair, **looks):
        self.seen = []
        self.phases = [Phase("only", self.look, dict(pair.trainable()), **looks)]

    def look(self, x, index):
        self.seen.append(x)
        return 0 * next(iter(self.phases[0].parameters.values())).sum()


class Beforehand(Looks):
    name = "beforehand"

    def before(self, x, index):
        self.seen.append(x)


@pytest.mark.parametrize(
    "algorithm, looks",
    [(Looks, {"repeat": 2}), (Looks, {"particles": 2}), (Beforehand, {})],
    ids=["repeats", "particles", "before"],
)
def test_all_that_look_at_a_batch_see_the_same_draw_of_it(algorithm, looks):
    grey = torch.full((B, 1, 8, 8), 127, dtype=torch.uint8)
    batches = Batches(Split(grey, None, 254), "dynamic")  # 64 fair coins for each datum
    pair = load_pair(Locations())
    inspect(pair, torch.zeros(5, D).double())
    made = algorithm(pair, **looks)
    run = Trainer(pair, batches, batches, made, epochs=1, batch_size=B, compile="off")
    run._update(torch.arange(B))
    run._update(torch.arange(B))
    a, b, c, d = made.seen
    assert torch.equal(a, b) and torch.equal(c, d) and not torch.equal(a, c)


@pytest.mark.parametrize("how", ["killed", "interrupted"])
@pytest.mark.parametrize("compile", ["off", "on"])
def test_a_resumed_run_has_the_state_of_an_uninterrupted_one(how, compile, tmp_path, monkeypatch):
    ready(monkeypatch)
    settings = {"compile": compile, "optimizer": "adam", "schedule": "cosine", "epochs": 4}
    whole = trainer(tmp_path / "whole.pt", **settings)
    whole.run()
    # At the second batch of the second epoch.
    stopped(trainer(tmp_path / "part.pt", **settings), how, 6)
    resumed = trainer(tmp_path / "part.pt", **settings)
    torch.rand(5)
    resumed.resume()
    resumed.run()
    for held in (lambda t: t.pair.tensors(), lambda t: t._algorithm.state):
        for name, value in held(whole).items():
            assert torch.equal(value, held(resumed)[name]), name
    rows = [[{**r, "images_per_second": 0} for r in t.history] for t in (whole, resumed)]
    assert rows[0] == rows[1]


def test_a_phase_leaves_no_gradient_to_another():
    r"""A parameter of two phases, with a gradient from the first alone, stays in the second."""

    class Shared(TwoPhases):
        def __init__(self, pair, data):
            super().__init__(pair, data)
            both = {"pair.a": self.a, "pair.b": self.b}
            self.phases = [
                Phase("first", self.first, both, rate=0.5),
                Phase("second", lambda x, index: 0.5 * self.b.square().sum(), both),
            ]

    for compile in ("off", "on"):
        with pytest.MonkeyPatch.context() as patch:
            ready(patch)
            t = trainer(algorithm=Shared, compile=compile, epochs=1, batch_size=N, lr=0.2)
            with torch.no_grad():
                t._algorithm.b.fill_(1.0)
            t.run()
        expected = 0.1 * data().images.mean(0)
        torch.testing.assert_close(t._algorithm.a.detach(), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(t._algorithm.b.detach(), torch.full((D,), 0.8).double())


def test_what_a_loss_reaches():
    t = trainer()
    before = torch.get_rng_state()
    found = reached(t.pair, t.train, lambda x, index: t._algorithm.second(x, index) * torch.rand(1))
    assert list(found) == ["pair.a", "pair.b"]
    assert torch.equal(before, torch.get_rng_state())
    assert reached(t.pair, t.train, lambda x, index: x.sum()) == {}
    t.pair.train()
    with pytest.raises(ZeroDivisionError):
        reached(t.pair, t.train, lambda x, index: x / (1 // 0))
    assert all(module.training for module in t.pair.modules())


def test_all_phases_are_compiled_or_none(monkeypatch):
    ready(monkeypatch)

    class Reading(TwoPhases):
        def second(self, x, index):
            return super().second(x, index) * (1 if float(x.sum()) < 1e9 else 2)

    t = trainer(algorithm=Reading, compile="auto")
    t.compiling.on = True
    t.run()
    assert not t.compiling.on and not any(learner.step.compiled for learner in t._learners.each)
    with pytest.raises(UsageError, match="--compile on: .* reads a value back"):
        trainer(algorithm=Reading, compile="on").run()
    with pytest.raises(NotCapturable):
        t._learners.each[1].step.compile(torch.arange(B), t.train.take(torch.arange(B)))


def test_the_kl_scale_is_in_the_tensor_that_a_recorded_update_reads():
    r"""A CUDA graph replays kernels alone, so no call may be what fills it."""
    step = trainer()._learners.each[0].step
    step.kl_scale = 0.25
    assert float(step._scale) == step.kl_scale == 0.25


def test_what_does_not_apply_is_refused(tmp_path):
    t = trainer(tmp_path / "c.pt", epochs=0)
    t.run()
    pair, batches = t.pair, t.train
    for name, settings, said in [
        ("wake_slep", {}, "no algorithm 'wake_slep': did you mean 'wake_sleep'"),
        ("adversarial", {"objective": "iwae"}, "--objective iwae is for --algorithm svi"),
        ("wake_sleep", {"num_particles": 3}, "--num-particles 3 is for --algorithm svi"),
        ("wake_sleep", {"weight_noise": "local"}, "--weight-noise local is for --algorithm svi"),
        (
            "adversarial",
            {"options": {"discriminator_lr": 1.0}},
            "no option 'discriminator_lr' .did you mean 'discriminator_rate'..; it takes disc",
        ),
        ("svi", {"options": {"lr": 1.0}}, "svi has no option 'lr'; it takes none"),
        ("wake_sleep", {}, "wake_sleep cannot train .*: it has no latent site"),
        ("adversarial", {}, "adversarial cannot train .*: it has no module `discriminator`"),
    ]:
        with pytest.raises(UsageError, match=said):
            make_algorithm(name, pair, batches, **settings)
    with pytest.raises(UsageError, match="--kl-warm-up 3 is for --algorithm svi; two_phases"):
        trainer(kl_warm_up=3)
    other = Trainer(pair, batches, batches, make_algorithm(None, pair, batches), tmp_path / "c.pt")
    with pytest.raises(UsageError, match="written by --algorithm two_phases, this is svi"):
        other.resume()
