r"""Move through a run's codes in a browser: ``python -m pyro_aevb.explore RUN``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_aevb.keywords import with_known_keywords

if TYPE_CHECKING:
    from pyro_aevb.runs.run import Run


@with_known_keywords
def explore(
    run: "str | Path | Run | Sequence[str]",
    port: int = 0,
    address: str = "localhost",
    no_browser: bool = False,
    pair: Any = None,
    data: Any = None,
    data_root: str | None = None,
    device: str = "auto",
    trust: bool = False,
) -> None:
    r"""Serve a page with a slider for each direction in which a run's codes vary, until Ctrl-C.

    The page shows the decoded datum beside log p(z), walks between two test data, and the posterior
    of a test datum; of a classifier its probabilities. It needs panel (pip install panel), and
    fetches nothing from elsewhere.

    Arguments:
        run: The run's directory.
        port: Where the page is served; 0 is any port that is free.
        address: Where it listens; localhost is this machine alone, 0.0.0.0 all its networks.
        no_browser: Only say where the page is.
        pair: The pair, in place of what the settings name, if its file has moved, or it was given
            as a Python object.
        data: The data, in place of what the settings name.
        data_root: Where data sets lie; default the run's.
        device: auto (an accelerator where there is one), cpu, cuda, cuda:N or xpu.
        trust: Run the code that the run's settings name, wherever it comes from.
    """
    from pyro_aevb.explorer.page import page
    from pyro_aevb.explorer.server import found, serve
    from pyro_aevb.runs.run import only_run

    found()
    opened = only_run(run)
    if opened.held is None or pair is not None or data is not None:
        opened.restore(pair, data, trust, device, data_root)
    page(opened.prepared)  # what is wrong is said here, and not in a browser
    serve(
        lambda: page(opened.prepared),
        f"{opened.pair.name}: codes",
        address,
        port,
        no_browser,
        lambda place: print(f"{place} shows {opened.path}; Ctrl-C ends it", flush=True),
    )


if __name__ == "__main__":
    from pyro_aevb.cli import run_command

    run_command(explore, positional="run")
