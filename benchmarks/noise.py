r"""The noise under which objectives are compared.

All contenders see the same noise, which is +1 or -1 in every place, and the mean of their losses at
that noise and at its opposite is compared. With :math:`\epsilon = \pm 1` a sampled KL term is

.. math:: \log q(z|x) - \log p(z) = \mathrm{KL}(q \,\|\, p) + \mu \sigma \epsilon

in each dimension, for any mean and scale, and the last term vanishes in the mean over both signs.
So contenders with a sampled and with a closed-form KL must agree to rounding, at ordinary
parameters and not only where the noise does not matter.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def signs(rng: np.random.Generator, shape: tuple[int, ...], sign: int) -> np.ndarray:
    # A double for each, so that one draw of many and many of a few are the same stream.
    return np.where(rng.random(shape) < 0.5, np.float32(-sign), np.float32(sign))


class FixedNoise(TorchDispatchMode):
    r"""Every standard normal number that is asked of torch inside is +1 or -1.

    Below the libraries, so that the code which draws is the code which is timed.
    """

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.rng, self.sign = np.random.default_rng(0), sign

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Tensor:
        result: Tensor = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("randn", "randn_like", "normal_", "normal", "normal_functional"):
            drawn = signs(self.rng, tuple(result.shape), self.sign)
            result.copy_(torch.from_numpy(drawn))
        return result
