r"""That all contenders compute the same objective, before and after they are timed."""

from collections.abc import Mapping
from functools import partial
from operator import methodcaller

import numpy as np

from benchmarks.measure import Worker, parameters
from benchmarks.peers import Peer

TOLERANCE = 1e-4
r"""Relative, of the losses at equal parameters and equal noise."""


def exact_loss(peer: Peer, x: np.ndarray, sign: int) -> float:
    r"""A loss with float32 products, whatever the contender is timed with."""
    import torch

    timed_with = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return peer.loss(x, sign)
    finally:
        torch.set_float32_matmul_precision(timed_with)


def losses(started: Mapping[str, Worker], x: np.ndarray) -> dict[str, float]:
    r"""Minus the objective per datum: the mean at a noise of signs and at its opposite, under which
    sampled and closed-form KL terms agree (see :mod:`benchmarks.noise`).
    """
    return {
        name: sum(worker.run(partial(exact_loss, x=x, sign=s)).value for s in (1, -1)) / 2
        for name, worker in started.items()
    }


def equal_start(started: Mapping[str, Worker], x: np.ndarray) -> dict[str, float]:
    r"""Give everybody the parameters of the first, and compare the losses."""
    first: dict[bool, list[np.ndarray]] = {}
    for worker in started.values():
        key = _pair(worker)
        if key not in first:
            first[key] = worker.run(parameters).value
        worker.run(methodcaller("load", first[key]))
    found = losses(started, x)
    _compare(started, found, TOLERANCE, "at equal parameters")
    return found


def equal_end(started: Mapping[str, Worker], x: np.ndarray, apart: float) -> dict[str, float]:
    r"""Compare what the timed epochs have made of the parameters: the timed code did train.

    `apart` is relative, of losses after equally many steps, each with its own noise and order.
    """
    found = losses(started, x)
    _compare(started, found, apart, "after training")
    return found


def _pair(worker: Worker) -> bool:
    r"""Contenders with point weights are compared with one another, beside the Bayesian ones."""
    return bool(dict(worker.contender.options).get("point", False))


def _compare(
    started: Mapping[str, Worker], found: Mapping[str, float], tolerance: float, when: str
) -> None:
    reference: dict[bool, float] = {}
    for name, worker in started.items():
        expected = reference.setdefault(_pair(worker), found[name])
        if not abs(found[name] - expected) <= tolerance * abs(expected):
            raise AssertionError(
                f"{name} has loss {found[name]:.5f} {when}, the others {expected:.5f}: "
                f"not the same objective ({', '.join(f'{n} {v:.5f}' for n, v in found.items())})"
            )
