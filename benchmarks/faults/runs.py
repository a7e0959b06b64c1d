r"""Small runs that faults happen to, what they leave when none does, and whether that is there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults.child import Outcome, command, run

FIT, EVALUATE, COMPARE = "pyro_aevb.fit", "pyro_aevb.evaluate", "pyro_aevb.compare"
FEW = ("--data", "digits:60", "--binarize", "none", "--batch-size", "20", "--compile", "off")
SCORED = ("--num-samples", "2", "--num-data", "4", "--proposal", "guide")
SMALL = ("--pair.hidden", "[8]", "--pair.latent-dim", "2")
LAYERS = ("--pair.hidden", "[8,6]", "--algorithm-options", "{pretraining_epochs: 1}")
FITS: dict[str, tuple[str, ...]] = {
    "SVI": ("--pair", "VAE", *SMALL),
    "patience": ("--pair", "VAE", *SMALL, "--patience", "1", "--corruption", "masking"),
    "adversarial": ("--pair", "AdversarialAutoencoder", *SMALL),
    "wake-sleep": ("--pair", "VAE", *SMALL, "--algorithm", "wake_sleep"),
    "Monte Carlo EM": ("--pair", "VAE", *SMALL, "--algorithm", "monte_carlo_em"),
    "Bayesian": ("--pair", "BayesianVAE", *SMALL),
    "stages": ("--pair", "StackedDenoisingAutoencoder", *LAYERS),
}
r"""Trainings, each of a kind that keeps something else between steps."""
EPOCHS = 3


def fit(kind: str, out: str, scored: bool = False, *more: str) -> list[str]:
    r"""The command that trains one of :data:`FITS`."""
    end = SCORED if scored else ("--no-score",)
    return [FIT, *FITS[kind], *FEW, "--epochs", str(EPOCHS), "--out", out, *end, *more]


def resumed(kind: str, out: str, scored: bool = False) -> list[str]:
    r"""The command that takes up what the other has left."""
    return fit(kind, out, scored, "--resume")


@dataclass(frozen=True)
class Left:
    r"""What a run leaves: tensors and generators, the history without speeds, and the scores."""

    tensors: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any]
    values: Mapping[str, Any]
    r"""Of each datum, in ``results.nc``."""

    @classmethod
    def by(cls, path: Path) -> "Left":
        from pyro_aevb.runs.checkpoint import load_checkpoint
        from pyro_aevb.runs.run import Run

        found = Run.open(path)
        state = load_checkpoint(found.checkpoint)
        history = [{k: v for k, v in row.items() if "second" not in k} for row in found.history]
        tensors = {name: state[name] for name in ("tensors", "state", "best", "random")}
        if not (path / "results.json").is_file():
            return cls(tensors, history, {}, {})
        values = {
            name: found.per_datum("predictive", name).tolist()
            for name in ("log_likelihood", "iwae_bound")
            if found.results["metrics"].get(name, {}).get("value") is not None
        }
        return cls(tensors, history, found.results["metrics"], values)

    def differs(self, other: "Left") -> str:
        r"""What is not the same bit for bit, or nothing."""
        for name in ("tensors", "history", "metrics", "values"):
            if not same(getattr(self, name), getattr(other, name)):
                return f"{name} differ"
        return ""


def same(one: Any, other: Any) -> bool:
    r"""Whether two nested values agree in every bit; NaN is equal to NaN."""
    if isinstance(one, torch.Tensor):
        alike = isinstance(other, torch.Tensor) and one.dtype == other.dtype
        return (
            alike and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
        )
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and one.keys() == other.keys()
            and all(same(one[name], other[name]) for name in one)
        )
    if isinstance(one, (list, tuple)):
        return (
            isinstance(other, (list, tuple))
            and len(one) == len(other)
            and all(map(same, one, other))
        )
    return json.dumps(one, default=str) == json.dumps(other, default=str)


def made(words: Sequence[str], cwd: Path) -> Outcome:
    r"""A command that nothing happens to.

    Raises:
        RuntimeError: It fails all the same.
    """
    outcome = run(command(words), cwd)
    if outcome.status != 0:
        raise RuntimeError(f"{' '.join(words)} fails by itself: {outcome.said()}\n{outcome.err}")
    return outcome
