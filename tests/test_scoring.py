"""Scoring captured, compiled and streamed gives what scoring by handlers, all at once, gives."""

import itertools
import math
import sys
from pathlib import Path

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import PPCA, batches, ready, with_data
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_aevb.engine import inductor, replay, streams
from pyro_aevb.engine.replay import Way
from pyro_aevb.engine.rewrites import use_cheaper
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators import importance
from pyro_aevb.estimators.importance import Scorer, score
from pyro_aevb.estimators.log_weights import LogWeights, tail_length
from pyro_aevb.models import VAE
from pyro_aevb.pairs.contract import inspect
from pyro_aevb.pairs.pair import load_pair

EXAMPLES = Path(__file__).parents[1] / "examples"
FIELDS = ["reconstruction", "kl", "elbo", "log_weight", "ess", "reconstruction_mean"]
compiler = pytest.mark.skipif(inductor.missing() is not None, reason=str(inductor.missing()))


def binary(n, *shape):
    generator = torch.Generator().manual_seed(n)
    return (torch.rand(n, *shape, generator=generator) < 0.4).float()


def example(name, **parameters):
    pair = load_pair(str(EXAMPLES / name), parameters)
    sys.modules.pop(f"pyro_aevb_pair_{name.partition('.')[0]}", None)
    return pair


PAIRS = {
    "mlp": lambda: (load_pair(VAE((1, 6, 6), 3, [20, 10])), binary(25, 1, 6, 6)),
    "conv": lambda: (load_pair(VAE((1, 6, 6), 3, [4, 8], "conv")), binary(25, 1, 6, 6)),
    "gaussian": lambda: (load_pair(VAE((7,), 3, [9], likelihood="gaussian")), binary(25, 7)),
    "classic": lambda: (
        example("classic_vae.py:VAE", z_dim=5, hidden_dim=20),
        binary(9, 1, 28, 28),
    ),
    "hierarchical": lambda: (
        example("hierarchical.py:TwoLayers", event_shape=(1, 6, 6), dims=(4, 3), hidden=12),
        binary(25, 1, 6, 6),
    ),
    "bayesian": lambda: (
        example("bayesian_decoder.py:BayesianDecoder", event_shape=(1, 6, 6), num_data=25),
        binary(25, 1, 6, 6),
    ),
}


def assert_rounding(one, other, fields=FIELDS):
    for name in fields:
        # A relative error of a weight is an absolute one of its logarithm.
        rtol = 2e-4 if name == "ess" else 2e-5
        expected, actual = getattr(one, name), getattr(other, name)
        assert (expected is None) == (actual is None)
        if expected is not None:
            np.testing.assert_allclose(actual, expected, rtol, 1e-5, err_msg=name)


# Captured and compiled


@pytest.mark.parametrize(
    "kind, way",
    [*((kind, "graph") for kind in PAIRS), pytest.param("bayesian", "compiled", marks=compiler)],
)
def test_the_graph_of_a_pair_scores_as_its_handlers_do(kind, way, monkeypatch):
    monkeypatch.setattr(streams, "DATA_BLOCK", 20)  # the last block is another shape
    monkeypatch.setattr(importance, "DRAW_BLOCK", 2500)  # and there are several blocks of draws
    torch.manual_seed(0)
    pair, x = PAIRS[kind]()
    inspect(pair, x)
    options = {"num_samples": 40, "weight_samples": 2, "seed": 1}
    eager = score(pair, batches(x), compile="off", **options)
    assert 1.2 < eager.ess.mean() < 39.9 and np.ptp(eager.log_weight) > 0.5  # they matter
    monkeypatch.setattr(replay, "COMPILING", math.inf)
    how = {"calls": 10**5} if way == "graph" else {"compile": "on"}
    scorer = Scorer(pair, memory=60_000, say=pytest.fail, **how, **options)
    assert_rounding(eager, scorer(batches(x)))
    (plan,) = scorer._plans.values()
    assert plan.evaluate.way is (Way.GRAPH if way == "graph" else Way.COMPILED)


def test_a_kept_scorer_captures_once_and_sees_what_becomes_of_the_parameters(monkeypatch):
    captures, real = [], replay.capture
    monkeypatch.setattr(replay, "capture", lambda *a, **o: captures.append(a) or real(*a, **o))
    torch.manual_seed(0)
    source, x = VAE((1, 6, 6), 3, [20]), binary(30, 1, 6, 6)
    pair = ready(source, x)
    scorer = Scorer(pair, 1, 1, seed=3, details=False, calls=200)
    before = scorer(batches(x))
    for value in source.parameters():
        value.data.mul_(1.5)
    source.train()
    after, expected = scorer(batches(x)), score(pair, batches(x), 1, 1, 3, compile="off")
    assert len(captures) == 2 and source.training
    assert abs(after.elbo.mean() - before.elbo.mean()) > 0.3
    assert_rounding(expected, after, ["reconstruction", "kl", "elbo", "log_weight"])


def reads_back(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(4), 1.0).to_event(1))
        shift = 1.0 if float(z.sum()) > 1e9 else 0.0
        pyro.sample("x", dist.Normal(z + shift, 1.0).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)).to_event(1))


