r"""What training can be told, beside the pair, the data and the algorithm."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyro_aevb.errors import UsageError, above_zero, of_kind
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.training.algorithm import Algorithm, Phase, Stage
from pyro_aevb.training.optimizers import latent_weight, make_optimizer, make_schedule, map_options


@dataclass(kw_only=True)
class Settings:
    r"""Settings of a training.

    Arguments:
        epochs: How many passes over the training data; schedules end there, or with their stage.
        stop_after: Pause after so many of them in all; a resumed run goes on as if it had not.
        batch_size: B, of all processes together; the last batch of an epoch is smaller where B
            does not divide N.
        drop_last: Leave such a smaller batch out, another one in every epoch.
        optimizer, lr, optimizer_options: See :func:`~.optimizers.make_optimizer`; each phase has
            an optimizer, which begins anew in each stage.
        schedule, schedule_options: See :func:`~.optimizers.make_schedule`; the same holds.
        beta: The weight of the latent KL in the objective, not in the validation; default that of
            the pair, else 1: :func:`~.optimizers.latent_weight`.
        kl_warm_up: Epochs over which the weight of the latent KL rises from 0 to beta, a little at
            each step; 0 is none.
        map_prior: The standard deviation of a normal prior on all parameters, which makes them
            maximum a posteriori: :func:`~.optimizers.map_options`. None is no prior.
        clip_norm: The largest norm of the gradients of a phase together, of the whole batch; larger
            ones are scaled down to it: :func:`~.clipping.clip`. None is any.
        patience: End a stage after this many epochs without a better validation value, or of equal
            values a better ELBO, and return to its best; 0 never does.
        seed: Fixes the order of the data, and the draws of the validation.
        compile: ``on`` captures the step and compiles it, see :class:`~.step.Step`; ``off`` runs
            the handlers at every step; ``auto`` compiles if at least 5,000 steps lie ahead, since
            compiling takes seconds, and falls back to running eagerly, saying why.

    Raises:
        UsageError: A number is negative.
    """

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
    clip_norm: float | None = None
    patience: int = 0
    seed: int = 0
    compile: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "kl_warm_up", "patience", "stop_after"):
            if (getattr(self, name) or 0) < 0:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} is {getattr(self, name)}; it must not be negative")

        if self.clip_norm is not None:
            of_kind("--clip-norm", self.clip_norm, float)
            above_zero("--clip-norm", self.clip_norm)

    def latent_weight(self, pair: Pair, algorithm: Algorithm) -> float:
        r"""The weight of the latent KL; a UsageError where there is none to weigh."""
        beta, name = latent_weight(pair, self.beta), algorithm.name
        if name != "svi" and (self.kl_warm_up or beta != 1):
            flag, remedy = f"--beta {beta:g}", "use --beta 1"
            if self.kl_warm_up:
                flag, remedy = f"--kl-warm-up {self.kl_warm_up}", "leave the flag out"
            raise UsageError(f"{flag} is for --algorithm svi; {name} has no KL to scale: {remedy}")
        if beta != 1 and getattr(getattr(algorithm, "objective", None), "own_weight", False):
            raise UsageError(
                f"the latent KL of {pair.name} has the weight {beta:g}, and --objective capacity "
                "weighs it by its gamma: use --beta 1"
            )
        return beta

    def phases(self, stage: Stage, algorithm: Algorithm) -> list[Phase]:
        r"""Those that train something; a UsageError where a parameter would have several priors."""
        names = [name for phase in stage.phases for name in phase.parameters]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated and self.map_prior is not None:
            raise UsageError(
                f"--map-prior: {algorithm.name} trains {repeated[0]!r} in several phases, each "
                "with a loss of its own, so that it would have several priors"
            )
        return [phase for phase in stage.phases if phase.parameters]

    def optimization(
        self, pair: Pair, phase: Phase, num_data: int, epochs: int
    ) -> tuple[Optimizer, LRScheduler]:
        r"""A new optimizer of a phase's parameters, and a schedule over so many epochs."""
        given = {**phase.optimizer_options.get(self.optimizer, {}), **self.optimizer_options}
        options = map_options(pair, self.optimizer, given, self.map_prior, num_data)
        parameters, lr = phase.parameters.values(), phase.rate * self.lr
        optimizer = make_optimizer(self.optimizer, parameters, lr, options)
        return optimizer, make_schedule(self.schedule, optimizer, epochs, self.schedule_options)


def chosen(arguments: Mapping[str, Any]) -> dict[str, Any]:
    r"""The settings among arguments; None leaves the default."""
    names = {one.name for one in fields(Settings)}
    return {name: v for name, v in arguments.items() if name in names and v is not None}
