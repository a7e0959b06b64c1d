r"""The time to a log-likelihood within 0.1 nat: ``python -m benchmarks.scoring --time``.

Every contender estimates log p(x) of the first MNIST test images under one VAE 784-500-20 with
rising effort, each time in a process of its own. The reference has two sides: annealed importance
sampling with 1,000 temperatures from below, and above it what bidirectional Monte Carlo leaves
open on data that the model simulated.
"""

import math
import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import report, trust
from benchmarks.measure import say
from benchmarks.networks import NETWORKS
from benchmarks.peers.pytorch import VAE
from pyro_aevb.data.batch import data_of
from pyro_aevb.data.batches import Batches
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.runs.prepare import Prepared, restore
from pyro_aevb.runs.run import only_run

RUN, NETWORK, NEAR = "784-500-20", "mlp100", 0.1
DRAWS = (50, 500, 5000, 50_000)
TITLES = {
    "prior": "prior, K draws",
    "plain": "guide, K draws, a plain torch loop",
    "pythae": "guide, K draws, as pythae's `get_nll`",
    "guide": "guide, K draws",
    "ais": "AIS, T temperatures",
    "laplace": "proposals, target of the Monte Carlo error",
}
EFFORTS: dict[str, tuple[float, ...]] = {
    "prior": DRAWS,
    "plain": DRAWS,
    "pythae": DRAWS[:3],
    "guide": DRAWS,
    "ais": (10, 30, 100, 300),
    "laplace": (1.0, 0.3, 0.1, 0.03),
}
CHUNK = 100
r"""Draws that pythae takes at once."""
AS_WRITTEN = ("prior", "plain", "pythae")
r"""They compile nothing, so that one call says all."""
AGAIN = 30.0
r"""Seconds up to which a call is made a second time, for the time without starting up."""

Work = Callable[[], np.ndarray]


def log_weights(vae: VAE, x: Tensor, encoded: Tensor, samples: int) -> Tensor:
    r"""log p(x, z) - log q(z|x), written by hand, of draws for one image, ``(samples,)``."""
    loc, log_variance = encoded.chunk(2, -1)
    noise = torch.randn(samples, loc.shape[-1])
    z = loc + (0.5 * log_variance).exp() * noise
    target = x.flatten(1).expand(samples, -1)
    bce = F.binary_cross_entropy_with_logits(vae.decoder(z), target, reduction="none").sum(-1)
    return 0.5 * (noise.square() + log_variance - z.square()).sum(-1) - bce


