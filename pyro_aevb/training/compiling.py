r"""Whether the steps of a run are compiled, and when they no longer are."""

from collections.abc import Callable

from torch import Tensor

from pyro_aevb.engine.capture import NotCapturable
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.state.python import PythonState, Reading, changed, rebound
from pyro_aevb.training.learner import Learners

COMPILE_FROM = 5000
r"""Steps from which on compiling, which takes about 10 s, pays."""


class Compiling:
    r"""Decided once, from the steps of the whole run, so that a resumed one does the same.

    Once a stage has to run eagerly, or a value was changed between epochs, all that follows does.
    """

    def __init__(self, asked: str, steps: int, name: str, python: PythonState) -> None:
        if asked not in ("auto", "on", "off"):
            raise UsageError(f"--compile is {asked!r}; it must be auto, on or off")
        self.asked, self.name, self.python = asked, name, python
        self.on = asked == "on" or (asked == "auto" and steps >= COMPILE_FROM)
        self._left: Reading = {}
        r"""The Python values as the last epoch left them; compiled steps change none."""

    def begin(self, learners: Learners, index: Tensor, say: Callable[[str], None]) -> None:
        r"""Compile the steps of a stage for batches like `index`; say what runs eagerly, and why.

        Raises:
            UsageError: A step has to run eagerly, and ``on`` was asked for.
        """
        self._left = {}
        try:
            learners.compile(index, say)
        except NotCapturable as reason:
            said = f"{self.name} has to run eagerly: {reason}; use --compile auto"
            if self.asked == "on":
                raise UsageError(f"--compile on: {said}") from reason
            self.on = False
            say(f"{self.name} trains eagerly: {reason}")

    def thaw(self, learners: Learners, say: Callable[[str], None]) -> None:
        r"""Run eagerly from now on if a value was changed since the last epoch."""
        if not self._left or not learners.compiled:
            return
        now = self.python.read()
        if name := next(iter([*changed(self._left, now), *rebound(self._left, now)]), None):
            self.on = False
            learners.forget()
            say(f"{self.name} trains eagerly: {name!r} has changed")

    def end_epoch(self, learners: Learners) -> None:
        self._left = self.python.read() if learners.compiled else {}
