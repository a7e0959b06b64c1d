r"""What a learning algorithm is: stages of a run, and in each the phases of its updates."""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, get_type_hints

import torch
from torch import Tensor, nn

from pyro_aevb.data.batch import Data
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.corruption import make_corruption
from pyro_aevb.errors import UsageError, of_kind
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.state.python import untouched
from pyro_aevb.training.objectives import make_objective

Row = dict[str, float | None]
r"""What an epoch adds to ``history.csv``; None where a quantity is not defined."""

ALGORITHMS = {
    "svi": "SVI",
    "wake_sleep": "WakeSleep",
    "monte_carlo_em": "MonteCarloEM",
    "adversarial": "Adversarial",
    "greedy": "Greedy",
    "factor_vae": "FactorVAE",
    "infogan": "InfoGAN",
    "dc_ign": "DCIGN",
    "contrastive_divergence": "ContrastiveDivergence",
}
r"""The class of each algorithm; its file is ``training/NAME.py``."""


@dataclass(frozen=True)
class Phase:
    r"""One kind of update: a loss, and the parameters that its gradient may change.

    Each phase has an optimizer and a schedule of its own, of the kinds that the run states.

    Arguments:
        name: What the phase is called; its loss is column ``NAME_loss`` of ``history.csv``.
        loss: From a batch ``(B, *event_shape)``, with the columns that the pair takes, and its
            index in the training data, ``(B,)``, to the loss in nats per datum, a scalar. It is
            captured: it depends on nothing but shapes and reads no value back. A loss that comes
            back without a gradient has left it in the parameters' ``.grad`` itself.
        parameters: The tensors that this phase trains, by name. Others that the loss depends on
            get no gradient from it.
        repeat: How often each batch takes this phase in a row.
        rate: The learning rate, as a multiple of the run's; options call it ``NAME_rate``.
        optimizer_options: By the name of an optimizer, what it takes in place of torch's defaults
            where the run leaves them: ``{"adam": {"betas": (0.5, 0.999)}}``.
        eager: Why the loss cannot be captured; None where it may be tried.
        particles: How many evaluations of `loss`, each with draws of its own, a step averages. They
            are taken one after the other, each with its gradient, so that one alone is in memory.
            Not for a loss that leaves its gradient itself.
    """

    name: str
    loss: Callable[[Any, Tensor], Tensor]
    parameters: Mapping[str, Tensor]
    repeat: int = 1
    rate: float = 1.0
    optimizer_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    eager: str | None = None
    particles: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise UsageError(
                f"--algorithm-options: {self.name}_rate is {self.rate}; it must be above 0"
            )


@dataclass(frozen=True)
class Stage:
    r"""Some epochs of a run, in which each batch takes the same phases in turn.

    Every stage begins with new optimizers and schedules, which end with it, and with a new count
    of ``--patience``; where that ends it, the next one goes on from its best epoch.

    Arguments:
        phases: In the order in which each batch takes them. The first one's loss is, with the
            other sign, the run's ``objective``.
        epochs: How many; None is the rest of the run, which the last stage takes in any case.
        of: The algorithm whose phases these are, where it is not the run's: one that trains a part
            of the pair, such as a layer, that is a pair itself. In this stage its pair, its
            ``before`` and its ``validate`` stand in for those of the run.
        see: From training or validation data as the run has them to what this stage gets of them,
            such as the codes of a layer below; None is all, as they are.
    """

    phases: Sequence[Phase]
    epochs: int | None = None
    of: "Algorithm | None" = None
    see: Callable[[Batches], Batches] | None = None


