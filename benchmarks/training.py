r"""The time of a training epoch: ``python -m benchmarks.training``.

Real MNIST, binarized anew at every step, Adam at 1e-3; an epoch includes data and optimizer.
``--what startup`` measures the time to the first step instead, and ``--what profile`` where the
time of a step goes.
"""

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import agreement, profile, report, startup
from benchmarks.images import images_for
from benchmarks.measure import alternate, epoch, say, workers
from benchmarks.networks import NETWORKS, Network
from benchmarks.peers import PEERS
from benchmarks.targets import TRAINING

CHECKED = 100
r"""Test images on which the objectives are compared."""


def measure(network: Network, args: Namespace) -> dict[str, Any]:
    r"""All contenders on one network: compared, warmed up, timed in turns, compared again."""
    say(network.title)
    train, test = images_for(network)
    count = min(network.images, 20 * network.batch if args.quick else network.images)
    images = train[: count // network.batch * network.batch]
    contenders = {name: PEERS[name] for name in network.peers}
    with workers(contenders, network, images, args.device) as (started, absent):
        trained = {name: w for name, w in started.items() if not name.startswith("floor")}
        before = agreement.equal_start(trained, test[:CHECKED])
        say("equal objectives; first the untimed epoch that compiles")
        alternate(started, epoch, 1)
        seconds = alternate(started, epoch, args.rounds)
        after = agreement.equal_end(trained, test[:CHECKED], network.apart)
    return {
        "title": network.title,
        "batch": network.batch,
        "images": len(images),
        "full_epoch": len(train) // network.batch * network.batch,
        "rounds": args.rounds,
        "quick": args.quick,
        "seconds": seconds,
        "absent": absent,
        "loss_at_equal_parameters": before,
        "loss_after_training": after,
        **report.circumstances("benchmarks.training", args.device),
    }


def section(result: Mapping[str, Any]) -> str:
    r"""One network's table."""
    seconds, factor = result["seconds"], result["full_epoch"] / result["images"]
    steps = result["images"] / result["batch"]
    own = seconds["project"]
    rows = []
    for name, values in seconds.items():
        median, extent = report.spread(values, factor)
        loss = result["loss_after_training"].get(name)
        rows.append(
            [
                PEERS[name].title,
                median,
                extent,
                f"{1e3 * statistics.median(values) / steps:.2f}",
                f"{statistics.median(a / b for a, b in zip(values, own, strict=True)):.2f}",
                PEERS[name].kl if loss is not None else "",
                "" if loss is None else f"{loss:.2f}",
            ]
        )
    rows += [[PEERS[name].title, reason, *[""] * 5] for name, reason in result["absent"].items()]
    columns = ("", "s per epoch", "range", "ms per step", "relative", "KL", "loss")
    extrapolated = (
        f" A round covers {result['images']:,} images; epochs are extrapolated."
        if factor > 1
        else ""
    )
    smoke = " A smoke run, whose ratios say little." if result["quick"] else ""
    return (
        f"## {result['title']}\n\n{result['rounds']} rounds.{smoke}{extrapolated} "
        f"{report.circumstances_line(result)}\n\n{report.table(columns, rows)}"
    )


INTRODUCTION = r"""# Training speed, {device}

Seconds for one epoch over the MNIST training set (the whole batches among its 60,000 images), or
where it is said over as many images of 64 x 64, binarized anew at each step, Adam at 1e-3; data and
optimizer are part of the time. Medians and ranges over rounds. In a round every contender has one
turn, in a process of its own, while the others sleep; one untimed epoch goes before. *Relative* is
the time in units of that of `pyro_aevb`, compiled: the median over rounds of the ratio within a
round.

Every contender starts at the same parameters, and is timed only if its loss there equals that of
the others to 1e-4 (sampled and closed-form KL terms are made comparable by the noise, see
`benchmarks/noise.py`). *Loss* is minus the objective per datum on 100 test images after the last
round, at the same noise for all, and must agree to 5 % (15 % on 64 x 64): the timed code did
train. Rows with *medium* products ran under `torch.set_float32_matmul_precision("medium")`; what
that means to `torch.mm` on the machine is said with it, and the compiled step of `pyro_aevb`
has bf16 products of its own on a CPU with units for them.
"""


def page(device: str, results: Mapping[str, Any]) -> str:
    seconds = {name: result["seconds"] for name, result in results.items()}
    rows = [target.row(device, seconds) for target in TRAINING]
    for row, target in zip(rows, TRAINING, strict=True):
        if results.get(target.network, {}).get("quick"):
            row[-1] = "smoke run"
    columns = ("target", "aim", "measured", "reached")
    parts = [
        INTRODUCTION.format(device=device),
        f"![Seconds per epoch](training-{device}.png)\n",
        f"## Targets\n\n{report.table(columns, rows)}",
        *(section(result) for result in results.values()),
    ]
    return "\n".join(parts)


def epochs(args: Namespace) -> None:
    r"""Measure the chosen networks, then write JSON, page and picture of all that are known."""
    path = args.out / f"training-{args.device}.json"
    results = report.collect(
        path,
        args.networks,
        lambda name: measure(NETWORKS[name], args),
        lambda found: page(args.device, found),
    )
    panels = {
        result["title"]: {
            name: statistics.median(values) * result["full_epoch"] / result["images"]
            for name, values in result["seconds"].items()
        }
        for result in results.values()
    }
    report.bars(
        path.with_suffix(".png"),
        panels,
        "seconds per epoch",
        {name: peer.title for name, peer in PEERS.items()},
    )
    print(path.with_suffix(".md").read_text())


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--what", choices=("epochs", "startup", "profile"), default="epochs")
    parser.add_argument(
        "--networks",
        nargs="*",
        choices=NETWORKS,
        default=list(NETWORKS),
        help="without a name: none, the page is written from what was measured before",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="20 steps in place of an epoch")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    if args.quick:
        args.rounds = min(args.rounds, 2)
    {"epochs": epochs, "startup": startup.run, "profile": profile.run}[args.what](args)


if __name__ == "__main__":
    main()
