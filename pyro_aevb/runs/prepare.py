r"""From names to things: a data set, its batches, and a pair that has been checked on them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from types import FunctionType
from typing import Any

import torch

from pyro_aevb.data.batches import Batches, evaluation_binarization
from pyro_aevb.data.looks import alike, looks
from pyro_aevb.data.naming import LENGTHS
from pyro_aevb.data.own import of_object
from pyro_aevb.data.sets import check_name, load
from pyro_aevb.data.split import Binarize, DataSet, Split, looked_through
from pyro_aevb.device import choose_device
from pyro_aevb.engine.rewrites import matmul_precision
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.classification import predict
from pyro_aevb.pairs import consent
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.description import Description
from pyro_aevb.pairs.missing import Seen
from pyro_aevb.pairs.pair import Pair, load_pair
from pyro_aevb.pairs.settle import bring, settle
from pyro_aevb.pairs.supports import check_support
from pyro_aevb.pairs.tables import COLUMN
from pyro_aevb.runs.checkpoint import load_checkpoint
from pyro_aevb.runs.directories import SETTINGS
from pyro_aevb.runs.run import Run

MENTIONED = 10
r"""Classes that a note names, of those that do not occur."""


@dataclass(frozen=True)
class Prepared:
    r"""A checked pair on its device, and the splits as it will see them."""

    pair: Pair
    description: Description
    data: DataSet
    binarize: Binarize
    train: Batches
    r"""The training split as training sees it, drawn anew at each look if it is binarized so."""
    fixed_train: Batches
    r"""The training split as it is scored."""
    valid: Batches
    r"""The validation split as it is scored."""
    test: Batches
    r"""The test split as it is scored."""
    notes: tuple[str, ...] = ()
    r"""What a reader of the results should know."""
    best_epoch: int | None = None
    r"""The epoch whose weights the pair has, where training returned to its best one."""


def prepare(
    pair: Any,
    data: Any,
    pair_parameters: Mapping[str, Any] | None = None,
    data_root: str | None = None,
    binarize: Binarize | None = None,
    device: str = "auto",
    memory: int | None = None,
) -> Prepared:
    r"""Load data and pair, put both on a device, and check the pair on the first training data.

    Arguments:
        pair: See :func:`~pyro_aevb.pairs.pair.load_pair`.
        data: A data set's name or path (:func:`~pyro_aevb.data.sets.load`), a
            :class:`~pyro_aevb.data.split.DataSet`, or what Python holds
            (:func:`~pyro_aevb.data.own.of_object`).
        pair_parameters: The pair's constructor parameters.
        data_root: Where data sets lie.
        binarize: None is the data set's own way.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        memory: In MiB; a larger array in a file stays on the disk.

    Raises:
        UsageError: Anything that is missing, misspelt, or does not fit together.
    """
    chosen = choose_device(device)
    pair, data = (str(x) if isinstance(x, PathLike) else x for x in (pair, data))
    if not isinstance(pair_parameters, (Mapping, type(None))):
        raise UsageError(
            f"pair_parameters is a {type(pair_parameters).__name__}; it takes names with their "
            "values, as {'latent_dim': 2} (labels come with the data: data=(x, labels))"
        )
    if isinstance(data, (type, FunctionType)):
        raise UsageError(
            f"data is {data.__name__}, which is none: the pair comes first, then the data; a pair "
            "of two functions is (model, guide)"
        )
    budget = memory and memory << 20
    if binarize not in (None, "none"):  # bits that are drawn once stay in memory, as their data do
        budget = sys.maxsize
    if isinstance(data, DataSet):
        dataset = data
    elif isinstance(data, str):
        dataset = load(data, data_root, budget)
    else:
        dataset = of_object(data, budget)
    way: Binarize = dataset.binarize if binarize is None else binarize
    loaded = load_pair(pair, pair_parameters, dataset).move(chosen)
    scored = evaluation_binarization(way)

    def batches(part: str, way: Binarize) -> Batches:
        split: Split = getattr(dataset, part)
        columns = loaded.columns_in(split, f"the {part} split has")
        return Batches(split, way, chosen, columns, dataset.factors)

    train = batches("train", way)
    if any(getattr(dataset, part).missing for part in ("train", "valid", "test")):
        loaded.in_handler(Seen())
    with matmul_precision("highest"):  # coarser products would pass for a mean over the batch
        description = inspect(loaded, train.take(_telling(train)), len(dataset.train))
    _check_fit(loaded, description, dataset, way)
    prepared = Prepared(
        pair=loaded,
        description=description,
        data=dataset,
        binarize=way,
        train=train,
        fixed_train=train if scored == way else batches("train", scored),
        valid=batches("valid", scored),
        test=batches("test", scored),
    )
    _bring_rows(prepared)
    notes = _check_labels(prepared)
    if description.filled_in:
        what = "parameters of each training datum" if loaded.tables else "global latent sites"
        notes += (
            f"note: plate {description.plate!r} has the size of the batch, and the pair has "
            f"{what}: N = {description.plate_size:,}, the number of training data, is filled in",
        )
    prepared = replace(prepared, notes=notes)
    for split in ("train", "valid", "test"):
        check_support(loaded, getattr(prepared, split), split)
    consent.remember("pair", pair)
    return prepared


def restore(
    run: Run,
    device: str = "auto",
    data_root: str | None = None,
    pair: Any = None,
    data: Any = None,
    trust: bool = False,
    memory: int | None = None,
) -> Prepared:
    r"""A run's trained pair and its data.

    Arguments:
        run: The run, on the split that will be scored.
        device: The device to put them on: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_root: Where data sets lie; default the run's.
        pair: A pair in place of what the settings name; needed if that was a Python object, and
            the run does not hold it.
        data: A data set in place of what the settings name, or what the run holds; needed likewise.
        trust: Run the code of the pair that the settings name, wherever it comes from
            (:mod:`pyro_aevb.pairs.consent`).
        memory: In MiB; a larger array in a file stays on the disk. Default the run's.

    Raises:
        UsageError: The run cannot be restored, or nobody here agreed to run its pair's code.
    """
    settings, held = run.settings, run.held
    stored = {"pair": [settings["pair"], *(settings.get("pair_parameters") or {}).values()]}
    stored["data"] = [settings["data"]]
    objects = {
        name: [value for value in values if str(value).startswith("<")]
        for name, values in stored.items()
    }
    if held is not None and data is None and (objects["data"] or data_root is None):
        data = held.data
    in_memory = held is not None and pair is None and bool(objects["pair"])
    for name, given in (("pair", pair), ("data", data)):
        if given is None and objects[name] and not (name == "pair" and in_memory):
            raise UsageError(
                f"{run.path} was trained from the Python object {objects[name][0]}; "
                f"call pyro_aevb.evaluate(run, {name}=...) or run.restore({name}=...) with it, or "
                f"name a file by --{name}"
            )
    if pair is None and not in_memory:
        consent.require("pair", settings["pair"], run.path / SETTINGS, trust)
    if data is None:
        try:
            check_name(settings["data"])
        except UsageError as error:
            raise UsageError(
                f"{run.path} was trained on {settings['data']}, which is not here; say where it is "
                "now: --data PATH"
            ) from error
    state = load_checkpoint(run.checkpoint)
    returned = bool(settings.get("patience")) and "tensors" in state["best"]
    best = state["best"] if returned else state
    if held is not None and in_memory:
        pair = _again(held.pair)
        # first, as what it has become since may not even pass the check
        pair.load_tensors(best["tensors"], str(run.checkpoint))
    prepared = prepare(
        settings["pair"] if pair is None else pair,
        settings["data"] if data is None else data,
        settings.get("pair_parameters") if pair is None or isinstance(pair, (str, type)) else None,
        data_root or settings.get("data_root"),
        settings.get("binarize"),
        device,
        memory or settings.get("memory"),
    )
    prepared.pair.load_tensors(best["tensors"], str(run.checkpoint))
    prepared.pair.python.load(best.get("python", {}), prepared.train.device)
    prepared.pair.eval()
    notes: Any = [*run.unsigned, *state.get("notes", [])]
    if state.get("source") != prepared.pair.source:
        changed = "warning: the pair's source has changed since it was trained; this scores the new"
        notes = [f"{changed} one", *notes]
    if "looks" in state and not alike(state["looks"], looks(prepared.data)):
        notes = ["warning: the data are not those that the pair was trained on", *notes]
    if run.split != "train":  # whose rows were trained
        scored = prepared.valid if run.split == "valid" else prepared.test
        notes = [*notes, *settle(prepared.pair, scored, settings.get("seed", 0))]
    notes = (*prepared.notes, *notes)
    return replace(prepared, notes=notes, best_epoch=best["epoch"] if returned else None)


def _again(pair: Pair) -> Pair:
    r"""A pair in memory to load a checkpoint into: a copy, as it may have been trained further."""
    try:
        return pair.uninspected()
    except Exception:  # of functions, or of what a user's object holds
        pair.forget()
        return pair


def _bring_rows(prepared: Prepared) -> None:
    r"""Let batches bring rows of the guide's tables: training data their own, others the mean."""
    for name, table in prepared.pair.tables.items():
        for own in (prepared.train, prepared.fixed_train):
            own.columns[COLUMN + name] = table.values.detach()
    for others in (prepared.valid, prepared.test):
        bring(prepared.pair, others)
    for name in prepared.pair.tables:
        prepared.pair.held[name] = prepared.valid.columns[COLUMN + name]


