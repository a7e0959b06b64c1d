"""Files of data that claim more than they hold, lie elsewhere, or are not what their name says."""

import resource

import h5py
import numpy as np
import pytest
import scipy.sparse
import torch

from pyro_aevb.data import load
from pyro_aevb.errors import UsageError

GIB = 1 << 30


def few(n=30):
    return np.random.default_rng(0).random((n, 6)).astype("f4")


def sparse(path, **changed):
    parts = {
        "indices": np.tile(np.arange(6, dtype="i4"), 30),
        "indptr": np.arange(0, 181, 6, dtype="i4"),
        "format": b"csr",
        "shape": [30, 6],
        "data": few().ravel(),
    }
    np.savez(path, **{**parts, **changed})


def unwritten(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape=(1 << 33, 6), dtype="f4", chunks=(1 << 20, 6))


def words(path):
    with h5py.File(path, "w") as file:
        file["x"] = few()
        file.create_dataset("y", shape=(400, 10_000_000), dtype="S1", chunks=(400, 1000))


def external(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (30, 6), "u1", external=[("/etc/passwd", 0, 180)])


def link(path):
    with h5py.File(path.with_name("other.h5"), "w") as file:
        file["x"] = few()
    with h5py.File(path, "w") as file:
        file["x"] = h5py.ExternalLink(str(path.with_name("other.h5")), "x")


def matlab(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("x", shape=(6, 1 << 31), dtype="f4", chunks=(6, 1 << 16))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def held_by_itself(path):
    held = {"x": torch.zeros(30, 6)}
    held["more"] = held
    torch.save(held, path)


HOSTILE = {
    "far.npz": (lambda p: sparse(p, indices=np.full(180, 10**8, "i4")), "as a sparse matrix"),
    "near.npz": (lambda p: sparse(p, indices=np.full(180, 6, "i4")), "as a sparse matrix"),
    "kind.npz": (lambda p: sparse(p, format=b"zzz"), "as a sparse matrix"),
    "back.npz": (lambda p: sparse(p, indptr=np.arange(180, -1, -6, "i4")), "as a sparse matrix"),
    "unwritten.h5": (unwritten, "x claims 196,608 MiB, of which the file holds 0 bytes"),
    "words.h5": (words, "y claims 3,814 MiB"),
    "external.h5": (external, "x lies in another file"),
    "link.h5": (link, "x lies in another file"),
    "unwritten.mat": (matlab, "x claims 49,152 MiB"),
    "expanded.pt": (
        lambda p: torch.save(torch.zeros(1).expand(10**8, 4), p),
        "a tensor that repeats its numbers, of 1,525 MiB",
    ),
    "float8.pt": (lambda p: torch.save(torch.zeros(30, 6).to(torch.float8_e5m2), p), "tensors by"),
    "meta.pt": (lambda p: torch.save(torch.zeros(30, 6, device="meta"), p), "tensors by name"),
    "itself.pt": (held_by_itself, "tensors by name"),
    "numbers.pt": (
        lambda p: torch.save({0: torch.zeros(9, 6), 1: torch.zeros(9)}, p),
        "holds 0 and 1",
    ),
    "zero.csv": (lambda p: p.symlink_to("/dev/zero"), "is a device or a pipe"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_line_and_in_bounded_memory(name, tmp_path):
    make, said = HOSTILE[name]
    path = tmp_path / name
    make(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 3 * GIB, hard))
    try:
        with pytest.raises(UsageError) as error:
            load(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_groups_that_link_to_each_other_are_read_once(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        group = file
        for _ in range(24):
            below = group.create_group("a")
            group["b"] = below
            group = below
        file["x"] = few()
    assert len(load(str(tmp_path / "many.h5")).train) == 24


def test_arrays_beyond_the_memory_together_stay_on_the_disk(tmp_path):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["train"], file["test"] = few(30_000), few(30_000)
    data = load(str(tmp_path / "two.h5"), memory=1_000_000)
    stays = [type(split.images).__name__ for split in (data.test, data.train)]
    assert stays == ["Tensor", "OnDisk"]  # in the order of the file


def test_ordinary_files_with_something_beside(tmp_path):
    sparse(tmp_path / "good.npz")
    assert len(load(str(tmp_path / "good.npz")).train) == 24
    dense = scipy.sparse.coo_matrix(few())
    scipy.sparse.save_npz(tmp_path / "coo.npz", dense)
    assert len(load(str(tmp_path / "coo.npz")).train) == 24
    import zipfile

    np.savez(tmp_path / "read.npz", x=few())
    with zipfile.ZipFile(tmp_path / "read.npz", "a") as file:
        file.writestr("README.txt", "what this is")
    assert len(load(str(tmp_path / "read.npz")).train) == 24
    torch.save(torch.eye(40).to_sparse(), tmp_path / "sparse.pt")
    assert load(str(tmp_path / "sparse.pt")).event_shape == (40,)


@pytest.mark.parametrize(
    "labels, said",
    [
        (np.array([np.inf] * 30), "labels of type float64"),
        (np.array([1e300] * 30), "labels of type float64"),
        (np.array([2**64 - 1] * 30, np.uint64), "whole numbers go up to 2"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, said, tmp_path):
    np.savez(tmp_path / "a.npz", x=few(), y=labels)
    with pytest.raises(UsageError, match=said):
        load(str(tmp_path / "a.npz"))
    if labels.dtype == np.uint64:
        np.savez(tmp_path / "a.npz", x=few(), age=labels)
        with pytest.raises(UsageError, match=f"age.*{said}"):
            load(str(tmp_path / "a.npz"))


def test_a_user_without_a_home_has_the_data_that_need_none(monkeypatch):
    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)  # as in a container that runs as another user
    for name in ("HOME", "PYRO_AEVB_DATA"):
        monkeypatch.delenv(name, raising=False)
    assert len(load("digits:60").train) == 60
    for name, root, said in (
        ("mnist", None, "mnist"),
        ("mnist", "~nobody_x", "--data-root ~nobody_x: there is no such home"),
        ("~nobody_x/a.npy", None, "no data set and no file or folder is called"),
    ):
        with pytest.raises(UsageError, match=said):
            load(name, root)


@pytest.mark.parametrize("suffix", ["h5", "h5ad", "mat"])
@pytest.mark.parametrize("header", [bytes(16), b"\2\0\0\0\0\0\0\0" + b"\xff" * 8])
def test_words_that_hdf5_would_read_for_ever_are_damage(header, suffix, tmp_path):
    """The library asks for the next object after one of no bytes, which is that one again."""
    path = tmp_path / f"a.{suffix}"
    with h5py.File(path, "w", userblock_size=512 * (suffix == "mat")) as file:
        file["x"], file["y"] = np.zeros((30, 2)), ["a", "bc"] * 15
    content = bytearray(path.read_bytes())
    if suffix == "mat":
        content[:128] = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    second = content.index(b"GCOL") + 16 + 24  # the first has a header, and room for 8 bytes
    assert content[second : second + 8] == b"\2\0\0\0\0\0\0\0"
    content[second : second + 16] = header
    path.write_bytes(content)
    if suffix == "h5ad":
        pytest.importorskip("anndata")
    with pytest.raises(UsageError, match="is damaged: it cannot be read as HDF5"):
        load(str(path))
