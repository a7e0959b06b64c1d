r"""Choose settings on validation data: ``python -m pyro_aevb.studies.search NAME``.

Each method of a study has, on each data set, a fixed number of trials: settings that are drawn at
random from its space, all with the same share of the time. They are compared by *successive
halving*: all are trained on a part of the training data, the better third of them on three times
as many, and so on up to all of them. The winner has the lowest validation error there; of equal
ones it is the simplest, that with the fewest parameters.

No test data are looked at: the validation data stand in for them. A study reads the file of trials,
one line of JSON each, and takes settings from a search alone that has come to all training data.

References:
    | Non-stochastic Best Arm Identification and Hyperparameter Optimization
      (Jamieson and Talwalkar, 2016)
    | https://proceedings.mlr.press/v51/jamieson16.html
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.data.sets import load
from pyro_aevb.data.split import DataSet
from pyro_aevb.errors import UsageError, at_least_one, hint
from pyro_aevb.runs.locking import in_turn
from pyro_aevb.runs.writing import write_whole
from pyro_aevb.threads import as_given

KEEP = 3
r"""One trial in so many goes on to the next rung, which has so many times the data."""

Draw = Callable[[np.random.Generator, str], dict[str, Any] | None]


@dataclass(frozen=True)
class Search:
    r"""What is searched.

    Arguments:
        methods: By name, what draws the settings of one trial of a method, from a generator and
            the name of the set; None where something has to be searched before.
        data: By name of a data set, the numbers of training data of the rungs, rising.
        trials: How many trials each method has on each set.
        minutes: How long they may take in all, of a processor's time, which other work on the
            machine does not change. No trial begins on a rung whose share, of equal ones, is over,
            but for its first :data:`KEEP`; the file says how many there were.
        path: The file of trials that its study reads; None is ``trials.jsonl`` in the folder of the
            runs.
    """

    methods: Mapping[str, Draw]
    data: Mapping[str, Sequence[int]]
    trials: int
    minutes: float
    path: Path | None = None


@dataclass(frozen=True)
class Trial:
    r"""One trial on one rung.

    Arguments:
        data, method: What was trained on, and how.
        number: Of the trial, from 0.
        num_train: Training data of the rung.
        settings: What was drawn.
        validation_error: In per cent.
        num_valid: Of so many data.
        parameters: How many numbers the classifier has.
        seconds: What it took of a processor's time.
        machine: The processor.
    """

    data: str
    method: str
    number: int
    num_train: int
    settings: dict[str, Any]
    validation_error: float
    num_valid: int
    parameters: int
    seconds: float
    machine: str

    @property
    def interval(self) -> tuple[float, float]:
        r"""Wilson's of 95 per cent for the error, in per cent; it has a width of no errors too."""
        from scipy.stats import binomtest

        wrong = round(self.validation_error / 100 * self.num_valid)
        low, high = binomtest(wrong, self.num_valid).proportion_ci(method="wilson")
        return 100 * float(low), 100 * float(high)


