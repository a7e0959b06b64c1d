r"""A run as ArviZ takes it: draws, data and log-likelihoods with named dimensions.

Groups of what :func:`inference_data` returns, of the first n data of a split:

- ``posterior``: draws from the guide, of the weights where they are uncertain, ``(chain, draw,
  ...)``, and of the codes of each datum given these, ``(chain, draw, datum, ...)``;
- ``posterior_predictive``: a draw of data from the model at each of them;
- ``observed_data`` and ``constant_data``: the data as they are scored, and the columns that the
  pair is given beside them;
- ``heldout_log_likelihood``, of the test split: log p(x_n|w_s) of ``results.nc``, whose draw s is
  of the weights of the posterior's draw s; ``sample_stats``: the ELBO and its parts, and the health
  of each estimate;
- ``log_likelihood``, of the training split of a pair with uncertain weights: the same of data that
  the posterior has seen, which is what ``arviz.loo`` is of.

What cannot be made is left out, and an attribute of its name says why.
"""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
import xarray

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import Batch, Data, data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.engine.bars import bar
from pyro_aevb.engine.streams import seeded
from pyro_aevb.errors import UsageError, at_least_one, one_of
from pyro_aevb.estimators import IMPORTANCE
from pyro_aevb.estimators.arviz_bridge import elpd
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.estimators.terms import weight_draw
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.predict import decode, latents
from pyro_aevb.pairs.tables import parted
from pyro_aevb.runs.prepare import restore

if TYPE_CHECKING:
    from pyro_aevb.runs.run import Run

Which = Literal["test", "train"]
AXES = {1: ("feature",), 3: ("channel", "row", "column")}
r"""What the dimensions of a datum are called, by their number."""
FIRST = 100
r"""How many data, unless it is said."""
HELD_OUT = (
    "held-out data have no leave-one-out: log p(x) of data that were not trained on is their "
    "predictive density, run.elpd(); split='train' is for arviz.loo"
)
POINTS = (
    "the weights of {} are points, so there is no posterior to leave a datum out of; run.elpd() is "
    "of held-out data"
)
GUIDE = "draws from the guide stand in the place of draws from the posterior"


def inference_data(
    run: "Run",
    split: Which = "test",
    num_draws: int = 100,
    num_data: int | None = None,
    pair: Any = None,
    data: Any = None,
    trust: bool = False,
    device: str = "auto",
) -> Any:
    r"""Draws, data and log-likelihoods of a run, as described above.

    Arguments:
        run: A run with results.
        split: Whose data.
        num_draws: Draws of the posterior.
        num_data: The first so many data; default at most 100.
        pair: See :func:`pyro_aevb.evaluate`; of a run trained just now it is ``run.pair``.
        data: The data set, if the run was trained on a Python object.
        trust: See :func:`pyro_aevb.evaluate`.
        device: Where to compute.

    Returns:
        An ``arviz.InferenceData``, or from ArviZ 1.0 on an ``xarray.DataTree``.

    Raises:
        UsageError: There are no results, or fewer data or draws than asked for; or the run cannot
            be restored.
    """
    one_of("split", split, get_args(Which))
    at_least_one("num_draws", num_draws)
    results = run.current_results()
    prepared = restore(run, device, pair=pair, data=data, trust=trust)
    held_out = split == "test"
    whole = prepared.test if held_out else prepared.fixed_train
    most = results["num_data"] if held_out else len(whole)
    n = min(FIRST, most) if num_data is None else num_data
    if not 2 <= n <= most:
        raise UsageError(f"num_data is {n}; it must lie between 2 and {most}, the data there are")
    few, loaded, description = whole.first(n), prepared.pair, prepared.description
    x = few.take(torch.arange(n))
    settings = results["settings"][IMPORTANCE]
    labels = getattr(prepared.data, split).labels
    names: dict[str, Any] = {"datum": np.arange(n)}
    if labels is not None:
        names["label"] = xarray.Variable("datum", as_numpy(labels[:n]))
    groups = _drawn(loaded, x, num_draws, settings["seed"]) | _given(loaded, x)
    said = {"posterior_predictive": description.no_x()} if description.reads_data else {}
    if held_out:
        said["loo"] = HELD_OUT
        groups |= _held_out(run, n, description.observed)
    elif not description.global_sites:
        said["loo"] = POINTS.format(loaded.name)
    elif (reason := description.undefined()) is not None:
        said["loo"] = reason
    else:
        said["loo"] = GUIDE
        groups["log_likelihood"] = _seen(loaded, few, num_draws, settings)
    attributes = _provenance(run, results, split) | said
    return _as_arviz({name: _dataset(g, names, attributes) for name, g in groups.items()})


