r"""Whether a run's code has a dimension for each factor that its data were made of.

The codes are the guide's means of all local sites. Each metric stands beside its chance level, its
value for the same codes with their rows permuted against the factors. With uncertain weights the
value is the mean over draws of the weights, of which ``spread`` is the standard deviation.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError, one_of
from pyro_aevb.estimators.disentanglement import dci as dci_file
from pyro_aevb.estimators.disentanglement import higgins as higgins_file
from pyro_aevb.estimators.disentanglement import protocols
from pyro_aevb.estimators.disentanglement import sap as sap_file
from pyro_aevb.estimators.disentanglement.codes import choose_factors, coded_split, mean_codes
from pyro_aevb.estimators.disentanglement.dci import dci
from pyro_aevb.estimators.disentanglement.explicitness import explicitness
from pyro_aevb.estimators.disentanglement.factorvae import factorvae
from pyro_aevb.estimators.disentanglement.higgins import higgins
from pyro_aevb.estimators.disentanglement.mig import mig
from pyro_aevb.estimators.disentanglement.modularity import modularity
from pyro_aevb.estimators.disentanglement.sap import sap
from pyro_aevb.estimators.disentanglement.score import Codes, Score, whole
from pyro_aevb.estimators.estimator import Estimator, Found
from pyro_aevb.estimators.metrics import Metric
from pyro_aevb.estimators.work import Work

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared

OF_ALL = ("higgins_score", "factorvae_score")
r"""Metrics of all codes, however many there are."""
PER_CENT = (*OF_ALL, "dci_informativeness")
MEASURES = ("higgins", "factorvae", "mig", "modularity", "dci", "sap", "explicitness")
r"""The functions of codes and factors that :func:`scores` calls."""

Scores = dict[str, Score]
Tables = dict[str, np.ndarray]


def scores(
    codes: np.ndarray | Codes,
    factors: np.ndarray,
    options: Mapping[str, Any],
    step: Any,
    chance: bool,
) -> tuple[Scores, Tables]:
    r"""Metrics of some codes.

    Arguments:
        codes: ``(N, d)``; for ``higgins`` they may be made when they are looked at.
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
    tables: Tables = {}
    measures = chosen_measures(o["measures"])
    if set(measures) - {"higgins", "factorvae"}:
        rows = np.arange(len(factors))
        if len(rows) > o["num_codes"]:
            rows = np.random.default_rng(seed).choice(len(rows), o["num_codes"], replace=False)
        few, few_factors = codes[rows], factors[rows]
    for measure in measures:
        if measure == "higgins":
            how = {name: o[name] for name in ("classifier", "features", "steps")}
            found["higgins_score"] = higgins(codes, factors, o["pairs"], **how, **points)
        elif measure == "factorvae":
            score = factorvae(whole(codes), factors, o["batch"], o["collapsed"], **points)
            found["factorvae_score"] = score
        elif measure == "mig":
            gap = mig(few, few_factors, **binned)
            found["mig"], tables["mig"] = gap.score, gap.share
        elif measure == "modularity":
            found["modularity"] = modularity(few, few_factors, **binned)
        elif measure == "dci":
            predicted = dci(few, few_factors, o["trees"], o["dci"], **drawn)
            for name in ("disentanglement", "completeness", "informativeness"):
                found[f"dci_{name}"] = getattr(predicted, name)
            tables["dci_disentanglement"] = predicted.importance.T
        elif measure == "sap":
            separated = sap(few, few_factors, o["sap"], **drawn)
            found["sap"], tables["sap"] = separated.score, separated.table
        else:
            found["explicitness"] = explicitness(few, few_factors, **drawn)
        step(1)
    return found, tables


def chosen_measures(names: str) -> list[str]:
    r"""Those of :data:`MEASURES` that are asked for, divided by commas; all of no name."""
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        one_of("--estimator disentanglement: measures", name, MEASURES)
    return [name for name in MEASURES if name in asked or not asked]


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
    measures: str = "",
    curve: str = "",
    choices: bool = False,
    labels: str = "",
    label: str = "",
) -> Found:
    options = {name: value for name, value in locals().items() if name not in _GIVEN}
    where = "--estimator disentanglement: "
    one_of(where + "classifier", classifier, higgins_file.CLASSIFIERS)
    one_of(where + "features", features, higgins_file.FEATURES)
    one_of(where + "dci", dci, dci_file.MODELS)
    one_of(where + "sap", sap, sap_file.PREDICTORS)
    if batch < 2:
        raise UsageError(f"{where}batch is {batch}; a variance takes at least 2 data")
    chosen_measures(measures)
    protocols.check(options)
    names = choose_factors(prepared, factors)
    if sap == "correlation" and "sap" in chosen_measures(measures):
        _check_ordered(prepared.data.factor_types, names)
    of_data = list(prepared.data.factors or names)
    columns = list(dict.fromkeys([*names, *of_data, *([label] if label else [])]))
    batches, every, split = coded_split(prepared, test, columns, split)
    known = dict(zip(columns, every.T, strict=True))
    draws = weight_samples if prepared.description.global_sites else 1

    def codes(draw: int, sample: bool = False) -> np.ndarray:
        with work.progress("codes", len(batches), "datum") as step:
            return mean_codes(prepared.pair, batches, seed, draw, step, sample)

    each = (codes(draw) for draw in range(draws))
    options["sampled"] = lambda: codes(0, sample=True)
    return measured(each, known, of_data, names, split, options, work), {}


