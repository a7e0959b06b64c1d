r"""Score a run again, more thoroughly: ``python -m pyro_aevb.evaluate RUN``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pyro_aevb.runs import Run


def evaluate(
    run: "str | Path | Run | Sequence[str]",
    num_samples: int = 5000,
    weight_samples: int = 10,
    num_data: int | None = None,
    memory: int | None = None,
    compile: Literal["auto", "on", "off"] = "auto",
    seed: int = 0,
    device: str = "auto",
    data_root: str | None = None,
    show: bool = True,
    pair: Any = None,
    data: Any = None,
) -> dict[str, Any]:
    r"""Score the test split with a run's trained pair; replaces its results and figures.

    Arguments:
        run: The run's directory.
        num_samples: K, importance samples per datum.
        weight_samples: S, draws of global latents.
        num_data: Score only the first n test data.
        memory: Budget of scoring in MiB; changes speed only.
        compile: Capture what is run over and over and compile it: on, off, or auto, which decides
            by the work ahead and notes it if it cannot.
        seed: Of the draws.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
        data_root: Where data sets lie; default the run's.
        show: Print progress and the table.
        pair: The pair, if the run was trained from a Python object.
        data: The data set, if the run was trained on a Python object.

    Returns:
        What ``results.json`` holds; of several processes under torchrun, in the first.
    """
    from pyro_aevb.assessment import assess
    from pyro_aevb.preparation import restore
    from pyro_aevb.report import show_results
    from pyro_aevb.runs import only_run
    from pyro_aevb.training.parallel import processes

    with processes(device) as group:
        opened = only_run(run)
        prepared = restore(opened, group.device, data_root, pair, data)
        show = show and group.rank == 0
        drawn = (num_samples, weight_samples, num_data, seed, memory)
        results = assess(opened, prepared, *drawn, show, compile, group)
        if show:
            show_results(results)
        return results


if __name__ == "__main__":
    from pyro_aevb.cli import run_command

    run_command(evaluate, positional="run", hidden=("pair", "data"))
