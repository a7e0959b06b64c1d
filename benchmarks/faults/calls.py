r"""Every system call that touches a run: killed there, a full disk from there on, an I/O error.

The calls are counted, and made to fail, by a small library in C that stands before the system's
(``shim.c``); a command is run once to count them, then once for each call and each kind.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults import runs
from benchmarks.faults.child import Outcome, command, run
from benchmarks.faults.report import Failure

KINDS = {"kill": 1, "full disk": 2, "I/O error": 3}
PENDING = " is finished, not yet on the page"
r"""What a study says of a cell that is kept, and whose page could not be written."""
LOADED = "FAULTS_SHIM"
r"""The variable of the environment that holds the path of the library once it is loaded."""


def available() -> bool:
    r"""Whether there is a compiler for the library."""
    return shutil.which("cc") is not None


def load(folder: Path) -> None:
    r"""Compile the library and begin this process again with it, unless it has it."""
    if LOADED in os.environ:
        return
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), LOADED: str(library)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


@contextmanager
def loaded() -> Iterator[None]:
    r"""Keep the library while this runs, then remove it with its folder."""
    try:
        yield
    finally:
        shutil.rmtree(Path(os.environ[LOADED]).parent)


@dataclass(frozen=True)
class Program:
    r"""What is run while calls fail, and what must hold afterwards.

    Arguments:
        words: The command.
        begin: Puts the folder into the state that the command begins in.
        again: The command that goes on after a failure.
        whole: Whether what is there after that is what is there without a failure, or what is not.
        partly: Whether of several things one may fail, which a line says, with status 1.
    """

    words: Sequence[str]
    begin: Callable[[Path], None]
    again: Callable[[Path], Sequence[str]]
    whole: Callable[[Path], str]
    partly: bool = False


def counted(program: Program, where: Path) -> int:
    r"""How many calls on the folder a command makes."""
    fresh(program, where)
    said = where.with_name("count")
    outcome = run(_counting(program.words, said), where, _armed(where, 0, 0))
    if outcome.status != 0:
        raise RuntimeError(f"{program.words} fails by itself: {outcome.said()}\n{outcome.err}")
    return int(said.read_text())


def tried(
    program: Program, where: Path, only: Sequence[int] | None = None
) -> Iterator[Failure | None]:
    r"""Let each call of a command fail in each way; yields what is wrong after each, or None.

    Arguments:
        program: The command.
        where: The folder whose calls fail.
        only: The numbers of the calls, from 1; None is all.
    """
    numbers = range(1, counted(program, where) + 1) if only is None else only
    for number in numbers:
        for kind, code in KINDS.items():
            fresh(program, where)
            fired = where.with_name("fired")
            fired.unlink(missing_ok=True)
            call = _noting(program.words, fired)
            outcome = run(call, where, _armed(where, code, number))
            what = f"{' '.join(program.words[:1])}, call {number}, {kind}"
            if kind == "full disk" and outcome.status == 0 and not fired.is_file():
                continue  # nothing is written from there on
            yield _judged(program, where, what, kind, outcome, fired.is_file())


def _judged(
    program: Program, where: Path, what: str, kind: str, outcome: Outcome, fired: bool
) -> Failure | None:
    if kind == "kill":
        if outcome.status != -9:
            return Failure(what, f"did not fire: {outcome.said()}")
    elif not fired:
        return Failure(what, f"did not fire: {outcome.said()}")
    elif not (outcome.tidy or program.partly and _in_part(outcome)):
        return Failure(what, f"not one line: {outcome.said()}")
    if outcome.status == 0 and (wrong := program.whole(where)):
        return Failure(what, f"succeeds all the same: {wrong}")
    again = run(command(program.again(where)), where)
    if again.status != 0:
        return Failure(what, f"does not go on: {again.said()} (before: {outcome.said()})")
    wrong = program.whole(where)
    return Failure(what, wrong) if wrong else None


def _in_part(outcome: Outcome) -> bool:
    r"""Whether what failed is said in a line for each thing, and the end in the last."""
    *others, last = outcome.lines or [""]
    told = all(line.startswith(("failed: ", "not shown: ")) or PENDING in line for line in others)
    ends = {1: ("failed: ", "not shown: "), 2: ("error: ",)}
    return told and last.startswith(ends.get(outcome.status or 0, ("nothing",)))


def fresh(program: Program, where: Path) -> None:
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    program.begin(where)


def _armed(where: Path, kind: int, number: int) -> Callable[[], None]:
    def arm() -> None:
        ctypes.CDLL(os.environ[LOADED]).faults_arm(os.fsencode(where.resolve()), kind, number)

    return arm


def _counting(words: Sequence[str], said: Path) -> Callable[[], None]:
    def call() -> None:
        try:
            command(words)()
        finally:
            said.write_text(str(ctypes.CDLL(os.environ[LOADED]).faults_count()))

    return call


def _noting(words: Sequence[str], fired: Path) -> Callable[[], None]:
    def call() -> None:
        try:
            command(words)()
        finally:
            if ctypes.CDLL(os.environ[LOADED]).faults_fired():
                fired.touch()

    return call


def figures_as_dots() -> None:
    r"""Figures are written, but not drawn, which would take most of the time."""
    from matplotlib.figure import Figure

    def save(figure: Figure, file: Any, **options: Any) -> None:
        file.write(b"\x89PNG")

    Figure.savefig = save  # type: ignore[method-assign]


def program(name: str, where: Path) -> Program:
    r"""What is tried: ``fit``, which scores too, ``evaluate``, ``compare`` or ``study``."""
    kept = where / "kept"
    for seed, one in enumerate(("one", "two")):
        runs.made(runs.fit("SVI", str(kept / one), True, "--seed", str(seed)), where)

    def nothing(folder: Path) -> None:
        pass

    def copied(folder: Path) -> None:
        shutil.copytree(kept, folder, dirs_exist_ok=True)

    def whole(words: Sequence[str], look: Callable[[Path], Any]) -> Callable[[Path], str]:
        r"""Whether what is there is what the command leaves if no call fails."""
        folder = where / "reference"
        shutil.rmtree(folder, ignore_errors=True)
        copied(folder)
        runs.made(words, folder)
        wanted = look(folder)
        return lambda found: "" if runs.same(look(found), wanted) else "is not what it would be"

    def going(folder: Path) -> list[str]:
        begun = (folder / "run" / "settings.yaml").is_file()
        return [*fitted, "--resume"] if begun else fitted

    fitted = runs.fit("SVI", "run", True)
    evaluated = [runs.EVALUATE, "one", *runs.SCORED, "--seed", "3"]
    compared = [runs.COMPARE, "one", "two", "--out", "table", "--export", "table/t.tex"]
    cell = ["--only", "errors/rect/logistic regression", "--scale", "smoke", "--seeds", "1"]
    studied = ["pyro_aevb.studies", "denoising", *cell, "--out", "study"]
    if name == "fit":
        return Program(fitted, nothing, going, whole(fitted, _run_called("run")))
    if name == "evaluate":
        left = whole(evaluated, _run_called("one"))
        return Program(evaluated, copied, lambda folder: evaluated, left)
    if name == "compare":
        return Program(compared, copied, lambda folder: compared, whole(compared, _tables))
    return Program(
        studied, nothing, lambda folder: studied, whole(studied, study_cells), partly=True
    )


def _run_called(name: str) -> Callable[[Path], Any]:
    r"""What a run leaves, and its values of each datum."""

    def look(folder: Path) -> Any:
        run = runs.Left.by(folder / name)
        return [run.tensors, run.history, run.metrics, run.values]

    return look


def _tables(folder: Path) -> dict[str, str]:
    r"""The tables that a comparison writes."""
    return {name: (folder / "table" / name).read_text() for name in ("comparison.md", "t.tex")}


def study_cells(folder: Path) -> dict[str, Any]:
    r"""The metrics of each cell of a study."""
    records = sorted((folder / "study" / "cells").rglob("seed*.json"))
    looks = {path.name: json.loads(path.read_text())["looks"] for path in records}
    return {
        f"{name} {epochs} {scoring}": found["metrics"]
        for name, look in looks.items()
        for epochs, scorings in look.items()
        for scoring, found in scorings.items()
    }
