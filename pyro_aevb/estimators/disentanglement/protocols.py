r"""Higgins' metric by other choices than the headline's: what each of them moves the score by.

The paper says neither how many pairs L a point is the mean of, nor what the classifier has reached
when its accuracy is read; each is worth tens of per cent (:func:`~.higgins.higgins`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.disentanglement.few_labels import few_labels
from pyro_aevb.estimators.disentanglement.higgins import higgins
from pyro_aevb.estimators.disentanglement.score import Codes, Score
from pyro_aevb.estimators.work import Work

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "higgins_sgd": {"classifier": "sgd"},
    "higgins_raw": {"features": "raw"},
    "higgins_raw_sgd": {"classifier": "sgd", "features": "raw"},
}
r"""What is chosen otherwise, by the name of the metric; the paper's classifier, features as they
are, and both."""


def check(options: Mapping[str, Any]) -> None:
    r"""Refuse options that :func:`all_of` cannot use, before any work.

    Raises:
        UsageError: ``curve`` or ``labels`` are no numbers.
    """
    for name in ("curve", "labels"):
        _numbers(name, options)


def all_of(
    codes: np.ndarray | Codes,
    factors: np.ndarray,
    every: np.ndarray,
    label: np.ndarray,
    options: Mapping[str, Any],
    work: Work,
) -> dict[str, Score]:
    r"""What the options ask for beyond the measures, by the names of the metrics, in per cent.

    ``higgins_L1``, ``higgins_L5``, ... for each L of ``curve``; with ``choices`` those of
    :data:`CHOICES`, ``higgins_all_factors`` of all factors of the data set if these are more, and
    ``higgins_sampled`` of a draw of each code in place of its mean; ``accuracy_10``, ... for each
    number of ``labels`` (:mod:`.few_labels`).

    Arguments:
        codes: ``(N, d)``.
        factors: Those that are asked for, ``(N, K)``.
        every: Those of the data set, ``(N, K')``.
        label: What few data have as a label, ``(N,)``.
        options: Those of the estimator; ``sampled``, if it is there, makes a draw of the codes.
        work: Who shows the progress.
    """
    o = options
    names = "train_points test_points repeats seed steps classifier features".split()
    how = {name: o[name] for name in names}
    asked: dict[str, Callable[[], Score]] = {}
    for L in _numbers("curve", o):
        asked[f"higgins_L{L}"] = partial(higgins, codes, factors, L, **how)
    if o["choices"]:
        for name, change in CHOICES.items():
            asked[name] = partial(higgins, codes, factors, o["pairs"], **{**how, **change})
        if every.shape[1] > factors.shape[1]:
            asked["higgins_all_factors"] = partial(higgins, codes, every, o["pairs"], **how)
        if "sampled" in o:
            sampled = o["sampled"]
            asked["higgins_sampled"] = lambda: higgins(sampled(), factors, o["pairs"], **how)
    for count in _numbers("labels", o):
        asked[f"accuracy_{count}"] = partial(few_labels, codes, label, count, o["seed"])
    found = {}
    if asked:
        with work.progress("other protocols", len(asked), "step") as step:
            for name, of in asked.items():
                found[name] = of()
                step(1)
    return found


def _numbers(name: str, options: Mapping[str, Any]) -> list[int]:
    r"""Whole numbers of at least 1, divided by commas."""
    parts = [part.strip() for part in options[name].split(",") if part.strip()]
    for part in parts:
        if not part.isascii() or not part.isdigit() or int(part) < 1:
            raise UsageError(
                f"--estimator disentanglement: {name}: {part!r} is no whole number of at least 1"
            )
    return [int(part) for part in parts]
