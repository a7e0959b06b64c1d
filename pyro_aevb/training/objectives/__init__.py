r"""Objectives: ``pyro.infer.ELBO`` subclasses that never read a number back to the host."""

import importlib
from typing import Any

from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.locate import is_pythons


def make_objective(name: Any, num_particles: int = 1) -> Any:
    r"""An objective from its name, or any stock or custom ``pyro.infer.ELBO``.

    Arguments:
        name: ``"elbo"`` (analytic KL where Pyro knows it), ``"sampled_elbo"``, ``"iwae"``,
            ``"dreg"``, an import path such as ``"pyro.infer.TraceGraph_ELBO"``, or an ``ELBO``
            instance.
        num_particles: Draws per datum in a training step.

    Raises:
        UsageError: No such objective.
    """
    from pyro.infer.elbo import ELBO

    from pyro_aevb.training.objectives.dreg import DReG
    from pyro_aevb.training.objectives.elbo import TraceELBO
    from pyro_aevb.training.objectives.iwae import IWAE

    if num_particles < 1:
        raise UsageError(f"--num-particles is {num_particles}; it must be at least 1")
    if isinstance(name, ELBO):
        return name
    if name == "elbo":
        return TraceELBO(num_particles=num_particles)
    if name == "sampled_elbo":
        return TraceELBO(num_particles=num_particles, analytic_kl=False)
    if name == "iwae":
        return IWAE(num_particles=num_particles)
    if name == "dreg":
        return DReG(num_particles=num_particles)
    module, _, attribute = str(name).replace(":", ".").rpartition(".")
    # Where objectives were when earlier runs were made.
    module = module.replace("pyro_aevb.objectives", "pyro_aevb.training.objectives")
    if is_pythons(module):
        raise UsageError(f"{name} is part of Python, not a subclass of pyro.infer.ELBO")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"no objective {name!r}: use elbo, sampled_elbo, iwae, dreg, or the import path of a "
            "pyro.infer.ELBO subclass such as pyro.infer.Trace_ELBO"
        ) from error
    if not (isinstance(found, type) and issubclass(found, ELBO)):
        raise UsageError(f"{name} is not a subclass of pyro.infer.ELBO")
    if attribute.startswith("Jit"):
        raise UsageError(
            f"{name} is bound to one batch size; use --objective {module}.{attribute[3:]}"
        )
    try:
        return found(num_particles=num_particles)
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"{name}(num_particles={num_particles}) failed: {error}; from Python, give an instance"
        ) from error
