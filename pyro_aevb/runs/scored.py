r"""The results of a run: read, added to by estimators, and kept where they are damaged.

``results.json`` and the per-datum values of ``results.nc`` belong together. So that a process that
ends between the two leaves nothing that does not, ``results.json`` has the digest of the file of
values beside it, and, before another is put in its place, that of the coming one too.
"""

import copy
import os
from collections.abc import Mapping, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pyro_aevb.data.naming import SPLITS, TEST
from pyro_aevb.errors import UsageError, hint, one_of
from pyro_aevb.estimators import IMPORTANCE
from pyro_aevb.runs import earlier
from pyro_aevb.runs.directories import SETTINGS
from pyro_aevb.runs.locking import in_turn
from pyro_aevb.runs.results import (
    alike,
    beside,
    check_results,
    finite,
    of_same_pair,
    with_estimator,
)
from pyro_aevb.runs.writing import digest, sealed, unsealed, write_whole

if TYPE_CHECKING:
    import numpy as np

    from pyro_aevb.estimators.classification import Predictions
    from pyro_aevb.estimators.importance import Scores
    from pyro_aevb.estimators.marginal import Marginals

DAMAGED = " is damaged; evaluate the run again"
ARRAYS = "arrays_sha256"
r"""The entry of results that has the digest of the file of per-datum values."""
NEXT = "arrays_next"
r"""The entry that has the digests of files that were about to take its place, each with the groups
in it that are of results to come."""


