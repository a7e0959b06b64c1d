r"""Do on purpose what goes wrong, count how often a promise is kept, and write a page of it.

``python -m benchmarks.faults`` does all of it; ``--only`` a part, ``--share`` so much of each part.
What is drawn at random is drawn anew with another ``--seed``.
"""

import json
import math
import tempfile
import time
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.faults import (
    calls,
    commands,
    damage,
    forgery,
    fuzz,
    guided,
    launched,
    names,
    processes,
    runs,
    signals,
)
from benchmarks.faults.child import warm
from benchmarks.faults.report import Failure, Promise
from pyro_aevb.runs.provenance import commit

Part = tuple[str, Callable[[Path, float, int], Iterable[Failure | None]]]


def _some(number: int, share: float) -> int:
    return max(1, math.ceil(number * share))


def _calls(name: str) -> Callable[[Path, float, int], Iterator[Failure | None]]:
    def part(where: Path, share: float, seed: int) -> Iterator[Failure | None]:
        program = calls.program(name, where)
        folder = where / "work"
        calls.fresh(program, folder)
        warm(program.words, folder)
        numbers, step = range(1, calls.counted(program, folder) + 1), round(1 / share)
        yield from calls.tried(program, folder, numbers[seed % step :: step])

    return part


PARTS: dict[str, Part] = {
    "signals": (
        "a training that a signal ends at any moment resumes, and ends as if nothing had been",
        lambda where, share, seed: signals.tried(_some(500, share), seed, where),
    ),
    **{
        f"calls of {name}": (
            f"{what} that is killed, meets a full disk or an I/O error at any system call on its "
            "files says so in a line, and done again ends as if nothing had been",
            _calls(name),
        )
        for name, what in (
            ("fit", "a training with its scores"),
            ("evaluate", "a scoring"),
            ("compare", "a comparison"),
            ("study", "a study"),
        )
    },
    "damage": (
        "a damaged file of a run is refused in a line, or holds what was written, and no other "
        "scoring replaces it by less",
        lambda where, share, seed: damage.tried(_some(5000, share), seed, where),
    ),
    "forgery": (
        "a forged file runs nothing, and is refused in a line",
        lambda where, share, seed: forgery.tried(where, share, seed),
    ),
    "kinds": (
        "a checkpoint with entries of another kind is refused in a line, in 4 GiB of memory",
        lambda where, share, seed: forgery.of_other_kinds(where, share, seed),
    ),
    "names": (
        "a name is shown as it is, and makes no HTML, link, formula or line",
        lambda where, share, seed: names.tried(where),
    ),
    "files": (
        "a file of any format, changed at random, is read or refused in a line, in 2 GiB of memory",
        lambda where, share, seed: fuzz.tried(_some(5000, share), seed, where),
    ),
    "guided files": (
        "a file of any format, changed as its reader's coverage guides, is read or refused in a "
        "line, in 2 GiB of memory",
        lambda where, share, seed: guided.tried(_some(20_000, share), seed, where),
    ),
    "settings": (
        "settings, changed at random, are read or refused in a line",
        lambda where, share, seed: fuzz.settings_tried(_some(2000, share), seed, where),
    ),
    "commands": (
        "a command, right or wrong, succeeds or says in a line why not",
        lambda where, share, seed: commands.tried(_some(1000, share), seed, where),
    ),
    "processes": (
        "processes that meet in one run, or lack memory, a home or finite numbers, lose nothing",
        lambda where, share, seed: processes.tried(seed, where),
    ),
    "torchrun": (
        "a training in two processes that loses one ends in one line, and ends resumed by one or "
        "three as if nothing had been, to rounding",
        lambda where, share, seed: launched.tried(_some(20, share), seed, where),
    ),
}


def tried(name: str, where: Path, share: float = 1.0, seed: int = 0) -> Promise:
    r"""Try a part.

    Arguments:
        name: One of :data:`PARTS`.
        where: A folder to work in.
        share: How much of the part.
        seed: Fixes what is drawn at random.
    """
    title, part = PARTS[name]
    where.mkdir(parents=True, exist_ok=True)
    return Promise(name, title).count(part(where, share, seed))


def prepared(where: Path) -> None:
    r"""Import what the commands import, once, and let figures be written without being drawn."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    warm(runs.fit("SVI", "warm", True), where)
    calls.figures_as_dots()


def page(found: dict[str, dict], circumstances: dict) -> str:
    rows = [
        [
            name,
            entry["promise"],
            f"{entry['share']:.0%}".replace("%", " %"),
            f"{entry['tried']:,}",
            f"{len(entry['failures']):,}",
            f"`{(entry.get('commit') or 'unknown')[:7]}`",
        ]
        for name, entry in found.items()
    ]
    failures = [
        f"- {name}: {what}: {came}"
        for name, entry in found.items()
        for what, came in entry["failures"][:10]
    ]
    broken = "\n\nThe first of each part that are broken:\n\n" + "\n".join(failures)
    return (
        "# Faults\n\nWhat was done on purpose, how often, and how often a promise was broken. An "
        "injection that did not take place counts as broken; after the last call that writes there "
        "is no full disk to meet, and none is counted.\n\n"
        + report.table(["part", "promise", "share", "tried", "broken", "commit"], rows)
        + broken * bool(failures)
        + f"\n\n{report.circumstances_line(circumstances)}\n"
    )


def main() -> None:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[*PARTS], metavar="PART[=SHARE]")
    parser.add_argument("--share", type=float, default=1.0, help="of each part, by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    path = args.out / "faults.json"
    calls.load(Path(tempfile.mkdtemp()))
    with tempfile.TemporaryDirectory() as folder, calls.loaded():
        where = Path(folder)
        prepared(where)
        for word in args.only:
            name, _, given = word.partition("=")
            share, began = float(given or args.share), time.monotonic()
            promise = tried(name, where / name.replace(" ", "-"), share, args.seed)
            failures = [(failure.what, failure.came) for failure in promise.failures]
            # Read now: another process may do another part meanwhile.
            known = json.loads(path.read_text()) if path.is_file() else {"parts": {}}
            known["parts"][name] = {
                "promise": promise.promise,
                "tried": promise.tried,
                "failures": failures,
                "share": share,
                "seed": args.seed,
                "commit": commit(),
                "seconds": round(time.monotonic() - began),
            }
            print(f"{name}: {promise.tried:,} tried, {len(failures):,} broken", flush=True)
            circumstances = report.circumstances("benchmarks.faults", "cpu")
            path.write_text(json.dumps({**known, **circumstances}, indent=1) + "\n")
            parts = {name: known["parts"][name] for name in PARTS if name in known["parts"]}
            path.with_suffix(".md").write_text(page(parts, circumstances))


if __name__ == "__main__":
    main()
