r"""Codes without training, as cells of a study: pixels, and linear maps of them.

A cell whose settings have ``"by": "pyro_aevb.studies.linear_codes:linear_codes"`` calls that
function in place of :func:`pyro_aevb.fit`.
"""

import platform
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.batch import data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.sets import load
from pyro_aevb.data.split import DataSet
from pyro_aevb.engine.processes import Alone
from pyro_aevb.errors import UsageError, one_of
from pyro_aevb.estimators.disentanglement import DISENTANGLEMENT
from pyro_aevb.estimators.disentanglement.record import measured
from pyro_aevb.estimators.disentanglement.score import Codes
from pyro_aevb.estimators.metrics import measured as of_data
from pyro_aevb.estimators.metrics import undefined
from pyro_aevb.estimators.prediction import compared
from pyro_aevb.estimators.work import Work
from pyro_aevb.runs.run import Run

METHODS = ("pixels", "pca", "ica")
BLOCK = 20_000
r"""Data whose pixels are in memory at once."""
EDGE = 1e-3
r"""How near to 0 and 1 a reconstruction may come whose cross-entropy is taken."""


class Pixels:
    r"""The values of data as ``(N, d)`` numbers, made when they are looked at.

    Arguments:
        batches: The data.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.shape = (len(batches), int(np.prod(batches.event_shape)))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        x: Tensor = data_of(self.batches.take(torch.from_numpy(rows)))
        return x.flatten(1).numpy()


def linear_codes(
    data: Any,
    method: Literal["pixels", "pca", "ica"] = "pixels",
    components: int = 10,
    num_fit: int = 20_000,
    ica_options: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    **call: Any,
) -> Run:
    r"""Metrics of disentanglement of codes that no pair is trained for, of all training data.

    ``pixels`` are the data themselves; ``pca`` their projections on the first principal components;
    ``ica`` their independent components, scikit-learn's ``FastICA``.

    Arguments:
        data: A data set with factors, or its name.
        method: Which.
        components: The number of dimensions of ``pca`` and ``ica``.
        num_fit: How many of the data, drawn at random, the components are fitted to.
        ica_options: What ``FastICA`` is told, beside the number of components.
        options: Those of ``--estimator disentanglement``.
        call: ``seed, out, data_root`` as ``fit`` has them; others change nothing.

    Returns:
        The run, without a checkpoint; the metrics are in ``results.json``, and
        ``explained_variance``, in per cent, is the share of the variance of the pixels that ``pca``
        keeps; ``iterations`` are those of ``ica``, which has not converged at ``max_iter`` (1,000).

    Raises:
        UsageError: The data have no factors, or there is no such method or option.
    """
    began = time.perf_counter()
    settings = {k: v for k, v in locals().items() if k not in ("call", "began")}
    one_of("method", method, METHODS)
    whole = data if isinstance(data, DataSet) else load(str(data), call.get("data_root"))
    known = {**DISENTANGLEMENT.options, **(options or {})}
    if unknown := sorted(set(known) - set(DISENTANGLEMENT.options)):
        raise UsageError(f"options: --estimator disentanglement has no option {unknown[0]!r}")
    of_data = list(whole.factors or ())
    if len(of_data) < 2:
        raise UsageError(f"{whole.name} has no factors, and its codes are held against them")
    names = [name.strip() for name in known["factors"].split(",") if name.strip()] or of_data
    columns = {
        name: _column(whole, name).numpy()
        for name in {*of_data, *names, *filter(None, [known.get("label")])}
    }
    seed = int(call.get("seed", 0))
    known["seed"] = seed
    pixels = Pixels(Batches(whole.train, "none"))
    codes, metrics = _made(pixels, method, components, num_fit, dict(ica_options or {}), seed)
    metrics |= measured([codes], columns, of_data, names, "train", known, Work(Alone()))
    metrics["reconstruction"] = undefined("codes of scikit-learn have no likelihood")
    parameters = 0 if method == "pixels" else components * pixels.shape[1]
    return _write(call, whole, "train", settings, began, parameters, metrics)


def _column(whole: DataSet, name: str) -> Tensor:
    r"""A column of the training data, their labels among them."""
    if name == "label" and whole.train.labels is not None:
        return whole.train.labels
    if name not in whole.train.columns:
        there = ", ".join(whole.train.columns) or "none"
        raise UsageError(f"{whole.name} has no column {name!r}; there are {there}")
    return whole.train.columns[name]


def pca_reconstruction(data: Any, components: int = 10, **call: Any) -> Run:
    r"""Reconstructions of the test data from their first principal components.

    With the mean m and the components V of the training data, :math:`y = m + V V^\top (x - m)`,
    scikit-learn's ``PCA``. ``rmse`` and ``mean_calibration_error`` are those of
    :mod:`pyro_aevb.estimators.prediction`; ``reconstruction``, in nats per datum, is the
    cross-entropy :math:`\sum_d x_d \log y_d + (1 - x_d) \log(1 - y_d)` with y kept within
    :data:`EDGE` of 0 and 1: it is for data in [0, 1], and PCA is not fitted to it.

    Arguments:
        data: A data set in [0, 1], or its name.
        components: The number of components, the length of the code.
        call: ``seed, out, data_root`` as ``fit`` has them; others change nothing.

    Returns:
        The run, without a checkpoint; the metrics are in ``results.json``.

    Raises:
        UsageError: There are more components than components of a datum, or training data.
    """
    from sklearn.decomposition import PCA

    began = time.perf_counter()
    settings = {k: v for k, v in locals().items() if k not in ("call", "began", "PCA")}
    whole = data if isinstance(data, DataSet) else load(str(data), call.get("data_root"))
    train, test = (Pixels(Batches(split, "none")) for split in (whole.train, whole.test))
    if not 1 <= components <= min(train.shape):
        raise UsageError(
            f"components is {components}; it must lie between 1 and {min(train.shape)}"
        )
    x, seen = test[np.arange(test.shape[0])], train[np.arange(train.shape[0])]
    fitted = PCA(components, svd_solver="covariance_eigh").fit(seen)
    y = fitted.inverse_transform(fitted.transform(x)).astype(np.float64)
    inside = y.clip(EDGE, 1 - EDGE)
    nats = (x * np.log(inside) + (1 - x) * np.log1p(-inside)).sum(1)
    metrics = {**compared(x.astype(np.float64), y), "reconstruction": of_data(nats)}
    return _write(call, whole, "test", settings, began, components * x.shape[1], metrics)


def _write(
    call: Mapping[str, Any],
    data: DataSet,
    split: str,
    settings: Mapping[str, Any],
    began: float,
    parameters: int,
    metrics: Mapping[str, Any],
) -> Run:
    r"""What ``fit`` leaves, as far as there is something to say."""
    from pyro_aevb.reports.assess import processor

    run, method = Run(Path(call["out"])), str(settings.get("method", "pca"))
    results = {
        "pair": method,
        "data": data.name,
        "data_description": data.description,
        "split": split,
        "num_data": len(data.train if split == "train" else data.test),
        "num_train": len(data.train),
        "epochs": 0,
        "seconds": round(time.perf_counter() - began, 3),
        "parameters": parameters,
        "environment": f"{processor()}, Python {platform.python_version()}, scikit-learn "
        f"{version('scikit-learn')}, numpy {version('numpy')}",
        "metrics": metrics,
    }
    seed = int(call.get("seed", 0))
    named = {**settings, "data": data.name, "seed": seed, "epochs": 0}
    run.write_settings({"pair": f"<{method}>", **named})
    run.write_results(results)
    return run


def _made(
    pixels: Pixels,
    method: str,
    components: int,
    num_fit: int,
    ica_options: dict[str, Any],
    seed: int,
) -> tuple[np.ndarray | Codes, dict[str, Any]]:
    r"""The codes, and what is known of them beside."""
    if method == "pixels":
        return pixels, {}
    from sklearn.decomposition import PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    count = len(pixels.batches)
    few = np.random.default_rng(seed).permutation(count)[:num_fit]
    apply: Callable[[np.ndarray], np.ndarray]
    found: dict[str, Any] = {}
    if method == "pca":
        fitted = PCA(components, svd_solver="randomized", random_state=seed).fit(pixels[few])
        share = float(100 * fitted.explained_variance_ratio_.sum())
        found = {"explained_variance": {"value": share, "standard_error": None, "unit": "%"}}
        apply = fitted.transform
    else:
        told = {"whiten": "unit-variance", "max_iter": 1000, **ica_options}
        ica = FastICA(components, random_state=seed, **told)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the metric says it
            ica.fit(pixels[few].astype(np.float64))
        found = {"iterations": {"value": float(ica.n_iter_), "standard_error": None, "unit": ""}}
        apply = ica.transform
    blocks = np.array_split(np.arange(count), -(-count // BLOCK))
    return np.concatenate([apply(pixels[block]) for block in blocks]), found
