r"""Whether a run's code has a dimension for each factor that its data were made of.

The codes are the guide's means of all local sites. Each metric stands beside its chance level, its
value for the same codes with their rows permuted against the factors. With uncertain weights the
value is the mean over draws of the weights, of which ``spread`` is the standard deviation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError, one_of
from pyro_aevb.estimators.disentanglement import dci as dci_file
from pyro_aevb.estimators.disentanglement import higgins as higgins_file
from pyro_aevb.estimators.disentanglement import sap as sap_file
from pyro_aevb.estimators.disentanglement.codes import choose_factors, coded_split, mean_codes
from pyro_aevb.estimators.disentanglement.dci import dci
from pyro_aevb.estimators.disentanglement.explicitness import explicitness
from pyro_aevb.estimators.disentanglement.factorvae import factorvae
from pyro_aevb.estimators.disentanglement.higgins import higgins
from pyro_aevb.estimators.disentanglement.mig import mig
from pyro_aevb.estimators.disentanglement.modularity import modularity
from pyro_aevb.estimators.disentanglement.sap import sap
from pyro_aevb.estimators.disentanglement.score import Score
from pyro_aevb.estimators.estimator import Estimator, Found
from pyro_aevb.estimators.metrics import Metric
from pyro_aevb.estimators.work import Work

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared

PER_CENT = ("higgins_score", "factorvae_score", "dci_informativeness")
STEPS = 8
r"""Functions of codes and factors that :func:`scores` calls."""

Scores = dict[str, Score]
Tables = dict[str, np.ndarray]


def scores(
    codes: np.ndarray, factors: np.ndarray, options: Mapping[str, Any], step: Any, chance: bool
) -> tuple[Scores, Tables]:
    r"""All metrics of some codes.

    Arguments:
        codes: ``(N, d)``.
        factors: ``(N, K)``.
        options: Those of the estimator.
        step: Called with 1 after each function.
        chance: Whether one draw of each will do.
    """
    o, seed = options, options["seed"]
    repeats, resamples = (1, 0) if chance else (o["repeats"], o["resamples"])
    drawn = {"repeats": repeats, "seed": seed}
    points = {**drawn, "train_points": o["train_points"], "test_points": o["test_points"]}
    binned = {"bins": o["bins"], "resamples": resamples, "seed": seed}
    found: Scores = {}
    found["higgins_score"] = higgins(
        codes, factors, o["pairs"], classifier=o["classifier"], features=o["features"],
        steps=o["steps"], **points,
    )  # fmt: skip
    step(1)
    found["factorvae_score"] = factorvae(codes, factors, o["batch"], o["collapsed"], **points)
    step(1)
    if len(codes) > o["num_codes"]:
        few = np.random.default_rng(seed).choice(len(codes), o["num_codes"], replace=False)
        codes, factors = codes[few], factors[few]
    gap = mig(codes, factors, **binned)
    step(1)
    found["mig"], found["modularity"] = gap.score, modularity(codes, factors, **binned)
    step(1)
    predicted = dci(codes, factors, o["trees"], o["dci"], **drawn)
    step(2)
    for name in ("disentanglement", "completeness", "informativeness"):
        found[f"dci_{name}"] = getattr(predicted, name)
    separated = sap(codes, factors, o["sap"], **drawn)
    step(1)
    found["sap"], found["explicitness"] = separated.score, explicitness(codes, factors, **drawn)
    step(1)
    tables = {"mig": gap.share, "dci_disentanglement": predicted.importance.T}
    return found, {**tables, "sap": separated.table}


def _disentanglement(
    prepared: "Prepared",
    test: Batches,
    work: Work,
    seed: int = 0,
    factors: str = "",
    split: str = "auto",
    weight_samples: int = 1,
    pairs: int = 10,
    train_points: int = 10_000,
    test_points: int = 5_000,
    classifier: str = "converged",
    features: str = "standardized",
    steps: int = 10_000,
    repeats: int = 3,
    batch: int = 64,
    collapsed: float = 0.0,
    num_codes: int = 10_000,
    bins: int = 20,
    resamples: int = 100,
    trees: int = 30,
    dci: str = "forest",
    sap: str = "thresholds",
) -> Found:
    options = {name: value for name, value in locals().items() if name not in _GIVEN}
    where = "--estimator disentanglement: "
    one_of(where + "classifier", classifier, higgins_file.CLASSIFIERS)
    one_of(where + "features", features, higgins_file.FEATURES)
    one_of(where + "dci", dci, dci_file.MODELS)
    one_of(where + "sap", sap, sap_file.PREDICTORS)
    if batch < 2:
        raise UsageError(f"{where}batch is {batch}; a variance takes at least 2 data")
    names = choose_factors(prepared, factors)
    batches, values, split = coded_split(prepared, test, names, split)
    draws = weight_samples if prepared.description.global_sites else 1
    each: list[Scores] = []
    tables: list[Tables] = []
    chances: Scores = {}
    for s in range(draws):
        with work.progress("codes", len(batches), "datum") as step:
            codes = mean_codes(prepared.pair, batches, seed, s, step)
        passes = 2 if s == 0 else 1
        with work.progress("disentanglement", passes * STEPS, "step") as step:
            found, table = scores(codes, values, options, step, chance=False)
            each.append(found)
            tables.append(table)
            if s == 0:
                order = np.random.default_rng([seed, 2]).permutation(len(codes))
                chances, _ = scores(codes[order], values, options, step, chance=True)
    metrics: dict[str, Metric] = {}
    for name in each[0]:
        unit = "%" if name in PER_CENT else ""
        metric = over_draws([found[name] for found in each]) | {"unit": unit}
        all_of_them = name in ("higgins_score", "factorvae_score")
        count = len(codes) if all_of_them else min(len(codes), num_codes)
        metric |= {"num_data": count, "split": split, "chance": chances[name].value}
        if draws > 1:
            metric["weight_samples"] = draws
        if name in tables[0]:
            table = np.mean([of[name] for of in tables], axis=0)
            metric["by_factor"] = dict(zip(names, table.tolist(), strict=True))
        metric["note"] = _note(metric)
        metrics[name] = metric
    metrics["higgins_score"] |= {"num_pairs": pairs, "factors": names}
    return metrics, {}


_GIVEN = ("prepared", "test", "work")


def _note(metric: Metric) -> str:
    unit, places = (" %", 1) if metric["unit"] else ("", 3)
    said = f"chance {metric['chance']:.{places}f}{unit}"
    if "spread" in metric:
        said += f"; ± {metric['spread']:.{places}f}{unit} over draws of the weights"
    return said + ("; of the training data" if metric["split"] == "train" else "")


def over_draws(found: list[Score]) -> Metric:
    r"""The mean over draws of the weights, its standard error, and the spread over draws.

    The draws share the data, so that the error is that of one: the root of the mean square.
    """
    values = [score.value for score in found]
    errors = [score.standard_error for score in found if score.standard_error is not None]
    error = float(np.sqrt(np.mean(np.square(errors)))) if errors else None
    metric: Metric = {"value": float(np.mean(values)), "standard_error": error}
    if len(values) > 1:
        metric["spread"] = float(np.std(values, ddof=1))
    return metric


def _figure(plots: Any, metrics: Mapping[str, Metric], per_datum: Any, path: Path) -> Path:
    of = {"mig": "information, share of the factor's entropy", "dci_disentanglement": "importance"}
    tables = {title: metrics[name]["by_factor"] for name, title in of.items()}
    drawn: Path = plots.factors_in_codes(tables, path)
    return drawn


DISENTANGLEMENT = Estimator("disentanglement", _disentanglement, figure=_figure)
