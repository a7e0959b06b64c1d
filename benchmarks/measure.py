r"""Contenders in processes of their own, which take turns.

In one process they would share thread pools (those of torch and XLA spin for a while after work),
allocators and settings such as the precision of products. So each has its own, waits for its turn
on a pipe while the others sleep, and times what it does itself.
"""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from operator import methodcaller
from typing import Any

import numpy as np

from benchmarks.networks import Network
from benchmarks.peers import Contender, Peer, Unavailable

PAUSE = 0.2
r"""Seconds between turns, for the threads of the last one to fall asleep."""


@dataclass(frozen=True)
class Reply:
    value: Any
    seconds: float


class Worker:
    r"""A contender in a process of its own.

    Raises:
        Unavailable: It cannot run here.
    """

    def __init__(
        self, contender: Contender, network: Network, images: np.ndarray, device: str
    ) -> None:
        missing = contender.missing()
        if missing:
            raise Unavailable(f"not installed ({', '.join(missing)})")
        context = get_context("spawn")
        self.contender = contender
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, device), daemon=True)
        start = time.perf_counter()
        self._process.start()
        theirs.close()
        self._ask((contender, network, images))
        self.start_seconds = time.perf_counter() - start
        r"""From nothing to a built contender, imports included."""

    def run(self, work: Callable[[Peer], Any]) -> Reply:
        r"""Do something with the peer, by a function that can be sent to another process."""
        time.sleep(PAUSE)
        return self._ask(work)

    def _ask(self, request: Any) -> Reply:
        self._pipe.send(request)
        try:
            kind, value, seconds = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.contender.title}: its process died") from None
        if kind == "unavailable":
            raise Unavailable(value)
        if kind == "error":
            raise RuntimeError(f"{self.contender.title}: {value}")
        return Reply(value, seconds)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()


def _serve(pipe: Any, device: str) -> None:
    import os
    import traceback

    if device != "cpu":  # contenders share the GPU: none may take all of its memory
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    contender, network, images = pipe.recv()
    if contender.matmul != "highest":
        import torch

        torch.set_float32_matmul_precision(contender.matmul)
    finish: Callable[[], None] = _nothing
    if device != "cpu":
        import torch

        finish = torch.cuda.synchronize
    work: Callable[[Any], Any] = lambda _: contender.make(network, images, device)  # noqa: E731
    peer: Any = None
    while work is not None:
        try:
            start = time.perf_counter()
            value = work(peer)
            finish()
            seconds = time.perf_counter() - start
            if peer is None:
                peer, value = value, None
            pipe.send(("done", value, seconds))
        except Unavailable as reason:
            return pipe.send(("unavailable", str(reason), 0.0))
        except Exception:  # whatever a library does: it is told to the one who asked
            pipe.send(("error", traceback.format_exc(limit=-8), 0.0))
        work = pipe.recv()


def _nothing() -> None: ...


@contextlib.contextmanager
def workers(
    names: Mapping[str, Contender], network: Network, images: np.ndarray, device: str
) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    r"""A worker for each contender that can run, and why the others cannot."""
    started: dict[str, Worker] = {}
    absent: dict[str, str] = {}
    try:
        for name, contender in names.items():
            try:
                started[name] = Worker(contender, network, images, device)
            except Unavailable as reason:
                absent[name] = str(reason)
        yield started, absent
    finally:
        for worker in started.values():
            worker.close()


def alternate(
    started: Mapping[str, Worker], work: Callable[[Peer], Any], rounds: int
) -> dict[str, list[float]]:
    r"""Seconds of each contender in each round: one turn of everybody, then the next round."""
    seconds: dict[str, list[float]] = {name: [] for name in started}
    for i in range(rounds):
        for name, worker in started.items():
            seconds[name].append(worker.run(work).seconds)
        say(f"round {i + 1}: " + ", ".join(f"{n} {s[-1]:.2f} s" for n, s in seconds.items()))
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    r"""The median over rounds of a ratio of times."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


epoch = methodcaller("epoch")
parameters = methodcaller("parameters")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
