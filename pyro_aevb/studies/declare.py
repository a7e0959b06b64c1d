r"""What a study is made of. A study is a page of these, in a file that defines ``STUDY``."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from pyro_aevb.errors import UsageError
from pyro_aevb.studies.checks import (
    check_found,
    check_in,
    check_kinds,
    check_once,
    check_settings,
    check_whole,
    naming,
)

Settings = Mapping[str, Any]
r"""Settings of :func:`pyro_aevb.fit`, or of :func:`pyro_aevb.evaluate`, by name. ``by`` names a
function in place of ``fit``, ``"module:function"``, whose settings they then are; it is called as
``fit`` is, and returns a run that has results."""

Key = tuple[str, str]
r"""A row and a column."""

OF_RUNS = ("parameters", "seconds_per_epoch")
r"""Quantities of a run that come from no scoring."""

FIT = "test"
r"""The name of the scoring that ``fit`` does."""

HISTORY = "history"
r"""What the names of quantities begin with that are columns of ``history.csv``."""

Scale = Literal["smoke", "full"]


@dataclass(frozen=True)
class Cell:
    r"""One training: an ordinary run, and how it is scored afterwards."""

    grid: str
    row: str
    column: str
    seed: int
    settings: Settings
    r"""The settings of :func:`pyro_aevb.fit`, without the epochs, which are the last of `looks`."""
    looks: tuple[int, ...]
    r"""The epochs after which the run is scored, rising."""
    scores: Mapping[str, Settings]
    look_scores: tuple[str, ...] = ()
    r"""The names of the scores that are made at every look."""

    def scores_at(self, epochs: int) -> list[str]:
        r"""The names of the scores that are made at a look, in order."""
        return [
            name for name in self.scores if epochs == self.looks[-1] or name in self.look_scores
        ]

    @property
    def path(self) -> Path:
        r"""The run's directory, within that of the study."""
        return Path("cells", *map(slug, (self.grid, self.row, self.column)), f"seed{self.seed}")

    @property
    def pair(self) -> Any:
        r"""The pair that its settings name, or the default of :func:`pyro_aevb.fit`."""
        from pyro_aevb.fit import fit

        return self.settings.get("pair", signature(fit).parameters["pair"].default)

    @property
    def title(self) -> str:
        return f"{self.grid} / {self.row} / {self.column}"

    def __str__(self) -> str:
        return f"{self.title} / seed {self.seed}"


