r"""Patches of photographs that come inside scikit-image and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pyro_aevb.data.downloads import package
from pyro_aevb.data.files import damaged

LEAST_DEVIATION = 16.0
r"""Standard deviation below which a patch is too flat to be taken, in grey levels of 255."""

WHOLE = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png"),
    *("grass.png", "gravel.png", "ihc.png", "moon.png", "rocket.jpg", "flower.jpg"),
)
r"""Photographs of which each is one image of the bank."""
HALVED = ("hubble_deep_field.jpg", "retina.jpg", "motorcycle_left.png", "china.jpg")
r"""Large photographs, whose left and right halves are an image of the bank each."""
_OF_SKLEARN = ("china.jpg", "flower.jpg")


def bank(name: str) -> list[np.ndarray]:
    r"""Twenty grey images: 12 photographs, and the halves of 4 large ones.

    Arguments:
        name: The data set that needs them, for the error message.

    Returns:
        uint8 images, (H, W) each, of several sizes.

    Raises:
        UsageError: A package does not import, or has not the photograph.
    """
    images = [_read(file, name) for file in WHOLE]
    for file in HALVED:
        image = _read(file, name)
        half = image.shape[1] // 2
        images += [image[:, :half], image[:, half:]]
    return images


def _read(file: str, name: str) -> np.ndarray:
    from PIL import Image

    module, folder = ("sklearn", "datasets/images") if file in _OF_SKLEARN else ("skimage", "data")
    path = Path(package(module, name).__path__[0]) / folder / file
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except OSError as error:
        raise damaged(path, f"{name} needs this photograph of its package") from error


def patches(
    rng: np.random.RandomState, images: list[np.ndarray], n: int, side: int = 28
) -> np.ndarray:
    r"""Square patches at uniform places of images that are drawn with equal probability.

    A patch whose standard deviation is below :data:`LEAST_DEVIATION` is rejected, and another
    image and place are drawn.

    Arguments:
        rng: The source of random numbers.
        images: uint8, (H, W) each, no side shorter than `side`.
        n: How many patches.
        side: Their height and width, in pixels.

    Returns:
        uint8, (n, side, side), cut out as they are.
    """
    taken = [np.zeros((0, side, side), np.uint8)]
    windows = [np.lib.stride_tricks.sliding_window_view(image, (side, side)) for image in images]
    while (missing := n - sum(map(len, taken))) > 0:
        which = rng.randint(len(images), size=missing)
        places = rng.random_sample((missing, 2))
        drawn = np.empty((missing, side, side), np.uint8)
        for k, window in enumerate(windows):
            rows = np.flatnonzero(which == k)
            top, left = (places[rows] * window.shape[:2]).astype(int).T
            drawn[rows] = window[top, left]
        taken.append(drawn[drawn.std((1, 2)) >= LEAST_DEVIATION])
    return np.concatenate(taken)
