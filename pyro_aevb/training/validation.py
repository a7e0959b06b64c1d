r"""What follows each epoch: the algorithm's validation, which leaves everything as it was."""

from dataclasses import dataclass

import numpy as np
import torch

from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.state.python import PythonState, untouched
from pyro_aevb.training.algorithm import Algorithm, Row
from pyro_aevb.training.divergence import not_finite


@dataclass
class Validation:
    r"""Validates a pair as it is at each call.

    Arguments:
        pair: An inspected pair.
        algorithm: Says what a validation gives.
        data: The validation data.
        scorer: Makes the same draws every time.
        python: Values that stay as they are.
    """

    pair: Pair
    algorithm: Algorithm
    data: Batches
    scorer: Scorer
    python: PythonState

    def __call__(self) -> tuple[Row, str]:
        r"""The row, and the name of the value that is watched."""
        with (
            untouched(self.python, [self.data.device]),
            self.pair.evaluating(),
            torch.no_grad(),
        ):
            return self.algorithm.validate(self.data, self.scorer)

    def not_finite(self, said: str, name: str, kept: str, batch_size: int) -> UsageError:
        r"""An error that names the first datum whose value is not finite, where data have one."""
        values = getattr(self.scorer(self.data), name, None)
        if values is None or np.isfinite(values).all():
            return UsageError(f"{said}{kept}")
        bad = np.flatnonzero(~np.isfinite(values).all(0))
        few = np.resize(bad, max(2, min(len(bad), batch_size)))  # a pair sees two or more
        said += (
            f" for {len(bad)} of {len(self.data)} validation data, the first at position "
            f"{bad[0]}{kept}"
        )
        with self.pair.evaluating():
            return not_finite(self.pair, self.data.take(torch.from_numpy(few)), said)
