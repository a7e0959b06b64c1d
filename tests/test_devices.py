"""All that is computed on a device which is not the CPU is what the CPU computes, bit for bit.

The device (second_device.py) is the CPU under another name, which refuses to mix tensors with the
CPU's and counts what the host reads. Its Laplace proposals are left out: PyTorch's function
transforms do not nest over a tensor type that is written in Python.
"""

import weakref
from contextlib import ExitStack

import numpy as np
import pytest
import second_device as second
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pyro_aevb
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.reports.proof import CASES, DrawnOnCPU, prove
from pyro_aevb.runs import prepare as preparing
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.trainer import Trainer

SMALL = {"hidden": [8], "latent_dim": 3}
FEW = {"epochs": 1, "num_samples": 10, "num_data": 10, "weight_samples": 2, "proposal": "guide"}
RUNS = {
    name: (pair, sizes, {**settings, "epochs": 3 if "algorithm_options" in settings else 1})
    for name, (pair, sizes, settings) in CASES.items()
    if name != "InfoGAN"  # its scores need the data's factors
}
WITHOUT_READS = [
    *("VAE", "VAE, iwae", "VAE, beta_tcvae", "VAE, wake_sleep", "AdversarialAutoencoder"),
    "BayesianVAE",
]


@pytest.fixture(scope="module", autouse=True)
def known():
    with second.known():
        yield


def on(device):
    """What has to surround work on a device."""
    stack = ExitStack()
    if device == "elsewhere":
        stack.enter_context(second.Factory())
    return stack


def fitted(device, path, pair, parameters, settings):
    settings = {"data": "digits:300", **FEW, "out": str(path), "show": False, **settings}
    with on(device):
        return pyro_aevb.fit(pair, pair_parameters=parameters, device=device, **settings)


def trained(run):
    """Everything that a run has learnt and found, but for times and places."""
    history = [{k: v for k, v in row.items() if "second" not in k} for row in run.history]
    state = torch.load(run.checkpoint, weights_only=True)
    results = run.results
    return history, state["pair"], results["metrics"], results.get("notes", [])


