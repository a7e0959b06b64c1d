r"""Files of every format that is read, changed as the coverage of their readers guides: atheris
keeps what reaches new lines, and changes it further.

:func:`tried` starts ``python -m benchmarks.faults.guided`` for each format, as libFuzzer ends the
process in which it has run.
"""

import base64
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

from benchmarks.faults import fuzz
from benchmarks.faults.batches import MEMORY, SECONDS, attempted
from benchmarks.faults.child import used_memory
from benchmarks.faults.report import Failure

READERS = (
    *("pyro_aevb.data.sets", "pyro_aevb.data.files", "pyro_aevb.data.tables"),
    *("pyro_aevb.data.matlab", "PIL.Image", "scipy.io.matlab"),
)
r"""Modules that are imported with their lines counted."""
IMPORTED = ("zipfile", "numpy.lib.format", "numpy.lib._format_impl", "numpy.lib._npyio_impl")
r"""Modules whose functions are counted, imported before; not each version of NumPy has all."""


def available() -> bool:
    r"""Whether atheris is installed."""
    return find_spec("atheris") is not None


def tried(number: int, seed: int, where: Path) -> Iterator[Failure | None]:
    r"""Let each format be guided; yields what is wrong after each file, or None.

    Arguments:
        number: How many files, all formats together.
        seed: Fixes how they are changed.
        where: A folder to work in.
    """
    if not available():
        yield Failure("guided files", "atheris is not installed")
        return
    formats = fuzz.seeds(where / "seeds")
    each = -(-number // len(formats))
    for name in formats:
        words = [sys.executable, "-m", "benchmarks.faults.guided", str(where), name]
        words += [str(each), str(seed)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
        broken = where / "guided" / f"{name}.jsonl"
        failures = broken.read_text().splitlines() if broken.is_file() else []
        ends = [*(where / "guided").glob(f"{name}-*")]
        yield from (Failure(f"{name}, guided", line) for line in failures)
        if wrong := _not_guided(done, each):
            kept = [shutil.copy(path, tempfile.mkdtemp(prefix="fault-")) for path in ends]
            yield Failure(f"{name}, guided", f"{wrong} {' '.join(kept)}")
        else:
            yield from [None] * (each - len(failures))


def _not_guided(done: "subprocess.CompletedProcess[str]", each: int) -> str:
    r"""Why a process has not read so many files, or found no new lines by it; or nothing."""
    if done.returncode != 0 or f"Done {each} runs" not in done.stderr:
        said = re.findall(r"ERROR: libFuzzer: .*", done.stderr) or [done.stderr[-300:]]
        return f"status {done.returncode}: {said[-1]}"
    covered = [int(count) for count in re.findall(r" cov: (\d+)", done.stderr)]
    first = re.search(r"INITED cov: (\d+)", done.stderr)
    if first is None or covered[-1] <= int(first[1]):
        return f"no change reached a new line of {covered[-1:]}"
    return ""


def guide(where: Path, name: str, number: int, seed: int) -> None:
    r"""Read so many changed files of a format; does not come back."""
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=[*READERS]):
        for module in READERS:
            import_module(module)
        import_module("PIL.Image").init()  # imports the reader of each kind of picture
    for function in _functions():
        atheris.instrument_func(function)
    corpus = where / "guided" / name
    corpus.mkdir(parents=True)
    whole = (where / "seeds" / name).read_bytes()
    (corpus / "whole").write_bytes(whole)
    limit = used_memory() + (MEMORY << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def attempt(content: bytes) -> None:
        folder, beside = where / "guided" / "read", where / "seeds"
        wrong = attempted(lambda content: fuzz.read(folder, name, content, beside), content)
        if wrong:  # noted, and the next one is read
            line = json.dumps([wrong, base64.b64encode(content).decode()])
            with (where / "guided" / f"{name}.jsonl").open("a") as file:
                file.write(line + "\n")

    options = {
        "runs": number,
        "seed": seed + 1,  # to libFuzzer 0 is one that nobody knows
        "max_len": 4 * len(whole),
        "timeout": int(SECONDS),
        "rss_limit_mb": 0,
        "artifact_prefix": f"{where}/guided/{name}-",
    }
    words = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *words, str(corpus)], attempt)
    atheris.Fuzz()


def _functions() -> Iterator[FunctionType]:
    for module in filter(None, map(sys.modules.get, IMPORTED)):
        for value in [*vars(module).values()]:
            members = vars(value).values() if isinstance(value, type) else [value]
            for found in members:
                if (
                    isinstance(found, FunctionType)
                    and found.__globals__.get("__name__") == module.__name__
                ):
                    yield found


if __name__ == "__main__":
    guide(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
