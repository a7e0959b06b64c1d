r"""Run the cells of a study: one by one, or several at a time by joblib."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pyro_aevb.errors import UsageError
from pyro_aevb.runs.settings import SCORING
from pyro_aevb.studies.cell import SECTIONS, Record, failure, note_failure
from pyro_aevb.studies.declare import FIT, Cell, Settings, merged
from pyro_aevb.threads import as_given

Backend = Literal["loky", "dask", "ray"]

SHARED = (*SCORING, "matmul_precision", "seed")
r"""Settings of a cell's ``fit`` that its further scorings take over."""

STARTED = "started and not finished: it is running now, or was stopped"
r"""What a cell's file of failure says from its start to its end."""

DIED = "its process died while it ran (out of memory?)"

_TURN = threading.Lock()
r"""Held while a cell runs: a worker of a cluster may have threads, which share Pyro's state."""

_WATCHED = threading.Event()
r"""Set once this process ends with its parent."""

Outcome = tuple[Cell, str | None]
r"""A cell, and why it failed if it did."""


def work(
    cell: Cell,
    out: Path,
    device: str = "auto",
    data_root: str | None = None,
    threads: int = 0,
    parent: int = 0,
) -> Outcome:
    r"""Train and score a cell, as far as that is still to do.

    Arguments:
        cell: The cell.
        out: The study's directory.
        device: The device to run it on: auto, cpu, cuda or cuda:N.
        data_root: Where data sets lie.
        threads: The number of torch's threads on a CPU; 0 leaves it as it is.
        parent: The id of the process that this one is to end with; 0 for none.

    Returns:
        The cell, and why it failed in one line, which is kept in `out` too, or None.
    """
    import torch
    from tqdm import tqdm

    if parent and not _WATCHED.is_set():
        _WATCHED.set()
        _end_with(parent)
    if threads:
        torch.set_num_threads(threads)
        # tqdm's own is shared among processes, and left behind if this one is killed
        tqdm.set_lock(threading.RLock())
    with _TURN, as_given():
        note_failure(cell, out, STARTED)
        try:
            _work(cell, out, device, data_root)
        except Exception as error:  # whatever it is, other cells go on
            note_failure(cell, out, error)
            return cell, failure(cell, out)
        except KeyboardInterrupt:
            note_failure(cell, out, "interrupted")
            raise
        note_failure(cell, out, None)
    return cell, None


def _work(cell: Cell, out: Path, device: str, data_root: str | None) -> None:
    import pyro_aevb
    from pyro_aevb.reports.assess import processor
    from pyro_aevb.runs.run import Run

    where: dict[str, Any] = {"device": device, "data_root": data_root}
    record = Record.of(cell, out)
    record.machine = f"{processor()}, {os.cpu_count()} cores"
    record.write(cell, out)  # before the run: what it was asked for is known if it is interrupted
    for epochs, name in record.missing(cell, out):
        began = time.perf_counter()
        run = Run(out / cell.path)
        if name == FIT:
            given = {name: value for name, value in cell.settings.items() if name != "by"}
            run = called(cell.settings)(
                **given,
                **where,
                epochs=cell.looks[-1],
                stop_after=epochs,
                seed=cell.seed,
                out=str(run.path),
                resume=(run.path / "settings.yaml").is_file(),
                show=False,
            )
            results = run.results
        else:
            drawn = {key: cell.settings[key] for key in SHARED if key in cell.settings}
            asked = merged({"seed": cell.seed}, drawn, cell.scores[name])
            copy = _beside(run, name, record.looks[str(epochs)][FIT])
            # The study names the pair, not the settings that lie in the directory.
            asked = {"pair": cell.pair, **asked}
            results = pyro_aevb.evaluate(copy, **asked, **where, show=False)
        record.looks.setdefault(str(epochs), {})[name] = results
        record.seconds += time.perf_counter() - began
        record.write(cell, out)


def called(settings: Settings) -> Callable[..., Any]:
    r"""What makes a cell's run: the function that its setting ``by`` names, else ``fit``.

    Raises:
        UsageError: There is no such function.
    """
    import pyro_aevb

    if "by" not in settings:
        return pyro_aevb.fit
    module, _, name = str(settings["by"]).partition(":")
    try:
        found: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"'by' is {settings['by']!r}, and is to be module:function: {error}"
        ) from error
    return found


