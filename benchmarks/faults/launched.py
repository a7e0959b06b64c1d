r"""A training in two processes of torchrun, of which one is killed after any of its epochs."""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from benchmarks.faults import runs
from benchmarks.faults.child import command, run
from benchmarks.faults.report import Failure

WORDS = ("--pair", "VAE", "--pair.hidden", "[30]", "--data", "digits", "--batch-size", "101")
EPOCHS = 60
FIT = (*(runs.FIT, *WORDS), *("--epochs", str(EPOCHS), "--compile", "off", *runs.SCORED))
SECONDS = 120.0
r"""What a command may take; one that takes longer has failed."""
ROUNDING = 1e-3
r"""How far numbers may be apart, relatively or in nats: sums of other processes are in another
order."""
MAGNIFIED = ("pareto_k", "mutual_information")
r"""A fit to the few largest weights, and a small difference of sums."""


def tried(number: int, seed: int, where: Path) -> Iterator[Failure | None]:
    r"""Kill one process of a training so often; yields what is wrong after each, or None.

    Each fourth training is resumed by three processes, the others by one.

    Arguments:
        number: How often.
        seed: Fixes which process is killed, and after how many epochs.
        where: A folder to work in.

    Raises:
        RuntimeError: A training that nothing happens to fails.
    """
    rng = random.Random(seed)
    if wrong := finished(where / "whole", 1):
        raise RuntimeError(wrong)
    expected = numbers(where / "whole")
    for attempt in range(number):
        rank, epochs = rng.choice((0, 1)), rng.randrange(1, EPOCHS // 2)
        others = 3 if attempt % 4 == 3 else 1
        out = where / "killed"
        shutil.rmtree(out, ignore_errors=True)
        what = f"process {rank} of 2 killed after epoch {epochs}, resumed by {others}"
        wrong = killed(out, rank, epochs) or finished(out, others, "--resume")
        wrong = wrong or _apart(expected, numbers(out))
        yield Failure(what, wrong) if wrong else None


def launch(processes: int, out: Path, *more: str) -> "subprocess.Popen[str]":
    r"""The training, in so many processes of torchrun."""
    how = [f"--nproc-per-node={processes}", "--standalone", "-m"]
    words = [sys.executable, "-m", "torch.distributed.run", *how, *FIT, "--out", str(out), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True)


def killed(out: Path, rank: int, epochs: int) -> str:
    r"""Kill a process of two after so many epochs; what is wrong, or nothing."""
    with launch(2, out) as process:
        end = time.monotonic() + SECONDS
        while _epochs(out) < epochs and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        victim = children(process.pid).get(str(rank))
        if victim is None or _epochs(out) < epochs:
            return f"has no process {rank} to kill: {_ended(process)}"
        os.kill(victim, signal.SIGKILL)
        error = _ended(process, SECONDS)
    if (out / "results.json").exists() or _epochs(out) >= EPOCHS:
        return "was killed too late"
    # Beside what torchrun reports of itself.
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    if process.returncode == 0 or len(lines) != 1:
        return f"status {process.returncode}: {lines or error[-300:]}"
    good = "one of the 2 processes was lost" in lines[0] and f"--resume --out {out}" in lines[0]
    return "" if good else lines[0]


def finished(out: Path, processes: int, *more: str) -> str:
    r"""Train to the end; what is wrong, or nothing."""
    if processes == 1:
        outcome = run(command([*FIT, "--out", str(out), *more]), out.parent)
        return "" if outcome.status == 0 else outcome.said()
    with launch(processes, out, *more) as process:
        error = _ended(process, SECONDS)
    return "" if process.returncode == 0 else f"status {process.returncode}: {error[-300:]}"


def _ended(process: "subprocess.Popen[str]", seconds: float = 0.0) -> str:
    r"""What it said; where it has not ended by then, it and its processes are killed."""
    try:
        return process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        # Each is of a session of its own: a signal to the group would leave them.
        for pid in [*children(process.pid).values(), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return f"does not end: {process.communicate()[1]}"


def _epochs(out: Path) -> int:
    r"""Rows of the history."""
    path = out / "history.csv"
    return max(0, len(path.read_text().splitlines()) - 1) if path.is_file() else 0


def children(parent: int) -> dict[str, int]:
    r"""The processes that torchrun has started, by their ranks."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                variables = (path / "environ").read_text().split("\0")
                found |= {v[5:]: int(path.name) for v in variables if v.startswith("RANK=")}
        except OSError:
            continue
    return found


def numbers(path: Path) -> Mapping[str, float]:
    r"""The scores and the history of ELBOs, which change by rounding where sums are reordered."""
    left = runs.Left.by(path)
    found = {
        name: entry["value"]
        for name, entry in left.metrics.items()
        if entry["value"] is not None and name not in MAGNIFIED
    }
    history = {f"elbo of epoch {row['epoch']}": float(row["elbo"]) for row in left.history}
    return {**found, **history, "rows": len(left.history)}


def _apart(expected: Mapping[str, float], found: Mapping[str, float]) -> str:
    if expected.keys() != found.keys():
        return f"has other numbers: {sorted(expected.keys() ^ found.keys())}"
    apart = [
        name
        for name, value in expected.items()
        if not math.isclose(value, found[name], rel_tol=ROUNDING, abs_tol=ROUNDING)
    ]
    return f"other values of {apart}" if apart else ""
