r"""A run: a directory that holds everything about one training, read and written here alone.

``settings.yaml`` (everything resolved; fed back with ``--config`` it reproduces the run),
``checkpoint.pt``, ``history.csv``, ``results.json``, ``results.nc`` (ArviZ) and ``figures/``.
Results of another split than the test split are in the section ``splits`` of ``results.json``, and
their per-datum values in ``results-SPLIT.nc``.
"""

import copy
import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from pyro_aevb.data.naming import SPLITS, TEST
from pyro_aevb.errors import UsageError, hint, one_of
from pyro_aevb.estimators import IMPORTANCE
from pyro_aevb.runs import earlier
from pyro_aevb.runs.directories import LOCK, SETTINGS, directory
from pyro_aevb.runs.locking import alone, in_turn
from pyro_aevb.runs.results import (
    alike,
    beside,
    check_results,
    finite,
    of_same_pair,
    with_estimator,
)
from pyro_aevb.runs.settings import check_settings, read_settings
from pyro_aevb.runs.writing import is_signed, sealed, signed, unsealed, write_whole

if TYPE_CHECKING:
    import numpy as np

    from pyro_aevb.data.split import DataSet
    from pyro_aevb.estimators.classification import Predictions
    from pyro_aevb.estimators.importance import Scores
    from pyro_aevb.estimators.marginal import Marginals
    from pyro_aevb.pairs.pair import Pair
    from pyro_aevb.runs.prepare import Prepared

DAMAGED = " is damaged; evaluate the run again"
ARRAYS = "arrays_sha256"
r"""The entry of results that has the digest of the file of per-datum values."""


