r"""Comparisons, regenerated beside published values: ``python -m pyro_aevb.studies NAME``."""

from pyro_aevb.studies.declare import Cell, Figure, Grid, Published, Study, Table
from pyro_aevb.studies.study import study

__all__ = ["Cell", "Figure", "Grid", "Published", "Study", "Table", "study"]
