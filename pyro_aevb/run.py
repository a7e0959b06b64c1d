r"""A run from Python: its trained pair, codes, draws, tables and figures."""

from collections.abc import Iterator
from functools import partial
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import Data
from pyro_aevb.data.naming import ALIASES, SPLITS
from pyro_aevb.errors import UsageError, at_least_one, one_of, unknown
from pyro_aevb.pairs import predict
from pyro_aevb.runs import run as directory
from pyro_aevb.runs.using import as_columns, generate, presented

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from pandas import DataFrame

BLOCK = 1000
r"""Data that are encoded or reconstructed at a time."""
TABLES = ("results", "history", "data")
r"""What :meth:`Run.table` has tables of."""


class Run(directory.Run):
    r"""One run: what :func:`~pyro_aevb.fit` returns, or what a directory of a run holds.

    Numbers are read from the directory; the trained pair and the data are there after ``fit``, and
    are brought into memory when they are first needed, by what ``settings.yaml`` names. Where that
    was a Python object, ``restore`` takes it.

    Data are given back as they came: of a table whose columns have names as a
    :class:`pandas.DataFrame` with these, else as a NumPy array ``(n, *event_shape)``.

    Arguments:
        path: The directory.
    """

    def codes(self, of: Any = "test", sample: bool = False, **columns: Any) -> "DataFrame":
        r"""The codes of data, :math:`\mathrm{E}_q[z|x]`, and what else is known of each datum.

        Arguments:
            of: A split, ``train``, ``valid`` or ``test``, or other data as ``fit`` takes them.
            sample: Draw the codes from the guide instead.
            columns: Of other data, columns that the pair takes beside x, such as ``label=``.

        Returns:
            A row for each datum, named as in its source, with the components ``z[0]``, ``z[1]`` and
            so on of the local sites; of a split its columns too, and labels by the names of their
            classes.

        Raises:
            UsageError: The pair has no codes, or there is no such split.
        """
        import pandas

        blocks, rows, known = self._blocks(of, None, columns)
        found: dict[str, list[np.ndarray]] = {}
        for x in blocks:
            for site, values in predict.encode(self.pair, x, sample).items():
                found.setdefault(site, []).append(as_numpy(values))
        components = {
            name: column
            for site, parts in found.items()
            for name, column in _components(site, np.concatenate(parts))
        }
        return pandas.DataFrame(components | known, index=pandas.Index(rows))

    def sample(
        self, n: int = 16, of: Literal["draws", "means"] = "draws", **columns: Any
    ) -> "np.ndarray | DataFrame":
        r"""Data from the model: codes drawn from the prior, weights from the guide.

        Arguments:
            n: How many.
            of: ``draws`` of the likelihood, which are draws from the model; or its ``means``, as
                :func:`~pyro_aevb.runs.using.decode` has them.
            columns: Columns that the pair takes beside x, such as ``label="cat"``, one value or n;
                by default those of the first test data.

        Raises:
            UsageError: The prior of a local site is masked out, or the model reads the data.
        """
        one_of("of", of, ("draws", "means"))
        return self._as_data(as_numpy(generate(self, n, of == "draws", **columns)))

    def reconstruct(
        self, of: Any = "test", n: int | None = None, sample: bool = False, **columns: Any
    ) -> "np.ndarray | DataFrame":
        r"""Data through the guide and back: :math:`\mathrm{E}[x'|z, w]` at the codes of x.

        Arguments:
            of: A split, or other data as ``fit`` takes them.
            n: The first n alone.
            sample: Use a draw of codes and weights instead of their means.
            columns: Of other data, columns that the pair takes beside x.
        """
        at_least_one("n", n)
        blocks, rows, _ = self._blocks(of, n, columns)
        parts = [as_numpy(predict.reconstruct(self.pair, x, sample)) for x in blocks]
        return self._as_data(np.concatenate(parts), rows)

    def table(self, of: Literal["results", "history", "data"] = "results") -> "DataFrame":
        r"""Numbers of the run as a table.

        Arguments:
            of: ``results``, a row for each metric with its ``value``, ``standard_error``, ``unit``
                and ``reason`` where it is not defined; ``history``, a row for each epoch; or
                ``data``, one for each test datum that was scored, called as in its source, with
                its ``elbo``, ``log_likelihood`` and so on in nats.

        Raises:
            UsageError: There are no results yet, or no such table.
        """
        import pandas

        from pyro_aevb.reports.text import UNITS

        if of == "history":
            self._exists()
            history = pandas.DataFrame(self.history)
            return history.set_index(history["epoch"].astype(int)).drop(columns="epoch")
        if of == "data":
            return self._per_datum()
        if of != "results":
            raise unknown("table", of, TABLES)
        rows = {
            name: {
                "value": metric["value"],
                "standard_error": metric.get("standard_error"),
                "unit": metric.get("unit", UNITS.get(name, "nats/datum")),
                "reason": metric.get("reason", ""),
            }
            for name, metric in self.results["metrics"].items()
        }
        table = pandas.DataFrame.from_dict(rows, orient="index")
        numbers = ["value", "standard_error"]
        table[numbers] = table[numbers].astype(float)
        return table

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        r"""Score the run again, or otherwise: :func:`pyro_aevb.evaluate` of it.

        The data are those in memory. The pair is made by its name where the settings have one, else
        it is a copy of the one in memory; it has the tensors of the checkpoint.
        """
        from pyro_aevb.evaluate import evaluate

        return evaluate(self, *args, **kwargs)

    def report(self, out: str | None = None) -> "Path":
        r"""Write the run as one page of HTML: :func:`pyro_aevb.report` of it."""
        from pyro_aevb.report import report

        return report(self, out, show=False)

    def plot(self, name: str, by: Literal["pca", "umap"] = "pca") -> "Figure":
        r"""A figure of the run by its name, such as ``latent``.

        Figures of the history and of decoded data are drawn anew, and can be worked on; the others,
        which need the scoring, are the pictures that it left.

        Arguments:
            name: The name of a file in ``figures/``, without its ending.
            by: What brings codes of more than two dimensions into the plane of ``latent``: their
                principal components, or ``umap``, where umap-learn is installed.

        Returns:
            A :class:`matplotlib.figure.Figure`, which notebooks show.

        Raises:
            UsageError: The run has no figure of that name, or umap-learn is not there.
        """
        from pyro_aevb.reports.redraw import NAMES, figure_of, stored_figure

        stored = sorted(path.stem for path in self.figures.glob("*.png"))
        if name in NAMES:
            return _shown(figure_of(self, self.prepared, name, by))
        if name not in stored:
            self._exists()
            raise unknown(f"figure of {self.name}", name, stored or NAMES)
        return _shown(stored_figure(self.figures / f"{name}.png"))

    def explore(self) -> Any:
        r"""The page of :func:`pyro_aevb.explore`, as what Panel makes of it.

        A notebook shows it where ``panel.extension()`` was called before; else its ``show()`` opens
        a browser.

        Raises:
            UsageError: Panel is not installed, or the pair has neither codes that can be decoded
                nor classes.
        """
        from pyro_aevb.explorer.page import page

        return page(self.prepared)

    def _repr_html_(self) -> str:
        r"""What a notebook shows: what was trained on what, log p(x), and the metrics."""
        from pyro_aevb.reports.text import lead

        place = f"<p>run <code>{escape(str(self.path))}</code></p>"
        try:
            results, table = self.results, self.table()
        except UsageError as error:
            return place + f"<p>{escape(str(error))}</p>"
        count = f"{results['num_data']:,} {results['split']} data"
        title = f"{results['pair']} on {results['data']}, {count}"
        known = table[table["value"].notna()].drop(columns="reason")
        shown = known.to_html(float_format="{:.2f}".format, na_rep="")
        heads = [escape(line) for line in (title, lead(results["metrics"])) if line]
        return "".join(f"<p>{head}</p>" for head in heads) + shown + place

    def _blocks(
        self, of: Any, n: int | None, columns: dict[str, Any]
    ) -> tuple[Iterator[Data], np.ndarray, dict[str, Any]]:
        r"""Data in blocks as the pair sees them, what they are called, and their columns."""
        held, split = self.prepared, ALIASES.get(str(of).lower()) if isinstance(of, str) else None
        if isinstance(of, str) and split is None:
            raise unknown("split", of, SPLITS)
        if split is None:
            values, found, rows = presented(held, of)
            found |= as_columns(held, len(values), columns)
            whole = held.pair.batch(values[:n], {name: v[:n] for name, v in found.items()})
            count = len(whole)
            return (whole[at : at + BLOCK] for at in range(0, count, BLOCK)), rows[:n], {}
        if columns:
            raise UsageError(f"the {split} split has columns of its own; leave out {list(columns)}")
        batches = held.fixed_train if split == "train" else getattr(held, split)
        part = getattr(held.data, split)
        count = min(len(part), len(part) if n is None else n)
        places = torch.arange(count, device=batches.device)
        known = {name: as_numpy(v)[:count] for name, v in part.columns.items() if v.ndim == 1}
        if part.labels is not None:
            known["label"] = held.data.called(part.labels[:count])
        rows = np.arange(count) if part.rows is None else part.rows[:count]
        return (batches.take(some) for some in places.split(BLOCK)), rows, known

    def _as_data(self, values: np.ndarray, rows: np.ndarray | None = None) -> Any:
        features = self.data.features
        if not features or values.shape[1:] != (len(features),):
            return values
        import pandas

        return pandas.DataFrame(values, rows, list(features))

    def _per_datum(self) -> "DataFrame":
        import pandas

        from pyro_aevb.runs.netcdf import read_group

        found: dict[str, np.ndarray] = {}
        for group in ("predictive", "sample_stats"):
            try:
                data = read_group(self.arrays, group, self.digests(group))
            except (FileNotFoundError, KeyError):
                continue
            for name, values in data.items():
                whole = values.mean([d for d in values.dims if d != "datum"])
                found.setdefault(str(name), whole.to_numpy())
        n = self.results["num_data"]
        rows = getattr(self.data, self.split).rows
        return pandas.DataFrame(found, index=np.arange(n) if rows is None else rows[:n])


def _shown(figure: "Figure") -> "Figure":
    r"""The figure, which a notebook shows; else it does so only after pyplot has drawn another."""
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: "Figure") -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _components(site: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    r"""The components of codes ``(n, *shape)`` by name: z, or z[0], or z[0,1]."""
    for place in np.ndindex(values.shape[1:]):
        yield site + (f"[{','.join(map(str, place))}]" if place else ""), values[:, *place]
