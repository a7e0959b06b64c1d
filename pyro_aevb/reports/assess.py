r"""Assess a trained pair on a split: numbers, per-datum values and figures of a run."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_aevb.data.batches import Batches
from pyro_aevb.data.naming import CALLED, TEST
from pyro_aevb.device import called
from pyro_aevb.errors import UsageError, at_least_one
from pyro_aevb.estimators import ESTIMATORS, IMPORTANCE, found_by, shipped
from pyro_aevb.estimators.classification import predict
from pyro_aevb.estimators.convergence import Curve, against_weights
from pyro_aevb.estimators.importance import Scorer, Scores
from pyro_aevb.estimators.latents import latent_health, no_density, summarize_latents
from pyro_aevb.estimators.marginal import MarginalLikelihood, Marginals
from pyro_aevb.estimators.metrics import ONE, summarize, undefined, weight_kl
from pyro_aevb.estimators.spot_check import spot_check
from pyro_aevb.estimators.work import Work
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.reports import plots
from pyro_aevb.reports.comparison import paired
from pyro_aevb.reports.duration import say_how_long
from pyro_aevb.reports.figures import draw_figures, drawn, noted, trained_corruption
from pyro_aevb.reports.rehearsal import attempt
from pyro_aevb.reports.text import value_of
from pyro_aevb.runs.prepare import Prepared, is_grey_bernoulli
from pyro_aevb.runs.provenance import provenance
from pyro_aevb.runs.run import Run

DEFAULTS: dict[str, Any] = {
    "num_samples": 500,
    "weight_samples": 10,
    "seed": 0,
    "proposal": "laplace",
    "monte_carlo_error": 0.1,
    "max_samples": 5000,
}
r"""How importance sampling scores: K draws of the guide, S of the weights, the seed of all; what
``log_likelihood`` draws from, the Monte Carlo error in nats that a datum should have, and the most
draws that it may take."""
GREY = (
    "note: grey pixels under a Bernoulli give a cross-entropy, not a normalized density; compare "
    "these numbers only with others of the same kind (--binarize dynamic gives log-likelihoods)"
)


def assess(
    run: Run,
    prepared: Prepared,
    test: Batches,
    settings: Mapping[str, Any],
    work: Work,
    trained: bool = False,
) -> dict[str, Any]:
    r"""Score a split and write ``results.json``, ``results.nc`` and ``figures/``.

    Figures are of the test split alone.

    What other estimators have left in the results stays, unless the pair was trained since. Where
    results of more data of the same training are there, they stay too, with their figures, and what
    is found now goes into their section ``looks``.

    Arguments:
        run: Where to write, on the split that is scored.
        prepared: The trained pair and its data.
        test: The data to score, the first of the split.
        settings: Those of :data:`DEFAULTS`, all of them.
        work: The processes that share the work, of which process 0 writes, and how they score;
            where the pair has to be scored eagerly, a note of the results says why.
        trained: Whether the pair was trained since the results were written.

    Returns:
        What ``results.json`` holds, or of a look what it found; nothing in other processes than
        the first.
    """
    began, epochs = time.perf_counter(), len(run.history)
    pair, description = prepared.pair, prepared.description
    said: list[str] = []
    weight_samples, seed = settings["weight_samples"], settings["seed"]

    def scored(what: str, data: Batches, k: int, seed: int, details: bool) -> Scores | None:
        how = (work.memory, details, work.compile, said.append)
        scorer = Scorer(pair, k, weight_samples, seed, *how)
        return work.score(what, scorer, data)

    if work.show:
        say_how_long(pair, test, settings, work)
    scores = scored(f"scoring {CALLED[run.split]} data", test, settings["num_samples"], seed, True)
    marginals = _marginals(pair, test, settings, scores, work, said.append)
    train = scored("scoring training data once", prepared.fixed_train, 1, seed + 1, False)
    if scores is None or train is None:
        return {}
    weights, no_weights = None, None
    if description.weights_undefined() is None:
        few = test.take(torch.arange(min(2, len(test))))
        weights, no_weights = attempt(lambda: weight_kl(pair, few, weight_samples, seed))
    check = None
    if marginals is not None and marginals.proposal == "laplace":
        how = (seed, work.memory, work.compile)
        check, unchecked = attempt(lambda: spot_check(pair, test, marginals, *how))
        said += [f"log_likelihood has no spot check: {unchecked}"] if unchecked else []
    metrics = summarize(scores, marginals, train, description, weights, spot_check=check)
    if no_weights is not None:
        metrics |= {name: undefined(no_weights) for name in ("weight_kl", "training_elbo")}
    health, reason = None, no_density(description) or (ONE if len(test) < 2 else None)
    if reason is None:
        health, reason = attempt(lambda: latent_health(pair, test, seed=seed))
    metrics |= summarize_latents(health, reason)
    predictions = predict(pair, test, weight_samples, seed)
    if predictions is not None:
        metrics |= predictions.metrics()
        metrics["log_likelihood"]["of"] = description.observed
    seconds = time.perf_counter() - began
    results: dict[str, Any] = {
        "pair": pair.name,
        "data": prepared.data.name,
        "data_description": prepared.data.description,
        "split": run.split,
        "binarization": test.binarize,
        "training_binarization": prepared.binarize,
        "num_data": len(test),
        "num_train": len(prepared.train),
        "epochs": epochs,
        **({} if prepared.best_epoch is None else {"best_epoch": prepared.best_epoch}),
        **({"validation": validated(run, prepared.best_epoch)} if run.history else {}),
        "seconds": round(seconds, 3),
        "parameters": description.num_parameters,
        "codes": description.kind_of_codes(),
        "environment": environment(test.device),
        "provenance": provenance(run, len(prepared.train), seed, seconds),
        "settings": {IMPORTANCE: {**settings, "num_data": len(test)}},
        "metrics": metrics,
        "notes": [
            *prepared.notes,
            *([GREY] if is_grey_bernoulli(prepared) else []),
            *(_on_training(run, pair) if run.history else ()),
            *_of_split(run, prepared),
            *(f"note: {reason}" for reason in dict.fromkeys(said)),
        ],
    }
    if not trained and run.has_more(results):
        return _look(run, results)
    if trained:  # what other evaluations drew is of other weights
        files = [shipped(name).file for name in ESTIMATORS]
        stale = ("against-*.png", "estimator-*.png", *filter(None, files))
        found = [path for name in stale for path in run.figures.glob(name)]
        for path in (*found, *run.path.glob("results-*.nc")):
            path.unlink()
    with run.in_turn():
        run.check_not_trained_since(epochs)
        if not trained and run.has_more(results):  # since it was looked at above
            return _look(run, results)
        results = run.with_others(results, trained)
        run.write_scored(results, scores, marginals, predictions)
    if run.split != TEST:
        return run.results
    undrawn = draw_figures(run, prepared, scores, marginals, health)
    compare_bounds(run, undrawn)
    return noted(run, undrawn)


def validated(run: Run, best_epoch: int | None = None) -> dict[str, float | None]:
    r"""What training found of its validation data after the epoch whose weights are scored.

    It is the mean over the validation data in nats, as ``history.csv`` has it, of one draw of the
    guide for each datum: a score to choose settings by that costs nothing and has seen no test
    data, with more noise than what ``evaluate --split valid`` finds.

    Arguments:
        run: The run, with a history.
        best_epoch: The epoch that training returned to, if it was not the last.
    """
    row = run.history[(best_epoch or 0) - 1]
    of_training = {"stage", "learning_rate", "kl_scale", "objective", "images_per_second"}
    return {
        name: value
        for name, value in row.items()
        if name not in of_training and not name.endswith("_loss")
    }


def _of_split(run: Run, prepared: Prepared) -> Iterator[str]:
    r"""Notes on scores of data that training has seen."""
    if run.split == "train":
        yield "note: these are the data that the pair was trained on; of new ones scores are lower"
    if run.split == "valid" and prepared.best_epoch is not None:
        yield (
            "note: training returned to its best epoch on these data (--patience), so their scores "
            "err upwards"
        )


def _marginals(
    pair: Pair,
    test: Batches,
    settings: Mapping[str, Any],
    scores: Scores | None,
    work: Work,
    say: Callable[[str], None],
) -> Marginals | None:
    r"""Estimates of log p(x|w) of every datum, in process 0 and where the latents have a density.

    Where no latents are drawn for a datum they are known exactly, and the guide's own draws, which
    are there already, are not made again.
    """
    description = pair.description
    assert description is not None
    if description.undefined() is None and description.local_sites:
        if settings["proposal"] != "guide":
            estimate = MarginalLikelihood(
                pair,
                settings["proposal"],
                settings["num_samples"],
                settings["weight_samples"] if description.global_sites else 1,
                settings["seed"],
                work.memory,
                work.compile,
                say,
                target=settings["monte_carlo_error"],
                max_samples=settings["max_samples"],
            )
            return work.score("estimating log p(x)", estimate, test)
    if scores is None or scores.log_weight is None:
        return None
    return Marginals.of_guide(scores)


def _look(run: Run, results: dict[str, Any]) -> dict[str, Any]:
    r"""Keep results of fewer data than those that are there beside these."""
    n, more = results["num_data"], run.results["num_data"]
    notes = results["notes"] + [
        f"note: of the first {n:,} data alone: results.json keeps this in a section looks, and "
        f"the results, {run.arrays.name} and figures of {more:,} data stay"
    ]
    entry = {"settings": results["settings"][IMPORTANCE], "metrics": results["metrics"]}
    run.add_section("looks", str(n), entry)
    return results | {"notes": notes}


def processor() -> str:
    r"""What the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment(device: torch.device) -> str:
    r"""The device, the versions and the precision that a figure was computed with."""
    versions = [f"{name} {version(name)}" for name in ("pyro-ppl", "torch", "arviz")]
    parts = [called(device), f"Python {platform.python_version()}", *versions]
    precision = torch.get_float32_matmul_precision()
    if precision != "highest":
        parts.append(f"float32 products at {precision} precision")
    return ", ".join(parts)


