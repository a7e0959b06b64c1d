r"""Figures, each a pure function from NumPy arrays to a PNG file.

Every function returns the path that it wrote. An event of shape :math:`(H, W)`, :math:`(1, H, W)`
or :math:`(3, H, W)` is drawn as a picture (any other number of channels as the grey mean over
channels), an event of another shape as the curve of its flattened components. Vectors, whose
components have no order, have figures of their own: a panel for each component. Values within
:math:`[0, 1]` are shown as they are; others are mapped to it by one affine map per figure.
"""

from pyro_aevb.reports.plots.codes import latent_scatter
from pyro_aevb.reports.plots.estimates import (
    against,
    comparison,
    convergence,
    elbo_against_log_likelihood,
    factors_in_codes,
    inference_gap,
    latent_kl,
    pairwise,
)
from pyro_aevb.reports.plots.events import (
    manifold,
    manifold_grid,
    reconstructions,
    samples,
    traversals,
    walks,
)
from pyro_aevb.reports.plots.settings import score_against_setting
from pyro_aevb.reports.plots.training import history
from pyro_aevb.reports.plots.vectors import distributions, observed_against_predicted, responses

__all__ = [
    "against",
    "comparison",
    "convergence",
    "distributions",
    "elbo_against_log_likelihood",
    "factors_in_codes",
    "history",
    "inference_gap",
    "latent_kl",
    "latent_scatter",
    "manifold",
    "manifold_grid",
    "observed_against_predicted",
    "pairwise",
    "reconstructions",
    "responses",
    "samples",
    "score_against_setting",
    "traversals",
    "walks",
]
