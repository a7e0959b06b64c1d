r"""A training in two processes of torchrun, of which one is killed at any moment."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults import runs
from benchmarks.faults.child import command, run
from benchmarks.faults.report import Failure

WORDS = ("--pair", "VAE", "--pair.hidden", "[30]", "--data", "digits", "--batch-size", "101")
EPOCHS = 40
FIT = (*(runs.FIT, *WORDS), *("--epochs", str(EPOCHS), "--compile", "off", *runs.SCORED))
SECONDS = 120.0
r"""What a command may take; one that takes longer has failed."""
ROUNDING = 1e-3
r"""How far scores may be apart, relatively: sums of other processes are in another order."""
MAGNIFIED = ("pareto_k", "mutual_information")
r"""A fit to the few largest weights, and a small difference of sums."""


def tried(number: int, seed: int, where: Path) -> Iterator[Failure | None]:
    r"""Kill one process of a training so often; yields what is wrong after each, or None.

    Arguments:
        number: How often.
        seed: Fixes which process is killed, when, and how many go on.
        where: A folder to work in.
    """
    rng = random.Random(seed)
    finished(where / "whole", 1)
    expected = scores(where / "whole")
    for _ in range(number):
        rank, after, others = rng.choice((0, 1)), rng.uniform(0, 2), rng.choice((1, 1, 1, 3))
        out = where / "killed"
        shutil.rmtree(out, ignore_errors=True)
        what = (
            f"process {rank} of 2 killed {after:.2f} s after the first epoch, resumed by {others}"
        )
        wrong = killed(out, rank, after) or finished(out, others, "--resume")
        wrong = wrong or _apart(expected, scores(out))
        yield Failure(what, wrong) if wrong else None


def launch(processes: int, out: Path, *more: str) -> subprocess.Popen[str]:
    r"""The training, in so many processes of torchrun."""
    how = [f"--nproc-per-node={processes}", "--standalone", "-m"]
    words = [sys.executable, "-m", "torch.distributed.run", *how, *FIT, "--out", str(out), *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def killed(out: Path, rank: int, after: float) -> str:
    r"""Kill a process of two so long after its first epoch; what is wrong, or nothing."""
    with launch(2, out) as process:
        try:
            end = time.monotonic() + SECONDS
            while not (out / "history.csv").is_file():
                if process.poll() is not None or time.monotonic() > end:
                    return f"does not begin: {process.stderr and process.stderr.read()[-300:]}"
                time.sleep(0.01)
            time.sleep(after)
            victim = children(process.pid).get(str(rank))
            if victim is None:
                return "has ended before it was killed"
            os.kill(victim, signal.SIGKILL)
            _, error = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return "does not end"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
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
        try:
            _, error = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "does not end"
    return "" if process.returncode == 0 else f"status {process.returncode}: {error[-300:]}"


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


def scores(path: Path) -> Mapping[str, float]:
    r"""Those of a run that sums in another order leave as they are, to rounding."""
    results: dict[str, Any] = json.loads((path / "results.json").read_text())
    values = {name: entry["value"] for name, entry in results["metrics"].items()}
    return {k: v for k, v in values.items() if v is not None and k not in MAGNIFIED}


def _apart(expected: Mapping[str, float], found: Mapping[str, float]) -> str:
    if expected.keys() != found.keys():
        return f"has the scores {[*found]}"
    apart = [
        name
        for name, value in expected.items()
        if not math.isclose(value, found[name], rel_tol=ROUNDING)
    ]
    return f"other values of {apart}" if apart else ""
