r"""Many steps of a compiled run: ``python -m benchmarks.endurance``.

A small network takes so many steps; the graphs that were compiled are counted after the first
epoch and at the end, and the resident memory is read at the start and after each quarter. The exit
status is 1 if a graph was compiled on the way, or if the memory grew by more than 2 % after the
first quarter.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.images import mnist
from benchmarks.measure import say
from benchmarks.networks import Network
from benchmarks.peers import PEERS

NETWORK = Network("784-32-4, batch 16", (32,), 4, 16, ("project",))
EPOCH = 1_000
GROWTH = 0.02


def compilations() -> int:
    r"""Everything that torch has compiled: graphs of Dynamo, of AOTAutograd, of Inductor."""
    from torch._dynamo.utils import counters

    return sum(
        count
        for section, names in counters.items()
        for name, count in names.items()
        if (section, name) in (("stats", "unique_graphs"), ("aot_autograd", "total"))
        or (section == "inductor" and name.startswith("fxgraph_cache"))
    )


def resident(device: str) -> float:
    r"""Megabytes of the process, and of the GPU's allocator."""
    import torch

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    gpu = torch.cuda.memory_reserved() if device != "cpu" else 0
    return (pages * 4096 + gpu) / 2**20


def measure(args: Namespace) -> dict[str, Any]:
    # Half a batch short of an epoch, so that the last batch is smaller.
    images = mnist()[0][: EPOCH * NETWORK.batch - NETWORK.batch // 2]
    peer = PEERS["project"].make(NETWORK, images, args.device)
    peer.epoch()
    compiled, memory = compilations(), [resident(args.device)]
    start = time.perf_counter()
    for quarter in range(4):
        for _ in range(args.steps // EPOCH // 4):
            peer.epoch()
        memory.append(resident(args.device))
        say(f"quarter {quarter + 1}: {memory[-1]:.0f} MB, {compilations()} compilations")
    return {
        "steps": args.steps // EPOCH // 4 * 4 * EPOCH,
        "seconds": time.perf_counter() - start,
        "compilations_after_first_epoch": compiled,
        "compilations_at_end": compilations(),
        "resident_megabytes": memory,
        **report.circumstances("benchmarks.endurance", args.device),
    }


def page(result: dict[str, Any], device: str) -> str:
    memory = result["resident_megabytes"]
    when = ("after the first epoch", "1/4", "1/2", "3/4", "end")
    cells = [[w, f"{m:.1f}"] for w, m in zip(when, memory, strict=True)]
    return (
        f"# Endurance, {device}\n\n{NETWORK.title}: {result['steps']:,} compiled steps in epochs "
        f"of {EPOCH:,}, the last batch of each smaller, in {result['seconds']:.0f} s.\n\n"
        f"Compilations after the first epoch: {result['compilations_after_first_epoch']}; "
        f"at the end: {result['compilations_at_end']}.\n\n"
        f"{report.table(('resident memory', 'MB'), cells)}\n{report.circumstances_line(result)}\n"
    )


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000, help="a multiple of 4,000")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    result = measure(args)
    path = args.out / f"endurance-{args.device}.json"
    report.merge(path, result)
    path.with_suffix(".md").write_text(page(result, args.device))
    print(path.with_suffix(".md").read_text())
    memory = result["resident_megabytes"]
    steady = memory[-1] <= memory[1] * (1 + GROWTH)
    same = result["compilations_at_end"] == result["compilations_after_first_epoch"]
    sys.exit(0 if steady and same else 1)


if __name__ == "__main__":
    main()
