r"""What an estimator is: one record of what commands, reports and pictures have to know of it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_aevb.estimators.metrics import Metric

Found = tuple[dict[str, Metric], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Estimator:
    r"""An estimator beside importance sampling, of the test data, or other data, of a trained pair.

    ``pyro_aevb.evaluate(run, record, options)`` runs one of your own; those of this package are
    known by their names (:data:`pyro_aevb.estimators.ESTIMATORS`).

    Arguments:
        name: What ``--estimator`` and the results call it, a Python identifier.
        run: Called as ``run(prepared, test, work, **options)`` with the pair and its data
            (:class:`~pyro_aevb.runs.prepare.Prepared`), the data to look at
            (:class:`~pyro_aevb.data.batches.Batches`), and who shows the progress
            (:class:`~.work.Work`). Its keyword defaults are the options and tell their types.
            It returns metrics by name, each a dict with a ``value``, its ``standard_error`` and
            counts (see :func:`~.metrics.measured`), a ``unit`` if that is not nats per datum, and
            perhaps a ``note``; and by the same names arrays ``(n,)``, float64, of the values that
            some of them are means of, datum by datum.
        onto: A function or class that `run` hands its ``**options`` on to: its parameters whose
            defaults are numbers or words are options too, but for ``compile``.
        first: How many data it looks at, unless ``--num-data`` says; None is all.
        follows: Which of the flags ``memory`` and ``compile`` it has a use for.
        estimates: Its metrics that estimate log p(x) of each test datum: they are compared with
            ``log_likelihood``, and drawn as lines beside it.
        below: What is wrong where one of these lies below ``log_likelihood``.
        shown: Whether these stand beside ``log_likelihood`` in comparisons of runs.
        margin: If it looks at data that the model simulates: a metric, and the one of another
            estimator that is too low by about as much where both made as many draws.
        warning: From all metrics of a run that has its own to a line that says how to read them.
        figure: Draws a picture: called with :mod:`pyro_aevb.reports.plots`, the metrics, the
            arrays, and the path.
        file: The name of the picture; default ``estimator-NAME.png``.
        of_test: Why it scores the test split alone, if it does.
    """

    name: str
    run: Callable[..., Found]
    onto: Callable[..., Any] | None = None
    first: int | None = None
    follows: tuple[str, ...] = ()
    estimates: tuple[str, ...] = ()
    below: str = ""
    shown: bool = False
    margin: tuple[str, str] | None = None
    warning: Callable[[Mapping[str, Metric]], str] | None = None
    figure: Callable[..., Any] | None = None
    file: str = ""
    of_test: str = ""

    @property
    def options(self) -> dict[str, Any]:
        r"""The options by name, with their defaults."""
        own = [*inspect.signature(self.run).parameters.values()][3:]
        onto = inspect.signature(self.onto).parameters.values() if self.onto else ()
        found = {p.name: p.default for p in onto if isinstance(p.default, (int, float, str))}
        found.pop("compile", None)
        found |= {p.name: p.default for p in own if p.kind is not p.VAR_KEYWORD}
        return dict(sorted(found.items(), key=lambda option: option[0] != "seed"))

    def comparable(self, metrics: Mapping[str, Metric]) -> bool:
        r"""Whether both metrics of `margin` are there, from as many draws each."""
        if self.margin is None or not set(self.margin) <= metrics.keys():
            return False
        found, other = (metrics[name] for name in self.margin)
        counts = [name for name in found if name.startswith("num_") and name != "num_data"]
        return all(found[name] == other.get(name) for name in counts)
