r"""Files of every format that is read, changed as the coverage of their readers guides: atheris
keeps what reaches new lines, and changes it further.

:func:`tried` starts ``python -m benchmarks.faults.guided`` for each format, as an end of libFuzzer
is the end of its process, which the first file that is neither read nor refused in a line brings.
"""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

from benchmarks.faults import fuzz
from benchmarks.faults.batches import MEMORY, SECONDS, attempted
from benchmarks.faults.child import used_memory
from benchmarks.faults.report import Failure

READERS = ("pyro_aevb.data", "PIL", "scipy.io", "anndata", "pandas.io")
r"""Modules whose lines are counted as they are imported."""
IMPORTED = ("zipfile", "numpy.lib.format", "numpy.lib._format_impl", "numpy.lib._npyio_impl")
r"""Modules whose functions are counted, imported before; not each version of NumPy has all."""


class Broken(Exception):
    r"""A file was neither read nor refused in a line."""


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
    formats = fuzz.seeds(where / "seeds")
    each = -(-number // len(formats))
    for name in formats:
        words = [sys.executable, "-m", "benchmarks.faults.guided", str(where), name]
        words += [str(each), str(seed)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
        ran = int((re.findall(r"^Done (\d+) runs", done.stderr, re.M) or ["0"])[-1])
        yield from [None] * ran
        if done.returncode != 0 or ran < each:
            said = re.findall(r"Broken: (.*)|(ERROR: libFuzzer: .*)", done.stderr)
            came = " / ".join(filter(None, (part for parts in said for part in parts)))
            yield Failure(
                f"{name}, guided", came or f"status {done.returncode}: {done.stderr[-300:]}"
            )


def guide(where: Path, name: str, number: int, seed: int) -> None:
    r"""Read so many changed files of a format; does not come back."""
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=[*READERS]):
        import_module("pyro_aevb.data.sets")
    for function in _functions():
        atheris.instrument_func(function)
    corpus = where / "guided" / name
    corpus.mkdir(parents=True)
    whole = (where / "seeds" / name).read_bytes()
    (corpus / "whole").write_bytes(whole)
    limit = used_memory() + (MEMORY << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def attempt(content: bytes) -> None:
        folder, beside = where / "guided" / "read", where / "seeds" / "a.png"
        wrong = attempted(lambda content: fuzz.read(folder, name, content, beside), content)
        if wrong:
            raise Broken(wrong)

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
            if getattr(value, "__module__", None) == module.__name__:
                members = vars(value).values() if isinstance(value, type) else [value]
                yield from (found for found in members if isinstance(found, FunctionType))


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore"
    guide(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
