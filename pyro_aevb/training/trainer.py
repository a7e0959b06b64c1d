r"""The training loop, one for all algorithms."""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer.elbo import ELBO
from torch import Tensor

from pyro_aevb.data.batches import Batches
from pyro_aevb.device import release
from pyro_aevb.engine.bars import bar as progress_bar
from pyro_aevb.engine.processes import Alone
from pyro_aevb.engine.streams import check_seed
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.estimators.importance import Compile, Scorer
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Row, Stage
from pyro_aevb.training.compiling import Compiling
from pyro_aevb.training.divergence import not_finite
from pyro_aevb.training.interrupt import sigint
from pyro_aevb.training.learner import Learner, Learners
from pyro_aevb.training.optimizers import kl_scale
from pyro_aevb.training.order import Order
from pyro_aevb.training.progress import Progress
from pyro_aevb.training.settings import Settings
from pyro_aevb.training.snapshots import Snapshots
from pyro_aevb.training.step import Step
from pyro_aevb.training.svi import SVI
from pyro_aevb.training.trial import fastest_threads, try_losses
from pyro_aevb.training.validation import Validation


@dataclass
class Trainer(Settings):
    r"""Fit a pair by a learning algorithm, by default gradient ascent on an objective.

    The order of the data in epoch e is a function of the seed and e alone; all other random
    numbers come from the global generators, whose states every checkpoint holds. So a run that was
    interrupted and resumed equals one that was not, bit for bit on a CPU.

    Arguments:
        pair: An inspected pair, on the device of the batches.
        train: Training data, as presented.
        valid: Validation data, as presented; fixed, not drawn anew.
        algorithm: What is done with each batch; a ``pyro.infer.ELBO`` stands for
            :class:`~.svi.SVI` on it.
        checkpoint: Where to keep the state; None keeps it nowhere.
        on_epoch: Called with the history after each epoch.
        show: Show a progress bar.
        group: The processes that share every batch; process 0 keeps the checkpoint.
        known: What the checkpoint should say beside what training needs, such as of the data.
        settings: Those of :class:`~.settings.Settings`, each by its name.
    """

    pair: Pair
    train: Batches
    valid: Batches
    algorithm: Algorithm | ELBO
    checkpoint: Path | None = None
    on_epoch: Callable[[Sequence[Row]], None] | None = None
    show: bool = False
    group: Alone = field(default_factory=Alone)
    known: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        pair, given, self._device = self.pair, self.algorithm, self.train.device
        self._algorithm = SVI(pair, given) if isinstance(given, ELBO) else given
        self._snapshots = Snapshots(
            self.checkpoint, pair, self._algorithm, self._device, self.group, self.show
        )
        self.notes = self._snapshots.notes
        if self.epochs and not pair.trainable():
            raise UsageError(f"{pair.name} has nothing to train; use --epochs 0 to score it")
        if self.epochs and self._algorithm.couples and self.group.size > 1:
            raise UsageError(
                f"{self._algorithm.title} has a loss that is of all data of a batch together, of "
                "which each process sees a part: train it in one process"
            )
        self._beta = self.latent_weight(pair, self._algorithm)
        self.progress = Progress()
        self._stages = self._algorithm.stages or [Stage(self._algorithm.phases)]
        before = sum(stage.epochs or 0 for stage in self._stages[:-1])
        if self._algorithm.needs_last_stage and 0 < self.epochs <= before:
            raise UsageError(
                f"--epochs is {self.epochs}, and the stages of {self._algorithm.title} before its "
                f"last one take {before}: raise it, or shorten them (--algorithm-options)"
            )
        self._learners = self._build(0, 0)
        steps = self.epochs * (len(self.train) // self.batch_size)
        self.compiling = Compiling(self.compile, steps, pair.name, self._snapshots.python)

    @property
    def history(self) -> list[Row]:
        return self.progress.history

    def _build(self, number: int, began: int) -> Learners:
        r"""New optimizers and schedules for a stage that begins at an epoch."""
        stage, epochs = self._stages[number], self._end(number, began) - began
        algorithm, train, valid = stage.of or self._algorithm, self.train, self.valid
        if stage.see is not None:
            train, valid = stage.see(train), stage.see(valid)
        pair = stage.of.pair if stage.of else self.pair
        each = [
            Learner(
                Step(pair, phase, train, self.group),
                *self.optimization(pair, phase, len(train), epochs),
                self.clip_norm,
            )
            for phase in self.phases(stage, algorithm)
        ]
        order = Order(train, self.batch_size, self.drop_last, self.seed, self.group.size)
        how: Compile = "off" if self.compile == "off" else "auto"
        scorer = Scorer(pair, 1, 1, self.seed, details=False, calls=self.epochs, compile=how)
        validation = Validation(pair, algorithm, valid, scorer, self._snapshots.python)
        return Learners(algorithm, pair, stage, each, train, order, validation)

    def _end(self, number: int, began: int) -> int:
        r"""The epoch at which a stage ends, unless its patience does before."""
        epochs = self._stages[number].epochs
        if epochs is None or number + 1 == len(self._stages):
            return self.epochs
        return min(self.epochs, began + epochs)

    def _planned(self) -> Iterator[Learners]:
        began = 0
        for number in range(len(self._stages)):
            yield self._build(number, began)
            began = self._end(number, began)

    def try_objective(self) -> None:
        r"""Evaluate every loss once on a few data, changing nothing, to fail before any work."""
        try_losses(self.pair, self._planned(), self._snapshots.python)

    def fastest_threads(self) -> int:
        r"""With how many threads a step on a whole batch is fastest; measured, changing nothing."""
        batch = self._learners.order.batches(0, self._device)[0]
        return fastest_threads(self.pair, self._learners, self._snapshots.python, batch)

    def resume(self) -> None:
        r"""Take up the checkpoint: tensors, optimizers, history, generators, position."""
        state = self._snapshots.load()
        self.progress = Progress.of(state, self._device)
        self._learners = self._build(self.progress.stage, self.progress.began)
        self._snapshots.restore(self._learners, state)
        if self.compile == "auto":
            self.compiling.on = state["compiled"]

    def save(self) -> None:
        r"""Write the checkpoint."""
        state = {**self.progress.state(), "compiled": self.compiling.on, **self.known}
        self._snapshots.save(self._learners, state)

    def run(self) -> list[Row]:
        r"""Train to the last epoch and return the history.

        Raises:
            UsageError: The objective became non-finite; the last good checkpoint is kept.
            KeyboardInterrupt: After the state at the interruption has been saved.
        """
        at, steps = self.progress, self._learners.order.steps
        self.pair.train()
        self.group.align([*self.pair.tensors().values(), *self._algorithm.state.values()])
        bar = progress_bar(
            total=self.epochs * steps,
            initial=at.epoch * steps + at.step,
            disable=not self.show,
            unit="step",
            desc="training",
        )
        if at.epoch == at.step == 0:
            self.save()
        last = self.epochs if self.stop_after is None else min(self.epochs, self.stop_after)
        fast = pyro.validation_enabled(False)
        with WholeBatch(), fast, bar, sigint() as stop:
            self._run_stage(last, bar, stop)
            while at.epoch < last and at.stage + 1 < len(self._stages):
                self._learners.forget()
                at.next_stage()
                self._learners = self._build(at.stage, at.began)
                self._run_stage(last, bar, stop)
        self.pair.eval()
        return self.history

    def _run_stage(self, last: int, bar: Any, stop: threading.Event) -> None:
        r"""Train until stage, patience or run ends, or pauses; then go back to the best epoch."""
        at, learners = self.progress, self._learners
        end = min(last, self._end(at.stage, at.began))
        say: Callable[[str], None] = bar.write if self.show else lambda said: None
        if at.epoch < end:
            learners.keep()
        bar.total = bar.n - at.step + (self.epochs - at.epoch) * learners.order.steps
        with learners.pair.active():
            for learner in learners.each:
                learner.step.rehearse()
            if self.compiling.on and not learners.compiled and at.epoch < end:
                bar.set_postfix_str("compiling the step")
                self.compiling.begin(learners, learners.order.batches(0, self._device)[0], say)
            while at.epoch < end and not at.out_of(self.patience):
                self.compiling.thaw(learners, say)
                self._run_epoch(bar, stop)
        if self.patience and at.best_epoch is not None:
            self._snapshots.put(at.best, "the best epoch")

    def _run_epoch(self, bar: Any, stop: threading.Event) -> None:
        at, learners, order = self.progress, self._learners, self._learners.order
        began, first = time.perf_counter(), at.step
        batches = order.batches(at.epoch, self._device)
        with learners.ahead(batches[first:]):
            for chosen in batches[first:]:
                if self.group.stops(stop.is_set()):
                    self.group.agree(self.save)
                    where = self.checkpoint and self.checkpoint.parent
                    raise KeyboardInterrupt(f"--resume --out {where} continues from here")
                learners.leave(chosen is batches[-1])
                now = at.epoch + at.step / order.steps
                learners.weigh(self._beta * kl_scale(now, self.kl_warm_up))
                at.losses.append(self._step(chosen) * (len(chosen) / order.seen))
                at.step += 1
                bar.update()
        losses = torch.stack(at.losses).sum(0).reshape(-1).tolist()
        rate = (order.seen - first * self.batch_size) / (time.perf_counter() - began)
        others = zip(learners.each[1:], losses[1:], strict=True)
        found, watched = self.group.agree(learners.validation)
        row: Row = {
            "epoch": at.epoch + 1,
            **({"stage": at.stage + 1} if len(self._stages) > 1 else {}),
            "learning_rate": learners.each[0].optimizer.param_groups[0]["lr"],
            "kl_scale": learners.each[0].step.kl_scale,
            "objective": -losses[0],
            **{f"{learner.step.phase.name}_loss": loss for learner, loss in others},
            **found,
            **self._algorithm.report(),
            "images_per_second": rate,
        }
        self._check(row, watched, chosen)
        self._end_epoch(row, watched, bar)

    def _end_epoch(self, row: Row, watched: str, bar: Any) -> None:
        at, value, elbo = self.progress, row[watched], row.get("elbo")
        assert value is not None
        at.next_epoch(row)
        self._learners.end_epoch(value)
        if self.patience and at.is_best(value, elbo):
            best = {"value": value, "elbo": elbo, "epoch": at.epoch}
            at.best = {**best, **self._snapshots.copies()}
        bar.set_postfix_str(
            f"epoch {at.epoch}, validation {watched} {value:.5g}, "
            f"{row['images_per_second']:,.0f} images/s"
        )
        self.save()
        self.compiling.end_epoch(self._learners)
        if self.on_epoch is not None:
            self.on_epoch(self.history)

    def _step(self, index: Tensor) -> Tensor:
        try:
            return self._update(index)
        except UsageError:
            raise
        except torch.OutOfMemoryError:
            pass  # its traceback would hold the memory, so it is left before anything is tried
        except Exception as error:  # of a pair's code
            raise UsageError(
                f"{self.pair.name} failed on a batch of {len(index)} in epoch "
                f"{self.progress.epoch + 1}: {type(error).__name__}: {one_line(error)}"
            ) from error
        raise self._too_large(index)

    def _update(self, index: Tensor) -> Tensor:
        try:
            return self._learners.update(index)
        except FloatingPointError as error:
            raise self._not_finite(index) from error

    def _too_large(self, index: Tensor) -> UsageError:
        r"""What to say of a batch that does not fit; the halves that are tried end with the run."""
        fits = len(index) // 2 if self.group.size == 1 else 0  # the others would wait for a half
        while fits and not self._fits(index[:fits]):
            fits //= 2
        remedy = f"--batch-size {fits} fits" if fits else "take a smaller --batch-size or net"
        return UsageError(
            f"a batch of {len(index)} does not fit into the memory of {self.train.device}; {remedy}"
            f"{self._kept()}"
        )

    def _fits(self, index: Tensor) -> bool:
        release(self.train.device)
        try:
            self._update(index)
        except torch.OutOfMemoryError:
            return False
        except Exception:  # of so small a batch; it is not this error that is told of
            return True
        return True

    def _check(self, row: Row, watched: str, index: Tensor) -> None:
        r"""That all processes are in step, and objective and validation finite."""
        self.group.check_in_step(self.pair.name)
        objective, value = row["objective"], row[watched]
        assert objective is not None and value is not None
        if not math.isfinite(objective):
            raise self._not_finite(index)
        if not math.isfinite(value):
            epoch = self.progress.epoch + 1
            raise self._learners.validation.not_finite(
                watched, epoch, self._kept(), self.batch_size
            )

    def _kept(self) -> str:
        return f"; {self.checkpoint} keeps epoch {self.progress.epoch}" if self.checkpoint else ""

    def _not_finite(self, index: Tensor) -> UsageError:
        where = f"epoch {self.progress.epoch + 1}, step {self.progress.step + 1}{self._kept()}"
        said = f"the objective is not finite in {where}"
        return not_finite(self._learners.pair, self._learners.data.take(index), said)


def seed_everything(seed: int) -> None:
    r"""Seed torch, NumPy and Python.

    Raises:
        UsageError: Not a whole number from 0 to 2^63 - 2.
    """
    check_seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
