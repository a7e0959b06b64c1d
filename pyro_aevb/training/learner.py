r"""What is trained: a phase with its step, optimizer and schedule; and the phases of a stage."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pyro_aevb.data.batch import Data, placed
from pyro_aevb.data.batches import Batches
from pyro_aevb.device import shares_memory
from pyro_aevb.engine.capture import NotCapturable
from pyro_aevb.engine.cuda_graph import GraphedUpdate, graphable
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.state.python import untouched
from pyro_aevb.training.algorithm import Algorithm, Stage
from pyro_aevb.training.clipping import clip
from pyro_aevb.training.optimizers import follow
from pyro_aevb.training.order import Order
from pyro_aevb.training.step import Step
from pyro_aevb.training.validation import Validation


@dataclass
class Learner:
    r"""One phase of an algorithm, while it is trained.

    Arguments:
        step: Computes the phase's loss and gradients.
        optimizer: Steps the phase's parameters.
        schedule: Moves the optimizer's learning rate, once an epoch.
        clip_norm: The largest norm of the phase's gradients together; None is any.
        graph: The update as a CUDA graph, where there is one.
    """

    step: Step
    optimizer: Any
    schedule: Any
    clip_norm: float | None = None
    graph: GraphedUpdate | None = None

    def update(self, *batch: Any) -> Tensor:
        r"""One update of the phase's parameters; its loss.

        Raises:
            FloatingPointError: The loss is not finite; the parameters are as they were.
        """
        loss = self.step(*batch)
        # On a CPU a look at the loss is free; on a GPU it would wait for the device.
        if shares_memory(loss) and not math.isfinite(float(loss)):
            raise FloatingPointError
        if self.clip_norm is not None:
            clip(self.step.parameters.values(), self.clip_norm)
        self.optimizer.step()
        return loss


@dataclass
class Learners:
    r"""The phases of a stage that have parameters, while it is trained.

    Arguments:
        algorithm: The one of the stage.
        pair: What it trains.
        stage: What it does.
        each: Its phases.
        data: The training data as the stage sees them.
        order: Which of them each batch holds.
        validation: What is found after each epoch.
    """

    algorithm: Algorithm
    pair: Pair
    stage: Stage
    each: list[Learner]
    data: Batches
    order: Order
    validation: Validation

    def keep(self) -> None:
        r"""Hold what the stage sees, if it has to be computed, in memory from now on."""
        self.data.keep()
        self.validation.data.keep()

    @property
    def in_step(self) -> bool:
        r"""Whether the one step makes the batch, so that this is compiled with it."""
        return self.algorithm.once(self.stage) and self.data.resident

    def begin(self, index: Tensor) -> tuple[Data, ...]:
        r"""The batch that all phases get, or nothing where the one step makes it."""
        if self.in_step:
            return ()
        rows = self._rows(index)
        if rows is not None:
            return (placed(self.data.take(index[rows]), rows, len(index)),)
        x = self.data.take(index)
        self.algorithm.before(x, index)
        return (x,)

    def ahead(self, batches: Sequence[Tensor]) -> AbstractContextManager[None]:
        r"""Read what stays on the disk of the coming batches before they are begun."""
        return self.data.ahead([index[self._rows(index) or slice(None)] for index in batches])

    def _rows(self, index: Tensor) -> slice | None:
        r"""The rows of a batch that alone are read here, as other processes see to the others."""
        group = self.each[0].step.group
        if group.size == 1 or not (self.data.own_rows and self.algorithm.once(self.stage)):
            return None
        return group.rows(len(index))

    def update(self, index: Tensor) -> Tensor:
        r"""All phases on one batch; their losses, ``(phases,)``, or of a single one ``()``.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        given = self.begin(index)
        losses = []
        for learner in self.each:
            update = learner.update if learner.step.eager else learner.graph or learner.update
            taken = [update(index, *given) for _ in range(learner.step.phase.repeat)]
            losses.append(torch.stack(taken).mean() if len(taken) > 1 else taken[0])
        return torch.stack(losses) if len(losses) > 1 else losses[0]

    def weigh(self, kl_scale: float) -> None:
        for learner in self.each:
            learner.step.kl_scale = kl_scale

    def leave(self, last: bool) -> None:
        r"""Let the last batch of an epoch leave the Python values that validation may follow."""
        for learner in self.each:
            learner.step.eager = bool(learner.step.leaves) and last

    @property
    def compiled(self) -> bool:
        return all(learner.step.compiled for learner in self.each)

    def compile(self, index: Tensor, say: Callable[[str], None]) -> None:
        r"""Compile all steps for batches of the length of `index`, or none.

        Raises:
            NotCapturable: The steps have to run eagerly, and why.
        """
        python = self.pair.python.beside(self.algorithm)
        with untouched(python, [index.device]):
            given = () if self.in_step else (self.data.take(index),)
        try:
            for learner in self.each:
                learner.step.compile(index, *given)
        except NotCapturable:
            self.forget()
            raise
        except torch.OutOfMemoryError as error:
            self.forget()
            raise NotCapturable(f"the memory of {index.device} ended") from error
        self.algorithm.compile(say)
        for learner in self.each:
            if learner.step.group.size > 1 or not graphable(learner.optimizer):
                continue
            if learner.step.waits is not None:
                say(f"{self.pair.name} is trained without CUDA graphs: it has {learner.step.waits}")
                continue
            learner.graph = GraphedUpdate(learner.update, learner.optimizer, len(index))

    def forget(self) -> None:
        r"""Run eagerly again."""
        for learner in self.each:
            learner.step.forget()
            learner.graph = None
        self.algorithm.forget()

    def end_epoch(self, value: float) -> None:
        r"""Let the schedules take a step, from the validation value that is watched."""
        for learner in self.each:
            plateau = isinstance(learner.schedule, ReduceLROnPlateau)
            learner.schedule.step(*([-value] if plateau else []))

    def state(self) -> dict[str, Any]:
        r"""What optimizers and schedules hold, in a list where there are several phases."""
        state: dict[str, Any] = {}
        for key in ("optimizer", "schedule"):
            held = [getattr(learner, key).state_dict() for learner in self.each]
            state[key] = held if len(held) > 1 else next(iter(held), None)
        return state

    def load(self, state: dict[str, Any]) -> None:
        for key in ("optimizer", "schedule"):
            held = state[key] if isinstance(state[key], list) else [state[key]]
            for learner, values in zip(self.each, held, strict=bool(self.each)):
                getattr(learner, key).load_state_dict(values)
        for learner in self.each:
            follow(learner.schedule, learner.optimizer)
