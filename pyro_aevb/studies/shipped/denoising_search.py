r"""What is searched for the comparison of ways to initialize a deep net, and what won.

Eight sets, and for each method the space that its trials draw from: the published grids where they
are known, made continuous; for the published ones see :mod:`~.shipped.denoising`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.studies.declare import merged
from pyro_aevb.studies.search import Search, Trial, read_trials, winner

TRIALS = Path(__file__).with_name("denoising_trials.jsonl")

SETS = {
    "mnist_basic": "basic, regenerated",
    "mnist_rot": "rot, regenerated",
    "mnist_bg_rand": "bg-rand, regenerated",
    "mnist_bg_img": "bg-img, regenerated",
    "mnist_rot_bg_img": "rot-bg-img, regenerated",
    "rectangles": "rect",
    "rectangles_img": "rect-img, regenerated",
    "convex": "convex",
}
r"""The sets, and what the tables of the paper call them; of six the published images cannot be had
by everybody."""

SVM, SVM_NU, SVM_POLY = "SVM", "SVM, corrupted", "SVM, polynomial"
DBN, SAA, SDA = "DBN-3", "SAA-3", "SdA-3"
EMPHASIS, ON_CODES, PLAIN = "SdA-3, emphasis", "SVM on SdA-3 codes", "no pretraining"
ON_VAE, ON_BAYESIAN = "SVM on VAE codes", "SVM on Bayesian autoencoder codes"
LOGISTIC = "logistic regression"

BASELINES = "pyro_aevb.studies.baselines"
LEVELS = (0.1, 0.25, 0.4)
r"""Shares of the pixels that are destroyed, those of the paper."""
TUNING = 150
r"""Epochs of fine-tuning at most; it ends 15 epochs after the best validation error."""

NET = {"batch_size": 20, "optimizer": "sgd", "patience": 15, "num_samples": 1}
r"""What all nets are trained with."""


def _choice(rng: np.random.Generator, *values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _logarithmic(rng: np.random.Generator, low: float, high: float) -> float:
    return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.2g}")


def _svm(rng: np.random.Generator, data: str) -> dict[str, Any]:
    C, gamma = _logarithmic(rng, 0.3, 300), _logarithmic(rng, 0.001, 0.2)
    return {"by": f"{BASELINES}:support_vectors", "C": C, "gamma": gamma}


def _svm_nu(rng: np.random.Generator, data: str) -> dict[str, Any]:
    return {**_svm(rng, data), "noise": _choice(rng, *LEVELS)}


def _svm_poly(rng: np.random.Generator, data: str) -> dict[str, Any]:
    powers = {"degree": _choice(rng, 2, 3, 4), "coef0": _choice(rng, 0.0, 1.0)}
    return {**_svm(rng, data), "kernel": "poly", **powers}


def _on_codes(rng: np.random.Generator, data: str) -> dict[str, Any] | None:
    codes = chosen(data, SDA)
    return codes and {**_svm(rng, data), "codes": codes}


def _vae_codes(rng: np.random.Generator, data: str) -> dict[str, Any]:
    return {**_svm(rng, data), "codes": _coder(rng, "VAE")}


def _bayesian_codes(rng: np.random.Generator, data: str) -> dict[str, Any]:
    return {**_svm(rng, data), "codes": _coder(rng, "BayesianAutoencoder"), "draws": 10}


def _coder(rng: np.random.Generator, pair: str) -> dict[str, Any]:
    sizes = {"latent_dim": _choice(rng, 20, 50, 100), "hidden": [500]}
    scored = {"num_samples": 1, "weight_samples": 1, "proposal": "guide"}
    return {"pair": pair, "pair_parameters": sizes, "binarize": "none", "epochs": 50, **scored}


def _logistic(rng: np.random.Generator, data: str) -> dict[str, Any]:
    return {"by": f"{BASELINES}:logistic_regression", "C": _logarithmic(rng, 0.001, 10)}


def _net(rng: np.random.Generator, data: str) -> dict[str, Any]:
    r"""What the spaces of all nets share: widths, rates, and the length of pretraining."""
    lr, before = _logarithmic(rng, 0.01, 0.5), _logarithmic(rng, 0.01, 0.5)
    epochs = _choice(rng, 10, 20, 40)
    return {
        **NET,
        "pair": "StackedDenoisingAutoencoder",
        "pair_parameters": {"hidden": [_choice(rng, 500, 1000)] * 3},
        "lr": lr,
        "epochs": 3 * epochs + TUNING,
        "algorithm_options": {"pretraining_epochs": epochs, "pretraining_rate": before / lr},
    }


def _saa(rng: np.random.Generator, data: str) -> dict[str, Any]:
    return merged(_net(rng, data), {"pair_parameters": {"corruption": "none"}})


def _sda(rng: np.random.Generator, data: str) -> dict[str, Any]:
    net = _net(rng, data)
    noise = {"corruption_options": {"rate": _choice(rng, *LEVELS)}}
    return merged(net, {"pair_parameters": noise})


def _emphasis(rng: np.random.Generator, data: str) -> dict[str, Any]:
    net = _net(rng, data)
    noise = {"rate": _choice(rng, *LEVELS), "exact": True, "intact_weight": _choice(rng, 0.0, 0.5)}
    corruption = {"corruption": "salt_and_pepper", "corruption_options": noise}
    return merged(net, {"pair_parameters": corruption})


def _plain(rng: np.random.Generator, data: str) -> dict[str, Any]:
    net = _net(rng, data)
    own = {"activation": _choice(rng, "sigmoid", "tanh", "relu")}
    net = merged(net, {"epochs": TUNING, "pair_parameters": own})
    return {**net, "algorithm_options": {"pretraining_epochs": 0}}


def _dbn(rng: np.random.Generator, data: str) -> dict[str, Any]:
    return {**_net(rng, data), "pair": "DeepBeliefNet"}


METHODS = {
    SVM: _svm,
    SVM_NU: _svm_nu,
    SVM_POLY: _svm_poly,
    DBN: _dbn,
    SAA: _saa,
    SDA: _sda,
    PLAIN: _plain,
    LOGISTIC: _logistic,
    EMPHASIS: _emphasis,
    ON_CODES: _on_codes,
    ON_VAE: _vae_codes,
    ON_BAYESIAN: _bayesian_codes,
}

SEARCH = Search(
    methods=METHODS,
    data={
        "rectangles": (1000,),
        "convex": (1000, 6500),
        **{name: (1000, 3000, 10000) for name in SETS if name not in ("rectangles", "convex")},
    },
    trials=40,
    minutes=20,
    path=TRIALS,
)


def chosen(data: str, method: str) -> dict[str, Any] | None:
    r"""The settings that won on validation data; None before the search has come to all data."""
    best = _best(read_trials(TRIALS), data, method)
    return None if best is None else best.settings


def _best(trials: Sequence[Trial], data: str, method: str) -> Trial | None:
    best = winner(trials, data, method)
    return None if best is None or best.num_train < SEARCH.data[data][-1] else best


def how_chosen() -> str:
    r"""The winners of the search, in words."""
    trials, said = read_trials(TRIALS), []
    for name, short in SETS.items():
        for method in METHODS:
            best = _best(trials, name, method)
            if best is None:
                continue
            count = len({t.number for t in trials if (t.data, t.method) == (name, method)})
            minutes = sum(t.seconds for t in trials if (t.data, t.method) == (name, method)) / 60
            said.append(
                f"{short}, {method}: {best.validation_error:.2f} ± {best.standard_error:.2f} % of "
                f"{best.num_valid:,} validation images, the best of {count} trials in "
                f"{minutes:.0f} min ({_in_words(best.settings)})"
            )
    return "; ".join(said) or "there has been no search yet"


def _in_words(settings: Mapping[str, Any]) -> str:
    if "C" in settings:
        names = ("C", "gamma", "noise")
        return ", ".join(f"{name} {settings[name]:g}" for name in names if name in settings)
    pair, learning = settings.get("pair_parameters", {}), settings.get("algorithm_options", {})
    parts = [f"{pair['hidden'][0]} units", f"rate {settings['lr']:g}"]
    if learning.get("pretraining_epochs"):
        before = settings["lr"] * learning["pretraining_rate"]
        parts.append(f"{learning['pretraining_epochs']} epochs a layer at {before:.2g}")
    noise = pair.get("corruption_options", {})
    if pair.get("corruption") != "none" and "rate" in noise:
        parts.append(f"{noise['rate']:.0%} corrupted".replace("%", " %"))
    if "intact_weight" in noise:
        parts.append(f"intact pixels count {noise['intact_weight']:g}")
    if "activation" in pair:
        parts.append(pair["activation"])
    return ", ".join(parts)
