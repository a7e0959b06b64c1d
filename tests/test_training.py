"""The loop: steps against closed forms, and interrupted runs against uninterrupted ones."""

import math
import os
import resource
import signal

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import nn

from pyro_aevb.data.batches import Batches, order
from pyro_aevb.data.split import Split
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.runs.checkpoint import load_checkpoint, save_checkpoint
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.optimizers import kl_scale, make_schedule
from pyro_aevb.training.trainer import Trainer, seed_everything

N, D = 37, 4


def batches(binarize="none"):
    pixels = torch.from_numpy(np.random.RandomState(0).rand(N, D).astype(np.float32))
    return Batches(Split(pixels, None, 1), binarize)


class Location(nn.Module):
    r"""x ~ N(theta, 1), with a deterministic code that carries no density: no random numbers."""

    def __init__(self, num_data=None):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(D))
        self.num_data = num_data

    def plate(self, x):
        if self.num_data is None:
            return pyro.plate("data", len(x))
        return pyro.plate("data", size=self.num_data, subsample_size=len(x))

    def model(self, x):
        with self.plate(x):
            pyro.sample("x", dist.Normal(self.theta, 1).to_event(1), obs=x)

    def guide(self, x):
        pass


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(D, 4), nn.Linear(2, D)
        self.noise = nn.Dropout(0.2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1).to_event(1))
            logits = self.decoder(self.noise(z))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


class Classic(Module):
    def model(self, x):
        pyro.module("decoder", self.decoder)
        super().model(x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        shift = pyro.param("shift", lambda: torch.zeros(2))
        width = pyro.param("width", torch.ones(2), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x)[:, :2] + shift, width).to_event(1))


