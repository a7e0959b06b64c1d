r"""What a user says after a path of how it is to be read: ``table.csv:nan``, ``photos:64x64``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Reading:
    r"""How a user's own data are read, where this is not plain.

    Arguments:
        missing: NaN stands for missing values, and is left in.
        sequences: Data of three axes or more are sequences, ``(N, T, ...)``, and no images.
        size: The width and height that all images of a folder are brought to.
        first: How many of the training data are taken.
    """

    missing: bool = False
    sequences: bool = False
    size: tuple[int, int] | None = None
    first: int | None = None


def parted(name: str) -> tuple[str, Reading]:
    r"""A data set's name or path, and how it is read by the words after it.

    The words ``nan``, ``sequences``, a size such as ``64x48`` and a number of training data stand
    after colons, in any order. A file that is called so is meant itself.
    """
    whole, reading = name, Reading()
    while not os.path.exists(os.path.expanduser(whole)):
        before, colon, word = whole.rpartition(":")
        size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", word)
        if not (before and colon):
            break
        if word == "nan":
            reading = replace(reading, missing=True)
        elif word == "sequences":
            reading = replace(reading, sequences=True)
        elif size:
            reading = replace(reading, size=(int(size[1]), int(size[2])))
        elif re.fullmatch(r"[0-9]{1,18}", word):
            reading = replace(reading, first=int(word))
        else:
            break
        whole = before
    return whole, reading
