r"""Commands in processes of their own, which are forked: torch and Pyro are imported once."""

import os
import resource
import runpy
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

SECONDS = 120.0
r"""What a command may take; one that takes longer has failed."""


@dataclass(frozen=True)
class Outcome:
    r"""How a command ended.

    Arguments:
        status: Its exit status, minus a signal's number, or None where it was out of time.
        out: What it wrote to its standard output.
        err: What it wrote to its standard error.
        fired: Whether what was to happen to it did.
    """

    status: int | None
    out: str
    err: str
    fired: bool = True

    @property
    def lines(self) -> list[str]:
        r"""The lines of the standard error but notes, warnings of torch, and progress bars."""
        lines = self.err.replace("\r", "\n").splitlines()
        return [line for line in lines if line.strip() and not _is_progress(line)]

    @property
    def tidy(self) -> bool:
        r"""Whether it succeeded, or ended in one line and status 2."""
        if self.status == 0:
            return "Traceback" not in self.err
        return self.status == 2 and len(self.lines) == 1 and self.lines[0].startswith("error: ")

    def said(self) -> str:
        r"""The end of it in a line."""
        return f"status {self.status}: {' / '.join(self.lines[-3:])[-400:]}"


def _is_progress(line: str) -> bool:
    return "%|" in line or line.lstrip().startswith(("training", "scoring", "estimating", "note:"))


def command(words: Sequence[str]) -> Callable[[], None]:
    r"""What ``python -m`` does with words: a module's name, then its arguments."""

    def call() -> None:
        sys.argv = list(words)
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)

    return call


def warm(words: Sequence[str], cwd: Path) -> None:
    r"""Import here what a command imports: every process that is forked then has it."""
    names = cwd / "modules"

    def call() -> None:
        before = set(sys.modules)
        try:
            command(words)()
        finally:
            names.write_text("\n".join(sorted(set(sys.modules) - before)))

    run(call, cwd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names.read_text().split():
            with suppress(Exception):
                import_module(name)


def run(
    call: Callable[[], Any],
    cwd: Path,
    before: Callable[[], Any] | None = None,
    meanwhile: Callable[[int], bool] | None = None,
    memory: int | None = None,
    seconds: float = SECONDS,
    env: Mapping[str, str | None] | None = None,
) -> Outcome:
    r"""Call a function in a forked process.

    Arguments:
        call: The function.
        cwd: The directory that it runs in.
        before: Called in the process before that.
        meanwhile: Called here with the number of the process; returns whether something was done.
        memory: MiB that it may have beyond what it has at its start.
        seconds: What it may take.
        env: Variables of its environment that are other than here; None is one that is not set.
    """
    with TemporaryFile() as out, TemporaryFile() as err:
        reading, ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            begin = partial(os.write, ready, b"!")
            _become(call, cwd, before, memory, env or {}, out.fileno(), err.fileno(), begin)
        with suppress(OSError):  # as it does itself: whoever is first
            os.setpgid(pid, pid)
        os.close(ready)
        os.read(reading, 1)  # before it begins, signals would meet no handler of its own
        os.close(reading)
        fired = True if meanwhile is None else meanwhile(pid)
        status = _wait(pid, seconds)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Outcome(status, *texts, fired)


def _wait(pid: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.002)


def _become(
    call: Callable[[], Any],
    cwd: Path,
    before: Callable[[], Any] | None,
    memory: int | None,
    env: Mapping[str, str | None],
    out: int,
    err: int,
    begin: Callable[[], Any],
) -> None:
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever a shell has it ignore
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(out, 1)
        os.dup2(err, 2)
        encoding = env.get("PYTHONIOENCODING")
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding=encoding, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        os.chdir(cwd)
        for name, value in env.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if memory is not None:
            limit = used_memory() + (memory << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        begin()
        if before is not None:
            before()
        call()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def used_memory() -> int:
    r"""Bytes of addresses that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