@dataclass(frozen=True)
class Grid:
    r"""Trainings: rows times columns times seeds.

    The settings of a cell are `settings`, then those of its row, of its column, and of the cell
    itself; later ones win, and mappings such as ``pair_parameters`` are merged. `smoke` wins over
    all at the smoke scale.

    Arguments:
        name: The name of the grid, which is part of its runs' paths.
        rows: The settings of each row, by name.
        columns: The settings of each column, by name.
        chosen: How these settings were chosen, and on what data; the page says so.
        settings: The settings that all cells have.
        special: The settings of single cells, by row and column; None leaves a cell out.
        scores: Further scorings of each finished run, by name: settings of
            :func:`pyro_aevb.evaluate`, beyond the samples and the seed of the run.
        looks: The epochs after which ``fit`` scores a run besides the last; later ones are left
            out.
        look_scores: The names of the `scores` that are made at every look, and not at the last
            alone.
        smoke: Settings that make a cell a matter of seconds.
        smoke_scores: Settings that make a further scoring a matter of seconds, by its name.
        smoke_rows, smoke_columns: The rows and columns that the smoke scale has; None is all.
        row_title: The head of the column of rows in tables, such as "architecture".
        most_seeds: The most seeds that are run, whatever the command asks for: candidates from
            which a setting is chosen may need one. None is no limit.
        first_seed: The seed of the first of them. Candidates from which a setting is chosen may
            need others than the cells that are reported.
    """

    name: str
    rows: Mapping[str, Settings]
    columns: Mapping[str, Settings]
    chosen: str
    settings: Settings = field(default_factory=dict)
    special: Mapping[Key, Settings | None] = field(default_factory=dict)
    scores: Mapping[str, Settings] = field(default_factory=dict)
    looks: Sequence[int] = ()
    look_scores: Sequence[str] = ()
    smoke: Settings = field(default_factory=dict)
    smoke_scores: Mapping[str, Settings] = field(default_factory=dict)
    smoke_rows: Sequence[str] | None = None
    smoke_columns: Sequence[str] | None = None
    row_title: str = ""
    most_seeds: int | None = None
    first_seed: int = 0

    def __post_init__(self) -> None:
        check_kinds(self, str, "name", "chosen", "row_title")
        check_whole(f"grid {self.name!r}: first_seed", self.first_seed, 0)
        if self.most_seeds is not None:
            check_whole(f"grid {self.name!r}: most_seeds", self.most_seeds, 1)
        mappings = "rows columns settings special scores smoke smoke_scores"
        check_kinds(self, Mapping, *mappings.split())
        for part in (self.rows, self.columns, self.special, self.scores, self.smoke_scores):
            for name, given in part.items():
                if not isinstance(given, Mapping) and (given is not None or part != self.special):
                    raise UsageError(f"grid {self.name!r}: {name!r} is {given!r}, no settings")
        for look in self.looks:
            check_whole(f"grid {self.name!r}: looks", look, 1)
        for row, column in self.special:
            if row not in self.rows or column not in self.columns:
                raise UsageError(f"grid {self.name!r} has no cell ({row!r}, {column!r})")
        if not self.rows or not self.columns or () in (self.smoke_rows, self.smoke_columns):
            raise UsageError(f"grid {self.name!r} has no cells; give it rows and columns")
        for row in self.smoke_rows or ():
            if row not in self.rows:
                raise UsageError(f"grid {self.name!r} has no row {row!r}")
        for column in self.smoke_columns or ():
            if column not in self.columns:
                raise UsageError(f"grid {self.name!r} has no column {column!r}")
        for name in (self.name, *self.rows, *self.columns, *self.scores):
            if not isinstance(name, str) or not slug(name).strip("."):
                raise UsageError(f"{name!r} names no path; use some of A-Z, a-z, 0-9")
        for name in self.scores:
            if "/" in name:
                raise UsageError(f"a scoring is called {name!r}; leave out the slash")
            if name in (FIT, HISTORY):
                raise UsageError(f"a scoring called {name!r} hides what `fit` computes; rename it")
        for what in ("smoke_scores", "look_scores"):
            for name in getattr(self, what):
                if name not in self.scores:
                    raise UsageError(f"{what} has {name!r}, which is none of the scores")

    def keys(self, scale: Scale) -> list[Key]:
        r"""Rows and columns of the cells that there are, in the order of their declaration."""
        whole = scale == "full"
        rows = self.rows if whole or self.smoke_rows is None else self.smoke_rows
        columns = self.columns if whole or self.smoke_columns is None else self.smoke_columns
        keys = [
            (row, column)
            for row in rows
            for column in columns
            if self.special.get((row, column), {}) is not None
        ]
        if not keys:
            raise UsageError(f"grid {self.name!r} has no cells at the {scale} scale")
        return keys

    def check_quantity(self, quantity: str) -> None:
        r"""Refuse a quantity of a scoring that the grid does not have."""
        scoring, slash, _ = quantity.partition("/")
        if scoring not in ((FIT, HISTORY, *self.scores) if slash else OF_RUNS):
            raise UsageError(
                f"no quantity {quantity!r}; there are {', '.join(OF_RUNS)}, {FIT}/METRIC, "
                f"{HISTORY}/COLUMN" + "".join(f", {name}/METRIC" for name in self.scores)
            )

    def seeds(self, asked: int) -> int:
        r"""The number of seeds that it has, of those that are asked for."""
        return min(asked, self.most_seeds or asked)

    def cells(self, scale: Scale, seeds: int) -> list[Cell]:
        r"""The cells, seed by seed, so that a study cut short has whole tables of fewer seeds."""
        cells = []
        short = self.smoke_scores if scale == "smoke" else {}
        scores = {name: merged(given, short.get(name, {})) for name, given in self.scores.items()}
        for seed in range(self.first_seed, self.first_seed + self.seeds(seeds)):
            for row, column in self.keys(scale):
                own = self.special.get((row, column)) or {}
                settings = merged(self.settings, self.rows[row], self.columns[column], own)
                if scale == "smoke":
                    settings = merged(settings, self.smoke)
                epochs = settings.pop("epochs", 0 if "by" in settings else 100)
                check_whole(f"cell {self.name} / {row} / {column}: epochs", epochs, 0)
                looks = (*sorted(e for e in set(self.looks) if e < epochs), epochs)
                asked = (settings, looks, scores, tuple(self.look_scores))
                cells.append(Cell(self.name, row, column, seed, *asked))
        return cells


