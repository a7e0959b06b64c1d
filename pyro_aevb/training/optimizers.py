r"""Optimizers and learning-rate schedules of torch, by name."""

import difflib
import inspect
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.pairs.pair import Pair

L2 = ("adadelta", "adagrad", "adam", "adamax", "asgd", "nadam", "radam", "rmsprop", "sgd")
r"""Optimizers that add ``weight_decay`` times the parameter to its gradient, before all else."""


def make_optimizer(
    name: str, parameters: Iterable[Tensor], lr: float, options: Mapping[str, Any]
) -> Optimizer:
    r"""A ``torch.optim`` optimizer, in its fused form where it has one.

    Arguments:
        name: The class in ``torch.optim``, in any case: ``adam``, ``adagrad``, ``sgd``, …
        parameters: The tensors to update.
        lr: The learning rate.
        options: Further arguments, such as ``{"weight_decay": 1e-4}``.

    Raises:
        UsageError: No such optimizer, or options it does not take.
    """
    make = optimizer_class(name)
    if not (math.isfinite(lr) and lr > 0):
        raise UsageError(f"--lr is {lr}; it must be a positive number")
    held = list(parameters)
    try:
        return make(held, lr=lr, **{"fused": True, **options})
    except (TypeError, RuntimeError):
        pass  # no fused form, or none for these options: the ordinary one
    try:
        return make(held, lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--optimizer-options for {name}: {error}") from error


def optimizer_class(name: str) -> Any:
    r"""A class of ``torch.optim`` by its name, in any case.

    Raises:
        UsageError: There is none, or it is not one for dense stochastic gradients.
    """
    classes = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer
    }
    if name.lower() in ("lbfgs", "sparseadam"):
        raise UsageError(f"optimizer {name!r} is not one for dense stochastic gradients; use adam")
    if name.lower() not in classes:
        near = difflib.get_close_matches(name.lower(), classes, 1) or ["adam"]
        raise UsageError(f"no optimizer {name!r} in torch.optim; did you mean {near[0]!r}?")
    return classes[name.lower()]


def map_options(
    pair: Pair,
    optimizer: str,
    options: Mapping[str, Any],
    map_prior: float | None,
    num_data: int,
) -> Mapping[str, Any]:
    r"""Options with which an optimizer maximizes the bound plus a log-prior of the parameters.

    Per datum the objective becomes, up to a constant,

    .. math::
        \frac{1}{N} \mathcal{L}(\theta) + \frac{1}{N} \log \mathcal{N}(\theta; 0, s^2 I),
        \qquad \text{whose gradient is that of the first term} - \frac{\theta}{N s^2},

    for N training data: a ``weight_decay`` of :math:`1 / (N s^2)` where an optimizer adds it to
    the gradient. :math:`\theta` is every trainable parameter of model and guide; one that gets no
    gradient stays where it is. The AEVB paper has s = 1. What is reported leaves the prior out.

    Arguments:
        pair: An inspected pair.
        optimizer: Its name.
        options: Its options.
        map_prior: s; None leaves the options as they are.
        num_data: N.

    Raises:
        UsageError: s is not above 0; the pair has a distribution over weights, which has a prior
            of its own; or the optimizer has no ``weight_decay`` of this kind, or one already.
    """
    if map_prior is None:
        return options
    if not (math.isfinite(map_prior) and map_prior > 0):
        raise UsageError(f"--map-prior is {map_prior}; it is a standard deviation, above 0")
    if pair.description is not None and pair.description.global_sites:
        raise UsageError(
            f"--map-prior is for weights that are points; {pair.name} has a distribution over "
            f"{pair.description.global_sites[0].name!r}, whose prior is in the model"
        )
    if optimizer.lower() not in L2:
        raise UsageError(
            f"--map-prior needs an optimizer that adds weight decay to the gradient, which "
            f"{optimizer} does not; use one of {', '.join(L2)}"
        )
    if "weight_decay" in options or options.get("decoupled_weight_decay"):
        raise UsageError("--map-prior sets weight_decay; leave it out of --optimizer-options")
    return {**options, "weight_decay": 1 / (num_data * map_prior**2)}


