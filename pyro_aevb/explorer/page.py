r"""The explorer as a page: sliders along the directions of the codes, and what lies there.

Made of Panel's parts, so that it is shown by a server of one's own and in a notebook alike.
"""

from html import escape
from typing import Any

import numpy as np
import torch

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.data.batch import data_of
from pyro_aevb.explorer import pictures
from pyro_aevb.explorer.server import found
from pyro_aevb.explorer.space import Space
from pyro_aevb.pairs.predict import predict
from pyro_aevb.runs.prepare import Prepared

SLIDERS = 8
r"""Directions that can be moved along."""
STEPS = 9
r"""Pictures of a walk."""


def page(prepared: Prepared) -> Any:
    r"""The page of a trained pair.

    Of a pair with codes three sheets: *move*, a slider for each direction, the decoded datum, and
    log p(z); *between*, a walk from one test datum to another; *posterior*, what the guide says of
    a test datum. Of a classifier one: a test datum, and the probabilities of its classes.

    Arguments:
        prepared: The pair and its data.

    Returns:
        A ``panel.Column``.

    Raises:
        UsageError: Panel is not installed, or the pair can neither be decoded nor classifies.
    """
    panel = found()
    title = f"{prepared.pair.name} on {prepared.data.name}"
    if prepared.description.classifies():
        return panel.Column(panel.pane.HTML(_lines(title)), _classes(prepared))
    space = Space(prepared)
    size, k = len(space.mean), len(space.scales)
    title += f": codes {space.called} of {space.count:,} test data, dimension {size}"
    title += f", of which they span {k}" if k < size else ""
    sheets = [("move", _Move), ("between", _Between), ("posterior", _Posterior)]
    tabs = panel.Tabs(*((name, sheet(space, prepared).view) for name, sheet in sheets))
    return panel.Column(panel.pane.HTML(_lines(title)), tabs)


class _Sheet:
    r"""What all sheets share: the space, and pictures and text that are drawn anew."""

    view: Any
    r"""The parts, laid out."""

    def __init__(self, space: Space, prepared: Prepared) -> None:
        self.space, self.data = space, prepared.data
        labels = prepared.data.test.labels
        count = space.count
        self.labels = None if labels is None else prepared.data.called(labels[:count])

    def number(self, name: str, value: int = 0) -> Any:
        r"""What asks for a place among the test data whose codes are known."""
        return _number(name, self.space.count - 1, value)

    def called(self, place: int) -> str:
        r"""A test datum in a few words."""
        label = "" if self.labels is None else f", label {self.labels[place]}"
        return f"datum {place}{label}"


class _Move(_Sheet):
    def __init__(self, space: Space, prepared: Prepared) -> None:
        from panel import Column, Row
        from panel.pane import HTML
        from panel.widgets import Button, FloatSlider

        super().__init__(space, prepared)
        shown = space.coordinates[:, :SLIDERS]
        self.start, self.datum = space.mean, 0
        self.sliders = [
            FloatSlider(
                label=f"direction {i + 1} ({100 * share:.0f} %)",
                **dict(zip(("start", "end"), _ends(shown[:, i]), strict=True)),
                step=0.05,
                value=0.0,
                width=300,
            )
            for i, share in enumerate(space.shares[:SLIDERS])
        ]
        self.place = self.number("test datum")
        mean, there = (Button(label=f"to {to}", width=120) for to in ("the mean code", "the datum"))
        self.picture, self.plane, self.text = _pane(), _pane(), HTML(width=300)
        for slider in self.sliders:
            slider.param.watch(self._draw, "value")
        mean.on_click(lambda _: self._go(space.mean, self.datum))
        there.on_click(lambda _: self._go(space.codes[_place(self.place)], _place(self.place)))
        self.going = False
        self._draw()
        left = Column(Row(self.place, there), mean, *self.sliders)
        self.view = Row(left, Column(self.picture, self.text), self.plane)

    def _go(self, start: np.ndarray, datum: int) -> None:
        r"""Start anew from a code; what the sliders do not reach of it stays as it is."""
        self.start, self.datum, self.going = start, datum, True
        at = self.space.along(start[None])[0]
        for slider, value in zip(self.sliders, at, strict=False):
            slider.value = float(np.clip(value, slider.start, slider.end))
        self.going = False
        self._draw()

    def _draw(self, *_: Any) -> None:
        if self.going:
            return
        space = self.space
        code = space.moved(self.start, np.array([s.value for s in self.sliders]))[None]
        here = space.along(code)
        decoded = space.decoded(code, self.datum)[0]
        self.picture.object = pictures.datum(decoded, self.data.features)
        self.plane.object = pictures.plane(space.coordinates, space.shares, self.labels, here)
        distance = float(np.linalg.norm(here))
        farther = 100 * float((space.distances > distance).mean())
        density = space.log_prior(code, self.datum)
        said = (
            f"log p({space.called}) is not defined: {density}"
            if isinstance(density, str)
            else f"log p({space.called}) = {density[0]:.2f} nats"
        )
        far = (
            f"{distance:.2f} standard deviations from the mean of the test codes; {farther:.0f} % "
            "of them are farther"
        )
        self.text.object = _lines(said, far)


