"""Captured and compiled steps against eager ones, with the same random draws."""

from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from harness import (
    assert_compiles,
    assert_resumes,
    assert_steps_agree,
    capture_only,
    in_training,
    taken,
)
from torch import nn

import pyro_aevb.engine.inductor
import pyro_aevb.training.step
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.corruption import GaussianNoise
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.engine import rewrites
from pyro_aevb.engine.capture import NotCapturable, capture
from pyro_aevb.engine.inductor import compile_captured
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.objectives.elbo import TraceELBO
from pyro_aevb.training.step import Step
from pyro_aevb.training.svi import SVI
from pyro_aevb.training.trainer import Trainer, seed_everything

EXAMPLES = Path(__file__).parent.parent / "examples"
B = 24
PAIRS = {
    "mlp": ("VAE", {}),
    "conv": ("VAE", {"network": "conv", "hidden": [4, 8]}),
    "gaussian": ("VAE", {"likelihood": "gaussian"}),
    "autoencoder": ("Autoencoder", {"hidden": [32]}),
    "module": (f"{EXAMPLES}/my_vae.py:MyVAE", {}),
    "classic": (f"{EXAMPLES}/classic_vae.py:VAE", {}),
    "functions": (f"{EXAMPLES}/two_functions.py", {}),
    "hierarchical": (f"{EXAMPLES}/hierarchical.py:TwoLayers", {}),
    "weights": (f"{EXAMPLES}/bayesian_decoder.py:BayesianDecoder", {}),
}


def images(n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)


def make_step(pair, objective="elbo", particles=1, noise="shared", data=None):
    data = Split(images() if data is None else data, None, 255)
    if isinstance(pair, str):
        name, parameters = PAIRS[pair]
        pair = load_pair(name, parameters, DataSet("made", data, data, data, "none", ""))
    batches = Batches(data, "dynamic")
    if pair.description is None:
        inspect(pair, batches.take(torch.arange(5)))
    (phase,) = SVI(pair, make_objective(objective, particles), noise).phases
    return Step(pair, phase, batches)


def given(step, index):
    """What particles share is not made by the step, which is taken for each."""
    return (index, step.data.take(index)) if step.phase.particles > 1 else (index,)


@pytest.mark.parametrize("objective, particles", [("elbo", 1), ("sampled_elbo", 2), ("iwae", 3)])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_captured_step_is_the_eager_one(pair, objective, particles, monkeypatch):
    capture_only(monkeypatch)
    step = make_step(pair, objective, particles)
    index, other = (given(step, torch.randperm(60)[:B]) for _ in range(2))
    assert_compiles(step, index, index, other, scales=(1.0, 0.3))


class Offset(nn.Module):
    r"""Pixels of logits w, drawn around a sum of two parameters, which have one gradient."""

    def __init__(self):
        super().__init__()
        self.base = nn.Parameter(torch.zeros(1, 28, 28))
        self.offset = nn.Parameter(torch.zeros(1, 28, 28))

    def model(self, x):
        w = pyro.sample("w", dist.Normal(torch.zeros(1, 28, 28), 1).to_event(3))
        with pyro.plate("data", 60, subsample_size=len(x)):
            pyro.sample("x", dist.Bernoulli(logits=w.expand(x.shape)).to_event(3), obs=x)

    def guide(self, x):
        pyro.sample("w", dist.Normal(self.base + self.offset, 1).to_event(3))


@pytest.mark.parametrize("pair", ["weights", "offset"])
@pytest.mark.parametrize("compiled", [False, True])
def test_particles_that_draw_weights_are_averaged_one_by_one(compiled, pair, monkeypatch):
    capture_only(monkeypatch)
    step = make_step(pair if pair in PAIRS else load_pair(Offset()), "elbo", 3)
    assert step.phase.particles == 3
    index, x = given(step, torch.arange(B))
    if compiled:
        with in_training(step.pair):
            step.compile(index, x)
    found = taken(step, index, x)
    with in_training(step.pair):
        torch.manual_seed(3)
        whole = TraceELBO(3).differentiable_loss(step.pair.model, step.pair.guide, x) / 60
        expected = torch.autograd.grad(whole, list(step.parameters.values()))
    assert_steps_agree((whole, dict(zip(step.parameters, expected, strict=True))), found, 1e-5)


