r"""Reading files of arrays and folders of images, with one clear line when that fails."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pyro_aevb.data.matlab import check_matlab
from pyro_aevb.errors import UsageError

SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
r"""What counts as an image in a folder; other files are passed over."""

LEFT_BEHIND = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
r"""Folders that programs leave behind; hidden like names that begin with a dot."""
GREY_MODES, COLOUR_MODES = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


def read_arrays(path: Path, mapped: bool = False) -> dict[str, np.ndarray]:
    r"""Read the arrays of an ``.npy`` or ``.npz`` file by name, never executing what it holds.

    The one array of an ``.npy`` file is named ``images``, and stays on the disk if it is `mapped`.

    Raises:
        UsageError: If the file is damaged, or holds pickled objects.
    """
    try:
        if mapped:
            return {"images": np.load(path, mmap_mode="r", allow_pickle=False)}
        with path.open("rb") as file:  # NumPy leaves open a damaged file that it opened itself
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"images": loaded}
            read = ((key, loaded[key]) for key in loaded.files)  # other files are bytes
            return {key: array for key, array in read if isinstance(array, np.ndarray)}
    except OSError:
        raise
    except MemoryError as error:
        raise damaged(path, f"it holds, or says so, more than fits in memory: {error}") from error
    except Exception as error:  # NumPy's parser of damaged bytes may raise anything
        if "Object arrays" in str(error) or "Python objects" in str(error):
            raise UsageError(
                f"{path} holds Python objects (pickled), which are not read;"
                " save a plain array of numbers"
            ) from error
        raise damaged(path, "it is not a complete .npy or .npz file") from error


def named_arrays(path: Path, *keys: str) -> list[np.ndarray]:
    r"""Read the arrays of some names from an ``.npz`` file.

    Raises:
        UsageError: If the file is damaged or has no such array.
    """
    arrays = read_arrays(path)
    for key in keys:
        if key not in arrays:
            raise damaged(path, f"it has no array {key}")
    return [arrays[key] for key in keys]


def read_idx(path: Path) -> np.ndarray:
    r"""Read the uint8 array of an uncompressed file of MNIST's idx format.

    Two zero bytes, the type (8 for uint8), the number of axes, big-endian sizes, then the data.

    Raises:
        UsageError: If the file is damaged.
    """
    raw = np.fromfile(path, np.uint8)
    start = 4 + 4 * int(raw[3]) if len(raw) > 3 else 4
    if len(raw) < start or raw[:3].tolist() != [0, 0, 8]:
        raise damaged(path, "it does not begin like an idx file")
    shape = raw[4:start].view(">i4").tolist()
    announced, found = math.prod(shape), len(raw) - start
    if announced != found:
        raise damaged(path, f"{announced} bytes should follow its head, not {found}")
    return raw[start:].reshape(shape)


def read_bits(path: Path) -> np.ndarray:
    r"""Read a text file of the digits 0 and 1, each followed by a blank or the end of its line.

    That is Larochelle's ``.amat``, of 784 digits a line, and becomes uint8 0 or 1, (N, 784).

    Raises:
        UsageError: If the file is damaged.
    """
    raw, blanks = np.fromfile(path, np.uint8), np.frombuffer(b" " * 783 + b"\n", np.uint8)
    if len(raw) and len(raw) % (2 * 784) == 0:
        digits = raw[::2].reshape(-1, 784) - ord("0")
        if (digits <= 1).all() and (raw[1::2].reshape(-1, 784) == blanks).all():
            return digits
    raise damaged(path, "it is not 784 digits 0 or 1 a line, separated by single blanks")


def read_mat(path: Path, key: str) -> np.ndarray:
    r"""Read the variable `key` of a MATLAB file.

    Raises:
        UsageError: If the file is damaged.
    """
    from scipy.io import loadmat

    try:
        check_matlab(path)
        array: np.ndarray = loadmat(path)[key]
    except OSError:
        raise
    except Exception as error:  # a parser of damaged bytes may raise anything
        raise damaged(path, f"it is not a MATLAB file with the variable {key}") from error
    return array


def channels_first(array: np.ndarray) -> tuple[np.ndarray, list[str]]:
    r"""Bring images to (N, C, H, W).

    Arguments:
        array: (N, H, W), (N, C, H, W), or (N, H, W, C) with C 1 or 3 or less than H and W;
            anything else stays as it is, and so does what has 1 or 3 in place of H.

    Returns:
        The images, contiguous, and how they were read, where it is not plain. Four channels of
        bytes that come last are colours and opacity, and are laid over white.
    """
    notes = []
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3):
        height, width, channels = array.shape[1:]
        if channels in (1, 3) or channels < min(height, width):
            notes.append("channels last")
            if channels == 4 and array.dtype == np.uint8:
                array = over_white(array)
                notes.append("transparency over white")
            array = array.transpose(0, 3, 1, 2)
        else:
            notes.append("channels first")
    return np.ascontiguousarray(array), notes


def over_white(rgba: np.ndarray) -> np.ndarray:
    r"""Bytes (..., 4), the last of which is opacity, laid over white: bytes (..., 3)."""
    opacity = rgba[..., 3:] / 255
    colours: np.ndarray = np.rint(rgba[..., :3] * opacity + 255 * (1 - opacity))
    return colours.astype(np.uint8)


def damaged(path: Path, why: str) -> UsageError:
    r"""The error of a file that is cut short or is not what it should be, and why."""
    return UsageError(f"{path} is damaged: {why}; replace or delete it")


def read_folder(
    folder: Path, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    r"""Read all images below a folder, in the order of their paths.

    The names of subfolders are the labels. Links are followed. Hidden files and folders are passed
    over, as other programs leave them (``.ipynb_checkpoints``, ``._a.png``, ``__MACOSX``), and so
    are files of other kinds. Every page of a TIFF is an image. An image lies the way up that its
    camera noted, and over white where it is transparent.

    Arguments:
        folder: The folder.
        size: The width and height that images of others are brought to, averaging over what is
            taken together.

    Returns:
        uint8 images, or uint16 where some have 16 bits, shape (N, H, W) if all are grey, else
        (N, 3, H, W); the label names,
        shape (N,), or None where there are no subfolders; and what a reader should know.

    Raises:
        UsageError: If there is no image, one cannot be read or is an animation, one lies beside
            subfolders of images, or their sizes differ.
    """
    files = list(files_below(folder))
    paths = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UsageError(f"{folder} holds no images (looked for {' '.join(sorted(SUFFIXES))})")
    images, names, notes = [], [], []
    for path in paths:
        pages, said = _read_image(path, size)
        images += pages
        names += [path.relative_to(folder).parent.as_posix()] * len(pages)
        notes += said
        for image in pages:
            if image.shape[:2] != images[0].shape[:2]:
                (h, w), (other_h, other_w) = images[0].shape[:2], image.shape[:2]
                raise UsageError(
                    f"images differ in size: {paths[0]} is {w}x{h} and {path} is "
                    f"{other_w}x{other_h}; make them all one size, or say after the path which "
                    f"they are brought to: {folder}:{w}x{h}"
                )
    if any(image.dtype == np.uint16 for image in images):
        images = [i if i.dtype == np.uint16 else i * np.uint16(257) for i in images]
    if any(image.ndim == 3 for image in images):
        images = [i.transpose(2, 0, 1) if i.ndim == 3 else np.stack([i] * 3) for i in images]
    top = [path.name for path in paths if path.parent == folder]
    if 0 < len(top) < len(paths):
        raise UsageError(
            f"{folder} holds images beside folders of images, whose names are labels;"
            f" put {top[0]} into a folder too"
        )
    others = sorted({path.suffix.lower() or "without suffix" for path in files} - SUFFIXES)
    if others:
        notes.append(f"other files passed over ({' '.join(others[:5])})")
    return np.stack(images), None if top else np.array(names), list(dict.fromkeys(notes))


def files_below(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    r"""The files below a folder that are not hidden, also through links.

    A link back to one of the folders `above`, of true paths, is passed over.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in LEFT_BEHIND:
            continue
        if path.is_dir():
            yield from files_below(path, (*above, real))
        else:
            yield path


