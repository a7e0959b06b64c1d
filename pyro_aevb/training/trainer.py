r"""The training loop, one for all algorithms.

Epochs, validation, early stopping, schedules, progress, checkpoints.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer.elbo import ELBO
from torch import Tensor

from pyro_aevb.data.batches import Batches, order
from pyro_aevb.engine.capture import NotCapturable
from pyro_aevb.engine.processes import Alone
from pyro_aevb.engine.streams import check_seed
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.state.python import Reading, changed, rebound, untouched
from pyro_aevb.runs.checkpoint import (
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from pyro_aevb.training.algorithm import Algorithm, Phase
from pyro_aevb.training.divergence import not_finite
from pyro_aevb.training.interrupt import sigint
from pyro_aevb.training.learner import Learner, Learners
from pyro_aevb.training.optimizers import (
    kl_scale,
    latent_weight,
    make_optimizer,
    make_schedule,
    map_options,
)
from pyro_aevb.training.step import Step
from pyro_aevb.training.svi import SVI

COMPILE_FROM = 5000
r"""Steps from which on compiling, which takes about 10 s, pays."""

Row = dict[str, float | None]


@dataclass
class Trainer:
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
        epochs: How many passes over the training data; schedules end there.
        stop_after: Pause after so many of them in all; a resumed run goes on as if it had not.
        batch_size: B, of all processes together; the last batch of an epoch is smaller where B
            does not divide N.
        drop_last: Leave such a smaller batch out, another one in every epoch.
        optimizer, lr, optimizer_options: See :func:`~.optimizers.make_optimizer`; each phase has
            one of its own.
        schedule, schedule_options: See :func:`~.optimizers.make_schedule`; likewise.
        beta: The weight of the latent KL in the objective, not in the validation; default that of
            the pair, else 1: :func:`~.optimizers.latent_weight`.
        kl_warm_up: Epochs over which the weight of the latent KL rises to beta; 0 is none.
        map_prior: The standard deviation of a normal prior on all parameters, which makes them
            maximum a posteriori: :func:`~.optimizers.map_options`. None is no prior.
        patience: Stop after this many epochs without a better validation value and return to
            the best; 0 never stops.
        seed: Of the order of the data, and of all generators at the start.
        compile: ``on`` captures the step and compiles it, see :class:`~.step.Step`; ``off`` runs
            the handlers at every step; ``auto`` compiles if at least 5,000 steps lie ahead, since
            compiling takes seconds, and falls back to running eagerly, saying why.
        on_epoch: Called with the history after each epoch.
        show: Show a progress bar.
        group: The processes that share every batch; process 0 keeps the checkpoint.
    """

    pair: Pair
    train: Batches
    valid: Batches
    algorithm: Algorithm | ELBO
    checkpoint: Path | None = None
    epochs: int = 100
    stop_after: int | None = None
    batch_size: int = 100
    drop_last: bool = False
    optimizer: str = "adam"
    lr: float = 1e-3
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    schedule: str = "constant"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    beta: float | None = None
    kl_warm_up: int = 0
    map_prior: float | None = None
    patience: int = 0
    seed: int = 0
    compile: str = "auto"
    on_epoch: Callable[[Sequence[Row]], None] | None = None
    show: bool = False
    group: Alone = field(default_factory=Alone)

    def __post_init__(self) -> None:
        for name in ("epochs", "kl_warm_up", "patience", "stop_after"):
            if (getattr(self, name) or 0) < 0:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} is {getattr(self, name)}; it must not be negative")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 1")
        if self.batch_size < self.group.size:
            raise UsageError(
                f"--batch-size is {self.batch_size} for {self.group.size} processes, which share "
                "every batch; raise it, or start fewer processes"
            )
        n, rest = len(self.train), len(self.train) % self.batch_size
        self._seen = n - rest if self.drop_last else n
        r"""How many data an epoch visits."""
        self._last = 0 if self.drop_last else rest
        r"""The length of a smaller batch at the end of an epoch."""
        if not self._seen:
            raise UsageError(
                f"--drop-last with --batch-size {self.batch_size} leaves nothing of {n} training "
                "data; take a smaller batch"
            )
        if self.compile not in ("auto", "on", "off"):
            raise UsageError(f"--compile is {self.compile!r}; it must be auto, on or off")
        if self.epochs and not self.pair.trainable():
            raise UsageError(f"{self.pair.name} has nothing to train; use --epochs 0 to score it")
        self.history: list[Row] = []
        self.best: dict[str, Any] = {"value": -math.inf}
        self.epoch = self.step = 0
        self.losses: list[Tensor] = []
        # Decided once, from the size of the whole run, so that a resumed one does the same.
        steps = self.epochs * (len(self.train) // self.batch_size)
        self.compiled = self.compile == "on" or (self.compile == "auto" and steps >= COMPILE_FROM)
        given = self.algorithm
        self._algorithm = SVI(self.pair, given) if isinstance(given, ELBO) else given
        self._beta = latent_weight(self.pair, self.beta)
        if self._algorithm.name != "svi" and (self.kl_warm_up or self._beta != 1):
            flag, remedy = f"--beta {self._beta:g}", "use --beta 1"
            if self.kl_warm_up:
                flag, remedy = f"--kl-warm-up {self.kl_warm_up}", "leave the flag out"
            name = self._algorithm.name
            raise UsageError(f"{flag} is for --algorithm svi; {name} has no KL to scale: {remedy}")
        self._stages = self._algorithm.stages
        for stage in self._stages if self.map_prior is not None else ():
            names = [name for phase in stage.phases for name in phase.parameters]
            if repeated := [name for name in names if names.count(name) > 1]:
                raise UsageError(
                    f"--map-prior: {self._algorithm.name} trains {repeated[0]!r} in several "
                    "phases, each with a loss of its own, so that it would have several priors"
                )
        self._scorer = Scorer(self.pair, 1, 1, self.seed, details=False, calls=self.epochs)
        if self.compile == "off":
            self._scorer.compile = "off"
        self.stage = self.began = 0
        r"""The stage that the optimizers belong to, and the epoch at which it began."""
        self._learners = self._build(0, 0)
        self.python = self.pair.python.beside(self._algorithm)
        self._made = self.python.read()
        r"""The Python values as the pair was made."""
        self._left: Reading = {}
        r"""As the last epoch left them."""
        self._held: set[str] = set()
        r"""Names that the checkpoint had which was resumed."""
        self.notes: list[str] = []
        r"""What a reader of the results should know."""

    def _build(self, number: int, began: int) -> Learners:
        r"""New optimizers and schedules for a stage that begins at an epoch."""
        stage, epochs = self._stages[number], self._end(number, began) - began
        each = [self._learner(phase, epochs) for phase in stage.phases if phase.parameters]
        return Learners(self._algorithm, stage, each, self.train)

    def _end(self, number: int, began: int) -> int:
        r"""The epoch at which a stage ends, unless its patience does before."""
        epochs = self._stages[number].epochs
        last = epochs is None or number + 1 == len(self._stages)
        return self.epochs if last else min(self.epochs, began + epochs)

    def _planned(self) -> Iterator[Learners]:
        began = 0
        for number in range(len(self._stages)):
            yield self._build(number, began)
            began = self._end(number, began)

    def _learner(self, phase: Phase, epochs: int) -> Learner:
        options: Mapping[str, Any] = {
            **phase.optimizer_options.get(self.optimizer, {}),
            **self.optimizer_options,
        }
        options = map_options(self.pair, self.optimizer, options, self.map_prior, len(self.train))
        parameters = phase.parameters.values()
        optimizer = make_optimizer(self.optimizer, parameters, phase.rate * self.lr, options)
        schedule = make_schedule(self.schedule, optimizer, epochs, self.schedule_options)
        return Learner(Step(self.pair, phase, self.train, self.group), optimizer, schedule)

    def try_objective(self) -> None:
        r"""Evaluate every loss once on a few data, changing nothing, to fail before any work."""
        device = self.train.images.device
        held = [*self.pair.tensors().values(), *self._algorithm.state.values()]
        before = [value.detach().clone() for value in held]
        sizes = [min(len(self.train), self.batch_size, 5)]
        if 0 < self._last < sizes[0]:
            sizes.append(self._last)
        with (
            self.pair.active(),
            self.pair.evaluating(),
            WholeBatch(),
            untouched(self.python, [device]),
        ):
            self.pair.train()
            for learners, size in product(self._planned(), sizes):
                few = torch.arange(size, device=device)
                try:
                    given = learners.begin(few)
                    for learner in learners.each:
                        learner.step.rehearse()
                        loss = learner.step(few, *given)
                        # A standard deviation of one datum fails without an error.
                        if size == self._last and not bool(loss.isfinite().all()):
                            raise ValueError("its loss is not finite")
                except UsageError:
                    raise
                except Exception as error:  # of a pair's code
                    hint = ""
                    if size == self._last:
                        hint = (
                            f"; the last batch of an epoch has {size} of {len(self.train)} data: "
                            "add --drop-last, or take another --batch-size"
                        )
                    raise UsageError(
                        f"{self._algorithm.title} cannot train {self.pair.name}: "
                        f"{one_line(error)}{hint}"
                    ) from error
        for parameter in self.pair.trainable().values():
            parameter.grad = None
        with torch.no_grad():
            for tensor, value in zip(held, before, strict=True):
                tensor.copy_(value)

    def resume(self) -> None:
        r"""Take up the checkpoint: tensors, optimizers, history, generators, position."""
        assert self.checkpoint is not None
        path = self.checkpoint
        state = self.group.agree(lambda: load_checkpoint(path))
        self._held = set(state.get("python", {}))
        if gone := self._load(state, str(self.checkpoint)):
            self._note_lost(gone)
        algorithm, name = self._algorithm, state.get("algorithm", "svi")
        if name != algorithm.name:
            raise UsageError(
                f"{self.checkpoint} was written by --algorithm {name}, this is {algorithm.name}; "
                "resume with the settings of the run"
            )
        self.stage, self.began = state.get("stage", 0), state.get("began", 0)
        self._learners = self._build(self.stage, self.began)
        try:
            self._learners.load(state)
            for name, value in algorithm.state.items():
                value.copy_(state["state"][name])
        except (ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
            raise UsageError(
                f"{self.checkpoint} was written with another optimizer, schedule or option; resume "
                "with the settings of the run"
            ) from error
        self.history, self.best = state["history"], state["best"]
        self.epoch, self.step = state["epoch"], state["step"]
        self.losses = list(state["losses"].to(self.train.images.device))
        if self.compile == "auto":
            self.compiled = state["compiled"]
        restore_random_state(state["random"])

    def run(self) -> list[Row]:
        r"""Train to the last epoch and return the history.

        Raises:
            UsageError: The objective became non-finite; the last good checkpoint is kept.
            KeyboardInterrupt: After the state at the interruption has been saved.
        """
        from tqdm import tqdm

        steps = math.ceil(self._seen / self.batch_size)
        self.pair.train()
        self.group.align([*self.pair.tensors().values(), *self._algorithm.state.values()])
        bar = tqdm(
            total=self.epochs * steps,
            initial=self.epoch * steps + self.step,
            disable=not self.show,
            unit="step",
            desc="training",
            mininterval=0.5,
        )
        if self.epoch == self.step == 0:
            self.save()
        fast = pyro.validation_enabled(False)
        with self.pair.active(), WholeBatch(), fast, bar, sigint() as stop:
            self._run_stage(bar, stop)
            while self.epoch < self._until() and self.stage + 1 < len(self._stages):
                self._next_stage()
                self._run_stage(bar, stop)
        self.pair.eval()
        return self.history

    def _until(self) -> int:
        r"""The epoch after which the run pauses or ends."""
        return self.epochs if self.stop_after is None else min(self.epochs, self.stop_after)

    def _next_stage(self) -> None:
        self._learners.forget()
        self.stage, self.began = self.stage + 1, self.epoch
        self._learners = self._build(self.stage, self.began)
        self.best, self._left = {"value": -math.inf}, {}

    def _run_stage(self, bar: Any, stop: threading.Event) -> None:
        end = min(self._until(), self._end(self.stage, self.began))
        for learner in self._learners.each:
            learner.step.rehearse()
        if self.compiled and not self._learners.compiled and self.epoch < end:
            self._compile(bar)
        while self.epoch < end and not self._out_of_patience():
            self._run_epoch(bar, stop)
        if self.patience and "tensors" in self.best:
            self._load(self.best, "the best epoch")

    def save(self) -> None:
        r"""Write the checkpoint."""
        python, lost = self.python.saved(self._made, self._held)
        if lost:
            self._note_lost(lost)
        if self.checkpoint is None or self.group.rank:
            return
        save_checkpoint(
            self.checkpoint,
            {
                "pair": self.pair.name,
                "source": self.pair.source,
                "tensors": _detached(self.pair.tensors()),
                "stage": self.stage,
                "began": self.began,
                **self._learners.state(),
                "algorithm": self._algorithm.name,
                "state": _detached(self._algorithm.state),
                "history": self.history,
                "best": self.best,
                "epoch": self.epoch,
                "step": self.step,
                "compiled": self.compiled,
                "notes": [*self._algorithm.notes, *self.notes],
                "python": python,
                "losses": torch.stack(self.losses) if self.losses else torch.empty(0),
                "random": random_state(),
            },
        )

    def _compile(self, bar: Any) -> None:
        index = order(len(self.train), self.seed, 0)[: self.batch_size]
        index = index.to(self.train.images.device)
        bar.set_postfix_str("compiling the step")
        try:
            self._learners.compile(index, lambda reason: bar.write(reason) if self.show else None)
        except NotCapturable as reason:
            if self.compile == "on":
                raise UsageError(
                    f"--compile on: {self.pair.name} has to run eagerly: {reason}; use "
                    "--compile auto"
                ) from reason
            self.compiled = False  # in later stages too, as a resumed run has it
            if self.show:
                bar.write(f"{self.pair.name} trains eagerly: {reason}")

    def _update(self, index: Tensor) -> Tensor:
        try:
            return self._learners.update(index)
        except FloatingPointError as error:
            raise self._not_finite(index) from error

    def _run_epoch(self, bar: Any, stop: threading.Event) -> None:
        began, first_step = time.perf_counter(), self.step
        scale = self._beta * kl_scale(self.epoch, self.kl_warm_up)
        self._thaw(bar)
        index = order(len(self.train), self.seed, self.epoch)[: self._seen]
        index = index.to(self.train.images.device)
        self._learners.weigh(scale)
        batches = index.split(self.batch_size)
        for chosen in batches[self.step :]:
            if self.group.stops(stop.is_set()):
                self.group.agree(self.save)
                where = self.checkpoint and self.checkpoint.parent
                raise KeyboardInterrupt(f"--resume --out {where} continues from here")
            self._learners.leave(chosen is batches[-1])
            try:
                loss = self._update(chosen)
            except UsageError:
                raise
            except Exception as error:  # of a pair's code
                said = f"{type(error).__name__}: {one_line(error)}"
                raise UsageError(
                    f"{self.pair.name} failed on a batch of {len(chosen)} in epoch "
                    f"{self.epoch + 1}: {said}"
                ) from error
            self.losses.append(loss * (len(chosen) / len(index)))
            self.step += 1
            bar.update()
        loss, *others = torch.stack(self.losses).sum(0).reshape(-1).tolist()
        objective = -loss
        seen = len(index) - first_step * self.batch_size
        rate = seen / (time.perf_counter() - began)
        row: Row = {
            "epoch": self.epoch + 1,
            "learning_rate": self._learners.each[0].optimizer.param_groups[0]["lr"],
            "kl_scale": scale,
            "objective": objective,
            **{
                f"{learner.step.phase.name}_loss": value
                for learner, value in zip(self._learners.each[1:], others, strict=True)
            },
            **self.group.agree(self._validate),
            **self._algorithm.report(),
            "images_per_second": rate,
        }
        value, name = self.watched(row)
        self.group.check_in_step(self.pair.name)
        if not math.isfinite(objective):
            raise self._not_finite(chosen)
        if not math.isfinite(value):
            raise self._not_finite_at_validation(name)
        self.history.append(row)
        self._learners.end_epoch(value)
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []
        if self.patience and value > self.best["value"]:
            tensors = {k: v.clone() for k, v in _detached(self.pair.tensors()).items()}
            python, _ = self.python.saved(self._made, self._held)
            best = {"value": value, "epoch": self.epoch, "tensors": tensors, "python": python}
            self.best = best
        bar.set_postfix_str(
            f"epoch {self.epoch}, validation {name} {value:.2f} nats/datum, {rate:,.0f} images/s"
        )
        self.save()
        self._left = self.python.read() if self._learners.compiled else {}
        if self.on_epoch is not None:
            self.on_epoch(self.history)

    def _thaw(self, bar: Any) -> None:
        r"""Run eagerly from now on if a value was changed between epochs.

        Compiled steps repeat what followed from it as it was; steps themselves change none.
        """
        if not self._left or not self._learners.compiled:
            return
        now = self.python.read()
        if name := next(iter([*changed(self._left, now), *rebound(self._left, now)]), None):
            self.compiled = False
            self._learners.forget()
            if self.show:
                bar.write(f"{self.pair.name} trains eagerly: {name!r} has changed")

    def _load(self, state: Mapping[str, Any], origin: str) -> list[str]:
        r"""Take over tensors and Python values; the names of values that have no place."""
        self.python.put(self._made)
        self.pair.load_tensors(state["tensors"], origin)
        return self.python.load(state.get("python", {}), self.train.images.device)

    def _note_lost(self, names: Sequence[str]) -> None:
        if not self.notes:
            self.notes = [
                f"note: runs of {self.pair.name} do not resume exactly: no checkpoint holds "
                f"{', '.join(map(repr, names))}, which its code keeps in Python"
            ]
            if self.show:
                print(self.notes[0])

    @staticmethod
    def watched(row: Row) -> tuple[float, str]:
        r"""The validation value that early stopping watches: the ELBO where there is one."""
        name = "elbo" if row["elbo"] is not None else "reconstruction"
        value = row[name]
        assert value is not None
        return value, name

    def _validate(self) -> Row:
        r"""The true ELBO, KL weight 1, on the validation data, with the same draws every epoch."""
        with untouched(self.python, [self.valid.images.device]):
            scores = self._scorer(self.valid)
        return {
            "elbo": None if scores.elbo is None else float(scores.elbo.mean()),
            "reconstruction": float(scores.reconstruction.mean()),
            "kl": None if scores.kl is None else float(scores.kl.mean()),
        }

    def _out_of_patience(self) -> bool:
        best = self.best
        return bool(
            self.patience and "tensors" in best and self.epoch - best["epoch"] >= self.patience
        )

    def _kept(self) -> str:
        return f"; {self.checkpoint} keeps epoch {self.epoch}" if self.checkpoint else ""

    def _not_finite(self, index: Tensor) -> UsageError:
        where = f"epoch {self.epoch + 1}, step {self.step + 1}{self._kept()}"
        said = f"the objective is not finite in {where}"
        return not_finite(self.pair, self.train.take(index), said)

    def _not_finite_at_validation(self, name: str) -> UsageError:
        scores = self._scorer(self.valid)
        values = scores.reconstruction if scores.elbo is None else scores.elbo
        bad = np.flatnonzero(~np.isfinite(values).all(0))
        few = np.resize(bad, max(2, min(len(bad), self.batch_size)))  # a pair sees two or more
        said = (
            f"{name} is not finite in epoch {self.epoch + 1} for {len(bad)} of {len(self.valid)} "
            f"validation data, the first at position {bad[0]}{self._kept()}"
        )
        with self.pair.evaluating():
            return not_finite(self.pair, self.valid.take(torch.from_numpy(few)), said)


def seed_everything(seed: int) -> None:
    r"""Seed torch, NumPy and Python.

    Raises:
        UsageError: Not a whole number from 0 to 2^63 - 1.
    """
    check_seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in tensors.items()}
