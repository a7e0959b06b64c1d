r"""The set shapes2d: a picture of its sprites, and what a batch and the whole set cost.

``python -m benchmarks.shapes2d`` writes ``docs/images/shapes2d.png``, and prints how long the set
takes to load, what it holds, and how long a batch of 100 takes beside one of 28x28 grey levels, as
they are and binarized at each look as ``mnist`` is by default, and one of 64x64 bits that are kept
whole. Times are of one thread.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from pyro_aevb.data import Batches, DataSet, Split, load, shapes2d
from pyro_aevb.data.sprites import Sprites
from pyro_aevb.reports.plots import canvas

SHOWN = 16
BATCH = 100


def draw(data: DataSet, path: Path) -> None:
    r"""Save a row of training images, and below it all sprites: orientations from left to right."""
    from matplotlib.figure import Figure

    sizes = list(data.factors.values())
    classes = np.indices(sizes[:3]).reshape(3, -1).T
    corner = np.pad(classes, ((0, 0), (0, 2)))  # x and y are 0
    places = data.index_of(torch.from_numpy(corner))
    sprites = data.train.images.index_select(0, places)[:, 0, : shapes2d.ROOM, : shapes2d.ROOM]
    images = data.train.images.index_select(0, torch.arange(SHOWN))[:, 0]
    figure = Figure(figsize=(11, 5.8), layout="constrained")
    rows = [(images, 1, SHOWN), (sprites, sizes[0] * sizes[1], sizes[2])]
    above, below = figure.subplots(2, height_ratios=[1, 7])
    for axes, (pictures, down, across) in zip((above, below), rows, strict=True):
        framed = np.pad(pictures.numpy(), ((0, 0), (1, 1), (1, 1)), constant_values=0)
        tiled = canvas.tile(framed.astype(float), down, across, 1)
        axes.imshow(tiled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    step = tiled.shape[0] / sizes[0]
    below.set_yticks([step * (i + 0.5) for i in range(sizes[0])], shapes2d.SHAPES)
    below.tick_params(length=0)
    below.set_xlabel("orientation, 0 to $2\\pi$, both included; scale, 0.5 to 1, downwards")
    above.set_ylabel("images", rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=canvas.DPI)


def seconds(batches: Batches, rounds: int = 3000) -> float:
    r"""The median time of :meth:`Batches.take`."""
    generator, taken = torch.Generator().manual_seed(0), []
    for _ in range(rounds):
        index = torch.randint(len(batches), (BATCH,), generator=generator)
        start = time.perf_counter()
        batches.take(index)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/shapes2d.png"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    start = time.perf_counter()
    data = load("shapes2d")
    print(f"loaded in {time.perf_counter() - start:.2f} s")
    images, columns = data.train.images, data.train.columns
    assert isinstance(images, Sprites)
    held = {
        "sprites": images.pixels.nbytes,
        "places": images.starts.nbytes,
        "columns": sum(column.nbytes for column in columns.values()),
    }
    print("held: " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in held.items()))
    grey = torch.randint(256, (55_000, 1, 28, 28), dtype=torch.uint8)
    bits = torch.randint(2, (55_000, 1, 64, 64), dtype=torch.uint8)
    peers = {
        "28x28 grey levels": Batches(Split(grey, None, 255), "none"),
        "28x28 grey levels, binarized": Batches(Split(grey, None, 255), "dynamic"),
        "64x64 bits kept whole": Batches(Split(bits, None, 1), "none"),
    }
    own = seconds(Batches(data.train, "none"))
    print(f"a batch of {BATCH}: {own * 1e6:.0f} us")
    for name, batches in peers.items():
        other = seconds(batches)
        print(f"  of {name}: {other * 1e6:.0f} us, ratio {own / other:.2f}")
    draw(data, out)


if __name__ == "__main__":
    main()