def _read_image(path: Path, size: tuple[int, int] | None) -> tuple[list[np.ndarray], list[str]]:
    r"""The pages of an image file, and what was done to them."""
    from PIL import Image, ImageSequence

    try:
        # The file, not its name: what is named is mapped, which scrambles a TIFF that is turned.
        with path.open("rb") as file, Image.open(file) as image:
            count = getattr(image, "n_frames", 1)
            if count > 1 and image.format in ("GIF", "WEBP", "PNG"):
                raise UsageError(
                    f"{path} is an animation of {count} images; save those that are data one by one"
                )
            several = count > 1 and image.format == "TIFF"
            pages = ImageSequence.Iterator(image) if several else [image]
            read = [_read_page(path, page, size) for page in pages]
            notes = [note for _, said in read for note in said]
            return [page for page, _ in read], notes + ["every page of a TIFF"] * several
    except (UsageError, PermissionError):
        raise
    except MemoryError as error:
        of = "" if size is None else f" at the size {size[0]}x{size[1]}"
        raise UsageError(f"{path} does not fit into memory{of}") from error
    except Exception as error:  # a parser of damaged bytes may raise anything
        raise damaged(path, "it cannot be read as an image") from error


def _read_page(
    path: Path, image: Any, size: tuple[int, int] | None
) -> tuple[np.ndarray, list[str]]:
    from PIL import ExifTags, ImageOps

    deep = image.mode.startswith("I;16")
    if image.mode not in GREY_MODES + COLOUR_MODES and not deep:
        raise UsageError(
            f"{path} has pixels of mode {image.mode}; only grey of 8 or 16 bits and RGB are read"
        )
    grey, notes = deep or image.mode in GREY_MODES, []
    # Pillow has no colours of 16 bits; the 25th byte of a PNG says how many it has
    if image.format == "PNG" and not grey and path.read_bytes()[24] == 16:
        notes.append("colours of 16 bits cut to 8")
    # asked before the pixels are read, as Pillow then turns a TIFF and forgets that it did
    if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
        notes.append("turned as the camera noted")
    upright = ImageOps.exif_transpose(image)
    if not deep and upright.has_transparency_data:
        rgba = np.asarray(upright.convert("RGBA"))
        if rgba[..., 3].min() < 255:
            colours = over_white(rgba)
            pixels = colours[..., 0] if grey else colours
            return _sized(pixels, size, [*notes, "transparency over white"])
    pixels = np.asarray(upright if deep else upright.convert("L" if grey else "RGB"))
    return _sized(pixels.astype(np.uint16) if deep else pixels, size, notes)


def _sized(
    pixels: np.ndarray, size: tuple[int, int] | None, notes: list[str]
) -> tuple[np.ndarray, list[str]]:
    from PIL import Image

    height, width = pixels.shape[:2]
    if size in (None, (width, height)):
        return pixels, notes
    assert size is not None
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.atleast_3d(pixels).T]
    means = np.stack([np.asarray(p.resize(size[::-1], Image.Resampling.BOX)) for p in planes])
    resized = np.rint(means.T).astype(pixels.dtype).reshape(size[1], size[0], *pixels.shape[2:])
    return resized, [*notes, f"images of other sizes brought to {size[0]}x{size[1]}"]
