r"""Whether a MATLAB file of version 5 is whole: on some that are not SciPy ends the process.

The file is a header of 128 bytes, then elements: a type and a size of four bytes each, the data,
and zeros up to a multiple of eight; of small ones all is in eight bytes. A matrix is an element of
further elements, and may be compressed.

References:
    | MAT-File Format (MathWorks)
    | https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

import struct
import zlib
from pathlib import Path

HEADER = 128
MATRIX, COMPRESSED = 14, 15
TYPES = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 12, 13, MATRIX, COMPRESSED, 16, 17, 18))
r"""The numbers that stand for a type of data."""
DEEPEST = 50
r"""Matrices within one another."""
LOOKED = 1 << 28
r"""Bytes of a compressed element that are looked at."""


def check_matlab(path: Path) -> None:
    r"""Look at every element of a file of version 5; files of other versions pass.

    Raises:
        ValueError: An element is of no type that there is, or larger than what holds it.
    """
    content = path.read_bytes()
    # Two bytes of a version, then two letters in the order of the bytes of numbers
    order = {b"\0\1IM": "<", b"\1\0MI": ">"}.get(content[HEADER - 4 : HEADER])
    if order is not None:
        _check(content[HEADER:], order, 0)


def _check(content: bytes, order: str, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError("matrices lie too deep within one another")
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(order + "II", content, at)
        at += 8
        if kind >> 16:  # a small element
            kind, size = kind & 0xFFFF, kind >> 16
            if kind not in TYPES or kind in (MATRIX, COMPRESSED) or size > 4:
                raise ValueError(f"an element is of type {kind}")
            continue
        if kind not in TYPES or (kind == COMPRESSED and depth):
            raise ValueError(f"an element is of type {kind}")
        if size > len(content) - at and len(content) < LOOKED:
            raise ValueError(f"an element has {size} bytes, which are not there")
        if kind == MATRIX:
            _check(content[at : at + size], order, depth + 1)
        if kind == COMPRESSED:
            whole = zlib.decompressobj().decompress(content[at : at + size], LOOKED)
            _check(whole, order, depth + 1)
        at += size if kind == COMPRESSED else size + -size % 8