def test_what_cannot_be_captured_is_scored_eagerly_and_says_so_once():
    x = torch.randn(30, 4, dtype=torch.float64)
    pair, said = ready((reads_back, guide), x), []
    scorer = Scorer(pair, 30, details=False, say=said.append, calls=10**5)
    one, two = scorer(batches(x)), scorer(batches(x))
    truth = dist.Normal(0.0, math.sqrt(2)).log_prob(x).sum(1)
    for scores in (one, two):
        np.testing.assert_allclose(scores.log_weight[0], truth, atol=1e-6)
    assert len(said) == 1 and "scored eagerly: it reads a value back from a tensor" in said[0]
    with pytest.raises(UsageError, match=r"--compile on: .* has to be scored eagerly: it reads"):
        score(pair, batches(x), 30, compile="on")
    with pytest.raises(UsageError, match="--compile is 'yes'"):
        score(pair, batches(x), 30, compile="yes")


@pytest.mark.parametrize("pixels", [784, 36, 1, 37])
def test_grouped_logarithms_lose_nothing(pixels):
    generator = torch.Generator().manual_seed(0)
    logits = 12 * torch.randn(50, pixels, generator=generator)
    logits[0], logits[1], logits[2] = 60.0, -60.0, 0.0
    x = torch.rand(50, pixels, generator=generator)
    x[::2] = x[::2].round()

    def log_prob(logits, x):
        bernoulli = dist.Bernoulli(logits=logits.tanh() + logits, validate_args=False)
        return [bernoulli.to_event(1).log_prob(x)]

    exact = log_prob(logits.double(), x.double())[0]
    graph = make_fx(log_prob)(logits, x)
    use_cheaper(graph)
    tolerance = 1e-6 * (1 + exact.abs()) + 1e-7 * pixels
    assert ((graph(logits, x)[0] - exact).abs() <= tolerance).all()
    logarithms = [n for n in graph.graph.nodes if n.target is torch.ops.aten.log.default]
    assert bool(logarithms) == (pixels in (784, 36))
    assert not any(n.target is torch.ops.aten.tanh.default for n in graph.graph.nodes)


# Streamed


@pytest.mark.parametrize("sizes", [[2000], [1, 999, 700, 300], [3] * 666 + [2]])
def test_sums_over_blocks_equal_those_of_all_weights_at_once(sizes):
    rng = np.random.default_rng(0)
    log_w = np.array([0.05, 0.5, 0.9, 2.0, 0.3]) * rng.exponential(size=(2000, 5))
    log_w += [-900.0, 0.0, 700.0, -3.0, -np.inf]
    log_w[:, 3] = np.maximum(log_w[:, 3], 4.0)  # ties below the tail
    log_w[17, 0], log_w[18, 1] = -np.inf, 30.0  # a weight of zero, and one that is all
    weights = LogWeights(2000, tail=True)
    for block in torch.from_numpy(log_w).split(sizes):
        weights.add(block)
    w = torch.from_numpy(log_w)
    expected = w.logsumexp(0) - math.log(2000)
    np.testing.assert_allclose(weights.log_mean(), expected, rtol=1e-12)
    ess = (2 * w.logsumexp(0) - (2 * w).logsumexp(0)).exp()
    np.testing.assert_allclose(weights.effective_sample_size()[:4], ess[:4], rtol=1e-9)
    k = weights.pareto_k().numpy()
    if hasattr(arviz, "psislw"):
        np.testing.assert_allclose(k[:4], arviz.psislw(log_w.T[:4].copy())[1], rtol=1e-9)
    assert np.isnan(k[4])  # no weight at all


@pytest.mark.parametrize("K, M", [(25, 5), (100, 20), (225, 45), (226, 46), (10**6, 3000)])
def test_the_length_of_the_tail_is_arvizs(K, M):
    assert tail_length(K) == M


class Largest(TorchDispatchMode):
    """The most numbers that a tensor made inside holds, views aside."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.untyped_storage().nbytes() // 8)
        return result


def test_memory_does_not_grow_with_the_samples(monkeypatch):
    monkeypatch.setattr(importance, "DRAW_BLOCK", 1 << 17)
    source, x, pair = with_data(PPCA(), 3)
    largest, few, many = {}, 10_000, 1_000_000
    for K, details in itertools.product((few, many), (False, True)):
        with Largest() as mode:
            scores = score(pair, batches(x), K, details=details, memory=1 << 22)
        largest[K, details] = mode.numbers
        error = np.sqrt(1 / scores.ess[0] - 1 / K) if details else 0.02
        assert np.all(np.abs(scores.log_weight[0] - source.log_likelihood(x)) < 4.5 * error)
    # Blocks of draws differ in length by less than a half, so as to fit K.
    assert largest[many, False] < 2 * largest[few, False] < 1e6
    # The tail, and the weights that are waiting to be compared with it.
    tail = 3 * (2 * (tail_length(many) + 1) + (1 << 17) // 9)
    assert largest[many, True] <= max(largest[many, False], tail)