def assert_same(one, other):
    """Of metrics, rows and tensors alike."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_is_that_of_the_cpu(kind, tmp_path, monkeypatch):
    if kind != "VAE":  # its pictures are enough
        monkeypatch.setattr("pyro_aevb.reports.assess.draw_figures", lambda *_: [])
    runs = [fitted(device, tmp_path / device, *RUNS[kind]) for device in ("cpu", "elsewhere")]
    assert_same(*map(trained, runs))
    if kind == "VAE":
        pictures = [{p.name: p.read_bytes() for p in run.figures.glob("*.png")} for run in runs]
        assert len(pictures[0]) > 5
        assert pictures[0].keys() == pictures[1].keys()
        others = {name for name in pictures[0] if pictures[0][name] != pictures[1][name]}
        assert others <= {"history.png"}  # it has the seconds


def test_resumed_runs_continue_on_another_device(tmp_path):
    """Two epochs at once, and one on each device in both orders."""
    whole = fitted("cpu", tmp_path / "whole", "VAE", SMALL, {"epochs": 2})
    for first, then in (("cpu", "elsewhere"), ("elsewhere", "cpu")):
        path = tmp_path / f"{first}-{then}"
        fitted(first, path, "VAE", SMALL, {"epochs": 2, "stop_after": 1, "no_score": True})
        run = fitted(then, path, "VAE", SMALL, {"resume": True, "epochs": 2, "stop_after": None})
        assert_same(trained(whole), trained(run))


ESTIMATORS = {
    "ais": {"num_temperatures": 3, "num_chains": 2},
    "bdmc": {"num_temperatures": 3, "num_chains": 2},
    "reciprocal": {"num_chains": 2, "num_temperatures": 3, "burn_in": 2, "between": 1},
    "parzen": {"num_kernels": 50},
    "prediction": {"num_draws": 2},
    "importance": {},
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run of each device of the same seed."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_aevb.reports.assess.draw_figures", lambda *_: [])
        yield {d: fitted(d, folder / d, "VAE", SMALL, {}) for d in ("cpu", "elsewhere")}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_estimator_finds_what_it_finds_on_the_cpu(estimator, stored):
    found = {}
    options = {"num_data": 5, "show": False}
    if estimator == "importance":
        options |= {"proposal": "prior", "num_samples": 10}
    for device, run in stored.items():
        with on(device):
            scored = pyro_aevb.evaluate(run, estimator, ESTIMATORS[estimator], **options)
        found[device] = scored["metrics"]
    assert_same(found["cpu"], found["elsewhere"])


def test_what_is_asked_of_a_run_is_that_of_the_cpu(stored):
    found = {}
    for device, run in stored.items():
        with on(device):
            torch.manual_seed(0)
            corrupted = {"corruption": "gaussian", "corruption_options": {"std": 0.1}}
            other = run.evaluate(num_data=5, num_samples=5, show=False, **corrupted)
            inference = run.inference_data(num_draws=3, num_data=5)
            found[device] = (
                [
                    run.codes("test").to_numpy(),
                    run.codes("test", sample=True).to_numpy(),
                    run.sample(3),
                    run.reconstruct("test", 3),
                    second.here(pyro_aevb.decode(run, np.zeros((2, 3)))).numpy(),
                    inference.posterior_predictive["x"].to_numpy(),
                    inference.posterior["z"].to_numpy(),
                ],
                other["corrupted"],
            )
    for one, two in zip(*(values for values, _ in found.values()), strict=True):
        np.testing.assert_array_equal(one, two)
    assert_same(*(corrupted for _, corrupted in found.values()))


def held(pair, parameters=SMALL, device="elsewhere", **options):
    with on(device):
        return preparing.prepare(pair, "digits", parameters, device=device, **options)


@pytest.mark.parametrize("kind", WITHOUT_READS)
def test_between_two_looks_of_training_the_host_reads_nothing(kind):
    """The number of reads of an epoch is that of its end, however many batches there are."""
    pair, parameters, settings = RUNS[kind]
    counted = {}
    for size in (500, 50):
        made = held(pair, parameters)
        with on("elsewhere"):
            algorithm = make_algorithm(
                settings.get("algorithm"), made.pair, made.train,
                **{k: v for k, v in settings.items() if k in ("objective", "num_particles")},
            )  # fmt: skip
            trainer = Trainer(
                made.pair, made.train, made.valid.first(20), algorithm, epochs=1, batch_size=size
            )
            with second.reads() as found:
                trainer.run()
        counted[size] = len(found)
    assert counted[50] == counted[500]


def test_scoring_reads_a_number_of_times_for_a_block():
    """However many draws there are, and in however many parts they are made."""
    made = held("VAE")
    counted = []
    for draws, memory in ((30, None), (60, None), (60, 40_000), (120, 40_000)):
        with on("elsewhere"), second.reads() as found:
            score(made.pair, made.test.first(50), num_samples=draws, memory=memory)
        counted.append(len(found))
    # In parts the first is captured, and looked at.
    assert counted[0] == counted[1] and counted[2] == counted[3] <= counted[0] + 2


def test_a_tensor_that_was_left_on_the_cpu_is_an_error():
    class Forgetful(pyro_aevb.VAE):
        def model(self, x):
            self.offset = torch.zeros(len(x), 1, 1, 1, device="cpu")
            return super().model(x + self.offset)

    with pytest.raises(UsageError, match="two devices"):
        held(Forgetful)


class Limited(pyro_aevb.VAE):
    """A pair whose model needs more memory than there is for many rows."""

    rows, most, before = [], 10**9, []

    def model(self, x):
        # What a step that failed has made is gone before anything else is tried.
        assert all(made() is None for made in self.before)
        if len(x) > self.most:
            large = x.clone()
            self.before.append(weakref.ref(large))
            raise torch.OutOfMemoryError
        self.rows.append(len(x))
        return super().model(x)


def test_scoring_goes_on_in_smaller_parts_where_memory_ends(monkeypatch):
    pair = preparing.prepare(Limited, "digits:300", SMALL, device="cpu")
    found, said = [], []
    for most in (10**9, 300):
        monkeypatch.setattr(Limited, "most", most)
        found.append(score(pair.pair, pair.test, num_samples=40, compile="off", say=said.append))
    assert max(Limited.rows) > 1000  # one block has 250 data
    for name in ("elbo", "log_weight", "kl", "pareto_k"):
        one, other = (getattr(scores, name) for scores in found)
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert said == ["Limited is scored in smaller parts: the memory of cpu ended"]


@pytest.mark.parametrize("estimator", ["laplace", "ais"])
def test_what_draws_no_numbers_is_done_again_in_smaller_parts(estimator, monkeypatch):
    """Searching modes, weighing draws of the fitted normals, and moving chains."""
    pair = preparing.prepare(Limited, "digits:300", SMALL, device="cpu")
    found, said = [], []
    del Limited.rows[:]
    for most in (10**9, 40):
        monkeypatch.setattr(Limited, "most", most)
        how = {"seed": 0, "say": said.append}
        if estimator == "laplace":
            marginal = MarginalLikelihood(pair.pair, "laplace", **how)
            found.append(marginal(pair.test.first(30)).log_likelihood)
        else:
            annealer = Annealer(pair.pair, pair.test.take(torch.arange(5)), 5, 4, **how)
            found.append(annealer(pair.test.first(30)).log_weights)
    assert max(Limited.rows) > 40
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-4)
    assert sum("in smaller parts: the memory of cpu ended" in line for line in said) == 1


def test_a_batch_that_does_not_fit_ends_in_one_line_with_one_that_does(monkeypatch):
    made = preparing.prepare(Limited, "digits:300", SMALL, device="cpu")
    algorithm = make_algorithm(None, made.pair, made.train)
    trainer = Trainer(made.pair, made.train, made.valid, algorithm, epochs=1, batch_size=100)
    monkeypatch.setattr(Limited, "most", 30)
    with pytest.raises(UsageError, match="a batch of 100 does not fit.*--batch-size 25 fits"):
        trainer.run()


class Twisted(TorchDispatchMode):
    """Changes what one kind of operation gives on the device, and nothing on the CPU."""

    def __init__(self, which, change):
        super().__init__()
        self.which, self.change = which, change

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, second.Elsewhere) and self.which(func):
            made.v.copy_(self.change(made.v))
        return made


def other_draws():
    """A device with random numbers of its own, as a GPU has: those of the CPU, turned round."""
    drawing = torch.Tag.nondeterministic_seeded
    return Twisted(lambda func: drawing in func.tags, lambda v: v.flip(0) if v.dim() else v)


FEW_CASES = {name: CASES[name] for name in ("BayesianVAE", "RBM")}


def test_what_is_drawn_on_the_cpu_is_compared_draw_by_draw():
    def draw(device):
        torch.manual_seed(0)
        given = torch.full((5,), 0.3, device=device)
        made = [
            torch.randn(3, 2, device=device),
            torch.bernoulli(given),
            torch.empty(4, device=device).normal_(),
            torch.poisson(9 * given),
        ]
        return [second.here(value) for value in made]

    with on("elsewhere"), other_draws():
        apart = [torch.equal(a, b) for a, b in zip(draw("cpu"), draw(second.DEVICE), strict=True)]
        with DrawnOnCPU():
            same = [
                torch.equal(a, b) for a, b in zip(draw("cpu"), draw(second.DEVICE), strict=True)
            ]
    assert not any(apart) and all(same)


def test_a_device_that_computes_what_the_cpu_does_is_proven():
    with on("elsewhere"), other_draws():
        found = prove("elsewhere", FEW_CASES, compiling=False)
    assert [(row.case, row.difference, row.holds) for row in found] == [
        (name, 0.0, True) for name in FEW_CASES
    ]


def test_a_device_that_computes_something_else_is_found():
    """One operation of it is off by a hundredth; or there is none."""
    wrong = Twisted(lambda func: func._schema.name == "aten::sigmoid", lambda v: 1.01 * v)
    with on("elsewhere"), wrong:
        found = prove("elsewhere", {"RBM": CASES["RBM"]}, compiling=False)
    assert not found[0].holds and 1e-3 < found[0].difference < 1

    def fail(v):
        raise NotImplementedError("no such operation here")

    missing = Twisted(lambda func: func._schema.name == "aten::sigmoid", fail)
    with on("elsewhere"), missing:
        found = prove("elsewhere", {"RBM": CASES["RBM"]}, compiling=False)
    assert not found[0].holds and "no such operation here" in found[0].remark


def test_check_without_a_pair_says_how_far_a_device_is_from_the_cpu(monkeypatch, capsys):
    case = CASES["VAE, iwae"]
    monkeypatch.setattr("pyro_aevb.reports.proof.CASES", {"iwae": case})
    monkeypatch.setattr("pyro_aevb.reports.proof.SPEED", case)
    (row,) = pyro_aevb.check(device="cpu")
    said = capsys.readouterr().out
    assert row.difference == 0 < row.compiled < 1e-5
    assert "| iwae |" in said and "all 1 agree" in said
    assert "CPU threads" in said and "torch " in said and "cpu, compiled" in said
    monkeypatch.setattr("pyro_aevb.engine.inductor.missing", lambda: "there is no C++ compiler")
    (row,) = prove("cpu")
    assert row.holds and row.compiled is None and row.remark == "eager: there is no C++ compiler"
    monkeypatch.setattr("pyro_aevb.reports.proof.TOLERANCE", -1.0)
    with pytest.raises(UsageError, match="cpu computes something else than the CPU: iwae"):
        pyro_aevb.check(device="cpu", show=False)