@dataclass(frozen=True)
class Published:
    r"""What others reported.

    Arguments:
        title: The quantity that the values are of.
        values: The values to compare with, by row and column.
        aside: Values that are shown and not compared with, since they are of something else; the
            remark says of what.
        remarks: What to know about a value, by row and column.
        caveat: What to know about all comparisons with these values.
        tried: What was tried where a value is not met, by row and column.
    """

    title: str
    values: Mapping[Key, float]
    aside: Mapping[Key, float] = field(default_factory=dict)
    remarks: Mapping[Key, str] = field(default_factory=dict)
    tried: Mapping[Key, str] = field(default_factory=dict)
    caveat: str = ""

    def keys(self) -> set[Key]:
        r"""All cells of which something is said."""
        return {*self.values, *self.aside, *self.remarks, *self.tried}

    def __post_init__(self) -> None:
        check_kinds(self, str, "title")
        check_kinds(self, Mapping, "values", "aside", "remarks", "tried")
        for key, value in (*self.values.items(), *self.aside.items()):
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise UsageError(f"{self.title}: {key} is {value!r}; leave out what is no number")
        for key in self.aside:
            if key not in self.remarks or key in self.values:
                raise UsageError(f"{self.title}: {key} is aside; a remark, and no value, says why")


@dataclass(frozen=True)
class Table:
    r"""One number for each row and column of a grid: its mean and spread over seeds.

    Arguments:
        title: The title of the table.
        grid: The name of the grid whose cells it has.
        quantity: ``SCORE/METRIC``, where the score is ``test`` for what ``fit`` computes or one
            of the grid's `scores`, and the metric is a name in ``results.json``;
            ``history/COLUMN``, the last row of ``history.csv``; ``parameters``; or
            ``seconds_per_epoch``.
        published: What others reported of the quantity, to put beside it.
        relative_to: A column; every value is divided by the one of its row and seed there. Times
            of two machines are not.
        lower_is_better: Whether a lower value is the better one.
        places: The number of decimals.
        text: What to read above the table.
        columns: The columns of the grid that it shows; None is all.
        better_half: Of the better half of all values, rounded up: those of the repeats of every
            seed, where a run keeps them, and no others.
    """

    title: str
    grid: str
    quantity: str
    published: Published | None = None
    relative_to: str | None = None
    lower_is_better: bool = False
    places: int = 2
    text: str = ""
    columns: Sequence[str] | None = None
    better_half: bool = False

    def __post_init__(self) -> None:
        check_kinds(self, str, "title", "grid", "quantity", "text")
        check_kinds(self, (Published, type(None)), "published")
        check_kinds(self, bool, "lower_is_better", "better_half")
        check_whole(f"{self.title}: places", self.places, 0)
        if not slug(self.title).strip("."):
            raise UsageError(f"{self.title!r} names no file; use some of A-Z, a-z, 0-9")


