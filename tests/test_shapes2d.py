"""Rendered shapes: against outlines, closed forms and symmetries; sprites against whole images."""

import io
import math
import zipfile

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from test_data import fails

import pyro_aevb
from pyro_aevb.data import Batches, DataSet, Split, dsprites, load, shapes2d
from pyro_aevb.data.split import looked_through
from pyro_aevb.data.sprites import Sprites
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.supports import telling
from pyro_aevb.runs.prepare import prepare
from pyro_aevb.training.objectives import make_objective
from pyro_aevb.training.trainer import Trainer

AREA = {"square": 22**2, "ellipse": math.pi * 14 * 8, "heart": 14**2 * (1 + math.pi / 4)}
PERIMETER = {"square": 88, "ellipse": 70.3, "heart": 28 + 14 * math.pi}
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SIZES = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}


@pytest.fixture(scope="module")
def data():
    return load("shapes2d")


@pytest.fixture(scope="module")
def sprites(data):
    """By shape, scale and orientation, in the upper left corner; (3, 6, 40, 64, 64)."""
    classes = np.indices((3, 6, 40, 1, 1)).reshape(5, -1).T
    found = data.train.images.index_select(0, data.index_of(torch.from_numpy(classes)))
    return found.numpy().reshape(3, 6, 40, 64, 64)


def outline(shape):
    """Points on the edge of a shape of scale 1, right and up, its centre of mass at 0; (n, 2)."""
    if shape == "square":
        points = np.array([(-11, -11), (11, -11), (11, 11), (-11, 11)], float)
    elif shape == "ellipse":
        t = np.linspace(0, 2 * np.pi, 300, endpoint=False)
        points = np.stack([14 * np.cos(t), 8 * np.sin(t)], 1)
    else:
        t = np.linspace(-np.pi / 4, 3 * np.pi / 4, 150)
        right = 7 * np.stack([np.cos(t), np.sin(t)], 1) + 7 / math.sqrt(2)
        left = right[::-1] * [-1, 1]
        points = np.concatenate([[(0, -14 / math.sqrt(2))], right, left])
    x, y = points.T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum() / 2
    assert area == pytest.approx(AREA[shape], rel=1e-3)
    return points - [((v + np.roll(v, -1)) * cross).sum() / (6 * area) for v in (x, y)]


# The shapes


@pytest.mark.parametrize("number, shape", [*enumerate(shapes2d.SHAPES)])
def test_images_are_the_outlines_filled(data, number, shape):
    """A pixel whose middle is in the outline is white, but for one in 30 of those on the edge."""
    rng, off, edge = np.random.default_rng(number), 0, 0
    middles = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5), -1).reshape(-1, 2)
    for scale in range(6):
        for turn in rng.integers(40, size=6):
            x, y = rng.integers(32, size=2)
            place = data.index_of(torch.tensor([[number, scale, turn, x, y]]))
            image = data.train.images.index_select(0, place)[0, 0].numpy()
            angle = turn * 2 * np.pi / 39
            right, up = outline(shape).T * SCALES[scale]
            turned = np.stack(
                [
                    16.25 + x + right * np.cos(angle) - up * np.sin(angle),
                    16.25 + y - right * np.sin(angle) - up * np.cos(angle),
                ],
                1,
            )
            closed = Outline(np.concatenate([turned, turned[:1]]))
            wrong = closed.contains_points(middles).reshape(64, 64) != (image == 1)
            edges = closed.interpolated(20).vertices
            apart = np.abs(middles[wrong.ravel()][:, None] - edges).max(2).min(1)
            assert (apart < 0.75).all()
            off, edge = off + wrong.sum(), edge + SCALES[scale] * PERIMETER[shape]
    assert off < edge / 30


def test_areas_are_the_closed_forms(sprites):
    for shape, turned in zip(shapes2d.SHAPES, sprites, strict=True):
        for scale, images in zip(SCALES, turned, strict=True):
            white, area = images.sum((1, 2), dtype=float), AREA[shape] * scale**2
            # each pixel on the edge is off by half of itself at most, and they cancel
            assert np.abs(white - area).max() < scale * PERIMETER[shape] / 3
            assert abs(white.mean() - area) < 0.01 * area
    # of squares that are not turned, the share of each pixel that they cover
    edges = np.arange(64)
    for scale, image in zip(SCALES, sprites[0, :, 0], strict=True):
        low, high = 16.25 - 11 * scale, 16.25 + 11 * scale
        line = (np.minimum(edges + 1, high) - np.maximum(edges, low)).clip(0)
        covered = np.outer(line, line)
        clear = np.abs(covered - 0.5) > 1 / 8
        assert clear.sum() > 4000 and np.array_equal(image[clear], covered[clear] > 0.5)


