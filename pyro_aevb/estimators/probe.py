r"""How well a classifier reads the label of a datum from its code.

.. math::
    \text{label\_accuracy} = \frac{100}{N} \sum_n 1[\hat c(\mathrm{E}_q[z|x_n]) = c_n]

in per cent of the test data, for a classifier :math:`\hat c` that is fitted to codes of training
data and their labels, each dimension scaled to variance 1: a support vector machine with radial
basis functions, or softmax regression. Chance is the share of the commonest label. Where the code
is to be style alone, as of a pair that is told the labels, the classifier should do no better than
chance; where it is to serve a classifier, the more the better. What the classifier does not find
may still be there.
"""

from typing import TYPE_CHECKING

import numpy as np

from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError, at_least_one, one_of
from pyro_aevb.estimators.classification import error_metric
from pyro_aevb.estimators.disentanglement.codes import mean_codes
from pyro_aevb.estimators.estimator import Estimator, Found
from pyro_aevb.estimators.metrics import Metric
from pyro_aevb.estimators.work import Work

if TYPE_CHECKING:
    from pyro_aevb.runs.prepare import Prepared

CLASSIFIERS = ("svm", "softmax")
MOST = 10_000
r"""Test data at most."""


def label_accuracy(
    codes: np.ndarray,
    labels: np.ndarray,
    test_codes: np.ndarray,
    test_labels: np.ndarray,
    classifier: str = "svm",
) -> Metric:
    r"""The accuracy in per cent, with its binomial standard error and ``chance``.

    Arguments:
        codes: Codes to fit the classifier to, ``(N, d)``.
        labels: Their labels, whole numbers, ``(N,)``; -1 is not known, and left out.
        test_codes: Codes to judge it on, ``(M, d)``.
        test_labels: Their labels, ``(M,)``.
        classifier: ``svm`` (scikit-learn's ``SVC``) or ``softmax`` (its logistic regression, to
            convergence), each with its default penalty.

    Raises:
        UsageError: There are not two classes, or nothing to judge on.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    one_of("--estimator probe: classifier", classifier, CLASSIFIERS)
    known, judged = labels >= 0, test_labels >= 0
    if len(np.unique(labels[known])) < 2 or not judged.any():
        raise UsageError("--estimator probe needs data with labels of two classes or more")
    model = SVC() if classifier == "svm" else LogisticRegression(max_iter=10_000)
    model = make_pipeline(StandardScaler(), model).fit(codes[known], labels[known])
    wrong = model.predict(test_codes[judged]) != test_labels[judged]
    metric = error_metric(wrong)
    commonest = np.unique(test_labels[judged], return_counts=True)[1].max() / judged.sum()
    counts = {"num_train": int(known.sum()), "num_data": int(judged.sum())}
    right = 100 - metric["value"]
    return {**metric, "value": right, "chance": 100 * float(commonest), **counts}


def _probe(
    prepared: "Prepared",
    test: Batches,
    work: Work,
    seed: int = 0,
    num_train: int = 5000,
    classifier: str = "svm",
) -> Found:
    at_least_one("num_train", num_train)
    known, others = prepared.data.train.labels, prepared.data.test.labels
    if known is None or others is None:
        raise UsageError(f"--estimator probe reads labels, and {prepared.data.name} has none")
    judged = test.first(min(len(test), MOST))
    # At random, as own data may be sorted by their labels.
    rng = np.random.default_rng(seed)
    few = np.sort(rng.permutation(len(prepared.fixed_train))[:num_train])
    with work.progress("codes", len(prepared.fixed_train) + len(judged), "datum") as step:
        codes, test_codes = (
            mean_codes(prepared.pair, batches, seed, 0, step)
            for batches in (prepared.fixed_train, judged)
        )
    labels, test_labels = known.cpu().numpy(), others.cpu().numpy()
    judge = test_codes, test_labels[: len(judged)], classifier
    return {"label_accuracy": label_accuracy(codes[few], labels[few], *judge)}, {}


PROBE = Estimator("probe", _probe, of_test="it is fitted to the training data")
