r"""Whether something runs eagerly, from a graph or compiled, and what is said of that."""

from collections.abc import Callable

from pyro_aevb.engine.replay import Way
from pyro_aevb.errors import UsageError


class Policy:
    r"""What ``--compile`` asks of one kind of work on a pair.

    Arguments:
        compile: ``on`` compiles, or fails where that cannot be; ``off`` runs the pair's handlers
            every time; ``auto`` goes by the work ahead, and runs eagerly what cannot be captured.
        what: What is worked on, in messages: the pair, or ``q`` of it.
        done: What is done with it, in messages: ``scored``, ``annealed``.
        say: Told once why it runs eagerly, where it cannot be captured.

    Raises:
        UsageError: `compile` is none of the three.
    """

    def __init__(
        self, compile: str, what: str, done: str, say: Callable[[str], None] | None = None
    ) -> None:
        if compile not in ("auto", "on", "off"):
            raise UsageError(f"--compile is {compile!r}; it must be auto, on or off")
        self.compile, self.what, self.done, self.say = compile, what, done, say
        self._told: set[str] = set()

    def way(self, pays: bool, otherwise: Way = Way.GRAPH) -> Way:
        r"""How it runs; ``auto`` compiles where that `pays`."""
        if self.compile == "off":
            return Way.EAGER
        return Way.COMPILED if pays or self.compile == "on" else otherwise

    def eagerly(self, reason: str) -> None:
        r"""Say why it runs eagerly, the first time, or that it must not.

        Raises:
            UsageError: `compile` is ``on``.
        """
        if self.compile == "on":
            raise UsageError(
                f"--compile on: {self.what} has to be {self.done} eagerly: {reason}; use "
                "--compile auto"
            )
        self._tell("eagerly", reason)

    def in_smaller_parts(self, reason: str) -> None:
        r"""Say why it runs in smaller parts than memory was thought to allow, the first time."""
        self._tell("in smaller parts", reason)

    def _tell(self, how: str, reason: str) -> None:
        if self.say is not None and how not in self._told:
            self._told.add(how)
            self.say(f"{self.what} is {self.done} {how}: {reason}")