def test_the_centre_is_where_it_should_be(sprites):
    middles, white = np.arange(64) + 0.5, sprites.sum((3, 4))
    for axis in (3, 4):
        mean = (sprites.sum(axis) * middles).sum(3) / white
        assert np.abs(mean - 16.25).max() < 0.3 and abs(mean.mean() - 16.25) < 0.01


def test_angles_count_as_they_should(sprites):
    assert np.array_equal(sprites[:, :, 0], sprites[:, :, -1])
    for scale in SCALES:
        for angle in (0.1, 1.0, 2.5):
            quarter = shapes2d.draw("square", scale, angle + np.pi / 2)
            assert np.array_equal(quarter, shapes2d.draw("square", scale, angle))
            half = shapes2d.draw("ellipse", scale, angle + np.pi)
            assert np.array_equal(half, shapes2d.draw("ellipse", scale, angle))
            # about the middle of the image, so that the pixels turn too
            for shape in shapes2d.SHAPES:
                turned = shapes2d.draw(shape, scale, angle + np.pi / 2, (0, 0))
                straight = shapes2d.draw(shape, scale, angle, (0, 0))
                assert np.array_equal(turned, np.rot90(straight))
    # no quarter turn is a whole number of steps, and few other sprites are the same
    assert 39 % 4 and len(np.unique(sprites.reshape(720, -1), axis=0)) == 699


def test_nothing_is_cut_off(data, sprites):
    pixels = sprites.reshape(720, 64, 64)
    assert not pixels[:, 32:].any() and not pixels[:, :, 32:].any()
    assert pixels.any((0, 2)).sum() == 31 == pixels.any((0, 1)).sum()  # the room is used
    # at the ends of both axes, and so in between; and some of those too
    ends = np.indices((720, 2, 2)).reshape(3, -1).T * (1, 31, 31)
    inner = np.random.default_rng(0).integers((720, 32, 32), size=(20_000, 3))
    number, x, y = np.concatenate([ends, inner]).T
    classes = np.stack([*np.unravel_index(number, (3, 6, 40)), x, y], 1)
    images = data.train.images.index_select(0, data.index_of(torch.from_numpy(classes)))
    white = images.flatten(1).sum(1, dtype=torch.int16).numpy()
    assert np.array_equal(white, pixels.sum((1, 2))[number])


# All combinations


def test_every_combination_is_there_once(data):
    assert len(data.train) == 737_280 and data.event_shape == (1, 64, 64)
    assert dict(data.factors) == SIZES and list(data.train.columns) == list(SIZES)
    classes = torch.stack([data.train.columns[name] for name in SIZES], 1)
    assert classes.dtype == torch.int64 and len(classes.unique(dim=0)) == 737_280
    assert torch.equal(data.index_of(classes), torch.arange(737_280))
    values = data.factor_values
    assert {name: len(table) for name, table in values.items()} == SIZES
    np.testing.assert_allclose(values["scale"], SCALES)
    np.testing.assert_allclose(values["orientation"], np.arange(40) * 2 * np.pi / 39)
    np.testing.assert_allclose(values["x"], np.arange(32) / 31)
    kinds = {"shape": "categorical", "orientation": "periodic"}
    assert data.factor_types == {name: kinds.get(name, "ordered") for name in SIZES}


def test_shifts_are_exact(data, sprites):
    rng = np.random.default_rng(0)
    classes = rng.integers(0, list(SIZES.values()), (200, 5))
    images = data.train.images.index_select(0, data.index_of(torch.from_numpy(classes)))
    assert images.dtype == torch.uint8 and images.shape == (200, 1, 64, 64)
    for (shape, scale, turn, x, y), image in zip(classes, images[:, 0].numpy(), strict=True):
        moved = np.roll(sprites[shape, scale, turn], (y, x), (0, 1))
        assert np.array_equal(image, moved)


def test_validation_and_test_data_are_the_last_training_data(data):
    assert "VALIDATION AND TEST DATA ARE THE LAST OF THESE" in data.description
    assert data.description.startswith("regenerated") and data.regenerated
    last = data.train.subset(slice(-15_000, None))
    for start, split in ((0, data.valid), (5_000, data.test)):
        part = last.subset(slice(start, start + len(split)))
        assert torch.equal(part.images.starts, split.images.starts)
        assert all(torch.equal(part.columns[name], split.columns[name]) for name in SIZES)
    assert (len(data.valid), len(data.test)) == (5_000, 10_000)
    # in a random order: the first few are of all kinds
    few = data.first(2_000).train.columns
    for name, size in SIZES.items():
        counts = torch.bincount(few[name], minlength=size)
        assert (counts - 2_000 / size).abs().max() < 5 * math.sqrt(2_000 / size)


