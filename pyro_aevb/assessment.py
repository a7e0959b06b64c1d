r"""Assess a trained pair on the test split: numbers, per-datum values and figures of a run."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_aevb import plots
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.corruption import Corruption, make_corruption
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.estimators.convergence import Curve, against_weights
from pyro_aevb.estimators.importance import Compile, Scorer, Scores
from pyro_aevb.estimators.latents import (
    COLLAPSED,
    LatentHealth,
    latent_health,
    no_density,
    summarize_latents,
)
from pyro_aevb.estimators.quantities import log_likelihood, measured, summarize, weight_kl
from pyro_aevb.pairs import Pair
from pyro_aevb.predict import (
    decode_grid,
    draw_prior,
    encode,
    generate,
    reconstruct,
    shown_by,
    traverse,
)
from pyro_aevb.preparation import Prepared, is_grey_bernoulli
from pyro_aevb.pythonstate import untouched
from pyro_aevb.report import alike
from pyro_aevb.runs import Run
from pyro_aevb.sharing import Work
from pyro_aevb.training.parallel import Alone

BOUNDS = {"ais_lower", "reciprocal", "log_likelihood_best"}
r"""Metrics of other estimators that estimate log p(x) of the test data, datum by datum."""
GREY = (
    "note: grey pixels under a Bernoulli give a cross-entropy, not a normalized density; compare "
    "these numbers only with others of the same kind (--binarize dynamic gives log-likelihoods)"
)


def assess(
    run: Run,
    prepared: Prepared,
    num_samples: int,
    weight_samples: int,
    num_data: int | None,
    seed: int,
    memory: int | None,
    show: bool,
    compile: Compile = "auto",
    group: Alone | None = None,
    trained: bool = False,
) -> dict[str, Any]:
    r"""Score the test split and write ``results.json``, ``results.nc`` and ``figures/``.

    What other estimators have left in the results stays, unless the pair was trained since.

    Arguments:
        run: Where to write.
        prepared: The trained pair and its data.
        num_samples: K.
        weight_samples: S.
        num_data: Score only the first n test data; None scores all.
        seed: Of the draws.
        memory: Budget in MiB, see :func:`~pyro_aevb.estimators.importance.score`.
        show: Show a progress bar.
        compile: See :class:`~pyro_aevb.estimators.importance.Scorer`; where the pair has to be
            scored eagerly, a note of the results says why.

        group: The processes that share the work; process 0 writes.
        trained: Whether the pair was trained since the results were written.

    Returns:
        What ``results.json`` holds; nothing in other processes than the first.
    """
    began = time.perf_counter()
    budget = memory and memory << 20
    pair, description = prepared.pair, prepared.description
    test = to_score(prepared.test, num_samples, weight_samples, num_data, memory)
    said: list[str] = []
    work = Work(group or Alone(), show)

    def scored(what: str, data: Batches, k: int, seed: int, details: bool) -> Scores | None:
        scorer = Scorer(pair, k, weight_samples, seed, budget, details, compile, said.append)
        return work.score(what, scorer, data)

    scores = scored("scoring test data", test, num_samples, seed, True)
    train = scored("scoring training data", prepared.fixed_train, 1, seed + 1, False)
    if scores is None or train is None:
        return {}
    weights = None
    if description.weights_undefined() is None:
        weights = weight_kl(pair, test.take(torch.arange(2)), weight_samples, seed)
    metrics = summarize(scores, train, description, weights)
    reason = no_density(description)
    health = None if reason else latent_health(pair, test, seed=seed)
    metrics |= summarize_latents(health, reason)
    results: dict[str, Any] = {
        "pair": pair.name,
        "data": prepared.data.name,
        "data_description": prepared.data.description,
        "split": "test",
        "binarization": test.binarize,
        "training_binarization": prepared.binarize,
        "num_data": len(test),
        "num_train": len(prepared.train),
        "epochs": len(run.history),
        "seconds": round(time.perf_counter() - began, 3),
        "parameters": description.num_parameters,
        "environment": environment(test.images.device),
        "settings": {
            "importance": {
                "num_samples": num_samples,
                "weight_samples": weight_samples,
                "num_data": len(test),
                "seed": seed,
            }
        },
        "metrics": metrics,
        "notes": [
            *prepared.notes,
            *([GREY] if is_grey_bernoulli(prepared) else []),
            *(_on_training(run, pair) if run.history else ()),
            *(f"note: {reason}" for reason in dict.fromkeys(said)),
        ],
    }
    per_datum = None if scores.log_weight is None else log_likelihood(scores)
    # The numbers first: whatever happens to the rest, they are kept.
    if trained:  # what other evaluations drew is of other weights
        for stale in ("inference_gap.png", "against-*.png"):
            for path in run.figures.glob(stale):
                path.unlink()
    else:
        results = run.with_others(results)
    run.write_results(results)
    run.write_per_datum(scores, per_datum)
    undrawn = draw_figures(run, prepared, scores, health)
    results = compare_bounds(run)
    with drawn("convergence.png", undrawn):
        draw_convergence(run)
    if undrawn:
        results["notes"] = [*results["notes"], *undrawn]
        run.write_results(results)
    return results


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
    where = f"{torch.get_num_threads()} CPU threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    parts = [where, f"Python {platform.python_version()}", *versions]
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
    counts = {"num-samples": num_samples, "weight-samples": weight_samples, "memory": memory}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; it must be at least 1")
    if n is None:
        return batches
    if not 2 <= n <= len(batches):
        raise UsageError(f"--num-data is {n}; it must lie between 2 and {len(batches)}")
    return batches.first(n)


def _on_training(run: Run, pair: Pair) -> Iterator[str]:
    r"""In what the training's objective was another than what is scored."""
    corruption, weight = _trained_corruption(run, pair), run.history[-1]["kl_scale"]
    if corruption is not None:
        yield f"note: {pair.name} was trained on {corruption} of its input; scored on clean input"
    if weight != 1:
        yield f"note: {pair.name} was trained with the KL times {weight:g}; scored with the KL"


