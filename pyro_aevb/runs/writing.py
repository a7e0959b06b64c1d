r"""How a run's files are written: whole or not at all, and with a digest that damage does not pass.

A digest is the SHA-256 of what a file holds. ``settings.yaml`` has that of its text in its first
and last line, ``results.json`` that of its content as ``"sha256"``, and that of ``results.nc`` as
``"arrays_sha256"``; the checkpoint is a zip file, whose parts have checksums of their own. Files
that an earlier version wrote have none, and are read as they are.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyro_aevb.errors import UsageError

KEY = "sha256"
r"""The entry of a JSON file that holds the digest of the others."""
LINE = "# sha256 of the lines between: "
r"""What the first and the last line of a text file begin with, before the digest; of a file that is
cut off one of them is left."""
PARTS = ("sha256 of", "lines between")
r"""Of such a line that is cut in two one of these is left."""


class NotWritten(UsageError):
    r"""A file cannot be written, as on a full disk."""


def write_whole(path: Path, content: str | bytes) -> None:
    r"""Write a file beside the old one, then take its place: no reader sees half of it.

    Arguments:
        path: The file.
        content: All that it will hold.

    Raises:
        NotWritten: It cannot be written; the old file, if there is one, is as it was.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        for left in path.parent.iterdir():
            if is_part(left.name, path.name) and not _runs(left):  # ended while it wrote
                left.unlink(missing_ok=True)
        with beside.open("wb") as file:
            file.write(_bytes(content))
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):  # what was wrong with the file may be wrong with its removal
            beside.unlink()
        kept = "; the file before it is untouched" if path.is_file() else ""
        raise NotWritten(f"cannot write {path}: {error.strerror or error}{kept}") from error


def write_where_asked(path: Path, content: str | bytes) -> None:
    r"""Write a file that a person named: where a link leads, and a device or a pipe as it is.

    The files of a run are written by :func:`write_whole`, which replaces a link: a stranger's run
    might lead elsewhere.

    Raises:
        NotWritten: It cannot be written.
    """
    if not path.exists() or path.is_file() or path.is_dir():
        write_whole(path.resolve(), content)
        return
    try:
        path.write_bytes(_bytes(content))
    except OSError as error:
        raise NotWritten(f"cannot write {path}: {error.strerror or error}") from error


def is_part(name: str, of: str) -> bool:
    r"""Whether a file's name is that of what a process has begun to write of the file of another
    name, or was ended in writing."""
    return re.fullmatch(re.escape(of) + r"\.(\d+\.)?part", name) is not None


def digest(content: str | bytes) -> str:
    r"""The SHA-256 of a text or of bytes, in hexadecimal digits."""
    return hashlib.sha256(_bytes(content)).hexdigest()


def sealed(entries: Mapping[str, Any]) -> str:
    r"""JSON of entries, and of the digest of them all."""
    # As JSON gives them back, in which names are words
    whole = json.loads(json.dumps({k: v for k, v in entries.items() if k != KEY}, allow_nan=False))
    whole[KEY] = _of_entries(whole)
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def unsealed(text: str, needs: str | None = None) -> dict[str, Any]:
    r"""The entries of JSON that :func:`sealed` wrote, or of one without a digest.

    Arguments:
        text: The JSON.
        needs: An entry beside which there must be a digest.

    Raises:
        ValueError: It is no JSON of entries, or not what was written.
    """
    entries = json.loads(text)
    if not isinstance(entries, dict):
        raise ValueError("it holds no entries")
    known = entries.pop(KEY, None)
    if (known is not None or needs in entries) and known != _of_entries(entries):
        raise ValueError("it is not what was written")
    return entries


def signed(text: str) -> str:
    r"""A text of whole lines, with its digest in a comment above and in one below."""
    line = f"{LINE}{digest(text)}\n"
    return line + text + line


def is_signed(text: str) -> bool | None:
    r"""Whether a text is one that :func:`signed` wrote; None where it has no digest."""
    if not any(part in text for part in PARTS):
        return None
    return text == signed("".join(text.splitlines(keepends=True)[1:-1]))


def _of_entries(entries: Mapping[str, Any]) -> str:
    return digest(json.dumps(entries, sort_keys=True))


def _bytes(content: str | bytes) -> bytes:
    # Names of files may hold what no text does.
    return content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")


def _runs(part: Path) -> bool:
    r"""Whether the process whose number is in the name of a part is there, on this machine."""
    number = part.name.split(".")[-2]
    if not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
