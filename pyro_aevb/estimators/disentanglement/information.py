r"""Mutual information of factors and code dimensions, from histograms.

Dimension i is cut into B bins of equal width between its least and greatest value; with the shares
:math:`p(b, v)` of the rows in bin b with value v of factor j,

.. math:: I_{ji} = \sum_{b, v} p(b, v) \log \frac{p(b, v)}{p(b)\, p(v)}
    \quad \text{in nats}, \qquad 0 \le I_{ji} \le H(v_j) .

Of n rows it is too high by about :math:`(B' - 1)(V - 1) / 2n` nats, with B' bins in use and V
values, also for codes that have nothing to do with the factor: the noise of a histogram. Bins of
equal width change with the most extreme codes, but not with a scale, a shift or a sign (where no
code lies on an edge).
"""

import numpy as np
from scipy.special import xlogy

from pyro_aevb.estimators.disentanglement.score import checked


class Histograms:
    r"""Binned codes beside factors, from which information is computed for any weights of rows.

    Arguments:
        codes: ``(N, d)``.
        factors: ``(N, K)``.
        bins: B.
    """

    def __init__(self, codes: np.ndarray, factors: np.ndarray, bins: int = 20) -> None:
        codes, factors = checked(codes, factors)
        self.bins, self.n = bins, len(codes)
        binned = np.stack([_binned(column, bins) for column in codes.T])
        self.values = [int(v) + 1 for v in factors.max(0)]
        d = len(binned)
        # where in a table (d, B, V) each row of each dimension is counted
        start = bins * np.arange(d)[:, None]
        self._cells = [
            ((start + binned) * v + column).ravel()
            for v, column in zip(self.values, factors.T, strict=True)
        ]
        self._shape = d

    def information(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        r"""I, ``(K, d)``, and the factors' entropies, ``(K,)``, in nats.

        Arguments:
            weights: How often each row counts, ``(N,)``; default once.
        """
        weights = np.ones(self.n) if weights is None else weights
        each, total = np.tile(weights, self._shape), weights.sum()
        information, entropy = [], []
        for v, cells in zip(self.values, self._cells, strict=True):
            counts = np.bincount(cells, each, minlength=self._shape * self.bins * v)
            p = counts.reshape(self._shape, self.bins, v) / total
            of_bin, of_value = p.sum(2), p[0].sum(0)
            entropy.append(-xlogy(of_value, of_value).sum())
            joint = -xlogy(p, p).sum((1, 2))
            information.append(entropy[-1] - xlogy(of_bin, of_bin).sum(1) - joint)
        # rounding must not make information of a constant code anything but none
        return np.maximum(np.array(information), 0.0), np.array(entropy)


def _binned(column: np.ndarray, bins: int) -> np.ndarray:
    edges = np.histogram_bin_edges(column, bins)
    number: np.ndarray = np.digitize(column, edges[1:-1])
    return number
