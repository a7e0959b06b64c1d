r"""The time of an importance-weighted log-likelihood: ``python -m benchmarks.scoring``.

K samples for each of the first images of the MNIST test set, from parameters trained for one epoch.
"""

import math
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from operator import methodcaller
from pathlib import Path
from typing import Any

from benchmarks import report, scoring_time, trust
from benchmarks.images import mnist
from benchmarks.measure import (
    Reply,
    Worker,
    alternate,
    epoch,
    parameters,
    ratio,
    say,
    workers,
)
from benchmarks.networks import NETWORKS, Network
from benchmarks.peers import PEERS
from benchmarks.targets import SCORING

TITLES = {
    "pytorch": "PyTorch, a loop",
    "pythae": "pythae, get_nll",
    "project": "pyro_aevb, score",
    "project-medium": "pyro_aevb, score, medium products",
}
NETWORK_NAMES = ("mlp100", "deep1")
WHOLE = 10_000


def measure(network: Network, args: Namespace) -> dict[str, Any]:
    r"""All contenders on one network: compared, then timed in turns."""
    say(network.title)
    train, test = mnist()
    x = test[: args.num_data]
    work = methodcaller("score", x, args.num_samples)
    contenders = {name: PEERS[name] for name in TITLES}
    images = train[: 6_000 if args.quick else len(train)]
    with workers(contenders, network, images, args.device) as (started, absent):
        teacher = next(iter(started.values()))
        teacher.run(epoch)
        values = teacher.run(parameters).value
        for worker in started.values():
            worker.run(methodcaller("load", values))
        estimates = _agree({name: worker.run(work) for name, worker in started.items()})
        seconds = alternate(started, work, args.rounds)
        whole = _whole(started, args) if args.whole else None
    return {
        "title": network.title,
        "num_data": len(x),
        "num_samples": args.num_samples,
        "rounds": args.rounds,
        "seconds": seconds,
        "absent": absent,
        "log_likelihood": estimates,
        "whole_test_set_seconds": whole,
        **report.circumstances("benchmarks.scoring", args.device),
    }


def _agree(replies: Mapping[str, Reply]) -> dict[str, float]:
    r"""The estimates, once they are found equal within three standard errors of a difference."""
    estimates = {name: reply.value[0] for name, reply in replies.items()}
    reference, error = replies["pytorch"].value
    for name, value in estimates.items():
        if not abs(value - reference) <= 3 * math.sqrt(2) * error:
            raise AssertionError(
                f"{name} estimates {value:.4f}, PyTorch {reference:.4f} ± {error:.4f}: {estimates}"
            )
    say(f"equal estimates, ± {error:.4f}: {estimates}")
    return estimates


def _whole(started: Mapping[str, Worker], args: Namespace) -> dict[str, float]:
    r"""This project on all test images, nothing extrapolated."""
    work = methodcaller("score", mnist()[1], args.num_samples)
    own = {name: worker for name, worker in started.items() if name.startswith("project")}
    return {name: worker.run(work).seconds for name, worker in own.items()}


def section(result: Mapping[str, Any]) -> str:
    seconds, n = result["seconds"], result["num_data"]
    whole = result["whole_test_set_seconds"] or {}
    rows = []
    for name, values in seconds.items():
        median, extent = report.spread(values, 1e3 / n)
        rows.append(
            [
                TITLES[name],
                median,
                extent,
                f"{statistics.median(values) * WHOLE / n:.1f}",
                f"{whole[name]:.1f}" if name in whole else "",
                f"{ratio(values, seconds['project']):.2f}",
                f"{result['log_likelihood'][name]:.3f}",
            ]
        )
    rows += [[TITLES[name], reason, *[""] * 5] for name, reason in result["absent"].items()]
    columns = (
        "",
        "ms per image",
        "range",
        "s for 10,000, extrapolated",
        "s for 10,000, measured",
        "relative",
        "log p(x)",
    )
    return (
        f"## {result['title'].partition(', batch')[0]}\n\n"
        f"{result['rounds']} rounds of {n:,} images. "
        f"{report.circumstances_line(result)}\n\n{report.table(columns, rows)}"
    )


INTRODUCTION = r"""# Scoring speed, {device}

The importance-weighted log-likelihood with K = {samples:,} samples for each test image, all
contenders at the same parameters (one epoch of training), each in a process of its own, in turns.
Medians and ranges over rounds; the time for 10,000 images is extrapolated from those of a round
where it is not said to be measured. *Relative* is the time in units of that of `pyro_aevb`. The
estimates of log p(x) in nats per image must agree within three standard errors before anything is
timed; that untimed call also compiles what `pyro_aevb` runs, which a whole test set pays once, with
5 to 10 s. Rows with *medium* products ran under `torch.set_float32_matmul_precision("medium")`;
what that means to `torch.mm` on the machine is said with it.
"""


def page(device: str, results: Mapping[str, Any]) -> str:
    seconds = {name: result["seconds"] for name, result in results.items()}
    rows = [target.row(device, seconds) for target in SCORING]
    if device == "cuda":
        rows.append(_whole_row(results.get("mlp100", {})))
    samples = next(iter(results.values()))["num_samples"]
    return "\n".join(
        [
            INTRODUCTION.format(device=device, samples=samples),
            f"![Milliseconds per image](scoring-{device}.png)\n",
            f"## Targets\n\n{report.table(('target', 'aim', 'measured', 'reached'), rows)}",
            *(section(result) for result in results.values()),
        ]
    )


def _whole_row(result: Mapping[str, Any]) -> list[str]:
    found = (result.get("whole_test_set_seconds") or {}).get("project")
    name = "the whole test set, K = 5,000"
    if found is None:
        return [name, "≤ 5 s", "not measured", ""]
    return [name, "≤ 5 s", f"{found:.1f} s", "yes" if found <= 5 else "**no**"]


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORK_NAMES, default=list(NETWORK_NAMES))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-data", type=int, default=100)
    parser.add_argument("--num-samples", type=int, default=5000, help="a multiple of 100")
    parser.add_argument("--whole", action="store_true", help="also this project on all 10,000")
    parser.add_argument("--quick", action="store_true", help="10 images, little training")
    parser.add_argument(
        "--time",
        nargs="*",
        choices=scoring_time.EFFORTS,
        help="time to 0.1 nat, of these or of all that is not there yet, in place of the rest",
    )
    trust.add_arguments(parser)
    parser.add_argument("--figure", type=Path, help="of --time, a PNG file")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    if args.time is not None:
        return scoring_time.run(trust.named(args))
    if args.quick:
        args.rounds, args.num_data = min(args.rounds, 2), 10
    path = args.out / f"scoring-{args.device}.json"
    results = report.collect(
        path,
        args.networks,
        lambda name: measure(NETWORKS[name], args),
        lambda found: page(args.device, found),
    )
    panels = {
        result["title"].partition(", batch")[0]: {
            name: 1e3 * statistics.median(values) / result["num_data"]
            for name, values in result["seconds"].items()
        }
        for result in results.values()
    }
    report.bars(path.with_suffix(".png"), panels, "milliseconds per image", TITLES)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
