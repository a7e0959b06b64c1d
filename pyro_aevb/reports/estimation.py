r"""Run an estimator beside importance sampling: its settings, and what it adds to a run."""

import time
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

import numpy as np

from pyro_aevb.data.batches import Batches
from pyro_aevb.data.naming import TEST
from pyro_aevb.engine.streams import check_seed
from pyro_aevb.errors import UsageError, above_zero, at_least_one, one_of, unknown
from pyro_aevb.estimators import ESTIMATORS, IMPORTANCE, shipped
from pyro_aevb.estimators.estimator import Estimator
from pyro_aevb.estimators.marginal import PROPOSALS
from pyro_aevb.estimators.work import Work
from pyro_aevb.reports import plots
from pyro_aevb.reports.assess import DEFAULTS, compare_bounds, environment
from pyro_aevb.reports.figures import drawn, noted
from pyro_aevb.runs.netcdf import GROUPS
from pyro_aevb.runs.prepare import Prepared
from pyro_aevb.runs.run import Run


def find(estimator: Any) -> Estimator | None:
    r"""An estimator's record: by its name, or one of a user's own; None is importance sampling.

    Raises:
        UsageError: No such estimator, or one of a name that results cannot hold.
    """
    if isinstance(estimator, Estimator):
        if not estimator.name.isidentifier() or estimator.name in (IMPORTANCE, *GROUPS):
            raise UsageError(f"no estimator can be called {estimator.name!r}; take another name")
        for option in (o for o, default in estimator.options.items() if default is Parameter.empty):
            raise UsageError(f"{option!r} of the estimator {estimator.name!r} needs a default")
        return estimator
    if estimator == IMPORTANCE:
        return None
    if not isinstance(estimator, str) or estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, [IMPORTANCE, *ESTIMATORS])
    return shipped(estimator)


def choose(
    estimator: Estimator | None, options: Mapping[str, Any] | None, **flags: Any
) -> dict[str, Any]:
    r"""The settings of an estimator: its defaults, and what is given in their place.

    Arguments:
        estimator: See :func:`find`.
        options: Given for this estimator; it must take them.
        flags: Given for any, None where not.

    Raises:
        UsageError: An option that it does not take, or of another type.
    """
    name, follows = IMPORTANCE, {"seed", "memory", "compile"}
    settings = dict(DEFAULTS)
    if estimator is not None:
        name, follows = estimator.name, {"seed", *estimator.follows}
        settings = estimator.options
    for option, value in (options or {}).items():
        if option not in settings:
            raise UsageError(
                f"--estimator {name} takes no {option!r}; it takes {', '.join(settings)}"
            )
        default, kind = settings[option], type(settings[option])
        taken = (int, float) if kind is float else kind
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, taken):
            raise UsageError(
                f"--estimator {name}: {option} is {value!r}; its default is {default!r}"
            )
        if kind is int and default > 0:
            at_least_one(f"--estimator {name}: {option}", int(value))
    given = {flag: value for flag, value in flags.items() if value is not None}
    for flag in sorted(given.keys() - settings.keys() - follows):
        raise UsageError(f"--estimator {name} has no use for --{flag.replace('_', '-')}")
    chosen = settings | {k: v for k, v in given.items() if k in settings} | dict(options or {})
    check_seed(chosen.get("seed", 0))
    if estimator is None:
        one_of("--proposal", chosen["proposal"], PROPOSALS)
        above_zero("--estimator importance: monte_carlo_error", chosen["monte_carlo_error"])
    return chosen


@np.errstate(invalid="ignore")  # infinite values have no difference, and the results say so
def estimate(
    run: Run,
    prepared: Prepared,
    test: Batches,
    estimator: Estimator,
    settings: Mapping[str, Any],
    work: Work,
) -> dict[str, Any]:
    r"""Run an estimator and add what it finds to a run's results.

    Arguments:
        run: The run, which has results.
        prepared: Its pair and data.
        test: The data to score, the first of the run's split.
        estimator: The estimator.
        settings: See :func:`choose`.
        work: Who does it: one process.

    Returns:
        What ``results.json`` holds now.

    Raises:
        UsageError: There are several processes, or the estimator is not defined for the pair.
    """
    name = estimator.name
    if work.group.size > 1:
        raise UsageError(f"--estimator {name} runs in one process; start it without torchrun")
    run.check_can_add(name)
    began, epochs = time.perf_counter(), len(run.history)
    metrics, per_datum = estimator.run(prepared, test, work, **settings)
    seconds = round(time.perf_counter() - began, 3)
    stated = {"num_data": len(test), "seconds": seconds, "environment": environment(test.device)}
    with run.in_turn():
        run.check_not_trained_since(epochs)
        run.add(name, {**settings, **stated}, metrics, per_datum)
    undrawn: list[str] = []
    compare_bounds(run, undrawn, estimator.estimates)
    if estimator.figure is not None and run.split == TEST:
        file = estimator.file or f"estimator-{name}.png"
        with drawn(file, undrawn, run):
            estimator.figure(plots, metrics, per_datum, run.figures / file)
    return noted(run, undrawn)
