r"""Bounds on log p(x) beside the exact value: ``python -m benchmarks.brackets``.

Linear-Gaussian pairs, :math:`x \sim \mathcal{N}(W z, s^2 I)` with :math:`z \sim \mathcal{N}(0, I)`
and W drawn once, so that :math:`x \sim \mathcal{N}(0, W W^T + s^2 I)` exactly. The guide is the
diagonal normal with the highest ELBO, or one that is spoiled.
"""

import math
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from benchmarks import report
from benchmarks.measure import say
from pyro_aevb.data.batches import Batches
from pyro_aevb.data.split import Split
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.annealing import Annealer
from pyro_aevb.estimators.importance import score
from pyro_aevb.estimators.reciprocal import Reciprocal
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import Pair, load_pair

DIMENSIONS = {2: (200, 100), 10: (100, 300), 50: (50, 1000)}
r"""How many data, and temperatures."""
LATENT, DATA, TEMPERATURES = 10, 50, 150
r"""Of the pair whose guide is spoiled."""
NOISE, EXTRA = 0.6, 5
r"""s, and how many more features than latent dimensions there are."""
SPOILED = {
    "the best diagonal normal": (1.0, 0.0),
    "its scale halved": (0.5, 0.0),
    "its scale doubled": (2.0, 0.0),
    "its mean shifted by one scale": (1.0, 1.0),
}
COLUMNS = ("elbo", "iwae_bound", "ais_lower", "bdmc_upper", "reciprocal")


class LinearGaussian(nn.Module):
    r"""Arguments: the dimension; factor on the guide's scale, and shift of its mean in scales."""

    def __init__(self, latent: int, factor: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        rng = np.random.default_rng(latent)
        W = rng.normal(size=(latent + EXTRA, latent)) / math.sqrt(latent)
        self.W = nn.Parameter(torch.from_numpy(W))
        precision = torch.eye(latent).double() + self.W.T @ self.W / NOISE**2
        gain = torch.linalg.solve(precision, self.W.T) / NOISE**2
        self.scale = factor * precision.diagonal().rsqrt().detach()
        self.gain, self.shift = gain.detach(), shift * precision.diagonal().rsqrt().detach()

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.W.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.W.T, NOISE).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc = x @ self.gain.T + self.shift
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, self.scale).to_event(1))

    def log_likelihood(self, x: Tensor) -> np.ndarray:
        covariance = self.W @ self.W.T + NOISE**2 * torch.eye(len(self.W)).double()
        exact = dist.MultivariateNormal(torch.zeros(len(self.W)).double(), covariance).log_prob(x)
        values: np.ndarray = exact.detach().numpy()
        return values


def ready(source: LinearGaussian) -> tuple[Pair, Tensor]:
    r"""The pair, and a batch of the shape of its data."""
    zeros = torch.zeros(5, len(source.W)).double()
    pair = load_pair(source)
    inspect(pair, zeros)
    return pair, zeros


def differences(found: np.ndarray, exact: np.ndarray) -> list[float]:
    r"""The mean over data of an estimate minus the exact value, with its standard error."""
    error = found - exact
    return [float(error.mean()), float(error.std(ddof=1) / math.sqrt(len(error)))]


def measure(latent: int, num_samples: int) -> dict[str, Any]:
    r"""Every estimator on data that the pair simulated."""
    source = LinearGaussian(latent)
    pair, few = ready(source)
    num_data, num_temperatures = DIMENSIONS[latent]
    annealer = Annealer(pair, few, num_temperatures=num_temperatures)
    bracket = annealer.bracket(few.new_zeros(num_data, few.shape[1]))
    exact, data = source.log_likelihood(bracket.x), Batches(Split(bracket.x, None, 1), "none")
    scores = score(pair, data, num_samples)
    assert scores.elbo is not None and scores.log_weight is not None
    found = {
        "elbo": scores.elbo[0],
        "iwae_bound": scores.log_weight[0],
        "ais_lower": bracket.there.lower(),
        "bdmc_upper": bracket.back.upper(),
    }
    values: dict[str, Any] = {name: differences(v, exact) for name, v in found.items()}
    values["bracket"] = differences(found["bdmc_upper"], found["ais_lower"])
    try:
        estimate = Reciprocal(pair, few, num_samples=500).estimate(data)
        values["reciprocal"] = differences(estimate, exact)
    except UsageError:
        values["reciprocal"] = None
    return {"exact": float(exact.mean()), **values}


