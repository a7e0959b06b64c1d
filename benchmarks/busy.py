r"""A machine that is not alone: ``python -m benchmarks.busy``.

A VAE 784-500-20 is trained at batch 100 and scored while none, one or two other processes compute
all the time, in two ways: as the package does by itself, and with all threads, which wait as long
as GNU's OpenMP has them wait by itself. The ways take turns, each time in a process of its own, and
the other processes are started before the first step. Then the default run of ``pyro_aevb.fit``,
alone and beside one process.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.measure import say
from pyro_aevb.threads import NUMBERS, WAITING

NEIGHBOURS = (0, 1, 2)
ACTIVE = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200", "ALL_THREADS": "1"}
WAYS: dict[str, dict[str, str]] = {
    "this package": {},
    "all threads, long waits": ACTIVE,
}
CHOSEN = (*NUMBERS, *WAITING)
UNITS = {"training": "images a second", "scoring": "data a second"}


@contextmanager
def neighbours(number: int) -> Iterator[None]:
    r"""So many other processes that compute all the time, each like another user's."""
    # Each ends when this process has, however that ends.
    busy = [sys.executable, "-c", f"import os\nwhile os.getppid() == {os.getpid()}: pass"]
    others = [subprocess.Popen(busy, start_new_session=True) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def environment(way: Mapping[str, str]) -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if k not in CHOSEN}, **way}


def measured(way: str, epochs: int) -> dict[str, float]:
    r"""Speeds of training and scoring in a process of its own, and its threads."""
    command = [sys.executable, "-m", "benchmarks.busy", "--job", "--epochs", str(epochs)]
    done = subprocess.run(command, env=environment(WAYS[way]), stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def job(epochs: int) -> dict[str, float]:
    r"""Train and score once; the first scoring, which compiles, is not timed."""
    import torch

    import pyro_aevb

    threads = torch.get_num_threads() if "ALL_THREADS" in os.environ else None
    sizes = {"hidden": [500], "latent_dim": 20}
    with tempfile.TemporaryDirectory() as folder:
        run = pyro_aevb.fit(
            "VAE",
            pair_parameters=sizes,
            epochs=epochs,
            compile="on",
            threads=threads,
            no_score=True,
            show=False,
            out=f"{folder}/run",
        )
        used = run.settings["threads"]
        torch.set_num_threads(used)  # as they are while `fit` scores
        for _ in range(2):
            start = time.perf_counter()
            pyro_aevb.evaluate(run, num_data=100, compile="on", show=False)
            seconds = time.perf_counter() - start
        speeds = [row["images_per_second"] for row in run.history]
    return {
        "training": statistics.median(float(v or 0) for v in speeds[len(speeds) // 4 :]),
        "scoring": 100 / seconds,
        "threads": used,
    }


def default_run(neighbour: int) -> float:
    r"""Seconds of ``python -m pyro_aevb.fit``, beside so many processes."""
    with tempfile.TemporaryDirectory() as folder, neighbours(neighbour):
        command = [sys.executable, "-m", "pyro_aevb.fit", "--out", f"{folder}/run"]
        start = time.perf_counter()
        subprocess.run(command, env=environment({}), stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start


def page(result: Mapping[str, Any]) -> str:
    rows = []
    for way, speeds in result["speeds"].items():
        alone = {what: statistics.median(speeds["0"][what]) for what in UNITS}
        for number in speeds:
            cells = [f"{way}, {number} beside it" if int(number) else f"{way}, alone"]
            for what in UNITS:
                middle = statistics.median(speeds[number][what])
                low, high = min(speeds[number][what]), max(speeds[number][what])
                share = 100 * middle / alone[what]
                cells += [f"{middle:,.0f} ({low:,.0f} to {high:,.0f})", f"{share:.0f} %"]
            threads = sorted({int(n) for n in speeds[number]["threads"]})
            rows.append([*cells, " or ".join(map(str, threads))])
    columns = ("", "training, images a second", "of alone", "scoring, data a second", "of alone")
    alone, beside = result["default"]
    count = result["rounds"]
    of = "one process each" if count == 1 else f"medians of {count} processes, and their range"
    return (
        "# A busy machine, cpu\n\nA VAE 784-500-20, batch 100, trained and scored (100 data, "
        "compiled, with the run's number of threads, as `fit` scores) while other processes "
        f"compute all the time: {of}.\n\n"
        f"{report.table((*columns, 'threads'), rows)}\n"
        f"The default run, `python -m pyro_aevb.fit`: {alone:.0f} s alone, {beside:.0f} s beside "
        f"one process, {beside / alone:.1f} times as long.\n\n"
        f"![Speed beside other processes](busy-cpu.png)\n\n{report.circumstances_line(result)}\n"
    )


def draw(path: Path, speeds: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axes, (what, unit) in zip(panels, UNITS.items(), strict=True):
        for way, found in speeds.items():
            middle = [statistics.median(found[number][what]) for number in found]
            axes.plot([int(n) for n in found], middle, "o-", label=way)
        axes.set_title(what, loc="left", fontsize=10)
        axes.set_xticks(NEIGHBOURS)
        axes.set_xlabel("other processes that compute")
        axes.set_ylabel(unit)
        axes.set_ylim(0, None)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--job", action="store_true", help="one process, for itself")
    args = parser.parse_args()
    if args.job:
        print(json.dumps(job(args.epochs)))
        return
    speeds: dict[str, dict[str, dict[str, list[float]]]] = {
        way: {str(n): {what: [] for what in (*UNITS, "threads")} for n in NEIGHBOURS}
        for way in WAYS
    }
    for _ in range(args.rounds):
        for number in NEIGHBOURS:
            for way in WAYS:
                with neighbours(number):
                    found = measured(way, args.epochs)
                for what, value in found.items():
                    speeds[way][str(number)][what].append(value)
                say(f"{number} beside, {way}: {found}")
    result = {
        "speeds": speeds,
        "rounds": args.rounds,
        "default": [default_run(number) for number in (0, 1)],
        **report.circumstances("benchmarks.busy", "cpu"),
    }
    path = args.out / "busy-cpu.json"
    report.merge(path, result)
    draw(path.with_suffix(".png"), speeds)
    path.with_suffix(".md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