@contextmanager
def drawn(figure: str, undrawn: list[str]) -> Iterator[None]:
    r"""Draw a figure inside this: if that fails, a note says why, and everything else goes on.

    Arguments:
        figure: Its name.
        undrawn: Where the note goes.
    """
    try:
        yield
    except Exception as error:  # of a pair's code, or of data that a picture was not made for
        kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
        undrawn.append(f"note: {figure} is not drawn: {kind}{one_line(error)}")


@torch.no_grad()
def rehearse(prepared: Prepared) -> list[str]:
    r"""Score two data, and decode them as pictures do, to know before any training what fails.

    Leaves everything as it was.

    Returns:
        In a line each, what will not be drawn, and why.

    Raises:
        UsageError: The pair cannot be scored.
    """
    pair, description = prepared.pair, prepared.description
    few = prepared.test.first(min(2, len(prepared.test)))
    x = few.take(torch.arange(len(few)))
    undrawn: list[str] = []
    with untouched(pair.python, [x.device]):
        try:
            Scorer(pair, 2, 1)(few)
        except (ValueError, RuntimeError, IndexError, TypeError, NotImplementedError) as error:
            raise UsageError(
                f"{pair.name} cannot be scored: {type(error).__name__}: {one_line(error)}"
            ) from error
        if description.no_simulation() is None:
            with drawn("reconstructions.png", undrawn):
                reconstruct(pair, x)
            if description.no_prior() is None:
                with drawn("samples.png", undrawn):
                    generate(pair, x)
    return undrawn


@torch.no_grad()
def draw_figures(
    run: Run, prepared: Prepared, scores: Scores | None, health: LatentHealth | None = None
) -> list[str]:
    r"""Every picture that the pair allows, into ``figures/``.

    Returns:
        In a line each, which figures failed, and why.
    """
    run.figures.mkdir(exist_ok=True)
    description, path = prepared.description, run.figures
    undrawn: list[str] = []
    if run.history:
        with drawn("history.png", undrawn):
            label = "training objective"
            if description.weights_undefined() is None:
                label += ", minus KL(q(w) || p(w)) / N"
            plots.history(run.history, path / "history.png", label)
    x = prepared.test.take(_spread(len(prepared.test), prepared.data.test.labels))
    if description.no_simulation() is not None:
        undrawn.append(f"note: no data are decoded in pictures: {description.no_simulation()}")
    else:
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            torch.manual_seed(0)
            _decoded_figures(run, prepared, x, undrawn)
    if scores is not None and scores.elbo is not None and scores.log_weight is not None:
        with drawn("elbo_log_likelihood.png", undrawn):
            plots.elbo_against_log_likelihood(
                scores.elbo.mean(0), log_likelihood(scores), path / "elbo_log_likelihood.png"
            )
    if health is not None and health.by_dimension:
        with drawn("latent_kl.png", undrawn):
            plots.latent_kl(health.by_dimension, COLLAPSED, path / "latent_kl.png")
    return undrawn


def _decoded_figures(run: Run, prepared: Prepared, x: torch.Tensor, undrawn: list[str]) -> None:
    r"""Reconstructions of x, samples, and walks through the latent space."""
    pair, description, path = prepared.pair, prepared.description, run.figures
    with drawn("reconstructions.png", undrawn):
        images = reconstruct(pair, x)
        if images.shape == x.shape:
            what = {"mean": "reconstruction"}.get(kind := shown_by(pair, x), f"its {kind}")
            shown = path / "reconstructions.png"
            plots.reconstructions(_array(x), _array(images), shown, output=what)
            if (corruption := _trained_corruption(run, pair)) is not None:
                seen = corruption(x)
                images = reconstruct(pair, seen)
                shown = path / "denoising.png"
                plots.reconstructions(_array(seen), _array(images), shown, _array(x), what)
    if description.no_prior() is None:
        with drawn("samples.png", undrawn):
            many = prepared.test.take(torch.arange(min(64, len(prepared.test))))
            made = generate(pair, many)
            if made.shape == many.shape:
                kind = shown_by(pair, many)
                title = f"{kind}s of p(x|z), one for each z of the prior"
                plots.samples(_array(made), path / "samples.png", title)
    if len(description.local_sites) == 1 and len(description.local_sites[0].event_shape) == 1:
        with drawn("the latent space", undrawn):
            _latent_figures(run, prepared)


