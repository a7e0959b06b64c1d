r"""Files that somebody forged so that reading them runs code, or so that a table of them misleads.

Each payload would make a file, the mark; that there is none says that it did not run. The classes:
settings that name callables, modules and files in every place where something is looked up; YAML
tags; pickles in checkpoints, and in arrays of every format.
"""

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.faults import runs
from benchmarks.faults.child import command, run
from benchmarks.faults.report import Failure

EVIL = "import pathlib\npathlib.Path({mark!r}).touch()\n"
CALLABLES: dict[str, dict[str, Any]] = {
    "os:system": {"command": "touch {mark}"},
    "subprocess:getoutput": {"cmd": "touch {mark}"},
    "subprocess:Popen": {"args": ["touch", "{mark}"]},
    "io:open": {"file": "{mark}", "mode": "w"},
    "builtins:exec": {"source": "open('{mark}', 'w')"},
    "builtins:eval": {"source": "open('{mark}', 'w')"},
    "pathlib:Path.touch": {"self": "{mark}"},
    "shutil:copy": {"src": "/etc/hostname", "dst": "{mark}"},
    "runpy:run_path": {"path_name": "evil_pair.py"},
    "torch:save": {"obj": 1, "f": "{mark}"},
    "numpy:save": {"file": "{mark}", "arr": 1},
    "evil_pair:Pair": {},
    "evil_package.pairs:Pair": {},
    "evil_pair.py:Pair": {},
    "{run}/evil_pair.py:Pair": {},
}
r"""What settings may name, with the arguments that would make the mark."""
PLACES: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "pair": lambda name, given: {"pair": name, "pair_parameters": given},
    "objective": lambda name, given: {"objective": name, "objective_options": given},
    "corruption": lambda name, given: {"corruption": name, "corruption_options": given},
    "algorithm": lambda name, given: {"algorithm": name, "algorithm_options": given},
    "optimizer": lambda name, given: {"optimizer": name, "optimizer_options": given},
    "schedule": lambda name, given: {"schedule": name, "schedule_options": given},
    "parameter": lambda name, given: {"pair_parameters": {"hidden": name, "activation": given}},
    "data": lambda name, given: {"data": name},
    "trust": lambda name, given: {"pair": name, "pair_parameters": given, "trust": True},
    "another file": lambda name, given: {"pair": name, "config": "other.yaml"},
}
FORMS: dict[str, Callable[[str, Any], Any]] = {
    "name": lambda name, given: name,
    "dotted": lambda name, given: name.replace(":", "."),
    "class path": lambda name, given: {"class_path": name.replace(":", "."), "init_args": given},
    "list": lambda name, given: [name, name],
}
TAGS = (
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:os.system ['touch {mark}']",
    "!!python/name:evil_pair.Pair",
    "!!python/module:evil_pair",
    "!!python/object:evil_pair.Pair {{}}",
    "!!python/object/apply:builtins.open ['{mark}', w]",
    "!!python/object/apply:subprocess.Popen [[touch, '{mark}']]",
    "!!python/object/apply:eval [\"open('{mark}', 'w')\"]",
)


