r"""The time of annealed importance sampling: ``python -m benchmarks.annealing``.

16 chains for each of the first images of the MNIST test set, from parameters trained for one epoch,
and the matrix products that this cannot do without.
"""

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from operator import methodcaller
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.images import mnist
from benchmarks.measure import alternate, epoch, parameters, ratio, say, workers
from benchmarks.networks import NETWORKS, Network
from benchmarks.peers import PEERS
from benchmarks.targets import ANNEALING

TITLES = {
    "project": "pyro_aevb, AIS",
    "project-medium": "pyro_aevb, AIS, medium products",
    "floor": "floor: torch.mm",
    "floor-fastest": "floor: fastest products",
}
CHAINS, LEAPFROG = 16, 10
WHOLE, TEMPERATURES = 1000, 1000
r"""Images and temperatures that the time is extrapolated to."""


def measure(network: Network, args: Namespace) -> dict[str, Any]:
    say(network.title)
    train, test = mnist()
    x = test[: args.num_data]
    work = methodcaller("anneal", x, CHAINS, args.num_temperatures, LEAPFROG)
    contenders = {name: PEERS[name] for name in TITLES}
    images = train[: 6_000 if args.quick else len(train)]
    with workers(contenders, network, images, args.device) as (started, absent):
        started["project"].run(epoch)
        trained = started["project"].run(parameters).value
        started["project-medium"].run(methodcaller("load", trained))
        # Compiles, and finds the fastest products.
        bounds = {name: worker.run(work).value for name, worker in started.items()}
        seconds = alternate(started, work, args.rounds)
    return {
        "title": network.title,
        "num_data": len(x),
        "num_temperatures": args.num_temperatures,
        "rounds": args.rounds,
        "seconds": seconds,
        "absent": absent,
        "ais_lower": bounds,
        **report.circumstances("benchmarks.annealing", args.device),
    }


INTRODUCTION = r"""# Annealing speed, {device}

Annealed importance sampling, {chains} chains for each test image and {leapfrog} leapfrog steps at
each temperature, by contenders that each run in a process of their own, in turns. Medians and
ranges over rounds; the time for {whole:,} images and {temperatures:,} temperatures is extrapolated
from that of a round, being proportional to both. *Floor* are the matrix products alone: those of
the decoder, forward and back to the codes, that {chains} chains take. The chains that tune the step
size, random numbers, activations, the likelihood of {pixels} pixels and the leapfrog steps
themselves come on top of it. *Relative* is the time in units of that of `pyro_aevb`. An untimed
call of the same work comes first, which also compiles.

![Minutes](annealing-{device}.png)

## Targets

{targets}
"""


def page(device: str, results: Mapping[str, Any]) -> str:
    seconds = {name: result["seconds"] for name, result in results.items()}
    rows = [target.row(device, seconds) for target in ANNEALING]
    head = INTRODUCTION.format(
        device=device,
        chains=CHAINS,
        leapfrog=LEAPFROG,
        whole=WHOLE,
        temperatures=TEMPERATURES,
        pixels=784,
        targets=report.table(("target", "aim", "measured", "reached"), rows),
    )
    return "\n".join([head, *(section(result) for result in results.values())])


def section(result: Mapping[str, Any]) -> str:
    seconds = result["seconds"]
    rows = [
        [
            TITLES[name],
            *report.spread(values, 1.0),
            f"{statistics.median(values) * factor(result):.0f}",
            f"{ratio(values, seconds['project']):.2f}",
            "" if result["ais_lower"][name] is None else f"{result['ais_lower'][name]:.2f}",
        ]
        for name, values in seconds.items()
    ]
    rows += [[TITLES[name], reason, *[""] * 4] for name, reason in result["absent"].items()]
    whole = f"s for {WHOLE:,} images, T = {TEMPERATURES:,}"
    columns = ("", "s per round", "range", whole, "relative", "ais_lower")
    return (
        f"## {result['title'].partition(', batch')[0]}\n\n"
        f"{result['rounds']} rounds of {result['num_data']:,} images and "
        f"{result['num_temperatures']:,} temperatures. "
        f"{report.circumstances_line(result)}\n\n{report.table(columns, rows)}"
    )


def factor(result: Mapping[str, Any]) -> float:
    r"""How many times the work of a round is that of all images and temperatures."""
    trajectories = (TEMPERATURES - 1) / (result["num_temperatures"] - 1)
    return WHOLE / result["num_data"] * trajectories


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.annealing", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-data", type=int, default=100)
    parser.add_argument("--num-temperatures", type=int, default=100, help="at least 2")
    parser.add_argument("--quick", action="store_true", help="10 images, little training")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.num_data, args.num_temperatures = min(args.rounds, 2), 10, 10
    path = args.out / f"annealing-{args.device}.json"
    results = report.collect(
        path,
        ["deep1"],
        lambda name: measure(NETWORKS[name], args),
        lambda found: page(args.device, found),
    )
    panels = {
        result["title"].partition(", batch")[0]: {
            name: statistics.median(values) * factor(result) / 60
            for name, values in result["seconds"].items()
        }
        for result in results.values()
    }
    unit = f"minutes for {WHOLE:,} images and {TEMPERATURES:,} temperatures"
    report.bars(path.with_suffix(".png"), panels, unit, TITLES)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
