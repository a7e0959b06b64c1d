r"""What a training step of each family costs: ``python -m benchmarks.families``.

The nets of all families have one shape, and every step is compiled, with the family's own learning
algorithm and defaults. Real MNIST, binarized anew at every step.
"""

import statistics
from argparse import ArgumentParser
from pathlib import Path

from benchmarks import report
from benchmarks.images import mnist
from benchmarks.measure import alternate, epoch, ratio, workers
from benchmarks.networks import NETWORKS
from benchmarks.peers import Contender

REFERENCE = "VAE"
AT_MOST = {"AdversarialAutoencoder": 1.5, "BayesianAutoencoder": 2.0, "BayesianVAE": 2.0}
r"""The ratio to the reference that the project set out not to exceed."""
FAMILIES = (REFERENCE, "Autoencoder", "DenoisingAutoencoder", "BetaVAE", *AT_MOST)


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("--network", choices=("mlp100", "mlp512", "conv"), default="mlp100")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=12_000, help="images of a timed round")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    network = NETWORKS[args.network]
    images = mnist()[0][: args.images // network.batch * network.batch]
    contenders = {
        name: Contender(name, "family:Family", options=(("pair", name),)) for name in FAMILIES
    }
    with workers(contenders, network, images, args.device) as (started, _):
        alternate(started, epoch, 1)  # compiles
        seconds = alternate(started, epoch, args.rounds)
    result = {
        "title": network.title,
        "steps": len(images) // network.batch,
        "rounds": args.rounds,
        "seconds": seconds,
        **report.circumstances("benchmarks.families", args.device),
    }
    path = args.out / f"families-{args.device}.json"
    report.merge(path, {args.network: result})
    rows = []
    for name, values in seconds.items():
        milliseconds = report.spread(values, 1e3 / result["steps"])
        relative = ratio(values, seconds[REFERENCE])
        aim = AT_MOST.get(name)
        reached = "" if aim is None else "yes" if relative <= aim else "**no**"
        rows.append(
            [name, *milliseconds, f"{relative:.2f}", "" if aim is None else f"≤ {aim}", reached]
        )
    columns = ("", "ms per step", "range", f"relative to {REFERENCE}", "aim", "reached")
    text = (
        f"# What a step of each family costs, {args.device}\n\n{network.title}, "
        f"{args.rounds} rounds of {result['steps']} steps, in turns; data, all phases of the "
        "learning algorithm and their optimizers are part of a step. Medians, and the median over "
        "rounds of the ratio within a round.\n\n"
        f"{report.table(columns, rows)}\n{report.circumstances_line(result)}\n"
    )
    path.with_suffix(".md").write_text(text)
    print(text)
    report.bars(
        path.with_suffix(".png"),
        {
            network.title: {
                name: 1e3 * statistics.median(values) / result["steps"]
                for name, values in seconds.items()
            }
        },
        "milliseconds per step",
        {name: name for name in FAMILIES},
    )


if __name__ == "__main__":
    main()
