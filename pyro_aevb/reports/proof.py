r"""Whether a device computes what the CPU computes: all families and objectives, a few steps each.

Its table is what a report of a fault should hold.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_aevb.data.batches import Batches
from pyro_aevb.device import shares_memory
from pyro_aevb.errors import UsageError, one_line
from pyro_aevb.reports.assess import environment, processor
from pyro_aevb.reports.tables import markdown_table
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.algorithm import make_algorithm
from pyro_aevb.training.settings import chosen
from pyro_aevb.training.trainer import Trainer, seed_everything

SMALL = {"hidden": [64], "latent_dim": 5}
STACKED = {"hidden": [64, 32]}
PLAYERS = {"optimizer": "sgd"}
r"""Of nets that play against one another: Adam makes steps of full length of gradients that are
nearly 0, so that rounding alone takes two such trainings apart."""
GREEDY = {"binarize": "none", "algorithm_options": {"pretraining_epochs": 1}}
Case = tuple[str, dict[str, Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "VAE": ("VAE", SMALL, {}),
    "VAE, convolutional": ("VAE", {"network": "conv", "latent_dim": 5}, {}),
    "VAE, iwae": ("VAE", SMALL, {"objective": "iwae", "num_particles": 3}),
    "VAE, dreg": ("VAE", SMALL, {"objective": "dreg", "num_particles": 3}),
    "VAE, sampled_elbo": ("VAE", SMALL, {"objective": "sampled_elbo", "kl_warm_up": 2}),
    "VAE, beta_tcvae": ("VAE", SMALL, {"objective": "beta_tcvae"}),
    "VAE, dip_vae": ("VAE", SMALL, {"objective": "dip_vae", "clip_norm": 1.0}),
    "VAE, capacity": ("VAE", SMALL, {"objective": "capacity"}),
    "VAE, wake_sleep": ("VAE", SMALL, {"algorithm": "wake_sleep"}),
    "VAE, monte_carlo_em": ("VAE", SMALL, {"algorithm": "monte_carlo_em", "binarize": "fixed"}),
    "BetaVAE": ("BetaVAE", SMALL, {}),
    "FactorVAE": ("FactorVAE", SMALL, PLAYERS),
    "Autoencoder": ("Autoencoder", SMALL, {"map_prior": 1.0}),
    "DenoisingAutoencoder": ("DenoisingAutoencoder", SMALL, {"corruption": "masking"}),
    "AdversarialAutoencoder": ("AdversarialAutoencoder", SMALL, PLAYERS),
    "InfoGAN": ("InfoGAN", {"latent_dim": 3}, PLAYERS),
    "BayesianAutoencoder": ("BayesianAutoencoder", SMALL, {"weight_noise": "flipout"}),
    "BayesianVAE": ("BayesianVAE", SMALL, {"weight_noise": "local"}),
    "ConditionalVAE": ("ConditionalVAE", SMALL, {}),
    "RBM": ("RBM", {"hidden": 64, "sample_steps": 3}, {}),
    "StackedDenoisingAutoencoder": ("StackedDenoisingAutoencoder", STACKED, GREEDY),
    "DeepBeliefNet": ("DeepBeliefNet", STACKED, GREEDY),
}
r"""What is tried, by name: a pair, its parameters, and settings of ``fit``. ``DCIGN`` is left out,
whose batches need factors of the data."""
SPEED: Case = ("VAE", {"hidden": [500], "latent_dim": 20}, {})
r"""What the speed is measured on: 28 x 28 pixels, batches of 100."""

WAYS: dict[str, Literal["on", "off"]] = {"eager": "off", "compiled": "on"}
DATA, EPOCHS, BATCH = "digits:1200", 4, 100
TOLERANCE = 5e-3
r"""How far the losses of two runs with the same random numbers may differ, relative to their size:
rounding, and what it does to a few draws that are compared with a probability."""
OTHER_DRAWS = 0.05
r"""And with others, which is how a compiled step draws on a GPU."""

_ALGORITHM = (
    *("objective", "num_particles", "objective_options", "weight_noise"),
    *("corruption", "corruption_options"),
)
r"""Settings of ``fit`` that are the algorithm's."""


@dataclass(frozen=True)
class Proven:
    r"""What came of one case.

    Arguments:
        case: Its name in :data:`CASES`.
        loss: The objective of the last epoch on the CPU, in nats per datum where it is a bound.
        difference: By how much an epoch's objective differs on the device at most, relative.
        compiled: And of compiled steps from eager ones there; None where they run eagerly.
        remark: Why something failed, or runs eagerly.
        same_draws: Whether compiled and eager steps have the same random numbers.
    """

    case: str
    loss: float
    difference: float
    compiled: float | None
    remark: str = ""
    same_draws: bool = True

    @property
    def holds(self) -> bool:
        r"""Whether all differences are within what rounding and draws explain."""
        allowed = TOLERANCE if self.same_draws else OTHER_DRAWS
        return self.difference <= TOLERANCE and (self.compiled or 0.0) <= allowed


