"""What several files of tests do alike: refusals of commands, steps, runs, bounds, means."""

import math
import os
import signal
from base64 import b64decode
from contextlib import ExitStack
from hashlib import sha256
from unittest.mock import patch

import numpy as np
import pyro
import pytest
import torch
from matplotlib.figure import Figure
from pyro import poutine

import pyro_aevb.training.step
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.marginal import Marginals
from pyro_aevb.estimators.metrics import summarize
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.training.trainer import seed_everything

SAVEFIG = Figure.savefig
DOT = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
KINDS = ("lines", "collections", "images", "patches", "texts")
SHOWN = (
    "get_text",
    "get_label",
    "get_xydata",
    "get_offsets",
    "get_array",
    "get_facecolor",
    "get_verts",
)


def dot(figure):
    """A picture of one point, and behind it a digest of what lines, texts and the rest show."""
    digest, artists = sha256(), [*figure.texts]
    # Not figure.findobj(): it would make every tick.
    for axes in figure.axes:
        artists += [axes.title, axes.xaxis.label, axes.yaxis.label]
        artists += [a for kind in KINDS for a in getattr(axes, kind)]
        for axis in (axes.xaxis, axes.yaxis):
            labels = getattr(axis.get_major_formatter(), "seq", [])
            digest.update(f"{axis.get_view_interval()} {axis.get_ticklocs()} {[*labels]}".encode())
    for legend in (*figure.legends, *(axes.get_legend() for axes in figure.axes)):
        artists += [legend.get_title(), *legend.get_texts()] if legend is not None else []
    for artist in artists:
        for name in SHOWN:
            value = getattr(artist, name, lambda: None)()
            if isinstance(value, str) or value is None:
                digest.update(f"{name} {value}".encode())
            else:
                digest.update(np.asarray(value, float).tobytes())
    return DOT + digest.digest()


def rendering():
    """Inside this what is written are the figures, see conftest.py."""
    return patch.object(Figure, "savefig", SAVEFIG)


def refusal(command, capsys):
    """The one line that a command says to a mistake, with the exit status 2."""
    with pytest.raises(SystemExit) as left:
        command()
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def assert_mean(samples, expected, errors=4.0, precision=math.inf):
    """The mean is right within standard errors, which are small against what is estimated."""
    error = samples.std(0) / math.sqrt(len(samples))
    assert error.norm() < precision * expected.norm()
    assert ((samples.mean(0) - expected).abs() < errors * error + 1e-9).all()


def assert_on_the_device_of_the_data(source, x):
    """The meta device, as CUDA, refuses to compute with a tensor that lives on the CPU."""
    source, x = source.to("meta"), x.to("meta")
    with pyro.validation_enabled(False):  # Pyro's look-out for NaN needs values
        guide = poutine.trace(source.guide).get_trace(x)
        model = poutine.trace(poutine.replay(source.model, trace=guide)).get_trace(x)
        alone = poutine.trace(poutine.uncondition(source.model)).get_trace(x)
    assert alone.nodes["x"]["value"].shape == x.shape
    for node in (*model.nodes.values(), *guide.nodes.values(), *alone.nodes.values()):
        if node["type"] == "sample" and node["name"] != "data":
            assert node["value"].device.type == "meta"


# Bounds


def bound(objective, pair, x, seed=0):
    """An objective's value, differentiable, under a seed."""
    pyro.set_rng_seed(seed)
    with pair.active(), WholeBatch():
        return -objective.differentiable_loss(pair.model, pair.guide, x)


def gradient(objective, pair, x, seed=0):
    """By the parameter's name; zero where there is none."""
    parameters, value = pair.trainable(), bound(objective, pair, x, seed)
    grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return {
        name.removeprefix("pair."): torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(parameters.items(), grads, strict=True)
    }


def flat(gradients, names=None):
    return torch.cat([gradients[name].flatten() for name in names or gradients])


# Scores


def summary(test, *others):
    """What there is to say of scores alone: log p(x) is estimated by the guide's own draws."""
    marginals = None if test.log_weight is None else Marginals.of_guide(test)
    return summarize(test, marginals, *others)


# Steps


def in_training(pair):
    stack = ExitStack()
    for context in (pair.active(), WholeBatch(), pyro.validation_enabled(False)):
        stack.enter_context(context)
    return stack


def capture_only(monkeypatch):
    """Steps are captured and left as they are."""
    monkeypatch.setattr(pyro_aevb.training.step, "compile_captured", lambda graph, *_, **__: graph)


def taken(step, *batch, seed=3, kl_scale=None):
    """The loss of a step, and the gradients that it leaves in every tensor of the pair."""
    everything = step.pair.trainable()
    for value in everything.values():
        value.grad = None
    step.kl_scale = step.kl_scale if kl_scale is None else kl_scale
    torch.manual_seed(seed)
    with in_training(step.pair):
        loss = step(*batch)
    return loss, {k: v.grad.clone() for k, v in everything.items() if v.grad is not None}


def assert_steps_agree(one, other, rtol):
    """Relative to the largest entry: others cancel to zero with an error of that size."""
    (loss, gradients), (loss_too, gradients_too) = one, other
    torch.testing.assert_close(loss, loss_too, rtol=rtol, atol=0)
    assert gradients.keys() == gradients_too.keys()
    for name, gradient in gradients.items():
        error = (gradient - gradients_too[name]).abs().max()
        assert error <= rtol * gradient.abs().max(), name


def assert_compiles(step, example, *batches, rtol=1e-5, scales=(None,)):
    """A step that was compiled on an example takes batches as it does eagerly."""
    cases = [(batch, scale) for batch in batches or [example] for scale in scales]
    eager = [taken(step, *batch, kl_scale=scale) for batch, scale in cases]
    with in_training(step.pair):
        step.compile(*example)
    for found, (batch, scale) in zip(eager, cases, strict=True):
        assert_steps_agree(found, taken(step, *batch, kl_scale=scale), rtol)


# Runs


def rows(history):
    """But for the speed, which nothing repeats."""
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in history]


def assert_same_run(one, other):
    for part in (lambda t: t.pair.tensors(), lambda t: t._algorithm.state):
        values, others = part(one), part(other)
        assert list(values) == list(others)
        for name, value in values.items():
            assert torch.equal(value, others[name]), name
    assert rows(one.history) == rows(other.history)


def stopped(part, how, at):
    """Run a trainer until its batch number `at`: then it is killed, or a signal interrupts it."""
    update, calls = part._update, []

    def stopping(index):
        calls.append(index)
        if len(calls) == at:
            if how == "killed":
                raise UsageError("killed")
            os.kill(os.getpid(), signal.SIGINT)
        return update(index)

    part._update = stopping
    with pytest.raises(UsageError if how == "killed" else KeyboardInterrupt):
        part.run()


def assert_resumes(make, path, steps):
    """A run that is killed after so many steps, and resumed, is the one that ran on.

    All since its last checkpoint is lost; `make` gives a trainer with a checkpoint, or none.
    """
    whole = make(None)
    whole.run()
    part = make(path)
    update, calls = part._update, iter(range(steps))

    def dies(index):
        if next(calls, None) is None:
            raise UsageError("killed")
        return update(index)

    part._update = dies
    with pytest.raises(UsageError, match="killed"):
        part.run()
    seed_everything(99)
    resumed = make(path)
    torch.rand(3)
    resumed.resume()
    resumed.run()
    assert_same_run(whole, resumed)
    return whole
