r"""A pair on which one mode is wrong and its k-hat good: ``python -m benchmarks.two_modes``.

The model reads the absolute value of its first code, :math:`x \sim \mathcal{N}(W (|z_1|, z_2)^T,
s^2 I)`, so every posterior has a mirror image. Trained by the ELBO, the guide learns one side. The
truth is the trapezoidal rule over a square of codes.
"""

import math
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from benchmarks import report
from benchmarks.trust import RELIABLE, mean
from pyro_aevb.data.batch import data_of
from pyro_aevb.data.split import DataSet, Split
from pyro_aevb.estimators.curvature import Curvature
from pyro_aevb.estimators.joint import Joint
from pyro_aevb.estimators.log_weights import LogWeights
from pyro_aevb.estimators.marginal import MarginalLikelihood
from pyro_aevb.estimators.proposals import fit as normals_at
from pyro_aevb.fit import fit
from pyro_aevb.runs.prepare import prepare

FEATURES, NOISE, TRAIN, TEST, DRAWS = 5, 0.3, 5000, 200, 5000


class Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(2, FEATURES, generator=torch.manual_seed(1)))
        self.log_scale = nn.Parameter(torch.tensor(-1.0))
        last = nn.Linear(64, 4)
        self.net = nn.Sequential(nn.Linear(FEATURES, 64), nn.Tanh(), last)
        # On one side of the fold from the start: one that lies across it would stay there.
        last.bias.data.copy_(torch.tensor([1.0, 0.0, -2.0, -2.0]))

    def mean_of(self, z: Tensor) -> Tensor:
        return torch.stack([z[..., 0].abs(), z[..., 1]], -1) @ self.W

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            likelihood = dist.Normal(self.mean_of(z), self.log_scale.exp())
            pyro.sample("x", likelihood.to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.net(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def simulated() -> DataSet:
    r"""Data of such a model, whose W is not told."""
    rng = torch.Generator().manual_seed(0)
    W = 1.5 * torch.randn(2, FEATURES, generator=rng)
    z = torch.randn(TRAIN + 2 * TEST, 2, generator=rng)
    x = torch.stack([z[:, 0].abs(), z[:, 1]], 1) @ W
    x += NOISE * torch.randn(x.shape, generator=rng)
    train, valid, test = (Split(part, None, 1) for part in x.split([TRAIN, TEST, TEST]))
    return DataSet("folded", train, valid, test, "simulated", "none")


@torch.no_grad()
def quadrature(source: Folded, x: Tensor) -> np.ndarray:
    r"""log p(x) in nats by a grid over [-5, 5] in both codes, which is finer than any posterior."""
    line = torch.linspace(-5, 5, 701).double()
    z = torch.cartesian_prod(line, line)
    prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    loc, scale = source.mean_of(z.float()).double(), source.log_scale.exp().double()
    cell = 2 * math.log(float(line[1] - line[0]))
    found = [(prior + dist.Normal(loc, scale).log_prob(row).sum(-1)).logsumexp(0) for row in x]
    return torch.stack(found).numpy() + cell


@torch.no_grad()
def one_mode(pair: Any, source: Folded, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    r"""Importance sampling from one normal, at the mode that the guide's mean leads to."""
    with pair.running():
        joint = Joint(pair, x)
        start = source.net(x).chunk(2, -1)[0]
        curvature = Curvature(joint, x[:2], start[:2])
        normals = normals_at(lambda x, q: curvature(x, q), x, start.unsqueeze(0))
        weights = LogWeights(DRAWS, tail=True)
        q = normals.sample(DRAWS, 1.2)
        weights.add(joint.terms(x, q.float()).sum(0) - normals.log_prob(q, 1.2))
    return weights.log_mean().numpy(), weights.pareto_k().numpy()


def row(value: np.ndarray, exact: np.ndarray, k_hat: np.ndarray) -> dict[str, Any]:
    error = value - exact
    return {
        "value": mean(value),
        "error": mean(error),
        "median_error": float(np.median(error)),
        "median_k_hat": float(np.nanmedian(k_hat)),
        "reliable": float((np.nan_to_num(k_hat) <= RELIABLE).mean()),
    }


def measure(epochs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    source, data = Folded(), simulated()
    with TemporaryDirectory() as path:
        fit(source, data, epochs=epochs, lr=3e-3, num_samples=10, out=path + "/run", show=False)
    prepared = prepare(source, data)
    pair, test = prepared.pair, prepared.test
    x = data_of(test.take(torch.arange(len(test))))
    exact = quadrature(source, x)
    guide = MarginalLikelihood(pair, "guide", DRAWS)(test)
    found = MarginalLikelihood(pair)(test)
    value, k_hat = one_mode(pair, source, x)
    return {
        "exact": mean(exact),
        "guide": row(guide.log_likelihood[0], exact, guide.pareto_k[0]),
        "one mode": row(value, exact, k_hat),
        "default": row(found.log_likelihood[0], exact, found.pareto_k[0]),
        "two_modes": float((found.num_modes == 2).mean()),
        "draws": float(found.num_samples.mean()),
    }


TITLES = {
    "guide": f"guide, K = {DRAWS:,}",
    "one mode": f"one normal, at the mode that the guide leads to, K = {DRAWS:,}",
    "default": "`log_likelihood`, the default",
}
INTRODUCTION = r"""A model that reads $|z_1|$, $x \sim \mathcal{{N}}(W (|z_1|, z_2)^T, s^2 I)$ in
{features} dimensions, trained by the ELBO on {train:,} simulated data. Every posterior has a mirror
image, and the guide knows one of the two. On {test} test data log p(x) is {exact} nats by
quadrature; of the errors the median says what a datum loses whose two modes lie apart,
$\log 2 = 0.693$, and near $z_1 = 0$ they are one. The default finds two modes for {two:.0%} of the
data, with {draws:,.0f} draws on average.

{table}
{line}
"""


def page(result: dict[str, Any]) -> str:
    rows = []
    for name, title in TITLES.items():
        found = result[name]
        error = f"{found['error'][0]:+.3f} ± {found['error'][1]:.3f}"
        good = [f"{found['median_k_hat']:.2f}", f"{found['reliable']:.0%}"]
        values = [f"{found['value'][0]:.3f}", error, f"{found['median_error']:+.3f}"]
        rows.append([title, *values, *good])
    heads = ("proposal", "log p(x)", "error", "its median", "median k-hat", "k-hat ≤ 0.7")
    return INTRODUCTION.format(
        features=FEATURES,
        train=TRAIN,
        test=TEST,
        exact=f"{result['exact'][0]:.3f}",
        two=result["two_modes"],
        draws=result["draws"],
        table=report.table(heads, rows),
        line=report.circumstances_line(result),
    )


def main() -> None:
    parser = ArgumentParser(prog="python -m benchmarks.two_modes", description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    result = {**measure(args.epochs), **report.circumstances("benchmarks.two_modes", "cpu")}
    path = args.out / "two_modes.json"
    report.merge(path, result)
    path.with_suffix(".md").write_text(page(result))
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
