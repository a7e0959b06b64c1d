r"""Where results come from: version, commit, command, date, seeds and seconds."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_aevb.runs.run import Run

_COMMAND: ContextVar[str | None] = ContextVar("command", default=None)


@contextmanager
def called_as(command: str) -> Iterator[None]:
    r"""Results that are written inside come from this command line."""
    token = _COMMAND.set(command)
    try:
        yield
    finally:
        _COMMAND.reset(token)


def provenance(run: "Run", num_train: int, seed: int, seconds: float) -> dict[str, Any]:
    r"""What ``results.json`` says of where it comes from.

    Arguments:
        run: The trained run.
        num_train: The number of data in an epoch.
        seed: Of the draws of scoring.
        seconds: How long scoring took.

    Returns:
        ``version`` of the package and the ``commit`` that it is of, None where that is not known;
        ``command``, of calls from Python the script; ``date`` (UTC); ``seeds`` and ``seconds`` of
        ``training``, its epochs without validation, and of ``scoring``.
    """
    from pyro_aevb import __version__

    trained = float(run.clock(num_train)[-1]) if run.history else 0.0
    return {
        "version": __version__,
        "commit": commit(),
        "command": _COMMAND.get() or _script(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": {"training": run.settings.get("seed", 0), "scoring": seed},
        "seconds": {"training": round(trained, 3), "scoring": round(seconds, 3)},
    }


@functools.cache
def commit() -> str | None:
    r"""The commit of the package: of its checkout, or that it was installed from by pip."""
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        words = ["git", "-C", str(root), "rev-parse", "HEAD"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=5, check=True)
        except (OSError, subprocess.SubprocessError):  # no git, or somebody else's checkout
            return None
        return done.stdout.strip()
    try:
        installed = distribution("pyro_aevb").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    stated: Mapping[str, Any] = json.loads(installed or "{}")
    found: str | None = stated.get("vcs_info", {}).get("commit_id")
    return found


def _script() -> str:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return f"python {Path(file).name}" if file else "Python"
