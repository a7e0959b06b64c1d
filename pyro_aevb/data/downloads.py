r"""What is not on disk: torchvision's downloads, quiet and bounded in time, or a clear line."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pyro_aevb.errors import UsageError

TIMEOUT = 20.0
r"""Seconds without an answer after which a download counts as failed."""

# what making a folder or writing a file there may answer; a network's answers are others
_NO_WRITING = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT),
    *(errno.ENOTDIR, errno.EEXIST, errno.ENOSPC),
}

logger = logging.getLogger(__name__)


def package(module: str, name: str) -> ModuleType:
    r"""Import a module that only the data set `name` needs.

    Raises:
        UsageError: If it does not import.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # torchvision beside another build of torch: RuntimeError and others
        library = module.partition(".")[0]
        library = {"sklearn": "scikit-learn", "skimage": "scikit-image"}.get(library, library)
        remedy = f"pip install {library}"
        if library == "torchvision":
            remedy = "install torch and torchvision from the same package index"
        raise UsageError(f"{name} needs {library}: {_last_line(error)}; {remedy}") from error


def torchvision_set(name: str, kind: str, root: Path, place: Path, **options: Any) -> Any:
    r"""Make one of torchvision's data sets, downloaded to `root` if it is not there.

    Arguments:
        name: What the set is called here.
        kind: Its class in ``torchvision.datasets``.
        root: torchvision's root.
        place: Where in `root` torchvision keeps the set.
        options: The other arguments of the class.

    Raises:
        UsageError: If it is neither on disk nor to be downloaded, or `root` is not writable.
    """
    create = getattr(package("torchvision.datasets", name), kind)
    logger.info("looking for %s in %s, downloading it if it is not there", name, place)
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    try:
        with _quietly():
            return create(root, download=True, **options)
    except Exception as error:  # whatever a network, a mirror or an archive may come up with
        for folder in made:
            # leave no empty folders behind
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and error.errno in _NO_WRITING:
            raise UsageError(
                f"{name} is not in {place} and cannot be downloaded to {root}"
                f" ({error.strerror}); choose a data root that can be written to"
            ) from error
        raise absent(name, place, f"the download failed ({_last_line(error)})") from error


def absent(name: str, place: Path, why: str) -> UsageError:
    r"""The error of a data set that is not in `place`, and why it was not downloaded either."""
    return UsageError(
        f"{name} is not (or not intact) in {place}, and {why};"
        " the sets mnist5k and digits need no download"
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _last_line(error: Exception) -> str:
    # torchvision's own message has a line for each mirror it tried
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()