def test_particles_with_work_in_common_are_averaged_at_once():
    assert make_step("weights", "iwae", 3).phase.particles == 1  # inside a logarithm
    pair = make_step("weights").pair
    algorithm = SVI(pair, make_objective("elbo", 3), "shared", GaussianNoise(0.1))
    assert algorithm.phases[0].particles == 1  # the corrupted data


@pytest.mark.parametrize("objective", ["elbo", "sampled_elbo"])
@pytest.mark.parametrize("noise", ["local", "flipout"])
def test_weight_noise_is_captured(noise, objective, monkeypatch):
    capture_only(monkeypatch)
    step = make_step("weights", objective, noise=noise)
    assert_compiles(step, (torch.randperm(60)[:B],))
    for pair, objective, wrong, said in (
        ("weights", "iwae", noise, "is for the ELBO; IWAE needs"),
        ("mlp", "elbo", noise, "VAE has no uncertain weights"),
        ("weights", "elbo", "no", "--weight-noise is 'no'; it must be one of shared, local"),
    ):
        with pytest.raises(UsageError, match=said):
            make_step(pair, objective, 3, wrong)


@pytest.mark.parametrize(
    "pair, objective, particles",
    [("weights", "elbo", 2)],  # runs that are compiled below are of MLPs
)
def test_a_compiled_step_is_the_eager_one(pair, objective, particles):
    step = make_step(pair, objective, particles)
    index, other = (given(step, torch.randperm(60)[:B]) for _ in range(2))
    assert_compiles(step, index, index, other, rtol=1e-4, scales=(1.0, 0.3))
    # It reads the live parameters, and a batch of another length still runs.
    with torch.no_grad():
        for value in step.parameters.values():
            value.mul_(0.9)
    few = tuple(values[:7] for values in index)
    found = [taken(step, *batch) for batch in (index, few)]
    step._size = 0
    assert_steps_agree(taken(step, *index), found[0], 1e-4)
    assert_steps_agree(taken(step, *few), found[1], 1e-12)


class Location(nn.Module):
    r"""x ~ N(theta, 1): the loss per datum is the mean of 0.5 |x - theta|^2 + 0.5 d log 2 pi."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(4))
        self.unused = nn.Parameter(torch.ones(3))

    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.theta, 1).to_event(1), obs=x)

    def guide(self, x):
        pass


def test_small_parameters_are_not_frozen_and_unused_ones_get_no_gradient():
    pixels = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    batches = Batches(Split(pixels, None, 1), "none")
    pair, index = load_pair(Location()), torch.arange(B)
    inspect(pair, batches.take(torch.arange(5)))
    step = Step(pair, SVI(pair, make_objective("elbo")).phases[0], batches)
    with in_training(pair):
        step.compile(index)
    for value in (0.0, 2.0):
        with torch.no_grad():
            step.parameters["pair.theta"].fill_(value)
        loss, gradients = taken(step, index, kl_scale=1.0)
        expected = -dist.Normal(torch.tensor(value), 1).log_prob(pixels[:B]).sum() / B
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        assert list(gradients) == ["pair.theta"]
        slope = value - pixels[:B].mean(0)
        torch.testing.assert_close(gradients["pair.theta"], slope, rtol=1e-5, atol=1e-6)


def test_draws_are_fresh_reproducible_and_not_spent_by_compiling():
    step, index = make_step("mlp"), torch.arange(B)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with in_training(step.pair):
        step.compile(index)
    assert torch.equal(before, torch.get_rng_state())
    first, again = (float(taken(step, index, seed=8)[0]) for _ in range(2))
    with step.pair.active(), WholeBatch():
        others = [float(step(index)) for _ in range(20)]
    assert first == again
    assert len({first, *others}) == 21
    # On a CPU they are those of the eager step, one after the other.
    step._size = 0
    assert float(taken(step, index, seed=8)[0]) == pytest.approx(first, rel=1e-5)
    with step.pair.active(), WholeBatch():
        assert [float(step(index)) for _ in range(20)] == pytest.approx(others, rel=1e-5)


class Normalized(nn.Module):
    """A running average that every step moves, in a guide."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(784)
        self.encoder, self.decoder = nn.Linear(784, 3), nn.Linear(3, 784)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1).to_event(1))
            logits = self.decoder(z)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x.flatten(1))

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc = self.encoder(self.norm(x.flatten(1)))
            pyro.sample("z", dist.Normal(loc, 1).to_event(1))