def _drawn(pair: Pair, x: Data, num_draws: int, seed: int) -> dict[str, dict[str, Any]]:
    r"""Draws from the guide, and of data at each where the model makes them, by group."""
    description = pair.description
    assert description is not None
    over: dict[str, tuple[str, ...]] = {s.name: ("datum",) for s in description.local_sites}
    over |= {s.name: () for s in description.global_sites}
    draws: dict[str, list[np.ndarray]] = {name: [] for name in over}
    predicted: list[np.ndarray] = []
    for s in range(num_draws):
        with pair.running():
            weights = weight_draw(pair, x, seed, s)[0]
        with seeded(x.device, seed, s, 0, 0, 1):
            drawn = latents(pair, x, sample=True, given=weights)
            for name in over:
                draws[name].append(as_numpy(drawn[name]))
            if not description.reads_data:
                predicted.append(as_numpy(decode(pair, drawn, x, sample=True)))
    groups: dict[str, dict[str, Any]] = {}
    for name, values in draws.items():
        dims = (*over[name], *_dims(name, values[0].ndim - len(over[name])))
        groups.setdefault("posterior", {})[name] = _in_one_chain(dims, values)
    if predicted:
        axes = _axes(description.observed, predicted[0])
        made = _in_one_chain(axes, predicted)
        groups["posterior_predictive"] = {description.observed: made}
    return groups


def _in_one_chain(dims: tuple[str, ...], draws: list[np.ndarray]) -> tuple[Any, np.ndarray]:
    return ("chain", "draw", *dims), _whole(np.stack(draws)[None])


def _given(pair: Pair, x: Data) -> dict[str, dict[str, Any]]:
    r"""The data, and what the pair is given beside them."""
    description = pair.description
    assert description is not None
    x = parted(x)[0]
    columns = dict(x.columns) if isinstance(x, Batch) else {}
    values = {description.observed: data_of(x), **columns}
    if description.column is not None:  # a classifier observes it, given x
        values = {**columns, description.observed: columns[description.column], "x": data_of(x)}
        if description.column != description.observed:
            values.pop(description.column)
    groups: dict[str, dict[str, Any]] = {"observed_data": {}, "constant_data": {}}
    for name, tensor in values.items():
        group = "observed_data" if name in description.observed_sites else "constant_data"
        array = _whole(as_numpy(tensor))
        groups[group][name] = (_axes(name, array), array)
    return {group: variables for group, variables in groups.items() if variables}


def _held_out(run: "Run", n: int, observed: str) -> dict[str, dict[str, Any]]:
    r"""What ``results.nc`` holds of the first n test data."""
    from pyro_aevb.runs.netcdf import HEALTH

    groups: dict[str, dict[str, Any]] = {"heldout_log_likelihood": {}, "sample_stats": {}}
    places = {"heldout_log_likelihood": ["x"], "sample_stats": ["elbo", "kl", "reconstruction"]}
    places["sample_stats"] += HEALTH
    for group, names in places.items():
        for name in names:
            try:
                found = run.per_datum(group.removeprefix("heldout_"), name)
            except UsageError:  # not defined for the pair
                continue
            called = observed if group == "heldout_log_likelihood" else name
            groups[group][called] = (("chain", "draw", "datum"), found[..., :n])
    return {group: variables for group, variables in groups.items() if variables}


