r"""Batches that are read from the disk while those before them are worked on."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_aevb.data.disk import OnDisk

WAIT = 0.1
r"""Seconds after which the thread looks whether it is still wanted."""


class Ahead:
    r"""Batches that come in an order that was announced, read up to two windows before.

    Arguments:
        images: The data.
        coming: The positions of each batch's data, int64, ``(B,)``, on the CPU.
    """

    def __init__(self, images: OnDisk, coming: Sequence[Tensor]) -> None:
        self._images, self._coming = images, deque(coming)
        self._windows: queue.Queue[tuple[Tensor, ...] | Exception] = queue.Queue(1)
        self._here = deque[Tensor]()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, args=[list(coming)], daemon=True)
        self._thread.start()

    def take(self, index: Tensor) -> Tensor | None:
        r"""The data at some positions, ``(B, *event_shape)``; None where others come next."""
        if not self._coming or not torch.equal(self._coming[0], index):
            return None
        if not self._here:
            found = self._windows.get()
            if isinstance(found, Exception):
                raise found
            self._here.extend(found)
        self._coming.popleft()
        return self._here.popleft()

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _read(self, coming: list[Tensor]) -> None:
        try:
            window = self._images.window
            while coming and not self._done.is_set():
                count = max(1, window // len(coming[0]))
                some, coming = coming[:count], coming[count:]
                data = self._images.index_select(0, torch.cat(some))
                self._put(data.split([len(index) for index in some]))
        except Exception as error:  # raised where the batch is asked for
            self._put(error)

    def _put(self, found: tuple[Tensor, ...] | Exception) -> None:
        while not self._done.is_set():
            try:
                return self._windows.put(found, timeout=WAIT)
            except queue.Full:
                continue