class Run:
    r"""One run's directory.

    Arguments:
        path: The directory; see :meth:`~pyro_aevb.runs.run.Run.create` and
            :meth:`~pyro_aevb.runs.run.Run.open`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.split = TEST
        r"""Whose results are read and written; ``on`` gives the run on another split."""
        self.held: Prepared | None = None
        r"""The trained pair and its data, while they are in memory."""

    @classmethod
    def create(cls, path: str | Path | None, name: str, resume: bool) -> Self:
        r"""A new run, or one to be resumed; see :func:`~pyro_aevb.runs.directories.directory`."""
        return cls(directory(path, name, resume))

    def on(self, split: str) -> Self:
        r"""The same run, whose results are those of another split.

        Arguments:
            split: ``train``, ``valid`` or ``test``.

        Raises:
            UsageError: No such split.
        """
        one_of("--split", split, SPLITS)
        other = copy.copy(self)
        other.split = split
        if split != TEST:
            self._stored()  # of a damaged file no part can be written anew
        return other

    @contextmanager
    def alone(self, resume: bool = True) -> Iterator[None]:
        r"""Train the run inside this; its directory is made if it is not there.

        Raises:
            UsageError: Another process is training it; or has done so since the directory was
                looked at, and `resume` is false.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with alone(self.path / LOCK, f"another process is training {self.path}"):
            directory(self.path, "", resume)
            yield

    def in_turn(self) -> AbstractContextManager[None]:
        r"""No other process changes the results while this holds."""
        return in_turn(self.path / "results.lock")

    @classmethod
    def open(cls, path: str | Path) -> Self:
        r"""A run that exists.

        Raises:
            UsageError: There is none at the path.
        """
        cls(path)._exists()
        return cls(path)

    def _exists(self) -> Path:
        if not (self.path / SETTINGS).is_file():
            near = ""
            if not self.path.exists() and self.path.parent.is_dir():
                near = hint(self.path.name, os.listdir(self.path.parent), "; did you mean {}?")
            raise UsageError(f"{self.path} is not a run: there is no {SETTINGS} in it{near}")
        return self.path

    @property
    def prepared(self) -> "Prepared":
        r"""The trained pair, checked, and its data as it sees them; restored where they are needed.

        Raises:
            UsageError: They cannot be restored by what the settings name; ``restore`` takes more.
        """
        if self.held is None:
            self.restore()
        assert self.held is not None
        return self.held

    def restore(
        self,
        pair: Any = None,
        data: Any = None,
        trust: bool = False,
        device: str = "auto",
        data_root: str | None = None,
    ) -> Self:
        r"""Bring the trained pair and the data of a run into memory.

        Arguments:
            pair: The pair, in place of what the settings name, if its file has moved, or it was
                given as a Python object: its class, an instance or a name.
            data: The data, likewise: whatever :func:`~pyro_aevb.fit` takes.
            trust: Run the code that the settings name, wherever it comes from.
            device: The device to put them on.
            data_root: Where data sets lie; default the run's.

        Returns:
            The run itself.

        Raises:
            UsageError: They are not there, do not fit the run, or nobody agreed to run the code.
        """
        from pyro_aevb.runs.prepare import restore

        self.held = restore(self, device, data_root, pair, data, trust)
        return self

    @property
    def pair(self) -> "Pair":
        r"""The trained pair, in evaluation mode."""
        return self.prepared.pair

    @property
    def module(self) -> Any:
        r"""The object that the pair was made of, trained, such as a torch module of the user's own
        class; of functions the tuple, or the file as a module."""
        return self.pair.origin

    @property
    def data(self) -> "DataSet":
        r"""The data that the run was trained on."""
        return self.prepared.data

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def arrays(self) -> Path:
        return self.path / ("results.nc" if self.split == TEST else f"results-{self.split}.nc")

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def name(self) -> str:
        return self.path.name or str(self.path)

    @property
    def settings(self) -> dict[str, Any]:
        path = self._exists() / SETTINGS
        settings = read_settings(path)
        if not {"pair", "data"} <= set(settings) or not isinstance(settings["data"], str):
            raise UsageError(f"{path} does not hold the settings of a run")
        check_settings(path, settings)
        if is_signed(path.read_text("utf-8")) is False:
            raise UsageError(
                f"{path} is not as it was written: restore it, or, if it was changed on purpose, "
                "remove its first and last line"
            )
        return settings

    @property
    def unsigned(self) -> list[str]:
        r"""A note where the settings have no digest, so that damage may go unseen; or nothing."""
        if is_signed((self._exists() / SETTINGS).read_text("utf-8")) is not None:
            return []
        return [
            f"note: {self.path} has no digests: an earlier version wrote it, or its settings were "
            "changed by hand; damage to what it holds may go unseen"
        ]

    @property
    def results(self) -> dict[str, Any]:
        stored, split = self._stored(), self.split
        if split != TEST:
            if split not in stored.get("splits", {}):
                raise UsageError(
                    f"{self.path} has no results of the {split} split; score it first: "
                    f"{self._scoring()}"
                )
            stored = stored["splits"][split]
        elif not stored.keys() - {"splits"}:
            raise UsageError(f"{self.path} has no results yet; evaluate it first")
        try:
            stored["metrics"]["reconstruction"], stored["data"], stored["num_data"]
            check_results(stored)
            results = earlier.current(stored)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UsageError(f"{self.path / 'results.json'}{DAMAGED}") from error
        return results

    def _stored(self) -> dict[str, Any]:
        r"""What ``results.json`` holds, of all splits; nothing where there is none."""
        path = self.path / "results.json"
        if not path.is_file():
            self._exists()
            return {}
        try:
            stored = unsealed(path.read_text("utf-8"), ARRAYS)
            stored.get("splits", {}).keys()
        except (ValueError, AttributeError, RecursionError) as error:
            raise UsageError(f"{path}{DAMAGED}") from error
        return stored

    def _splits(self) -> dict[str, Any]:
        r"""The results of other splits than the test split, by name."""
        found: dict[str, Any] = self._stored().get("splits", {})
        return found

    def _scoring(self) -> str:
        r"""The command that scores the split."""
        other = "" if self.split == TEST else f" --split {self.split}"
        return f"python -m pyro_aevb.evaluate {self.path}{other}"

    @property
    def history(self) -> list[dict[str, float | None]]:
        path = self.path / "history.csv"
        if not path.is_file():
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = csv.DictReader(file)
                if not {"epoch", "images_per_second"} <= set(rows.fieldnames or ()):
                    raise ValueError("a column has another name")
                return [
                    {name: float(value) if value else None for name, value in row.items()}
                    for row in rows
                ]
        except (ValueError, TypeError, csv.Error) as error:
            raise UsageError(
                f"{path} is damaged; remove it, and python -m pyro_aevb.fit --resume --out "
                f"{self.path} writes it anew"
            ) from error

    def clock(self, num_train: int | None = None) -> "np.ndarray":
        r"""Seconds of training, without validation, up to the end of each epoch.

        Arguments:
            num_train: The number of data in an epoch; None is what the results say.
        """
        import numpy as np

        images = self.results["num_train"] if num_train is None else num_train
        if self.settings.get("drop_last"):
            images -= images % self.settings["batch_size"]
        rates = [row["images_per_second"] or np.nan for row in self.history]
        return np.cumsum(images / np.array(rates, dtype=float))

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
        write_whole(self.path / SETTINGS, signed(text))

    def write_results(self, results: Mapping[str, Any]) -> None:
        if self.split != TEST:
            stored = self._stored()
            results = {**stored, "splits": {**stored.get("splits", {}), self.split: results}}
        write_whole(self.path / "results.json", sealed(finite(results)))

    def with_others(self, results: Mapping[str, Any]) -> dict[str, Any]:
        r"""New results, and what other estimators found for the same trained pair and data.

        Those of the test split keep the results of other splits beside them.

        Arguments:
            results: The new results, which are those of importance sampling.
        """
        known: dict[str, Any] = {}
        if lost := self._set_aside():
            return {**results, "notes": [*results["notes"], *lost]}
        try:
            if self.split == TEST and (same := of_same_pair(self._splits(), results)):
                known = {"splits": same}
            return beside(results, self.results) | known
        except UsageError:
            return dict(results) | known

    def _set_aside(self) -> list[str]:
        r"""Keep what is damaged of the results under another name, and say so."""
        from pyro_aevb.runs.netcdf import check_whole

        damaged, known = [], {}
        try:
            known = self._stored()
            known = known if self.split == TEST else known.get("splits", {}).get(self.split, {})
        except UsageError:
            damaged.append(self.path / "results.json")
        try:
            check_whole(self.arrays, known.get(ARRAYS))
        except UsageError:
            damaged.append(self.arrays)
        for path in damaged:
            os.replace(path, path.with_name(f"{path.name}.damaged"))
        return [
            f"warning: {path.name} was damaged, and is written anew without what other estimators "
            f"and splits had found; it is kept as {path.name}.damaged"
            for path in damaged
        ]

    def has_more(self, results: Mapping[str, Any]) -> bool:
        r"""Whether the results are of the same trained pair, and of more data than `results`."""
        try:
            before = self.results
        except UsageError:
            return False
        return alike(before, results) and before["num_data"] > results["num_data"]

    def current_results(self) -> dict[str, Any]:
        r"""The results, to which others can be added.

        Raises:
            UsageError: There are none yet, or they are older than the checkpoint.
        """
        results = self.results
        if results.get("epochs") != len(self.history):
            raise UsageError(
                f"{self.path} was trained further after its results were written; first score it: "
                f"{self._scoring()}"
            )
        return results

    def add_section(self, section: str, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        r"""Add an entry to a section beside the metrics, replacing one of that name.

        Returns:
            What ``results.json`` holds now.
        """
        with self.in_turn():
            results = self.current_results()
            results[section] = {**results.get(section, {}), name: dict(entry)}
            self.write_results(results)
        return results

    def add(
        self,
        estimator: str,
        settings: Mapping[str, Any],
        metrics: Mapping[str, Mapping[str, Any]],
        per_datum: "Mapping[str, np.ndarray]",
    ) -> dict[str, Any]:
        r"""Add what an estimator found to the results; replaces what it found before.

        Arguments:
            estimator: The name of the estimator, which every metric then bears.
            settings: The settings that it was run with.
            metrics: Values, standard errors and counts by name.
            per_datum: Arrays ``(n,)`` by name, of the first n test data.

        Returns:
            What ``results.json`` holds now.

        Raises:
            UsageError: A metric has the name of one that another estimator found.
        """
        from pyro_aevb.runs.netcdf import check_whole, write_groups

        with self.in_turn():
            results = with_estimator(self.current_results(), estimator, settings, metrics)
            if per_datum:
                check_whole(self.arrays, results.get(ARRAYS))
                arrays = {estimator: {name: (("datum",), v) for name, v in per_datum.items()}}
                results[ARRAYS] = write_groups(self.arrays, arrays)
            self.write_results(results)
        return results

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, dict.fromkeys(chain(*rows)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path / "history.csv", text.getvalue())

    def write_scored(
        self,
        results: Mapping[str, Any],
        scores: "Scores",
        marginals: "Marginals | None",
        predictions: "Predictions | None" = None,
    ) -> None:
        r"""Write ``results.nc`` (:mod:`pyro_aevb.runs.netcdf`), in which other estimators' parts
        stay where the results have them, then ``results.json``."""
        from pyro_aevb.runs.netcdf import groups_of, write_groups

        groups = groups_of(scores, marginals, predictions)
        others = set(results.get("settings", {})) - {IMPORTANCE}
        sha256 = write_groups(self.arrays, groups, others)
        self.write_results({**results, ARRAYS: sha256})

    def per_datum(self, group: str, variable: str) -> "np.ndarray":
        r"""One variable of ``results.nc``.

        Raises:
            UsageError: The file or the variable is not there.
        """
        from pyro_aevb.runs.netcdf import read_group

        place = group, variable
        if place in (*earlier.ARRAYS, *earlier.UNKNOWN) and earlier.was_before(self.results):
            if place in earlier.UNKNOWN:
                raise UsageError(f"{self.path}: {variable}: {earlier.REASON}")
            place = earlier.ARRAYS[place]
        try:
            data = read_group(self.arrays, place[0], self.results.get(ARRAYS))
            values: np.ndarray = data[place[1]].to_numpy()
        except (FileNotFoundError, KeyError) as error:
            raise UsageError(
                f"{self.path} holds no per-datum {variable}; evaluate the run again"
            ) from error
        return values

    def elpd(self) -> Any:
        r"""log p(x) of the held-out data as ArviZ's ``compare`` takes it; see :doc:`/arviz`."""
        from pyro_aevb.runs.inference_data import held_out_elpd

        return held_out_elpd(self)

    def inference_data(self, **options: Any) -> Any:
        r"""The run as an ``arviz.InferenceData``; arguments and groups: :doc:`/arviz`."""
        from pyro_aevb.runs.inference_data import inference_data

        return inference_data(self.on(TEST), **options)


def seconds_per_epoch(clock: "np.ndarray") -> float | None:
    r"""The median over the epochs of :meth:`Run.clock`; None if there are none."""
    import numpy as np

    seconds = np.diff(clock, prepend=0.0)
    return float(np.median(seconds)) if len(seconds) else None


def only_run(given: "str | Path | Run | Sequence[str]") -> Run:
    r"""The one run that an argument names.

    Raises:
        UsageError: It names several, or none that exists.
    """
    if isinstance(given, Run):
        return given
    if not isinstance(given, (str, Path)):
        if len(given) != 1:
            raise UsageError(f"give one run, not {len(given)}")
        given = given[0]
    return Run.open(given)
