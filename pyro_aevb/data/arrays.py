r"""Tensors as NumPy arrays."""

import numpy as np
import torch
from torch import Tensor


def as_numpy(values: Tensor) -> np.ndarray:
    r"""The values on the host; bfloat16, which NumPy lacks, as the float32 that it is a part of."""
    values = values.detach().cpu()
    array: np.ndarray = (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    return array
