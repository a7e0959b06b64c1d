r"""A user's folders and files of arrays: every datum is read once, right, and with its label."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_aevb.data import load
from pyro_aevb.errors import UsageError

PARTS = ("train", "valid", "test")


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (60, 6, 5), dtype=np.uint8)


def put(folder, images, suffix="png", **how):
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(folder / f"{k:03}.{suffix}", **how)


def rows(images, labels=None):
    # the data, each followed by its label, in an order of their own
    table = np.asarray(images, int).reshape(len(images), -1)
    return sorted((table if labels is None else np.c_[table, np.asarray(labels)]).tolist())


def read(data, *parts):
    found = []
    for split in (getattr(data, part) for part in parts or PARTS):
        found += rows(split.images, split.labels)
    return sorted(found)


def sizes(data):
    return [len(getattr(data, part)) for part in PARTS]


def refusal(path):
    with pytest.raises(UsageError) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Splits


def test_a_test_split_alone_is_not_trained_on(tmp_path, grey):
    for part in ("test", "val"):
        put(tmp_path / f"{part}s" / part, grey[:20])
        assert "no training data" in refusal(tmp_path / f"{part}s")
        np.savez(tmp_path / "a.npz", **{f"x_{part}": grey, f"y_{part}": np.arange(60)})
        assert "no training data" in refusal(tmp_path / "a.npz")
    # training data alone are split, so that no datum is in two of the splits
    put(tmp_path / "trains" / "train", grey[:20])
    np.savez(tmp_path / "a.npz", train=grey[:20], labels=np.arange(20))
    shuffle = np.random.RandomState(0).permutation(20)
    for name in ("trains", "a.npz"):
        data = load(str(tmp_path / name))
        assert sizes(data) == [16, 2, 2]
        assert np.array_equal(data.test.images[:, 0], grey[shuffle[18:]])
    assert data.test.labels is not None and data.test.labels.tolist() == shuffle[18:].tolist()


def test_an_array_like_the_splits_is_not_left_out(tmp_path, grey):
    for name in ("eval", "xtest", "holdout"):
        np.savez(tmp_path / "a.npz", train=grey[:40], valid=grey[40:50], **{name: grey[50:]})
        line = refusal(tmp_path / "a.npz")
        assert repr(name) in line and "train, training, valid, val, validation, dev, test" in line
    np.savez(tmp_path / "a.npz", train=grey[:40], val=grey[40:50], test=grey[50:], mean=grey[0])
    data = load(str(tmp_path / "a.npz"))
    assert sizes(data) == [40, 10, 10] and "the arrays mean left out" in data.description


@pytest.mark.parametrize(
    "names", ["trainX trainY testX", "train-x train-y test-x", "XTrain YTrain XTest"]
)
def test_words_of_a_name_are_told_apart_in_all_usual_ways(tmp_path, grey, names):
    arrays = (grey[:40], np.arange(40), grey[40:])
    np.savez(tmp_path / "a.npz", **dict(zip(names.split(), arrays, strict=True)))
    data = load(str(tmp_path / "a.npz"))
    assert np.array_equal(data.test.images[:, 0], grey[40:]) and data.test.labels is None
    assert read(data, "train", "valid") == rows(grey[:40], np.arange(40))


def test_splits_further_down_are_not_thrown_together(tmp_path, grey):
    for part, images in (("train", grey[:40]), ("val", grey[40:])):
        put(tmp_path / "outer" / "inner" / part / "ant", images[::2])
        put(tmp_path / "outer" / "inner" / part / "bee", images[1::2])
        put(tmp_path / "classes" / "ant" / part, images[::2])
        put(tmp_path / "classes" / "bee" / part, images[1::2])
    assert f"{tmp_path / 'outer' / 'inner'} holds the splits train and val" in (
        refusal(tmp_path / "outer")
    )
    assert "ant holds the splits train and val" in refusal(tmp_path / "classes")
    data = load(str(tmp_path / "outer" / "inner"))
    assert read(data, "valid") == rows(grey[40:], np.arange(20) % 2)
    assert read(data, "train", "test") == rows(grey[:40], np.arange(40) % 2)


def test_a_class_may_be_called_train(tmp_path, grey):
    put(tmp_path / "bus", grey[:30])
    put(tmp_path / "train", grey[30:])
    data = load(str(tmp_path))
    assert read(data) == rows(grey, np.arange(60) // 30)
    assert "2 classes: bus, train" in data.description
    # what has classes of its own is a split, and what stands beside it is another
    put(tmp_path / "train" / "steam", grey[:5])
    for path in (tmp_path / "train").glob("*.png"):
        path.unlink()
    assert "the folder bus beside train" in refusal(tmp_path)


def test_a_folder_without_images_beside_splits_is_no_split(tmp_path, grey):
    put(tmp_path / "train", grey[:40])
    put(tmp_path / "test", grey[40:])
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.json").write_text("{}")
    (tmp_path / "train" / "list.csv").write_text("0")
    data = load(str(tmp_path))
    assert read(data, "test") == rows(grey[40:]) and sizes(data) == [36, 4, 20]
    assert "other files passed over (.csv)" in data.description
    put(tmp_path / "annotations", grey[:1])
    assert "the folder annotations beside test and train" in refusal(tmp_path)


# Labels


def test_classes_count_over_all_splits(tmp_path, grey):
    put(tmp_path / "train" / "ant", grey[:20])
    put(tmp_path / "train" / "bee", grey[20:40])
    put(tmp_path / "val" / "bee", grey[40:50])  # one class alone, and not the first
    put(tmp_path / "test" / "cow", grey[50:])
    data = load(str(tmp_path))
    assert read(data, "train") == rows(grey[:40], np.arange(40) // 20)
    assert read(data, "valid") == rows(grey[40:50], np.full(10, 1))
    assert read(data, "test") == rows(grey[50:], np.full(10, 2))
    assert "3 classes: ant, bee, cow" in data.description


def test_images_beside_classes_are_no_class(tmp_path, grey):
    put(tmp_path / "ant", grey[:30])
    put(tmp_path / "bee", grey[30:])
    Image.fromarray(grey[0]).save(tmp_path / "preview.png")
    assert "put preview.png into a folder too" in refusal(tmp_path)
    (tmp_path / "preview.png").unlink()
    assert read(load(str(tmp_path))) == rows(grey, np.arange(60) // 30)


def test_links_are_followed_and_hidden_files_are_not_data(tmp_path, grey):
    put(tmp_path / "f" / "ant", grey[:20])
    put(tmp_path / "elsewhere", grey[20:40])
    (tmp_path / "f" / "bee").symlink_to(tmp_path / "f" / "ant")  # two names: read for both
    (tmp_path / "f" / "cow").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "f" / "ant" / "up").symlink_to(tmp_path / "f")  # back to where it lies
    for hidden in ("@eaDir/ant", ".ipynb_checkpoints", "__MACOSX/ant"):
        put(tmp_path / "f" / hidden, grey[40:41])
    (tmp_path / "f" / "ant" / "._000.png").write_bytes(b"no image")
    expected = rows(np.r_[grey[:20], grey[:40]], np.repeat([0, 1, 2], 20))
    assert read(load(str(tmp_path / "f"))) == expected


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path, grey, monkeypatch):
    put(tmp_path / "ant", grey[:30])
    put(tmp_path / "bee", grey[30:])
    listing = Path.iterdir

    def denied(self):
        if self.name == "bee":
            raise PermissionError(13, "Permission denied", str(self))
        return listing(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", denied)
        assert f"{tmp_path / 'bee'} cannot be read (Permission denied)" in refusal(tmp_path)
    assert read(load(str(tmp_path))) == rows(grey, np.arange(60) // 30)


# Pixels


TURNED = {
    2: lambda a: a[:, :, ::-1],
    3: lambda a: a[:, ::-1, ::-1],
    4: lambda a: a[:, ::-1],
    5: lambda a: a.transpose(0, 2, 1),
    6: lambda a: np.rot90(a, -1, (1, 2)),
    7: lambda a: a[:, ::-1, ::-1].transpose(0, 2, 1),
    8: lambda a: np.rot90(a, 1, (1, 2)),
}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", TURNED)
def test_all_ways_up(tmp_path, grey, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    put(tmp_path, grey[:20], suffix, exif=exif)
    data = load(str(tmp_path))
    assert read(data) == rows(TURNED[orientation](grey[:20]))
    assert "turned as the camera noted" in data.description


def test_each_page_of_a_tiff_has_its_own_way_up(tmp_path, grey):
    exif = Image.Exif()
    exif[0x0112] = 3
    first, *others = (Image.fromarray(page) for page in grey[:12])
    others[4].encoderinfo = {"exif": exif}
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    data = load(str(tmp_path))
    expected = grey[:12].copy()
    expected[5] = expected[5, ::-1, ::-1]
    assert read(data) == rows(expected) and "every page of a TIFF" in data.description
    assert "turned as the camera noted" in data.description


LEVELS = np.array([[0, 1, 2]], np.uint8)
INK = np.stack([LEVELS * 20, [[255, 0, 128]]], -1).astype(np.uint8)  # opaque, clear, half
PALETTE = Image.fromarray(LEVELS, "P")
PALETTE.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
WHITE = [255, 255, 255]
# An image of three pixels in a row, how it is saved, and its pixels over white.
TRANSPARENT = {
    "LA": (Image.fromarray(INK, "LA"), {}, [[0], [255], [147]]),  # 40 * 128/255 + 127 = 147.08
    "L": (Image.fromarray(LEVELS), {"transparency": 1}, [[0], [255], [2]]),
    "RGB": (
        Image.fromarray(np.stack([LEVELS, LEVELS + 3, LEVELS + 6], -1)),
        *({"transparency": (1, 4, 7)}, [[0, 3, 6], WHITE, [2, 5, 8]]),
    ),
    "P one": (PALETTE, {"transparency": 1}, [[10, 20, 30], WHITE, [70, 80, 90]]),
    "P many": (  # 70 * 128/255 + 127 = 162.14, and so on
        *(PALETTE, {"transparency": bytes([255, 0, 128])}),
        [[10, 20, 30], WHITE, [162, 167, 172]],
    ),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_every_kind_of_transparency(tmp_path, kind):
    image, how, expected = TRANSPARENT[kind]
    put(tmp_path, [image] * 10, **how)
    Image.new("L", (3, 1)).save(tmp_path / "black.png")
    data = load(str(tmp_path))
    pixels = np.array(expected).T[:, None]  # (C, 1, 3)
    assert data.event_shape == pixels.shape and "transparency over white" in data.description
    assert read(data) == rows([*[pixels] * 10, np.zeros_like(pixels)])


def test_colour_images_of_few_rows_keep_their_axes(tmp_path):
    for height in (1, 3):
        colour = np.random.default_rng(1).integers(0, 256, (20, height, 7, 3), dtype=np.uint8)
        put(tmp_path / str(height), colour)
        data = load(str(tmp_path / str(height)))
        assert data.event_shape == (3, height, 7) and "channels last" not in data.description
        assert read(data) == rows(colour.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(2, 8, 9), (4, 8, 9), (8, 8, 8), (2, 9, 2)])
def test_what_is_not_channels_last_stays_and_is_said(tmp_path, shape):
    images = np.random.default_rng(2).integers(0, 256, (20, *shape), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    data = load(str(tmp_path / "a.npy"))
    assert read(data) == rows(images) and data.event_shape == shape
    assert "channels first" in data.description


# Damage


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm"])
@pytest.mark.filterwarnings("ignore")  # Pillow's own, on what it can still read
def test_damaged_bytes_are_one_line(tmp_path, grey, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    pages = {"save_all": True, "append_images": [Image.fromarray(grey[1])]}
    how = {"tif": pages | {"exif": exif}, "jpg": {"exif": exif}, "png": {"exif": exif}}
    stream = io.BytesIO()
    kind = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    Image.fromarray(grey[0]).save(stream, kind, **how.get(suffix, {}))
    whole, path = stream.getvalue(), tmp_path / f"a.{suffix}"
    rng = np.random.default_rng(0)
    damaged = 0
    for k in range(150):
        raw = bytearray(whole if k % 2 else whole[: rng.integers(len(whole))])
        for place in rng.integers(len(raw), size=3) if k % 2 else ():
            raw[place] = rng.integers(256)
        path.write_bytes(raw)
        damaged += f"{path} is damaged" in refusal(tmp_path)  # one image is too few, in any case
    assert damaged > 40
