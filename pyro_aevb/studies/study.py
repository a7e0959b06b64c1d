r"""Regenerate a comparison: ``python -m pyro_aevb.studies NAME``."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pyro_aevb.errors import UsageError, at_least_one, hint
from pyro_aevb.runs.locking import alone
from pyro_aevb.runs.writing import is_part, write_whole

if TYPE_CHECKING:
    from pyro_aevb.studies.declare import Cell, Scale, Study

SHIPPED = (
    "aevb",
    "bayesian_autoencoders",
    "autoencoder_questions",
    "denoising",
    "disentanglement",
)


GROUPS = {
    "What is run": ("scale", "seeds", "only", "page_only"),
    "Where it goes": ("out", "page", "show"),
    "Machine": ("jobs", "backend", "device", "data_root"),
}
r"""The titles of the command's flags."""


@dataclass(frozen=True)
class Outcome:
    r"""What a study came to.

    Arguments:
        page: The path of its page.
        failed: The cells that failed and why, a line each.
        missing: The tables and figures that are not on the page and why, a line each.
    """

    page: Path
    failed: list[str]
    missing: list[str]


# Longer than a screen, as its parameters are the flags of the command.
def study(
    name: str | Sequence[str],
    scale: Literal["smoke", "full"] = "full",
    seeds: int | None = None,
    only: str | None = None,
    jobs: int = 1,
    backend: Literal["loky", "dask", "ray"] = "loky",
    device: str = "auto",
    out: str | None = None,
    page: str | None = None,
    page_only: bool = False,
    data_root: str | None = None,
    show: bool = True,
) -> Outcome:
    r"""Run what is left to do of a study's cells, then write its page.

    Arguments:
        name: aevb, bayesian_autoencoders, autoencoder_questions, denoising, disentanglement, or a
            file that defines STUDY.
        scale: full, or smoke, which runs every kind of cell for seconds, on tiny data.
        seeds: Runs of each cell; default 5, and 1 at the smoke scale.
        only: The cells to run now: a grid, or a pattern of GRID/ROW/COLUMN as they are declared or
            in paths, such as ``protocol/*/VAE``; default all. The page has whatever there is.
        jobs: Cells at a time, each with its part of the cores; -1 is one for each core.
        backend: joblib's: loky (this machine), or dask or ray (a cluster).
        device: auto (an accelerator where there is one), cpu, cuda, cuda:N or xpu.
        out: The study's directory; default runs/NAME-SCALE.
        page: Where the page and its pictures go; default page/ in the study's directory. Cells of a
            page that is there count as finished.
        page_only: Run nothing: write the page from what there is, and say what is left to do.
        data_root: Where data sets lie; default $PYRO_AEVB_DATA, else ~/.cache/pyro_aevb.
        show: Print progress.

    Returns:
        Where the page is, and what failed.
    """

    from pyro_aevb.device import choose_device
    from pyro_aevb.engine.bars import bar as progress_bar
    from pyro_aevb.studies.collect import Collected
    from pyro_aevb.studies.known import CELLS, read_cells, write_cells
    from pyro_aevb.studies.page import write_page
    from pyro_aevb.studies.work import run_cells

    called, declared = find(name)
    if seeds is None:
        seeds = 1 if scale == "smoke" else 5
    at_least_one("--seeds", seeds)
    if jobs < 1 and jobs != -1:
        raise UsageError(f"--jobs is {jobs}; give a number of processes, or -1 for one a core")
    for grid in declared.grids:
        if scale == "smoke" and not grid.smoke:
            raise UsageError(
                f"grid {grid.name!r} has no smoke settings, and would run at full length; give it "
                "some, such as smoke={'data': 'digits', 'epochs': 1}"
            )
    if backend == "loky":  # a cluster's devices are its own
        choose_device(device)
    folder = Path(out or f"runs/{called.removesuffix('.py')}-{scale}").resolve()
    _claim(folder, called, scale)
    pages = Path(page) if page else folder / "page"
    pages.mkdir(parents=True, exist_ok=True)
    if not os.access(pages, os.W_OK):
        raise UsageError(f"no permission to write in {pages}; choose another --page")
    root = data_root and str(Path(os.path.expanduser(data_root)).resolve())

    def collected() -> Collected:
        earlier = read_cells(cells, called, scale)
        return Collected(declared, scale, seeds, folder, root, earlier)

    cells = pages / called.removesuffix(".py") / CELLS
    before = collected()
    if before.elsewhere and show:
        print(
            f"{len(before.elsewhere)} cells are known from {cells} alone; to run them again, "
            "remove their lines there",
            file=sys.stderr,
        )
    chosen = [cell for cell in before.cells if only is None or _matches(cell, only)]
    if not chosen:
        names = [_name(cell) for cell in before.cells]
        near, grids = hint(only, names, "{}", 0.0), ", ".join(grid.name for grid in declared.grids)
        raise UsageError(
            f"--only {only} matches no cell; they have names such as {near}, "
            f"and the grids are {grids}"
        )
    unfinished = {cell.path for cell, _ in before.unfinished}
    todo = [cell for cell in chosen if cell.path in unfinished and not page_only]
    failed: list[str] = []
    if backend == "loky":  # a cluster's data are its own
        _check_data(todo, root)
    if todo:
        write_cells(cells, called, scale, before.finished_here())
    with (
        alone(
            folder / "study.lock",
            f"another command is running cells in {folder}; wait for it or choose another --out",
        )
        if todo
        else nullcontext(),
        progress_bar(
            total=len(chosen),
            initial=len(chosen) - len(todo),
            disable=not show or page_only,
            unit="cell",
            desc=called,
        ) as bar,
    ):
        try:
            for cell, why in run_cells(todo, folder, device, root, jobs, backend):
                bar.update()
                if why is not None:
                    failed.append(f"{cell}: {why}")
                    bar.write(f"failed: {failed[-1]}", file=sys.stderr)
                elif (why := _keep(cell, folder, cells, called, scale)) is not None:
                    bar.write(f"{cell} is finished, not yet on the page: {why}", file=sys.stderr)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"the same command goes on from here; what there is lies in {folder}"
            ) from None
    after = collected()
    written, missing = write_page(after, called, pages)
    for line in missing:
        print(f"not shown: {line}", file=sys.stderr)
    if show and page_only:
        print("\n".join(after.progress()))
    if show:
        print(f"page {written}")
        if failed:
            print(f"{len(failed)} of {len(chosen)} cells failed; the page names them")
    return Outcome(written, failed, missing)


