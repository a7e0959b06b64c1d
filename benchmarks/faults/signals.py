r"""Signals at random moments: what was interrupted resumes, and ends where it would have ended."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.child import Outcome, command, run
from benchmarks.faults.report import Failure
from benchmarks.faults.runs import FITS, Left, fit, made, resumed

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGSTOP")
SCORED = 4
r"""One run in so many is scored, too."""


def tried(number: int, seed: int, where: Path) -> Iterator[Failure | None]:
    r"""Send signals to trainings; yields what is wrong after each, or None.

    Arguments:
        number: How many.
        seed: Fixes which signal comes to which training at which moment.
        where: A folder to work in.
    """
    rng = random.Random(seed)
    wanted: dict[tuple[str, bool], tuple[Left, float]] = {}
    for trial in range(number):
        kind, name = rng.choice([*FITS]), rng.choice(SIGNALS)
        scored = trial % SCORED == 0
        share = rng.random()
        if (kind, scored) not in wanted:
            began = time.monotonic()
            made(fit(kind, "whole", scored), where)
            wanted[kind, scored] = Left.by(where / "whole"), time.monotonic() - began
            shutil.rmtree(where / "whole")
        left, seconds = wanted[kind, scored]
        path = where / "run"
        shutil.rmtree(path, ignore_errors=True)
        moment = share * seconds
        first = run(command(fit(kind, "run", scored)), where, meanwhile=_sends(name, moment))
        what = f"{kind}{' scored' if scored else ''}, {name} after {moment:.2f} of {seconds:.2f} s"
        yield _judged(what, first, name, kind, scored, path, left)


def _judged(
    what: str, first: Outcome, name: str, kind: str, scored: bool, path: Path, left: Left
) -> Failure | None:
    if name == "SIGINT" and first.status not in (0, 130):
        return Failure(what, f"not status 130: {first.said()}")
    if "Traceback" in first.err or "ignored" in first.err:
        return Failure(what, f"a stack trace: {first.said()}")
    again = run(command(resumed(kind, "run", scored)), path.parent)
    if not path.is_dir() or not (path / "settings.yaml").is_file():  # ended before it began
        again = run(command(fit(kind, "run", scored)), path.parent)
    if again.status != 0:
        return Failure(what, f"does not resume: {again.said()}")
    differs = left.differs(Left.by(path))
    return Failure(what, differs) if differs else None


def _sends(name: str, seconds: float) -> Callable[[int], bool]:
    def send(pid: int) -> bool:
        time.sleep(seconds)
        os.killpg(pid, getattr(signal, name)) if _runs(pid) else None
        if name == "SIGSTOP" and _runs(pid):
            time.sleep(0.05)
            os.killpg(pid, signal.SIGCONT)
        return True

    return send


def _runs(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
