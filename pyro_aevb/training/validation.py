r"""The algorithm's validation after each epoch, which leaves everything as it was."""

from dataclasses import dataclass

import numpy as np
import torch

from pyro_aevb.data.batches import Batches
from pyro_aevb.errors import UsageError
from pyro_aevb.estimators.importance import Scorer
from pyro_aevb.pairs.pair import Pair
from pyro_aevb.pairs.settle import settle
from pyro_aevb.pairs.state.python import PythonState, untouched
from pyro_aevb.training.algorithm import Algorithm, Row
from pyro_aevb.training.divergence import not_finite


@dataclass
class Validation:
    r"""Returns a row and the name of its watched value, for the pair as it is at each call."""

    pair: Pair
    algorithm: Algorithm
    data: Batches
    scorer: Scorer
    python: PythonState

    def __call__(self) -> tuple[Row, str]:
        kept = untouched(self.python, [self.data.device])
        with kept, self.pair.evaluating(), torch.no_grad():
            settle(self.pair, self.data, quick=True)
            return self.algorithm.validate(self.data, self.scorer)

    def not_finite(self, name: str, epoch: int, kept: str, batch_size: int) -> UsageError:
        r"""An error that names the first datum whose value is not finite, where data have one."""
        said, values = (
            f"{name} is not finite in epoch {epoch}",
            getattr(self.scorer(self.data), name, None),
        )
        if values is None or np.isfinite(values).all():
            return UsageError(said + kept)
        bad = np.flatnonzero(~np.isfinite(values).all(0))
        few = np.resize(bad, max(2, min(len(bad), batch_size)))  # a pair sees two or more
        where = f"validation data, the first at position {bad[0]}{kept}"
        with self.pair.evaluating():
            x = self.data.take(torch.from_numpy(few))
            return not_finite(self.pair, x, f"{said} for {len(bad)} of {len(self.data)} {where}")
