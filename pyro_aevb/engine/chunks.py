r"""How many rows a pair may see at once, so that what it computes fits a memory budget."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_aevb.data.batch import Data

CPU_BUDGET, CUDA_BUDGET = 32 << 20, 4 << 30
r"""Default memory budget in bytes, which is what a CPU cache serves well, and what fills a GPU."""


def even(total: int, most: int) -> int:
    r"""The length, at most `most` and more than half of it, of parts that cover `total` best."""
    most = max(1, min(total, most))
    return min(range(most, most // 2, -1), key=lambda length: -(-total // length) * length)


def few_rows(memory: int | None, x: Data, run: Callable[[], Any]) -> int:
    r"""How many rows the pair may see at once, by the memory that a run on those of x takes."""
    with _Allocated() as allocated:
        run()
    budget = memory or (CUDA_BUDGET if x.is_cuda else CPU_BUDGET)
    return max(1, budget // max(1, allocated.total // len(x)))


class _Allocated(TorchFunctionMode):
    r"""Bytes of all tensors made inside: an upper bound on what is alive at once."""

    total = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.total += result.numel() * result.element_size()
        return result
