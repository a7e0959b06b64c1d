r"""The pictures of a run, each on its own: one that fails is a note, and the others are drawn."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import Batch, Data, data_of, with_data
from pyro_aevb.data.corruption import Corruption, make_corruption
from pyro_aevb.device import forked
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.estimators.importance import Scores
from pyro_aevb.estimators.latents import COLLAPSED, LatentHealth
from pyro_aevb.estimators.marginal import Marginals
from pyro_aevb.estimators.metrics import log_mean
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.predict import (
    decode_grid,
    draw_prior,
    encode,
    generate,
    in_each_class,
    reconstruct,
    shown_by,
    traverse,
)
from pyro_aevb.reports import plots
from pyro_aevb.reports.planes import By, plane_of, standard_normal
from pyro_aevb.reports.plots import canvas
from pyro_aevb.reports.uncertainty import over_weights
from pyro_aevb.reports.walks import along_columns, between
from pyro_aevb.runs.prepare import Prepared
from pyro_aevb.runs.run import Run
from pyro_aevb.runs.writing import NotWritten

MANY = 2000
r"""Data at most whose codes, and whose components where they are vectors, are in a picture."""
VALUES = 4_000_000
r"""Values at most of such vectors."""
MOST_CLASSES = 20
r"""Labels at most that a code is decoded with."""


@contextmanager
def drawn(figure: str, undrawn: list[str], run: Run | None = None) -> Iterator[None]:
    r"""Draw a figure inside this: if that fails, a note says why, and everything else goes on.

    Arguments:
        figure: The name of its file.
        undrawn: The list that the note is added to.
        run: The run that the figure is of, which its title names; an earlier one is removed.
    """
    title = _title(run)
    try:
        with canvas.titled(title):
            yield
    except NotWritten:  # as the numbers could not be, either
        raise
    except Exception as error:  # of a pair's code, or of data that a picture was not made for
        if run is not None:
            (run.figures / figure).unlink(missing_ok=True)
        kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
        undrawn.append(f"note: {figure} is not drawn: {kind}{one_line(error)}")


def _title(run: Run | None) -> str:
    if run is None:
        return ""
    if run.held is not None:
        pair, data = run.held.pair.name, run.held.data.name
    else:
        try:
            results = run.results
        except UsageError:  # none yet
            return run.name
        pair, data = results["pair"], results["data"]
    return f"{pair} on {data.rstrip('/').rpartition('/')[2]}"  # of a path its last name


def noted(run: Run, undrawn: Sequence[str]) -> dict[str, Any]:
    r"""Add notes of figures that are not drawn to a run's results.

    Returns:
        What ``results.json`` holds now.
    """
    with run.in_turn():
        results = run.results
        if undrawn:
            results["notes"] = list(dict.fromkeys([*results.get("notes", []), *undrawn]))
            run.write_results(results)
    return results


@torch.no_grad()
def draw_figures(
    run: Run,
    prepared: Prepared,
    scores: Scores | None,
    marginals: Marginals | None = None,
    health: LatentHealth | None = None,
    by: By = "pca",
) -> list[str]:
    r"""Every picture that the pair allows, into ``figures/``.

    Arguments:
        run: The run.
        prepared: Its trained pair and data.
        scores: Scores of the test data by the guide's draws, if there are some.
        marginals: Estimates of their log-likelihoods.
        health: The latents' KL, by dimension.
        by: What brings codes of more than two dimensions into a plane; see
            :func:`~pyro_aevb.reports.planes.plane_of`.

    Returns:
        In a line each, which figures failed, and why.
    """
    run.figures.mkdir(exist_ok=True)
    description, path = prepared.description, run.figures
    undrawn: list[str] = []
    if run.history:
        with drawn("history.png", undrawn, run):
            plots.history(run.history, path / "history.png", _objective(run, prepared))
    x = prepared.test.take(_spread(len(prepared.test), prepared.data.test.labels))
    if (reason := description.no_x()) is None:
        with forked([x.device]):
            torch.manual_seed(0)
            _decoded_figures(run, prepared, x, undrawn, by)
    elif description.observes_x:  # of a classifier nobody expects them
        undrawn.append(f"note: no data are decoded in pictures: {reason}")
    if scores is not None and scores.elbo is not None and marginals is not None:
        with drawn("elbo_log_likelihood.png", undrawn, run):
            _bounds_figure(scores, marginals, path / "elbo_log_likelihood.png")
    if health is not None and health.by_dimension:
        with drawn("latent_kl.png", undrawn, run):
            plots.latent_kl(health.by_dimension, COLLAPSED, path / "latent_kl.png")
    return undrawn


def _bounds_figure(scores: Scores, marginals: Marginals, file: Path) -> None:
    assert scores.elbo is not None and scores.log_weight is not None
    elbo, likely = scores.elbo.mean(0), log_mean(marginals.log_likelihood)
    if infinite := int((~np.isfinite([elbo, likely]).all(0)).sum()):
        raise UsageError(f"the values of {infinite} data are not finite")
    # Of the guide's own draws the estimate is the bound.
    another = scores.kl is not None and marginals.proposal != "guide"
    bound = log_mean(scores.log_weight) if another else None
    plots.elbo_against_log_likelihood(elbo, likely, file, bound)


def _objective(run: Run, prepared: Prepared) -> str:
    r"""What to call the objective of training beside the ELBO of validation."""
    settings, called = run.settings, "training objective"
    learns = settings.get("algorithm") or prepared.pair.algorithm or "svi"
    of = settings.get("objective") or "elbo"
    if learns != "svi":
        called += f" of {learns}"
    elif of in ("iwae", "dreg"):
        called += f", {of} of {settings.get('num_particles', 1)} draws"
    elif of not in ("elbo", "sampled_elbo"):
        called += f", {of}"
    if prepared.description.weights_undefined() is None:
        called += ", minus KL(q(w) || p(w)) / N"
    return called


def _decoded_figures(run: Run, prepared: Prepared, x: Data, undrawn: list[str], by: By) -> None:
    pair, description, path = prepared.pair, prepared.description, run.figures

    names, count = [], 64
    if vectors := len(x.shape) == 2:
        names = _components(prepared)
        count = min(MANY, max(10, VALUES // len(names)))
    many = prepared.test.take(torch.arange(min(count, len(prepared.test))))
    if vectors:
        x = many

    def reconstructions(file: str, seen: Data, clean: np.ndarray | None = None) -> None:
        images = like_data(reconstruct(pair, seen), x)
        what = {"mean": "reconstruction"}.get(kind := shown_by(pair, seen), f"its {kind}")
        # Of draws the deviation would be that of the likelihood, too.
        spread = over_weights(pair, seen) if kind == "mean" else None
        if not vectors:
            plots.reconstructions(_array(seen), images, path / file, clean, what, spread)
            return
        what += " of the corrupted input" if clean is not None else ""
        observed = _array(seen) if clean is None else clean
        plots.observed_against_predicted(observed, images, path / file, names, what, spread)

    with drawn("reconstructions.png", undrawn, run):
        reconstructions("reconstructions.png", x)
    if (corruption := trained_corruption(run, pair)) is not None:
        with drawn("denoising.png", undrawn, run):
            seen = with_data(x, corruption(data_of(x)))
            reconstructions("denoising.png", seen, _array(x))
    if "label" in pair.columns and (classes := prepared.data.num_classes) and not vectors:
        with drawn("styles.png", undrawn, run):
            images = in_each_class(pair, x, min(classes, MOST_CLASSES))
            like_data(images[:, 0], x)
            names = [str(i + 1) for i in range(len(images))]
            title = "a datum's code with each label"
            if classes > MOST_CLASSES:
                title = f"a datum's code with the first {MOST_CLASSES} of {classes} labels"
            if np.ptp(images, axis=1).any():  # else the label is observed, and decodes nothing
                plots.walks(images, path / "styles.png", names, title)
    if description.no_prior() is None:
        with drawn("samples.png", undrawn, run):
            if vectors:
                draws = like_data(generate(pair, many, sample=True), many)
                title = _shown(pair, many, "draw")
                plots.distributions(_array(many), draws, path / "samples.png", names, title)
            else:
                title = f"{_shown(pair, many)}, one for each draw of the prior"
                plots.samples(like_data(generate(pair, many), many), path / "samples.png", title)
    if len(description.local_sites) == 1 and len(description.local_sites[0].event_shape) == 1:
        with drawn("latent.png", undrawn, run):
            _latent_figures(run, prepared, undrawn, by)


def like_data(images: torch.Tensor | np.ndarray, x: Data) -> np.ndarray:
    r"""Decoded data, if they are of the shape of data."""
    images = images if isinstance(images, np.ndarray) else _array(images)
    if images.shape[1:] != x.shape[1:]:
        raise UsageError(
            f"its likelihood is of shape {images.shape[1:]}, and data are of {tuple(x.shape[1:])}"
        )
    return images


def trained_corruption(run: Run, pair: Pair) -> Corruption | None:
    r"""What corrupted a run's training data, where its settings or its pair can still say."""
    named, options = (run.settings.get(key) for key in ("corruption", "corruption_options"))
    if str(named).startswith("<"):  # a Python object
        return None
    return make_corruption(named, options, pair.attribute("corruption"))


