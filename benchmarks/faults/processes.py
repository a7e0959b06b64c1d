r"""What processes do to one another and to themselves: two in one run, and what a machine lacks."""

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.faults import runs
from benchmarks.faults.calls import study_cells
from benchmarks.faults.child import Outcome, command, run
from benchmarks.faults.report import Failure
from benchmarks.faults.runs import Left

MOMENTS = 6
r"""How often two processes meet, at moments that are drawn."""
MEMORY = (0, 20, 50, 100, 200, 400, 800, 1600)
r"""MiB that a training may take beyond what it has at its start."""
STUDY = (
    *("pyro_aevb.studies", "denoising", "--only", "errors/rect/SAA-3"),
    *("--scale", "smoke", "--seeds", "1", "--out", "study"),
)
NAN = """
import pyro_aevb
import torch


class Sick(pyro_aevb.VAE):
    steps = 0

    def model(self, x):
        Sick.steps += 1
        super().model(x * {value} if Sick.steps == {step} else x)
"""


def tried(seed: int, where: Path) -> Iterator[Failure | None]:
    r"""Every scenario; yields what is wrong after each, or None."""
    rng = random.Random(seed)
    both = []
    for number, name in enumerate(("one", "two")):
        runs.made(runs.fit("SVI", f"kept/{name}", True, "--seed", str(number)), where)
        both.append(Left.by(where / "kept" / name))
    left = both[0]
    runs.made(STUDY, where)
    cells = study_cells(where)
    for _ in range(MOMENTS):
        yield from _two_fits(rng, where, both)
        yield from _scored_while_trained(rng, where, left)
        yield from _two_scorings(rng, where)
        yield from _killed_study(rng, where, cells)
    yield from _little_memory(where, left)
    yield from _numbers(where)
    yield from _surroundings(where)


def _together(
    where: Path, words: Sequence[str], other: Sequence[str], after: float
) -> list[Outcome]:
    r"""A command, and another one that begins so many seconds after it."""
    found: list[Outcome] = []

    def second(pid: int) -> bool:
        time.sleep(after)
        found.append(run(command(other), where))
        return True

    return [run(command(words), where, meanwhile=second), *found]


def _fresh(where: Path, name: str) -> Path:
    folder = where / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _two_fits(rng: random.Random, where: Path, both: Sequence[Left]) -> Iterator[Failure | None]:
    folder, after = _fresh(where, "fits"), rng.uniform(0, 0.5)
    words = [runs.fit("SVI", "one", True, "--seed", str(seed)) for seed in (0, 1)]
    outcomes = _together(folder, *words, after)
    what = f"two trainings of other seeds in one directory, the second after {after:.2f} s"
    wrong = _all_tidy(what, outcomes)
    succeeded = [number for number, outcome in enumerate(outcomes) if outcome.status == 0]
    if wrong is None and len(succeeded) != 1:
        wrong = Failure(what, f"{len(succeeded)} succeeded: {[o.said() for o in outcomes]}")
    yield wrong or _differs(what, both[succeeded[0]], folder / "one")


def _scored_while_trained(rng: random.Random, where: Path, left: Left) -> Iterator[Failure | None]:
    folder, after = _fresh(where, "scored"), rng.uniform(0, 1)
    scoring = [runs.EVALUATE, "one", *runs.SCORED]
    outcomes = _together(folder, runs.fit("SVI", "one", True), scoring, after)
    what = f"a scoring {after:.2f} s after its training began"
    yield _all_tidy(what, outcomes) or _differs(what, left, folder / "one")


def _two_scorings(rng: random.Random, where: Path) -> Iterator[Failure | None]:
    from pyro_aevb.runs.run import Run

    folder, after = _fresh(where, "scorings"), rng.uniform(0, 0.3)
    shutil.copytree(where / "kept" / "one", folder / "one")
    first = [runs.EVALUATE, "one", "--estimator", "parzen", "--num-data", "4"]
    second = [runs.EVALUATE, "one", "--corruption", "masking", *runs.SCORED]
    outcomes = _together(folder, first, second, after)
    what = f"two scorings of a run, the second after {after:.2f} s"
    wrong = _all_tidy(what, outcomes)
    if wrong is None and any(outcome.status != 0 for outcome in outcomes):
        wrong = Failure(what, "; ".join(outcome.said() for outcome in outcomes))
    if wrong is None:
        results = Run.open(folder / "one").results
        if "parzen" not in results["metrics"] or "corrupted" not in results:
            wrong = Failure(what, f"one is lost: {[*results['metrics']]}, {[*results]}")
    yield wrong


