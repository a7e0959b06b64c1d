r"""A run: a directory that holds everything about one training, read and written here alone.

``settings.yaml`` (everything resolved; fed back with ``--config`` it reproduces the run),
``checkpoint.pt``, ``history.csv``, ``results.json``, ``results.nc`` (ArviZ) and ``figures/``.
Results of another split than the test split are in the section ``splits`` of ``results.json``, and
their per-datum values in ``results-SPLIT.nc``.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pyro_aevb.data.naming import TEST
from pyro_aevb.errors import UsageError
from pyro_aevb.runs.directories import LOCK, SETTINGS, directory
from pyro_aevb.runs.locking import alone
from pyro_aevb.runs.scored import Scored
from pyro_aevb.runs.settings import check_settings, read_settings, written_settings
from pyro_aevb.runs.writing import is_signed, signed, write_whole

if TYPE_CHECKING:
    import numpy as np

    from pyro_aevb.data.split import DataSet
    from pyro_aevb.pairs.pair import Pair
    from pyro_aevb.runs.prepare import Prepared


class Run(Scored):
    r"""One run's directory.

    Arguments:
        path: The directory; see :meth:`~pyro_aevb.runs.run.Run.create` and
            :meth:`~pyro_aevb.runs.run.Run.open`.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.held: Prepared | None = None
        r"""The trained pair and its data, while they are in memory."""

    @classmethod
    def create(cls, path: str | Path | None, name: str, resume: bool) -> Self:
        r"""A new run, or one to be resumed; see :func:`~pyro_aevb.runs.directories.directory`."""
        return cls(directory(path, name, resume))

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

    @classmethod
    def open(cls, path: str | Path) -> Self:
        r"""A run that exists.

        Raises:
            UsageError: There is none at the path.
        """
        cls(path)._exists()
        return cls(path)

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
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def settings(self) -> dict[str, Any]:
        path = self._exists() / SETTINGS
        settings = read_settings(path)
        if not {"pair", "data"} <= set(settings) or not isinstance(settings["data"], str):
            raise UsageError(f"{path} does not hold the settings of a run")
        as_written = is_signed(path.read_text("utf-8"))
        if as_written is None:
            check_settings(path, settings)
        if as_written is False:
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
        write_whole(self.path / SETTINGS, signed(written_settings(settings)))

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, dict.fromkeys(chain(*rows)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path / "history.csv", text.getvalue())

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
