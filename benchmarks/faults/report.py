r"""What was tried, what failed, and a page of both."""

from collections.abc import Iterable
from dataclasses import dataclass, field


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

    def count(self, outcomes: Iterable[Failure | None], say: bool = True) -> "Promise":
        r"""Try it, and print each failure in a line."""
        for outcome in outcomes:
            self.tried += 1
            if outcome is not None:
                self.failures.append(outcome)
                if say:
                    print(f"FAILED {self.title}: {outcome.what}: {outcome.came}", flush=True)
        return self