def _beside(run: Any, name: str, results: dict[str, Any]) -> Any:
    r"""A run that is here already, with what ``fit`` found alone, to be scored in another way.

    Its checkpoint is the same file under a second name where the file system allows it: a run
    replaces its files, and writes into none.
    """
    from pyro_aevb.runs.run import Run
    from pyro_aevb.runs.scored import ARRAYS

    path = run.path.with_name(f"{run.path.name}-{name}")
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(run.path, path, copy_function=_same)
    copy = Run(path)
    known = copy.digests()
    if known is not None and results.get(ARRAYS) != known[0]:
        copy.arrays.unlink(missing_ok=True)  # of what was scored by hand since
        results = {key: value for key, value in results.items() if key != ARRAYS}
    copy.write_results({key: value for key, value in results.items() if key not in SECTIONS})
    return copy


def _same(file: str, name: str) -> None:
    if file.endswith(".pt"):
        try:
            os.link(file, name)
            return
        except OSError:  # a file system without hard links
            pass
    shutil.copy2(file, name)


def _end_with(parent: int) -> None:
    r"""End this process when its parent has: a killed command leaves no workers behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    device: str,
    data_root: str | None,
    jobs: int,
    backend: Backend,
) -> Iterator[Outcome]:
    r"""Run cells, and yield the outcome of each as it ends.

    With ``loky`` and one job they run in this process, otherwise in processes of their own, which
    share its threads. ``dask`` and ``ray`` run them on a cluster whose workers see the study's
    directory: the one that the environment names (``DASK_SCHEDULER_ADDRESS``, ``RAY_ADDRESS``), or
    else one that is started here.

    Arguments:
        cells: The cells to run.
        out: The study's directory.
        device, data_root: See :func:`work`.
        jobs: The number of cells at a time; -1 is one for each core.
        backend: The name of joblib's backend that runs them.

    Raises:
        UsageError: The backend is not installed.
    """
    import torch
    from joblib import Parallel, delayed, effective_n_jobs

    if backend == "loky" and jobs == 1:
        for cell in cells:
            yield work(cell, out, device, data_root)
        return
    local = backend == "loky"
    parent = os.getpid() if local else 0
    threads = max(1, torch.get_num_threads() // effective_n_jobs(jobs)) if local else 0
    for cell in cells:
        if failure(cell, out) == STARTED:  # by a command that was killed
            note_failure(cell, out, None)
    rest = list(cells)
    with _cluster(backend, jobs):
        while rest:
            # joblib's Ray backend hands over nothing before everything is there.
            how = "list" if backend == "ray" else "generator_unordered"
            parallel = Parallel(jobs, batch_size=1, pre_dispatch="all", return_as=how)
            try:
                tasks = [delayed(work)(c, out, device, data_root, threads, parent) for c in rest]
                for cell, failed in parallel(tasks):
                    rest.remove(cell)
                    yield cell, failed
            except BrokenProcessPool:
                died = [cell for cell in rest if failure(cell, out) == STARTED]
                if not died:
                    raise
                for cell in died:  # it resumes with the next start
                    note_failure(cell, out, DIED)
                    rest.remove(cell)
                    yield cell, DIED


@contextmanager
def _cluster(backend: Backend, jobs: int) -> Iterator[None]:
    from joblib import effective_n_jobs, parallel_config

    try:
        if backend == "dask":
            from distributed import Client
        elif backend == "ray":
            from ray.util.joblib import register_ray
    except ImportError as error:
        raise UsageError(
            f"--backend {backend} needs the package {backend}: pip install 'pyro_aevb[studies]'"
        ) from error
    if backend == "loky":
        yield
    elif backend == "ray":
        register_ray()
        with parallel_config("ray"):
            yield
    else:
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        here: dict[str, Any] = {"n_workers": effective_n_jobs(jobs), "threads_per_worker": 1}
        with Client(address) if address else Client(**here, dashboard_address=None):
            with parallel_config("dask"):
                yield
