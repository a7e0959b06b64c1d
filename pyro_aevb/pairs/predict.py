r"""Use a trained pair: encode, decode, reconstruct, generate, predict, walk through the codes.

Latents are tensors by site name, ``(batch, *shape of the site)``; images and vectors are ``(batch,
*event_shape)``. Global latents (weights) take the mean of the guide, except where a draw is asked
for. A pair is used in evaluation mode, whatever mode it is in.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import Data, data_of, repeated
from pyro_aevb.errors import UsageError, at_least_one, hint
from pyro_aevb.pairs.density import at_least_two, base, data_first, run
from pyro_aevb.pairs.description import Description
from pyro_aevb.pairs.handlers import AtMean, WholeBatch, typical
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.settle import at_the_mean, settled


def _described(pair: Pair) -> Description:
    if pair.description is None:
        raise UsageError(f"{pair.name} has not been inspected yet; call inspect(pair, x) first")
    return pair.description


@torch.no_grad()
def latents(
    pair: Pair, x: Data, sample: bool = False, given: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    r"""Values of all latent sites, local and global, from the guide.

    Arguments:
        pair: An inspected pair.
        x: The data, ``(batch, *event_shape)``, with the columns that the pair takes.
        sample: Draw them from the guide, instead of taking its means.
        given: Values of some sites, which the others may depend on.
    """
    description = _described(pair)
    names = [site.name for site in (*description.local_sites, *description.global_sites)]
    names += description.auxiliary
    x = settled(pair, x)
    with pair.active(), pair.evaluating(), WholeBatch():
        sites = run(pair.guide if sample else AtMean()(pair.guide), x, given)
    return {name: sites[name]["value"] for name in names}


def encode(pair: Pair, x: Data, sample: bool = False, **columns: Any) -> dict[str, Tensor]:
    r"""The codes of data: :math:`\mathrm{E}_q[z|x]` of every local site, or a draw.

    A net with layers that has no local sites, but a method ``codes(x)``, gives the units of the
    last layer as ``codes``.

    Arguments:
        pair: An inspected pair.
        x: The data, ``(batch, *event_shape)``.
        sample: Draw the codes from the guide instead.
        columns: Columns that the pair takes beside x, such as ``label=``, ``(batch, *shape)``.

    Returns:
        A tensor ``(batch, *shape)`` for each local latent site.

    Raises:
        UsageError: The pair has no codes.
    """
    description, x = _described(pair), pair.batch(x, columns)
    if not description.local_sites:
        return {"codes": _units(pair, x)}
    values = latents(pair, x, sample)
    return {site.name: values[site.name] for site in description.local_sites}


@torch.no_grad()
def _units(pair: Pair, x: Data) -> Tensor:
    layered = pair.attribute("codes")
    if not callable(layered):
        raise UsageError(
            f"{pair.name} has no codes: it has neither latent sites of a datum nor a method "
            "codes(x), as nets with layers have; predict gives what a classifier says"
        )
    with pair.evaluating():
        units: Tensor = layered(data_of(x))
    return units


@torch.no_grad()
def decode(
    pair: Pair, values: Mapping[str, Tensor], x: Data, sample: bool = False, **columns: Any
) -> Tensor:
    r"""The mean of the observed site given latents: :math:`\mathrm{E}[x|z, w]`.

    Where that distribution has no finite mean it is its mode, as of categorical data, and where it
    has neither a draw, or the median of a transformed normal:
    :func:`~pyro_aevb.pairs.predict.shown_by` says which. A classifier observes
    a column of the data: that column's given x.

    Arguments:
        pair: An inspected pair.
        values: Values of latent sites, as tensors, arrays or lists of numbers. Local ones that are
            not given are drawn from the model, global ones are the guide's means at those given.
        x: Any batch of the wanted length: the model is called with it, only its shape is used.
        sample: Draw data from :math:`p(x|z, w)` instead.
        columns: Columns that the pair takes beside x, such as ``label=``, ``(batch, *shape)``.

    Returns:
        ``(batch, *event_shape)``.

    Raises:
        UsageError: There is no latent site of a given name, or one of another shape; a local site
            that is not given has no prior; or the model reads the data that it is called with.
    """
    description = _described(pair)
    if description.reads_data:
        raise UsageError(f"{pair.name} cannot decode: {description.no_x()}")
    x = pair.batch(x, columns)
    values = _like_draws(pair, values, x)
    _check_values(pair, values, len(x))
    for site in description.local_sites:
        if site.name not in values and (reason := description.no_prior()) is not None:
            raise UsageError(f"{pair.name} cannot decode without values of {site.name!r}: {reason}")
    weights = {site.name for site in description.global_sites}
    if not weights <= set(values):
        given = {name: value for name, value in values.items() if name in weights}
        means = latents(pair, _any_two(pair, x), given=given)
        values = {name: means[name] for name in weights} | values
    site = _model(pair, values, x)[description.observed]
    fn = site["fn"]
    value = fn() if sample else typical(fn)[0]
    value = data_first(value, site, description.plate, fn.event_dim)
    value = value if value.is_floating_point() else value.to(x.dtype)  # a category, as data
    return value.reshape(x.shape) if value.numel() == x.shape.numel() else value


@torch.no_grad()
def shown_by(pair: Pair, x: Data) -> str:
    r"""What :func:`decode` returns for a pair: ``mean``, ``mode`` or ``draw`` of p(x|z, w)."""
    return typical(_model(pair, latents(pair, x), x)[_described(pair).observed]["fn"])[1]


def _any_two(pair: Pair, x: Data) -> Data:
    r"""Two data to run the guide on for what does not depend on them, such as the weights."""
    return at_the_mean(pair, at_least_two(x)[:2])


def _like_draws(pair: Pair, values: Mapping[str, Any], x: Data) -> dict[str, Tensor]:
    r"""Values as tensors of the precision, and on the device, of what the guide draws."""
    if all(isinstance(v, Tensor) and v.dtype == x.dtype for v in values.values()):
        return dict(values)
    drawn = latents(pair, _any_two(pair, x))
    tensors = {name: torch.as_tensor(value) for name, value in values.items()}
    return {name: value.to(drawn.get(name, value)) for name, value in tensors.items()}


def _check_values(pair: Pair, values: Mapping[str, Tensor], batch: int) -> None:
    description = _described(pair)
    shapes = {site.name: (batch, *site.event_shape) for site in description.local_sites}
    shapes |= {site.name: site.event_shape for site in description.global_sites}
    others = {*description.auxiliary, *description.enumerated}
    for name in [name for name in values if name not in others]:
        if name not in shapes:
            near, known = hint(name, shapes, least=0.0), ", ".join(shapes)
            raise UsageError(f"{pair.name} has no latent site {name!r}{near}; it has {known}")
        shape, need = tuple(values[name].shape), shapes[name]
        if shape != need:
            raise UsageError(f"{pair.name}: values of {name!r} have shape {shape}, and need {need}")


def _model(pair: Pair, values: Mapping[str, Tensor], x: Data) -> dict[str, Any]:
    with pair.active(), pair.evaluating(), WholeBatch():
        return run(pair.model, x, values)


def reconstruct(pair: Pair, x: Data, sample: bool = False, **columns: Any) -> Tensor:
    r"""Data through the guide and back: :math:`\mathrm{E}[x'|z, w]` at the codes of x.

    Arguments:
        pair: An inspected pair.
        x: The data.
        sample: Use a draw of codes and weights instead of their means.
        columns: Columns that the pair takes beside x, such as ``label=``, ``(batch, *shape)``.
    """
    x = pair.batch(x, columns)
    return decode(pair, latents(pair, x, sample), x)


@torch.no_grad()
def predict(pair: Pair, x: Data, weight_samples: int = 10, **columns: Any) -> Tensor:
    r"""What a classifier says of data: :math:`p(c|x) = \mathrm{E}_{q(w)}[p(c|x, w)]`.

    Arguments:
        pair: An inspected pair that observes one class of each datum, given x.
        x: The data, ``(batch, *event_shape)``; their classes need not be known, and are not read.
        weight_samples: Draws of the global latents that are averaged over, if there are some.
        columns: Columns that the pair takes beside x and the class, ``(batch, *shape)``.

    Returns:
        Probabilities of the classes, ``(batch, C)``.

    Raises:
        UsageError: The pair is no classifier, or the number of draws is below 1.
    """
    description = _described(pair)
    if not description.classifies():
        raise UsageError(
            f"{pair.name} is no classifier: it does not observe one class of each datum, given x; "
            "encode, decode and reconstruct are for other pairs"
        )
    at_least_one("weight_samples", weight_samples)
    if description.column is not None:  # the model takes it, and the classes' probabilities do not
        none = torch.zeros(len(x), dtype=torch.int64, device=data_of(x).device)
        columns = {description.column: none, **columns}
    x = pair.batch(x, columns)
    draws = weight_samples if description.global_sites else 1
    with pair.running():
        drawn = [latents(pair, _any_two(pair, x), sample=True) for _ in range(draws)]
        return class_log_prob(pair, x, drawn)[0].exp().to(x.dtype)


def class_log_prob(
    pair: Pair, x: Data, weights: Sequence[Mapping[str, Tensor]]
) -> tuple[Tensor, Tensor]:
    r"""Log-probabilities of the classes, of the mean over draws of the weights; and the classes.

    Arguments:
        pair: An inspected classifier, which is running.
        x: A batch, with the columns that the pair takes.
        weights: Draws of the global latents by name; a single empty one where there are none.

    Returns:
        :math:`\log \frac{1}{S} \sum_s p(c|x, w_s)`, float64, ``(batch, C)``, and the observed
        classes, ``(batch,)``.
    """
    sites = [run(pair.model, x, drawn)[_described(pair).observed] for drawn in weights]
    logits = [base(site["fn"]).logits.double().log_softmax(-1) for site in sites]
    each = torch.stack([one.expand(len(x), -1) for one in logits])
    mean = each.logsumexp(0) - math.log(len(each))
    return mean, sites[0]["value"].reshape(-1)


def generate(pair: Pair, x: Data, sample: bool = False, **columns: Any) -> Tensor:
    r"""Means :math:`\mathrm{E}[x|z, w]` for draws of z from the prior, and one of the weights.

    Arguments:
        pair: An inspected pair.
        x: Any batch of the wanted length.
        sample: Draw data from :math:`p(x|z, w)` instead, which are then draws from the model.
        columns: Columns that the pair takes beside x, such as ``label=``, ``(batch, *shape)``.

    Raises:
        UsageError: The prior of a local site is masked out.
    """
    x = pair.batch(x, columns)
    return decode(pair, _weights(pair, x, "generate"), x, sample)


@torch.no_grad()
def draw_prior(pair: Pair, x: Data) -> Tensor:
    r"""Draws from the prior of a code that is one vector, with one draw of the weights.

    Arguments:
        pair: An inspected pair with one local site of shape ``(d,)``.
        x: Any batch of the wanted length.

    Returns:
        ``(batch, d)``.

    Raises:
        UsageError: The prior is masked out, or there are other local sites.
    """
    return _model(pair, _weights(pair, x, "draw codes"), x)[_single_site(pair)]["value"]


def _weights(pair: Pair, x: Data, what: str) -> dict[str, Tensor]:
    r"""A draw of the global latents, if the local ones have a prior."""
    description = _described(pair)
    if (reason := description.no_prior()) is not None:
        raise UsageError(f"{pair.name} cannot {what}: {reason}")
    drawn = latents(pair, at_the_mean(pair, x), sample=True)
    return {site.name: drawn[site.name] for site in description.global_sites}


def _single_site(pair: Pair) -> str:
    local = [(site.name, site.event_shape) for site in _described(pair).local_sites]
    match local:
        case [(name, (_,))]:
            return name
    raise UsageError(f"{pair.name}: a walk through the codes needs one local site of shape (d,)")


def decode_grid(pair: Pair, points: np.ndarray, x: Data) -> np.ndarray:
    r"""Decode given latent points of a pair whose codes are one vector.

    Arguments:
        pair: An inspected pair with one local site of shape ``(d,)``.
        points: ``(n, d)``.
        x: One or more data; the first gives the shape, and the columns.

    Returns:
        ``(n, *event_shape)``.
    """
    name = _single_site(pair)
    # Of the precision of the pair's own codes, which need not be that of the data.
    z = torch.as_tensor(points).to(latents(pair, _any_two(pair, x))[name])
    return as_numpy(decode(pair, {name: z}, repeated(x[:1], len(z))))


def in_each_class(pair: Pair, x: Data, num_classes: int) -> np.ndarray:
    r"""One style in every class: the codes of data, decoded with each label in turn.

    Arguments:
        pair: An inspected pair that takes the column ``label``.
        x: The data, ``(batch, *event_shape)``, with the columns that the pair takes.
        num_classes: C; labels are 0, …, C - 1.

    Returns:
        ``(batch, C, *event_shape)``.
    """
    codes = encode(pair, x)
    device = data_of(x).device
    labels = [torch.full((len(x),), c, device=device) for c in range(num_classes)]
    return np.stack([as_numpy(decode(pair, codes, x, label=label)) for label in labels], 1)


def traverse(pair: Pair, x: Data, dimensions: list[int], values: np.ndarray) -> np.ndarray:
    r"""Move one latent dimension at a time, the others staying at the code of a datum.

    Arguments:
        pair: An inspected pair with one local site of shape ``(d,)``.
        x: One datum, ``(1, *event_shape)``.
        dimensions: Which dimensions to move.
        values: The values each takes.

    Returns:
        ``(len(dimensions), len(values), *event_shape)``.
    """
    code = as_numpy(latents(pair, at_least_two(x))[_single_site(pair)])[0]
    points = np.tile(code, (len(dimensions), len(values), 1))
    for row, dimension in enumerate(dimensions):
        points[row, :, dimension] = values
    images = decode_grid(pair, points.reshape(-1, len(code)), x)
    return images.reshape(len(dimensions), len(values), *images.shape[1:])