def make_schedule(
    name: str, optimizer: Optimizer, epochs: int, options: Mapping[str, Any]
) -> lr_scheduler.LRScheduler:
    r"""A learning-rate schedule, stepped once an epoch.

    Arguments:
        name: ``constant``; ``cosine``, from lr to ``final`` times lr (0.01) over the run;
            ``iwae``, the stages of Burda et al.: stage i = 0, …, 7 lasts :math:`3^i` epochs at
            :math:`\mathrm{lr} \cdot 10^{-i/7}` (3,280 epochs in all; ``scale`` stretches the
            stages, and ``scale: 0`` fits the eight stages to the run); or a class of
            ``torch.optim.lr_scheduler``.
        optimizer: What it steers.
        epochs: Length of the run.
        options: Arguments of the schedule.

    Raises:
        UsageError: No such schedule, or options it does not take.
    """
    options = dict(options)
    if name == "constant":
        _refuse(name, options)
        return lr_scheduler.LambdaLR(optimizer, _constant)
    if name == "cosine":
        final = _number(name, options, "final", 0.01)
        _refuse(name, options)

        def cosine(epoch: int) -> float:
            done = min(1.0, epoch / max(1, epochs))
            return float(final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))

        return lr_scheduler.LambdaLR(optimizer, cosine)
    if name == "iwae":
        scale = _number(name, options, "scale", 1.0)
        _refuse(name, options)
        stretch = scale if scale > 0 else epochs / 3280
        return lr_scheduler.LambdaLR(optimizer, lambda e: 10 ** (-_iwae_stage(e, stretch) / 7))
    found = getattr(lr_scheduler, name, None)
    base = lr_scheduler.LRScheduler
    if not (isinstance(found, type) and issubclass(found, base) and found is not base):
        raise UsageError(
            f"no schedule {name!r}: use constant, cosine, iwae, or a class of "
            "torch.optim.lr_scheduler such as ExponentialLR"
        )
    try:
        schedule = found(optimizer, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--schedule-options for {name}: {error}") from error
    try:
        _rehearse(found, optimizer, options, epochs)
    except Exception as error:  # a schedule's own, or of a function that it was given
        raise UsageError(
            f"--schedule {name} cannot take a step at the end of each of {epochs} epochs: "
            f"{one_line(error)}; let its --schedule-options reach so far"
        ) from error
    return schedule


def _rehearse(kind: Any, optimizer: Optimizer, options: Mapping[str, Any], epochs: int) -> None:
    r"""Take all steps of a run on an optimizer of the same kind that trains nothing."""
    make: Any = type(optimizer)
    takes = inspect.signature(make).parameters
    defaults = {name: value for name, value in optimizer.defaults.items() if name in takes}
    schedule = kind(make([torch.zeros(1, requires_grad=True)], **defaults), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch expects the optimizer to step, too
        for _ in range(epochs):
            schedule.step(*([0.0] if kind is lr_scheduler.ReduceLROnPlateau else []))


def follow(schedule: lr_scheduler.LRScheduler, optimizer: Optimizer) -> None:
    r"""Set the rates to what a schedule over another number of epochs says, if it is a formula."""
    if isinstance(schedule, lr_scheduler.LambdaLR):
        for group, base, factor in zip(
            optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = base * factor(schedule.last_epoch)


def _constant(epoch: int) -> float:
    return 1.0


def _iwae_stage(epoch: int, stretch: float) -> int:
    ends = [stretch * (3 ** (i + 1) - 1) / 2 for i in range(8)]
    return next((i for i, end in enumerate(ends) if epoch < end), 7)


def _number(name: str, options: dict[str, Any], option: str, default: float) -> float:
    value = options.pop(option, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UsageError(f"schedule {name!r}: {option} is {value!r}; it is a number, 0 or more")
    return float(value)


def _refuse(name: str, options: Mapping[str, Any]) -> None:
    if options:
        raise UsageError(f"schedule {name!r} takes no option {next(iter(options))!r}")


def kl_scale(epochs: float, warm_up: int) -> float:
    r"""Weight of the latent KL after so many epochs, parts of them too: rises linearly to 1.

    .. math:: \min(1, \mathrm{epochs} / \mathrm{warm\_up})

    Without a warm-up, of 0 epochs, it is 1.
    """
    return min(1.0, epochs / warm_up) if warm_up else 1.0


def latent_weight(pair: Pair, beta: float | None = None) -> float:
    r"""Weight :math:`\beta` of the latent KL in the objective.

    .. math:: \mathrm{E}_{q(z|x)}[\log p(x|z)] - \beta\, \mathrm{KL}(q(z|x) \,\|\, p(z))

    It multiplies the KL of the codes; in a pair whose codes have no density, that of the weights
    (:meth:`~pyro_aevb.pairs.description.Description.kl_sites`).

    Arguments:
        pair: An inspected pair.
        beta: The weight; None is the pair's attribute ``beta`` where that is a number, else 1.

    Raises:
        UsageError: It is negative or not finite, or not 1 in a pair without a KL.
    """
    if beta is None:
        own = pair.attribute("beta")
        beta = own if isinstance(own, (int, float)) else 1.0
    if not (math.isfinite(beta) and beta >= 0):
        raise UsageError(f"--beta is {beta}; it must be 0 or more")
    description = pair.description
    assert description is not None, "inspect the pair first"
    latent = description.local_sites + description.global_sites
    if beta != 1 and not any(site.density for site in latent):
        reason = description.undefined() or "it has no latent site"
        raise UsageError(f"--beta {beta:g}: {pair.name} has no KL to weigh: {reason}")
    return float(beta)
