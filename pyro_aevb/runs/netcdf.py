r"""``results.nc``: an ArviZ file of per-datum values.

Group ``log_likelihood`` holds ``x``, log p(x_n|w_s), a draw for each draw of the weights;
``sample_stats`` the ELBO and its parts, and of the estimate of ``x`` its relative variance, the
health of its weights, and how many draws, modes and temperatures it took; ``posterior`` the codes
E_q[z|x]; ``predictive`` per datum ``log_likelihood`` and ``iwae_bound``, averaged over draws of the
weights, and ``reconstruction_mean``, at the means of codes and weights; ``convergence``
``iwae_bound`` from the first of its draws alone; ``classification``, of a pair that is a
classifier, the predictive log-probabilities of the classes, ``(datum, class)``, and the labels.
Every other estimator has a group of its name, which may hold fewer data, the first ones.
"""

import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import xarray

from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.classification import Predictions
from pyro_aevb.estimators.convergence import against_samples
from pyro_aevb.estimators.importance import Scores
from pyro_aevb.estimators.marginal import Marginals
from pyro_aevb.estimators.metrics import log_mean
from pyro_aevb.runs.writing import digest

Groups = dict[str, dict[str, Any]]
GROUPS = (
    *("posterior", "sample_stats", "log_likelihood", "predictive", "convergence"),
    "classification",
)
r"""What importance sampling leaves."""
END = b"\nsha256 "
r"""What stands before the digest of the file, behind all else."""
HEALTH = (
    *("ess", "pareto_k", "relative_variance"),
    *("num_samples", "num_modes", "num_temperatures"),
)
r"""What is kept of each estimate of log p(x_n|w_s)."""


def groups_of(
    scores: Scores, marginals: Marginals | None, predictions: Predictions | None = None
) -> Groups:
    r"""The variables of each of :data:`GROUPS` that there is: their dimensions and values."""
    draws = ("chain", "draw", "datum")
    groups: Groups = {"posterior": {}, "sample_stats": {}}
    given = {name: getattr(scores, name) for name in ("reconstruction", "kl", "elbo")}
    if marginals is not None and scores.kl is not None:  # with local latents, which are drawn
        given |= {name: getattr(marginals, name) for name in HEALTH}
    for name, values in given.items():
        if values is not None:
            groups["sample_stats"][name] = (draws, values[None])
    for site, codes in scores.codes.items():
        groups["posterior"][site] = (("chain", "draw", "datum", f"{site}_dim"), codes[None, None])
    whole = {"reconstruction_mean": scores.reconstruction_mean}
    if marginals is not None:
        groups["log_likelihood"] = {"x": (draws, marginals.log_likelihood[None])}
        whole["log_likelihood"] = log_mean(marginals.log_likelihood)
    if scores.log_weight is not None and scores.kl is not None:
        whole["iwae_bound"] = log_mean(scores.log_weight)
    if known := {k: (("datum",), v) for k, v in whole.items() if v is not None}:
        groups["predictive"] = known
    if predictions is not None:
        groups["classification"] = {
            "log_prob": (("datum", "class"), predictions.log_prob),
            "label": (("datum",), predictions.label),
        }
    curve = against_samples(scores)
    if curve is not None:
        groups["convergence"] = {
            "num_samples": (("num_samples",), np.array(curve.counts)),
            "iwae_bound": (("num_samples", "datum"), curve.values),
        }
    return groups


def packed(
    path: Path,
    groups: Mapping[str, Any],
    kept: Collection[str] | None = None,
    digests: Collection[str] | None = None,
    without: Collection[str] = (),
) -> bytes:
    r"""The content of a file with groups of variables beside those that it holds.

    Arguments:
        path: The file, which may not be there yet.
        groups: The dimensions and values by group and variable; a group that is there is replaced.
        kept: The names of the other groups to keep; None keeps all.
        digests: Those that the file may have now; None is any.
        without: The names of groups that are not kept in any case.

    Raises:
        UsageError: The file is damaged, or has another digest.
    """
    data = dict(groups)
    for name, variables in _stored(path, digests).items() if kept is None or kept else ():
        if name not in {*data, *without} and (kept is None or name in kept):
            data[name] = variables
    content = io.BytesIO()  # on a disk that is full HDF5 would end the process
    with h5netcdf.File(content, "w") as file:
        for name, variables in data.items():
            group = file.create_group(name)
            for variable, (dims, values) in variables.items():
                array = np.asarray(values)
                if array.dtype == bool:  # of which netCDF has none
                    array = array.astype(np.int8)
                for dim, size in zip(dims, array.shape, strict=True):
                    if dim not in group.dimensions:
                        group.dimensions[dim] = size
                group.create_variable(variable, dims, data=array)
    # Below what HDF5 reads: whether the file is whole is known without results.json, too.
    written = content.getvalue()
    return written + END + digest(written).encode()


def read_group(path: Path, group: str, digests: Collection[str] | None = None) -> Any:
    r"""A group of variables of a file, as an ``xarray.Dataset``.

    Arguments:
        path: The file.
        group: The name of the group.
        digests: Those that the file may have; None where none is known.

    Raises:
        KeyError: There is no such group, or the file has no digest and is damaged.
        OSError: The file cannot be read.
        UsageError: Its digest is another.
    """
    content = _whole(path, digests)
    try:
        with xarray.open_dataset(io.BytesIO(content), group=group, engine="h5netcdf") as data:
            return data.load()
    except OSError as error:  # which is what xarray says of a group that is not there
        raise KeyError(group) from error
    except MemoryError:
        raise
    except Exception as error:  # of damaged bytes without a digest HDF5 may make anything
        raise _damaged(path) from error


def check_whole(path: Path, digests: Collection[str] | None = None) -> None:
    r"""Raise a UsageError where a file is there and damaged; see :func:`read_group`."""
    if path.is_file():
        _stored(path, digests)


def _damaged(path: Path) -> UsageError:
    return UsageError(f"{path} is damaged, or not of the results beside it; evaluate the run again")


def _whole(path: Path, digests: Collection[str] | None = None) -> bytes:
    r"""The bytes of a file; a UsageError where they are not those that its digests are of."""
    content = path.read_bytes()
    below, end, own = content.rpartition(END)
    if (digests is not None and digest(content) not in digests) or (
        end and digest(below).encode() != own
    ):
        raise _damaged(path)
    return content


def _stored(path: Path, digests: Collection[str] | None = None) -> Groups:
    r"""The variables of a file, none where it is not there; a UsageError where it is damaged."""
    if not path.is_file():
        return {}
    content = _whole(path, digests)
    try:
        with h5netcdf.File(io.BytesIO(content), "r") as file:
            return {
                name: {key: (v.dimensions, v[...]) for key, v in group.variables.items()}
                for name, group in file.groups.items()
            }
    except MemoryError:
        raise
    except Exception as error:  # of damaged bytes without a digest HDF5 may make anything
        raise _damaged(path) from error
