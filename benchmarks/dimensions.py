r"""log p(x) in many latent dimensions: ``python -m benchmarks.dimensions``.

VAEs of codes of rising length, and for each the proposals whose precision is found in all
directions, those in which it is found in few, and the bound by draws of the guide.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.measure import say
from benchmarks.trust import GUIDE, cell, mean, reliable
from pyro_aevb.estimators import curvature
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.estimators.reliability import monte_carlo_error
from pyro_aevb.fit import fit
from pyro_aevb.runs.prepare import Prepared, restore
from pyro_aevb.runs.run import only_run

CODES = ("20", "50", "100", "200", "400")
FORMS = {"all directions": curvature.LARGEST, "few directions": 0, "guide": 0}
r"""And the dimensions up to which each of them finds all directions."""


def ready(name: str, args: Namespace) -> Prepared:
    path = args.cache / f"codes-{name}"
    if not (path / "checkpoint.pt").is_file():
        say(f"{name} codes: training")
        pair = {"latent_dim": int(name)}
        how = {"num_samples": 10, "num_data": 10, "proposal": "guide", "show": False}
        fit(pair_parameters=pair, epochs=args.epochs, out=str(path), device="cpu", **how)
    return restore(only_run(path), "cpu", trust=True)


def measure(name: str, args: Namespace) -> dict[str, Any]:
    prepared, forms = ready(name, args), {}
    test = prepared.test.first(args.num_data)
    for form, full in FORMS.items():
        if form == "few directions" and int(name) <= 3 * curvature.RANK:
            continue  # they would be as many products as all
        curvature.FULL = full
        how = ("guide", GUIDE) if form == "guide" else ()
        start = time.process_time()
        found = MarginalLikelihood(prepared.pair, *how)(test)
        forms[form] = {
            "seconds": time.process_time() - start,
            "value": mean(found.log_likelihood[0]),
            "error": monte_carlo_error(found),
            "reliable": reliable(found),
            "annealed": float((found.num_temperatures > 0).mean()),
            "draws": float(found.num_samples.mean()),
        }
        say(f"{name} codes, {form}: {forms[form]}")
    command = f"python -m benchmarks.dimensions --epochs {args.epochs} --num-data {args.num_data}"
    circumstances = {**report.circumstances("benchmarks.dimensions", "cpu"), "command": command}
    return {"num_data": len(test), "forms": forms, **circumstances}


INTRODUCTION = r"""VAEs with the default nets and codes of rising length, {epochs} epochs on
`mnist5k`: log p(x) of {data} test images in nats per datum, ± the standard error that its draws
leave, by normals whose precision is found in all directions, by those that seek it in few ({rank}
or more, those in which the data say more than the prior), and by {guide:,} draws of the guide.
*Reliable* is the share of data with k-hat at most 0.7; seconds are those of the processor, one
thread, with all that is captured on the way.

{table}
{line}
"""


def page(results: Mapping[str, Any], epochs: int) -> str:
    rows = []
    for name in (name for name in CODES if name in results):
        for form, found in results[name]["forms"].items():
            value = f"{cell(found['value'][:1])} ± {found['error']:.2f}"
            shares = f"{found['reliable']:.0%}", f"{found['annealed']:.0%}"
            rows.append([name, form, value, *shares, f"{found['seconds']:.1f}"])
    last = next(iter(results.values()))
    heads = ("codes", "by", "log p(x)", "reliable", "annealed", "seconds")
    return INTRODUCTION.format(
        epochs=epochs,
        data=last["num_data"],
        rank=curvature.RANK,
        guide=GUIDE,
        table=report.table(heads, rows),
        line=report.circumstances_line(last),
    )


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.dimensions", description=__doc__)
    parser.add_argument("--codes", nargs="*", choices=CODES, default=list(CODES))
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--num-data", type=int, default=40)
    parser.add_argument("--cache", type=Path, default=Path("runs/trust"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    path = args.out / "dimensions.json"
    report.collect(path, args.codes, partial(measure, args=args), partial(page, epochs=args.epochs))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
