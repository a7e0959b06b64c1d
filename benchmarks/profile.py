r"""Where the time of a step goes, in Pyro's example loop and in this project."""

import re
import time
from argparse import Namespace
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.images import mnist
from benchmarks.measure import epoch, say, workers
from benchmarks.networks import NETWORKS, Network
from benchmarks.peers import PEERS, Peer
from benchmarks.peers.floor import Floor, product, seconds

NAMES = ("pyro", "project-eager", "project")
STEPS = 100
LARGE = 2048

WITHIN = {
    "data loader": r"enumerate\(DataLoader\)",
    "optimizer": r"Optimizer\.|_fused_adam",
}
r"""An operation belongs here if it, or one that it is part of, has such a name."""

NAMED = {
    "matrix products": r"::(mm|addmm|bmm|baddbmm|linear|_linear_pointwise)$|convolution|mkldnn",
    "random numbers": r"::(bernoulli|normal|uniform|random|rand|randn|randperm)",
    "fused kernels": r"cpp_fused|triton|[Cc]ompiled|[Ii]nductor|graph_",
}
OTHER, PYTHON = "other tensor operations", "Python: handlers, autograd, dispatch"
GPU = "(GPU busy)"


def kernels_visible(peer: Peer) -> None:
    r"""Let Inductor's kernels show themselves to the profiler."""
    import torch._inductor.config as config

    config.cpp.enable_kernel_profile = True


def anatomy(peer: Peer) -> dict[str, float]:
    r"""Milliseconds of a step, by kind of work.

    Operations are timed by the profiler, each without those it calls; what remains of the wall
    clock is Python, the profiler's own share included. An epoch without it comes first.
    """
    import torch
    from torch.profiler import ProfilerActivity

    cuda = torch.cuda.is_available()
    alone = _seconds(peer)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        wall = _seconds(peer)
    parts = dict.fromkeys([*NAMED, *WITHIN, OTHER], 0.0)
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CPU:
            parts[_kind(event)] += event.self_cpu_time_total / 1e6
    parts[PYTHON] = wall - sum(parts.values())
    if cuda:
        parts[GPU] = sum(e.self_device_time_total for e in profiler.key_averages()) / 1e6
    return {kind: 1e3 * seconds / STEPS for kind, seconds in parts.items()} | {
        "all": 1e3 * wall / STEPS,
        "all, without the profiler": 1e3 * alone / STEPS,
    }


def _seconds(peer: Peer) -> float:
    import torch

    start = time.perf_counter()
    peer.epoch()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _kind(event: Any) -> str:
    ancestor = event
    while ancestor is not None:
        for kind, pattern in WITHIN.items():
            if re.search(pattern, ancestor.name):
                return kind
        ancestor = ancestor.cpu_parent
    return next((k for k, pattern in NAMED.items() if re.search(pattern, event.name)), OTHER)


def ceiling(network: Network, images: np.ndarray) -> dict[str, float]:
    r"""How near the products of a step are to what the processor can do.

    Billions of operations a second in the products of one step, each by the faster way that torch
    has, and in one large product, in float32 and with bfloat16 operands: the best of five tries.
    """
    import torch

    floor = Floor(network, images, "cpu", fastest=True)
    large = torch.randn(LARGE, LARGE)
    found = {"a step": (floor.operations, floor.multiply)}
    for name, operand in (("float32", large), ("bfloat16", large.bfloat16())):
        found[name] = (2 * LARGE**3, product(operand, operand, True))
    return {
        name: 1e-9 * operations / min(seconds(work, 10) for _ in range(5))
        for name, (operations, work) in found.items()
    }


def run(args: Namespace) -> None:
    r"""Profile the first of the chosen networks."""
    key = args.networks[0]
    network = NETWORKS[key]
    images = mnist()[0][: STEPS * network.batch]
    contenders = {name: PEERS[name] for name in NAMES if name in network.peers}
    parts: dict[str, dict[str, float]] = {}
    with workers(contenders, network, images, args.device) as (started, _):
        for name, worker in started.items():
            worker.run(kernels_visible)
            worker.run(epoch)
            parts[name] = worker.run(anatomy).value
            say(f"{name}: {parts[name]}")
    result = {"milliseconds": parts, **report.circumstances("benchmarks.training", args.device)}
    rates = ceiling(network, images) if args.device == "cpu" else {}
    result["gflops"] = rates
    path = args.out / f"profile-{args.device}.json"
    report.merge(path, {key: result})
    kinds = list(dict.fromkeys(kind for found in parts.values() for kind in found))
    rows = [[kind, *(f"{parts[name].get(kind, 0):.3f}" for name in parts)] for kind in kinds]
    text = (
        f"# Where the time of a step goes, {args.device}\n\n{network.title}; milliseconds per "
        "step. Operations as the profiler times them, each without those it calls; Python is what "
        "remains of the wall clock, with the profiler's own work in it.\n\n"
        f"{report.table(('', *(PEERS[name].title for name in parts)), rows)}\n"
    )
    if rates:
        text += (
            f"The products of a step alone, each by the faster way that torch has, run at "
            f"{rates['a step']:.0f} GFLOP/s; one of two matrices of {LARGE} rows and columns at "
            f"{rates['float32']:.0f}, and at {rates['bfloat16']:.0f} with bfloat16 operands.\n\n"
        )
    text += f"{report.circumstances_line(result)}\n"
    path.with_suffix(".md").write_text(text)
    print(text)
