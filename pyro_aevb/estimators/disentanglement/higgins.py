r"""Higgins' metric: a linear classifier tells which factor two sets of data share.

Of B points, point b has a factor :math:`y_b \sim U\{1, \dots, K\}` and L pairs of data that share
its value, all else drawn anew. With the codes :math:`z_1, z_2` of a pair,

.. math::
    z_b = \frac{1}{L} \sum_{l=1}^L |z_{1l} - z_{2l}| \quad (d \text{ numbers}), \qquad
    \text{higgins\_score} = 100 \cdot \frac{1}{B'} \sum_{b'} 1[\hat y(z_{b'}) = y_{b'}],

the accuracy in per cent, on B' points drawn separately, of a linear softmax classifier
:math:`\hat y` that was trained on the B points. Where each factor has a dimension of its own, that
one does not differ within a pair, and the score is 100 whatever L. Chance is 100 / K. L decides
how much else counts: the larger L, the less noise is in :math:`z_b`, and the easier it is to tell
factors that are mixed over all dimensions. Compare scores of the same L alone.

The paper's classifier is a linear one with a softmax, trained by Adagrad with step 0.01: ``sgd``.
What that has reached depends on the number of steps and the scale of the codes. ``converged`` is
logistic regression to its optimum, of features scaled to variance 1 (``standardized``), so that
the scale of a dimension makes no difference.

References:
    | beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework
      (Higgins et al., 2017), section 3
    | https://openreview.net/forum?id=Sy2fzU9gl
"""

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pyro_aevb.errors import at_least_one, one_of
from pyro_aevb.estimators.disentanglement.draws import Rows
from pyro_aevb.estimators.disentanglement.score import Codes, Score, average, checked, numbered

AT_ONCE = 1 << 24
r"""Numbers of codes that are in memory at once."""
CLASSIFIERS = ("converged", "sgd")
FEATURES = ("standardized", "raw")
LR, BATCH = 1e-2, 64
r"""Of ``sgd``: Adagrad's step, and how many points, drawn at random, each step looks at."""


def higgins(
    codes: np.ndarray | Codes,
    factors: np.ndarray,
    pairs: int = 10,
    train_points: int = 10_000,
    test_points: int = 5_000,
    classifier: str = "converged",
    features: str = "standardized",
    steps: int = 10_000,
    repeats: int = 3,
    seed: int = 0,
) -> Score:
    r"""The score in per cent, with its standard error over repeats.

    Each repeat draws all points anew, and starts its classifier from other weights. No pair of rows
    is in a training point of a repeat and in a test point (:meth:`.draws.Rows.pairs_of`). The error
    is of the draws and not of the codes.

    Arguments:
        codes: ``(N, d)``, an array, or anything that makes them when they are looked at.
        factors: ``(N, K)``; :mod:`.draws` says what is drawn where they are no complete grid.
        pairs: L.
        train_points: B.
        test_points: B'.
        classifier: ``converged``, scikit-learn's logistic regression with its penalty C = 1, or
            ``sgd``.
        features: ``standardized``, each feature to mean 0 and variance 1 over the training
            points, or ``raw``.
        steps: Of ``sgd``.
        repeats: How often.
        seed: Fixes all draws.
    """
    one_of("classifier", classifier, CLASSIFIERS)
    one_of("features", features, FEATURES)
    for name, number in (("pairs", pairs), ("train_points", train_points), ("steps", steps)):
        at_least_one(name, number)
    at_least_one("test_points", test_points)
    if isinstance(codes, np.ndarray):
        codes, factors = checked(codes, factors)
    else:
        factors = numbered(codes, factors)
    rows, found = Rows(factors), []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        x, y = points(codes, rows, rng, pairs, train_points, False, seed)
        x_test, y_test = points(codes, rows, rng, pairs, test_points, True, seed)
        if features == "standardized":
            mean, scale = x.mean(0), x.std(0)
            scale = np.where(scale > 0, scale, 1.0)  # a constant code says nothing
            x, x_test = (x - mean) / scale, (x_test - mean) / scale
        fit = _converged if classifier == "converged" else _sgd
        weight, bias = fit(x, y, rows.k, steps, int(rng.integers(2**31)))
        found.append(100 * float(((x_test @ weight.T + bias).argmax(1) == y_test).mean()))
    return average(found)


def points(
    codes: np.ndarray | Codes,
    rows: Rows,
    rng: np.random.Generator,
    pairs: int,
    count: int,
    test: bool,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Points :math:`z_b`, ``(count, d)``, and their factors :math:`y_b`, ``(count,)``."""
    y = rng.integers(rows.k, size=count)
    x = np.empty((count, codes.shape[1]))
    for factor in range(rows.k):
        of = np.flatnonzero(y == factor)
        one, other = rows.pairs_of(rng, factor, len(of) * pairs, test, seed)
        some = max(1, AT_ONCE // (pairs * x.shape[1]))
        for start in range(0, len(of), some):
            at = slice(pairs * start, pairs * (start + some))
            apart = np.abs(codes[one[at]] - codes[other[at]])
            x[of[start : start + some]] = apart.reshape(-1, pairs, x.shape[1]).mean(1)
    return x, y


def _converged(
    x: np.ndarray, y: np.ndarray, k: int, steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    # Factors that no point is of are never predicted.
    weights, biases = np.zeros((k, x.shape[1])), np.full(k, -np.inf)
    there = np.unique(y)
    biases[there] = 0
    if len(there) == 1:
        return weights, biases
    fitted = LogisticRegression(max_iter=10_000, tol=1e-5).fit(x, y)
    # Of two classes scikit-learn has the weights of the second, against 0 of the first.
    weights[there[-len(fitted.coef_) :]] = fitted.coef_
    biases[there[-len(fitted.coef_) :]] = fitted.intercept_
    return weights, biases


def _sgd(
    x: np.ndarray, y: np.ndarray, k: int, steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    inputs, target = torch.from_numpy(x), torch.from_numpy(y)
    d = x.shape[1]
    weight = ((2 * torch.rand(k, d, generator=generator) - 1) / d**0.5).double().requires_grad_()
    bias = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adagrad([weight, bias], lr=LR)
    for _ in range(steps):
        index = torch.randint(len(x), (BATCH,), generator=generator)
        with torch.enable_grad():
            loss = cross_entropy(inputs[index] @ weight.T + bias, target[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weight.detach().numpy(), bias.detach().numpy()
