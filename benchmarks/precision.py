r"""What reduced products do to a log-likelihood: ``python -m benchmarks.precision``.

Trains the VAE 784-500-20 on MNIST under ``highest`` and under ``medium``, from the same seeds, and
scores every trained pair under both. Done trainings in ``--runs`` are kept.
"""

import statistics
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import torch

import pyro_aevb
from benchmarks import report

PRECISIONS = ("highest", "medium")

INTRODUCTION = r"""# Precision of products, {device}

Nats per datum on the {num_data:,} test images of MNIST: the VAE 784-500-20 after {epochs} epochs
(batch 100, Adam at 1e-3), K = {num_samples:,}. *Trained* is the precision of the products in
training, *scored* that of scoring; `medium` means products of bf16 operands and results on a CPU
with units for them, TF32 on CUDA. Every row of a seed starts from the same parameters. The standard
error over the test images, about {error:.2f}, is common to all rows: they are scored on the same
images and random numbers. The last column is the difference to the first row of the seed.

"""


def measure(args: Any, seed: int, trained: str) -> list[dict[str, Any]]:
    r"""One training, scored under both precisions."""
    torch.set_float32_matmul_precision(trained)
    out = args.runs / f"precision-{trained}-{seed}"
    run = pyro_aevb.fit(
        "VAE",
        "mnist",
        epochs=args.epochs,
        seed=seed,
        compile="on",
        matmul_precision=trained,
        num_samples=2,
        device=args.device,
        out=str(out),
        resume=(out / "checkpoint.pt").is_file(),
        show=False,
    )
    rows = []
    for scored in PRECISIONS:
        torch.set_float32_matmul_precision(scored)
        results = pyro_aevb.evaluate(
            run.path, args.num_samples, num_data=args.num_data, device=args.device, show=False
        )
        metrics = {name: results["metrics"][name] for name in ("log_likelihood", "elbo")}
        rows.append({"seed": seed, "trained": trained, "scored": scored, **metrics})
    return rows


def page(result: dict[str, Any], settings: Any) -> str:
    rows, reference = [], {}
    for row in result["rows"]:
        value = row["log_likelihood"]["value"]
        reference.setdefault(row["seed"], value)
        rows.append(
            [
                *(str(row[name]) for name in ("seed", "trained", "scored")),
                f"{row['elbo']['value']:.3f}",
                f"{value:.3f}",
                f"{value - reference[row['seed']]:+.3f}",
            ]
        )
    columns = ("seed", "trained", "scored", "elbo", "log_likelihood", "difference")
    error = statistics.mean(row["log_likelihood"]["standard_error"] for row in result["rows"])
    head = INTRODUCTION.format(**vars(settings), error=error)
    return f"{head}{report.table(columns, rows)}\n{report.circumstances_line(result)}\n"


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-samples", type=int, default=500)
    parser.add_argument("--num-data", type=int, default=10_000)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    rows = [
        row
        for seed in range(args.seeds)
        for trained in PRECISIONS
        for row in measure(args, seed, trained)
    ]
    result = {"rows": rows, **report.circumstances("benchmarks.precision", args.device)}
    path = args.out / f"precision-{args.device}.json"
    report.merge(path, result)
    path.with_suffix(".md").write_text(page(result, args))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
