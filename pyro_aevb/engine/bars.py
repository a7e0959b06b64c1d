r"""Progress bars: in place on a terminal or in a notebook, a line now and then in a log file."""

import math
import sys
import time
from typing import Any

from tqdm.std import tqdm

FIRST, EACH = 10.0, 60.0
r"""Seconds until the first line in a log file, and between further ones."""
LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f} %), {elapsed} so far, {remaining} to go"


def bar(**options: Any) -> Any:
    r"""A progress bar on the error output.

    Arguments:
        options: Those of ``tqdm``, such as `total`, `unit`, `desc` and `disable`.
    """
    from tqdm.auto import tqdm as here

    in_notebook = any(kind.__name__ == "tqdm_notebook" for kind in here.__mro__)
    if sys.stderr.isatty() or in_notebook:
        return here(mininterval=0.5, **options)
    return Lines(bar_format=LINE + "{postfix}", **options)


class Lines(tqdm):
    r"""A bar that is written as lines, however often it is updated.

    What is done within :data:`FIRST` seconds has none.
    """

    monitor_interval = 0  # no thread that refreshes bars

    def __init__(self, **options: Any) -> None:
        self.next = time.monotonic() + FIRST
        super().__init__(mininterval=1.0, **options)

    def refresh(self, *_: Any, **__: Any) -> None:
        if time.monotonic() >= self.next and not self.disable:
            self.next = time.monotonic() + EACH
            self.fp.write(f"{self}\n")
            self.fp.flush()

    def clear(self, *_: Any, **__: Any) -> None:
        r"""A line that is written stays."""

    def display(self, *_: Any, **__: Any) -> None:
        r"""Only :meth:`refresh` writes."""

    def close(self) -> None:
        self.delay = math.inf  # as nothing was drawn that had to be finished
        super().close()
