r"""A phase as it is trained: its step, its optimizer, its schedule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyro_aevb.engine.cuda_graph import GraphedUpdate
from pyro_aevb.training.step import Step


@dataclass
class Learner:
    r"""One phase of an algorithm, while it is trained.

    Arguments:
        step: Computes the phase's loss and gradients.
        optimizer: Of the phase's parameters.
        schedule: Of the optimizer's learning rate.
        graph: The update as a CUDA graph, where there is one.
    """

    step: Step
    optimizer: Any
    schedule: Any
    graph: GraphedUpdate | None = None

    def update(self, *batch: Any) -> Tensor:
        r"""One update of the phase's parameters; its loss.

        Raises:
            FloatingPointError: The loss is not finite; the parameters are as they were.
        """
        loss = self.step(*batch)
        # On a CPU a look at the loss is free; on a GPU it would wait for the device.
        if not loss.is_cuda and not math.isfinite(float(loss)):
            raise FloatingPointError
        self.optimizer.step()
        return loss


def states_of(held: Sequence[Any]) -> Any:
    r"""What the optimizers or schedules of all phases hold; of a single one without a list."""
    states = [one.state_dict() for one in held]
    return states if len(states) > 1 else next(iter(states), None)
