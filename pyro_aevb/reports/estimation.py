r"""Estimators beside importance sampling, by the names that ``evaluate`` knows them by.

Each is a function of a prepared pair, the data to score, a progress callback and options that have
defaults; it returns metrics (a value, its standard error, counts, and what a reader should know)
and per-datum values by the same names. To add one: write the function here, around an estimator in
a module of its own, and name it in ``ESTIMATORS``.
"""

import difflib
import inspect
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.streams import check_seed
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.gap import inference_gap
from pyro_aevb.estimators.metrics import Metric, measured
from pyro_aevb.estimators.parzen import parzen
from pyro_aevb.estimators.reciprocal import RELIABLE, Reciprocal
from pyro_aevb.estimators.work import Work
from pyro_aevb.reports import plots
from pyro_aevb.reports.assess import compare_bounds, draw_convergence, environment
from pyro_aevb.reports.figures import drawn, noted
from pyro_aevb.runs.prepare import Prepared
from pyro_aevb.runs.run import IMPORTANCE, Run

Found = tuple[dict[str, Metric], dict[str, np.ndarray]]
VALID = 1000
r"""Validation data by which the Parzen window's bandwidth is chosen."""


def _parzen(
    prepared: Prepared, test: Batches, work: Work, seed: int = 0, num_kernels: int = 10_000
) -> Found:
    seen = prepared.pair.columns_in
    grey, valid = (
        Batches(split, "none", test.device, seen(split)).first(min(most, len(split)))
        for split, most in ((prepared.data.test, len(test)), (prepared.data.valid, VALID))
    )
    with work.progress("parzen window", 3 * num_kernels, "sample") as step:
        metric, per_datum = parzen(prepared.pair, grey, valid, num_kernels, seed, step)
    return {"parzen": metric}, {"parzen": per_datum}


def _gap(
    prepared: Prepared, test: Batches, work: Work, seed: int = 0, num_samples: int = 5000
) -> Found:
    with work.progress("optimizing q", 2 * len(test), "datum") as step:
        gap = inference_gap(
            prepared.pair,
            test,
            num_samples,
            seed,
            compile=work.compile,
            say=work.say,
            progress=step,
        )
    return gap.metrics(), gap.per_datum()


def _ais(
    prepared: Prepared,
    test: Batches,
    work: Work,
    seed: int = 0,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    leapfrog_steps: int = 10,
    acceptance: float = 0.65,
    schedule: str = "sigmoid",
    start: str = "prior",
    weight_samples: int = 1,
) -> Found:
    anneal = _annealer(prepared, test, work)(
        num_chains, num_temperatures, leapfrog_steps, acceptance, schedule, start, seed
    )
    draws = weight_samples if prepared.description.global_sites else 1
    with work.progress("annealing", draws * num_temperatures * len(test), "step") as step:
        lower = _mixture([anneal(test, s, step).lower() for s in range(draws)])
    counts = {"num_chains": num_chains, "num_temperatures": num_temperatures}
    return _measured(prepared, "ais_lower", lower, draws, counts)


def _reciprocal(
    prepared: Prepared,
    test: Batches,
    work: Work,
    seed: int = 0,
    num_samples: int = 50,
    num_chains: int = 10,
    num_temperatures: int = 200,
    burn_in: int = 50,
    between: int = 5,
    leapfrog_steps: int = 4,
    acceptance: float = 0.65,
    weight_samples: int = 1,
) -> Found:
    drawn = _annealer(prepared, test, work, Reciprocal)(
        num_samples,
        num_chains,
        num_temperatures,
        burn_in,
        between,
        leapfrog_steps,
        acceptance=acceptance,
        seed=seed,
    )
    draws = weight_samples if prepared.description.global_sites else 1
    total = draws * (num_temperatures + drawn.steps) * len(test)
    with work.progress("posterior draws", total, "step") as step:
        values = _mixture([drawn.estimate(test, s, step) for s in range(draws)])
    counts = {"num_samples": num_samples, "num_chains": num_chains}
    metrics, found = _measured(prepared, "reciprocal", values, draws, counts)
    note = "errs upwards in expectation, log_likelihood and ais_lower downwards"
    if drawn.joint.dim > RELIABLE:
        note += (
            f"; the codes have {drawn.joint.dim} dimensions, and in more than {RELIABLE} it is not "
            "reliable (Kingma and Welling, 2014, appendix D)"
        )
    metrics["reciprocal"]["note"] = note
    return metrics, found


def _bdmc(
    prepared: Prepared,
    test: Batches,
    work: Work,
    seed: int = 0,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    leapfrog_steps: int = 10,
    acceptance: float = 0.65,
    schedule: str = "sigmoid",
    start: str = "prior",
) -> Found:
    anneal = _annealer(prepared, test, work)(
        num_chains, num_temperatures, leapfrog_steps, acceptance, schedule, start, seed
    )
    with work.progress("annealing", 2 * num_temperatures * len(test), "step") as step:
        bracket = anneal.bracket(test.take(torch.arange(len(test))), progress=step)
    found = {"bdmc_lower": bracket.there.lower(), "bdmc_upper": bracket.back.upper()}
    counts = {"num_chains": num_chains, "num_temperatures": num_temperatures, "num_data": len(test)}
    metrics = {name: measured(values, **counts) for name, values in found.items()}
    metrics["bdmc_gap"] = measured(found["bdmc_upper"] - found["bdmc_lower"], **counts)
    metrics["bdmc_gap"]["note"] = (
        "between bounds on log p(x) of data that the model simulated: about how far ais_lower may "
        "be too low at these settings, as far as the test data are like them"
    )
    return metrics, found


