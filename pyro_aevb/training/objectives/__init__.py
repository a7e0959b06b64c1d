r"""Objectives: ``pyro.infer.ELBO`` subclasses that never read a number back to the host."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from pyro_aevb.errors import UsageError, hint
from pyro_aevb.pairs.locate import is_pythons

OBJECTIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "elbo": ("elbo:TraceELBO", {}),
    "sampled_elbo": ("elbo:TraceELBO", {"analytic_kl": False}),
    "iwae": ("iwae:IWAE", {}),
    "dreg": ("dreg:DReG", {}),
    "beta_tcvae": ("beta_tcvae:BetaTCVAE", {}),
    "dip_vae": ("dip_vae:DIPVAE", {}),
    "capacity": ("capacity:Capacity", {}),
}
r"""The file and class of each objective here, and what its name says of its arguments."""


def make_objective(
    name: Any,
    num_particles: int = 1,
    options: Mapping[str, Any] | None = None,
    num_data: int | None = None,
) -> Any:
    r"""An objective from its name, or any stock or custom ``pyro.infer.ELBO``.

    Arguments:
        name: A key of ``OBJECTIVES``, such as ``"elbo"`` (analytic KL where Pyro knows it),
            an import path such as ``"pyro.infer.TraceGraph_ELBO"``, or an ``ELBO`` instance.
        num_particles: Draws per datum in a training step.
        options: Further arguments of the objective.
        num_data: The number of training data, for one that takes it.

    Raises:
        UsageError: No such objective, or options that it does not take.
    """
    from pyro.infer.elbo import ELBO

    if num_particles < 1:
        raise UsageError(f"--num-particles is {num_particles}; it must be at least 1")
    if isinstance(name, ELBO):
        if options:
            raise UsageError("--objective-options: an objective that is made already takes none")
        return name
    if isinstance(name, (dict, list)):
        raise UsageError(
            f"--objective is {name!r}; it takes a name, in Python also an ELBO of Pyro"
        )
    if name in OBJECTIVES:
        place, own = OBJECTIVES[name]
        file, _, attribute = place.partition(":")
        found = getattr(importlib.import_module(f"{__name__}.{file}"), attribute)
        return _made(name, found, num_particles, own, options, num_data)
    module, _, attribute = str(name).replace(":", ".").rpartition(".")
    # Where objectives were when earlier runs were made.
    module = module.replace("pyro_aevb.objectives", "pyro_aevb.training.objectives")
    if is_pythons(module):
        raise UsageError(f"{name} is part of Python, not a subclass of pyro.infer.ELBO")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"no objective {name!r}: use {', '.join(OBJECTIVES)}, or the import path of a "
            "pyro.infer.ELBO subclass such as pyro.infer.Trace_ELBO"
        ) from error
    if not (isinstance(found, type) and issubclass(found, ELBO)):
        raise UsageError(f"{name} is not a subclass of pyro.infer.ELBO")
    if attribute.startswith("Jit"):
        raise UsageError(
            f"{name} is bound to one batch size; use --objective {module}.{attribute[3:]}"
        )
    return _made(name, found, num_particles, {}, options, num_data)


def _made(
    name: str,
    make: Any,
    num_particles: int,
    own: Mapping[str, Any],
    options: Mapping[str, Any] | None,
    num_data: int | None,
) -> Any:
    takes = dict(inspect.signature(make).parameters)
    known = [n for n in takes if n not in ("num_particles", "num_data", "options", *own)]
    for option in options or {}:
        rest = any(p.kind is p.VAR_KEYWORD for p in takes.values()) and name not in OBJECTIVES
        if option not in known and not rest:
            near = hint(option, known)
            raise UsageError(
                f"--objective-options: {name} has no option {option!r}{near}; it takes "
                f"{', '.join(known) or 'none'}"
            )
    filled = {"num_data": num_data} if num_data is not None and "num_data" in takes else {}
    try:
        return make(num_particles=num_particles, **own, **filled, **(options or {}))
    except UsageError:
        raise
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"{name}(num_particles={num_particles}) failed: {error}; from Python, give an instance"
        ) from error
