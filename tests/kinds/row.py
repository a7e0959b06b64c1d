"""A kind of pair, and what becomes of it: checked, trained, scored, drawn, annealed; or refused."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.reports.rehearsal import rehearse
from pyro_aevb.runs.prepare import Prepared, prepare
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.trainer import Trainer

SAMPLES = 20
"""Draws of the guide for each datum."""


@dataclass(frozen=True)
class Kind:
    """One row of the table."""

    name: str
    family: str
    """The part of the table that it is in."""
    make: Callable[[], Any]
    """Makes the pair."""
    data: Callable[[], Tensor]
    """Makes the data, ``(40, *event_shape)``."""
    objective: str = "elbo"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Those of the objective."""
    note: str = ""
    """What it is after, and what was changed."""
    refused: str = ""
    """A part of the line that refuses it; of what works there is none."""
    ais: bool = False
    """Whether it is annealed too."""
    columns: Callable[[], Mapping[str, Tensor]] = dict
    """Makes the columns beside the data."""
    slow: bool = False
    """Whether it takes seconds, as some likelihoods themselves do."""


@dataclass
class Outcome:
    """What became of a kind."""

    line: str = ""
    """Why it was refused."""
    pair: Pair | None = None
    test: Batches | None = None
    elbo: Any = None
    """Per datum, in nats; None where the latents have no density."""
    log_likelihood: Any = None
    proposal: str = ""
    """What its latents were drawn from."""
    ais: Any = None
    said: tuple[str, ...] = ()
    """Notes on what could not be drawn or computed."""


def loaded(kind: Kind) -> Prepared:
    """The pair, checked on its data."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    x = kind.data()
    train = Split(x, None, 1, kind.columns())
    few = train.subset(slice(6))
    dataset = DataSet("rows", train, few, few, "40 rows", "none")
    made = kind.make()
    return prepare(made, dataset, device="cpu")


def tried(kind: Kind, full: bool = False) -> Outcome:
    """Check, train by two steps, score; any other exception than a refusal is left to rise.

    Arguments:
        kind: The kind.
        full: Fit a proposal to every datum's posterior, which takes most of the time.
    """
    try:
        prepared = loaded(kind)
        pair, test = prepared.pair, prepared.test
        objective = make_objective(kind.objective, options=kind.options, num_data=40)
        trainer = Trainer(
            pair, prepared.train, prepared.valid, objective, epochs=1, batch_size=20, compile="off"
        )
        trainer.try_objective()
        said = rehearse(prepared)
        trainer.run()
        outcome = Outcome(pair=pair, test=test)
        scores = Scorer(pair, SAMPLES, 2, compile="off")(test)
        outcome.elbo = scores.elbo
        if full and scores.elbo is not None and prepared.description.local_sites:
            marginal = MarginalLikelihood(
                pair, "laplace", 100, 1, compile="off", say=said.append, max_samples=1000
            )(test)
            outcome.log_likelihood, outcome.proposal = marginal.log_likelihood, marginal.proposal
        elif scores.log_weight is not None:
            outcome.log_likelihood, outcome.proposal = scores.log_weight, "guide"
        if kind.ais:
            anneal = Annealer(
                pair,
                test.take(torch.arange(2)),
                4,
                num_temperatures=5,
                leapfrog_steps=2,
                compile="off",
            )
            outcome.ais = anneal(test).lower()
        outcome.said = tuple(said)
        return outcome
    except UsageError as error:
        return Outcome(line=str(error))


def failing(outcome: Outcome) -> str:
    """What is wrong with an outcome that is no refusal; nothing, mostly."""
    values = (outcome.elbo, outcome.log_likelihood, outcome.ais)
    numbers = [value for value in values if value is not None]
    if not all(math.isfinite(float(value.sum())) for value in numbers):
        return "a score is not finite"
    return "; ".join(said for said in outcome.said if said.startswith("note: ") or "\n" in said)
