r"""What training has made of a pair: in the run's checkpoint, and of the best epoch in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_aevb.engine.processes import Alone
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.runs import checkpoint
from pyro_aevb.training.algorithm import Algorithm
from pyro_aevb.training.learner import Learners


@dataclass
class Snapshots:
    r"""Takes and restores tensors, and the Python values that training changes.

    Made before training. Process 0 of the group writes the checkpoint, to `path` if that is given.
    `notes` say what no checkpoint holds; `show` prints them, too.
    """

    path: Path | None
    pair: Pair
    algorithm: Algorithm
    device: torch.device
    group: Alone
    show: bool
    notes: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.python = self.pair.python.beside(self.algorithm)
        self._made = self.python.read()
        self._held: set[str] = set()
        r"""Names that the checkpoint had which was resumed."""

    def take(self) -> dict[str, Any]:
        r"""Tensors, which further training changes, and Python values."""
        python, lost = self.python.saved(self._made, self._held)
        self._note(lost)
        return {"tensors": _detached(self.pair.tensors()), "python": python}

    def copies(self) -> dict[str, Any]:
        r"""What :meth:`take` takes, with copies of the tensors."""
        taken = self.take()
        tensors = {name: tensor.clone() for name, tensor in taken["tensors"].items()}
        return {**taken, "tensors": tensors}

    def put(self, taken: Mapping[str, Any], origin: str) -> None:
        r"""Take over what was taken; messages say where it comes from."""
        self.python.put(self._made)
        self.pair.load_tensors(taken["tensors"], origin)
        self._note(self.python.load(taken.get("python", {}), self.device))

    def save(self, learners: Learners, state: Mapping[str, Any]) -> None:
        r"""Write the checkpoint: all this, optimizers and schedules, generators, and `state`."""
        taken = self.take()
        if self.path is None or self.group.rank:
            return
        whole = {
            "pair": self.pair.name,
            "source": self.pair.source,
            "algorithm": self.algorithm.name,
            "state": _detached(self.algorithm.state),
            "notes": [*self.algorithm.notes, *self.notes],
            "random": checkpoint.random_state(),
        }
        checkpoint.save_checkpoint(self.path, {**whole, **taken, **learners.state(), **state})

    def load(self) -> dict[str, Any]:
        r"""Read the checkpoint, and take over the pair's tensors and Python values.

        Raises:
            UsageError: It cannot be read, or is another pair's or algorithm's.
        """
        path = self.path
        assert path is not None
        state = self.group.agree(lambda: checkpoint.load_checkpoint(path))
        self._held = set(state.get("python", {}))
        self.put(state, str(path))
        name, here = state.get("algorithm", "svi"), self.algorithm.name
        if name != here:
            raise UsageError(
                f"{path} was written by --algorithm {name}, this is {here}; resume with the "
                "settings of the run"
            )
        return state

    def restore(self, learners: Learners, state: dict[str, Any]) -> None:
        r"""Take over the rest: optimizers and schedules, the algorithm's tensors, generators.

        Raises:
            UsageError: They are of other kinds.
        """
        try:
            learners.load(state)
            for name, value in self.algorithm.state.items():
                value.copy_(state["state"][name])
        except (ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
            raise UsageError(
                f"{self.path} was written with another optimizer, schedule or option; resume with "
                "the settings of the run"
            ) from error
        checkpoint.restore_random_state(state["random"])

    def _note(self, lost: Sequence[str]) -> None:
        if lost and not self.notes:
            named = ", ".join(map(repr, lost))
            self.notes.append(
                f"note: runs of {self.pair.name} do not resume exactly: no checkpoint holds "
                f"{named}, which its code keeps in Python"
            )
            if self.show:
                print(self.notes[0])


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in tensors.items()}