def find(name: str | Sequence[str]) -> "tuple[str, Study]":
    r"""A study by its name or its file.

    Returns:
        What to call it, with the suffix of a file, and what it declares.

    Raises:
        UsageError: There is no such study.
    """
    from pyro_aevb.studies.declare import Study

    called, found = declarations(name, "STUDY")
    if not isinstance(found, Study):
        raise UsageError(f"STUDY in {called} is a {type(found).__name__}, not a Study")
    return called, found


def declarations(name: str | Sequence[str], what: str) -> tuple[str, Any]:
    r"""What a study's file defines under a name, ``STUDY`` or ``SEARCH``; and what to call it.

    Raises:
        UsageError: There is no such study, or no such name in it.
    """
    from pyro_aevb.pairs.locate import locate

    if not isinstance(name, str):
        if len(name) != 1:
            raise UsageError(f"give one study, not {len(name)}")
        name = name[0]
    if name in SHIPPED:
        return name, locate(f"pyro_aevb.studies.shipped.{name}:{what}")[0]
    if not name.endswith(".py"):
        raise UsageError(
            f"no study {name!r}{hint(name, SHIPPED)}: there are {', '.join(SHIPPED)}; your own is "
            f"a .py file with {what}"
        )
    return Path(name).name, locate(f"{name}:{what}")[0]


def _check_data(cells: "list[Cell]", root: str | None) -> None:
    r"""Refuse data sets that cannot be had, before hours are spent on others."""
    import pyro_aevb
    from pyro_aevb.data import load

    default = signature(pyro_aevb.fit).parameters["data"].default
    needed: dict[str, Cell] = {}
    for cell in cells:
        needed.setdefault(cell.settings.get("data", default), cell)
    for name, cell in needed.items():
        try:
            load(name, root)
        except UsageError as error:
            raise UsageError(
                f"{error}; {_name(cell)} needs it, and --only can leave it out"
            ) from None


def _name(cell: "Cell") -> str:
    return cell.path.parent.relative_to("cells").as_posix()


def _matches(cell: "Cell", only: str) -> bool:
    r"""Whether a pattern is of a cell: of its path, or of its names as they are declared."""
    declared = f"{cell.grid}/{cell.row}/{cell.column}"
    return only == cell.grid or any(fnmatchcase(name, only) for name in (_name(cell), declared))


def _keep(cell: "Cell", folder: Path, cells: Path, study: str, scale: "Scale") -> str | None:
    r"""Put a finished cell on the page at once, whatever becomes of the others and of the machine.

    Returns:
        Why it cannot be put there, if so: the end of the command tries it again.
    """
    from pyro_aevb.runs.run import Run
    from pyro_aevb.studies.cell import Record
    from pyro_aevb.studies.known import Known, write_cells

    try:
        record = Record.of(cell, folder)
        if record.missing(cell, folder):
            return f"its record is not in {folder} yet"
        known = Known.of(record, Run(folder / cell.path))
        write_cells(cells, study, scale, {cell.path: known})
    except (OSError, UsageError) as error:
        return str(error)
    return None


def _claim(folder: Path, name: str, scale: str) -> None:
    r"""See to it that a directory holds one study at one scale."""
    path, asked = folder / "study.json", {"study": name, "scale": scale}
    if path.is_file():
        try:
            there = json.loads(path.read_text("utf-8"))
            there["study"], there["scale"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is damaged; it should be {json.dumps(asked)}") from error
        if there != asked:
            raise UsageError(
                f"{folder} holds the study {there['study']} at the scale {there['scale']}; choose "
                "another --out"
            )
        return
    begun = folder.is_dir() and all(is_part(one.name, path.name) for one in folder.iterdir())
    if folder.exists() and not begun:
        raise UsageError(f"{folder} exists and is not a study; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asked) + "\n")
