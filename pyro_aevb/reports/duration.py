r"""How long scoring takes, told from few data before it starts."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from pyro_aevb.data.batches import Batches
from pyro_aevb.device import finish
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.estimators.work import Work
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.state.python import untouched
from pyro_aevb.reports.rehearsal import attempt

FROM, SECONDS = 500, 10.0
r"""From how many data, times draws of the weights, it is told; and from how many seconds, said."""
LONG, SHORT = 300.0, 60.0
r"""From how many seconds on fewer data are proposed, and about how many those take."""
FEW, MORE = 4, 16
r"""Numbers of data whose times tell what each further datum takes."""


def say_how_long(pair: Pair, data: Batches, settings: Mapping[str, Any], work: Work) -> None:
    r"""Say about how long scoring takes at most, before it, from :data:`SECONDS` on.

    It is the time of eager code; what is compiled takes about half of it. Where it is more than
    :data:`LONG`, a ``--num-data`` is named with which it is short.

    Arguments:
        pair: An inspected pair.
        data: The data to be scored.
        settings: Those of importance sampling.
        work: The processes that share the work, and whether anything is shown.
    """
    description = pair.description
    assert description is not None
    seed, memory = settings["seed"], work.memory
    scorer = Scorer(pair, settings["num_samples"], 1, seed, memory, compile="off")
    proposal = settings["proposal"]
    drawn = description.undefined() is None and description.local_sites and proposal != "guide"
    marginal = MarginalLikelihood(
        pair,
        proposal,
        settings["num_samples"],
        1,
        seed,
        memory,
        "off",
        target=settings["monte_carlo_error"],
        max_samples=settings["max_samples"],
    )

    def score(few: Batches) -> None:
        scorer(few)
        if drawn:
            marginal(few)

    draws = settings["weight_samples"] if description.global_sites else 1
    # What fails here is left to fail, and to be said, when it is done.
    seconds, _ = attempt(lambda: expected_seconds(pair, data, draws, score))
    if seconds is not None and (seconds := seconds / work.group.size) > SECONDS:
        line = f"scoring {len(data):,} data takes up to about {in_words(seconds)}"
        fewer = _rounded_down(len(data) * SHORT / seconds)
        if seconds > LONG and fewer >= 100:  # of fewer the standard errors are large
            line += f"; --num-data {fewer} scores the first {fewer:,} in about {in_words(SHORT)}"
        work.say(line)


def expected_seconds(
    pair: Pair, data: Batches, draws: int, score: Callable[[Batches], Any]
) -> float | None:
    r"""About how long it takes to score data, by the times of :data:`FEW` and :data:`MORE`.

    Leaves the pair and all random numbers as they were.

    Arguments:
        pair: The pair.
        data: The data.
        draws: S, draws of the weights.
        score: Scores some data under one of them, eagerly.

    Returns:
        Seconds; None where the data are fewer than :data:`FROM`, and it does not take long to see.
    """
    if len(data) * draws < FROM:
        return None
    seconds = []
    with untouched(pair.python, [data.device]):
        score(data.first(2))  # what is made at the first call
        for n in (FEW, MORE):
            began = time.perf_counter()
            score(data.first(n))
            finish(data.device)
            seconds.append(time.perf_counter() - began)
    few, more = seconds
    each = max(0.0, more - few) / (MORE - FEW)
    return few + each * len(data) * draws


def in_words(seconds: float) -> str:
    r"""A time in seconds, minutes or hours, as exactly as an estimate is."""
    minutes = seconds / 60
    if seconds < 55:
        return f"{round(seconds, -1):.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _rounded_down(number: float) -> int:
    r"""A number with one digit that is not 0."""
    unit = 10 ** int(math.log10(max(number, 1)))
    return int(number // unit) * unit
