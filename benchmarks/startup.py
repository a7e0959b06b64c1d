r"""The time to the first step: imports, construction, compilation."""

import os
import tempfile
from argparse import Namespace
from typing import Any

from benchmarks import report
from benchmarks.images import mnist
from benchmarks.measure import Worker, epoch, say
from benchmarks.networks import NETWORKS
from benchmarks.peers import PEERS, Unavailable

NAMES = ("pytorch", "pyro", "numpyro", "pythae", "project-eager", "project")


def run(args: Namespace) -> None:
    r"""A fresh process for each contender, twice: the second finds the files of the first."""
    key = args.networks[0]
    network = NETWORKS[key]
    images = mnist()[0][: network.batch]  # an epoch of one step
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as files:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = files  # inherited by the workers
        for name in [name for name in NAMES if name in network.peers]:
            try:
                found[name] = [_once(name, network, images, args.device) for _ in range(2)]
            except Unavailable as reason:
                found[name] = str(reason)
            say(f"{name}: {found[name]}")
    result = {"seconds": found, **report.circumstances("benchmarks.training", args.device)}
    path = args.out / f"startup-{args.device}.json"
    report.merge(path, {key: result})
    rows = []
    for name, times in found.items():
        if isinstance(times, str):
            rows.append([PEERS[name].title, times, "", "", ""])
            continue
        (built, first, later), (_, again, _) = times
        numbers = (built, first, again, built + first)
        cells = [*(f"{v:.2f}" for v in numbers), f"{1e3 * later:.1f}"]
        rows.append([PEERS[name].title, *cells])
    columns = (
        "seconds",
        "imports, construction",
        "first step",
        "first step, files of an earlier run",
        "to the first step in all",
        "later steps, ms",
    )
    text = (
        f"# Start-up cost, {args.device}\n\n{network.title}. From the start of a process to the "
        "end of its first training step; the first step includes tracing and compiling. A later "
        "step here is an epoch of one step, with all that an epoch does around its steps.\n\n"
        f"{report.table(columns, rows)}\n{report.circumstances_line(result)}\n"
    )
    path.with_suffix(".md").write_text(text)
    print(text)


def _once(name: str, network: Any, images: Any, device: str) -> list[float]:
    worker = Worker(PEERS[name], network, images, device)
    try:
        steps = [worker.run(epoch).seconds for _ in range(5)]
        return [worker.start_seconds, steps[0], min(steps[1:])]
    finally:
        worker.close()