def spoiled(num_samples: int) -> Iterator[tuple[str, dict[str, Any]]]:
    r"""Importance sampling and annealing under guides from good to bad, on the same data."""
    for title, (factor, shift) in SPOILED.items():
        source = LinearGaussian(LATENT, factor, shift)
        pair, few = ready(source)
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(DATA, LATENT, generator=rng).double()
        noise = torch.randn(DATA, few.shape[1], generator=rng).double()
        x = (z @ source.W.T + NOISE * noise).detach()
        exact, data = source.log_likelihood(x), Batches(Split(x, None, 1), "none")
        scores = score(pair, data, num_samples)
        assert scores.elbo is not None and scores.log_weight is not None
        assert scores.pareto_k is not None
        values: dict[str, Any] = {
            "elbo": differences(scores.elbo[0], exact),
            "iwae_bound": differences(scores.log_weight[0], exact),
            "unreliable": float((scores.pareto_k > 0.7).mean()),
        }
        for start in ("prior", "guide"):
            annealer = Annealer(pair, few, num_temperatures=TEMPERATURES, start=start)
            values[start] = differences(annealer(data).lower(), exact)
        yield title, values


INTRODUCTION = r"""Linear-Gaussian pairs, $x \sim \mathcal{{N}}(W z, {noise}^2 I)$ with $z \sim
\mathcal{{N}}(0, I)$ and {extra} more features than latent dimensions, so that $\log p(x)$ is
known: estimate minus exact value in nats per datum, means over data that the pair simulated, ± the
standard error of these differences. Importance sampling by K = {num_samples:,} samples from a
guide, the diagonal normal with the highest ELBO; annealing by 16 chains over T temperatures from
the prior; the reciprocal estimator with 500 draws, which is refused in 50 dimensions, and in 10
still exact here because the posteriors are normal like its density.

{table}
The same under guides that were spoiled on purpose, in {latent} dimensions, with {num_data} data and
T = {num_temperatures}. *k-hat* is the share of data for which it is above 0.7. Annealing from the
prior has no use for a guide; annealing from the guide starts in it. A guide that is twice as wide
has a low ELBO, but its weights are bounded: importance sampling bears it, and k-hat says so too.

{spoiled}
{line}
"""


def page(result: Mapping[str, Any], num_samples: int) -> str:
    rows = []
    for latent, values in result["brackets"].items():
        cells = [cell(values[name]) for name in COLUMNS[:4]]
        cells += [cell(values["bracket"], ""), cell(values["reciprocal"])]
        counts = map(str, (latent, *DIMENSIONS[int(latent)]))
        rows.append([*counts, f"{values['exact']:.3f}", *cells])
    columns = ("dimensions", "data", "T", "exact", *COLUMNS[:4], "upper − lower", "reciprocal")
    worse = [
        [
            title,
            *(cell(values[name]) for name in ("elbo", "iwae_bound")),
            f"{values['unreliable']:.0%}",
            *(cell(values[name]) for name in ("prior", "guide")),
        ]
        for title, values in result["spoiled"].items()
    ]
    heads = ("guide", "elbo", "iwae_bound", "k-hat", "ais_lower", "ais_lower from the guide")
    return INTRODUCTION.format(
        noise=NOISE,
        extra=EXTRA,
        latent=LATENT,
        num_data=DATA,
        num_samples=num_samples,
        num_temperatures=TEMPERATURES,
        table=report.table(columns, rows),
        spoiled=report.table(heads, worse),
        line=report.circumstances_line(result),
    )


def cell(value: list[float] | None, sign: str = "+") -> str:
    return "refused" if value is None else f"{value[0]:{sign}.3f} ± {value[1]:.3f}"


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.brackets", description=__doc__)
    parser.add_argument("--num-samples", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    brackets = {}
    for latent in DIMENSIONS:
        brackets[str(latent)] = measure(latent, args.num_samples)
        say(f"{latent} dimensions: {brackets[str(latent)]}")
    result = {
        "brackets": brackets,
        "spoiled": dict(spoiled(args.num_samples)),
        **report.circumstances("benchmarks.brackets", "cpu"),
    }
    path = args.out / "brackets.json"
    report.merge(path, result)
    path.with_suffix(".md").write_text(page(result, args.num_samples))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
