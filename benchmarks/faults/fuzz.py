r"""Files of every format that is read, changed at random: read, or refused in one line.

The changes are those of :mod:`benchmarks.faults.damage`, several at a time, and in text and headers
numbers that are put in the place of others: the largest that there are, negative ones, and digits
of other scripts. No attempt may take more memory than :data:`~benchmarks.faults.batches.MEMORY`.
"""

import io
import random
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse
import torch

from benchmarks.faults import runs
from benchmarks.faults.batches import each_alone
from benchmarks.faults.damage import KINDS
from benchmarks.faults.report import Failure

NUMBERS = (
    *("0", "-1", "1", "2", "99999999999999999999", "4294967296", "1099511627776", "1e400", "nan"),
    *("٣", "²", "0x10", "1_0", " ", "", "2020-13-45", "[" * 200, "{" * 5000),
)
r"""What is put in the place of a number."""


BESIDE = "beside"
r"""The folder, in that of the seeds, of whole pictures that lie beside a changed one."""
ARRAYS = {".npy", ".npz", ".csv", ".tsv", ".pt", ".h5", ".mat", ".parquet", ".h5ad"}
r"""Suffixes of files that hold arrays; others are pictures."""


def _numbers(content: bytearray, rng: random.Random) -> None:
    places = list(re.finditer(rb"\d+", bytes(content[:4096])))
    if places:
        place = rng.choice(places)
        content[place.start() : place.end()] = rng.choice(NUMBERS).encode()


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (*KINDS.values(), *[_numbers] * 4)


