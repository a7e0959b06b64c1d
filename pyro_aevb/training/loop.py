r"""The training loop: epochs, validation, early stopping, schedules, progress, checkpoints."""

import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer.elbo import ELBO
from torch import Tensor

from pyro_aevb.data.batches import Batches, order
from pyro_aevb.engine.capture import NotCapturable
from pyro_aevb.engine.cuda_graph import GraphedUpdate, graphable
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import Scorer, check_seed
from pyro_aevb.handlers import WholeBatch
from pyro_aevb.pairs import Pair
from pyro_aevb.sites import log_prob, sample_sites
from pyro_aevb.training.checkpoint import (
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from pyro_aevb.training.optimizers import kl_scale, make_optimizer, make_schedule
from pyro_aevb.training.parallel import Alone
from pyro_aevb.training.step import Step

COMPILE_FROM = 5000
r"""Steps from which on compiling, which takes about 10 s, pays."""

Row = dict[str, float | None]


@dataclass
class Trainer:
    r"""Fit a pair by stochastic gradient ascent on an objective.

    The order of the data in epoch e is a function of the seed and e alone; all other random
    numbers come from the global generators, whose states every checkpoint holds. So a run that was
    interrupted and resumed equals one that was not, bit for bit on a CPU.

    Arguments:
        pair: An inspected pair, on the device of the batches.
        train: Training data, as presented.
        valid: Validation data, as presented; fixed, not drawn anew.
        objective: Any ``pyro.infer.ELBO``.
        checkpoint: Where to keep the state; None keeps it nowhere.
        epochs: How many passes over the training data.
        batch_size: B, of all processes together; the last batch of an epoch is smaller where B
            does not divide N.
        optimizer, lr, optimizer_options: See :func:`~.optimizers.make_optimizer`.
        schedule, schedule_options: See :func:`~.optimizers.make_schedule`.
        weight_noise: ``shared``, ``local``, ``flipout`` or None; see :class:`~.step.Step`.
        kl_warm_up: Epochs over which the weight of the latent KL rises to 1; 0 is none.
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
    objective: ELBO
    checkpoint: Path | None = None
    epochs: int = 100
    batch_size: int = 100
    optimizer: str = "adam"
    lr: float = 1e-3
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    schedule: str = "constant"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    weight_noise: str | None = None
    kl_warm_up: int = 0
    patience: int = 0
    seed: int = 0
    compile: str = "auto"
    on_epoch: Callable[[Sequence[Row]], None] | None = None
    show: bool = False
    group: Alone = field(default_factory=Alone)

    def __post_init__(self) -> None:
        for name in ("epochs", "kl_warm_up", "patience"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} is {getattr(self, name)}; it must not be negative")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 1")
        if self.batch_size < self.group.size:
            raise UsageError(
                f"--batch-size is {self.batch_size} for {self.group.size} processes, which share "
                "every batch; raise it, or start fewer processes"
            )
        if self.compile not in ("auto", "on", "off"):
            raise UsageError(f"--compile is {self.compile!r}; it must be auto, on or off")
        if self.epochs and not self.pair.trainable():
            raise UsageError(f"{self.pair.name} has nothing to train; use --epochs 0 to score it")
        self.history: list[Row] = []
        self.best: dict[str, Any] = {"value": -math.inf, "epoch": -1}
        self.epoch = self.step = 0
        self.losses: list[Tensor] = []
        # Decided once, from the size of the whole run, so that a resumed one does the same.
        steps = self.epochs * (len(self.train) // self.batch_size)
        self.compiled = self.compile == "on" or (self.compile == "auto" and steps >= COMPILE_FROM)
        self._step = Step(self.pair, self.objective, self.train, self.weight_noise, self.group)
        self._update: Callable[[Tensor], Tensor] = self._one_update
        self._scorer = Scorer(self.pair, 1, 1, self.seed, details=False, calls=self.epochs)
        if self.compile == "off":
            self._scorer.compile = "off"
        self._named = self.pair.trainable()
        self._optimizer: Any = None
        self._schedule: Any = None
        if self._named:
            self._optimizer = make_optimizer(
                self.optimizer, self._named.values(), self.lr, self.optimizer_options
            )
            self._schedule = make_schedule(
                self.schedule, self._optimizer, self.epochs, self.schedule_options
            )

    def try_objective(self) -> None:
        r"""Evaluate the objective once on a few data, changing nothing, to fail before any work."""
        few = torch.arange(min(len(self.train), self.batch_size, 5))
        device = self.train.images.device
        devices = [device] if device.type == "cuda" else []
        with self.pair.active(), WholeBatch(), torch.random.fork_rng(devices):
            try:
                self._step.rehearse()
                self._step(few)
            except (NotImplementedError, ValueError, RuntimeError) as error:
                if isinstance(error, UsageError):
                    raise
                raise UsageError(
                    f"{type(self.objective).__name__} cannot train {self.pair.name}: "
                    f"{' '.join(str(error).split())[:300]}"
                ) from error
        for parameter in self._named.values():
            parameter.grad = None

    def resume(self) -> None:
        r"""Take up the checkpoint: tensors, optimizer, schedule, history, generators, position."""
        assert self.checkpoint is not None
        path = self.checkpoint
        state = self.group.agree(lambda: load_checkpoint(path))
        self.pair.load_tensors(state["tensors"], str(self.checkpoint))
        try:
            if self._optimizer is not None:
                self._optimizer.load_state_dict(state["optimizer"])
                self._schedule.load_state_dict(state["schedule"])
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UsageError(
                f"{self.checkpoint} was written with another optimizer or schedule; resume with "
                "the settings of the run"
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

        steps = math.ceil(len(self.train) / self.batch_size)
        self.pair.train()
        self.group.align(self.pair.tensors().values())
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
        with self.pair.active(), WholeBatch(), fast, bar, _sigint() as stop:
            self._step.rehearse()
            if self.compiled and not self._step.compiled and self.epoch < self.epochs:
                self._compile(bar)
            while self.epoch < self.epochs and not self._out_of_patience():
                self._run_epoch(bar, stop)
        if self.patience and "tensors" in self.best:
            self.pair.load_tensors(self.best["tensors"], "the best epoch")
        self.pair.eval()
        return self.history

    def save(self) -> None:
        r"""Write the checkpoint."""
        if self.checkpoint is None or self.group.rank:
            return
        save_checkpoint(
            self.checkpoint,
            {
                "pair": self.pair.name,
                "source": self.pair.source,
                "tensors": _detached(self.pair.tensors()),
                "optimizer": self._optimizer and self._optimizer.state_dict(),
                "schedule": self._schedule and self._schedule.state_dict(),
                "history": self.history,
                "best": self.best,
                "epoch": self.epoch,
                "step": self.step,
                "compiled": self.compiled,
                "losses": torch.stack(self.losses) if self.losses else torch.empty(0),
                "random": random_state(),
            },
        )

    def _compile(self, bar: Any) -> None:
        index = order(len(self.train), self.seed, 0)[: self.batch_size]
        bar.set_postfix_str("compiling the step")
        try:
            self._step.compile(index)
        except NotCapturable as reason:
            if self.compile == "on":
                raise UsageError(
                    f"--compile on: {self.pair.name} has to run eagerly: {reason}; use "
                    "--compile auto"
                ) from reason
            self.compiled = False
            if self.show:
                bar.write(f"{self.pair.name} trains eagerly: {reason}")
            return
        if self.group.size == 1 and graphable(self._optimizer):
            self._update = GraphedUpdate(self._one_update, self._optimizer, self.batch_size)

    def _one_update(self, index: Tensor) -> Tensor:
        loss = self._step(index)
        # On a CPU a look at the loss is free; on a GPU it would wait for the device.
        if not loss.is_cuda and not math.isfinite(float(loss)):
            raise self._not_finite(index)
        self._optimizer.step()
        return loss

    def _run_epoch(self, bar: Any, stop: threading.Event) -> None:
        began, first_step = time.perf_counter(), self.step
        scale = kl_scale(self.epoch, self.kl_warm_up)
        index = order(len(self.train), self.seed, self.epoch).to(self.train.images.device)
        self._step.kl_scale = scale
        for chosen in index.split(self.batch_size)[self.step :]:
            if self.group.stops(stop.is_set()):
                self.group.agree(self.save)
                where = self.checkpoint and self.checkpoint.parent
                raise KeyboardInterrupt(f"--resume --out {where} continues from here")
            try:
                loss = self._update(chosen)
            except UsageError:
                raise
            except (ValueError, RuntimeError, IndexError, TypeError) as error:
                said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                raise UsageError(
                    f"{self.pair.name} failed on a batch of {len(chosen)} in epoch "
                    f"{self.epoch + 1}: {said}"
                ) from error
            self.losses.append(loss * (len(chosen) / len(index)))
            self.step += 1
            bar.update()
        objective = -float(torch.stack(self.losses).sum())
        seen = len(index) - first_step * self.batch_size
        rate = seen / (time.perf_counter() - began)
        row: Row = {
            "epoch": self.epoch + 1,
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "kl_scale": scale,
            "objective": objective,
            **self.group.agree(self._validate),
            "images_per_second": rate,
        }
        value, name = self.watched(row)
        self.group.check_in_step(self.pair.name)
        if not (math.isfinite(objective) and math.isfinite(value)):
            raise self._not_finite(chosen)
        self.history.append(row)
        if isinstance(self._schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self._schedule.step(-value)
        else:
            self._schedule.step()
        self.epoch, self.step, self.losses = self.epoch + 1, 0, []
        if self.patience and value > self.best["value"]:
            tensors = {k: v.clone() for k, v in _detached(self.pair.tensors()).items()}
            self.best = {"value": value, "epoch": self.epoch, "tensors": tensors}
        bar.set_postfix_str(
            f"epoch {self.epoch}, validation {name} {value:.2f} nats/datum, {rate:,.0f} images/s"
        )
        self.save()
        if self.on_epoch is not None:
            self.on_epoch(self.history)

    @staticmethod
    def watched(row: Row) -> tuple[float, str]:
        r"""The validation value that early stopping watches: the ELBO where there is one."""
        name = "elbo" if row["elbo"] is not None else "reconstruction"
        value = row[name]
        assert value is not None
        return value, name

    def _validate(self) -> Row:
        r"""The true ELBO, KL weight 1, on the validation data, with the same draws every epoch."""
        scores = self._scorer(self.valid)
        return {
            "elbo": None if scores.elbo is None else float(scores.elbo.mean()),
            "reconstruction": float(scores.reconstruction.mean()),
            "kl": None if scores.kl is None else float(scores.kl.mean()),
        }

    def _out_of_patience(self) -> bool:
        return bool(self.patience and self.history) and (
            self.epoch - self.best["epoch"] >= self.patience
        )

    @torch.no_grad()
    def _not_finite(self, index: Tensor) -> UsageError:
        x = self.train.take(index)
        guide = poutine.trace(self.pair.guide).get_trace(x)
        model = poutine.trace(poutine.replay(self.pair.model, trace=guide)).get_trace(x)
        terms = [
            f"{side} {name} {float(log_prob(site, 1.0).sum()) / len(x):.6g}"
            for side, trace in (("model", model), ("guide", guide))
            for name, site in sample_sites(trace).items()
        ]
        kept = f"; {self.checkpoint} keeps epoch {self.epoch}" if self.checkpoint else ""
        return UsageError(
            f"the objective is not finite in epoch {self.epoch + 1}, step {self.step + 1}{kept}. "
            f"Log-probabilities per datum of each site: {', '.join(terms)}. Lower --lr, or look at "
            "the site that is not finite"
        )


@contextmanager
def _sigint() -> Iterator[threading.Event]:
    r"""Turn Ctrl-C into a flag that is read between steps; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(*_: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def seed_everything(seed: int) -> None:
    r"""Seed torch, NumPy and Python.

    Raises:
        UsageError: Not a whole number from 0 to 2^63 - 1.
    """
    check_seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in tensors.items()}
