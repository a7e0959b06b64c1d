r"""The default log-likelihood between bounds by annealing: ``python -m benchmarks.trust``.

Trains five VAEs, or takes runs that exist. On the first test images of each: the bound by draws of
the guide, the proposals of ``fit``, and annealed importance sampling, itself a lower bound. On data
that each model simulates: the proposals between the two bounds of bidirectional Monte Carlo.
"""

import json
import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import report
from benchmarks.measure import say
from pyro_aevb.data.batch import data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import Split
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.marginal import MarginalLikelihood, Marginals
from pyro_aevb.estimators.reliability import monte_carlo_error
from pyro_aevb.fit import fit
from pyro_aevb.runs.prepare import Prepared, restore
from pyro_aevb.runs.run import only_run

DEEP: dict[str, Any] = {"hidden": [200, 200], "latent_dim": 50, "activation": "tanh"}
RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "784-500-20": {
        "data": "mnist",
        "binarize": "fixed",
        "pair_parameters": {"hidden": [500], "latent_dim": 20},
        "epochs": 15,
    },
    "784-200-200-50": {
        "data": "mnist",
        "binarize": "dynamic",
        "pair_parameters": DEEP,
        "epochs": 12,
    },
    "784-200-200-50, IWAE-5": {
        "data": "mnist",
        "binarize": "dynamic",
        "pair_parameters": DEEP,
        "objective": "iwae",
        "num_particles": 5,
        "epochs": 6,
    },
    "convolutional": {"pair_parameters": {"network": "conv"}, "epochs": 10},
}
r"""What :func:`pyro_aevb.fit` is told, by the names of the runs; the rest are its defaults."""
GUIDE, TEMPERATURES, RELIABLE = 5000, 1000, 0.7
r"""K of the guide's bound, T of annealing, and the k-hat up to which a datum counts as reliable."""


def ready(name: str, args: Namespace) -> Prepared:
    r"""A trained run, opened; trained now if there is none."""
    path = Path(args.trained.get(name) or args.cache / name.replace(", ", "-"))
    if not (path / "checkpoint.pt").is_file():
        say(f"{name}: training")
        fit(**RUNS[name], num_samples=10, num_data=100, out=str(path), show=False, device="cpu")
    return restore(only_run(path), "cpu", trust=True)


def mean(values: np.ndarray) -> list[float]:
    r"""The mean over data in nats, and its standard error."""
    return [float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))]


def annealed(name: str, prepared: Prepared, args: Namespace) -> dict[str, Any]:
    r"""What annealing finds, per datum, kept in a file: it takes minutes, and rests on no guide."""
    path = args.cache / f"{name.replace(', ', '-')}-{args.num_data}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    test = prepared.test.first(args.num_data)
    few = test.take(torch.arange(5))
    for part, count in (("ais", args.temperatures), ("bdmc", args.both_ways)):
        if kept.get(part, {}).get("num_temperatures") == count:
            continue
        say(f"{name}: {part}")
        start = time.perf_counter()
        annealer = Annealer(prepared.pair, few, num_temperatures=count)
        if part == "ais":
            values: dict[str, Any] = {"lower": annealer(test).lower().tolist()}
        else:
            bracket = annealer.bracket(test.take(torch.arange(len(test))))
            values = {"x": data_of(bracket.x).tolist(), "lower": bracket.there.lower().tolist()}
            values["upper"] = bracket.back.upper().tolist()
        seconds = time.perf_counter() - start
        kept[part] = {**values, "num_temperatures": count, "seconds": seconds}
        path.write_text(json.dumps(kept) + "\n")
    return kept


def scored(prepared: Prepared, data: Batches, *how: Any) -> tuple[Marginals, float]:
    r"""The estimates by a proposal, and the seconds that they took, compiling included."""
    start = time.perf_counter()
    found = MarginalLikelihood(prepared.pair, *how)(data)
    return found, time.perf_counter() - start


def measure(name: str, args: Namespace) -> dict[str, Any]:
    prepared = ready(name, args)
    test = prepared.test.first(args.num_data)
    guide, guide_seconds = scored(prepared, test, "guide", GUIDE)
    found, seconds = scored(prepared, test)
    kept = annealed(name, prepared, args)
    ais, bdmc = (kept[part] for part in ("ais", "bdmc"))
    value = found.log_likelihood[0]
    lower, upper = np.array(bdmc["lower"]), np.array(bdmc["upper"])
    simulated, _ = scored(prepared, Batches(Split(torch.tensor(bdmc["x"]), None, 1), "none"))
    there = simulated.log_likelihood[0]
    result = {
        "num_data": len(value),
        "guide": mean(guide.log_likelihood[0]),
        "proposal": mean(value),
        "monte_carlo_error": monte_carlo_error(found),
        "ais": mean(np.array(ais["lower"])),
        "ais_minus_proposal": mean(np.array(ais["lower"]) - value),
        "proposal_minus_guide": mean(value - guide.log_likelihood[0]),
        "guide_reliable": reliable(guide),
        "reliable": reliable(found),
        "draws": float(found.num_samples[found.num_temperatures == 0].mean())
        if (found.num_temperatures == 0).any()
        else None,
        "annealed": float((found.num_temperatures > 0).mean()),
        "seconds": {"guide": guide_seconds, "proposal": seconds, "ais": ais["seconds"]},
        "temperatures": {"ais": ais["num_temperatures"], "bdmc": bdmc["num_temperatures"]},
        "simulated": {
            "lower": mean(lower),
            "proposal": mean(there),
            "upper": mean(upper),
            "proposal_minus_lower": mean(there - lower),
            "upper_minus_proposal": mean(upper - there),
            "reliable": reliable(simulated),
            "annealed": float((simulated.num_temperatures > 0).mean()),
        },
    }
    if name == "default":
        every = {"guide": ("guide", GUIDE), "proposal": ()}
        result["whole"] = {
            "num_data": len(prepared.test),
            **{key: scored(prepared, prepared.test, *how)[1] for key, how in every.items()},
        }
    say(f"{name}: {result}")
    command = f'python -m benchmarks.trust --runs "{name}" {settings(args)}'
    return {**result, **report.circumstances("benchmarks.trust", "cpu"), "command": command}


