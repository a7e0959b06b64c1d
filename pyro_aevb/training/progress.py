r"""Where a run is: its stage, epoch and step, and what it has found so far."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from pyro_aevb.training.algorithm import Row


@dataclass
class Progress:
    r"""The position of a run, as its checkpoint holds it.

    Arguments:
        epoch: How many are done.
        step: How many of the next epoch's steps are done.
        stage: The number of the stage that the optimizers belong to, from 0.
        began: The epoch at which it began.
        history: One row for each epoch.
        losses: Of the steps done, each by its share of the epoch's data, in nats per datum.
        best: The value, number, tensors and Python values of the stage's best epoch.
    """

    epoch: int = 0
    step: int = 0
    stage: int = 0
    began: int = 0
    history: list[Row] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Mapping[str, Any], device: torch.device) -> "Progress":
        r"""What a checkpoint holds; one from before there were stages is in the first."""
        losses = list(state["losses"].to(device))
        known = {one.name: state[one.name] for one in fields(cls) if one.name in state}
        return cls(**{**known, "losses": losses})

    def state(self) -> dict[str, Any]:
        r"""For a checkpoint."""
        losses = torch.stack(self.losses) if self.losses else torch.empty(0)
        return {**vars(self), "losses": losses}

    def next_stage(self) -> None:
        r"""Begin the next stage here."""
        self.stage, self.began, self.best = self.stage + 1, self.epoch, {}

    def next_epoch(self, row: Row) -> None:
        r"""Begin the next epoch."""
        self.history.append(row)
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []

    def is_best(self, value: float) -> bool:
        return value > float(self.best.get("value", -math.inf))

    def out_of(self, patience: int) -> bool:
        r"""Whether the best epoch lies so many epochs back; never where the number is 0."""
        found = bool(patience) and "tensors" in self.best
        return found and self.epoch - int(self.best["epoch"]) >= patience
