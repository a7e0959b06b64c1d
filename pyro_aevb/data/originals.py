r"""The data sets of Larochelle et al. as their authors published them, where the user has them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from pyro_aevb.data.files import damaged, named_arrays

FILES = {
    "mnist_basic": ("mnist.zip", "mnist_train", "mnist_test"),
    "mnist_rot": (
        "mnist_rotation_new.zip",
        "mnist_all_rotation_normalized_float_train_valid",
        "mnist_all_rotation_normalized_float_test",
    ),
    "mnist_bg_rand": (
        "mnist_background_random.zip",
        "mnist_background_random_train",
        "mnist_background_random_test",
    ),
    "mnist_bg_img": (
        "mnist_background_images.zip",
        "mnist_background_images_train",
        "mnist_background_images_test",
    ),
    "mnist_rot_bg_img": (
        "mnist_rotation_back_image_new.zip",
        "mnist_all_background_images_rotation_normalized_train_valid",
        "mnist_all_background_images_rotation_normalized_test",
    ),
    "rectangles": ("rectangles.zip", "rectangles_train", "rectangles_test"),
    "rectangles_img": ("rectangles_images.zip", "rectangles_im_train", "rectangles_im_test"),
    "convex": ("convex.zip", "convex_train", "convex_test"),
}
r"""By set, the authors' archive, and its two ``.amat`` texts: training with validation data, test.

Of the rotated sets these are the second, corrected release.
"""

ARCHIVES = {
    "mnist.zip": "14ac2e9135705499b80bf7efac981377940150c8",
    "mnist_rotation_new.zip": "e67f72fa42029f62fd8eb92b0638c1b9761c9a63",
    "mnist_background_random.zip": "75e11ec966459c1162979e78ab4e21f9ab7fb5cd",
    "mnist_background_images.zip": "fb6fce9ed6372e0068ff7cb3e7b9e78dbda7ceae",
    "mnist_rotation_back_image_new.zip": "902bb7e96136dd76e9f2924d7fdb9eb832f7bc33",
    "rectangles.zip": "b8d456b1f83bea5efebe76a47a9535adc4b72586",
    "rectangles_images.zip": "2700ba92129ae195e93070d8b27f830323573a57",
    "convex.zip": "61eab3c60e0e1caeaa0b82abf827f1809cfd2ef9",
}
r"""SHA-1 of the archives, as the package skdata lists them."""

CONTENTS = {
    "rectangles": "0d24e2d7f2f09fdd0b42b3b1a7892ac8f7b7ef52",
    "convex": "222d5e76da88e7e271884991eb13b07f90d10594",
}
r"""SHA-1 of images and labels as bytes, training data first, whatever file they come in.

That of `rectangles` is of the archive above; that of `convex` of a copy, as no archive was at hand.
"""

TRANSPOSED = ("mnist_bg_rand", "mnist_bg_img")
r"""Sets whose images were written column by column, as skdata says; no such file was at hand."""

Arrays = tuple[np.ndarray, np.ndarray]


def find(
    name: str, folder: Path, classes: int, sizes: tuple[int, int]
) -> tuple[list[Arrays], str] | None:
    r"""The published set, read from what is in a folder, or below it.

    Looked for are, in this order, ``NAME.npz`` (for `convex` with the arrays X, Y, Xtest and Ytest,
    for `rectangles` with the bits packed as ``train_images``, ``train_labels``, ``test_images`` and
    ``test_labels``), the authors' zip archive, and its two ``.amat`` texts.

    Arguments:
        name: The set.
        folder: Where to look.
        classes: How many labels there are.
        sizes: How many training with validation data there are, and how many test data.

    Returns:
        Images, (n, 28, 28), and int64 labels, (n,), for training with validation data and for test
        data; and what is known of them, in words. Images are uint8 where all values are 0 or 1,
        else float32 in [0, 1]. None if there is nothing.

    Raises:
        UsageError: A file is damaged or missing beside another, or holds other shapes, values,
            labels or numbers of data.
    """
    archive, *texts = FILES[name]
    npz, packed = folder / f"{name}.npz", folder / archive
    unpacked = [next(iter(sorted(folder.rglob(f"{text}.amat"))), None) for text in texts]
    known = False
    if npz.exists() and name in CONTENTS:
        parts, path = _read_npz(name, npz), npz
    elif packed.exists():
        parts, path = _read_zip(packed, texts), packed
        known = hashlib.sha1(packed.read_bytes()).hexdigest() == ARCHIVES[archive]
    elif there := [file for file in unpacked if file]:
        if len(there) < 2:
            lacking = texts[unpacked.index(None)]
            raise damaged(there[0], f"{name} needs {lacking}.amat too, which is not in {folder}")
        parts, path = [_read_text(file.read_bytes(), file) for file in there], folder
    else:
        return None
    parts = [_checked(x, y, path, classes, name in TRANSPOSED) for x, y in parts]
    if (found := tuple(len(y) for _, y in parts)) != sizes:
        raise damaged(path, f"it has {found} data, not {sizes}")
    if parts[0][0].dtype == parts[1][0].dtype == np.uint8:
        known |= digest(parts) == CONTENTS.get(name)
    else:
        parts = [(x.astype(np.float32), y) for x, y in parts]
    return parts, f"as published, checksum {'known' if known else 'unknown'}"


def digest(parts: list[Arrays]) -> str:
    r"""SHA-1 of images and labels as bytes, one part after the other."""
    sum_ = hashlib.sha1()
    for images, labels in parts:
        sum_.update(images.astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes())
    return sum_.hexdigest()


def _read_npz(name: str, path: Path) -> list[Arrays]:
    if name == "convex":
        x, y, x_test, y_test = named_arrays(path, "X", "Y", "Xtest", "Ytest")
        return [(x, y), (x_test, y_test)]
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    x, y, x_test, y_test = named_arrays(path, *keys)
    if not all(a.dtype == np.uint8 and a.shape[1:] == (98,) for a in (x, x_test)):
        raise damaged(path, f"its packed bits have shape {x.shape}, not (N, 98)")
    return [(np.unpackbits(x, axis=1), y), (np.unpackbits(x_test, axis=1), y_test)]


def _read_zip(path: Path, texts: list[str]) -> list[Arrays]:
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {Path(member).name: member for member in archive.namelist()}
            raw = [archive.read(inside[f"{text}.amat"]) for text in texts]
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise damaged(path, f"it is no archive with {' and '.join(texts)}") from error
    return [_read_text(text, path) for text in raw]


def _read_text(raw: bytes, path: Path) -> Arrays:
    try:
        table = np.loadtxt(io.BytesIO(raw), dtype=np.float32, ndmin=2)
    except ValueError as error:
        raise damaged(path, "it is not a table of numbers") from error
    return table[:, :-1], table[:, -1]


def _checked(
    images: np.ndarray, labels: np.ndarray, path: Path, classes: int, transposed: bool
) -> Arrays:
    if images.ndim != 2 or images.shape[1] != 784 or labels.size != len(images):
        raise damaged(path, f"it has {images.shape} numbers and {labels.size} labels")
    numbers = labels.ravel().astype(np.int64)
    if (numbers != labels.ravel()).any() or not 0 <= numbers.min() <= numbers.max() < classes:
        raise damaged(path, f"its labels are not 0 to {classes - 1}")
    if not (images.min() >= 0 and images.max() <= 1):
        raise damaged(path, "its pixels are not in [0, 1]")
    if ((images == 0) | (images == 1)).all():
        images = images.astype(np.uint8)
    images = images.reshape(-1, 28, 28)
    return (images.transpose(0, 2, 1) if transposed else images), numbers
