r"""Files of other libraries: the numbers that these wrote, at the place of their label."""

import importlib
import sys

import h5py
import numpy as np
import pandas
import pytest
import scipy.io
import scipy.sparse
import torch
from PIL import Image

from pyro_aevb.data import from_arrays, load
from pyro_aevb.errors import UsageError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (60, 6, 5), dtype=np.uint8)
REAL = RNG.normal(size=(60, 4))
COUNTS = RNG.poisson(3.0, (60, 4))
CLASSES = np.arange(60) % 3
WORDS = np.array(["cow", "ant", "bee"])[CLASSES]
NUMBERS = np.array([2, 0, 1])[CLASSES]  # of the words, sorted
SHUFFLE = np.random.RandomState(0).permutation(60)


def rows(data, column="label"):
    # data and a column beside them, of all splits, in the order of the file
    splits = (data.train, data.valid, data.test)
    images = torch.cat([torch.cat([*s.images.split(7)]) for s in splits]).numpy()
    beside = torch.cat([s.columns[column] for s in splits]).numpy()
    return images[np.argsort(SHUFFLE)], beside[np.argsort(SHUFFLE)]


def refusal(name, **how):
    with pytest.raises(UsageError) as caught:
        load(str(name), **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(values=COUNTS, names="abcd"):
    return pandas.DataFrame(values, columns=list(names))


def hdf5(path, userblock_size=None, **arrays):
    with h5py.File(path, "w", userblock_size=userblock_size) as file:
        for key, value in arrays.items():
            file[key] = value


# Tables


@pytest.mark.parametrize("mark", ",;\t")
def test_a_table_of_text(tmp_path, mark):
    frame = table().assign(label=WORDS, when="2020-01-01")
    frame.to_csv(tmp_path / "a.csv", sep=mark)  # with the row numbers that pandas writes
    data = load(str(tmp_path / "a.csv"))
    images, labels = rows(data)
    assert np.array_equal(images, COUNTS) and np.array_equal(labels, NUMBERS)
    assert "columns when left out" in data.description and "3 classes" in data.description
    np.savetxt(tmp_path / "b.csv", REAL, delimiter=mark)  # without names
    expected = REAL[SHUFFLE[-6:]].astype(np.float32)
    assert np.array_equal(load(str(tmp_path / "b.csv")).test.images, expected)


@pytest.mark.parametrize("mark", ";\t")
def test_decimal_commas_and_question_marks_are_numbers(tmp_path, mark):
    values = REAL.round(3)
    values[4, 1] = np.nan
    frame = table(values, ["x1", "x2", "x3", "x4"]).assign(label=WORDS)
    frame.to_csv(tmp_path / "a.csv", sep=mark, decimal=",", na_rep="?", index=False)
    frame.iloc[:, :4].to_csv(tmp_path / "b.csv", sep=mark, decimal=",", header=False, index=False)
    assert "x2" in refusal(tmp_path / "a.csv")  # missing values stay where they are asked for
    for name in ("a.csv:nan", "b.csv:nan"):
        data = load(str(tmp_path / name))
        found = torch.cat([data.train.images, data.valid.images, data.test.images]).numpy()
        assert np.array_equal(found, values[SHUFFLE].astype(np.float32), equal_nan=True)


def test_numbered_columns_are_the_data_and_a_column_says_the_split(tmp_path):
    parts = np.array(["Train", "val", "test"])[CLASSES]
    frame = table(REAL, ["x1", "x2", "x3", "x4"]).assign(age=CLASSES * 10, split=parts)
    frame.to_csv(tmp_path / "a.csv", index=False)
    data = load(str(tmp_path / "a.csv"))
    for number, split in enumerate((data.train, data.valid, data.test)):
        expected = REAL[CLASSES == number].astype(np.float32)
        assert np.array_equal(split.images, expected)
        assert split.columns["age"].tolist() == [10 * number] * 20
    frame.assign(split="held").to_csv(tmp_path / "a.csv", index=False)
    assert "'split' has 'held'; it says one of train," in refusal(tmp_path / "a.csv")
    frame.assign(split=np.where(CLASSES, parts, "")).to_csv(tmp_path / "a.csv", index=False)
    assert "the column 'split' has nothing in row 0; fill it in" in refusal(tmp_path / "a.csv")
    for words in (np.where(CLASSES, WORDS, ""), np.where(CLASSES, CLASSES, np.nan)):
        frame.assign(label=words).to_csv(tmp_path / "a.csv", index=False)
        data = load(str(tmp_path / "a.csv"))
        assert f"{(CLASSES == 0).sum()} labels are not known (-1)" in data.description
        for number, split in enumerate((data.train, data.valid, data.test)):
            assert bool((split.labels < 0).all()) is (number == 0)
    pandas.DataFrame({"a": WORDS}).to_csv(tmp_path / "a.csv", index=False)
    assert "has no column of numbers" in refusal(tmp_path / "a.csv")
    table(names="abca").to_csv(tmp_path / "a.csv", index=False)  # pandas renames the second
    assert load(str(tmp_path / "a.csv")).event_shape == (4,)


def test_missing_values_are_refused_by_name_or_left_in_where_it_is_said(tmp_path):
    holes = REAL.copy()
    holes[SHUFFLE[3], 1] = holes[SHUFFLE[5], 3] = np.nan  # training data
    table(holes).to_csv(tmp_path / "a.csv", index=False)
    line = refusal(tmp_path / "a.csv")
    first = min(SHUFFLE[3], SHUFFLE[5])
    assert f"missing values (NaN) in columns b, d, first in datum {first}" in line
    assert line.endswith(f"{tmp_path / 'a.csv'}:nan (from_arrays(missing=True))")
    data = load(f"{tmp_path / 'a.csv'}:nan")
    seen = np.float32(holes[SHUFFLE[:48]])
    assert np.array_equal(data.train.images, seen, equal_nan=True)
    assert "2 missing values (NaN) left in" in data.description
    np.testing.assert_allclose(data.mean, np.nanmean(seen, 0), rtol=1e-5)
    assert data.train.range() == (np.nanmin(seen), np.nanmax(seen))
    few = load(f"{tmp_path / 'a.csv'}:nan:6").train.images
    assert np.array_equal(few, seen[:6], equal_nan=True)
    np.save(tmp_path / "a.npy", np.where(np.isnan(holes), np.nan, 0.5 + holes / 100))
    on_disk = load(f"{tmp_path / 'a.npy'}:nan", memory=100)
    assert "2 missing values" in on_disk.description and "(NaN) in columns 1, 3" in (
        refusal(tmp_path / "a.npy", memory=100)
    )
    with pytest.raises(UsageError, match="makes bits of missing values"):
        importlib.import_module("pyro_aevb.data").Batches(on_disk.train, "dynamic")
    holes[4, 0] = np.inf
    np.save(tmp_path / "a.npy", holes)
    assert "infinite values" in refusal(f"{tmp_path / 'a.npy'}:nan")


# Arrays by name


def test_hdf5_and_keras(tmp_path):
    parts = {"x_train": GREY[:30], "x_test": GREY[30:], "y_train": WORDS[:30].tolist()}
    hdf5(tmp_path / "a.h5", **parts, y_test=WORDS[30:].astype("S"))
    groups = {f"{k.split('_')[1]}/{k.split('_')[0]}": v for k, v in parts.items()}
    hdf5(tmp_path / "b.h5", **groups, **{"test/y": WORDS[30:].tolist()})
    np.savez(tmp_path / "c.npz", **parts, y_test=WORDS[30:])
    for name, memory in (("a.h5", None), ("b.h5", None), ("a.h5", 100), ("c.npz", None)):
        data = load(str(tmp_path / name), memory=memory)
        test = torch.cat([*data.test.images.split(7)])
        assert np.array_equal(test[:, 0], GREY[30:]) and data.train.scale == 255
        assert data.test.labels.tolist() == NUMBERS[30:].tolist()
        assert ("read from the disk" in data.description) == (memory is not None)


@pytest.mark.parametrize("seven", [False, True])
def test_matlab(tmp_path, seven):
    colour = RNG.integers(0, 256, (6, 5, 3, 60), dtype=np.uint8)  # (H, W, C, N)
    path = tmp_path / "a.mat"
    for x, expected in ((REAL, np.float32(REAL)), (colour, colour.transpose(3, 2, 0, 1))):
        beside = {"y": CLASSES[:, None], "age": CLASSES[:, None] / 2}
        if seven:  # as MATLAB writes it: HDF5 behind a head, the axes reversed
            reversed_axes = {key: value.T for key, value in (beside | {"X": x}).items()}
            hdf5(path, userblock_size=512, **reversed_axes)
            with path.open("r+b") as file:
                file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
        else:
            scipy.io.savemat(path, beside | {"X": x})
        data = load(str(path))
        images, labels = rows(data)
        assert np.array_equal(images, expected) and np.array_equal(labels, CLASSES)
        assert np.array_equal(rows(data, "age")[1], np.float32(CLASSES / 2))


@pytest.mark.filterwarnings("ignore")  # torch's, about its sparse tensors
def test_tensors(tmp_path):
    torch.save((torch.tensor(REAL), torch.tensor(CLASSES)), tmp_path / "a.pt")
    images, labels = rows(load(str(tmp_path / "a.pt")))
    assert np.array_equal(images, np.float32(REAL)) and np.array_equal(labels, CLASSES)
    x = torch.tensor(COUNTS)
    torch.save({"train": {"x": x[:40].to_sparse()}, "test": {"x": x[40:]}}, tmp_path / "a.pt")
    assert np.array_equal(load(str(tmp_path / "a.pt")).test.images, COUNTS[40:])
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    assert "or holds Python objects (pickled), which are not read" in refusal(tmp_path / "a.pt")


def test_sparse_counts(tmp_path):
    scipy.sparse.save_npz(tmp_path / "a.npz", scipy.sparse.csr_matrix(COUNTS))
    assert np.array_equal(load(str(tmp_path / "a.npz")).test.images, COUNTS[SHUFFLE[-6:]])
    assert "is sparse and would take" in refusal(tmp_path / "a.npz", memory=100)


@pytest.mark.parametrize("suffix, library", [("parquet", "pyarrow"), ("h5ad", "anndata")])
def test_what_a_missing_library_is(tmp_path, monkeypatch, suffix, library):
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    monkeypatch.setitem(sys.modules, library, None)
    expected = f"a.{suffix} needs {library}: pip install {library}"
    assert refusal(tmp_path / f"a.{suffix}").endswith(expected)


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    table(REAL).assign(label=WORDS).to_parquet(tmp_path / "a.parquet")
    images, labels = rows(load(str(tmp_path / "a.parquet")))
    assert np.array_equal(images, np.float32(REAL)) and np.array_equal(labels, NUMBERS)


@pytest.mark.filterwarnings("ignore")  # of AnnData, about itself
def test_gene_counts(tmp_path):
    anndata = pytest.importorskip("anndata")
    anndata.settings.allow_write_nullable_strings = True
    cells = pandas.DataFrame({"label": WORDS, "batch": pandas.Categorical(WORDS)})
    genes = scipy.sparse.csr_matrix(np.float32(COUNTS))
    anndata.AnnData(genes, obs=cells.set_index(cells.index.astype(str))).write_h5ad(
        tmp_path / "a.h5ad"
    )
    data = load(str(tmp_path / "a.h5ad"))
    images, labels = rows(data)
    assert np.array_equal(images, COUNTS) and np.array_equal(labels, NUMBERS)
    assert np.array_equal(rows(data, "batch")[1], NUMBERS)


def test_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.save_group(str(tmp_path / "a.zarr"), x=GREY, label=CLASSES)
    for memory in (None, 1000):
        images, labels = rows(load(str(tmp_path / "a.zarr"), memory=memory))
        assert np.array_equal(images[:, 0], GREY) and np.array_equal(labels, CLASSES)


@pytest.mark.parametrize("suffix", ["csv", "h5", "mat", "pt"])
def test_damaged_files(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\xff\x00 no such file" * 20)
    assert f"{path} is damaged" in refusal(path)


# Layouts


@pytest.mark.parametrize("kind", [">f8", ">i4", ">u2", "<f2", "bool"])
def test_every_type_and_order_of_bytes(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.asfortranarray(COUNTS.astype(kind)))
    expected = COUNTS.astype(kind).astype(np.float32)[SHUFFLE[-6:]]
    for memory in (None, 100):
        data = load(str(tmp_path / "a.npy"), memory=memory)
        found = data.test.images.index_select(0, torch.arange(6))
        assert np.array_equal(found, expected)


def test_arrays_in_memory_and_mapped(tmp_path):
    images, labels = rows(from_arrays("mine", x=REAL.T.copy().T[::-1], y=torch.tensor(CLASSES)))
    assert np.array_equal(images, np.float32(REAL[::-1])) and np.array_equal(labels, CLASSES)
    np.save(tmp_path / "a.npy", GREY)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    data = from_arrays(x=mapped, y=CLASSES, memory=100)
    assert "read from the disk" in data.description
    assert np.array_equal(rows(data)[0][:, 0], GREY)


def test_sequences_are_no_images(tmp_path):
    tokens = RNG.integers(0, 200, (60, 7, 3), dtype=np.uint8)
    lengths = RNG.integers(1, 8, 60)
    np.save(tmp_path / "a.npy", tokens)
    np.savez(tmp_path / "b.npz", x=tokens, length=lengths)
    np.savez(tmp_path / "c.npz", sequences=tokens)
    said = (f"{tmp_path / 'a.npy'}:sequences", tmp_path / "b.npz", tmp_path / "c.npz")
    for name, memory in [(name, m) for name in said for m in (None, 100)]:
        data = load(str(name), memory=memory)
        found = data.test.images.index_select(0, torch.arange(6))
        assert np.array_equal(found, tokens[SHUFFLE[-6:]]) and data.train.scale == 1
        assert "sequences of shape (7, 3)" in data.description
    data = load(str(tmp_path / "a.npy"))
    assert data.event_shape == (1, 7, 3) and "images of one channel" in data.description
    np.savez(tmp_path / "b.npz", x=tokens, length=lengths + 1)
    assert "whole number from 1 to 7 for each sequence" in refusal(tmp_path / "b.npz")


# Images


def test_images_of_16_bits(tmp_path):
    deep = RNG.integers(0, 65536, (11, 6, 5), dtype=np.uint16)
    for number, image in enumerate((*deep, GREY[0])):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    data = load(str(tmp_path))
    splits = (data.train, data.valid, data.test)
    found = torch.cat([split.images for split in splits])[:, 0].numpy()
    expected = np.concatenate([deep / 65535, GREY[:1] / 255])
    np.testing.assert_allclose(found, expected[np.random.RandomState(0).permutation(12)], rtol=1e-6)
    assert "16-bit levels divided by 65535" in data.description


def test_images_are_brought_to_a_size_that_is_said(tmp_path):
    colours = np.stack([GREY[:20], GREY[20:40], GREY[40:]], -1)
    for number in range(20):
        image = GREY[number] if number % 2 else np.kron(GREY[number], np.ones((2, 3), np.uint8))
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    assert refusal(tmp_path).endswith(f"{tmp_path}:15x12")
    data = load(f"{tmp_path}:5x6")
    shuffle = np.random.RandomState(0).permutation(20)
    assert np.array_equal(data.train.images[:, 0], GREY[shuffle[:16]])
    assert "brought to 5x6" in data.description
    for number in range(20):
        Image.fromarray(np.kron(colours[number], np.ones((2, 3, 1), np.uint8))).save(
            tmp_path / f"{number:02}.png"
        )
    found = load(f"{tmp_path}:5x6").train.images
    assert np.array_equal(found, colours[shuffle[:16]].transpose(0, 3, 1, 2))
    np.save(tmp_path / "a.npy", GREY)
    assert "is no folder of images" in refusal(f"{tmp_path / 'a.npy'}:5x6")
    assert "how data are read is said of a path" in refusal("digits:nan")


def test_arrays_of_python_keep_their_masks_truth_values_and_gaps():
    masked = np.ma.masked_array(REAL, mask=REAL > 1)
    gaps = np.where(REAL > 1, np.nan, REAL).astype(np.float32)
    with pytest.raises(UsageError, match=r"NaN.*missing=True"):
        from_arrays(x=masked)
    data = from_arrays(x=masked, known=REAL <= 1, missing=True)
    assert np.array_equal(data.train.images, gaps[SHUFFLE[:48]], equal_nan=True)
    assert torch.equal(data.train.columns["known"], ~data.train.images.isnan())
    with pytest.raises(UsageError, match=r"\[age\] has missing values .*first in datum"):
        from_arrays(x=REAL, age=gaps)
    labels = from_arrays(x=REAL, y=CLASSES[:, None]).train.labels  # as keras has them
    assert np.array_equal(labels, CLASSES[SHUFFLE[:48]])
    half = from_arrays(x=torch.from_numpy(REAL).bfloat16()).train.images
    assert torch.equal(half, torch.from_numpy(REAL[SHUFFLE[:48]]).bfloat16().float())
