r"""A set that stays on the disk: ``python -m benchmarks.streaming``.

Files of random images are made in a folder of their own and taken away again. One that fits memory
is trained on from there and from the disk, in turns in one process: the ratio of the speeds. A
large one is loaded and read in a process of its own, whose peak memory is looked at.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.measure import say

SHAPE = (3, 64, 64)
BYTES = 3 * 64 * 64
CHUNK = 64
HERE, NPY, HDF5, GZIP, ZARR = "memory", ".npy", "HDF5", "HDF5, gzip 1", "Zarr"
HIDDEN, LARGE_HIDDEN, BATCH = 50, 16, 100


def blocks(count: int) -> Iterator[tuple[int, np.ndarray]]:
    r"""Images a few thousand at a time, smooth enough to be compressed a little."""
    rng = np.random.default_rng(0)
    for start in range(0, count, 4096):
        shape = (min(4096, count - start), *SHAPE)
        yield start, rng.integers(0, 16, shape, np.uint8) * np.uint8(17)


def write(folder: Path, kind: str, count: int) -> Path:
    r"""A file of that kind with so many images."""
    path = folder / {NPY: "x.npy", HDF5: "x.h5", GZIP: "z.h5", ZARR: "x.zarr"}[kind]
    shape, chunks = (count, *SHAPE), (CHUNK, *SHAPE)
    if kind == NPY:
        with path.open("wb") as file:
            head = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, head)
            for _, block in blocks(count):
                block.tofile(file)
    elif kind == ZARR:
        import zarr

        array = zarr.create_array(path, shape=shape, dtype="uint8", chunks=chunks)
        for start, block in blocks(count):
            array[start : start + len(block)] = block
    else:
        import h5py

        packed = {"compression": "gzip", "compression_opts": 1} if kind == GZIP else {}
        with h5py.File(path, "w") as file:
            data = file.create_dataset("images", shape, "u1", chunks=chunks, **packed)
            for start, block in blocks(count):
                data[start : start + len(block)] = block
    return path


def trainer(path: Path, memory: int, compiled: str) -> Callable[[], float]:
    r"""One epoch each time it is called; its images a second, without validation."""
    from pyro_aevb.runs.prepare import prepare
    from pyro_aevb.training.objectives import make_objective
    from pyro_aevb.training.trainer import Trainer

    settings = {"hidden": [HIDDEN], "likelihood": "gaussian"}
    made = prepare("VAE", str(path), settings, device="cpu", memory=memory)
    valid = made.valid.first(1000)
    how: dict[str, Any] = {"batch_size": BATCH, "compile": compiled, "epochs": 1000}
    run = Trainer(made.pair, made.train, valid, make_objective("elbo"), stop_after=0, **how)

    def epoch() -> float:
        run.stop_after = run.progress.epoch + 1
        run.run()
        return float(run.history[-1]["images_per_second"])

    return epoch


def ratios(args: Namespace, folder: Path) -> dict[str, list[float]]:
    r"""Images a second by where they are, in turns."""
    count = args.megabytes * 2**20 // BYTES
    kinds = [NPY, HDF5, GZIP, *([ZARR] if find_spec("zarr") else [])]
    paths = {kind: write(folder, kind, count) for kind in kinds}
    runs = {HERE: trainer(paths[NPY], 1 << 20, args.compile)}
    runs |= {kind: trainer(path, 8, args.compile) for kind, path in paths.items()}
    for epoch in runs.values():
        epoch()  # compiles
    found: dict[str, list[float]] = {kind: [] for kind in runs}
    for turn in range(args.rounds):
        for kind, epoch in runs.items():
            found[kind].append(epoch())
            say(f"round {turn + 1}, {kind}: {found[kind][-1]:,.0f} images/s")
    return found


def large(path: Path) -> None:
    r"""What the process of its own does: load, check a pair, read an epoch, train on a part."""
    from pyro_aevb.runs.prepare import prepare
    from pyro_aevb.training.objectives import make_objective
    from pyro_aevb.training.order import Order
    from pyro_aevb.training.trainer import Trainer

    start = time.perf_counter()
    settings = {"hidden": [LARGE_HIDDEN], "likelihood": "gaussian"}
    made = prepare("VAE", str(path), settings, device="cpu", memory=64)
    began = time.perf_counter()
    coming = Order(made.train, BATCH, False, 0, 1).batches(0, made.train.device)
    with made.train.ahead(coming):
        for index in coming:
            made.train.take(index)
    read = time.perf_counter() - began
    objective, valid = make_objective("elbo"), made.valid.first(1000)
    few = made.train.first(10_000)
    Trainer(made.pair, few, valid, objective, epochs=1, batch_size=BATCH, compile="off").run()
    found = {
        "seconds_before": began - start,
        "megabytes_a_second": len(made.train) * BYTES / 1e6 / read,
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))


def measure(args: Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=args.folder) as made:
        found = ratios(args, Path(made))
    with tempfile.TemporaryDirectory(dir=args.folder) as made:
        path = write(Path(made), NPY, int(args.gigabytes * 1e9) // BYTES)
        say(f"{path.stat().st_size / 1e9:.1f} GB written")
        command = [sys.executable, "-m", "benchmarks.streaming", "--one", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        "images_per_second": found,
        "megabytes": args.megabytes,
        "compile": args.compile,
        "large": {"gigabytes": args.gigabytes, **json.loads(done.stdout.splitlines()[-1])},
        **report.circumstances("benchmarks.streaming", "cpu"),
    }


def page(result: dict[str, Any]) -> str:
    found, large = result["images_per_second"], result["large"]
    here = statistics.median(found[HERE])
    rows = []
    for kind, rates in found.items():
        shares = [one / other for one, other in zip(rates, found[HERE], strict=True)]
        middle = [f"{statistics.median(rates):,.0f}", f"{statistics.median(rates) / here:.2f}"]
        rows.append([kind, *middle, f"{min(shares):.2f} to {max(shares):.2f}"])
    columns = ("images from", "images/s", "of the speed from memory", "by round")
    return (
        f"# Sets that stay on the disk, cpu\n\nA VAE of {BYTES:,}-{HIDDEN}-20 units, "
        f"{'compiled' if result['compile'] == 'on' else 'eager'}, "
        f"batches of {BATCH}, on {result['megabytes']:,} MiB of random 64x64 images in colour, of "
        f"which an epoch visits 80 %; {len(found[HERE])} rounds in turns. The files were just "
        "written, so that the system has them in its memory where there is room.\n\n"
        f"{report.table(columns, rows)}\n"
        f"An `.npy` file of {large['gigabytes']:g} GB in a process of its own, which loads it, "
        f"checks a pair on it, reads an epoch and trains on 10,000 images: peak memory "
        f"**{large['peak_megabytes']:,.0f} MB**, torch and Pyro included. Loading and checking "
        f"look through the file, in {large['seconds_before']:.0f} s; the epoch is read with "
        f"{large['megabytes_a_second']:,.0f} MB/s.\n\n"
        f"{report.circumstances_line(result)}\n"
    )


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=20, help="of the large file")
    parser.add_argument("--megabytes", type=int, default=400, help="of the files compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", choices=("on", "off"), default="on")
    parser.add_argument("--folder", type=Path, help="where there is room; default that of tempfile")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--one", type=Path, help="measure the memory of this file alone")
    args = parser.parse_args()
    if args.one:
        return large(args.one)
    result = measure(args)
    path = args.out / "streaming-cpu.json"
    report.merge(path, result)
    path.with_suffix(".md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