def _telling(train: Batches) -> torch.Tensor:
    r"""The positions of the data that a pair is checked on: five, the largest and the least value
    that it will meet among them, so that one outside a likelihood's support is found, and the
    longest and the shortest sequence."""
    looked = ((at, block.flatten(1).cpu()) for at, block in looked_through(train.images))
    blocks = [(at, block.amax(1), block.amin(1)) for at, block in looked]
    places, largest, least = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    extremes = {int(places[largest.argmax()]), int(places[least.argmin()])}
    for lengths in (train.columns[name] for name in LENGTHS if name in train.columns):
        extremes |= {int(lengths.argmax()), int(lengths.argmin())}
    others = [n for n in range(min(5, len(train))) if n not in extremes][: 5 - len(extremes)]
    return torch.tensor(sorted(extremes | set(others)))


def _check_fit(pair: Pair, description: Description, data: DataSet, way: Binarize) -> None:
    if description.plate_size is not None and description.plate_size != len(data.train):
        raise UsageError(
            f"{pair.name}: plate {description.plate!r} declares size {description.plate_size}, but "
            f"{data.name} has {len(data.train)} training data; a constructor parameter named "
            "num_data is filled in with it"
        )
    if "Bernoulli" in description.likelihood and way == "none":
        for name in ("train", "valid", "test"):
            split: Split = getattr(data, name)
            low, high = split.range()
            if low < 0 or high > 1:
                raise UsageError(
                    f"{pair.name}: a Bernoulli needs data in [0, 1], the {name} split of "
                    f"{data.name} lies in [{low:.4g}, {high:.4g}]; rescale it, or take a "
                    "likelihood for such values"
                )