def reliable(found: Marginals) -> float:
    r"""The share of data with a k-hat of at most 0.7; where there is no tail to fit it is good."""
    return float((np.nan_to_num(found.pareto_k) <= RELIABLE).mean())


INTRODUCTION = r"""On the first test images of VAEs, log p(x) in nats per datum: the bound by
K = {guide:,} draws of the guide (`iwae_bound`); `log_likelihood` as `fit` estimates it, ± the
standard error that its draws leave; and annealed importance sampling from the prior, 16 chains, T
temperatures and 10 leapfrog steps, which errs down too. *AIS − proposal* is a mean of differences
datum by datum, ± its standard error. *Reliable* is the share of data with k-hat at most 0.7, of the
guide and of the proposal; *draws* the mean number for data that were not annealed.

{table}
Seconds by the clock, on the same images, with all that is compiled on the way; others used the
machine for some of the time:

{seconds}
{whole}On as many data that each model simulated, of which the proposals see x alone: between the
two bounds of bidirectional Monte Carlo.

{simulated}
{lines}
"""

WHOLE = r"""The whole test set of the default run, {num_data:,} images, takes {guide:.1f} s by the
guide and {proposal:.1f} s by the proposals.

"""


def page(results: Mapping[str, Any]) -> str:
    results = {name: results[name] for name in RUNS if name in results}
    table, seconds, simulated = [], [], []
    for name, found in results.items():
        cells = [cell(found["guide"][:1]), f"{found['proposal'][0]:.2f} ± "]
        cells[1] += f"{found['monte_carlo_error']:.3f}"
        cells += [cell(found["ais"][:1]), cell(found["ais_minus_proposal"], "+")]
        shares = [f"{found['guide_reliable']:.0%}", f"{found['reliable']:.0%}"]
        draws = "" if found["draws"] is None else f"{found['draws']:,.0f}"
        counts = [f"{found['num_data']}", f"{found['temperatures']['ais']:,}"]
        table.append([name, *counts, *cells, *shares, draws, f"{found['annealed']:.0%}"])
        seconds.append([name, *(f"{s:.1f}" for s in found["seconds"].values())])
        there = found["simulated"]
        bounds = [cell(there[part][:1]) for part in ("lower", "proposal", "upper")]
        gaps = [cell(there[part], "+") for part in ("proposal_minus_lower", "upper_minus_proposal")]
        count = f"{found['temperatures']['bdmc']:,}"
        simulated.append([name, count, *bounds, *gaps, f"{there['reliable']:.0%}"])
    heads: tuple[str, ...] = ("run", "images", "T", "guide", "proposal", "AIS", "AIS − proposal")
    heads += ("reliable, guide", "reliable, proposal", "draws", "annealed")
    ways: tuple[str, ...] = (
        "run",
        "T",
        "lower",
        "proposal",
        "upper",
        "proposal − lower",
    )
    ways += ("upper − proposal", "reliable")
    whole = results.get("default", {}).get("whole")
    lines = [report.circumstances_line(found) for found in results.values()]
    return INTRODUCTION.format(
        guide=GUIDE,
        table=report.table(heads, table),
        whole=WHOLE.format(**whole) if whole else "",
        seconds=report.table(("run", "guide", "proposal", "AIS"), seconds),
        simulated=report.table(ways, simulated),
        lines=together(lines),
    )


def together(lines: list[str]) -> str:
    r"""What was the same for all once, then the commands."""
    heads, commands = zip(*(line.rstrip(".").rsplit("; ", 1) for line in lines), strict=True)
    return "\n\n".join([*dict.fromkeys(heads), ", ".join(commands) + "."])


def cell(value: list[float], sign: str = "") -> str:
    return " ± ".join(f"{v:{sign if i == 0 else ''}.2f}" for i, v in enumerate(value))


def add_arguments(parser: ArgumentParser) -> None:
    r"""Where trained runs and annealed values are, and how long annealing takes."""
    parser.add_argument(
        "--trained", nargs="+", default=[], metavar="NAME=PATH", help="runs that exist"
    )
    parser.add_argument("--cache", type=Path, default=Path("runs/trust"))
    parser.add_argument("--temperatures", type=int, default=TEMPERATURES)
    parser.add_argument("--both-ways", type=int, default=TEMPERATURES, help="those of bdmc")


def settings(args: Namespace) -> str:
    r"""The flags that numbers depend on, without where runs are."""
    flags = ("num_data", "temperatures", "both_ways")
    return " ".join(f"--{flag.replace('_', '-')} {getattr(args, flag)}" for flag in flags)


def named(args: Namespace) -> Namespace:
    args.trained = dict(pair.rsplit("=", 1) for pair in args.trained)
    return args


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("--runs", nargs="*", choices=RUNS, default=list(RUNS))
    add_arguments(parser)
    parser.add_argument("--num-data", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = named(parser.parse_args())
    path = args.out / "trust.json"
    report.collect(path, args.runs, lambda name: measure(name, args), page)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
