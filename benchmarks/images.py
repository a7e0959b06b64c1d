r"""The images of all benchmarks."""

from functools import cache

import numpy as np

from benchmarks.networks import Network


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


def images_for(network: Network) -> tuple[np.ndarray, np.ndarray]:
    r"""What a network is trained on, uint8 from 0 to 255, and tested on, float32 of 0 and 1."""
    if network.side == 28:
        return mnist()
    import torch

    from pyro_aevb.data.sets import load

    every = load("shapes2d").train.images
    mixed = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:61_000]
    images = every.index_select(0, mixed)
    return (255 * images[:60_000]).numpy(), images[60_000:].float().numpy()
