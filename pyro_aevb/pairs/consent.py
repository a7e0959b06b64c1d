r"""Whether code that a file of settings names may run: only if somebody here has named it.

A file of settings may come from anywhere. What it names runs if it comes with this package, if
``--trust`` says so, or if somebody has named just that code here before, as an argument or a flag:
of that a record is kept, outside the runs.
"""

import hashlib
import importlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.locate import source_file, split_source

Kind = Literal["pair", "objective"]

_AGREED: set[str] = set()
r"""What this process has recorded, where no file can be written."""


def require(kind: Kind, name: Any, file: str | Path, trust: bool) -> None:
    r"""Refuse what a file of settings names, before anything of it is imported.

    Arguments:
        kind: The setting that names it.
        name: The name of the code, such as ``file.py:Name``.
        file: The file of settings.
        trust: Whether the user agrees to whatever is named there.

    Raises:
        UsageError: Nobody has named or agreed to the code here, as it is now.
    """
    if not isinstance(name, str):
        raise UsageError(f"{file}: {kind} is {name!r}; it takes a name")
    if trust or _is_shipped(kind, name):
        return
    path = split_source(name)[0]
    if path.endswith(".py") and not Path(path).is_file():
        said = f"say where it is now: --{kind} FILE:NAME"
        raise UsageError(f"{file} names {kind} {name}, a file that is not here; {said}")
    key = _key(kind, name)
    if key is None or not (key in _AGREED or _record(key).is_file()):
        raise UsageError(
            f"{file} names {kind} {name}, whose code has not been used here before, or has "
            "changed since: read it, then agree to it by --trust (in Python trust=True), or name "
            f"it yourself by --{kind}"
        )


def remember(kind: Kind, name: Any) -> None:
    r"""Record that settings may name this from now on, as long as its file stays the same."""
    key = _key(kind, name) if isinstance(name, str) else None
    if key is None or _is_shipped(kind, name):
        return
    _AGREED.add(key)
    with suppress(OSError):  # a home that cannot be written to: settings ask again
        _record(key).parent.mkdir(parents=True, exist_ok=True)
        _record(key).write_text(f"{kind} {name}, named in {Path.cwd()}\n")


def _record(key: str) -> Path:
    r"""The file whose presence says that a key was agreed to; an absolute path, or no file's."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    folder = os.environ.get("PYRO_AEVB_TRUSTED") or f"{state}/pyro_aevb/trusted"
    folder = os.path.expanduser(folder)
    # Relative to wherever one stands it could be somebody else's.
    return Path(folder if os.path.isabs(folder) else os.devnull, key)


def _key(kind: Kind, name: str) -> str | None:
    r"""A name for what would be executed: by its place and by every letter of its file."""
    path, attribute = split_source(name)
    file = source_file(path)
    if file is None or not file.is_file():
        return None
    module = "" if path.endswith(".py") else path
    named = "\n".join((kind, module, str(file.resolve()), attribute, ""))
    return hashlib.sha256(named.encode() + file.read_bytes()).hexdigest()


def _is_shipped(kind: Kind, name: str) -> bool:
    if kind == "pair":
        return name in importlib.import_module("pyro_aevb.models").__all__
    path = name.replace(":", ".")  # a plain word names nothing that is imported
    return "." not in path or path.startswith(("pyro_aevb.", "pyro.infer."))
