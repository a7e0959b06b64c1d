r"""A run as one page: ``python -m pyro_aevb.report RUN``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_aevb.errors import UsageError
from pyro_aevb.keywords import with_known_keywords

if TYPE_CHECKING:
    from pyro_aevb.runs.run import Run

FILE = "report.html"


@with_known_keywords
def report(
    run: "str | Path | Run | Sequence[str]", out: str | None = None, show: bool = True
) -> Path:
    r"""Write a run as one file of HTML: its results, figures, settings and commands.

    It is made of the files of the run alone: no code of the pair runs, and no data are needed. The
    page holds its figures and fetches nothing, so that it can be sent and kept.

    Arguments:
        run: The run's directory.
        out: The file to write; default report.html in the run's directory.
        show: Print where it is.

    Returns:
        The path of the file.
    """
    from pyro_aevb.reports.page import page_of
    from pyro_aevb.runs.run import only_run
    from pyro_aevb.runs.writing import write_where_asked

    opened = only_run(run)
    path = opened.path / FILE if out is None else Path(out)
    if path.is_dir():
        raise UsageError(f"--out {path} is a directory; name a file, such as {path / FILE}")
    text = page_of(opened)
    write_where_asked(path, text)
    if show:
        print(f"report {path}")
    return path


if __name__ == "__main__":
    from pyro_aevb.cli import run_command

    run_command(report, positional="run")
