r"""A folder of images as a user's data: its splits, and what is no such folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pyro_aevb.data.files import SUFFIXES, files_below, read_folder
from pyro_aevb.data.naming import ALIASES, SPLITS, WHOLE
from pyro_aevb.errors import UsageError

Named = dict[str, np.ndarray]


def read_splits(folder: Path, size: tuple[int, int] | None) -> tuple[Named, Named, list[str]]:
    r"""Images and the names of their classes by split, and what a reader should know."""
    parts = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name.lower() in ALIASES]
    files = (p.relative_to(folder) for p in files_below(folder))
    images = sorted(p for p in files if p.suffix.lower() in SUFFIXES)
    names = [part.name for part in parts]
    others = [p.parts[0] for p in images if p.parts[0] not in names]
    # A class may be called train. What stands beside another split, or has classes, is a split.
    if len(parts) == 1 and others and all(len(p.parts) == 2 for p in images if p.parts[0] in names):
        parts = []
    elif parts and others:
        what = "the folder" if (folder / others[0]).is_dir() else "the image"
        raise UsageError(
            f"{folder} holds {what} {others[0]} beside {' and '.join(names)}; keep the splits, "
            f"{', '.join(SPLITS)}, alone there"
        )
    _no_inner_splits(folder, images)
    arrays: Named = {}
    labels, said = {}, []
    for part in parts or [folder]:
        key = ALIASES[part.name.lower()] if parts else WHOLE
        if key in arrays:
            raise UsageError(f"{folder} holds two folders for {key}, one of them {part.name}")
        arrays[key], found, notes = read_folder(part, size)
        said += notes
        if found is not None:
            labels[key] = found
    if any(array.dtype == np.uint16 for array in arrays.values()):
        said.append("16-bit levels divided by 65535")
        arrays = {key: _unit(array) for key, array in arrays.items()}
    # one folder for all says nothing; of one split alone it may be the only class there
    several = len({name for found in labels.values() for name in found}) > 1
    return arrays, labels if several else {}, said


def _unit(levels: np.ndarray) -> np.ndarray:
    return levels / np.float32(np.iinfo(levels.dtype).max)


def _no_inner_splits(folder: Path, images: list[Path]) -> None:
    places = {place for image in images for place in image.parents[:-2]}
    splits = sorted(place for place in places if place.name.lower() in ALIASES)
    for place in splits:
        names = [other.name for other in splits if other.parent == place.parent]
        if len({ALIASES[name.lower()] for name in names}) > 1:
            raise UsageError(
                f"{folder / place.parent} holds the splits {' and '.join(names)}: give --data that"
                f" folder, or put the splits above the classes"
            )
