r"""Whether two states of the code give the same numbers, to the last digit.

    python -m benchmarks.same_numbers run DIRECTORY [--epochs E] [--num-samples K]
    python -m benchmarks.same_numbers compare BEFORE AFTER

``run`` trains and scores what :data:`RUNS` lists, by the commands, and puts the runs into a
directory; ``compare`` reads two of them and prints a table. Both are to be made on one machine,
with one thread each, in the environments of the same packages. Compared are every ``results.json``
and every ``history.csv``; what is measured in seconds, and the machine, are left out.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CONV = "--pair.network=conv"
RUNS: dict[str, tuple[str, ...]] = {
    **{
        name: (f"--pair={name}",)
        for name in ("VAE", "BetaVAE", "Autoencoder", "DenoisingAutoencoder")
    },
    **{
        name: (f"--pair={name}",)
        for name in ("AdversarialAutoencoder", "BayesianAutoencoder", "BayesianVAE")
    },
    "local": ("--pair=BayesianVAE", "--weight-noise=local"),
    "flipout": ("--pair=BayesianAutoencoder", CONV, "--weight-noise=flipout"),
    "wake_sleep": ("--algorithm=wake_sleep",),
    "monte_carlo_em": ("--algorithm=monte_carlo_em", "--data=digits", "--binarize=fixed"),
    "contrast": ("--pair=RBM", "--algorithm-options={persistent: true}"),
    "iwae": ("--objective=iwae", "--num-particles=5"),
    "dreg": ("--objective=dreg", "--num-particles=5", "--kl-warm-up=2"),
    "two_layers": ("--pair=examples/hierarchical.py:TwoLayers", "--objective=iwae"),
    "sampled": ("--objective=sampled_elbo", "--compile=on", "--patience=2", "--map-prior=10"),
    "trace_elbo": ("--objective=pyro.infer.Trace_ELBO",),
}
r"""By the run's name what ``python -m pyro_aevb.fit`` is given."""
SCORED: tuple[tuple[str, ...], ...] = (
    ("VAE", "--estimator=ais", "--num-data=20"),
    ("VAE", "--estimator=gap", "--num-data=20"),
    ("VAE", "--estimator=bdmc", "--num-data=20"),
    ("VAE", "--estimator=parzen"),
    ("contrast", "--estimator=partition"),
    ("VAE", "--against=noise", "--num-samples=100"),
    ("VAE", "--corruption=masking", "--num-samples=100"),
    ("BayesianVAE", "--estimator=ais", "--num-data=10"),
)
r"""A run's name, and what ``python -m pyro_aevb.evaluate`` is given after its directory."""
STUDIES = ("aevb", "bayesian_autoencoders")
TIMED = ("second", "environment", "date", "version")
r"""A value whose name contains one of these is not compared."""


def run(directory: Path, epochs: int, num_samples: int) -> None:
    r"""Make every run that is not there yet."""
    short = (f"--epochs={epochs}", f"--num-samples={num_samples}", "--seed=0", "--device=cpu")
    for name, flags in RUNS.items():
        out = directory / name
        if not (out / "results.json").exists():
            few = ("--epochs=2",) if name == "monte_carlo_em" else ()
            _command("fit", f"--out={out}", *short, *few, *flags)
    for name, *flags in SCORED:
        _command("evaluate", str(directory / name), *flags)
    for study in STUDIES:
        out = directory / "studies" / study
        _command("studies", study, "--scale=smoke", f"--out={out}")


def _command(command: str, *flags: str) -> None:
    print(f"python -m pyro_aevb.{command} {' '.join(flags)}", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run(
        [sys.executable, "-m", f"pyro_aevb.{command}", *flags],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def numbers(directory: Path) -> dict[str, dict[str, Any]]:
    r"""What is compared: by file, and there by the place in it, each value as it is written."""
    found = {}
    for path in sorted(directory.rglob("results.json")):
        found[str(path.relative_to(directory))] = dict(_leaves("", json.loads(path.read_text())))
    for path in sorted(directory.rglob("history.csv")):
        with path.open() as file:
            rows = dict(enumerate(csv.DictReader(file)))
        found[str(path.relative_to(directory))] = dict(_leaves("", rows))
    return found


def _leaves(place: str, value: Any) -> Any:
    if any(word in place.rpartition("/")[2] for word in TIMED):
        return
    pairs: Any = None
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    if pairs is None:
        yield place, value
    else:
        for key, one in pairs:
            yield from _leaves(f"{place}/{key}", one)


def compare(before: Path, after: Path) -> int:
    r"""Print a line for each file, with the first places that differ; how many files do."""
    one, other = numbers(before), numbers(after)
    differing = 0
    for file in sorted({*one, *other}):
        a, b = one.get(file, {}), other.get(file, {})
        places = [place for place in {**a, **b} if repr(a.get(place)) != repr(b.get(place))]
        differing += bool(places)
        said = f"{len(places)} of {len({**a, **b})} differ" if places else f"{len(a)} values equal"
        print(f"{file:60} {said}")
        for place in places[:5]:
            print(f"    {place}: {a.get(place)!r}, {b.get(place)!r}")
    print(f"{len({**one, **other})} files, {differing} differ")
    return differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("run")
    make.add_argument("directory", type=Path)
    make.add_argument("--epochs", type=int, default=100)
    make.add_argument("--num-samples", type=int, default=5000)
    look = commands.add_parser("compare")
    look.add_argument("before", type=Path)
    look.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        run(given.directory, given.epochs, given.num_samples)
    else:
        sys.exit(compare(given.before, given.after) > 0)


if __name__ == "__main__":
    main()
