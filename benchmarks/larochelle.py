r"""The eight sets of Larochelle et al., drawn anew: pictures, times, and likeness to the published.

``python -m benchmarks.larochelle`` writes ``docs/images/larochelle.png``, and prints how long each
set takes to draw and how those whose published files are in the data root compare with them.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from scipy.stats import ks_2samp
from sklearn.ensemble import RandomForestClassifier

from pyro_aevb.data import larochelle, load, originals
from pyro_aevb.data.larochelle import Digits
from pyro_aevb.reports.plots import canvas

SHOWN = 20


def digits() -> Digits:
    r"""All 70,000 of MNIST, in its own order."""
    data = load("mnist")
    splits = (data.valid, data.train, data.test)
    images = np.concatenate([np.asarray(split.images)[:, 0] for split in splits])
    return images, np.concatenate([np.asarray(split.labels) for split in splits])


def draw(path: Path) -> dict[str, Digits]:
    r"""Draw every set whole, say how long it takes, and save a row of pictures of each."""
    from matplotlib.figure import Figure

    pool, drawn = digits(), {}
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    for name, axes in zip(larochelle.NAMES, figure.subplots(len(larochelle.NAMES)), strict=True):
        start = time.perf_counter()
        drawn[name] = larochelle.generate(name, sum(larochelle.SIZES[name]), lambda: pool)
        print(f"{name}: {time.perf_counter() - start:.1f} s")
        images = drawn[name][0][:SHOWN]
        # framed, as white shapes would run into white paper
        framed = np.pad(images / images.max(), ((0, 0), (1, 1), (1, 1)), constant_values=0.6)
        row = canvas.tile(framed, 1, SHOWN, 2)
        axes.imshow(row, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_yticks([row.shape[0] / 2], [name])
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
    figure.savefig(path, dpi=canvas.DPI)
    return drawn


def compare(name: str, drawn: Digits, n: int) -> None:
    r"""White pixels of both, and whether a random forest tells n of each from as many others."""
    root = Path(os.environ.get("PYRO_AEVB_DATA", "~/.cache/pyro_aevb")).expanduser()
    train, valid, test = larochelle.SIZES[name]
    found = originals.find(name, root / "larochelle", 2, (train + valid, test))
    if found is None:
        print(f"{name}: no published file below {root}")
        return
    true = [np.concatenate(parts) for parts in zip(*found[0], strict=True)]
    for label in (0, 1):
        one, other = (x[y == label].reshape(-1, 784) for x, y in (true, drawn))
        white = one.sum(1, dtype=int), other.sum(1, dtype=int)
        test_ = ks_2samp(*white)
        rng = np.random.RandomState(0)
        both = [x[rng.permutation(len(x))[: 2 * n]] for x in (one, other)]
        x, y = np.concatenate(both), np.arange(4 * n) >= 2 * n
        learn = np.arange(len(x)) % 2 == 0
        forest = RandomForestClassifier(200, random_state=0).fit(x[learn], y[learn])
        print(
            f"{name}, label {label}: white pixels {white[0].mean():.1f} published,"
            f" {white[1].mean():.1f} drawn, Kolmogorov-Smirnov distance {test_.statistic:.4f}"
            f" (p = {test_.pvalue:.2g}); a forest that learns {n:,} of each is right about"
            f" {100 * forest.score(x[~learn], y[~learn]):.1f} % of as many others"
            f" (a coin: 50 ± {98 / np.sqrt(2 * n):.1f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/larochelle.png"))
    drawn = draw(parser.parse_args().out)
    for name in ("rectangles", "convex"):
        for n in (400, 4000):
            compare(name, drawn[name], n)


if __name__ == "__main__":
    main()
