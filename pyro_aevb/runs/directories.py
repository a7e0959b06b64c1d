r"""Where a run is: a directory that is new, is a run already, or was one about to begin."""

import os
import re
from pathlib import Path

from pyro_aevb.errors import UsageError
from pyro_aevb.runs.writing import is_part

SETTINGS, LOCK = "settings.yaml", "training.lock"


def directory(path: str | Path | None, name: str, resume: bool) -> Path:
    r"""The directory of a new run, or of one to be resumed; nothing is written yet.

    Arguments:
        path: The directory; None is ``runs/NAME``, numbered where that is taken.
        name: The name of the run, for the default path.
        resume: Whether the directory must already be a run.

    Raises:
        UsageError: It exists and is not a run, or is one and `resume` is false; or the reverse. One
            that a run was ended in before its first file is as good as empty, and with `resume` the
            run begins in it.
    """
    if path is None:
        if resume:
            raise UsageError("--resume needs to know which run: give --out RUN")
        # A file's name may hold a path, which would lead out of the folder.
        name = "-".join(part for part in re.split(r"[/\\:]+", name) if part.strip("."))
        path = Path("runs") / name
        number = 2
        while path.exists() and not _unborn(path):
            path = Path("runs") / f"{name}-{number}"
            number += 1
    path = Path(path)
    is_run = (path / SETTINGS).is_file()
    unborn = not is_run and _unborn(path)
    if path.exists() and not is_run and not unborn:
        raise UsageError(f"{path} exists and is not a run; choose another --out")
    if resume and not is_run and not unborn:
        raise UsageError(f"{path} is not a run (no {SETTINGS} in it), so it cannot be resumed")
    if is_run and not resume:
        raise UsageError(f"{path} already holds a run; add --resume, or choose another --out")
    parent = path
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        raise UsageError(f"no permission to write in {parent}; choose another --out")
    return path


def _unborn(path: Path) -> bool:
    r"""Whether a directory is one whose run ended before it wrote its first file."""
    if not path.is_dir():
        return False
    names = [entry.name for entry in path.iterdir()]
    return all(name == LOCK or is_part(name, SETTINGS) for name in names)
