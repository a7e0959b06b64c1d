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
    r"""Epochs that are done, and steps of the next; the stage, and the epoch at which it began.

    `losses` are those of the steps, each by its share of the epoch's data; `best` has the value,
    the ELBO, the number, the tensors and the Python values of the stage's best epoch.
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
        known = {one.name: state[one.name] for one in fields(cls) if one.name in state}
        return cls(**{**known, "losses": list(state["losses"].to(device))})

    def state(self) -> dict[str, Any]:
        losses = torch.stack(self.losses) if self.losses else torch.empty(0)
        return {**vars(self), "losses": losses}

    def next_stage(self) -> None:
        self.stage, self.began, self.best = self.stage + 1, self.epoch, {}

    def next_epoch(self, row: Row) -> None:
        self.history.append(row)
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []

    @property
    def best_epoch(self) -> int | None:
        r"""The number of the stage's best epoch; None where none is kept."""
        return int(self.best["epoch"]) if "tensors" in self.best else None

    def is_best(self, value: float, elbo: float | None) -> bool:
        r"""Whether a validation value is above that of the stage's best epoch; of equal ones, as
        few data have many, whether the ELBO is.
        """
        best = (self.best.get("value", -math.inf), self.best.get("elbo", math.inf))
        return (value, -math.inf if elbo is None else elbo) > best

    def out_of(self, patience: int) -> bool:
        r"""Whether the best epoch lies so many epochs back; never if the number is 0."""
        best = self.best_epoch
        return bool(patience) and best is not None and self.epoch - best >= patience