def _seen(pair: Pair, few: Batches, num_draws: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    r"""log p(x_n|w_s) of training data, ``(1, draws, n)``."""
    description = pair.description
    assert description is not None
    estimate = MarginalLikelihood(
        pair,
        settings.get("proposal", "laplace") if description.local_sites else "guide",
        settings["num_samples"],
        num_draws,
        settings["seed"],
        target=settings.get("monte_carlo_error", 0.1),
        max_samples=settings.get("max_samples", 5000),
    )
    total = num_draws * len(few)
    with bar(total=total, unit="datum", desc="log-likelihood by draw of the weights") as shown:
        values = estimate(few, lambda n: None if shown.update(n) else None).log_likelihood[None]
    return {description.observed: (("chain", "draw", "datum"), values)}


def _provenance(run: "Run", results: Mapping[str, Any], split: str) -> dict[str, Any]:
    from pyro_aevb import __version__

    known = results.get("provenance", {})
    return {
        "inference_library": "pyro_aevb",
        "inference_library_version": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run.name,
        "split": split,
        **{name: results[name] for name in ("pair", "data", "data_description", "binarization")},
        "epochs": results["epochs"],
        "training_seed": run.settings.get("seed", 0),
        "seed": results["settings"][IMPORTANCE]["seed"],
        "environment": results["environment"],
        **{name: known[name] for name in ("command", "commit") if known.get(name)},
    }


def _axes(name: str, values: np.ndarray) -> tuple[str, ...]:
    return ("datum", *AXES.get(values.ndim - 1, _dims(name, values.ndim - 1)))


def _dims(name: str, count: int) -> tuple[str, ...]:
    return (f"{name}_dim",) if count == 1 else tuple(f"{name}_dim_{i}" for i in range(count))


def _whole(values: np.ndarray) -> np.ndarray:
    r"""Values that are all whole numbers as such, which ArviZ draws as bars."""
    whole = values.dtype.kind == "f" and np.array_equal(values, np.rint(values))
    return values.astype(np.int64) if whole else values


def _dataset(
    variables: Mapping[str, Any], names: Mapping[str, Any], attributes: Mapping[str, Any]
) -> xarray.Dataset:
    made = xarray.Dataset(variables)
    numbered = {dim: np.arange(size) for dim, size in made.sizes.items()}
    known = {k: v for k, v in names.items() if "datum" in made.dims and k not in variables}
    return made.assign_coords({**numbered, **known}).assign_attrs(attributes)


def _as_arviz(groups: Mapping[str, xarray.Dataset]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ announces its next version
        import arviz

        # ArviZ 1.x has no class of its own, or the old name for xarray's.
        kind: Any = getattr(arviz, "InferenceData", xarray.DataTree)
        if kind is not xarray.DataTree:
            return kind(**groups)
    return xarray.DataTree.from_dict(dict(groups))


def held_out_elpd(run: "Run") -> Any:
    r"""log p(x) of all test data that were scored, for ``arviz.compare`` and ``arviz.plot_khat``.

    With uncertain weights it is the log of the mean over their draws. `pareto_k` is that of each
    datum's estimate, the greatest of all draws of the weights, where any has a tail to fit.

    Raises:
        UsageError: The run has no results, or log p(x) is not defined for its pair.
    """
    metric = run.results["metrics"]["log_likelihood"]
    if metric["value"] is None:
        raise UsageError(f"{run.path} has no log p(x): {metric['reason']}")
    pointwise, tails = run.per_datum("predictive", "log_likelihood"), None
    with suppress(UsageError):  # exact without local latents
        tails = np.fmax.reduce(run.per_datum("sample_stats", "pareto_k")[0])
    tails = None if tails is None or np.isnan(tails).all() else tails
    return elpd(pointwise, len(run.per_datum("log_likelihood", "x")[0]), tails)
