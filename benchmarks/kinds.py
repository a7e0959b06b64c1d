r"""Which kinds of pairs work: ``python -m benchmarks.kinds`` writes ``docs/kinds.md``.

Every kind of ``tests.kinds`` is checked, trained by two steps and scored with a proposal fitted to
each datum; where log p(x) is a sum or an integral of one or two numbers, it is compared.
"""

import time
import warnings
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from pyro_aevb.data.arrays import as_numpy
from pyro_aevb.estimators.importance import Scorer
from tests.kinds import table
from tests.kinds.row import Kind, Outcome, failing, tried
from tests.kinds.truth import log_evidence

PAGE = Path(__file__).parent.parent / "docs" / "kinds.md"
DRAWS = 4000
r"""Draws of the guide, where log p(x) is compared."""
CLOSE = 0.2
r"""Nats of the mean over data within which two values of log p(x) are the same."""

HEAD = """# Kinds of pairs

What becomes of each kind of pair, as `python -m benchmarks.kinds` found with Pyro {pyro}, PyTorch {torch}{zuko}. Each is a
small pair on 40 rows: a distribution as likelihood or as code, a transform as flow of the guide or of the prior,
an autoguide over weights, a construct, an example of Pyro's or of a paper with what was changed. It is run through the check, two steps of training, and scoring.
`tests/test_kinds.py` runs all but the slow ones.

**{works} of {total} work**; {compared} of them have $\\log p(x)$ as a sum over codes or an integral on a grid, and it is
compared with the estimate.

- *by*: the objective of training (`--objective`, [](learning.md)).
- *log p(x)*: what its estimate is drawn from ([](definitions.md)), `laplace` where a proposal could be fitted to
  each datum, else `guide`; "not defined" where latents have no density.
- *checked*: the mean estimate of six data is within 0.2 nats of a `sum` or an `integral`; a dash where neither is that
  easy, or the density itself takes seconds.
"""  # noqa: E501


def main() -> None:
    r"""Run the table and write the page."""
    warnings.simplefilter("ignore")
    rows: dict[str, list[str]] = defaultdict(list)
    refused: list[str] = []
    broken: list[str] = []
    kinds, counts = table(), {"works": 0, "compared": 0}
    for kind in kinds:
        began = time.perf_counter()
        outcome = tried(kind, full=not kind.slow)
        if (wrong := failing(outcome) if not outcome.line else "") or "\n" in outcome.line:
            broken.append(f"{kind.family}: {kind.name}: {wrong or outcome.line}")
        if outcome.line:
            refused.append(f"| {kind.family} | {_named(kind)} | {_short(kind)} | {outcome.line} |")
        else:
            checked = "–" if kind.slow else _checked(outcome)
            counts["works"] += 1
            counts["compared"] += checked in ("sum", "integral")
            cells = _named(kind), _short(kind), outcome.proposal or "not defined", checked
            rows[kind.family].append("| " + " | ".join(cells) + " |")
        print(f"{time.perf_counter() - began:6.2f} s  {kind.family}: {kind.name}  {outcome.line}")
    if broken:
        raise SystemExit("\n".join(broken))
    PAGE.write_text(_page(rows, refused, {**counts, "total": len(kinds)}))


def _named(kind: Kind) -> str:
    return f"{kind.name}: {kind.note.removesuffix('.')}" if kind.note else kind.name


def _short(kind: Kind) -> str:
    return f"`{kind.objective.removeprefix('pyro.infer.')}`"


def _checked(outcome: Outcome) -> str:
    r"""How the estimate of log p(x) was compared."""
    assert outcome.pair is not None and outcome.test is not None
    known = log_evidence(outcome.pair, outcome.test.take(torch.arange(6)))
    if known is None or outcome.log_likelihood is None:
        return "–"
    found = outcome.log_likelihood
    if outcome.proposal != "laplace":
        found = Scorer(outcome.pair, DRAWS, 1, compile="off")(outcome.test).log_weight
    assert found is not None
    apart = float(np.abs((found[0] - as_numpy(known[0])).mean()))
    if apart >= CLOSE:
        raise SystemExit(f"{outcome.pair.name}: log p(x) is {apart:.2f} nats from its {known[1]}")
    return known[1]


def _page(rows: Mapping[str, list[str]], refused: list[str], counts: Mapping[str, int]) -> str:
    try:
        zuko = f" and zuko {version('zuko')}"
    except ImportError:
        zuko = ""
    parts = [HEAD.format(pyro=version("pyro-ppl"), torch=version("torch"), zuko=zuko, **counts)]
    parts.append("## Refused\n\n| part | kind | by | the line |\n| --- | --- | --- | --- |")
    parts[-1] += "\n" + "\n".join(refused) + "\n"
    for family, lines in rows.items():
        head = "| kind | by | log p(x) | checked |\n| --- | --- | --- | --- |"
        parts.append(f"## {family[0].upper()}{family[1:]}\n\n{head}\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