def seeds(folder: Path) -> dict[str, Path]:
    r"""A small file of each format, by its suffix."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 6, 6), dtype=np.uint8), np.arange(12) % 3
    np.save(folder / "a.npy", x)
    np.savez(folder / "a.npz", x=x, y=y)
    np.savez_compressed(folder / "b.npz", x_train=x, x_test=x[:4])
    rows = [[*row, k] for row, k in zip(rng.normal(size=(12, 3)).round(2), y, strict=True)]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (folder / "a.csv").write_text("a,b,c,label\n" + text + "\n")
    (folder / "a.tsv").write_text("a\tb\tlabel\n" + "1.5\t2\tx\n" * 6 + "-1\t0\ty\n" * 6)
    scipy.sparse.save_npz(folder / "sparse.npz", scipy.sparse.csr_matrix(rng.poisson(1, (12, 6))))
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, folder / "a.pt")
    _hdf5(folder / "a.h5", x, y)
    _matlab(folder / "a.mat", x, y)
    with h5py.File(folder / "new.mat", "w", userblock_size=512) as file:
        file["x"], file["y"] = x.T, y[None].astype(float)
    with (folder / "new.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    _optional(folder, x, y)
    for suffix in ("pgm", "png", "jpg", "bmp", "gif", "tif", "webp"):
        Image.fromarray(x[0]).resize((8, 8)).save(folder / f"a.{suffix}")
    for number, picture in enumerate(x[1:]):
        beside = folder / BESIDE / f"{number}.png"
        beside.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).resize((8, 8)).save(beside)
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}


def _optional(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    r"""Of formats whose libraries are installed."""
    with suppress(ImportError):
        import pandas

        table = pandas.DataFrame(x.reshape(len(x), -1)[:, :4].astype(float), columns=list("abcd"))
        table.assign(label=y).to_parquet(folder / "a.parquet")
    with suppress(ImportError):
        import anndata

        anndata.AnnData(x.reshape(len(x), -1).astype("f4")).write_h5ad(folder / "a.h5ad")


def _hdf5(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = x, y
        file.create_dataset("z", data=x, chunks=(4, 6, 6), compression="gzip")


def _matlab(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    from scipy.io import savemat

    savemat(path, {"x": x, "y": y})


def _bomb(size: int) -> bytes:
    r"""A compressed array that is a thousand times as large as its file."""
    stream, header = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (size, 6, 6)}
    )
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("x.npy", "w", force_zip64=True) as part,
    ):
        part.write(header.getvalue())
        for _ in range(size * 36 >> 20):
            part.write(bytes(1 << 20))
    return stream.getvalue()


def _claims(*shape: int) -> bytes:
    r"""The header of an array that its file does not hold."""
    stream = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(stream, about)
    return stream.getvalue() + bytes(64)


def hostile() -> dict[str, bytes]:
    r"""Files that were made by hand, by name."""
    return {
        "bomb.npz": _bomb(120_000_000),
        "terabytes.npy": _claims(1 << 40, 6),
        "negative.npy": _claims(-5, 6),
        "overflow.npy": _claims(1 << 62, 1 << 62),
        "nothing.npy": _claims(0, 6),
        "deep.pt": b"\x80\x02" + b"](" * 20000,
        "empty.npz": b"",
        "empty.csv": b"",
        "zeros.png": bytes(100),
        "deep.yaml": b"[" * 100_000,
        "anchors.yaml": b"a: &a [x, x]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (97 + i, 97 + i, b",".join([b"*%c" % (96 + i)] * 9))
            for i in range(1, 10)
        ),
        "date.yaml": b"pair: 2020-02-31\ndata: 99999-99-99T99:99:99Z\n",
    }


def tried(number: int, seed: int, where: Path) -> Iterator[Failure | None]:
    r"""Read changed files; yields what is wrong after each, or None.

    Arguments:
        number: How many, beside those of :func:`hostile`.
        seed: Fixes which format is changed, how, and where.
        where: A folder to work in.
    """
    from pyro_aevb.errors import UsageError

    formats, rng = seeds(where / "seeds"), random.Random(seed)
    plans = [(rng.choice([*formats]), rng.random()) for _ in range(number)]

    def changed(plan: tuple[str, float]) -> str:
        name, at = plan
        rng, content = random.Random(at), bytearray(formats[name].read_bytes())
        for _ in range(rng.choice((1, 1, 2, 5))):
            if content:
                rng.choice(CHANGES)(content, rng)
        return read(where / "fuzzed", name, bytes(content), where / "seeds")

    def whole(name: str) -> str:
        try:
            return read(where / "fuzzed", name, formats[name].read_bytes(), where / "seeds")
        except UsageError as error:
            return f"is refused as it is: {error}"

    yield from each_alone([*formats], whole, str, where)
    yield from each_alone(plans, changed, lambda plan: f"{plan[0]} ({plan[1]})", where)
    files = hostile()

    def made(name: str) -> str:
        return read(where / "fuzzed", name, files[name], where / "seeds")

    yield from each_alone([*files], made, str, where, 1)


def read(folder: Path, name: str, content: bytes, seeds: Path) -> str:
    r"""Read a file as the commands do: data, images in a folder, or settings."""
    from pyro_aevb.data.sets import load
    from pyro_aevb.runs.settings import read_settings

    shutil.rmtree(folder, ignore_errors=True)
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    if path.suffix == ".yaml":
        read_settings(path)
        return ""
    images = path.suffix not in ARRAYS
    if images:  # whole ones beside it, as one picture is too few
        shutil.copytree(seeds / BESIDE, folder, dirs_exist_ok=True)
    data = load(str(folder if images else path))
    data.train.images.sum() if hasattr(data.train.images, "sum") else None
    return ""


def settings_tried(number: int, seed: int, where: Path) -> Iterator[Failure | None]:
    r"""Read changed settings, as ``--config`` does, and those of a run, as its other commands do,
    without the lines that say how they were written."""
    from pyro_aevb.runs.run import Run
    from pyro_aevb.runs.settings import read_settings

    runs.made(runs.fit("SVI", "configured", True), where)
    own = where / "configured" / "settings.yaml"
    text = b"".join(own.read_bytes().splitlines(keepends=True)[1:-1])
    rng = random.Random(seed)

    def attempt(at: float) -> str:
        rng, content = random.Random(at), bytearray(text)
        for _ in range(rng.choice((1, 2, 5))):
            rng.choice(CHANGES)(content, rng)
        own.write_bytes(content)
        if at < 0.5:
            read_settings(own)
            return ""
        found = Run(own.parent)
        found.restore()
        return "" if len(found.results) else "has no results"

    yield from each_alone([rng.random() for _ in range(number)], attempt, str, where)
