r"""Files that several processes may want: who has their lock, and who waits for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_aevb.errors import UsageError


@contextmanager
def alone(lock: Path, refusal: str) -> Iterator[None]:
    r"""Hold a lock, which goes with the process, however that ends.

    Arguments:
        lock: The file that is locked; its folder must exist.
        refusal: What to tell whoever comes second.

    Raises:
        UsageError: Another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise UsageError(refusal) from None


@contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    r"""Hold a lock, after whoever has it; for what takes a moment, and within itself."""
    from filelock import FileLock

    with FileLock(lock, is_singleton=True):
        yield
