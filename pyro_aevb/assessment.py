r"""Assess a trained pair on the test split: numbers, per-datum values and figures of a run."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_aevb import plots
from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import Compile, Scores, score
from pyro_aevb.estimators.quantities import log_likelihood, summarize, weight_kl
from pyro_aevb.predict import decode_grid, encode, generate, reconstruct, traverse
from pyro_aevb.preparation import Prepared, is_grey_bernoulli
from pyro_aevb.runs import Run
from pyro_aevb.sharing import score_together
from pyro_aevb.training.parallel import Alone

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
) -> dict[str, Any]:
    r"""Score the test split and write ``results.json``, ``results.nc`` and ``figures/``.

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

    Returns:
        What ``results.json`` holds; nothing in other processes than the first.
    """
    began = time.perf_counter()
    budget = memory and memory << 20
    pair, description = prepared.pair, prepared.description
    test = to_score(prepared.test, num_samples, weight_samples, num_data, memory)
    repeats = weight_samples if description.global_sites else 1
    said: list[str] = []
    group = group or Alone()

    def scored(what: str, data: Batches, k: int, seed: int, details: bool) -> Scores | None:
        with _bar(show, what, repeats * len(data)) as progress:
            drawn = (k, weight_samples, seed, budget)
            part = partial(score, pair, data, *drawn, progress, details, compile, said.append)
            return score_together(group, len(data), part)

    scores = scored("scoring test data", test, num_samples, seed, True)
    train = scored("scoring training data", prepared.fixed_train, 1, seed + 1, False)
    if scores is None or train is None:
        return {}
    weights = None
    if description.weights_undefined() is None:
        weights = weight_kl(pair, test.take(torch.arange(2)), weight_samples, seed)
    metrics = summarize(scores, train, description, weights)
    results = {
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
        "metrics": metrics,
        "notes": [
            *prepared.notes,
            *([GREY] if is_grey_bernoulli(prepared) else []),
            *(f"note: {reason}" for reason in dict.fromkeys(said)),
        ],
    }
    per_datum = None if scores.log_weight is None else log_likelihood(scores)
    # The numbers first: whatever happens to the rest, they are kept.
    run.write_results(results)
    run.write_per_datum(scores, per_datum)
    draw_figures(run, prepared, scores)
    return results


def processor() -> str:
    r"""What the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment(device: torch.device) -> str:
    r"""The device and the versions that a figure was computed with."""
    versions = [f"{name} {version(name)}" for name in ("pyro-ppl", "torch", "arviz")]
    where = f"{torch.get_num_threads()} CPU threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    return ", ".join([where, f"Python {platform.python_version()}", *versions])


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


@contextmanager
def _bar(show: bool, what: str, total: int) -> Iterator[Callable[[int], None]]:
    from tqdm import tqdm

    with tqdm(total=total, disable=not show, unit="datum", desc=what, mininterval=0.5) as bar:
        yield lambda n: None if bar.update(n) else None


@torch.no_grad()
def draw_figures(run: Run, prepared: Prepared, scores: Scores | None) -> None:
    r"""Every picture that the pair allows, into ``figures/``."""
    run.figures.mkdir(exist_ok=True)
    pair, description, path = prepared.pair, prepared.description, run.figures
    test = prepared.test
    if run.history:
        plots.history(run.history, path / "history.png")
    x = test.take(_spread(len(test), prepared.data.test.labels))
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        torch.manual_seed(0)
        images = reconstruct(pair, x)
        if images.shape == x.shape:
            plots.reconstructions(_array(x), _array(images), path / "reconstructions.png")
        if description.undefined() is None:
            many = test.take(torch.arange(min(64, len(test))))
            drawn = generate(pair, many)
            if drawn.shape == many.shape:
                plots.samples(_array(drawn), path / "samples.png")
    if len(description.local_sites) == 1 and len(description.local_sites[0].event_shape) == 1:
        _latent_figures(run, prepared)
    if scores is not None and scores.elbo is not None and scores.log_weight is not None:
        plots.elbo_against_log_likelihood(
            scores.elbo.mean(0), log_likelihood(scores), path / "elbo_log_likelihood.png"
        )


def _latent_figures(run: Run, prepared: Prepared) -> None:
    pair, test, path = prepared.pair, prepared.test, run.figures
    x = test.take(torch.arange(min(2000, len(test))))
    codes = _array(next(iter(encode(pair, x).values())))
    labels = prepared.data.test.labels
    if codes.shape[1] == 2:
        shown = None if labels is None else labels[: len(codes)].numpy()
        plots.latent_scatter(codes, shown, path / "latent.png")
        if prepared.description.undefined() is None:
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