def test_a_combination_that_is_tested_and_never_trained_on(data):
    held = load("shapes2d_held_out")

    def new(split):
        c = split.columns
        return (c["shape"] == 2) & (c["x"] >= 16) & (c["y"] >= 16)

    counts = [(len(part), int(new(part).sum())) for part in (held.train, held.valid, held.test)]
    assert counts == [(737_280 - 61_440 - 5_000, 0), (5_000, 0), (10_000, 10_000)]
    assert held.regenerated and "without 61,440 images" in held.description
    names = list(SIZES)
    table = torch.stack([held.train.columns[name] for name in names], 1)
    both = torch.cat([table, torch.stack([held.valid.columns[name] for name in names], 1)])
    assert len(both.unique(dim=0)) == 737_280 - 61_440  # nothing twice
    # the images are those of their factors
    for split in (held.train, held.test):
        few = split.subset(torch.arange(50))
        place = data.index_of(torch.stack([few.columns[name] for name in names], 1))
        index = torch.arange(50)
        assert torch.equal(
            few.images.index_select(0, index), data.train.images.index_select(0, place)
        )


def test_what_is_held_is_small(data):
    images, columns = data.train.images, data.train.columns
    assert images.pixels.nbytes < 5e6 and images.starts.nbytes == 8 * 737_280
    assert sum(column.nbytes for column in columns.values()) == 5 * 8 * 737_280
    shared = {s.images.pixels.data_ptr() for s in (data.train, data.valid, data.test)}
    assert len(shared) == 1
    for made in (data.train.subset(torch.arange(5)), data.first(9).train):
        assert made.images.pixels.data_ptr() in shared


# Sprites in the place of images


def test_sprites_answer_as_the_images_do(data):
    some = data.train.subset(torch.arange(700))
    whole = Split(some.images.index_select(0, torch.arange(700)), None, 1, some.columns)
    images, tensor = some.images, whole.images
    assert images.shape == tensor.shape and images.dtype == tensor.dtype and len(images) == 700
    assert images.device == tensor.device and not images.is_floating_point()
    index = torch.tensor([5, 0, 699, 5])
    assert torch.equal(images.index_select(0, index), tensor[index])
    assert torch.equal(torch.cat([*images.split(64)]), tensor)
    assert torch.equal(torch.cat([*images[index].split(64)]), tensor[index])
    assert torch.equal(torch.cat([*images[3:600:7].split(64)]), tensor[3:600:7])
    assert some.range() == whole.range() == (0, 1)
    sets = [DataSet("s", split, split, split, "", "none") for split in (some, whole)]
    assert torch.equal(sets[0].mean, sets[1].mean) and 0.05 < sets[0].mean.max() < 1
    for binarize in ("none", "dynamic", "fixed"):
        one, other = (Batches(split, binarize, columns=["shape"]) for split in (some, whole))
        assert one.resident and one.event_shape == (1, 64, 64)
        for batches in (one, one.first(700)):
            batch, expected = batches.take(index), other.take(index)
            assert batch.x.dtype == torch.float32 and torch.equal(batch.x, expected.x)
            assert torch.equal(batch.columns["shape"], expected.columns["shape"])


def test_a_look_at_one_image_of_each_sprite_finds_what_one_at_all_does(data):
    some = data.train.subset(torch.arange(3_000))
    whole = Split(some.images.index_select(0, torch.arange(3_000)), None, 1)
    seen = torch.cat([block for _, block in looked_through(some.images)]).flatten(1).sum(1)
    everything = whole.images.flatten(1).sum(1)
    assert len(seen) < 720 and torch.equal(seen.unique(), everything.unique())
    for places, block in looked_through(some.images):
        assert torch.equal(block, whole.images[places])
    found = [telling(Batches(split, "none")) for split in (some, whole)]
    assert torch.equal(*found)


def test_sprites_are_bits_that_stay_in_the_frame():
    sprites = torch.zeros(2, 5, 6, dtype=torch.uint8)
    sprites[0, :2, :3] = 1
    one = torch.zeros(1, dtype=torch.int64)
    placed = Sprites.placed(sprites, one, one + 3, one + 3)
    expected = torch.zeros(5, 6, dtype=torch.uint8)
    expected[3:, 3:] = 1
    assert torch.equal(placed.index_select(0, one)[0, 0], expected)
    Sprites.placed(sprites, one + 1, one + 5, one + 6)  # nothing to be cut off
    for down, right in ((4, 0), (0, 4), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="leaves the frame"):
            Sprites.placed(sprites, one, one + down, one + right)
    for wrong in (2 * sprites, sprites.float()):
        with pytest.raises(ValueError, match="0 or 1"):
            Sprites.placed(wrong, one, one, one)