class DrawnOnCPU(TorchDispatchMode):
    r"""Inside, what is drawn on a device is drawn on the CPU, from its generator, and copied.

    So that a device and the CPU can be compared draw by draw. Which operations draw is what
    PyTorch's tag ``nondeterministic_seeded`` says.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        devices = [x.device for x in given] + [torch.device(kwargs.get("device") or "cpu")]
        there = next((device for device in devices if device.type != "cpu"), None)
        if there is None or torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        moved_args, moved = pytree.tree_map_only(Tensor, lambda x: x.cpu(), (args, kwargs))
        if "device" in moved:
            moved["device"] = torch.device("cpu")
        made = func(*moved_args, **moved)
        if not func._schema.is_mutable:
            return pytree.tree_map_only(Tensor, lambda x: x.to(there), made)
        for place, target, drawn in zip(func._schema.arguments, args, moved_args, strict=False):
            if place.alias_info is not None and place.alias_info.is_write:
                target.copy_(drawn)
                return target
        raise NotImplementedError(f"{func} writes to an argument that is given by name")


def prove(
    device: str = "auto",
    cases: Mapping[str, Case] | None = None,
    compiling: bool = True,
    say: Callable[[str], None] = lambda said: None,
) -> list[Proven]:
    r"""Train every case on the CPU and on a device, from the same start with the same draws.

    Then on the device with its own draws, eagerly and compiled.

    Arguments:
        device: What is proven: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``xpu``.
        cases: What is tried; default :data:`CASES`.
        compiling: Whether compiled steps are tried too.
        say: Told what is tried next.
    """
    found = []
    for name, case in (CASES if cases is None else cases).items():
        say(name)
        found.append(_prove(name, case, device, compiling))
    return found


def _prove(name: str, case: Case, device: str, compiling: bool) -> Proven:
    here, _ = trained(case, "cpu", "off")
    objectives = [row["objective"] for row in here]
    try:
        with DrawnOnCPU():
            there, where = trained(case, device, "off")
    except Exception as error:  # of whatever the device cannot do
        return Proven(name, objectives[-1], np.inf, None, f"fails: {_line(error)}")
    said = {"case": name, "loss": objectives[-1], "difference": _apart(here, there)}
    if not compiling:
        return Proven(**said, compiled=None)
    same = shares_memory(where)
    try:
        eager = there if same else trained(case, device, "off")[0]
        compiled, _ = trained(case, device, "on")
    except Exception as error:
        reason = one_line(error).partition("eagerly: ")[2].removesuffix("; use --compile auto")
        if isinstance(error, UsageError) and reason:
            return Proven(**said, compiled=None, remark=f"eager: {reason}")
        return Proven(**said, compiled=np.inf, remark=f"compiled, it fails: {_line(error)}")
    return Proven(**said, compiled=_apart(eager, compiled), same_draws=same)


def speeds(device: str = "auto") -> dict[str, float]:
    r"""Images a second of training, eagerly and compiled, on the CPU and on a device."""
    images = np.random.default_rng(0).random((5000, 28, 28)) < 0.2
    found = {}
    for where in dict.fromkeys(("cpu", device)):
        for title, compile in WAYS.items():
            try:
                history, _ = trained(SPEED, where, compile, images.astype(np.float32))
            except Exception as error:
                found[f"{where}, {title}: {_line(error)}"] = np.nan
                continue
            found[f"{where}, {title}"] = max(row["images_per_second"] for row in history)
    return found


def trained(
    case: Case, device: str, compile: Literal["on", "off"], data: Any = DATA
) -> tuple[list[Any], torch.device]:
    r"""The history of a few epochs, and where they were trained."""
    trainer, test = begun(case, device, compile, data)
    trainer.try_objective()
    return trainer.run(), test.device


def begun(
    case: Case,
    device: str,
    compile: Literal["on", "off"],
    data: Any = DATA,
    epochs: int = EPOCHS,
    batch: int = BATCH,
) -> tuple[Trainer, Batches]:
    r"""The training of a case, before its first step, and the test data."""
    pair, parameters, given = case
    settings = {**given, "epochs": epochs, "batch_size": batch, "drop_last": True}
    seed_everything(0)
    made = prepare(pair, data, parameters, binarize=settings.pop("binarize", None), device=device)
    name, options = (settings.pop(key, None) for key in ("algorithm", "algorithm_options"))
    own = {name: settings.pop(name) for name in _ALGORITHM if name in settings}
    learning = make_algorithm(name, made.pair, made.train, options, **own)
    trainer = Trainer(
        made.pair, made.train, made.valid, learning, compile=compile, **chosen(settings)
    )
    return trainer, made.test


def _apart(one: list[Any], other: list[Any]) -> float:
    r"""By how much the objectives of two histories differ at most, relative to their size."""
    a, b = (np.array([row["objective"] for row in history]) for history in (one, other))
    size = max(float(np.abs(a).max()), 1e-9)
    return float(np.abs(a - b).max()) / size


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def as_text(rows: Sequence[Proven], speed: Mapping[str, float], device: torch.device) -> str:
    r"""What a report of a fault should hold: the table, the speeds, the machine, a verdict."""
    columns = ["case", "objective", "device - CPU", "compiled - eager", ""]
    cells = []
    for row in rows:
        compiled = "" if row.compiled is None else f"{row.compiled:.1e}"
        remark = row.remark if row.holds else f"DIFFERS {row.remark}".strip()
        cells.append([row.case, f"{row.loss:.4g}", f"{row.difference:.1e}", compiled, remark])
    lines = [
        f"{environment(device)}; {processor()}, {platform.system()}",
        markdown_table(
            f"Training of {EPOCHS} epochs of {DATA}, by case: the objective of the last one on the "
            "CPU, and by how much an epoch's differs at most, relative to its size: on the device "
            "from the CPU with the same random numbers, and compiled from eagerly on the device.",
            columns,
            cells,
            [],
        ).strip(),
        "Images a second, VAE 784-500-20, batch 100: "
        + "; ".join(f"{name} {value:,.0f}" for name, value in speed.items()),
    ]
    wrong = [row.case for row in rows if not row.holds]
    within = f"{TOLERANCE:g} (compiled with other random numbers {OTHER_DRAWS:g})"
    if wrong:
        lines.append(
            f"{len(wrong)} of {len(rows)} differ by more than {within}: {'; '.join(wrong)}"
        )
    else:
        lines.append(f"all {len(rows)} agree within {within}")
    return "\n\n".join(lines)
