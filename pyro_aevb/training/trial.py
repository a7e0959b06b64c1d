r"""A trial of all losses, before any work, and how many threads they are fastest with."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyro
import torch

from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.pairs.handlers import WholeBatch
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.state.python import PythonState, untouched
from pyro_aevb.threads import fastest
from pyro_aevb.training.learner import Learners


def try_losses(whole: Pair, stages: Iterable[Learners], python: PythonState) -> None:
    r"""Evaluate every loss once on a few data, changing nothing of the whole pair.

    Raises:
        UsageError: A loss fails.
    """
    for learners in stages:
        pair, order, device = learners.pair, learners.order, learners.data.device
        sizes = {min(order.num_data, order.batch_size, 5)}
        sizes |= {order.last} if 0 < order.last < max(sizes) else set()
        with _unchanged(whole, learners, python):
            for size in sorted(sizes, reverse=True):
                last = size == order.last
                try:
                    _try(learners, torch.arange(size, device=device), last)
                except UsageError as error:  # Pyro appends the shapes of the sites so far
                    raise UsageError(one_line(error)) from error
                except Exception as error:  # of a pair's code
                    said = f"{learners.algorithm.title} cannot train {pair.name}: {one_line(error)}"
                    known = pair.description
                    if known is not None and known.own_draws:
                        said += (
                            f"; {known.no_guide_density()}, which has a density at its own draws "
                            "alone: use --objective elbo or iwae, or a flow with an inverse"
                        )
                    if last:
                        said += (
                            f"; the last batch of an epoch has {size} of {order.num_data} data: "
                            "add --drop-last, or take another --batch-size"
                        )
                    raise UsageError(said) from error


def fastest_threads(
    whole: Pair, learners: Learners, python: PythonState, batch: torch.Tensor
) -> int:
    r"""With how many threads the losses of a batch and their gradients are found fastest.

    Changes nothing of the whole pair. The steps run eagerly, whether the run compiles or not.
    """

    def step() -> None:
        given = learners.begin(batch)
        for learner in learners.each:
            learner.step(batch, *given)

    try:
        with _unchanged(whole, learners, python), pyro.validation_enabled(False):
            return fastest(step)
    except Exception:  # training will say what is wrong with the batch
        return torch.get_num_threads()


@contextmanager
def _unchanged(whole: Pair, learners: Learners, python: PythonState) -> Iterator[None]:
    r"""Inside, the losses of a stage can be evaluated; then all is as it was, without gradients."""
    pair = learners.pair
    held = [*whole.tensors().values(), *learners.algorithm.state.values()]
    before = [value.detach().clone() for value in held]
    try:
        with pair.active(), pair.evaluating(), WholeBatch():
            with untouched(python, [learners.data.device]):
                pair.train()
                yield
    finally:
        for parameter in whole.trainable().values():
            parameter.grad = None
        with torch.no_grad():
            for tensor, value in zip(held, before, strict=True):
                tensor.copy_(value)


def _try(learners: Learners, few: torch.Tensor, last: bool) -> None:
    given = learners.begin(few)
    for learner in learners.each:
        learner.step.rehearse()
        loss = learner.step(few, *given)
        # A standard deviation of one datum fails without an error.
        if last and not bool(loss.isfinite().all()):
            raise ValueError("its loss is not finite")