def check_told(pair: Pair, batches: Batches, where: str) -> None:
    r"""A UsageError where a pair is told labels, as its attribute ``told_classes`` says, and data
    have others: -1 is one that is not known."""
    classes = pair.attribute("told_classes")
    if not isinstance(classes, int) or "label" not in batches.columns:
        return
    values = batches.columns["label"]
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= classes:
        raise UsageError(
            f"{pair.name} is told labels from 0 to {classes - 1}, and those of {where} lie between "
            f"{low} and {high}; take out the data without a label that it knows"
        )


def _check_labels(prepared: Prepared) -> tuple[str, ...]:
    r"""A UsageError where a classifier meets labels of classes that it does not have; a note where
    it is never shown some that it has."""
    pair, observed = prepared.pair, prepared.description.column
    for name in ("train", "valid", "test"):
        check_told(pair, getattr(prepared, name), f"the {name} split of {prepared.data.name}")
    if not prepared.description.classifies() or observed is None:
        return ()
    few = predict(pair, prepared.train.first(2))
    assert few is not None
    classes = few.log_prob.shape[1]
    for name in ("train", "valid", "test"):
        values = getattr(prepared, name).columns[observed]
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= classes:
            raise UsageError(
                f"{pair.name} has {classes} classes, 0 to {classes - 1}, and {observed!r} of the "
                f"{name} split of {prepared.data.name} lies between {low} and {high}"
            )
    seen = set(prepared.train.columns[observed].tolist())
    unseen = [str(number) for number in range(classes) if number not in seen]
    if not unseen:
        return ()
    named = ", ".join(unseen[:MENTIONED] + ["…"] * (len(unseen) > MENTIONED))
    return (
        f"note: {len(unseen)} of {classes} classes do not occur in the training labels: {named}; "
        "classes are numbered from 0",
    )


def is_grey_bernoulli(prepared: Prepared) -> bool:
    r"""Whether pixels between 0 and 1 meet a Bernoulli: a cross-entropy, not a log-density."""
    if prepared.description.likelihood != "Bernoulli":
        return False
    blocks, one = looked_through(prepared.test.images), prepared.test.scale
    return any(bool(((block > 0) & (block < one)).any()) for _, block in blocks)