def read_trials(path: Path) -> list[Trial]:
    r"""The trials of a file; none where there is no file.

    Raises:
        UsageError: The file is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [Trial(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is damaged: {error}") from error


def winner(trials: Sequence[Trial], data: str, method: str) -> Trial | None:
    r"""The best of a method on a set, on the last rung that it has; None before there are any."""
    own = [trial for trial in trials if (trial.data, trial.method) == (data, method)]
    if not own:
        return None
    most = max(trial.num_train for trial in own)
    last = [trial for trial in own if trial.num_train == most]
    return min(last, key=lambda t: (t.validation_error, t.parameters, t.number))


def run_search(
    search: Search,
    path: Path,
    out: Path,
    only: str = "*",
    data_root: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    r"""Run the trials that are left to do, and add each to the file as it ends.

    Arguments:
        search: What is searched.
        path: The file of trials.
        out: The folder for the runs of trials that were interrupted; others are removed.
        only: A pattern of SET/METHOD.
        data_root: Where data sets lie.
        say: Told what is done, and what has won.
    """
    names = [f"{data}/{method}" for data in search.data for method in search.methods]
    if not any(fnmatchcase(name, only) for name in names):
        raise UsageError(f"--only {only} matches no search{hint(only, names)}")
    for data, rungs in search.data.items():
        for method, draw in search.methods.items():
            if not fnmatchcase(f"{data}/{method}", only):
                continue
            _halve(search, data, method, draw, rungs, path, out, data_root, say)
            if (best := winner(trials := read_trials(path), data, method)) is not None:
                own = [t for t in trials if (t.data, t.method) == (data, method)]
                say(_won(best, own))


def _won(best: Trial, trials: Sequence[Trial]) -> str:
    r"""The best of the trials of a method on a set, in a line."""
    minutes, (low, high) = sum(trial.seconds for trial in trials) / 60, best.interval
    return (
        f"{best.data}/{best.method}: validation error {best.validation_error:.2f} % (95 % interval "
        f"{low:.2f} to {high:.2f}) of trial {best.number} on {best.num_train:,}, the best of "
        f"{len({trial.number for trial in trials})} trials in {minutes:.1f} minutes"
    )


def _halve(
    search: Search,
    data: str,
    method: str,
    draw: Draw,
    rungs: Sequence[int],
    path: Path,
    out: Path,
    data_root: str | None,
    say: Callable[[str], None],
) -> None:
    # Of the same number for all methods: what two have in common, their trials share.
    drawn = [draw(np.random.default_rng(number), data) for number in range(search.trials)]
    if None in drawn:
        say(f"{data}/{method} waits for the search that it builds upon")
        return
    going = list(range(search.trials))
    whole = load(data, data_root)
    for num_train in rungs:
        done = {
            trial.number: trial
            for trial in read_trials(path)
            if (trial.data, trial.method, trial.num_train) == (data, method, num_train)
        }
        for number, trial in done.items():
            if number < search.trials and _plain(drawn[number]) != trial.settings:
                raise UsageError(
                    f"{path}: trial {number} of {data}/{method} has settings that its space does "
                    "not draw any more; remove the lines of this search, which is another now"
                )
        share = 60 * search.minutes / len(rungs)
        for place, number in enumerate(going):
            spent = sum(trial.seconds for trial in done.values())
            if number in done or (spent >= share and place >= KEEP):
                continue
            where = out / data / method / f"{number}-{num_train}"
            trial = _try(whole, method, number, num_train, _plain(drawn[number]), where)
            with in_turn(path.with_name(path.name + ".lock")):
                lines = path.read_text("utf-8") if path.is_file() else ""
                write_whole(path, lines + json.dumps(asdict(trial)) + "\n")
            done[number] = trial
            say(
                f"{data}/{method}, trial {number} on {num_train:,}: "
                f"{trial.validation_error:.2f} % of {trial.num_valid:,} ({trial.seconds:.0f} s)"
            )
        known = sorted(done.values(), key=lambda t: (t.validation_error, t.parameters, t.number))
        going = [trial.number for trial in known[: max(1, len(known) // KEEP)]]


def _plain(settings: Any) -> Any:
    r"""Settings as the file of trials has them."""
    return json.loads(json.dumps(settings))


def _try(
    whole: DataSet, method: str, number: int, num_train: int, settings: dict[str, Any], out: Path
) -> Trial:
    import shutil

    from pyro_aevb.reports.assess import processor
    from pyro_aevb.studies.work import called

    few = whole.train.subset(slice(num_train))
    # The validation data in the place of the test data, which a search must not see.
    data = replace(whole, train=few, test=whole.valid)
    began = time.process_time()
    given = {name: value for name, value in settings.items() if name != "by"}
    resume = (out / "settings.yaml").is_file()
    with as_given():
        run = called(settings)(data=data, out=str(out), resume=resume, show=False, **given)
    seconds, results = time.process_time() - began, run.results
    shutil.rmtree(out, ignore_errors=True)
    return Trial(
        whole.name,
        method,
        number,
        num_train,
        settings,
        results["metrics"]["classification_error"]["value"],
        results.get("num_data", len(whole.valid)),
        results["parameters"],
        round(seconds, 1),
        processor(),
    )


def search(
    name: str | Sequence[str],
    only: str = "*",
    trials: int | None = None,
    minutes: float | None = None,
    out: str | None = None,
    trials_file: str | None = None,
    data_root: str | None = None,
) -> list[Trial]:
    r"""Search the settings of a study's methods on validation data.

    Arguments:
        name: denoising, or a file that defines SEARCH.
        only: The searches to run now, a pattern of SET/METHOD such as ``'convex/*'``.
        trials: Of each method on each set; default as the study says.
        minutes: Of each method on each set; default as the study says.
        out: The folder for runs that are under way; default runs/NAME-search.
        trials_file: The file of trials; default the one that the study reads, of denoising that of
            the package, or where `out` is given ``trials.jsonl`` there.
        data_root: Where data sets lie; default $PYRO_AEVB_DATA, else ~/.cache/pyro_aevb.

    Returns:
        All trials that are in the file.
    """
    from pyro_aevb.studies.study import declarations

    called, declared = declarations(name, "SEARCH")
    asked = {"trials": trials, "minutes": minutes}
    at_least_one("--trials", trials)
    declared = replace(declared, **{k: v for k, v in asked.items() if v is not None})
    folder = Path(out or f"runs/{called.removesuffix('.py')}-search")
    own = folder / "trials.jsonl" if out or declared.path is None else declared.path
    path = Path(trials_file) if trials_file else own
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"no permission to write {path}; choose another --trials-file")
    run_search(declared, path, folder, only, data_root, lambda said: print(said, flush=True))
    return read_trials(path)


def not_searched(search: str, name: str = "denoising", **call: Any) -> None:
    r"""What makes a cell whose settings nobody has searched yet: it says so, and what to run."""
    raise UsageError(
        f"no settings were searched: python -m pyro_aevb.studies.search {name} --only '{search}'"
    )


if __name__ == "__main__":
    from pyro_aevb.cli import run_command

    run_command(search, positional="name", command="studies.search")
    sys.exit(0)
