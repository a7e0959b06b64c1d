r"""Stacked denoising autoencoders: ways to initialize a deep net, on eight sets of small images.

The protocol of Vincent, Larochelle, Bengio and Manzagol (2008) on the data of Larochelle et al.
(2007): settings by validation error, found by ``python -m pyro_aevb.studies.search denoising``,
whose trials lie beside this file; then one table of test errors.

References:
    | Extracting and Composing Robust Features with Denoising Autoencoders
    | https://doi.org/10.1145/1390156.1390294
    | An Empirical Evaluation of Deep Architectures on Problems with Many Factors of Variation
    | (Larochelle, Erhan, Courville, Bergstra and Bengio, 2007)
    | https://doi.org/10.1145/1273496.1273556
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.studies.declare import Grid, Published, Study, Table, merged
from pyro_aevb.studies.search import Search, read_trials, winner

TRIALS = Path(__file__).with_name("denoising_trials.jsonl")

SETS = {
    "mnist_basic": "basic",
    "mnist_rot": "rot",
    "mnist_bg_rand": "bg-rand",
    "mnist_bg_img": "bg-img",
    "mnist_rot_bg_img": "rot-bg-img",
    "rectangles": "rect",
    "rectangles_img": "rect-img",
    "convex": "convex",
}
r"""The sets, and what the tables of the paper call them."""

SVM, SVM_NU = "SVM", "SVM, corrupted"
DBN, SAA, SDA = "DBN-3", "SAA-3", "SdA-3"
EMPHASIS, ON_CODES, PLAIN = "SdA-3, emphasis", "SVM on SdA-3 codes", "no pretraining"
LOGISTIC = "logistic regression"

VECTORS = {"by": "pyro_aevb.studies.baselines:support_vectors"}
EPOCHS = 150
r"""Epochs of fine-tuning at most; it ends 15 epochs after the best validation error."""


BASELINES = "pyro_aevb.studies.baselines"
LEVELS = (0.1, 0.25, 0.4)
r"""Shares of the pixels that are destroyed, those of the paper."""
TUNING = 150
r"""Epochs of fine-tuning at most; it ends 15 epochs after the best validation error."""
ERROR = "test/classification_error"
RANDOM = {"algorithm_options": {"pretraining_epochs": 0}}

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


def _on_codes(rng: np.random.Generator, data: str) -> dict[str, Any] | None:
    codes = chosen(data, SDA)
    return codes and {**_svm(rng, data), "codes": codes}


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
    DBN: _dbn,
    SAA: _saa,
    SDA: _sda,
    PLAIN: _plain,
    LOGISTIC: _logistic,
    EMPHASIS: _emphasis,
    ON_CODES: _on_codes,
}

SEARCH = Search(
    methods=METHODS,
    data={
        "rectangles": (1000,),
        "convex": (1000, 6500),
        **{name: (1000, 3000, 10000) for name in SETS if name not in ("rectangles", "convex")},
    },
    trials=12,
    minutes=20,
)


def chosen(data: str, method: str) -> dict[str, Any] | None:
    r"""The settings that won on validation data, without the data set; None before a search."""
    best = winner(read_trials(TRIALS), data, method)
    return None if best is None else best.settings


def _cells(
    columns: Mapping[str, Any], of: Callable[[str, str], dict[str, Any] | None]
) -> dict[tuple[str, str], dict[str, Any] | None]:
    return {(SETS[name], column): of(name, column) for name in SETS for column in columns}


def _winner(data: str, method: str) -> dict[str, Any]:
    settings = chosen(data, method)
    if settings is None:
        return {"by": "pyro_aevb.studies.search:not_searched", "search": f"{data}/{method}"}
    return {**settings, "data": data}


def _varied(columns: Mapping[str, Any], sets: Sequence[str]) -> dict[Any, Any]:
    r"""The net that won on a set, with what a column changes."""

    def of(data: str, column: str) -> dict[str, Any] | None:
        net = _winner(data, SDA) if data in sets else None
        return net if net is None or "by" in net else _with(net, columns[column])

    return _cells(columns, of)


def _with(net: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    r"""Settings of a net with a change; of ``layers`` it keeps so many, ``corruption_options`` are
    kept only by a corruption that has them, and without pretraining its epochs are left out.
    """
    change = dict(change)
    depth = change.pop("layers", None)
    made = merged(net, change)
    pair, learning = made["pair_parameters"], made["algorithm_options"]
    if depth is not None:
        pair["hidden"] = pair["hidden"][:depth]
    if pair.get("corruption") == "none":
        pair.pop("corruption_options", None)
    elif pair.get("corruption") == "gaussian":
        pair["corruption_options"] = change["pair_parameters"]["corruption_options"]
    made["epochs"] = len(pair["hidden"]) * learning["pretraining_epochs"] + TUNING
    return made


SMOKE = {
    "data": "digits",
    "binarize": "none",
    "epochs": 4,
    "batch_size": 100,
    "pair_parameters": {"hidden": [8, 6, 5]},
    "algorithm_options": {"pretraining_epochs": 1, "pretraining_rate": 1.0},
}
ROWS: dict[str, dict[str, Any]] = {short: {} for short in SETS.values()}

PUBLISHED = Published(
    "Test error, in per cent, of Vincent et al. (2008)",
    {
        (short, method): value
        for short, values in {
            "basic": (3.03, 3.07, 3.11, 3.46, 2.80),
            "rot": (11.11, 11.62, 10.30, 10.30, 10.29),
            "bg-rand": (14.58, 15.63, 6.73, 11.28, 10.38),
            "bg-img": (22.61, 23.15, 16.31, 23.00, 16.68),
            "rot-bg-img": (55.18, 54.16, 47.39, 51.93, 44.49),
            "rect": (2.15, 2.45, 2.60, 2.41, 1.99),
            "rect-img": (24.04, 23.00, 22.50, 24.05, 21.59),
            "convex": (19.13, 24.20, 18.63, 18.41, 19.06),
        }.items()
        for method, value in zip((SVM, SVM_NU, DBN, SAA, SDA), values, strict=True)
        if method in METHODS
    },
    aside={("rot", EMPHASIS): 8.76, ("bg-rand", EMPHASIS): 8.52, ("rot", ON_CODES): 8.27},
    remarks={
        ("rot", EMPHASIS): "of Vincent et al. (2010), second-hand, on a later release of the set",
        ("bg-rand", EMPHASIS): "of Vincent et al. (2010), second-hand",
        ("rot", ON_CODES): "of Vincent et al. (2010), second-hand, on a later release of the set",
    },
    caveat=(
        "The binomial interval of a published value p is ± 1.96 sqrt(p (1 - p) / 50,000), 0.1 to "
        "0.4. `rect` and `convex` are the published images where these are there; all other sets "
        "are regenerated by the published rules, and their values comparable in rank and size only."
    ),
)

TEXT = (
    "Which way to initialize a deep net classifies best: a support vector machine (SVM), also on "
    "input of which a share is set to 0, against nets of three layers whose weights come from "
    "ordinary autoencoders (SAA-3), denoising autoencoders (SdA-3), restricted Boltzmann machines "
    "(DBN-3), or at random. Every method had the same number of trials and of minutes to find its "
    "settings on the validation images, by successive halving; the trials, with their validation "
    "errors, are in `pyro_aevb/studies/shipped/denoising_trials.jsonl`."
)


def _how(path: Path) -> str:
    r"""The winners of the search, in words."""
    trials, said = read_trials(path), []
    for name, short in SETS.items():
        for method in METHODS:
            best = winner(trials, name, method)
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


errors = Grid(
    "errors",
    rows=ROWS,
    columns={method: {} for method in METHODS},
    special=_cells(METHODS, _winner),
    smoke=SMOKE,
    smoke_rows=("rect",),
    row_title="set",
    chosen=_how(TRIALS),
)


def _variation(name: str, columns: Mapping[str, Any], sets: Sequence[str]) -> Grid:
    r"""The net that won on some sets, with what each column changes."""
    return Grid(
        name,
        rows=ROWS,
        columns={column: {} for column in columns},
        special=_varied(columns, sets),
        smoke=SMOKE,
        smoke_rows=("rect",),
        row_title="set",
        chosen="those of SdA-3 on the set, but for what the column says.",
    )


COMPARED = ("rectangles", "convex", "mnist_bg_rand")
corruptions = _variation(
    "corruptions",
    {
        "masking": {"pair_parameters": {"corruption": "masking"}},
        "salt and pepper": {
            "pair_parameters": {
                "corruption": "salt_and_pepper",
                "corruption_options": {"exact": True},
            }
        },
        "Gaussian, 0.3": {
            "pair_parameters": {"corruption": "gaussian", "corruption_options": {"std": 0.3}}
        },
        "none": {"pair_parameters": {"corruption": "none"}},
    },
    COMPARED,
)
levels = _variation(
    "levels",
    {
        f"{rate:.0%}".replace("%", " %"): {
            "pair_parameters": {"corruption_options": {"rate": rate}}
        }
        for rate in (0.0, 0.1, 0.25, 0.4, 0.6)
    },
    ("rectangles", "convex"),
)
layers = _variation(
    "layers",
    {
        f"{depth}{title}": {"layers": depth, **how}
        for depth in (1, 2, 3)
        for title, how in (("", {}), (", no pretraining", RANDOM))
    },
    ("rectangles", "convex"),
)
labels = _variation(
    "labels",
    {
        f"{n:,}{title}": merged(how, {"algorithm_options": {"num_labels": n}})
        for n in (100, 300, 1000)
        for title, how in (("", {}), (", no pretraining", RANDOM))
    },
    ("rectangles", "convex"),
)

STUDY = Study(
    title="Stacked denoising autoencoders",
    text=TEXT,
    grids=[errors, corruptions, levels, layers, labels],
    tables=[
        Table("Test error", "errors", ERROR, PUBLISHED, lower_is_better=True),
        Table("Types of corruption", "corruptions", ERROR, lower_is_better=True),
        Table("Share that is masked", "levels", ERROR, lower_is_better=True),
        Table("Number of layers", "layers", ERROR, lower_is_better=True),
        Table("Number of labels", "labels", ERROR, lower_is_better=True),
    ],
)