def _latent_figures(run: Run, prepared: Prepared, undrawn: list[str], by: By) -> None:
    pair, test, path = prepared.pair, prepared.test, run.figures
    x = test.take(torch.arange(min(MANY, len(test))))
    (site,) = prepared.description.local_sites
    if site.posterior == "Bernoulli":
        return  # bits lie on the corners of a cube, and there is nothing to walk along
    # Draws where their distribution is what was trained for, else means.
    codes = _array(encode(pair, x, sample=site.matched)[site.name])
    with drawn("latent.png", undrawn, run):
        labels = prepared.data.test.labels
        known = None if labels is None else prepared.data.called(labels[: len(codes)])
        plane = plane_of(codes, site.name, by)
        flat, prior = plane.axes is not None and codes.shape[1] > 1, None
        if flat and site.matched:
            prior = _array(draw_prior(pair, x)) @ plane.axes
        described = not site.masked or site.matched
        circle = flat and described and standard_normal(pair, x[:2], site.name)
        plots.latent_scatter(plane.points, known, path / "latent.png", prior, plane.names, circle)
    has_prior = prepared.description.undefined() is None
    if codes.shape[1] == 2 and (has_prior or (site.matched and site.prior == "Normal")):
        with drawn("manifold.png", undrawn, run):
            grid = like_data(decode_grid(pair, plots.manifold_grid(20), x), x)
            names = [f"{site.name}[{i}]" for i in range(2)]
            plots.manifold(grid, path / "manifold.png", _shown(pair, x[:2]), names)
    if codes.shape[1] > 2:
        with drawn("traversals.png", undrawn, run):
            dimensions = [int(i) for i in np.argsort(-codes.var(0))[:8]]
            values = np.linspace(-3, 3, 11) * max(1.0, float(codes.std(0)[dimensions].max()) / 3)
            images = traverse(pair, x[:1], dimensions, values)
            like_data(images[0], x)
            names = [f"{site.name}[{dimension}]" for dimension in dimensions]
            file, title = path / "traversals.png", _shown(pair, x[:2])
            if images.ndim == 3:
                components, along = _components(prepared), "value of the latent dimension"
                plots.responses(images, values, file, names, components, title, along)
            else:
                plots.traversals(images, values, file, names, title)
    _walks(run, prepared, x, codes, undrawn)