class _Between(_Sheet):
    def __init__(self, space: Space, prepared: Prepared) -> None:
        from panel import Column, Row
        from panel.widgets import FloatSlider

        super().__init__(space, prepared)
        self.first, self.second = self.number("from"), self.number("to", min(1, space.count - 1))
        self.share = FloatSlider(label="share of the way", start=0, end=1, value=0.5, width=330)
        self.walk, self.picture, self.plane = _pane(), _pane(), _pane()
        for widget in (self.first, self.second, self.share):
            widget.param.watch(self._draw, "value")
        self._draw()
        left = Column(Row(self.first, self.second), self.share, self.picture)
        self.view = Column(self.walk, Row(left, self.plane))

    def _draw(self, *_: Any) -> None:
        space, ends = self.space, (_place(self.first), _place(self.second))
        shares = np.array([*np.linspace(0, 1, STEPS), self.share.value])
        codes = space.between(*ends, shares)
        decoded = space.decoded(codes, ends[0])
        titles = [f"{share:.2f}" for share in shares[:STEPS]]
        titles[0], titles[-1] = (f"code of\n{self.called(place)}" for place in ends)
        self.walk.object = pictures.row(decoded[:STEPS], titles, self.data.features)
        self.picture.object = pictures.datum(decoded[-1], self.data.features)
        here = space.along(codes[[STEPS - 1, 0, STEPS]])
        self.plane.object = pictures.plane(space.coordinates, space.shares, self.labels, here)


class _Posterior(_Sheet):
    def __init__(self, space: Space, prepared: Prepared) -> None:
        from panel import Column, Row
        from panel.pane import HTML

        super().__init__(space, prepared)
        self.point = prepared.description.kind_of_codes() == "points"
        self.place = self.number("test datum")
        self.row, self.plane, self.deviations, self.text = (
            _pane(),
            _pane(),
            _pane(),
            HTML(width=420),
        )
        self.place.param.watch(self._draw, "value")
        self._draw()
        left = Column(self.deviations, self.text)
        self.view = Column(self.place, self.row, Row(left, self.plane))

    def _draw(self, *_: Any) -> None:
        space, place = self.space, _place(self.place)
        found = space.posterior(place)
        events, titles = [found.datum, found.decoded], [self.called(place), "decoded"]
        deviations = [] if self.point else [(found.deviation, "s.d. over the code")]
        if found.over_weights is not None:
            deviations.append((found.over_weights, "s.d. over the weights"))
        for deviation, title in deviations:
            most = float(deviation.max())
            # An image's would be too dark to see.
            events.append(deviation / (most or 1.0) if deviation.ndim > 1 else deviation)
            titles.append(f"{title},\nup to {most:.2g}")
        alone = len(deviations)
        self.row.object = pictures.row(np.stack(events), titles, self.data.features, alone)
        draws = found.draws
        self.deviations.object = pictures.deviations(draws, space.shares)
        self.plane.object = pictures.plane(
            space.coordinates, space.shares, self.labels, draws=draws
        )
        self.text.object = _lines(
            "the guide gives a point, and no deviation"
            if self.point
            else f"bars: mean ± 2 s.d. of {len(draws)} draws of q({space.called}|x), which are the "
            "black dots on the right; grey band: the test codes, ± 1 s.d."
        )


def _classes(prepared: Prepared) -> Any:
    r"""A test datum, and what a classifier says of it."""
    from panel import Column, Row

    data, test = prepared.data, prepared.test
    number = _number("test datum", len(test) - 1)
    datum, bars = _pane(), _pane()

    def draw(*_: Any) -> None:
        x = test.take(torch.tensor([_place(number)], device=test.device))
        observed = prepared.description.column
        columns = {n: v for n, v in getattr(x, "columns", {}).items() if n != observed}
        said = as_numpy(predict(prepared.pair, data_of(x), **columns))[0]
        names = list(data.classes) or [str(c) for c in range(len(said))]
        known = data.test.labels
        title = "" if known is None else f"is {data.called(known[[_place(number)]])[0]}"
        datum.object = pictures.row(as_numpy(data_of(x)), [title], data.features)
        bars.object = pictures.bars(said, names)

    number.param.watch(draw, "value")
    draw()
    return Row(Column(number, datum), bars)


def _number(name: str, last: int, value: int = 0) -> Any:
    from panel.widgets import IntInput

    return IntInput(label=f"{name}, 0 to {last}", value=value, start=0, end=last, width=160)


def _place(number: Any) -> int:
    r"""The place that was asked for, or the nearest there is: what is typed has no ends."""
    return min(max(number.value or 0, 0), number.end)


def _pane() -> Any:
    from panel.pane import Matplotlib

    return Matplotlib(None, tight=True, format="png", dpi=96)


def _lines(*said: str) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in said)


def _ends(along: np.ndarray) -> tuple[float, float]:
    r"""Where a slider ends: at the farthest code, and at 3 standard deviations at least."""
    most = float(np.ceil(max(3.0, abs(along).max())))
    return -most, most
