"""How many threads compute: what is measured, what wins, what a run keeps; how threads wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import pyro_aevb
from pyro_aevb import threads
from pyro_aevb.cli import run_command
from pyro_aevb.errors import UsageError
from pyro_aevb.fit import _settings_of_run

ROOT = Path(__file__).parent.parent


def ran(code, **environment):
    """What a fresh Python says, in an environment that leaves threads alone but for this."""
    kept = {k: v for k, v in os.environ.items() if k not in (*threads.WAITING, *threads.NUMBERS)}
    given = {**kept, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_library_of_threads_reads_how_long_to_spin():
    """OpenMP's own report, asked for by OMP_DISPLAY_ENV, of what it has taken up."""
    said = ran("import pyro_aevb, torch; torch.ones(9).sum()", OMP_DISPLAY_ENV="verbose")[1]
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this torch has another library of threads than GNU's")
    (spins,) = {line.split("=")[1].strip(" '") for line in said.splitlines() if "SPINC" in line}
    assert spins == threads.SPINS["GOMP_SPINCOUNT"]


@pytest.mark.parametrize(
    ("code", "environment"),
    [
        ("import torch, pyro_aevb, os", {}),  # it is too late
        ("import pyro_aevb, os", {"OMP_WAIT_POLICY": "ACTIVE"}),  # the user has said how
    ],
)
def test_what_is_loaded_or_asked_for_is_left_alone(code, environment):
    said, _ = ran(f"{code}; print(os.environ.get('GOMP_SPINCOUNT'))", **environment)
    assert said.strip() == "None"


class Clock:
    """Time that passes as steps of known length are made with so many threads."""

    def __init__(self, seconds):
        self.seconds, self.now, self.number, self.steps = seconds, 0.0, 4, []

    def step(self):
        self.steps.append(self.number)
        self.now += self.seconds(self.number, len(self.steps))

    def use(self, number):
        self.number = number


@pytest.mark.parametrize(
    ("milliseconds", "best"),
    [
        ({4: 1.0, 2: 1.2, 1: 2.0}, 4),
        ({4: 5.0, 2: 1.2, 1: 2.0}, 2),
        ({4: 90.0, 2: 50.0, 1: 3.0}, 1),
        ({4: 1.2, 2: 1.0, 1: 1.1}, 4),  # a fifth is not worth another number
        ({4: 1.3, 2: 1.0, 1: 1.1}, 2),
    ],
)
def test_fewer_threads_are_taken_where_they_are_a_quarter_faster(milliseconds, best, monkeypatch):
    """A turn of five or so is disturbed: the median of turns does not follow it."""
    clock = Clock(lambda number, k: milliseconds[number] / 1e3 * (10 if k % 97 == 0 else 1))
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(torch, "get_num_threads", lambda: clock.number)
    monkeypatch.setattr(torch, "set_num_threads", clock.use)
    assert threads.fastest(clock.step) == best
    assert clock.number == 4
    # All take turns of at least 20 ms, within a second or so.
    assert {*clock.steps} == {4, 2, 1}
    turns = [n for n, before in zip(clock.steps[1:], clock.steps, strict=False) if n != before]
    assert turns.count(1) >= 3  # also where all threads are far slower
    assert clock.now < threads.SECONDS + 3 * 0.12


def test_one_thread_is_not_measured():
    assert threads.fastest(lambda: pytest.fail("measured")) == torch.get_num_threads() == 1


SMALL = {"data": "digits", "pair_parameters": {"hidden": [8]}, "epochs": 2, "show": False}


@pytest.fixture
def two_threads(monkeypatch):
    """A process with two threads and nothing that says so."""
    for name in threads.NUMBERS:
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def stored(path):
    return yaml.safe_load((path / "settings.yaml").read_text())["threads"]