class Algorithm:
    r"""A learning algorithm: all that the :class:`~pyro_aevb.training.trainer.Trainer` asks of one.

    Epochs, validation, early stopping, schedules, progress, checkpoints, compilation and several
    processes are the trainer's, the same for all algorithms.

    Each is a class in a file of its own, made with the pair, the training data, and its options:
    further parameters of the constructor, which ``--algorithm-options`` sets.
    """

    name: ClassVar[str]
    r"""As ``--algorithm`` knows it."""
    pair: Pair
    r"""What it trains; needed of one that is a stage of another."""
    phases: Sequence[Phase]
    r"""Those of an algorithm without stages."""
    couples: bool = False
    r"""Whether its loss is no sum over data, but of all of a batch together."""
    needs_last_stage: ClassVar[bool] = False
    r"""Whether a run that would end before the last stage is a mistake."""
    stages: Sequence[Stage] = ()
    r"""One after the other; none is a single one with :attr:`phases`."""
    state: Mapping[str, Tensor] = {}
    r"""Tensors beside the pair's that a resumed run needs, changed in place alone, such as
    persistent chains and an adapted step size. Checkpoints hold them."""
    notes: Sequence[str] = ()
    r"""What a reader of the results should know."""

    def before(self, x: Data, index: Tensor) -> None:
        r"""Called with each batch before its phases, eagerly, for what is not a gradient step.

        Several processes all do this alike for the whole batch, from the same random numbers.

        Arguments:
            x: The batch that the phases get, ``(B, *event_shape)``.
            index: The positions of its data in the training data, ``(B,)``.
        """

    def compile(self, fallback: Callable[[str], None]) -> None:
        r"""Called before the first batch of a compiled stage: compile what :meth:`before` runs.

        Arguments:
            fallback: Told why something has to run eagerly.
        """

    def forget(self) -> None:
        r"""Run eagerly again what :meth:`compile` compiled."""

    def once(self, stage: Stage) -> bool:
        r"""Whether each batch of a stage is looked at once, so that the step may make it too."""
        looks = sum(phase.repeat * phase.particles for phase in stage.phases)
        return looks == 1 and type(self).before is Algorithm.before

    def validate(self, valid: Batches, scorer: Scorer) -> tuple[Row, str]:
        r"""What is found of the validation data after each epoch.

        Called in process 0 alone, with the pair in evaluation mode and without gradients. Random
        numbers and Python values are left as they were.

        Arguments:
            valid: The validation data.
            scorer: Draws once from the guide for each datum, always alike.

        Returns:
            Columns of ``history.csv``, and the name of the one that schedules and early stopping
            watch, the higher the better: here the ELBO at KL weight 1, ``reconstruction`` where
            there is none, in nats per datum.
        """
        found = scorer(valid)
        values = {"elbo": found.elbo, "reconstruction": found.reconstruction, "kl": found.kl}
        row = {name: None if v is None else float(v.mean()) for name, v in values.items()}
        return row, "reconstruction" if found.elbo is None else "elbo"

    def report(self) -> dict[str, float]:
        r"""Further columns of ``history.csv``, asked for after each epoch."""
        return {}

    @property
    def title(self) -> str:
        r"""What messages call it."""
        return self.name


def reached(pair: Pair, data: Batches, loss: Callable[[Any, Tensor], Tensor]) -> dict[str, Tensor]:
    r"""The trainable tensors of a pair that the gradient of a loss reaches, by name.

    Found from a few data, so that no algorithm has to know how a pair calls its nets. Leaves
    everything as it was.

    Arguments:
        pair: An inspected pair.
        data: The training data.
        loss: From a batch and its index to a scalar, as in :class:`Phase`.
    """
    named, device = pair.trainable(), data.device
    index = torch.arange(min(len(data), 5), device=device)
    with pair.running(), untouched(pair.python.beside(loss), [device]):
        value = loss(data.take(index), index)
    if not value.requires_grad:
        return {}
    gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    found = zip(named.items(), gradients, strict=True)
    return {name: parameter for (name, parameter), gradient in found if gradient is not None}


