r"""Sums over importance weights that arrive in blocks, without keeping the weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def tail_length(num_samples: int) -> int:
    r"""How many of the largest weights Pareto-smoothed importance sampling looks at.

    .. math:: M = \lceil \min(K / 5, 3 \sqrt{K}) \rceil
    """
    return math.ceil(min(num_samples / 5, 3 * num_samples**0.5))


def milestones(num_samples: int) -> tuple[int, ...]:
    r"""Numbers of draws at which a curve against K looks: 1, 2, 5, 10, 20, ..., then K/2 and K.

    The last two are there for what the last doubling adds; K/2 is rounded down.
    """
    decades = (10**d for d in range(len(str(num_samples))))
    looks = {m * decade for decade in decades for m in (1, 2, 5)} | {num_samples // 2}
    return (*sorted(k for k in looks if 0 < k < num_samples), num_samples)


class LogWeights:
    r"""Running sums over the K log-weights of each of N data, :math:`\log \omega_{nk}`, in float64.

    What is kept is the largest log-weight so far, :math:`m_n`, the sums of
    :math:`e^{\log \omega_{nk} - m_n}` and of its square, and, if asked for, the largest
    :math:`M + 1` log-weights of each datum, where M grows as :math:`3 \sqrt{K}`. All values equal
    those of all weights at once, to float64 rounding.

    Arguments:
        num_samples: K, how many are going to be added.
        tail: Keep the largest, for :meth:`pareto_k`.
        looks: Numbers of draws, rising, at which :attr:`curve` takes the mean of those so far.
    """

    def __init__(self, num_samples: int, tail: bool = False, looks: Sequence[int] = ()) -> None:
        self.count = 0
        r"""How many have been added."""
        self.curve: list[Tensor] = []
        r""":meth:`log_mean` of the first k draws, ``(N,)``, for each k of `looks` so far."""
        self.looks = looks
        # ArviZ fits no tail of less than five.
        self.kept = tail_length(num_samples) + 1 if tail and num_samples >= 25 else 0
        self._largest: Tensor | None = None
        self._tail: list[Tensor] = []

    def add(self, log_weights: Tensor) -> None:
        r"""Take in a block of shape ``(k, N)``, any k."""
        block = log_weights.double()
        for k in self.looks:
            if 0 < k - self.count <= len(block):
                total = block[: k - self.count].logsumexp(0)
                if self.count:
                    total = total.logaddexp(self.log_mean() + math.log(self.count))
                self.curve.append(total - math.log(k))
        self.count += len(block)
        low, high = block.aminmax(dim=0)
        if self._largest is None:
            self._largest, self._smallest = high, low
            self._sum = self._squares = torch.zeros_like(high)
        before, self._largest = self._largest, torch.maximum(self._largest, high)
        self._smallest = torch.minimum(self._smallest, low)
        reference = _finite(self._largest)
        rescaled = (_finite(before) - reference).exp()
        weights = (block - reference).exp()
        self._sum = self._sum * rescaled + weights.sum(0)
        self._squares = self._squares * rescaled.square() + weights.square().sum(0)
        if self.kept:
            self._tail.append(block.T)
            if sum(part.shape[1] for part in self._tail) > 2 * self.kept:
                self._shorten()

    def _shorten(self) -> None:
        joined = torch.cat(self._tail, 1)
        self._tail = [joined.topk(min(self.kept, joined.shape[1]), dim=1).values]

    def log_mean(self) -> Tensor:
        r""":math:`\log \frac{1}{k} \sum_{i \le k} \omega_{ni}` of all draws so far, ``(N,)``."""
        assert self._largest is not None
        return self._sum.log() + _finite(self._largest) - math.log(self.count)

    def effective_sample_size(self) -> Tensor:
        r"""Kish's, :math:`(\sum_k \omega_{nk})^2 / \sum_k \omega_{nk}^2 \in [1, K]`, ``(N,)``."""
        return self._sum.square() / self._squares

    def pareto_k(self) -> Tensor:
        r"""The tail shape k-hat, ``(N,)``; NaN where there is no tail to fit.

        That is with K < 25, and where all weights of a datum are equal, or too many of the largest.
        Above 0.7 the mean weight is dominated by a few draws and usually too low.
        """
        assert self._largest is not None
        k = torch.full_like(self._largest, math.nan)
        # Differences of 1e-3 are float32 noise around equal weights.
        spread = self._largest - self._smallest > 1e-3
        if self.kept and spread.any():
            self._shorten()
            k[spread] = tail_shape(self._tail[0][spread])
        return k


def tail_shape(largest: Tensor) -> Tensor:
    r"""Fit a generalized Pareto distribution to the excess of the largest weights over a threshold.

    Arguments:
        largest: The M + 1 largest log-weights of each datum, falling, ``(N, M + 1)``. The last is
            the threshold.

    Returns:
        Its shape, ``(N,)``; NaN where fewer than five exceed the threshold.
    """
    k = torch.full_like(largest[:, 0], math.nan)
    scaled = largest - largest[:, :1]
    # ArviZ's floor, so that no excess is denormal.
    threshold = scaled[:, -1:].clamp_min(math.log(torch.finfo(torch.float64).tiny))
    excess = (scaled.exp() - threshold.exp()).flip(1)
    lengths = (scaled > threshold).sum(1)  # weights that equal the threshold are not in the tail
    for length in lengths.unique().tolist():
        if length > 4:
            of_length = lengths == length
            k[of_length] = _pareto_shape(excess[of_length, -length:])
    return torch.where(k.isfinite(), k, math.nan)


def _pareto_shape(x: Tensor) -> Tensor:
    r"""The empirical Bayes estimate of the shape from a rising sample, ``(N, n)``.

    The likelihood is averaged over a grid of :math:`30 + \lfloor\sqrt{n}\rfloor` values of
    :math:`b = -k / \sigma`, and the shape is drawn towards 0.5 with the weight of ten observations.

    References:
        | A New and Efficient Estimation Method for the Generalized Pareto Distribution
          (Zhang and Stephens, 2009)
        | https://doi.org/10.1198/tech.2009.08017
        | Pareto Smoothed Importance Sampling (Vehtari et al., 2024), appendix C
        | https://arxiv.org/abs/1507.02646
    """
    n = x.shape[1]
    points = 30 + math.isqrt(n)
    grid = 1 - (points / (torch.arange(1, points + 1, device=x.device).double() - 0.5)).sqrt()
    quartile = x[:, int(n / 4 + 0.5) - 1]
    b = grid[:, None] / (3 * quartile) + 1 / x[:, -1]
    shapes = torch.stack([torch.log1p(-row[:, None] * x).mean(1) for row in b])
    weights = (n * ((-b / shapes).log() - shapes - 1)).softmax(0)
    weights = torch.where(weights < 10 * torch.finfo(torch.float64).eps, 0.0, weights)
    b = (b * weights).sum(0) / weights.sum(0)
    shape = torch.log1p(-b[:, None] * x).mean(1)
    return (n * shape + 10 * 0.5) / (n + 10)


def _finite(x: Tensor) -> Tensor:
    # As in torch.logsumexp: where all weights are zero, -inf - (-inf) would be NaN.
    return torch.where(x.isfinite(), x, 0.0)