def test_a_run_keeps_the_number_that_was_measured(two_threads, tmp_path, monkeypatch):
    measured, used = [], []

    def fastest(step):
        step()
        measured.append(torch.get_num_threads())
        return 1

    monkeypatch.setattr("pyro_aevb.training.trial.fastest", fastest)
    watch = {"on_epoch": lambda history: used.append(torch.get_num_threads())}
    asked = {**SMALL, **watch, "no_score": True}
    whole = pyro_aevb.fit(**asked, out=str(tmp_path / "whole"))
    assert (measured, used, torch.get_num_threads()) == ([2], [1, 1], 2)
    assert stored(tmp_path / "whole") == 1

    # Resumed, it is not measured again; what was measured changes no number of the training.
    pyro_aevb.fit(**asked, stop_after=1, out=str(tmp_path / "run"))
    run = pyro_aevb.fit(out=str(tmp_path / "run"), resume=True, show=False, **watch)
    assert (measured, used) == ([2, 2], [1, 1, 1, 1])
    plain = pyro_aevb.fit(**asked, threads=1, out=str(tmp_path / "plain"))
    for other in (run, plain):
        assert len(measured) == 2
        for name, value in whole.pair.tensors().items():
            assert torch.equal(other.pair.tensors()[name], value), name

    # A number that is given wins over the one that is kept, and OMP_NUM_THREADS over both kinds
    # of choosing.
    more = {**watch, "resume": True, "show": False, "no_score": True, "out": str(tmp_path / "run")}
    pyro_aevb.fit(**more, epochs=3, threads=2)
    assert (used[-1], stored(tmp_path / "run")) == (2, 2)
    pyro_aevb.fit(**more, epochs=4)
    assert (used[-1], stored(tmp_path / "run")) == (2, 2)
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pyro_aevb.fit(**more, epochs=5)
    assert (used[-1], stored(tmp_path / "run"), len(measured)) == (1, 1, 2)


def test_the_command_keeps_the_number_and_gives_way_to_the_environment(two_threads, tmp_path):
    path = tmp_path / "run"
    pyro_aevb.fit(**SMALL, no_score=True, threads=1, out=str(path))
    words = ["--resume", f"--out={path}", "--no-score", "--show=false"]
    run_command(pyro_aevb.fit, [*words, "--epochs=3"], resume_from=_settings_of_run)
    assert (stored(path), torch.get_num_threads()) == (1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        run_command(pyro_aevb.fit, [*words, "--epochs=4"], resume_from=_settings_of_run)
    assert stored(path) == 2


def test_a_measurement_that_fails_leaves_all_as_it_was(two_threads, tmp_path):
    """A pair that cannot take a whole batch: training says so, in its own line."""

    class Few(pyro_aevb.VAE):
        def model(self, x):
            if len(x) > 50:
                raise ValueError("too many")
            super().model(x)

    with pytest.raises(UsageError, match="Few failed on a batch of 100 in epoch 1.*too many"):
        pyro_aevb.fit(Few, **{**SMALL, "batch_size": 100}, out=str(tmp_path / "run"))
    assert torch.get_num_threads() == 2


def test_long_steps_are_not_measured_and_slow_numbers_not_twice(monkeypatch):
    clock = Clock(lambda number, k: {4: 0.1, 2: 0.5, 1: 3.0}[number])
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock.now)
    assert threads.choose(threads._times(clock.step, [4, 2, 1], clock.use)) == 4
    assert 1 not in clock.steps
    clock = Clock(lambda number, k: 1.0)
    assert threads.choose(threads._times(clock.step, [4, 2, 1], clock.use)) == 4
    assert len(clock.steps) == 1


def test_what_runs_many_trainings_chooses_for_them(two_threads, tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_aevb.training.trial.fastest", lambda step: pytest.fail("measured"))
    with threads.as_given():
        pyro_aevb.fit(**{**SMALL, "epochs": 1}, no_score=True, out=str(tmp_path / "run"))
    assert stored(tmp_path / "run") == 2


def test_no_threads_are_refused():
    with pytest.raises(UsageError, match="--threads is 0; it must be at least 1"):
        pyro_aevb.fit(**SMALL, threads=0)
