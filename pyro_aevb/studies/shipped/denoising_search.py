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
ON_MEAN = "SVM on Bayesian autoencoder codes, means"
LOGISTIC = "logistic regression"

BASELINES = "pyro_aevb.studies.baselines"
LEVELS = (0.1, 0.25, 0.4)
r"""Shares of the pixels that are destroyed, those of the paper."""
TUNING, PATIENCE = 150, 15
r"""Epochs of fine-tuning at most, and how many it goes on after the best validation error."""

LONGER = {"rectangles": 10}
r"""So many times as many epochs, of pretraining too, on the set of 1,000 training images: an epoch
there has a tenth of the steps that it has on the sets of 10,000."""

NET = {"batch_size": 20, "optimizer": "sgd", "num_samples": 1}
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
    net = chosen(data, SDA)
    if net is None:
        return None
    # Codes that no label has touched: the run pauses where fine-tuning would begin.
    before = 3 * net["algorithm_options"]["pretraining_epochs"]
    codes = {**net, "epochs": before + 1, "stop_after": before, "patience": 0}
    return {**_svm(rng, data), "codes": codes}


def _vae_codes(rng: np.random.Generator, data: str) -> dict[str, Any]:
    return {**_svm(rng, data), "codes": _coder(rng, "VAE", data)}


def _bayesian_codes(rng: np.random.Generator, data: str) -> dict[str, Any]:
    return {**_svm(rng, data), "codes": _coder(rng, "BayesianAutoencoder", data), "draws": 10}


def _coder(rng: np.random.Generator, pair: str, data: str) -> dict[str, Any]:
    sizes = {"latent_dim": _choice(rng, 20, 50, 100), "hidden": [500]}
    scored = {"num_samples": 1, "weight_samples": 1, "proposal": "guide"}
    epochs = 50 * LONGER.get(data, 1)
    return {"pair": pair, "pair_parameters": sizes, "binarize": "none", "epochs": epochs, **scored}


def _logistic(rng: np.random.Generator, data: str) -> dict[str, Any]:
    return {"by": f"{BASELINES}:logistic_regression", "C": _logarithmic(rng, 0.001, 10)}


def _net(rng: np.random.Generator, data: str) -> dict[str, Any]:
    r"""What the spaces of all nets share: widths, rates, and the length of pretraining."""
    lr, before = _logarithmic(rng, 0.01, 0.5), _logarithmic(rng, 0.01, 0.5)
    longer = LONGER.get(data, 1)
    epochs = longer * _choice(rng, 10, 20, 40)
    return {
        **NET,
        "pair": "StackedDenoisingAutoencoder",
        "pair_parameters": {"hidden": [_choice(rng, 500, 1000)] * 3},
        "lr": lr,
        "epochs": 3 * epochs + longer * TUNING,
        "patience": longer * PATIENCE,
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
    net = merged(net, {"epochs": LONGER.get(data, 1) * TUNING, "pair_parameters": own})
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
            low, high = best.interval
            said.append(
                f"{short}, {method}: {best.validation_error:.2f} % of {best.num_valid:,} "
                f"validation images (95 % interval {low:.2f} to {high:.2f}), the best of "
                f"{_tried(trials, name, method)} ({_in_words(best.settings)})"
            )
    return "; ".join(said) or "there has been no search yet"


def _tried(trials: Sequence[Trial], data: str, method: str) -> str:
    own = [trial for trial in trials if (trial.data, trial.method) == (data, method)]
    count, minutes = len({t.number for t in own}), sum(t.seconds for t in own) / 60
    full = sum(trial.num_train == SEARCH.data[data][-1] for trial in own)
    return f"{count} trials in {minutes:.1f} min, {full} of them on all training images"


def tried() -> dict[tuple[str, str], str]:
    r"""By set and method, as tables call them, what was searched."""
    trials = read_trials(TRIALS)
    there = {(trial.data, trial.method) for trial in trials}
    return {(SETS[name], method): _tried(trials, name, method) for name, method in there}


def minutes() -> float:
    r"""What all trials took of a processor's time."""
    return sum(trial.seconds for trial in read_trials(TRIALS)) / 60


def destroyed(method: str) -> dict[str, float]:
    r"""The share of pixels that was destroyed in the settings that won, by set."""
    shares = {}
    for name, short in SETS.items():
        settings = chosen(name, method)
        if settings is not None:
            options = settings.get("pair_parameters", {}).get("corruption_options", settings)
            shares[short] = float(options.get("rate", settings.get("noise", 0.0)))
    return shares


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
