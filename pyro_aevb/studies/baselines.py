r"""Classifiers of scikit-learn as cells of a study: they are called as ``fit`` is, and leave a run.

A cell whose settings have ``"by": "pyro_aevb.studies.baselines:FUNCTION"`` calls that function in
place of :func:`pyro_aevb.fit`.
"""

import json
import platform
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pyro_aevb.data.batch import data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.corruption import Masking
from pyro_aevb.data.sets import load
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.engine.streams import seeded
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.classification import error_metric
from pyro_aevb.estimators.metrics import undefined
from pyro_aevb.runs.run import Run

BLOCK = 2000
r"""Test data whose kernel values are in memory at once."""

Features = Callable[[Split, int | None], np.ndarray]
r"""From a split, and the number of a draw or None, to a matrix ``(N, D)``."""


def support_vectors(
    data: Any,
    kernel: Literal["rbf", "poly", "linear"] = "rbf",
    C: float = 1.0,
    gamma: float = 0.01,
    degree: int = 3,
    coef0: float = 1.0,
    noise: float = 0.0,
    with_valid: bool = False,
    codes: Mapping[str, Any] | None = None,
    depth: int | None = None,
    draws: int = 0,
    **call: Any,
) -> Run:
    r"""A support vector machine: scikit-learn's ``SVC``, one against one.

    With x the pixels in [0, 1], or codes, the kernel is :math:`\exp(-\gamma |x - y|^2)` of ``rbf``,
    :math:`(\gamma x^\top y + c_0)^{d}` of ``poly``, :math:`x^\top y` of ``linear``.

    Arguments:
        data: A data set with labels, or its name.
        kernel, C, gamma, degree, coef0: As ``SVC`` has them.
        noise: The share of the components of the training data that are set to 0, the same number
            in each, once: the SVM on corrupted input of Vincent et al. (2008).
        with_valid: Train on the validation data too, as Larochelle et al. (2007) did once the
            settings were chosen.
        codes: Settings of :func:`pyro_aevb.fit` for a pair whose codes of the data stand in for
            them; it is trained first, beside the run's directory.
        depth: Of a net with layers, how many make the codes; None is all.
        draws: How many draws of the guide, of weights and codes, make the codes of the test data;
            the machine's decisions (its votes, or its probabilities) are averaged over them. It is
            trained on the guide's means, and with 0 these are the codes of the test data too.
        call: ``seed, out, data_root, device, show`` as ``fit`` has them; others change nothing.

    Returns:
        The run, without a checkpoint; ``classification_error`` of the test data, in per cent, is
        in ``results.json``, and the classes that were predicted are in ``results.nc``.

    Raises:
        UsageError: The data have no labels, there is no such kernel, or `depth` or `draws` of codes
            that have none.
    """
    from sklearn.svm import SVC

    settings = {k: v for k, v in locals().items() if k not in ("call", "SVC")}
    if kernel not in ("rbf", "poly", "linear"):
        raise UsageError(f"kernel is {kernel!r}; it must be one of rbf, poly, linear")
    at = _Place(data, settings, codes, depth, draws, noise, with_valid, call)

    def of_products(products: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if kernel == "linear":
            return products
        if kernel == "poly":
            powers: np.ndarray = (gamma * products + coef0) ** degree
            return powers
        squares = (a**2).sum(1)[:, None] - 2 * products + (b**2).sum(1)
        values: np.ndarray = np.exp(-gamma * squares)
        return values

    machine = SVC(C=C, kernel="precomputed", cache_size=1000)
    machine.fit(of_products(at.gram(), at.x, at.x), at.y)

    def applied(method: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def to(x: np.ndarray) -> np.ndarray:
            blocks = np.array_split(x, -(-len(x) // BLOCK))
            return np.concatenate([method(of_products(b @ at.x.T, b, at.x)) for b in blocks])

        return to

    predicted = at.predicted(applied(machine.predict), applied(machine.decision_function))
    return at.write(predicted, int(machine.n_support_.sum()))


def logistic_regression(
    data: Any,
    C: float = 1.0,
    noise: float = 0.0,
    with_valid: bool = False,
    codes: Mapping[str, Any] | None = None,
    depth: int | None = None,
    draws: int = 0,
    **call: Any,
) -> Run:
    r"""Multinomial logistic regression, to convergence; arguments as of :func:`support_vectors`."""
    from sklearn.linear_model import LogisticRegression

    settings = {k: v for k, v in locals().items() if k not in ("call", "LogisticRegression")}
    at = _Place(data, settings, codes, depth, draws, noise, with_valid, call)
    machine = LogisticRegression(C=C, max_iter=5000).fit(at.x, at.y)
    predicted = at.predicted(machine.predict, machine.predict_proba)
    return at.write(predicted, machine.coef_.size + machine.intercept_.size)


class _Place:
    r"""The training and test data of a classifier, as matrices, and where its results go."""

    def __init__(
        self,
        data: Any,
        settings: dict[str, Any],
        codes: Mapping[str, Any] | None,
        depth: int | None,
        draws: int,
        noise: float,
        with_valid: bool,
        call: Mapping[str, Any],
    ) -> None:
        self.began = time.perf_counter()
        self.data = data if isinstance(data, DataSet) else load(str(data), call.get("data_root"))
        self.settings = {**settings, "data": self.data.name, "seed": call.get("seed", 0)}
        if self.data.train.labels is None:
            raise UsageError(f"{self.data.name} has no labels, and a classifier needs some")
        self.run = Run(Path(call["out"]))
        whole = self.data  # codes are learnt from all of them
        train, valid, test = map(_labelled, (whole.train, whole.valid, whole.test))
        for name, part in (("training", train), ("test", test)):
            if not len(part):
                raise UsageError(f"no label of the {name} data of {whole.name} is known")
        self.data = replace(whole, train=train, valid=valid, test=test)
        parts = [self.data.train, *([self.data.valid] if with_valid else [])]
        features: Features = _pixels
        if codes is None and (draws or depth is not None):
            raise UsageError("draws and depth are of codes, and there are none: give codes too")
        if codes is not None:
            features = _codes(whole, codes, depth, draws, self.run.path, call)
        self.seed = int(self.settings["seed"])
        self.x = np.concatenate([features(part, None) for part in parts])
        if noise:
            with seeded(torch.device("cpu"), self.seed):
                self.x = Masking(noise, exact=True)(torch.from_numpy(self.x)).numpy()
        self.y = np.concatenate([_labels(part) for part in parts])
        self.test_y = _labels(self.data.test)
        self.draws, self._features = draws, features

    def gram(self) -> np.ndarray:
        r"""Products of all training data, which settings of a kernel share."""
        return _gram(_Matrix(self.x))

    def predicted(
        self,
        predict: Callable[[np.ndarray], np.ndarray],
        decide: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        r"""The classes of the test data, or of draws of their codes those of the mean decision."""
        if not self.draws:
            return predict(self._features(self.data.test, None))
        each = (decide(self._features(self.data.test, draw)) for draw in range(self.draws))
        total: np.ndarray = sum(each)  # type: ignore[assignment]
        # Of two classes there is one number, whose sign tells.
        place = (total > 0).astype(int) if total.ndim == 1 else total.argmax(1)
        classes: np.ndarray = np.unique(self.y)[place]
        return classes

    def write(self, predicted: np.ndarray, parameters: int) -> Run:
        r"""What ``fit`` leaves, as far as there is something to say."""
        from pyro_aevb.reports.assess import processor

        wrong = predicted != self.test_y
        environment = [f"scikit-learn {version('scikit-learn')}", f"numpy {version('numpy')}"]
        results = {
            "pair": self.settings.get("kernel", "logistic") + " classifier",
            "data": self.data.name,
            "data_description": self.data.description,
            "split": "test",
            "binarization": "none",
            "num_data": len(self.test_y),
            "num_train": len(self.y),
            "epochs": 0,
            "seconds": round(time.perf_counter() - self.began, 3),
            "parameters": parameters,
            "codes": "none",
            "environment": f"{processor()}, Python {platform.python_version()}, "
            + ", ".join(environment),
            "metrics": {
                "classification_error": error_metric(wrong),
                **dict.fromkeys(
                    ("elbo", "iwae_bound", "log_likelihood", "reconstruction", "kl"),
                    undefined("a classifier of scikit-learn gives classes alone"),
                ),
            },
        }
        self.run.write_settings({"pair": f"<{results['pair']}>", **self.settings, "epochs": 0})
        arrays = {"predicted": (("datum",), predicted), "label": (("datum",), self.test_y)}
        self.run.write_with_arrays(results, {"classification": arrays})
        return self.run


def _pixels(part: Split, draw: int | None) -> np.ndarray:
    x: np.ndarray = data_of(Batches(part, "none").take(torch.arange(len(part)))).flatten(1).numpy()
    return x


def _labelled(part: Split) -> Split:
    r"""The data whose label is known."""
    if part.labels is None or not bool((part.labels < 0).any()):
        return part
    return part.subset((part.labels >= 0).nonzero()[:, 0])


def _labels(part: Split) -> np.ndarray:
    assert part.labels is not None
    return part.labels.numpy()


def _codes(
    data: DataSet,
    codes: Mapping[str, Any],
    depth: int | None,
    draws: int,
    out: Path,
    call: Mapping[str, Any],
) -> Features:
    r"""Codes of data by a pair that is trained first: of layers, or the guide's means.

    It is trained once for all classifiers beside one another that have the same codes.
    """
    import pyro_aevb
    from pyro_aevb.pairs.predict import encode

    named = json.dumps([codes, data.name, len(data.train), call.get("seed", 0)], sort_keys=True)
    out = out.with_name(f"codes-{zlib.crc32(named.encode()):08x}")
    resume = (out / "settings.yaml").is_file()
    asked = {"binarize": "none", **codes}  # as the classifier sees the data
    how = {k: call[k] for k in ("seed", "device") if k in call}
    run = pyro_aevb.fit(data=data, out=str(out), resume=resume, show=False, **how, **asked)
    assert run.pair is not None
    pair = run.pair
    assert pair.description is not None
    layered = pair.attribute("codes")
    if depth is not None and not callable(layered):
        raise UsageError(f"depth is {depth}, and {pair.name} has no layers: leave it out")
    if draws and not pair.description.local_sites:
        raise UsageError(f"draws is {draws}, and {pair.name} draws no codes: leave it out")

    def features(part: Split, draw: int | None) -> np.ndarray:
        batches, found = Batches(part, "none"), []
        for index in torch.arange(len(part)).split(1000):
            x = batches.take(index)
            # Of one number all blocks have the same draw of the weights, which come first, and of
            # the codes' noise: their data are others.
            with torch.no_grad(), pair.evaluating(), seeded(x.device, 0, draw or 0):
                if depth is not None:
                    values: Any = [layered(x, depth)]
                else:
                    values = encode(pair, x, sample=draw is not None).values()
            found.append(torch.cat([value.flatten(1) for value in values], 1))
        whole: np.ndarray = torch.cat(found).numpy()
        return whole

    return features


class _Matrix:
    r"""A matrix that can be looked up: two are alike where their bytes are."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.key = x, hash((x.shape, x.tobytes()))

    def __hash__(self) -> int:
        return self.key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Matrix) and np.array_equal(self.x, other.x)


@lru_cache(maxsize=1)
def _gram(matrix: _Matrix) -> np.ndarray:
    products: np.ndarray = matrix.x @ matrix.x.T
    return products
