r"""Which numbers of each row are the smallest, as an operation of torch: ``pyro_aevb::smallest``.

It is opaque to compilers: on a CPU NumPy's partition takes a third of the time of ``topk``, and
setting flags at the places that this gives is slow in the code that Inductor writes.
"""

import numpy as np
import torch
from torch import Tensor

torch.library.define("pyro_aevb::smallest", "(Tensor x, int count) -> Tensor")


def smallest(x: Tensor, count: int) -> Tensor:
    r"""The places of the `count` smallest numbers of each row, boolean, ``(B, D)``.

    Of equal numbers any are taken, so that there are always as many in each row.

    Arguments:
        x: ``(B, D)``, none of them NaN.
        count: From 0 to D.
    """
    flags: Tensor = torch.ops.pyro_aevb.smallest(x, count)
    return flags


def _by_places(x: Tensor, count: int) -> Tensor:
    lowest = x.topk(count, dim=1, largest=False, sorted=False).indices
    return torch.zeros_like(x, dtype=torch.bool).scatter_(1, lowest, True)


def _by_value(x: Tensor, count: int) -> Tensor:
    if count and x.numel() and x.dtype in (torch.float32, torch.float64):
        largest = np.partition(x.detach().numpy(), count - 1, axis=1)[:, count - 1 : count]
        flags = x <= torch.from_numpy(largest)
        if int(flags.sum()) == count * len(x):  # else some are equal to the largest
            return flags
    return _by_places(x, count)


torch.library.impl("pyro_aevb::smallest", "default", _by_places)
torch.library.impl("pyro_aevb::smallest", "CPU", _by_value)


@torch.library.register_fake("pyro_aevb::smallest")
def _(x: Tensor, count: int) -> Tensor:
    return torch.empty_like(x, dtype=torch.bool)