def to_score(
    batches: Batches, num_samples: int, weight_samples: int, n: int | None, memory: int | None
) -> Batches:
    r"""The first n data of a split, presented as before, after a look at every count.

    Raises:
        UsageError: A count is below 1; n is below 2, or there are fewer data.
    """
    at_least_one("--num-samples", num_samples)
    at_least_one("--weight-samples", weight_samples)
    at_least_one("--memory", memory)
    if n is None:
        return batches
    if not 2 <= n <= len(batches):
        raise UsageError(f"--num-data is {n}; it must lie between 2 and {len(batches)}")
    return batches.first(n)


def _on_training(run: Run, pair: Pair) -> Iterator[str]:
    r"""Notes on what training ascended, where it was something else than what is scored."""
    corruption, weight = trained_corruption(run, pair), run.history[-1]["kl_scale"]
    if corruption is not None:
        yield f"note: {pair.name} was trained on {corruption} of its input; scored on clean input"
    if (norm := run.settings.get("clip_norm")) is not None:
        yield f"note: {pair.name} was trained with gradients of a norm of at most {norm:g}"
    if weight != 1:
        yield f"note: {pair.name} was trained with the KL times {weight:g}; scored with the KL"


def compare_bounds(run: Run, undrawn: list[str], estimates: Sequence[str] = ()) -> None:
    r"""Compare what others estimate log p(x) to be with ``log_likelihood``, and draw it.

    Of another split than the test split nothing is drawn.

    ``convergence.png`` has both as lines beside the curve of ``iwae_bound``. Their
    ``above_log_likelihood`` is the mean of the differences, datum by datum, with their
    standard error, on the data that both have seen; not there where they have another number of
    draws of the weights.

    Arguments:
        run: The run.
        undrawn: The list that a note is added to where the figure fails.
        estimates: The metrics of a user's own estimator that are compared too.
    """
    with run.in_turn():
        results = run.results
        metrics, reference = results["metrics"], results["metrics"]["log_likelihood"]
        known = {*estimates}.union(*(estimator.estimates for estimator in found_by(metrics)))
        bounds = {}
        for name, metric in metrics.items():
            if metric["value"] is not None and (name in known or "above_log_likelihood" in metric):
                try:
                    bounds[name] = run.per_datum(metric["estimator"], name)
                except UsageError:  # they were in a file that was damaged
                    metric.pop("above_log_likelihood", None)
        if reference["value"] is not None and (likely := _likely(run)) is not None:
            for name, values in bounds.items():
                metrics[name].pop("above_log_likelihood", None)
                # Of other draws of the weights p(x|w) is another quantity.
                if metrics[name].get("weight_samples", 1) == reference.get("weight_samples", 1):
                    above = paired(likely, values) | {"num_samples": reference["num_samples"]}
                    metrics[name]["above_log_likelihood"] = above
            # Of the guide's own draws it is where the curve of the bound ends.
            if reference.get("proposal", "guide") != "guide":
                bounds = {"log_likelihood": likely, **bounds}
        run.write_results(results)
    if run.split != TEST:
        return
    with drawn("convergence.png", undrawn, run):
        _draw_convergence(run, metrics, bounds)