class Scored:
    r"""The part of a run's directory that holds its results.

    Arguments:
        path: The directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.split = TEST
        r"""Whose results are read and written; ``on`` gives the run on another split."""

    @property
    def history(self) -> list[dict[str, float | None]]:
        r"""A row for each epoch."""
        raise NotImplementedError

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

    @property
    def name(self) -> str:
        return self.path.name or str(self.path)

    def _exists(self) -> Path:
        if not (self.path / SETTINGS).is_file():
            near = ""
            if not self.path.exists() and self.path.parent.is_dir():
                near = hint(self.path.name, os.listdir(self.path.parent), "; did you mean {}?")
            raise UsageError(f"{self.path} is not a run: there is no {SETTINGS} in it{near}")
        return self.path

    @property
    def arrays(self) -> Path:
        return self.path / ("results.nc" if self.split == TEST else f"results-{self.split}.nc")

    def in_turn(self) -> AbstractContextManager[None]:
        r"""No other process changes the results while this holds."""
        return in_turn(self.path / "results.lock")

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

    def write_results(self, results: Mapping[str, Any]) -> None:
        r"""Write ``results.json``, of a split its part.

        Raises:
            UsageError: An entry is of another kind than is read again; nothing is written.
        """
        whole = finite(results)
        try:
            if "metrics" in whole:
                check_results(whole)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"{self.path}: these are no results: {error}") from error
        if self.split != TEST:
            stored = self._stored()
            whole = {**stored, "splits": {**stored.get("splits", {}), self.split: whole}}
        write_whole(self.path / "results.json", sealed(whole))

    def with_others(self, results: Mapping[str, Any], trained: bool = False) -> dict[str, Any]:
        r"""New results, and what other estimators found for the same trained pair and data.

        Those of the test split keep the results of other splits beside them. What is damaged is
        kept under another name.

        Arguments:
            results: The new results, which are those of importance sampling.
            trained: Whether the pair was trained since, so that nothing else is of it.
        """
        lost = self._set_aside()
        if lost:
            results = {**results, "notes": [*results["notes"], *lost]}
        if trained or not (self.path / "results.json").is_file():
            return dict(results)
        known: dict[str, Any] = {}
        try:
            if self.split == TEST and (same := of_same_pair(self._splits(), results)):
                known = {"splits": same}
            return beside(results, self.results) | known
        except UsageError:
            return dict(results) | known

    def _set_aside(self) -> list[str]:
        r"""Keep what is damaged of the results under another name, and say so."""
        files: dict[Path, str] = {}
        try:
            self._part()
            self.check_arrays()
        except UsageError:
            if self.arrays.is_file():
                files[self.arrays] = "other estimators' values of each datum"
        try:
            if "metrics" in self._part():
                assert self.results
        except UsageError:
            files[self.path / "results.json"] = "what other estimators and splits had found"
        for path in files:
            os.replace(path, _free(path))
        return [
            f"warning: {path.name} was damaged, and is written anew without {what}; it is kept as "
            f"{path.name}.damaged"
            for path, what in files.items()
        ]

    def check_arrays(self) -> None:
        r"""Raise a UsageError where the file of per-datum values is damaged or of other results."""
        from pyro_aevb.runs.netcdf import check_whole

        check_whole(self.arrays, self.digests())

    def digests(self, group: str | None = None) -> list[str] | None:
        r"""Those that the file of values may have; None where none is known.

        Arguments:
            group: The group of values that is to be of the results; None is any.
        """
        try:
            part = self._part()
        except UsageError:
            return None
        if ARRAYS not in part:
            return None
        coming = part.get(NEXT, [])
        return [part[ARRAYS], *(c["sha256"] for c in coming if group not in c["groups"])]

    def _part(self) -> dict[str, Any]:
        r"""What ``results.json`` holds of the split; nothing where there is none."""
        stored = self._stored()
        part: dict[str, Any] = stored if self.split == TEST else stored.get("splits", {})
        return part if self.split == TEST else part.get(self.split, {})

    def _of_results_to_come(self) -> set[str]:
        r"""Groups in the file of values that are of results which were not written: a process ended
        between the two."""
        part = self._part()
        if NEXT not in part or not self.arrays.is_file():
            return set()
        now = digest(self.arrays.read_bytes())
        coming = [c["groups"] for c in part[NEXT] if c["sha256"] == now != part.get(ARRAYS)]
        return set().union(*coming)

    def check_can_add(self, estimator: str) -> None:
        r"""Raise a UsageError where what an estimator finds could not be added to the results.

        Looked at before an estimator begins, which may take hours.
        """
        self.current_results()
        self.check_arrays()
        if self._of_results_to_come() - {estimator}:
            raise UsageError(
                f"{self.path}: another scoring ended before its results were written; evaluate the "
                "run again"
            )

    def check_not_trained_since(self, epochs: int) -> None:
        r"""Raise a UsageError where the history has other epochs than before the scoring."""
        if len(self.history) != epochs:
            raise UsageError(
                f"{self.path} was trained further while it was scored; evaluate it again"
            )

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
        with self.in_turn():
            results = with_estimator(self.current_results(), estimator, settings, metrics)
            if per_datum:
                self.check_can_add(estimator)
                arrays = {estimator: {name: (("datum",), v) for name, v in per_datum.items()}}
                self.write_with_arrays(results, arrays, None)
            else:
                self.write_results(results)
        return self.results

    def write_scored(
        self,
        results: Mapping[str, Any],
        scores: "Scores",
        marginals: "Marginals | None",
        predictions: "Predictions | None" = None,
    ) -> None:
        r"""Write ``results.nc`` (:mod:`pyro_aevb.runs.netcdf`), in which other estimators' parts
        stay where the results have them, then ``results.json``."""
        from pyro_aevb.runs.netcdf import groups_of

        groups = groups_of(scores, marginals, predictions)
        others = set(results.get("settings", {})) - {IMPORTANCE}
        self.write_with_arrays(results, groups, others)

    def write_with_arrays(
        self,
        results: Mapping[str, Any],
        groups: Mapping[str, Any],
        kept: Set[str] | None = frozenset(),
    ) -> None:
        r"""Write groups of values of each datum, then the results that they are of.

        Arguments:
            results: All that ``results.json`` will hold of the split.
            groups: The groups, see :func:`~pyro_aevb.runs.netcdf.packed`.
            kept: The names of the groups that are there already and stay, if they are of the
                results; None keeps all.
        """
        from pyro_aevb.runs.netcdf import packed

        there = self.arrays.is_file()
        unwritten = self._of_results_to_come() if kept is None or kept else set()
        content = packed(self.arrays, groups, kept, self.digests(), unwritten)
        before, now = self._part(), digest(self.arrays.read_bytes()) if there else ""
        if before:  # else nothing is there that the values could be taken for
            entries = [c for c in before.get(NEXT, []) if c["sha256"] == now]
            coming = {"sha256": digest(content), "groups": [*groups]}
            known = {ARRAYS: before.get(ARRAYS, now), NEXT: [*entries, coming]}
            self.write_results({**before, **known})
        write_whole(self.arrays, content)
        written = {name: entry for name, entry in results.items() if name != NEXT}
        self.write_results({**written, ARRAYS: digest(content)})

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
            data = read_group(self.arrays, place[0], self.digests(place[0]))
            values: np.ndarray = data[place[1]].to_numpy()
        except (FileNotFoundError, KeyError) as error:
            raise UsageError(
                f"{self.path} holds no per-datum {variable}; evaluate the run again"
            ) from error
        return values


def _free(path: Path) -> Path:
    r"""The first name that is free for a file that is set aside."""
    free, number = path.with_name(f"{path.name}.damaged"), 2
    while free.exists():
        free, number = path.with_name(f"{path.name}.damaged-{number}"), number + 1
    return free
