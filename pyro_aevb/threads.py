r"""How many threads compute on the CPU, and how they wait for one another.

OpenMP's threads meet after every operation, and wait by spinning, each on a core. Where another
process has one of the cores, the others spin until that thread gets its turn, some milliseconds
later, and training falls to a fraction of the speed of a single thread. So threads spin briefly
here, then sleep; and fewer of them are used where these are faster.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
r"""Variables of the environment that say how threads wait."""
SPINS = {"GOMP_SPINCOUNT": "15000", "KMP_BLOCKTIME": "0"}
r"""How briefly threads wait, in turns of GNU's library, whose default is 300,000, and milliseconds
of LLVM's and Intel's. With fewer turns a run alone is slower, with more one beside others."""
NUMBERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
r"""Variables of the environment that say how many threads there are, which win."""

GAIN = 1.25
r"""Fewer threads are used where they are so many times as fast as all."""
TURN, ROUNDS, SECONDS, FAR = 0.02, 7, 0.7, 4.0
r"""Of a measurement. A turn lasts so many seconds at least, all numbers of threads take turns so
many times, and no round begins after so many seconds. Nothing is measured where a single step takes
longer than those, and a round ends at a number that is so many times as slow as a larger one."""

_given: ContextVar[bool] = ContextVar("given", default=False)


def wait_briefly() -> None:
    r"""Let the threads that torch will start sleep soon when they have nothing to do.

    What the environment says already wins. Libraries read it as they are loaded: where torch was
    imported before, nothing is changed.
    """
    if "torch" not in sys.modules and not any(os.environ.get(name) for name in WAITING):
        os.environ.update(SPINS)


@contextmanager
def as_given() -> Iterator[None]:
    r"""Inside, runs take the threads that torch has, as they do with ``OMP_NUM_THREADS``."""
    token = _given.set(True)
    try:
        yield
    finally:
        _given.reset(token)


def given() -> bool:
    r"""Whether it is not for a run to choose how many threads there are."""
    return _given.get() or any(os.environ.get(name) for name in NUMBERS)


@contextmanager
def restored() -> Iterator[int]:
    r"""Leave the number of torch's threads, which it yields, as it was, whatever is done inside."""
    import torch

    before = torch.get_num_threads()
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def fastest(step: Callable[[], object]) -> int:
    r"""Measure with how many threads a step is fastest.

    The number that torch has, its half, and so on to 1 take turns. Torch's own stays unless
    another one's median time is shorter by :data:`GAIN`: what is nearly as fast is not worth
    that two runs of one command differ by rounding.

    Arguments:
        step: What is to be fast.

    Returns:
        The number; torch's own is as it was.
    """
    import torch

    most = torch.get_num_threads()
    if most == 1:
        return 1
    numbers = [most]
    while numbers[-1] > 1:
        numbers.append(numbers[-1] // 2)
    with restored():
        return choose(_times(step, numbers, torch.set_num_threads))


def choose(times: dict[int, list[float]]) -> int:
    r"""The number of threads whose times of a step, of which there are several, are best."""
    medians = {number: statistics.median(found) for number, found in times.items()}
    best = min(medians, key=lambda number: medians[number])
    most = max(medians)
    return best if medians[most] >= GAIN * medians[best] else most


def _times(
    step: Callable[[], object], numbers: list[int], use: Callable[[int], None]
) -> dict[int, list[float]]:
    r"""Seconds of a step in each turn, by the number of threads; the numbers fall."""
    began = time.perf_counter()
    step()  # the first one allocates
    if time.perf_counter() - began > SECONDS:
        return {numbers[0]: [0.0]}
    times: dict[int, list[float]] = {number: [] for number in numbers}
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for number in [*times]:
            use(number)
            start, steps = time.perf_counter(), 0
            while (passed := time.perf_counter() - start) < TURN or not steps:
                step()
                steps += 1
            times[number].append(passed / steps)
            more = [seconds for n, found in times.items() if n > number for seconds in found]
            if more and passed / steps > FAR * min(more):
                break  # fewer threads are slower still
        if time.perf_counter() - began > SECONDS:
            break
    return {number: found for number, found in times.items() if found}