def trained(data, compile):
    torch.manual_seed(0)
    made = prepare("VAE", data, {"hidden": [8], "latent_dim": 2})
    objective = make_objective("elbo", 1)
    trainer = Trainer(
        made.pair, made.train, made.valid.first(8), objective, epochs=1, batch_size=50, seed=1,
        compile=compile,
    )  # fmt: skip
    trainer.run()
    learners = trainer._learners
    (learner,) = learners.each
    assert learners.in_step and learner.step.compiled == (compile == "on")
    return made.pair.tensors()


def test_a_compiled_step_makes_the_images_it_is_asked_for(data):
    few = data.first(300)
    whole = Split(few.train.images.index_select(0, torch.arange(300)), None, 1)
    kept = DataSet("kept", whole, few.valid, few.test, "", "none")
    eager, compiled, plain = trained(few, "off"), trained(few, "on"), trained(kept, "off")
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)
        assert torch.equal(plain[name], value)


def test_a_run_on_the_first_shapes(tmp_path):
    run = pyro_aevb.fit(
        "VAE", "shapes2d:2000", {"hidden": [8]}, epochs=1, num_samples=5, num_data=20,
        proposal="prior", compile="off", out=str(tmp_path), show=False,
    )  # fmt: skip
    assert "THE FIRST 2,000 ALONE" in run.results["data_description"]
    assert run.results["binarization"] == "none"
    assert math.isfinite(run.results["metrics"]["elbo"]["value"])


# Factors


def refused(act, *said):
    with pytest.raises(UsageError) as error:
        act()
    line = str(error.value)
    assert "\n" not in line and all(part in line for part in said), line


def test_what_is_no_combination_is_one_line(data):
    refused(lambda: data.index_of(torch.tensor([[0, 6, 0, 0, 0]])), "scale is 6", "0 to 5")
    refused(lambda: data.index_of(torch.tensor([[0, -1, 0, 0, 0]])), "scale is -1")
    refused(lambda: data.index_of(torch.tensor([0, 0])), "5 factors (shape, scale", "(B, 5)")
    few = data.first(10)
    assert few.factors == data.factors and few.factor_values == data.factor_values
    refused(
        lambda: few.index_of(torch.zeros(1, 5, dtype=torch.int64)),
        "shapes2d:10 has 10 training data", "737,280 combinations",
    )  # fmt: skip
    digits = load("digits")
    assert digits.factors == {} and digits.factor_values == {}
    for k in (0, 2):
        refused(lambda k=k: digits.index_of(torch.zeros(1, k).long()), "0 factors (none)")


def test_factors_of_ones_own(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3))
    kind, size = np.indices((5, 8)).reshape(2, -1)
    path = tmp_path / "own.npz"
    np.savez(path, x=x, kind=kind, size=size, age=x[:, 0], factors=np.array(["kind", "size"]))
    own = load(str(path))
    assert own.factors == {"kind": 5, "size": 8} and "factors kind, size" in own.description
    assert "columns age, kind, size" in own.description and own.factor_values == {}
    refused(lambda: own.index_of(torch.zeros(1, 2, dtype=torch.int64)), "32 training data")
    parts = {"train": x, "test": x[:9], "train_kind": kind, "test_kind": kind[:9]}
    for more in ({"train_size": size, "test_size": size[:9]}, {"train_age": x[:, 0]}):
        name = next(iter(more)).removeprefix("train_")
        np.savez(path, **parts, **more, factors=np.array(["kind", name]))
        if name == "age":
            fails(str(path), "'age' is no column of whole numbers", "columns there: kind")
    np.savez(
        path, **parts, train_size=size, test_size=size[:9], valid=x[:9], valid_kind=kind[:9],
        valid_size=size[:9], factors=np.array(["kind", "size"]),
    )  # fmt: skip
    own = load(str(path))
    assert own.index_of(torch.tensor([[2, 3], [4, 7]])).tolist() == [19, 39]
    names = {"factors": np.array(["kind", "size"]), "kind": kind, "size": size}
    np.savez(path, x=x, **names, factor_types=np.array(["periodic", "ordered"]))
    assert load(str(path)).factor_types == {"kind": "periodic", "size": "ordered"}
    np.savez(path, x=x, **names, factor_types=np.array(["round", "ordered"]))
    fails(str(path), "type of the factor 'kind' is 'round'", "categorical, ordered, periodic")
    np.savez(path, x=x, **names, factor_types=np.array(["ordered"]))
    fails(str(path), "has 1 factor_types and 2 factors")
    np.savez(path, x=x, kind=kind - 1, factors=np.array(["kind"]))
    fails(str(path), "'kind' has values from -1 to 3")
    np.savez(path, x=x, kind=kind, factors=np.array(["kin"]))
    fails(str(path), "'kin' is no column", "columns there: kind")