def compare_bounds(run: Run) -> dict[str, Any]:
    r"""Compare every metric of :data:`BOUNDS` with ``log_likelihood``, datum by datum.

    Its ``above_log_likelihood`` is the mean of the differences with their standard error, on the
    data that both have seen; not there where they have another number of draws of the weights.

    Returns:
        What ``results.json`` holds now.
    """
    results = run.results
    reference = results["metrics"]["log_likelihood"]
    if reference["value"] is None:
        return results
    importance = run.per_datum("predictive", "log_likelihood")
    for name in BOUNDS & results["metrics"].keys():
        metric = results["metrics"][name]
        metric.pop("above_log_likelihood", None)
        if metric.get("weight_samples", 1) != reference.get("weight_samples", 1):
            continue  # p(x|w) of other draws of the weights
        values = run.per_datum(metric["estimator"], name)
        n = min(len(values), len(importance))
        counts = {"num_data": n, "num_samples": reference["num_samples"]}
        metric["above_log_likelihood"] = measured(values[:n] - importance[:n], **counts)
    run.write_results(results)
    return results


def draw_convergence(run: Run) -> None:
    r"""The log-likelihood against the number of draws, beside bounds that other estimators found.

    From what the run's files hold; nothing where they hold no such curve.
    """
    results, curves = run.results, {}
    if results["metrics"].get("rise", {"value": None})["value"] is not None:
        looks = run.per_datum("convergence", "num_samples")
        values = run.per_datum("convergence", "log_likelihood")
        curves["importance samples K"] = Curve(tuple(int(k) for k in looks), values)
    if results["metrics"].get("weight_rise", {"value": None})["value"] is not None:
        of_weights = against_weights(run.per_datum("log_likelihood", "x")[0])
        assert of_weights is not None
        curves["draws of the weights S"] = of_weights
    if not curves:
        return
    bounds = {
        name: run.per_datum(metric["estimator"], name)
        for name, metric in results["metrics"].items()
        if name in BOUNDS and metric["value"] is not None
    }
    # All of the same data: the first that every one of them has seen.
    n = min(len(values) for values in (*bounds.values(), *(c.values[0] for c in curves.values())))
    curves = {name: Curve(curve.counts, curve.values[:, :n]) for name, curve in curves.items()}
    levels = {name: float(values[:n].mean()) for name, values in bounds.items()}
    gap = results["metrics"]["bdmc_gap"]["value"] if alike(results["metrics"]) else None
    plots.convergence(curves, run.figures / "convergence.png", levels, gap)


def _trained_corruption(run: Run, pair: Pair) -> Corruption | None:
    r"""What corrupted a run's training data, where its settings or its pair can still say."""
    named, options = (run.settings.get(key) for key in ("corruption", "corruption_options"))
    if str(named).startswith("<"):  # a Python object
        return None
    return make_corruption(named, options, pair.attribute("corruption"))


def _latent_figures(run: Run, prepared: Prepared) -> None:
    pair, test, path = prepared.pair, prepared.test, run.figures
    x = test.take(torch.arange(min(2000, len(test))))
    (site,) = prepared.description.local_sites
    # Draws where their distribution is what was trained for, else means.
    codes = _array(encode(pair, x, sample=site.matched)[site.name])
    labels = prepared.data.test.labels
    shown = None if labels is None else labels[: len(codes)].numpy()
    if site.matched and codes.shape[1] > 1:
        drawn = _array(draw_prior(pair, x))
        plots.latent_scatter(codes[:, :2], shown, path / "latent.png", drawn[:, :2])
    elif codes.shape[1] == 2:
        plots.latent_scatter(codes, shown, path / "latent.png")
    if codes.shape[1] == 2:
        if prepared.description.undefined() is None or (site.matched and site.prior == "Normal"):
            grid = decode_grid(pair, plots.manifold_grid(20), x)
            if grid.shape[1:] == x.shape[1:]:
                plots.manifold(grid, path / "manifold.png")
        return
    if codes.shape[1] < 2 or np.prod(x.shape[1:]) != np.prod(prepared.description.event_shape):
        return
    dimensions = [int(i) for i in np.argsort(-codes.var(0))[:8]]
    values = np.linspace(-3, 3, 11) * max(1.0, float(codes.std(0)[dimensions].max()) / 3)
    images = traverse(pair, x[:1], dimensions, values)
    names = [f"z[{dimension}]" for dimension in dimensions]
    plots.traversals(images, values, path / "traversals.png", names)


def _spread(n: int, labels: torch.Tensor | None) -> torch.Tensor:
    r"""Ten data to show: one of each class where there are ten, else the first."""
    if labels is not None and len(labels.unique()) == 10:
        return torch.stack([(labels == c).nonzero()[0, 0] for c in labels.unique()])
    return torch.arange(min(10, n))


def _array(x: torch.Tensor) -> np.ndarray:
    values: np.ndarray = x.cpu().numpy()
    return values
