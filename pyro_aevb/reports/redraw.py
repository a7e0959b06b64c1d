r"""Figures of a run for a notebook: drawn again, or the picture that was written."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pyro_aevb.errors import UsageError, unknown
from pyro_aevb.reports.figures import draw_figures
from pyro_aevb.reports.planes import By
from pyro_aevb.reports.plots import canvas
from pyro_aevb.runs.prepare import Prepared
from pyro_aevb.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = (
    *("history", "reconstructions", "denoising", "samples", "latent", "manifold"),
    *("styles", "traversals", "interpolations", "directions"),
)
r"""Figures that need no scoring, and can be drawn of any pair that allows them."""


class _Elsewhere(Run):
    r"""A run whose figures lie in another folder."""

    def __init__(self, run: Run, prepared: Prepared, figures: Path) -> None:
        super().__init__(run.path)
        self.held = prepared
        self._figures = figures

    @property
    def figures(self) -> Path:
        return self._figures


def figure_of(run: Run, prepared: Prepared, name: str, by: By = "pca") -> "Figure":
    r"""One of :data:`NAMES`, drawn again; nothing is written.

    Raises:
        UsageError: The pair does not allow it, and why, if that is known.
    """
    with TemporaryDirectory() as folder, canvas.kept() as figures:
        undrawn = draw_figures(_Elsewhere(run, prepared, Path(folder)), prepared, None, by=by)
    if name in figures:
        return figures[name]
    for note in undrawn:
        if note.startswith(f"note: {name}.png"):
            raise UsageError(note.removeprefix("note: "))
    raise unknown(f"figure of {run.name}", name, list(figures))


def stored_figure(path: Path) -> "Figure":
    r"""A picture on a figure of its size, without axes."""
    from matplotlib.image import imread

    picture = imread(path)
    height, width = picture.shape[:2]
    figure = canvas.blank(width / canvas.DPI, height / canvas.DPI)
    figure.set_layout_engine("none")  # the picture fills it, and a layout has nothing to place
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(picture)
    axes.set_axis_off()
    return figure
