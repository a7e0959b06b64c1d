r"""A run: a directory that holds everything about one training, read and written here alone.

``settings.yaml`` (everything resolved; fed back with ``--config`` it reproduces the run),
``checkpoint.pt``, ``history.csv``, ``results.json``, ``results.nc`` (ArviZ) and ``figures/``.
"""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pyro_aevb.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from pyro_aevb.estimators.importance import Scores

SETTINGS = "settings.yaml"


class Run:
    r"""One run's directory.

    Arguments:
        path: The directory; see :meth:`create` and :meth:`open`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.pair: Any = None
        r"""The trained :class:`~pyro_aevb.pairs.Pair`, after :func:`~pyro_aevb.fit`."""

    @classmethod
    def create(cls, path: str | Path | None, name: str, resume: bool) -> "Run":
        r"""The directory of a new run, or of one to be resumed; nothing is written yet.

        Arguments:
            path: Where; None is ``runs/NAME``, numbered where that is taken.
            name: Of the run, for the default path.
            resume: Whether the directory must already be a run.

        Raises:
            UsageError: It exists and is not a run, or is one and `resume` is false; or the reverse.
        """
        if path is None:
            if resume:
                raise UsageError("--resume needs to know which run: give --out RUN")
            path = Path("runs") / name
            number = 2
            while path.exists():
                path = Path("runs") / f"{name}-{number}"
                number += 1
        path = Path(path)
        is_run = (path / SETTINGS).is_file()
        if resume and not is_run:
            raise UsageError(f"{path} is not a run (no {SETTINGS} in it), so it cannot be resumed")
        if path.exists() and not is_run and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} exists and is not a run; choose another --out")
        if is_run and not resume:
            raise UsageError(f"{path} already holds a run; add --resume, or choose another --out")
        parent = path
        while not parent.exists():
            parent = parent.parent
        if not os.access(parent, os.W_OK):
            raise UsageError(f"no permission to write in {parent}; choose another --out")
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        r"""A run that exists.

        Raises:
            UsageError: There is none at the path.
        """
        if not (Path(path) / SETTINGS).is_file():
            raise UsageError(f"{path} is not a run: there is no {SETTINGS} in it")
        return cls(path)

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def name(self) -> str:
        return self.path.name or str(self.path)

    @property
    def settings(self) -> dict[str, Any]:
        try:
            settings = yaml.safe_load((self.path / SETTINGS).read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path / SETTINGS} is not readable YAML") from error
        if not isinstance(settings, dict) or not {"pair", "data"} <= set(settings):
            raise UsageError(f"{self.path / SETTINGS} does not hold the settings of a run")
        return settings

    @property
    def results(self) -> dict[str, Any]:
        path = self.path / "results.json"
        if not path.is_file():
            raise UsageError(f"{self.path} has no results yet; evaluate it first")
        try:
            results: dict[str, Any] = json.loads(path.read_text())
            results["metrics"]["reconstruction"], results["data"], results["num_data"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is damaged; evaluate the run again") from error
        return results

    @property
    def history(self) -> list[dict[str, float | None]]:
        path = self.path / "history.csv"
        if not path.is_file():
            return []
        with path.open(newline="") as file:
            return [
                {name: float(value) if value else None for name, value in row.items()}
                for row in csv.DictReader(file)
            ]

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._write(SETTINGS, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))

    def write_results(self, results: Mapping[str, Any]) -> None:
        self._write("results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write("history.csv", text.getvalue())

    def write_per_datum(self, scores: "Scores", log_likelihood: "np.ndarray | None") -> None:
        r"""``results.nc``: an ArviZ file of per-datum values, one draw for each weight draw.

        Group ``log_likelihood`` holds ``x``, log p(x_n|w_s); ``sample_stats`` the ELBO, its parts
        and the health of the weights; ``posterior`` the codes E_q[z|x]; ``predictive`` the
        per-datum log-likelihood, averaged over weight draws.
        """
        import xarray

        draws = ("chain", "draw", "datum")
        groups: dict[str, dict[str, Any]] = {"posterior": {}, "sample_stats": {}}
        for name in ("reconstruction", "kl", "elbo", "ess", "pareto_k"):
            values = getattr(scores, name)
            if values is not None:
                groups["sample_stats"][name] = (draws, values[None])
        for site, codes in scores.codes.items():
            groups["posterior"][site] = (
                ("chain", "draw", "datum", f"{site}_dim"),
                codes[None, None],
            )
        if scores.log_weight is not None:
            groups["log_likelihood"] = {"x": (draws, scores.log_weight[None])}
        if log_likelihood is not None:
            groups["predictive"] = {"log_likelihood": (("datum",), log_likelihood)}
        path = self.path / "results.nc"
        beside = path.with_suffix(".nc.part")
        beside.unlink(missing_ok=True)
        for group, variables in groups.items():
            xarray.Dataset(variables).to_netcdf(
                beside, mode="a" if beside.exists() else "w", group=group, engine="h5netcdf"
            )
        os.replace(beside, path)

    def per_datum(self, group: str, variable: str) -> "np.ndarray":
        r"""One variable of ``results.nc``.

        Raises:
            UsageError: The file or the variable is not there.
        """
        import xarray

        try:
            with xarray.open_dataset(
                self.path / "results.nc", group=group, engine="h5netcdf"
            ) as data:
                values: np.ndarray = data[variable].to_numpy()
        except (OSError, KeyError) as error:
            raise UsageError(
                f"{self.path} holds no per-datum {variable}; evaluate the run again"
            ) from error
        return values

    def _write(self, name: str, text: str) -> None:
        path = self.path / name
        beside = path.with_name(name + ".part")
        try:
            beside.write_text(text)
            os.replace(beside, path)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error


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
