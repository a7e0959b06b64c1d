r"""What was tried, what failed, and a page of both."""

from collections.abc import Iterable
from dataclasses import dataclass, field

OFTEN = 250
r"""Attempts between two lines of progress."""


@dataclass(frozen=True)
class Failure:
    r"""A promise that was broken: what was done, and what came of it."""

    what: str
    came: str


@dataclass
class Promise:
    r"""What is promised, and how often it was tried and broken."""

    title: str
    promise: str
    tried: int = 0
    failures: list[Failure] = field(default_factory=list)

    def count(self, outcomes: Iterable[Failure | None]) -> "Promise":
        r"""Try it, and print how far it is, and each failure, in a line."""
        for outcome in outcomes:
            self.tried += 1
            if self.tried % OFTEN == 0:
                print(f"{self.title}: {self.tried:,} tried so far", flush=True)
            if outcome is not None:
                self.failures.append(outcome)
                print(f"FAILED {self.title}: {outcome.what}: {outcome.came}", flush=True)
        return self