def _annealer(
    prepared: Prepared, test: Batches, work: Work, kind: Callable[..., Any] = Annealer
) -> Callable[..., Any]:
    few = test.take(torch.arange(min(5, len(test))))
    how = {"memory": work.memory, "compile": work.compile, "say": work.say}
    return partial(kind, prepared.pair, few, **how)


def _mixture(values: list[np.ndarray]) -> np.ndarray:
    r"""log of the mean of p(x|w) over draws of the weights, each given by its logarithm."""
    mixture: np.ndarray = np.logaddexp.reduce(np.stack(values), 0) - math.log(len(values))
    return mixture


def _measured(
    prepared: Prepared, name: str, values: np.ndarray, draws: int, counts: dict[str, int]
) -> Found:
    if prepared.description.global_sites:
        counts = counts | {"weight_samples": draws}
    return {name: measured(values, **counts, num_data=len(values))}, {name: values}


ESTIMATORS: dict[str, Callable[..., Found]] = {
    "parzen": _parzen,
    "gap": _gap,
    "ais": _ais,
    "bdmc": _bdmc,
    "reciprocal": _reciprocal,
}
FIRST = {"gap": 100, "ais": 100, "bdmc": 100, "reciprocal": 1000}
r"""How many data an estimator that takes long looks at, unless ``--num-data`` says."""
OF_WORK = {"parzen": set(), "gap": {"compile"}}
r"""Which of ``memory`` and ``compile`` an estimator follows, where it is not both."""


def _draw_gap(run: Run) -> None:
    family = run.results["metrics"]["amortization_gap"]["family"]
    names = [f"elbo_{name}" for name in dict.fromkeys(("guide", family, "flow"))]
    names.append("log_likelihood_best")
    bounds = {name: run.per_datum("gap", name) for name in names}
    plots.inference_gap(bounds, run.figures / "inference_gap.png")


def choose(name: str, options: Mapping[str, Any] | None, **flags: Any) -> dict[str, Any]:
    r"""The settings of an estimator: its defaults, and what is given in their place.

    Arguments:
        name: ``importance``, or one of ``ESTIMATORS``.
        options: Given for this estimator; it must take them.
        flags: Given for any, None where not.

    Raises:
        UsageError: No such estimator, an option that it does not take, or of another type.
    """
    settings: dict[str, Any] = {"num_samples": 5000, "weight_samples": 10, "seed": 0}
    if name in ESTIMATORS:
        parameters = list(inspect.signature(ESTIMATORS[name]).parameters.values())[3:]
        settings = {parameter.name: parameter.default for parameter in parameters}
    elif name != IMPORTANCE:
        known = [IMPORTANCE, *ESTIMATORS]
        near = difflib.get_close_matches(name, known, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"no estimator {name!r}{hint}; use {', '.join(known)}")
    for option, value in (options or {}).items():
        if option not in settings:
            raise UsageError(
                f"--estimator {name} takes no {option!r}; it takes {', '.join(settings)}"
            )
        kind = type(settings[option])
        if isinstance(value, bool) or not isinstance(
            value, (int, float) if kind is float else kind
        ):
            raise UsageError(
                f"--estimator {name}: {option} is {value!r}; its default is {settings[option]!r}"
            )
        if kind is int and option != "seed" and value < 1:
            raise UsageError(f"--estimator {name}: {option} is {value}; it must be at least 1")
    given = {flag: value for flag, value in flags.items() if value is not None}
    followed = {"seed"} | OF_WORK.get(name, {"memory", "compile"})
    for flag in sorted(given.keys() - settings.keys() - followed):
        raise UsageError(f"--estimator {name} has no use for --{flag.replace('_', '-')}")
    chosen = settings | {k: v for k, v in given.items() if k in settings} | dict(options or {})
    check_seed(chosen.get("seed", 0))
    return chosen


@np.errstate(invalid="ignore")  # infinite values have no difference, and the results say so
def estimate(
    run: Run, prepared: Prepared, test: Batches, name: str, settings: Mapping[str, Any], work: Work
) -> dict[str, Any]:
    r"""Run an estimator and add what it finds to a run's results.

    Arguments:
        run: The run, which has results.
        prepared: Its pair and data.
        test: The data to score, the first of the test split.
        name: One of ``ESTIMATORS``.
        settings: See :func:`choose`.
        work: Who does it: one process.

    Returns:
        What ``results.json`` holds now.

    Raises:
        UsageError: There are several processes, or the estimator is not defined for the pair.
    """
    if work.group.size > 1:
        raise UsageError(f"--estimator {name} runs in one process; start it without torchrun")
    run.current_results()
    began = time.perf_counter()
    metrics, per_datum = ESTIMATORS[name](prepared, test, work, **settings)
    stated = {
        **settings,
        "num_data": len(test),
        "seconds": round(time.perf_counter() - began, 3),
        "environment": environment(test.device),
    }
    run.add(name, stated, metrics, per_datum)
    compare_bounds(run)
    undrawn: list[str] = []
    with drawn("convergence.png", undrawn, run):
        draw_convergence(run)
    if name == "gap":
        with drawn("inference_gap.png", undrawn, run):
            _draw_gap(run)
    return noted(run, undrawn)
