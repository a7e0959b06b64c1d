r"""Use a trained pair, or a run, which knows what its data look like.

All functions take either. Of a :class:`~pyro_aevb.pairs.pair.Pair` they are those of
:mod:`pyro_aevb.pairs.predict`, and data are tensors as the pair sees them. Of a run data may be
arrays or tables as they were given to :func:`~pyro_aevb.fit`: images with or without an axis of
channels, integers of 8 bits as grey levels where the run's data are, a DataFrame with the columns
in any order, labels by the names of their classes. Tensors come back on the device of the pair.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.batch import Batch, Data, data_of
from pyro_aevb.data.held import arrays_in, as_array
from pyro_aevb.data.naming import DATA, LABELS, ROWS, words
from pyro_aevb.data.own import ON_DISK
from pyro_aevb.data.tables import FEATURES
from pyro_aevb.errors import UsageError, at_least_one, unknown
from pyro_aevb.pairs import missing
from pyro_aevb.pairs import predict as of_pair
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.runs.prepare import Prepared

if TYPE_CHECKING:
    from pyro_aevb.runs.run import Run


def encode(pair: "Pair | Run", x: Any, sample: bool = False, **columns: Any) -> dict[str, Tensor]:
    r"""The codes of data: :math:`\mathrm{E}_q[z|x]` of every local site, or a draw.

    A net with layers that has no local sites, but a method ``codes(x)``, gives the units of the
    last layer as ``codes``.

    Arguments:
        pair: An inspected pair, or a run.
        x: The data, ``(batch, *event_shape)``.
        sample: Draw the codes from the guide instead.
        columns: Columns that the pair takes beside x, such as ``label=``, ``(batch, *shape)``.

    Returns:
        A tensor ``(batch, *shape)`` for each local latent site.

    Raises:
        UsageError: The pair has no codes, or the data are of another shape than the run's.
    """
    pair, x = _seen(pair, x, columns)
    return of_pair.encode(pair, x, sample)


def decode(
    pair: "Pair | Run", values: Any, x: Data | None = None, sample: bool = False, **columns: Any
) -> Tensor:
    r"""The mean of the observed site given latents: :math:`\mathrm{E}[x|z, w]`.

    Where that distribution has no finite mean it is its mode, as of categorical data, and where it
    has neither a draw. A classifier observes a column of the data: that column's given x.

    Arguments:
        pair: An inspected pair, or a run.
        values: Values of latent sites by name, as tensors, arrays or lists of numbers; of a run
            with one local site also its values alone. Local ones that are not given are drawn from
            the model, global ones are the guide's means at those given.
        x: Of a pair, any batch of the wanted length: the model is called with it, only its shape
            is used. A run needs none.
        sample: Draw data from :math:`p(x|z, w)` instead.
        columns: Columns that the pair takes beside x, such as ``label=``, ``(batch, *shape)``, or
            one value for all.

    Returns:
        ``(batch, *event_shape)``.

    Raises:
        UsageError: There is no latent site of a given name, or one of another shape; a local site
            that is not given has no prior; or the model reads the data that it is called with.
    """
    if isinstance(pair, Pair):
        if x is None:
            raise UsageError(
                f"decode of the pair {pair.name} needs x, a batch of the wanted length"
            )
        return of_pair.decode(pair, values, x, sample, **columns)
    held = _prepared(pair)
    local = [site.name for site in held.description.local_sites]
    if not isinstance(values, Mapping):
        if len(local) != 1:
            names = ", ".join(local) or "none"
            raise UsageError(
                f"{held.pair.name} has not one latent site of a datum: {names}; give "
                "values by their names"
            )
        values = {local[0]: values}
    values = {name: torch.as_tensor(as_array(value)) for name, value in values.items()}
    lengths = [len(values[name]) for name in local if name in values and values[name].ndim]
    if x is None:
        x = data_of(first_data(held, lengths[0] if lengths else 1))
    return of_pair.decode(held.pair, values, x, sample, **as_columns(held, len(x), columns))


def reconstruct(pair: "Pair | Run", x: Any, sample: bool = False, **columns: Any) -> Tensor:
    r"""Data through the guide and back: :math:`\mathrm{E}[x'|z, w]` at the codes of x.

    Arguments:
        pair: An inspected pair, or a run.
        x: The data.
        sample: Use a draw of codes and weights instead of their means.
        columns: Columns that the pair takes beside x, such as ``label=``, ``(batch, *shape)``.
    """
    pair, x = _seen(pair, x, columns)
    return of_pair.reconstruct(pair, x, sample)


def predict(pair: "Pair | Run", x: Any, weight_samples: int = 10, **columns: Any) -> Tensor:
    r"""What a classifier says of data: :math:`p(c|x) = \mathrm{E}_{q(w)}[p(c|x, w)]`.

    Arguments:
        pair: An inspected pair that observes one class of each datum, given x, or a run of one.
        x: The data, ``(batch, *event_shape)``; their classes need not be known, and are not read.
        weight_samples: Draws of the global latents that are averaged over, if there are some.
        columns: Columns that the pair takes beside x and the class, ``(batch, *shape)``.

    Returns:
        Probabilities of the classes, ``(batch, C)``.

    Raises:
        UsageError: The pair is no classifier, or the number of draws is below 1.
    """
    if not isinstance(pair, Pair):
        held = _prepared(pair)
        (x, found, _), pair = presented(held, x), held.pair
        observed = held.description.column
        found = {name: v for name, v in found.items() if name != observed}
        columns = {**found, **as_columns(held, len(x), columns)}
    return of_pair.predict(pair, x, weight_samples, **columns)


def generate(pair: "Pair | Run", x: Any = 1, sample: bool = False, **columns: Any) -> Tensor:
    r"""Means :math:`\mathrm{E}[x|z, w]` for draws of z from the prior, and one of the weights.

    Arguments:
        pair: An inspected pair, or a run.
        x: Of a pair any batch of the wanted length; of a run how many are wanted. Columns that the
            pair takes and that are not given are then those of the first test data.
        sample: Draw data from :math:`p(x|z, w)` instead, which are then draws from the model.
        columns: Columns that the pair takes beside x, such as ``label=``, ``(batch, *shape)``; of a
            run also one value for all.

    Raises:
        UsageError: The prior of a local site is masked out.
    """
    if isinstance(pair, Pair):
        if isinstance(x, int):
            raise UsageError(f"generate of the pair {pair.name} needs x, a batch of that length")
        return of_pair.generate(pair, x, sample, **columns)
    held = _prepared(pair)
    x = first_data(held, x) if isinstance(x, int) else presented(held, x)[0]
    return of_pair.generate(held.pair, x, sample, **as_columns(held, len(x), columns))


def presented(held: Prepared, x: Any) -> tuple[Tensor, dict[str, Tensor], np.ndarray]:
    r"""Data that were given as to :func:`~pyro_aevb.fit`, as the pair of a run sees them.

    Arguments:
        held: The pair, and the data that say what these look like.
        x: What :func:`~pyro_aevb.data.own.of_object` takes, but for splits.

    Returns:
        The data, float32, ``(n, *event_shape)``; columns beside them that the pair takes, by name;
        and what each datum is called, or its place, ``(n,)``.

    Raises:
        UsageError: They have another shape or other columns than the run's, or cannot be used.
    """
    if isinstance(x, Batch):
        return x.x, dict(x.columns), np.arange(len(x))
    arrays = arrays_in(x, ON_DISK)
    of_data = [key for key in arrays if set(words(key)) <= DATA]
    if len(of_data) != 1:
        raise UsageError(f"there are the arrays {', '.join(arrays)}; call the data x")
    array = np.asarray(arrays[of_data[0]])
    features, named = held.data.features, [str(name) for name in arrays.get(FEATURES, ())]
    if features and named:
        if missing := [name for name in features if name not in named]:
            raise UsageError(
                f"the data of {held.data.name} have the columns {', '.join(missing[:5])} too, and "
                "these do not"
            )
        array = array[:, [named.index(name) for name in features]]
    array = _shaped(held, array)
    values = torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(held.train.device)
    if array.dtype.kind in "bui":
        values = values / held.data.train.scale
    missing_too = held.data.train.missing
    if not bool((values.isfinite() | (values.isnan() & missing_too)).all()):
        raise UsageError("the data have infinite or missing values (NaN); fill them in")
    found = {"label" if set(words(key)) & LABELS else key: array for key, array in arrays.items()}
    given = {name: found[name] for name in held.pair.columns if name in found}
    rows = np.asarray(arrays.get(ROWS, np.arange(len(values))))
    return values, as_columns(held, len(values), given), rows


def impute(
    pair: "Pair | Run", x: Any, num_samples: int = 100, return_std: bool = False, **columns: Any
) -> Any:
    r"""Data with their missing values replaced by what the pair expects of them.

    Arguments:
        pair: An inspected pair, or a run, which was trained on data with missing values.
        x: The data, ``(batch, *event_shape)``, in which NaN stands for a missing value.
        num_samples, return_std: See :func:`pyro_aevb.pairs.missing.impute`.
        columns: Columns that the pair takes beside x, ``(batch, *shape)``.

    Returns:
        ``(batch, *event_shape)``, and with `return_std` the standard deviations of the same shape.
    """
    pair, x = _seen(pair, x, columns)
    return missing.impute(pair, x, num_samples, return_std)


def _shaped(held: Prepared, array: np.ndarray) -> np.ndarray:
    event, shape = held.data.event_shape, array.shape[1:]
    if shape == event:
        return array
    if event[:1] == (1,) and shape == event[1:]:  # images without their one channel
        return array[:, None]
    if len(event) == 3 and shape == (*event[1:], event[0]):
        return np.moveaxis(array, -1, 1)
    one = "; put a datum alone into a list, x[None]" if array.shape == event else ""
    raise UsageError(
        f"the data have shape {array.shape}, and those of {held.data.name} are "
        f"(n, {', '.join(map(str, event))}){one}"
    )


def _prepared(run: Any) -> Prepared:
    held = getattr(run, "prepared", None)
    if held is None:
        raise UsageError(
            f"here is a {type(run).__name__}, and what is used is a run, as fit returns and "
            "pyro_aevb.Run(path) opens, or a pair that was inspected, as run.pair"
        )
    found: Prepared = held
    return found


def _seen(pair: "Pair | Run", x: Any, columns: Mapping[str, Any]) -> tuple[Pair, Data]:
    if isinstance(pair, Pair):
        if not isinstance(x, (Tensor, Batch)):
            x = torch.from_numpy(np.array(as_array(x), np.float32)).to(pair.device)
        known = pair.description
        if known is not None and known.observes_x and not known.in_parts:
            if tuple(x.shape[1:]) != known.event_shape and data_of(x)[0].numel() != math.prod(
                known.event_shape
            ):
                raise UsageError(
                    f"the data have shape {tuple(x.shape)}, and those of {pair.name} are "
                    f"(n, {', '.join(map(str, known.event_shape))})"
                )
        return pair, pair.batch(x, columns)
    held = _prepared(pair)
    values, found, _ = presented(held, x)
    return held.pair, held.pair.batch(values, found | as_columns(held, len(values), columns))


def first_data(held: Prepared, n: int) -> Data:
    r"""n test data with the columns that the pair takes, over and over where there are fewer."""
    at_least_one("the number of data", n)
    return held.test.take(torch.arange(n, device=held.test.device) % len(held.test))


def as_columns(held: Prepared, n: int, columns: Mapping[str, Any]) -> dict[str, Tensor]:
    r"""Columns as tensors, ``(n, *shape)``: one value is that of all, and a class is its number."""
    found = {}
    for name, given in columns.items():
        array = np.asarray(as_array(given))
        if name == "label" and array.dtype.kind == "U":
            known = list(held.data.classes)
            for word in {*array.ravel()} - {*known}:
                raise unknown(
                    "class", str(word), known or ["numbers, as the classes have no names"]
                )
            array = np.vectorize(known.index, otypes=[np.int64])(array)
        array = array.astype({"f": np.float32, "b": np.bool_}.get(array.dtype.kind, np.int64))
        array = np.broadcast_to(array, (n,)) if array.ndim == 0 else array
        found[name] = torch.from_numpy(np.array(array)).to(held.test.device)
    return found