def _likely(run: Run) -> np.ndarray | None:
    r"""The estimates of log p(x_n), if the file that they were in is there."""
    try:
        return run.per_datum("predictive", "log_likelihood")
    except UsageError:
        return None


def _draw_convergence(
    run: Run, metrics: Mapping[str, Any], bounds: Mapping[str, np.ndarray]
) -> None:
    curves = {}
    if value_of(metrics, "rise") is not None:
        looks = run.per_datum("convergence", "num_samples")
        values = run.per_datum("convergence", "iwae_bound")
        curves["iwae_bound", "draws of the guide K"] = Curve(tuple(int(k) for k in looks), values)
    if value_of(metrics, "weight_rise") is not None:
        of_weights = against_weights(run.per_datum("log_likelihood", "x")[0])
        assert of_weights is not None
        curves["log_likelihood", "draws of the weights S"] = of_weights
    if not curves:
        return
    # All of the same data: the first that every one of them has seen.
    n = min(len(values) for values in (*bounds.values(), *(c.values[0] for c in curves.values())))
    curves = {name: Curve(curve.counts, curve.values[:, :n]) for name, curve in curves.items()}
    levels = {name: float(values[:n].mean()) for name, values in bounds.items()}
    margins = {}
    for estimator in found_by(metrics):
        margin, of = estimator.margin or ("", "")
        if estimator.comparable(metrics) and (height := value_of(metrics, margin)) is not None:
            margins[of] = margin, height
    plots.convergence(curves, run.figures / "convergence.png", levels, margins)
