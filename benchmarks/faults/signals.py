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
STATUS = {"SIGKILL": (-9,), "SIGTERM": (-15,), "SIGINT": (130,), "SIGHUP": (-1,), "SIGSTOP": (0,)}
r"""How a command ends that a signal comes to."""
BEGUN = 0.05
r"""Seconds after which a command has begun to read its words."""
TRIES = 6
r"""Earlier and earlier moments for a signal that came too late."""
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
        path, moment = where / "run", share * max(0.0, seconds - BEGUN)
        for _ in range(TRIES):
            shutil.rmtree(path, ignore_errors=True)
            words = fit(kind, "run", scored)
            first = run(command(words), where, meanwhile=_sends(name, BEGUN + moment))
            if first.fired and first.status in STATUS[name]:
                break
            moment /= 2  # it had ended before
        when = f"after {BEGUN + moment:.2f} of {seconds:.2f} s"
        what = f"{kind}{' scored' if scored else ''}, {name} {when}"
        yield _judged(what, first, name, kind, scored, path, left)


def _judged(
    what: str, first: Outcome, name: str, kind: str, scored: bool, path: Path, left: Left
) -> Failure | None:
    if not first.fired or first.status not in STATUS[name]:
        return Failure(what, f"did not fire, or ended otherwise: {first.said()}")
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
        if not _runs(pid):
            return False
        os.killpg(pid, getattr(signal, name))
        if name == "SIGSTOP":
            time.sleep(0.05)
            os.killpg(pid, signal.SIGCONT)
        return True

    return send


def _runs(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False