class Bomb:
    r"""An object whose pickle, if it is loaded, calls something."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


def bombs(mark: str) -> dict[str, Any]:
    r"""Objects of which each, unpickled, would make the mark."""
    return {
        "os.system": Bomb(os.system, f"touch {mark}"),
        "open": Bomb(open, mark, "w"),
        "eval": Bomb(eval, f"open({mark!r}, 'w')"),
        "exec": Bomb(exec, f"open({mark!r}, 'w')"),
        "Path.touch": Bomb(Path.touch, Path(mark)),
        "shutil.copy": Bomb(shutil.copy, "/etc/hostname", mark),
        "torch.save": Bomb(torch.save, 1, mark),
        "numpy.tofile": Bomb(np.ndarray.tofile, np.zeros(1), mark),
        "partial": Bomb(partial(open, mark, "w")),
        "getattr": Bomb(getattr, Bomb(open, mark, "w"), "close"),
    }


IN_CHECKPOINT: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "alone": lambda state, bomb: bomb,
    "beside": lambda state, bomb: {**state, "more": bomb},
    "tensors": lambda state, bomb: {**state, "tensors": bomb},
    "a tensor": lambda state, bomb: {**state, "tensors": {**state["tensors"], "w": bomb}},
    "best": lambda state, bomb: {**state, "best": bomb},
    "history": lambda state, bomb: {**state, "history": [bomb]},
    "notes": lambda state, bomb: {**state, "notes": [bomb]},
    "random": lambda state, bomb: {**state, "random": {**state["random"], "torch": bomb}},
    "python": lambda state, bomb: {**state, "python": {"value": bomb}},
    "a key": lambda state, bomb: {**state, bomb: 1},
    "looks": lambda state, bomb: {**state, "looks": [bomb]},
    "algorithm": lambda state, bomb: {**state, "algorithm": bomb},
}


def _npy(bomb: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([bomb], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _npz(bomb: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.zeros((9, 4)), y=np.array([bomb] * 9, dtype=object))
    return stream.getvalue()


def _zipped(bomb: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(bomb, 2))
        file.writestr("archive/version", "3\n")
    return stream.getvalue()


def _saved(bomb: Any, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save({"x": bomb}, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


ARRAYS: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "npy": (".npy", _npy),
    "npz": (".npz", _npz),
    "npy as npz": (".npz", _npy),
    "pt": (".pt", _saved),
    "pt of before": (".pt", partial(_saved, zipped=False)),
    "pt by hand": (".pt", _zipped),
    "pickle as npy": (".npy", pickle.dumps),
    "pickle as pt": (".pt", partial(pickle.dumps, protocol=2)),
    "pickle as h5": (".h5", pickle.dumps),
    "pickle as csv": (".csv", pickle.dumps),
    "pickle as mat": (".mat", pickle.dumps),
    "pickle": (".pkl", pickle.dumps),
}


def tried(where: Path, share: float = 1.0, seed: int = 0) -> Iterator[Failure | None]:
    r"""Read forged files by the commands that would; yields what is wrong, or None.

    Arguments:
        where: A folder to work in.
        share: How many of them; 1 is all.
        seed: Fixes which, of fewer.
    """
    where = where.resolve()
    mark = where / "mark"
    runs.made(runs.fit("SVI", "mine", True), where)
    sent = where / "sent"
    for name, bomb in bombs(str(mark)).items():  # each does what it is there for
        mark.unlink(missing_ok=True)
        run(partial(pickle.loads, pickle.dumps(bomb)), where)
        yield None if mark.exists() else Failure(f"the payload {name}", "does not run by itself")
    forged = [*_settings(sent, mark), *_checkpoints(sent, mark), *_arrays(sent, mark)]
    for what, forge, words in forged[seed % round(1 / share) :: round(1 / share)]:
        mark.unlink(missing_ok=True)
        shutil.rmtree(sent, ignore_errors=True)
        shutil.copytree(where / "mine", sent)
        _traps(sent, mark)
        forge()
        outcome = run(command(words), sent)
        if mark.exists():
            yield Failure(what, "ran")
        elif outcome.status != 2 or not outcome.tidy:
            yield Failure(what, f"is not refused in a line: {outcome.said()}")
        else:
            yield None


def _traps(sent: Path, mark: Path) -> None:
    text = EVIL.format(mark=str(mark))
    (sent / "evil_pair.py").write_text(text)
    (sent / "evil_package").mkdir()
    for name in ("__init__.py", "pairs.py"):
        (sent / "evil_package" / name).write_text(text)


Forged = tuple[str, Callable[[], Any], Sequence[str]]


def _settings(sent: Path, mark: Path) -> Iterator[Forged]:
    config = [runs.FIT, "--config", "settings.yaml", "--out", "new"]
    commands = {
        "pair": (config, [runs.FIT, "--resume", "--out", "."], [runs.EVALUATE, "."]),
        "data": (config, [runs.EVALUATE, "."]),
    }
    names = {"mark": str(mark), "run": str(sent)}
    for name, given in CALLABLES.items():
        for place, put in PLACES.items():
            for form, make in FORMS.items():
                value = _filled(put(make(name, given), given), names)
                for words in commands.get(place, (config,)):
                    what = f"settings, {place} {name} as {form}, {words[0]} {words[1]}"
                    yield what, partial(_change, sent, value), words
    for tag in TAGS:
        for place in ("pair", "pair_parameters", "data", "epochs", "anything"):
            line = f"{place}: {tag.format(**names)}\n"
            for words in commands["pair"]:
                what = f"settings, {place}: {tag}, {words[0]} {words[1]}"
                yield what, partial(_append, sent / "settings.yaml", line), words


def _checkpoints(sent: Path, mark: Path) -> Iterator[Forged]:
    for name, bomb in bombs(str(mark)).items():
        for place, put in IN_CHECKPOINT.items():
            for words in ([runs.EVALUATE, "."], [runs.FIT, "--resume", "--out", "."]):
                what = f"checkpoint, {name} at {place}, {words[0]}"
                yield what, partial(_replaced, sent / "checkpoint.pt", put, bomb), words


def _arrays(sent: Path, mark: Path) -> Iterator[Forged]:
    for name, bomb in bombs(str(mark)).items():
        for form, (suffix, make) in ARRAYS.items():
            path = sent / f"data{suffix}"
            for words in (
                [runs.FIT, "--data", path.name],
                [runs.EVALUATE, ".", "--data", path.name],
            ):
                yield f"array, {name} in {form}, {words[0]}", partial(_put, path, make, bomb), words


def of_other_kinds(where: Path, share: float = 1.0, seed: int = 0) -> Iterator[Failure | None]:
    r"""Read checkpoints in which an entry is of another kind; yields what is wrong, or None.

    What a command does not look at is nothing to it; all else is refused in a line.

    Arguments:
        where: A folder to work in.
        share: How many of them; 1 is all.
        seed: Fixes which, of fewer.
    """
    where = where.resolve()
    runs.made(runs.fit("SVI", "mine", False), where)
    state = torch.load(where / "mine" / "checkpoint.pt", weights_only=True)
    plans = [
        (key, value, words)
        for key in state
        for value in KINDS
        for words in ([runs.EVALUATE, ".", *runs.SCORED], runs.fit("SVI", ".", False, "--resume"))
    ]
    sent = where / "sent"
    for key, value, words in plans[seed % round(1 / share) :: round(1 / share)]:
        shutil.rmtree(sent, ignore_errors=True)
        shutil.copytree(where / "mine", sent)
        torch.save({**state, key: KINDS[value](state[key])}, sent / "checkpoint.pt")
        outcome = run(command(words), sent, memory=4096)
        what = f"checkpoint, {key} is {value}, {words[0]}"
        yield None if outcome.tidy else Failure(what, outcome.said())


def _inner(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    r"""A value whose tensors are changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _inner(entry, change) for name, entry in value.items()}
    return [_inner(entry, change) for entry in value] if isinstance(value, list) else value