def parted(pair: Pair, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    r"""The trainable tensors of a pair by name: those of one of its modules, and the others."""
    inside = {id(parameter) for parameter in module.parameters()}
    named = pair.trainable()
    own = {name: value for name, value in named.items() if id(value) in inside}
    return own, {name: value for name, value in named.items() if name not in own}


def adam(momentum: float) -> dict[str, dict[str, Any]]:
    r"""Options of a phase's optimizer: Adam with another first decay rate.

    Raises:
        UsageError: It does not lie from 0 to below 1.
    """
    if not 0 <= momentum < 1:
        raise UsageError(
            f"--algorithm-options: momentum is {momentum}; it must lie from 0 to below 1"
        )
    return {"adam": {"betas": (momentum, 0.999)}}


def options_of(name: str) -> list[str]:
    r"""The names of an algorithm's own options.

    Raises:
        UsageError: There is no such algorithm.
    """
    return [] if name == "svi" else list(inspect.signature(_class(name)).parameters)[2:]


def _class(name: str) -> Any:
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(str(name), ALGORITHMS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"no algorithm {name!r}: {hint}there are {', '.join(ALGORITHMS)}")
    return getattr(import_module(f"pyro_aevb.training.{name}"), ALGORITHMS[name])


def make_algorithm(
    name: str | None,
    pair: Pair,
    data: Batches,
    options: Mapping[str, Any] | None = None,
    objective: Any = "elbo",
    num_particles: int = 1,
    objective_options: Mapping[str, Any] | None = None,
    weight_noise: str | None = None,
    corruption: Any = None,
    corruption_options: Mapping[str, Any] | None = None,
) -> Algorithm:
    r"""A learning algorithm from its name.

    Arguments:
        name: A key of ``ALGORITHMS``; None takes the one that the pair's attribute ``algorithm``
            names, else ``svi``.
        pair: An inspected pair.
        data: The training data.
        options: The algorithm's own options, by name.
        objective, num_particles, objective_options, weight_noise: What ``svi`` takes, see
            :class:`~.svi.SVI`; others have losses of their own.
        corruption, corruption_options: For ``svi`` too, see
            :func:`~pyro_aevb.data.corruption.make_corruption`; default the pair's attribute
            ``corruption``.

    Raises:
        UsageError: No such algorithm, or none for this pair; a setting or option that it does not
            take.
    """
    name = name or pair.algorithm or "svi"
    make = _class(name)
    of_kind("--algorithm-options", options, dict[str, Any] | None)
    options = dict(options or {})
    takes = options_of(name)
    for option in options:
        if option not in takes:
            near = difflib.get_close_matches(option, takes, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UsageError(
                f"--algorithm-options: {name} has no option {option!r}{hint}; it takes "
                f"{', '.join(takes) or 'none'}"
            )
        of_kind(
            f"--algorithm-options: {option}", options[option], get_type_hints(make.__init__)[option]
        )
    corrupt = make_corruption(corruption, corruption_options, pair.attribute("corruption"))
    made: Algorithm
    if name == "svi":
        ascended = make_objective(objective, num_particles, objective_options, len(data))
        made = make(pair, ascended, weight_noise, corrupt)
        return made
    if pair.tables:
        raise UsageError(
            f"{pair.name} keeps parameters of each training datum ({min(pair.tables)!r}), which "
            f"{name} does not train; use --algorithm svi"
        )
    for flag, given, default in (
        ("objective", objective, "elbo"),
        ("num-particles", num_particles, 1),
        ("objective-options", objective_options or None, None),
        ("weight-noise", weight_noise, None),
        ("corruption", make_corruption(corruption, corruption_options), None),
    ):
        if given != default:
            raise UsageError(
                f"--{flag} {given} is for --algorithm svi; {name} has losses of its own: leave "
                "the flag out"
            )
    made = make(pair, data, **options)
    if corrupt is not None:
        raise UsageError(
            f"{pair.name} corrupts its input in training ({corrupt}), which {name} does not: "
            f"leave --algorithm {name} out, or add --corruption none"
        )
    return made
