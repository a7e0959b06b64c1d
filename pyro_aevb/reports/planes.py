r"""Where codes of any number of dimensions lie in a picture: a plane, and whose plane it is."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pyro.distributions import Normal

from pyro_aevb.data.batch import Data
from pyro_aevb.errors import UsageError, one_of
from pyro_aevb.pairs.density import at_least_two, base, run
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.predict import latents

By = Literal["pca", "umap"]
WAYS = ("pca", "umap")


@dataclass(frozen=True)
class Plane:
    r"""Codes in a picture."""

    points: np.ndarray
    r"""Of each datum its place, ``(N, 2)``; of codes of one dimension ``(N, 1)``."""
    names: tuple[str, ...]
    r"""What the axes are."""
    axes: np.ndarray | None
    r"""Orthonormal columns V, ``(d, 2)``, of the projection Z V; None where it is none."""


def plane_of(codes: np.ndarray, site: str, by: By = "pca") -> Plane:
    r"""Codes as they are drawn: themselves if there are one or two dimensions, else in a plane.

    That of the principal components is :math:`Z V`, with the two leading eigenvectors V of the
    codes' covariance; the component of largest modulus of each is positive. Z is not centred, so
    that the origin of the plane is that of the codes.

    Arguments:
        codes: Z, ``(N, d)``.
        site: The name of their site.
        by: ``pca``, or ``umap``, which is no projection: distances in it are not those of codes.

    Raises:
        UsageError: There is no such way, umap-learn is not installed, or N is 1.
    """
    one_of("by", by, WAYS)
    n, d = codes.shape
    if d <= 2:
        return Plane(codes, tuple(f"{site}[{i}]" for i in range(d)), np.eye(d))
    if n < 2:
        raise UsageError(f"codes of {d} dimensions span a plane from two data on, and this is one")
    if by == "umap":
        return Plane(_umap(codes), (f"UMAP 1 of {site}", f"UMAP 2 of {site}"), None)
    centred = codes - codes.mean(0, dtype=np.float64)
    _, sizes, rows = np.linalg.svd(centred, full_matrices=False)
    axes = rows[:2].T
    axes = axes * np.where(axes[abs(axes).argmax(0), [0, 1]] < 0, -1.0, 1.0)
    total = (sizes**2).sum()
    shares = 100 * sizes[:2] ** 2 / (total if total > 0 else 1.0)
    names = (f"PC {i + 1} of {site}, {share:.0f} % of variance" for i, share in enumerate(shares))
    return Plane(codes @ axes, tuple(names), axes)


def _umap(codes: np.ndarray) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError:
        raise UsageError("by='umap' needs umap-learn: pip install umap-learn") from None
    # n_jobs is what a seed makes of it anyway, with a warning
    points: np.ndarray = UMAP(random_state=0, n_jobs=1).fit_transform(codes)
    return points


@torch.no_grad()
def standard_normal(pair: Pair, x: Data, site: str) -> bool:
    r"""Whether the prior of a code is the standard normal, for every one of some data.

    Any projection of it on a plane with orthonormal axes is the standard normal of the plane.

    Arguments:
        pair: An inspected pair.
        x: The data, with the columns that the pair takes.
        site: The name of the code's site.
    """
    with pair.running():
        x = at_least_two(x)
        prior = base(run(pair.model, x, latents(pair, x))[site]["fn"])
    return isinstance(prior, Normal) and not bool(prior.loc.any() or (prior.scale != 1).any())