@dataclass(frozen=True)
class Figure:
    r"""A picture of cells.

    Arguments:
        name: The name of the file, without its suffix.
        caption: What is seen.
        draw: The function that draws it, see :mod:`pyro_aevb.studies.figures`: called with the
            finished cells, the file, and `grid`, `rows` and `columns` by name. Where there is
            nothing to draw it leaves no file.
        grid: The name of the grid whose cells are drawn.
        rows: The rows to draw; None is all.
        columns: The columns to draw; None is all.
    """

    name: str
    caption: str
    draw: Callable[..., None]
    grid: str
    rows: Sequence[str] | None = None
    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_kinds(self, str, "name", "caption", "grid")
        if slug(self.name) != self.name or not self.name.strip("."):
            raise UsageError(f"a figure is called {self.name!r}; use A-Z, a-z, 0-9, '.' and '-'")


@dataclass(frozen=True)
class Study:
    r"""A comparison: its cells, and what its page shows.

    Arguments:
        title: The title of the page.
        text: What is compared, and with whose figures.
        grids: The trainings.
        tables: The tables, in the order of the page.
        figures: The figures, in the order of the page.
    """

    title: str
    text: str
    grids: Sequence[Grid]
    tables: Sequence[Table]
    figures: Sequence[Figure] = ()

    def __post_init__(self) -> None:
        check_kinds(self, str, "title", "text")
        kinds = (("grids", Grid, "name"), ("tables", Table, "title"), ("figures", Figure, "name"))
        for what, kind, called in kinds:
            check_kinds(self, Sequence, what)
            for part in getattr(self, what):
                if not isinstance(part, kind):
                    raise UsageError(f"{part!r} is no {kind.__name__}; it stands among the {what}")
            names = [getattr(part, called) for part in getattr(self, what)]
            check_once(what, names, [slug(name) for name in names])
        if not self.grids:
            raise UsageError("the study has no grid; give it one")
        for table in self.tables:
            with naming(f"table {table.title!r}"):
                self.grid(table.grid).check_quantity(table.quantity)
                columns = self.grid(table.grid).columns
                check_in(columns, "column", table.relative_to, *(table.columns or ()))
        for figure in self.figures:
            with naming(f"figure {figure.name!r}"):
                check_in(self.grid(figure.grid).rows, "row", *(figure.rows or ()))
                check_in(self.grid(figure.grid).columns, "column", *(figure.columns or ()))
        for published, tables in self.published():
            shown = {key for table in tables for key in self.grid(table.grid).keys("full")}
            for key in published.keys() - shown:
                raise UsageError(f"{published.title}: {key} is no cell of its tables")
        paths: dict[Path, Cell] = {}
        for cell in self.cells("full", 1):
            if paths.setdefault(cell.path, cell) is not cell:
                raise UsageError(f"{cell} and {paths[cell.path]} have one path, {cell.path}")
        found: set[Any] = set()
        for cell in (*self.cells("full", 1), *self.cells("smoke", 1)):
            with naming(f"cell {cell.title}"):
                check_settings(cell.settings, cell.scores)
                check_found(cell.settings, found)

    def published(self) -> list[tuple[Published, list[Table]]]:
        r"""What others reported, each with the tables that show it."""
        tables = [table for table in self.tables if table.published is not None]
        each = {id(table.published): table.published for table in tables}
        return [(p, [t for t in tables if t.published is p]) for p in each.values() if p]

    def grid(self, name: str) -> Grid:
        for grid in self.grids:
            if grid.name == name:
                return grid
        raise UsageError(f"there is no grid {name!r}")

    def cells(self, scale: Scale, seeds: int) -> list[Cell]:
        r"""All cells; the first seed of every grid comes first."""
        cells = [cell for grid in self.grids for cell in grid.cells(scale, seeds)]
        return sorted(cells, key=lambda cell: cell.seed)


def merged(*parts: Settings) -> dict[str, Any]:
    r"""Settings of which later parts win; mappings within them are merged in the same way."""
    whole: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            before = whole.get(name)
            both = isinstance(before, Mapping) and isinstance(value, Mapping)
            whole[name] = {**before, **value} if both else value  # type: ignore[dict-item]
    return whole


def slug(name: str) -> str:
    r"""A name as a part of a path."""
    return re.sub(r"[^A-Za-z0-9.+]+", "-", name).strip("-")