def test_running_averages_move_once_a_step():
    pair = load_pair(Normalized())
    step = make_step(pair)
    pair.train()
    index = torch.arange(B)
    start = {k: v.detach().clone() for k, v in pair.tensors().items()}
    eager = taken(step, index)
    moved = {k: v.detach().clone() for k, v in pair.tensors().items()}
    pair.load_tensors(start, "the start")
    with in_training(pair):
        step.compile(index)
    for name, value in pair.tensors().items():
        assert torch.equal(value, start[name]), name
    assert_steps_agree(eager, taken(step, index), 2e-5)
    assert not torch.equal(moved["pair.norm.running_mean"], start["pair.norm.running_mean"])
    for name, value in pair.tensors().items():
        torch.testing.assert_close(value, moved[name], rtol=1e-5, atol=1e-6)


def test_what_cannot_be_captured_says_why():
    x, y = torch.arange(6.0), torch.arange(6.0) - 9
    with pytest.raises(NotCapturable, match="reads a value back"):
        capture(lambda t: [t * 2 if t.sum() > 0 else t], (x,), (y,))

    def broken(t):
        raise KeyError("missing")

    with pytest.raises(NotCapturable, match="KeyError: 'missing'"):
        capture(broken, (x,), (y,))


def test_without_a_compiler_it_says_so(monkeypatch):
    captured = capture(lambda t: [t * 2], (torch.ones(3),), (torch.zeros(3),))
    pyro_aevb.engine.inductor.missing.cache_clear()
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NotCapturable, match="no C\\+\\+ compiler"):
        compile_captured(captured, (torch.ones(3),))
    monkeypatch.undo()
    pyro_aevb.engine.inductor.missing.cache_clear()


def product_graph(a, b, bias):
    function = (lambda a, b, c: [torch.addmm(c, a.t(), b), a.t() @ b]) if bias is not None else None
    return capture(function, (a, b, bias), (a + 1, b, bias))


def targets(captured):
    return [node.target for node in captured.graph.graph.nodes if node.op == "call_function"]


@pytest.mark.skipif(not rewrites.available(), reason="torch without oneDNN")
@pytest.mark.parametrize("reduced, tolerance", [(False, 1e-6), (True, 2**-7)])
def test_products_by_onednn_are_those_of_mkl(reduced, tolerance, monkeypatch):
    """bfloat16 has 8 bits; of two rounded operands and a rounded sum the errors stay below 2^-7."""
    monkeypatch.setattr(rewrites, "mkl_at_home", lambda: False)
    torch.manual_seed(0)
    a, b, bias = torch.randn(200, 150), torch.randn(200, 160), torch.randn(160)
    captured = product_graph(a, b, bias)
    rewrites.use_onednn(captured.graph, reduced)
    assert torch.ops.aten.mm.default not in targets(captured)
    assert torch.ops.aten.addmm.default not in targets(captured)
    exact = a.double().t() @ b.double()
    for result, expected in zip(captured(a, b, bias), (exact + bias, exact), strict=True):
        error = (result - expected).abs().max() / expected.abs().max()
        assert error < tolerance
        assert (error > 1e-4) == reduced


