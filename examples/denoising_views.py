r"""Three views of an autoencoder, on data in the plane: what denoising, the bound and a decoder do.

1. *A manifold.* Points near a curve are corrupted, and a denoising layer sends them back to it.
2. *A bound on information.* The negative loss is, up to the entropy of the data, a lower bound on
   the information I(X; Y) that a code Y of corrupted data holds on the clean ones; of M patterns
   that are equally likely it cannot exceed log M.
3. *A bent Gaussian.* The decoder of a VAE with one code bends a normal density into the plane.

Called again, it takes up the runs that it finds.

    python examples/denoising_views.py
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import pyro_aevb
from pyro_aevb.data import DataSet, Split


def data_set(name: str, values: np.ndarray, labels: np.ndarray) -> DataSet:
    r"""The values in three parts; what is learnt is to be seen on data that were not."""
    x, y = torch.from_numpy(values).float(), torch.from_numpy(labels)
    parts = [Split(x[i::3], y[i::3], 1) for i in range(3)]
    return DataSet(name, *parts, f"{len(values) // 3} points of {name}", "none")


def curve(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Points near an arc, ``(n, 2)``, and where on it each one is, from 0 to 1."""
    rng = np.random.default_rng(seed)
    t = rng.random(n)
    angle = np.pi * (1 - t)
    points = np.stack([1.5 * np.cos(angle), np.sin(angle) - 0.5], 1)
    return points + 0.03 * rng.normal(size=(n, 2)), t


def manifold(epochs: int, out: Path) -> Path:
    points, t = curve(3000, 0)
    run = pyro_aevb.fit(
        "DenoisingLayer",
        data_set("arc", points, (3 * t).astype(int)),
        {
            "hidden": 100,
            "activation": "tanh",
            "loss": "squared_error",
            "tied": False,
            "corruption": "gaussian",
            "corruption_options": {"std": 0.3},
        },
        epochs=epochs,
        **at(out / "manifold"),
    )
    clean = torch.from_numpy(curve(60, 1)[0]).float()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        corrupted = clean + 0.3 * torch.randn_like(clean)
    back = pyro_aevb.reconstruct(run.pair, corrupted) - corrupted
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    axes.plot(*points[:1000].T, ".", ms=2, color="0.75", label="training data")
    axes.plot(*corrupted.T, "x", ms=5, color="C1", label="corrupted")
    axes.quiver(*corrupted.T, *back.T, angles="xy", scale_units="xy", scale=1, width=0.003)
    axes.set(title="Where reconstruction sends corrupted points")
    axes.legend()
    return saved(figure, out / "manifold.png")


def information(epochs: int, out: Path, patterns: int = 32) -> Path:
    r"""With equally likely patterns H(X) = log M is known, and so the bound, not only up to it."""
    rng = np.random.default_rng(0)
    which = rng.integers(0, patterns, 3000)
    bits = (rng.random((patterns, 40)) < 0.5).astype(float)[which]
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for rate in (0.0, 0.25, 0.5):
        run = pyro_aevb.fit(
            "DenoisingLayer",
            data_set("patterns", bits, which),
            {"hidden": 100, "corruption_options": {"rate": rate}},
            epochs=epochs,
            lr=0.02,
            **at(out / f"information-{rate}"),
        )
        bound = [math.log(patterns) + row["objective"] for row in run.history]
        axes.plot(range(1, epochs + 1), bound, label=f"{rate:.0%} destroyed")
    axes.axhline(math.log(patterns), color="0.6", ls="--", label="H(X) = log M")
    axes.set(xlabel="epoch", ylabel="bound on I(X; Y), nats", ylim=(-1, 1.1 * math.log(patterns)))
    axes.set_title("What training raises is a bound on information")
    axes.legend()
    return saved(figure, out / "information.png")


def bent(epochs: int, out: Path) -> Path:
    points, t = curve(3000, 0)
    run = pyro_aevb.fit(
        "VAE",
        data_set("arc", points, (3 * t).astype(int)),
        {"latent_dim": 1, "hidden": [50, 50], "likelihood": "gaussian", "min_scale": 0.02},
        epochs=epochs,
        lr=5e-3,
        kl_warm_up=epochs // 3,
        num_samples=50,
        **at(out / "bent"),
    )
    z = torch.linspace(-2.5, 2.5, 200)[:, None]
    x = pyro_aevb.decode(run.pair, {"z": z}, torch.zeros(200, 2))
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    left.scatter(z, density, c=z, cmap="viridis", s=8)
    left.set(xlabel="z", ylabel="p(z)", title="The density of the code")
    right.plot(*points[:1000].T, ".", ms=2, color="0.75")
    right.scatter(*x.T, c=z, cmap="viridis", s=12, zorder=3)
    right.set(title="The means that the decoder makes of it", aspect="equal")
    return saved(figure, out / "bent.png")


def at(path: Path) -> dict[str, Any]:
    r"""Where a run goes; what is there already is taken up."""
    return {"out": str(path), "resume": path.exists(), "show": False}


def saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path


def main(epochs: int = 150, out: str = "runs/denoising-views") -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for view in (manifold, information, bent):
        print(view(epochs, folder))


if __name__ == "__main__":
    main()