def _walks(run: Run, prepared: Prepared, x: Data, codes: np.ndarray, undrawn: list[str]) -> None:
    r"""Straight walks between the codes of data, and along the classes that are known of them."""

    def walked(file: str, walks: np.ndarray, names: Sequence[str], title: str) -> None:
        images = decode_grid(prepared.pair, walks.reshape(-1, walks.shape[-1]), x)
        images = like_data(images, x).reshape(*walks.shape[:2], *images.shape[1:])
        if images.ndim == 3:
            share, components = np.linspace(0, 1, images.shape[1]), _components(prepared)
            of, along = (names, components), "share of the walk"
            plots.responses(images, share, run.figures / file, *of, title, along)
        else:
            plots.walks(images, run.figures / file, names, title)

    ends = _spread(len(codes), prepared.data.test.labels)
    ends = ends[ends < len(codes)]
    if len(ends) > 1:
        with drawn("interpolations.png", undrawn, run):
            walks = between(codes[ends.numpy()])
            names = [str(i + 1) for i in range(len(walks))]
            title = "from the code of one datum to that of another"
            walked("interpolations.png", walks, names, title)
    known = prepared.data.test.columns
    chosen = prepared.data.factors or (["label"] if "label" in known else [])
    columns = {name: known[name][: len(codes)].cpu().numpy() for name in chosen}
    called = {"label": prepared.data.classes}
    if columns and (along := along_columns(codes, columns, names=called)):
        with drawn("directions.png", undrawn, run):
            title = "a datum's code, and on by the difference of two classes' means"
            walked("directions.png", np.stack(list(along.values())), list(along), title)


def _components(prepared: Prepared) -> list[str]:
    r"""What the components of data that are vectors are called."""
    return [*prepared.data.features] or [f"x[{j}]" for j in range(prepared.data.event_shape[0])]


def _shown(pair: Pair, x: Data, kind: str | None = None) -> str:
    assert pair.description is not None
    latent = [site.name for site in pair.description.local_sites] or ["z"]
    given = ", ".join((*latent, *(x.columns if isinstance(x, Batch) else ())))
    return f"{kind or shown_by(pair, x)}s of p(x|{given})"


def _spread(n: int, labels: torch.Tensor | None) -> torch.Tensor:
    r"""Ten data to show: one of each class where there are ten, else the first."""
    if labels is not None and len(labels.unique()) == 10:
        return torch.stack([(labels == c).nonzero()[0, 0] for c in labels.unique()])
    return torch.arange(min(10, n))


def _array(x: Data) -> np.ndarray:
    return as_numpy(data_of(x))