def test_small_products_and_machines_without_onednn_keep_torchs(monkeypatch):
    small = product_graph(torch.randn(9, 9), torch.randn(9, 9), torch.randn(9))
    rewrites.use_onednn(small.graph, False)
    assert torch.ops.aten.mm.default in targets(small)
    monkeypatch.setattr(rewrites, "mkl_at_home", lambda: True)
    for reduced in (False, True):  # MKL has no bfloat16 products of its own
        large = product_graph(torch.randn(200, 150), torch.randn(200, 160), torch.randn(160))
        rewrites.use_onednn(large.graph, reduced)
        assert (torch.ops.aten.mm.default in targets(large)) == (not reduced)
    monkeypatch.setattr(rewrites, "mkl_at_home", lambda: False)
    monkeypatch.setattr(rewrites, "_product", lambda *_: (_ for _ in ()).throw(RuntimeError("no")))
    rewrites.available.cache_clear()
    large = product_graph(torch.randn(200, 150), torch.randn(200, 160), torch.randn(160))
    rewrites.use_onednn(large.graph, False)
    assert torch.ops.aten.mm.default in targets(large)
    monkeypatch.undo()
    rewrites.available.cache_clear()


def make_trainer(checkpoint, **settings):
    seed_everything(1)
    step = make_step("mlp", data=images(50))
    data, valid = step.data, Batches(Split(images(10, 1), None, 255), "fixed")
    objective = settings.pop("objective", make_objective("elbo"))
    settings = {"batch_size": 20, "lr": 1e-2, "seed": 1, **settings}
    return Trainer(step.pair, data, valid, objective, checkpoint, **settings)


def test_a_compiled_run_that_was_interrupted_is_the_uninterrupted_one(tmp_path):
    """Two full batches and one of 10 in each epoch; `auto` follows the run it continues."""
    path, compile = tmp_path / "c.pt", iter(["on", "on", "auto"])
    assert_resumes(lambda part: make_trainer(path, epochs=2, compile=next(compile)), path, 4)


def test_the_choice_to_compile(tmp_path, capsys, monkeypatch):
    from pyro.infer import Trace_ELBO

    made, make = [], partial(make_trainer, tmp_path / "checkpoint.pt")
    monkeypatch.setattr(Step, "compile", lambda self, index: made.append(len(index)))
    make(epochs=1).run()
    make(epochs=1, compile="off").run()
    assert made == []
    make(epochs=1, compile="on").run()
    monkeypatch.setattr("pyro_aevb.training.compiling.COMPILE_FROM", 2)
    make(epochs=1).run()
    assert made == [20, 20]
    monkeypatch.undo()
    monkeypatch.setattr("pyro_aevb.training.compiling.COMPILE_FROM", 2)
    make(epochs=1, objective=Trace_ELBO(), show=True).run()
    said = capsys.readouterr()
    assert (said.out + said.err).count("is trained eagerly: it reads a value back") == 1
    with pytest.raises(UsageError, match="--compile on: VAE has to be trained eagerly: it reads"):
        make(epochs=1, objective=Trace_ELBO(), compile="on").run()
    with pytest.raises(UsageError, match="--compile is 'maybe'"):
        make(compile="maybe")


def test_binarization_rounds_probabilities_to_16_bits(monkeypatch):
    """With every 16-bit word drawn once, a grey level is 1 as often as its rounded probability."""
    words = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.int64)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: words)
    for level in range(256):
        grey = torch.full((1, 256, 256), level, dtype=torch.uint8)
        x = Batches(Split(grey, None, 255), "dynamic").take(torch.zeros(1, dtype=torch.int64))
        assert int(x.sum()) == round(2**16 * level / 255)


def test_neighbours_that_share_a_draw_of_64_bits_are_independent():
    grey = torch.full((400, 1, 28, 28), 127, dtype=torch.uint8)
    x = Batches(Split(grey, None, 254), "dynamic").take(torch.arange(400)).flatten()
    for shift in (1, 2, 3, 4):
        product = float((x[shift:] * x[:-shift]).mean())
        assert abs(product - 0.25) < 5 * (0.25 * 0.75 / len(x)) ** 0.5