@torch.no_grad()
def plain(vae: VAE, x: Tensor, samples: int) -> np.ndarray:
    r"""Image by image, up to 1,000 draws at once, whose activations fit into a cache."""
    found = []
    for image, encoded in zip(x.split(1), vae.encoder(x).split(1), strict=True):
        few = min(samples, 1000)
        parts = [log_weights(vae, image, encoded, few) for _ in range(samples // few)]
        found.append(torch.cat(parts).logsumexp(0) - math.log(samples))
    return torch.stack(found).double().numpy()


@torch.no_grad()
def pythae(vae: VAE, x: Tensor, samples: int) -> np.ndarray:
    r"""The loop of pythae's ``VAE.get_nll``: chunks of copies of an image through both nets."""
    found = []
    for image in x.split(1):
        parts = []
        for _ in range(max(1, samples // CHUNK)):
            copies = torch.cat([image] * min(CHUNK, samples))
            loc, log_variance = vae.encoder(copies).chunk(2, -1)
            z = loc + (0.5 * log_variance).exp() * torch.randn_like(loc)
            log_q = -0.5 * (log_variance + (z - loc) ** 2 / log_variance.exp()).sum(-1)
            log_p = -0.5 * (z**2).sum(-1)
            pixels = vae.decoder(z).sigmoid()
            bce = F.binary_cross_entropy(pixels, copies.flatten(1), reduction="none").sum(-1)
            parts.append(log_p - bce - log_q)
        found.append((torch.logsumexp(torch.cat(parts), 0) - math.log(samples)).item())
    return np.array(found)


def work_of(name: str, effort: float, prepared: Prepared, test: Batches) -> Work:
    r"""What is timed, as a call; a second one finds what the first has captured and compiled."""
    pair, count = prepared.pair, int(effort)
    if name in ("plain", "pythae"):
        vae = VAE(NETWORKS[NETWORK])
        for own, trained in zip(vae.parameters(), pair.sources.parameters(), strict=True):
            own.data.copy_(trained.detach())
        x = data_of(test.take(torch.arange(len(test))))
        by_hand = {"plain": plain, "pythae": pythae}[name]
        return lambda: by_hand(vae, x, count)
    if name == "guide":
        scorer = Scorer(pair, count, details=False)
        return lambda: scored(scorer(test).log_weight)
    if name == "ais":
        annealer = Annealer(pair, test.take(torch.arange(5)), num_temperatures=count)
        return lambda: annealer(test).lower()
    if name == "prior":
        estimate = MarginalLikelihood(pair, "prior", count)
    else:
        # A target below the default one may have ten times the draws.
        estimate = MarginalLikelihood(
            pair, target=effort, max_samples=5000 if effort >= 0.1 else 50_000
        )
    return lambda: estimate(test).log_likelihood[0]


def scored(found: np.ndarray | None) -> np.ndarray:
    assert found is not None
    values: np.ndarray = found[0]
    return values


def once(name: str, effort: float, path: Path, num_data: int) -> dict[str, Any]:
    r"""One point: in a process of its own, and with an empty cache of compiled code."""
    with tempfile.TemporaryDirectory() as files:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = files
        prepared = restore(only_run(path), "cpu", trust=True)
        test = prepared.test.first(num_data)
        torch.manual_seed(0)
        start, busy = time.perf_counter(), sum(os.times()[:4])
        work = work_of(name, effort, prepared, test)
        values = work()
        first = again = time.perf_counter() - start
        busy = sum(os.times()[:4]) - busy
        if name not in AS_WRITTEN and first < AGAIN:
            start = time.perf_counter()
            work()
            again = min(first, time.perf_counter() - start)
    times = {"first": first, "again": again, "processor": busy}
    return {"effort": effort, "value": float(values.mean()), **times}


def run(args: Namespace) -> None:
    r"""Measure what is not there yet, then write page and figure."""
    out = args.out / f"scoring-time-{args.device}.json"
    prepared = trust.ready(RUN, args)
    kept = trust.annealed(RUN, prepared, args)
    path = Path(args.trained.get(RUN) or args.cache / RUN)
    lower, upper = (np.array(kept["bdmc"][side]) for side in ("lower", "upper"))
    ais = float(np.mean(kept["ais"]["lower"]))
    found: dict[str, Any] = {
        "reference": {
            "ais": ais,
            "gap": trust.mean(upper - lower),
            "temperatures": [kept[part]["num_temperatures"] for part in ("ais", "bdmc")],
            "num_data": args.num_data,
        },
    }
    found = report.merge(out, found)
    names = args.time or [name for name in EFFORTS if name not in found.get("points", {})]
    if names:
        command = f"python -m benchmarks.scoring --time {trust.settings(args)}"
        circumstances = report.circumstances("benchmarks.scoring", args.device)
        found = report.merge(out, {**circumstances, "command": command})
    context = get_context("spawn")
    for name in names:
        points = []
        for effort in EFFORTS[name]:
            with context.Pool(1) as pool:
                points.append(pool.apply(once, (name, effort, path, args.num_data)))
            say(f"{name}: {points[-1]}")
        if name == "ais":
            seconds = kept["ais"]["seconds"]
            count = kept["ais"]["num_temperatures"]
            times = dict.fromkeys(("first", "again", "processor"), seconds)
            points.append({"effort": count, "value": ais, **times})
        found = report.merge(out, {"points": {**found.get("points", {}), name: points}})
    out.with_suffix(".md").write_text(page(found, args.device))
    if args.figure is not None:
        figure(found, args.figure)
    print(out.with_suffix(".md").read_text())


def distance(value: float, reference: Mapping[str, Any]) -> float:
    r"""Nats by which a value is outside of what lies between the two sides; negative below."""
    low, high = reference["ais"], reference["ais"] + max(0.0, reference["gap"][0])
    return min(0.0, value - low) + max(0.0, value - high)


def arrival(points: list[dict[str, Any]], reference: Mapping[str, Any]) -> int | None:
    r"""The first point from which on all are within 0.1 nat."""
    near = [abs(distance(point["value"], reference)) <= NEAR for point in points]
    return next((i for i in range(len(near)) if all(near[i:])), None)


INTRODUCTION = r"""# Time to 0.1 nat, {device}

The mean log p(x) of the first {num_data} MNIST test images, binarized once, under a VAE 784-500-20,
estimated with rising effort. The reference has two sides: annealed importance sampling with 16
chains and {ais_temperatures:,} temperatures, a lower bound, gives {ais:.3f} nats per datum; on as
many data that the model simulated, upper and lower bound of bidirectional Monte Carlo with
{bdmc_temperatures:,} temperatures are {gap} nats apart. *To 0.1 nat* is the time of the first
effort from which on the estimate, as that of every greater effort, is no more than 0.1 nat outside
of {ais:.3f} to {high:.3f}.

Times are those of one call, capturing and compiling with an empty cache included. *Processor*
seconds are, on one thread, those of the clock on a machine that nobody else uses; here others did.
*Again* is a second call (not made where nothing is compiled, or the first took more than
{again:.0f} s; the proposals capture anew at every call). Importing packages and loading data are in
none.

The plain loop and the loop of pythae's `get_nll` (image by image, 100 draws at once, both nets for
each) are written by hand in torch with the same weights; pythae itself is not needed.

{table}
![log p(x) against time](../trust/time.png)

## All points

{points}
{line}
"""


def page(result: Mapping[str, Any], device: str) -> str:
    reference, rows, every = result["reference"], [], []
    for name, points in ordered(result).items():
        i = arrival(points, reference)
        if i is None:
            last = points[-1]
            left = f"not reached: {distance(last['value'], reference):+.2f} nats"
            left += f" after {last['processor']:.1f} s"
            rows.append([TITLES[name], effort(last), left, "", ""])
        else:
            times = [f"{points[i][which]:.1f}" for which in ("processor", "first", "again")]
            rows.append([TITLES[name], effort(points[i]), *times])
        for point in points:
            value = [f"{point['value']:.3f}", f"{distance(point['value'], reference):+.3f}"]
            times = [f"{point[which]:.2f}" for which in ("processor", "first", "again")]
            every.append([TITLES[name], effort(point), *value, *times])
    clocks = ("processor s", "clock s, first call", "clock s, again")
    heads = ("", "effort", "to 0.1 nat: processor s", *clocks[1:])
    ways = ("", "effort", "log p(x)", "outside of the reference by", *clocks)
    return INTRODUCTION.format(
        device=device,
        num_data=reference["num_data"],
        ais_temperatures=reference["temperatures"][0],
        bdmc_temperatures=reference["temperatures"][1],
        ais=reference["ais"],
        high=reference["ais"] + max(0.0, reference["gap"][0]),
        gap=" ± ".join(f"{v:.3f}" for v in reference["gap"]),
        again=AGAIN,
        table=report.table(heads, rows),
        points=report.table(ways, every),
        line=report.circumstances_line(result),
    )


def ordered(result: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {name: result["points"][name] for name in TITLES if name in result["points"]}


def effort(point: Mapping[str, Any]) -> str:
    value = point["effort"]
    return f"{value:,.0f}" if value > 1 else f"{value:g} nats"


DRAWN = {
    "prior": ("prior", "#6b7280", "s"),
    "guide": ("guide (iwae_bound)", "#1d4ed8", "o"),
    "plain": ("guide, a plain torch loop", "#60a5fa", "v"),
    "pythae": ("guide, as pythae", "#a78bfa", "^"),
    "ais": ("annealing (AIS)", "#047857", "D"),
    "laplace": ("proposals, the default", "#c2410c", "o"),
}


def figure(result: Mapping[str, Any], path: Path) -> None:
    r"""log p(x) against seconds: above what is near to the reference, below all of it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    reference = result["reference"]
    low, high = reference["ais"], reference["ais"] + max(0.0, reference["gap"][0])
    figure, (near, far) = plt.subplots(
        2, 1, figsize=(9, 6), height_ratios=(2.2, 1), sharex=True, layout="constrained"
    )
    for axes in (near, far):
        around = {"color": "#fde68a", "alpha": 0.5, "lw": 0}
        axes.axhspan(low - NEAR, high + NEAR, **around, label="0.1 nat around it")
        axes.axhspan(low, high, color="#f59e0b", alpha=0.8, lw=0, label="reference, two-sided")
        for name, (title, color, marker) in DRAWN.items():
            if name not in result["points"]:
                continue
            points = result["points"][name]
            seconds, values = zip(*((p["processor"], p["value"]) for p in points), strict=True)
            axes.plot(seconds, values, marker=marker, ms=5, lw=1.5, color=color, label=title)
        axes.spines[["top", "right"]].set_visible(False)
    near.set_xscale("log")
    near.set_ylim(low - 2.6, high + 0.4)
    near.set_ylabel("log p(x), nats per image")
    far.set_ylabel("whole range, nats")
    far.set_xlabel(
        f"seconds for {reference['num_data']} images, one thread, compiling included (log axis)"
    )
    figure.legend(
        *near.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