def _check_ordered(types: Mapping[str, str], names: Sequence[str]) -> None:
    for name in names:
        if types.get(name, "ordered") != "ordered":
            raise UsageError(
                "--estimator disentanglement: sap: correlation takes classes for places on a line, "
                f"and {name} is {types[name]}; leave it out of factors, or take sap: thresholds"
            )


def measured(
    codes: Iterable[np.ndarray | Codes],
    columns: Mapping[str, np.ndarray],
    of_data: Sequence[str],
    names: Sequence[str],
    split: str,
    options: Mapping[str, Any],
    work: Work,
) -> dict[str, Metric]:
    r"""All that an evaluation finds of some codes.

    Arguments:
        codes: ``(N, d)`` for each draw of the weights.
        columns: The factors of the data by name, ``(N,)`` each, whole numbers.
        of_data: Those that the data set declares.
        names: Those that are asked for.
        split: Which data these are.
        options: Those of the estimator, and perhaps ``sampled``, see
            :func:`~.protocols.all_of`.
        work: Who shows the progress.
    """
    o = options
    values = np.stack([columns[name] for name in names], 1)
    steps = len(chosen_measures(o["measures"]))
    each: list[Scores] = []
    tables: list[Tables] = []
    chances: Scores = {}
    for draw, made in enumerate(codes):
        with work.progress("disentanglement", (1 if draw else 2) * steps, "step") as step:
            found, table = scores(made, values, o, step, chance=False)
            if draw == 0:
                order = np.random.default_rng([o["seed"], 2]).permutation(len(values))
                # Codes may be made when they are looked at: their factors are permuted.
                chances, _ = scores(made, values[order], o, step, chance=True)
        if draw == 0:
            every = np.stack([columns[name] for name in of_data], 1)
            said = columns[o["label"] or of_data[0]]
            found |= protocols.all_of(made, values, every, said, o, work)
        each.append(found)
        tables.append(table)
    metrics: dict[str, Metric] = {}
    for name in each[0]:
        several = [found[name] for found in each if name in found]
        all_of_them = name in OF_ALL or name not in chances
        count = len(values) if all_of_them else min(len(values), o["num_codes"])
        unit = "%" if name in PER_CENT or name not in chances else ""
        metric = over_draws(several) | {"unit": unit, "num_data": count, "split": split}
        if name in chances:
            metric["chance"] = chances[name].value
        if len(several) > 1:
            metric["weight_samples"] = len(several)
        if name in tables[0]:
            table = np.mean([of[name] for of in tables], axis=0)
            metric["by_factor"] = dict(zip(names, table.tolist(), strict=True))
        if "chance" in metric:  # other protocols stand beside it, and their names say what they are
            metric["note"] = _note(metric)
        metrics[name] = metric
    if "higgins_score" in metrics:
        metrics["higgins_score"] |= {"num_pairs": o["pairs"], "factors": list(names)}
    return metrics


_GIVEN = ("prepared", "test", "work")


def _note(metric: Metric) -> str:
    unit, places = (" %", 1) if metric["unit"] else ("", 3)
    said = f"chance {metric['chance']:.{places}f}{unit}"
    if "spread" in metric:
        said += f"; ± {metric['spread']:.{places}f}{unit} over draws of the weights"
    return said + ("; of the training data" if metric["split"] == "train" else "")


def over_draws(found: list[Score]) -> Metric:
    r"""The mean over draws of the weights, its standard error, and the spread over draws.

    The draws share the data, so that the error is that of one: the root of the mean square. The
    values of independent repeats, of all draws, stand beside it.
    """
    values = [score.value for score in found]
    errors = [score.standard_error for score in found if score.standard_error is not None]
    error = float(np.sqrt(np.mean(np.square(errors)))) if errors else None
    metric: Metric = {"value": float(np.mean(values)), "standard_error": error}
    if len(values) > 1:
        metric["spread"] = float(np.std(values, ddof=1))
    if repeats := [value for score in found for value in score.repeats]:
        metric["repeats"] = repeats
    return metric


def _figure(plots: Any, metrics: Mapping[str, Metric], per_datum: Any, path: Path) -> Path:
    of = {"mig": "information, share of the factor's entropy", "dci_disentanglement": "importance"}
    tables = {title: metrics[name]["by_factor"] for name, title in of.items()}
    drawn: Path = plots.factors_in_codes(tables, path)
    return drawn


DISENTANGLEMENT = Estimator(
    "disentanglement",
    _disentanglement,
    figure=_figure,
    of_test="its option split says which data it looks at",
)