def _other(value: Any) -> Any:
    r"""A value whose numbers are words."""
    if isinstance(value, dict):
        return {name: _other(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_other(entry) for entry in value]
    return "word" if isinstance(value, (int, float)) else value


KINDS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda value: None,
    "a number": lambda value: -1,
    "a word": lambda value: "word",
    "a list": lambda value: [1, "a", None],
    "names": lambda value: {"a": 1},
    "empty": lambda value: type(value)() if isinstance(value, (list, dict, str)) else value,
    "a tensor": lambda value: torch.zeros(3),
    "of tensors without numbers": lambda value: _inner(value, lambda t: t.to("meta")),
    "of expanded tensors": lambda value: _inner(value, lambda t: torch.zeros(1).expand(1 << 40)),
    "of tensors of another shape": lambda value: _inner(value, lambda t: torch.zeros(7, 7)),
    "of tensors of another type": lambda value: _inner(value, lambda t: t.to(torch.complex64)),
    "of words": lambda value: _inner(value, lambda t: "word"),
    "of words for numbers": _other,
}
r"""What an entry of a checkpoint is made into."""


def _put(path: Path, make: Callable[[Any], bytes], bomb: Any) -> None:
    path.write_bytes(make(bomb))


def _replaced(path: Path, put: Callable[[dict[str, Any], Any], Any], bomb: Any) -> None:
    torch.save(put(torch.load(path, weights_only=True), bomb), path)


def _append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line)


def _change(sent: Path, settings: dict[str, Any]) -> None:
    path = sent / "settings.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **settings}))


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(entry, names) for key, entry in value.items()}
    if isinstance(value, list):
        return [_filled(entry, names) for entry in value]
    if not isinstance(value, str):
        return value
    for name, text in names.items():
        value = value.replace("{" + name + "}", text)
    return value
