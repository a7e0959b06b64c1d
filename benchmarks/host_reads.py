r"""How often the host reads a device: ``python -m benchmarks.host_reads``.

Each read makes the host wait until the device has done all that it was told. They are counted on
the device of the tests, tests/second_device.py: of epochs of training, with one step and with
ten, and of scoring a block of data, with few draws and with many.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from pyro_aevb.estimators.importance import score
from pyro_aevb.reports.proof import CASES, Case, begun

STEPS, DRAWS, SIZE, EPOCHS = (1, 10), (30, 300), 500, 3


def epochs(case: Case, steps: int) -> int:
    r"""Reads of :data:`EPOCHS` epochs, each of so many steps on :data:`SIZE` data."""
    import second_device as second

    data, batch = f"digits:{SIZE}", SIZE // steps
    with second.Factory():
        trainer, _ = begun(case, "elsewhere", "off", data, epochs=EPOCHS, batch=batch)
        with second.reads() as found:
            trainer.run()
    return len(found)


def block(case: Case, draws: int) -> int | None:
    r"""Reads while 100 data are scored with so many draws; None where there is nothing to score."""
    import second_device as second

    with second.Factory():
        trainer, data = begun(case, "elsewhere", "off", f"digits:{SIZE}")
        if trainer.pair.description is None or trainer.pair.description.undefined() is not None:
            return None
        with second.reads() as found:
            score(trainer.pair, data.first(100), num_samples=draws)
    return len(found)


def page(results: Mapping[str, Any]) -> str:
    rows = [
        [name, *("" if value is None else str(value) for value in found)]
        for name, found in results["reads"].items()
    ]
    columns = ["", *(f"epochs of {steps}" for steps in STEPS)]
    columns += [f"scoring, {draws} draws" for draws in DRAWS]
    return (
        "# What the host reads of a device\n\nReads, each of which waits for the device, of "
        f"{EPOCHS} epochs of training with {STEPS[0]} and with {STEPS[1]} steps each, validation "
        f"included, and of scoring a block of 100 data with {DRAWS[0]} and with {DRAWS[1]} draws a "
        "datum; run eagerly. That the numbers of a row do not grow says that no step reads, and no "
        f"draw. Blank: there is no likelihood to score.\n\n{report.table(columns, rows)}\n"
        f"{report.circumstances_line(results)}\n"
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="*", choices=[*CASES], default=[*CASES])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import second_device as second

    reads = {}
    with second.known():
        for name in args.cases:
            torch.manual_seed(0)
            case = CASES[name]
            reads[name] = [*(epochs(case, n) for n in STEPS), *(block(case, n) for n in DRAWS)]
            print(name, reads[name], file=sys.stderr, flush=True)
    results = {"reads": reads, **report.circumstances("benchmarks.host_reads", "cpu")}
    path = args.out / "host-reads.json"
    report.merge(path, results)
    path.with_suffix(".md").write_text(page(results))


if __name__ == "__main__":
    main()