def _killed_study(rng: random.Random, where: Path, cells: object) -> Iterator[Failure | None]:
    folder, after = _fresh(where, "study"), rng.uniform(0, 0.6)

    def kill(pid: int) -> bool:
        time.sleep(after)
        os.killpg(pid, signal.SIGKILL)
        return True

    run(command(STUDY), folder, meanwhile=kill)
    again = run(command(STUDY), folder)
    what = f"a study killed after {after:.2f} s"
    wrong = again.said() if again.status != 0 else ""
    if not wrong and not runs.same(study_cells(folder), cells):
        wrong = "its cells are not what they would be"
    yield Failure(what, wrong) if wrong else None


def _little_memory(where: Path, left: Left) -> Iterator[Failure | None]:
    r"""A library that lacks memory may end the process without a line; nothing is lost by it."""
    for memory in MEMORY:
        folder = _fresh(where, "memory")
        words = runs.fit("SVI", "one", True, "--seed", "0")
        outcome = run(command(words), folder, memory=memory)
        what = f"a training with {memory} MiB more"
        wrong = None if (outcome.status or 0) < 0 else _all_tidy(what, [outcome])
        if wrong is None and outcome.status != 0:
            begun = (folder / "one" / "settings.yaml").is_file()
            again = run(command([*words, *["--resume"] * begun]), folder)
            wrong = _all_tidy(f"{what}, then with enough", [again])
        yield wrong or _differs(what, left, folder / "one")


def _numbers(where: Path) -> Iterator[Failure | None]:
    for value in ("nan", "inf", "-inf"):
        folder = _fresh(where, "numbers")
        x = np.random.default_rng(0).random((60, 5))
        x[7, 3] = float(value)
        np.save(folder / "x.npy", x)
        words = [runs.FIT, "--data", "x.npy", "--epochs", "1", "--no-score", "--out", "one"]
        yield _refused(f"data with {value}", run(command(words), folder))
        for step in (4, 9):
            (folder / "sick.py").write_text(NAN.format(value=f"float('{value}')", step=step))
            words = runs.fit("SVI", "sick", False, "--pair", "sick.py:Sick")
            outcome = run(command(words), folder)
            what = f"{value} in the data at call {step} of the model"
            yield _refused(what, outcome)


def _surroundings(where: Path) -> Iterator[Failure | None]:
    for what, environment in {
        "an ASCII terminal": {"PYTHONIOENCODING": "ascii"},
        "a Latin terminal": {"PYTHONIOENCODING": "latin-1"},
        "a home that cannot be written": {"HOME": "/proc/nobody"},
        "no home": {"HOME": ""},
        "a home that is not said": {"HOME": None},
        "a record of trust that cannot be written": {"PYRO_AEVB_TRUSTED": "/proc/nobody"},
        "80 columns less 79": {"COLUMNS": "1"},
    }.items():
        folder = _fresh(where, "surroundings")
        outcome = run(command(runs.fit("SVI", "one", True)), folder, env=environment)
        yield Failure(what, outcome.said()) if outcome.status != 0 else None
    for locale in ("POSIX", "xx_YY.UTF-8"):  # which a process takes up at its start
        folder = _fresh(where, "surroundings")
        how = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        words = [sys.executable, "-m", *runs.fit("SVI", "ü", True)]
        done = subprocess.run(words, cwd=folder, env={**os.environ, **how}, capture_output=True)
        said = done.stderr.decode(errors="replace")[-300:]
        yield Failure(f"locale {locale}", said) if done.returncode else None
    folder = _fresh(where, "surroundings")
    outcome = run(command(runs.fit("SVI", "one", True)), folder, before=_closed)
    yield None if not outcome.err.count("Traceback") else Failure("a closed pipe", outcome.said())
    folder = _fresh(where, "surroundings")
    words = shlex.join([sys.executable, "-m", *runs.fit("SVI", "one", True)])
    status = subprocess.run(["sh", "-c", f"exec {words} >&- 2>&-"], cwd=folder).returncode
    yield Failure("closed output", f"status {status}") if status else None


def _closed() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)


def _all_tidy(what: str, outcomes: Sequence[Outcome]) -> Failure | None:
    bad = [outcome.said() for outcome in outcomes if not outcome.tidy]
    return Failure(what, "; ".join(bad)) if bad else None


def _refused(what: str, outcome: Outcome) -> Failure | None:
    good = outcome.status == 2 and outcome.tidy
    return None if good else Failure(what, f"is not refused in a line: {outcome.said()}")


def _differs(what: str, left: Left, path: Path) -> Failure | None:
    wrong = left.differs(Left.by(path))
    return Failure(what, wrong) if wrong else None
