r"""Compile a captured graph with Inductor."""

import functools
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from pyro_aevb.engine.capture import Captured, NotCapturable
from pyro_aevb.engine.rewrites import reduced_products, use_onednn
from pyro_aevb.errors import one_line

THREAD_WORTH = 16384
r"""Numbers for which another thread is woken; at Inductor's 512 that costs more than it gives."""


@functools.cache
def missing() -> str | None:
    r"""What the machine lacks to compile; None if nothing."""
    if sys.platform == "win32":
        return None if shutil.which("cl") else "there is no C++ compiler (cl) on the path"
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return "there is no C++ compiler (g++ or clang++) on the path"
    return None


@contextmanager
def without_cuda() -> Iterator[None]:
    r"""PyTorch does not warn, inside this, that there is a CUDA toolkit and no GPU."""
    logger = logging.getLogger("torch.utils.cpp_extension")

    def other(record: logging.LogRecord) -> bool:
        return "No CUDA runtime is found" not in record.msg

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def compile_captured(
    captured: Captured, example: Sequence[Tensor], same_draws: bool = False
) -> Callable[..., list[Tensor]]:
    r"""Compile for arguments of exactly the shapes of `example`.

    Arguments:
        captured: The graph; it is changed.
        example: Arguments to compile for.
        same_draws: Draw the random numbers that `captured` would draw, not others. On a CPU this is
            also faster, as each of Inductor's numbers costs a round of Philox.

    Raises:
        NotCapturable: There is no compiler, or it fails.
    """
    if lacking := missing():
        raise NotCapturable(lacking)
    import torch._inductor.config

    use_onednn(captured.graph, reduced_products())
    how = {"fallback_random": same_draws, "cpp.min_chunk_size": THREAD_WORTH}
    # Called directly, Inductor saves the guards that `torch.compile` checks before every call.
    direct = getattr(torch._inductor, "compile", None)
    try:
        with torch._inductor.config.patch(how), torch.no_grad(), without_cuda():
            compiled: Callable[..., list[Tensor]] = (
                torch.compile(captured.graph, fullgraph=True, dynamic=False)
                if direct is None
                else direct(captured.graph, [*example, *captured.lifted])
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever Inductor or the C++ compiler stumbles over
        raise NotCapturable(
            f"Inductor failed: {type(error).__name__}: {one_line(error)}"
        ) from error
    lifted = captured.lifted

    def run(*arguments: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return compiled(*arguments, *lifted)

    return run
