r"""The images of all benchmarks."""

from functools import cache

import numpy as np


@cache
def mnist() -> tuple[np.ndarray, np.ndarray]:
    r"""The published training set, uint8, and the test set, binarized once, float32."""
    import torch

    from pyro_aevb.data.batches import Batches
    from pyro_aevb.data.sets import load

    data = load("mnist")
    test = Batches(data.test, "fixed").take(torch.arange(len(data.test)))
    # The project keeps the first 5,000 for validation; here all 60,000 are trained on.
    return torch.cat([data.valid.images, data.train.images]).numpy(), test.numpy()