class Weights(PyroModule):
    r"""A Bayesian linear layer under an autoguide, beside an amortized code."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(D, 4)
        self.layer = PyroModule[nn.Linear](2, D)
        self.layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([D, 2]).to_event(2))
        self.weights = AutoNormal(poutine.block(self.model, hide=["z"]))

    def model(self, x):
        weight = self.layer.weight
        with pyro.plate("data", size=N, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1).to_event(1))
            logits = z @ weight.T + self.layer.bias
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x):
        self.weights(x)
        with pyro.plate("data", size=N, subsample_size=len(x)):
            loc, scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def trainer(make, path=None, binarize="none", objective=None, **settings):
    seed_everything(1)
    train, valid = batches(binarize), batches("none" if binarize == "none" else "fixed")
    pair = load_pair(make)
    inspect(pair, train.take(torch.arange(5)))
    settings = {"batch_size": 10, "lr": 0.05, "seed": 1, **settings}
    return Trainer(pair, train, valid, objective or TraceELBO(), path, **settings)


@pytest.mark.parametrize("num_data", [None, N])
def test_steps_of_sgd_equal_the_closed_form_with_a_smaller_last_batch(num_data):
    t = trainer(Location(num_data), epochs=2, optimizer="sgd", lr=0.3)
    history = t.run()
    x = batches().images.double().numpy()
    theta, objectives = np.zeros(D), []
    for epoch in range(2):
        index, total = order(N, 1, epoch).numpy(), 0.0
        for start in range(0, N, 10):
            rows = x[index[start : start + 10]]
            per_datum = -0.5 * ((rows - theta) ** 2).sum(1) - D / 2 * math.log(2 * math.pi)
            total += per_datum.sum() / N
            theta = theta + 0.3 * (rows - theta).mean(0)
        objectives.append(total)
    torch.testing.assert_close(
        t.pair.trainable()["pair.theta"].detach().double().numpy(), theta, atol=1e-6, rtol=0
    )
    assert [row["objective"] for row in history] == pytest.approx(objectives, abs=1e-5)
    expected = (-0.5 * ((x - theta) ** 2).sum(1) - D / 2 * math.log(2 * math.pi)).mean()
    assert history[-1]["reconstruction"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "objective", ["pyro.infer.Trace_ELBO", "pyro.infer.RenyiELBO", "pyro.infer.TraceGraph_ELBO"]
)
def test_stock_objectives_take_the_same_step(objective):
    r"""Without latents every bound is log p(x); RenyiELBO only back-propagates by itself."""
    one = trainer(Location(N), epochs=1, optimizer="sgd")
    particles = 2 if "Renyi" in objective else 1
    other = trainer(
        Location(N), epochs=1, optimizer="sgd", objective=make_objective(objective, particles)
    )
    one.run()
    other.run()
    torch.testing.assert_close(
        one.pair.trainable()["pair.theta"], other.pair.trainable()["pair.theta"]
    )


class Stop(Exception):
    pass


SETTINGS = [
    {"schedule": "cosine", "kl_warm_up": 2},
    {"optimizer": "adagrad", "patience": 3, "drop_last": True},
    {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}, "schedule": "iwae"},
]


@pytest.mark.parametrize("make", [Module, Classic, Weights])
@pytest.mark.parametrize("settings", SETTINGS, ids=["cosine", "patience", "iwae"])
@pytest.mark.parametrize("how", ["killed", "interrupted", "paused"])
def test_a_resumed_run_equals_an_uninterrupted_one(make, settings, how, tmp_path):
    settings = {"epochs": 5, "binarize": "dynamic", **settings}
    whole = trainer(make, tmp_path / "whole.pt", **settings)
    whole.run()

    path = tmp_path / "parts.pt"
    if how == "killed":  # whatever happened after the checkpoint of epoch 3 is lost
        part = trainer(make, path, **settings)

        def stop(history):
            if len(history) == 3:
                torch.rand(7)
                raise Stop

        part.on_epoch = stop
        with pytest.raises(Stop):
            part.run()
    elif how == "paused":
        part = trainer(make, path, stop_after=3, **settings)
        assert len(part.run()) == 3
    else:

        class Interrupting(TraceELBO):
            calls = 0

            def differentiable_loss(self, *args):
                self.calls += 1
                if self.calls == 10:  # in the middle of an epoch
                    os.kill(os.getpid(), signal.SIGINT)
                return super().differentiable_loss(*args)

        part = trainer(make, path, objective=Interrupting(), **settings)
        with pytest.raises(KeyboardInterrupt):
            part.run()
        at, steps = part.progress, 3 if settings.get("drop_last") else 4
        assert (at.epoch, at.step) == divmod(10, steps)

    seed_everything(99)
    resumed = trainer(make, path, **settings)
    torch.rand(3)
    resumed.resume()
    resumed.run()
    a, b = whole.pair.tensors(), resumed.pair.tensors()
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name
    for row, other in zip(whole.history, resumed.history, strict=True):
        row, other = dict(row), dict(other)
        row.pop("images_per_second"), other.pop("images_per_second")
        assert row == other


def test_a_smaller_last_batch_may_be_left_out():
    """37 data in batches of 9: each epoch leaves out the last of its order."""
    run = trainer(Location(), epochs=3, batch_size=9, drop_last=True, optimizer="sgd", lr=0.1)
    history, data = run.run(), batches().images
    theta, constant = torch.zeros(D), D / 2 * math.log(2 * math.pi)
    for epoch, row in enumerate(history):
        losses = []
        for index in order(N, 1, epoch)[:36].split(9):
            gradient = (theta - data[index]).mean(0)
            losses.append(0.5 * (data[index] - theta).square().sum(1).mean() + constant)
            theta = theta - 0.1 * gradient
        assert row["objective"] == pytest.approx(-float(sum(losses) / 4), rel=1e-5)
    torch.testing.assert_close(run.pair.trainable()["pair.theta"].detach(), theta)
    with pytest.raises(UsageError, match="--drop-last with --batch-size 38 leaves nothing of 37"):
        trainer(Location(), batch_size=38, drop_last=True)


def test_a_last_batch_that_fails_is_said_before_the_first_step():
    class Normed(Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(self.encoder, nn.BatchNorm1d(4))

    for size in (9, 12, 36):
        run = trainer(Normed(), binarize="fixed", epochs=1, batch_size=size)
        with pytest.raises(UsageError, match="last batch of an epoch has 1 of 37 .*--drop-last"):
            run.try_objective()
        run = trainer(Normed(), binarize="fixed", epochs=1, batch_size=size, drop_last=True)
        run.try_objective()
        assert math.isfinite(run.run()[0]["objective"])
    trainer(Normed(), binarize="fixed", epochs=1, batch_size=10).try_objective()


def test_a_last_batch_without_a_number_is_said_before_the_first_step():
    """A variance over the batch, by which training alone scales, is 0/0 for one datum."""

    class Scaled(Module):
        def guide(self, x):
            spread = ((x - x.mean(0)) ** 2).sum(0) / (len(x) - 1)
            with pyro.plate("data", len(x)):
                loc, scale = self.encoder(x).chunk(2, -1)
                loc = loc * (1 + spread.sum()) if self.training else loc
                q = dist.Normal(loc, scale.exp(), validate_args=False)
                pyro.sample("z", q.to_event(1))

        def model(self, x):
            with pyro.plate("data", len(x)):
                p = dist.Normal(x.new_zeros(len(x), 2), 1, validate_args=False)
                z = pyro.sample("z", p.to_event(1))
                q = dist.Bernoulli(logits=self.decoder(z), validate_args=False)
                pyro.sample("x", q.to_event(1), obs=x)

    run = trainer(Scaled(), binarize="fixed", epochs=1, batch_size=12)
    run.pair.eval()  # trying the loss is training, whatever mode the pair comes in
    with pytest.raises(UsageError, match="its loss is not finite; the last batch .* has 1 of 37"):
        run.try_objective()
    assert not run.pair.training
    run = trainer(Scaled(), binarize="fixed", epochs=1, batch_size=12, drop_last=True)
    run.try_objective()
    assert math.isfinite(run.run()[0]["objective"])


def test_a_schedule_that_is_too_short_is_said_before_the_first_step():
    def rates(steps):
        options = {"max_lr": 0.3, "total_steps": steps, "cycle_momentum": False}
        settings = {"schedule": "OneCycleLR", "schedule_options": options, "epochs": 6}
        return [r["learning_rate"] for r in trainer(Location(), optimizer="sgd", **settings).run()]

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, 9, cycle_momentum=False)
    expected = []
    for _ in range(6):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates(9) == pytest.approx(expected)
    with pytest.raises(UsageError, match="OneCycleLR cannot take a step .* of 6 epochs: .* 4"):
        rates(4)
    table = [1.0, 0.5, 0.2]  # a function of one's own, that looks rates up
    settings = {"schedule": "LambdaLR", "schedule_options": {"lr_lambda": table.__getitem__}}
    listed = trainer(Location(), epochs=2, lr=0.3, optimizer="sgd", **settings).run()
    assert [row["learning_rate"] for row in listed] == pytest.approx([0.3, 0.15])
    with pytest.raises(UsageError, match="LambdaLR .* each of 3 epochs: list index out of range"):
        trainer(Location(), epochs=3, **settings)


def test_a_run_made_longer_follows_the_longer_schedule(tmp_path):
    settings = {"schedule": "cosine", "schedule_options": {"final": 0.0}, "lr": 0.2}
    path = tmp_path / "run.pt"
    trainer(Location(), path, epochs=2, **settings).run()
    longer = trainer(Location(), path, epochs=5, **settings)
    longer.resume()
    rates = [row["learning_rate"] for row in longer.run()]
    expected = [0.1 * (1 + math.cos(math.pi * e / (2 if e < 2 else 5))) for e in range(5)]
    np.testing.assert_allclose(rates, expected, atol=1e-12)


def test_patience_stops_and_returns_to_the_best_epoch():
    t = trainer(Location(), epochs=50, optimizer="sgd", lr=2.5, patience=4)  # diverges
    history = t.run()
    values = [row["reconstruction"] for row in history]
    best = int(np.argmax(values))
    assert len(history) == best + 1 + 4 < 50
    assert t._learners.validation()[0]["reconstruction"] == pytest.approx(values[best], abs=1e-6)


@pytest.mark.parametrize(
    "first, said",
    [
        (8, r"the objective is not finite in epoch 2, step \d"),
        (9, "elbo is not finite in epoch 2 "),
    ],
)
def test_an_objective_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    first, said, tmp_path
):
    class Exploding(Location):
        calls = 0

        def model(self, x):
            self.calls += 1
            with self.plate(x):
                loc = self.theta * (math.nan if self.calls > first else 1.0)
                dist_x = dist.Normal(loc, 1, validate_args=False).to_event(1)
                pyro.sample("x", dist_x, obs=x)

    t = trainer(Exploding(), tmp_path / "c.pt", epochs=9)
    with pytest.raises(UsageError, match=f"{said}.*model x nan"):
        t.run()
    kept = load_checkpoint(tmp_path / "c.pt")
    assert kept["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in kept["tensors"].values())


def test_whatever_a_pair_raises_in_a_step_is_one_line_and_what_was_trained_is_kept(tmp_path):
    class Failing(Location):
        left = 10**9

        def model(self, x):
            self.left -= 1
            assert self.left, "no more"
            super().model(x)

    t = trainer(Failing(), tmp_path / "c.pt", epochs=3)
    t.pair.sources["pair"].left = 8  # four steps of an epoch, and four
    with pytest.raises(UsageError, match="failed on a batch of 7 in epoch 2: AssertionError: no"):
        t.run()
    (row,) = load_checkpoint(tmp_path / "c.pt")["history"]
    expected = trainer(Location(), epochs=1).run()[0]
    assert row["objective"] == expected["objective"] and row["elbo"] == expected["elbo"]


def test_validation_that_is_not_finite_names_its_datum_and_keeps_the_checkpoint(tmp_path):
    class Within(Location):
        r"""x ~ U(theta - 1, theta + 1): -D log 2, or no density at all."""

        def model(self, x):
            with self.plate(x):
                low = self.theta - 1
                dist_x = dist.Uniform(low, low + 2, validate_args=False).to_event(1)
                pyro.sample("x", dist_x, obs=x)

    for far in (False, True):
        t = trainer(Within(), tmp_path / f"{far}.pt", epochs=2)
        pixels = t.valid.images.clone()
        pixels[7, 1] = 9.0 if far else 0.9
        t._learners.validation.data = Batches(Split(pixels, None, 1), "none")
        if far:
            said = r"elbo is not finite in epoch 1 for 1 of 37 .* position 7; .* model x -inf\."
            with pytest.raises(UsageError, match=said):
                t.run()
            assert load_checkpoint(tmp_path / "True.pt")["epoch"] == 0
            continue
        for row in t.run():
            assert row["elbo"] == pytest.approx(-D * math.log(2))
            assert row["objective"] == pytest.approx(-D * math.log(2))


def test_kl_warm_up_scales_the_objective_and_not_the_validation():
    class Quiet(Module):
        def __init__(self):
            super().__init__()
            self.noise.p = 0.0

    settings = {"epochs": 4, "kl_warm_up": 3, "lr": 1e-9, "binarize": "fixed"}
    history = trainer(Quiet, objective=TraceELBO(num_particles=400), **settings).run()
    sizes, steps = np.array([10, 10, 10, N - 30]), np.arange(4)  # of the batches of an epoch
    scales = [np.minimum(1, (epoch + steps / 4) / 3) for epoch in range(4)]
    assert [row["kl_scale"] for row in history] == pytest.approx([each[-1] for each in scales])
    kl = history[0]["kl"]
    assert kl > 0.5
    for row in history:  # one draw per datum against the closed-form KL: error about 0.2
        assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl"], abs=0.5)
    # At a standstill the objective is reconstruction - scale * KL, its error about 0.01.
    means = [each @ sizes / N for each in scales]
    for row, mean in zip(history[:-1], means, strict=False):
        gained = row["objective"] - history[-1]["objective"]
        assert gained == pytest.approx((1 - mean) * kl, abs=0.04)


def test_schedules_follow_their_formulas():
    def rates(name, epochs, **options):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
        schedule = make_schedule(name, optimizer, epochs, options)
        found = []
        for _ in range(epochs):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return np.array(found)

    stages = np.repeat(np.arange(8), 3 ** np.arange(8))
    np.testing.assert_allclose(rates("iwae", 3280), 2.0 * 10 ** (-stages / 7), rtol=1e-12)
    np.testing.assert_allclose(
        rates("cosine", 10, final=0.1),
        2.0 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * np.arange(10) / 10))),
    )
    np.testing.assert_allclose(rates("iwae", 80, scale=0), rates("iwae", 80, scale=80 / 3280))
    for name, option, value in (("cosine", "final", "low"), ("iwae", "scale", -1)):
        with pytest.raises(UsageError, match=f"schedule '{name}': {option} is {value!r}"):
            rates(name, 4, **{option: value})
    np.testing.assert_allclose(rates("ExponentialLR", 4, gamma=0.5), [2, 1, 0.5, 0.25])
    np.testing.assert_allclose([kl_scale(e, 4) for e in (0, 0.5, 3, 5)], [0, 0.125, 0.75, 1])
    assert kl_scale(0, 0) == 1


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"epoch": 1})
    # A limit on the size of files, which the process outlives, stands for a full disk.
    half, kept = len(path.read_bytes()) // 2, resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (half, kept[1]))
    try:
        with pytest.raises(UsageError, match=f"cannot write {path}: File too large; the file bef"):
            save_checkpoint(path, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        signal.signal(signal.SIGXFSZ, ignored)
    assert load_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]