# The published file


class Bomb:
    def __reduce__(self):
        return print, ("unpickled",)


def write(root, arrays, **changes):
    path = root / "dsprites" / dsprites.FILE
    path.parent.mkdir(exist_ok=True)
    metadata = np.empty((), object)
    metadata[()] = Bomb()
    np.savez_compressed(path, metadata=metadata, **{**arrays, **changes})
    return path


@pytest.fixture(scope="module")
def published():
    """A file of the same structure: 2 shapes, 3 scales, 4 orientations, 9 x 5 places."""
    rng = np.random.default_rng(0)
    sizes = (1, 2, 3, 4, 9, 5)
    classes = np.indices(sizes).reshape(6, -1).T
    drawn = np.zeros((2, 3, 4, 64, 64), np.uint8)
    drawn[..., 3:20, 5:25] = rng.integers(2, size=(2, 3, 4, 17, 20))
    drawn[0, 0, 0] = 0
    _, shape, scale, turn, x, y = classes.T
    images = np.array(
        [
            np.roll(drawn[a, b, c], (2 * i, j), (0, 1))
            for a, b, c, j, i in zip(shape, scale, turn, x, y, strict=True)
        ]
    )
    images[7, 40, 40] = 1  # no shift of another
    values = classes / 2 + 1
    return {"imgs": images, "latents_classes": classes, "latents_values": values}


def test_the_published_file(tmp_path, published, monkeypatch, capfd):
    monkeypatch.setattr(dsprites, "BLOCK", 256)
    write(tmp_path, published)
    data = load("dsprites", tmp_path)
    assert dict(data.factors) == {"shape": 2, "scale": 3, "orientation": 4, "x": 9, "y": 5}
    assert not data.regenerated and "dsprites, as published" in data.description
    n = len(published["imgs"])
    places = data.index_of(torch.from_numpy(published["latents_classes"][:, 1:]))
    images = data.train.images.index_select(0, places)
    assert np.array_equal(images[:, 0], published["imgs"])
    for i, (name, table) in enumerate(data.factor_values.items(), 1):
        assert np.array_equal(table, np.arange(len(table)) / 2 + 1)
        column = data.train.columns[name][places]
        assert np.array_equal(column, published["latents_classes"][:, i])
    # 24 sprites, of which one is black, and the odd one
    assert len(data.train.images.pixels) == 25 * data.train.images.stride
    assert (len(data.train), len(data.valid), len(data.test)) == (n, n // 10, n // 10)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_or_missing_published_file(tmp_path, published):
    fails("dsprites", str(tmp_path / "dsprites"), dsprites.FILE, "shapes2d", root=tmp_path)
    classes, images = published["latents_classes"], published["imgs"]
    twice = classes.copy()
    twice[5] = twice[6]
    other = published["latents_values"].copy()
    other[3] += 1
    for changes, said in (
        ({"imgs": 255 * images}, "its images are uint8 of shape (64, 64)"),
        ({"imgs": images[:, :30]}, "its images are uint8 of shape (30, 64)"),
        ({"imgs": images[:-1]}, f"it has {len(images) - 1} images"),
        ({"latents_classes": twice}, "a combination of classes occurs twice"),
        ({"latents_classes": classes[:-1], "latents_values": other[:-1]}, "not all combinations"),
        ({"latents_classes": classes[:, :5]}, "its classes are int64"),
        ({"latents_values": classes}, "its values are int64"),
        ({"latents_values": other}, "has two values"),
        ({"latents_classes": np.array([{}])}, "not a complete .npz file"),
    ):
        fails("dsprites", "is damaged", said, root=write(tmp_path, published, **changes).parents[1])
    path = write(tmp_path, published)
    path.write_bytes(path.read_bytes()[:-500])
    fails("dsprites", "not a complete .npz file", root=tmp_path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("imgs.npy", b"")
    path.write_bytes(buffer.getvalue())
    fails("dsprites", "not a complete .npz file", root=tmp_path)
