r"""Training by several processes, each on its rows of every batch; see :class:`Processes`.

``torchrun --nproc-per-node=N -m pyro_aevb.fit ...`` starts them. Process 0 writes the run and
speaks; the others compute.
"""

import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache, reduce
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_aevb.device import gpus, on_cuda, random_states, restore_random_states, shares_memory
from pyro_aevb.errors import UsageError
from pyro_aevb.pairs.state.python import torch_states

T = TypeVar("T")

LOOK_EVERY = 50
r"""Steps between two looks at a number on a GPU, which wait for it."""


class Alone:
    r"""One process: everything is its own. What :class:`Processes` does for several."""

    rank, size = 0, 1
    continues = ""

    def __init__(self, device: str = "auto") -> None:
        self.device = device

    def rows(self, batch: int) -> slice:
        r"""The rows of a batch that this process computes."""
        return slice(0, batch)

    def mean(
        self, parameters: Sequence[Tensor], averages: Sequence[Tensor], loss: Tensor, batch: int
    ) -> Tensor:
        r"""The loss of the whole batch; leaves its gradients in ``.grad``."""
        return loss

    def stops(self, asked: bool) -> bool:
        r"""Whether to stop before the next step, in all processes; `asked` is this one's wish."""
        return asked

    def agree(self, make: Callable[[], T]) -> T:
        r"""What process 0 makes."""
        return make()

    def gather(self, value: T) -> list[T] | None:
        r"""What all processes have, in their order, in process 0; None in the others."""
        return [value]

    def together(self, work: Callable[[], T], failure: type[Exception]) -> T:
        r"""Do a work in every process; a failure of one is a failure of all."""
        return work()

    def align(self, tensors: Iterable[Tensor]) -> None:
        r"""Give all processes the tensors and the random numbers of process 0."""

    def check_in_step(self, name: str) -> None:
        r"""Raise a UsageError unless all processes would draw the same random numbers next."""


class Processes(Alone):
    r"""R processes that take the steps of one, each on its rows of every batch.

    Process r computes the loss per datum :math:`\ell_r` of its :math:`B_r` of B contiguous rows.
    With :math:`\ell_r = -\frac{1}{B_r} \sum_{n \in r} \mathcal{L}_n`, or, for a pair that
    declares N and has global latents,

    .. math::
        \ell_r = \frac{1}{N} \Big[ -\frac{N}{B_r} \sum_{n \in r} \mathcal{L}_n
        + \mathrm{KL}(q(w) \,\|\, p(w)) \Big], \qquad
        \ell = \sum_r \frac{B_r}{B} \, \ell_r

    is the loss of the whole batch in both cases, as :math:`\sum_r B_r / B = 1`; and so for the
    gradients. They are summed in one flat buffer, in which the loss and a request to stop travel
    too: one reduction for each step. A process that is left without rows, as on a short last batch,
    takes one with weight 0, so that it draws the random numbers that the others draw.

    Valid for objectives that are sums over data, given the global latents, as the ELBO and IWAE
    are. What mixes data, such as batch normalization or ``pyro.infer.RenyiELBO``, sees the rows of
    one process; running averages are averaged as the gradients are.

    Every process ends when one is lost: by an error of the connection, or by the SIGTERM that
    torchrun sends. One of them says so. The last checkpoint is what continues.

    Arguments:
        rank, size: The number of this process, from 0, and how many there are.
        device: The device of this process.
        store: The store of torch.distributed through which the processes found one another.
    """

    def __init__(self, rank: int, size: int, device: str, store: Any) -> None:
        super().__init__(device)
        self.rank, self.size = rank, size
        self.speaks = False
        self._store = store
        self._asked = False
        self._steps = 0
        self._bucket: Tensor | None = None

    def rows(self, batch: int) -> slice:
        start, stop = self._range(batch)
        return slice(start, stop) if stop > start else slice(0, 1)

    def _range(self, batch: int) -> tuple[int, int]:
        return batch * self.rank // self.size, batch * (self.rank + 1) // self.size

    @torch.no_grad()
    def mean(
        self, parameters: Sequence[Tensor], averages: Sequence[Tensor], loss: Tensor, batch: int
    ) -> Tensor:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        device = gradients[0].device
        parts = [*gradients, *averages, loss.to(device)]
        sizes = [part.numel() for part in parts]
        if self._bucket is None or len(self._bucket) != sum(sizes) + 1:
            widest = reduce(torch.promote_types, [part.dtype for part in parts])
            self._bucket = torch.empty(sum(sizes) + 1, dtype=widest, device=device)
        start, stop = self._range(batch)
        shares = self._bucket[:-1]
        torch.cat([part.reshape(-1) for part in parts], out=shares)
        shares *= (stop - start) / batch
        self._bucket[-1] = self._asked
        self._all(torch.distributed.all_reduce, self._bucket)
        self._steps += 1
        reduced = shares.split(sizes)
        for parameter, gradient in zip(parameters, reduced, strict=False):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype)
        for average, value in zip(averages, reduced[len(parameters) :], strict=False):
            average.copy_(value.view_as(average))
        return reduced[-1].clone().view(())

    def stops(self, asked: bool) -> bool:
        self._asked = asked
        if self._bucket is None or (not shares_memory(self._bucket) and self._steps % LOOK_EVERY):
            return False
        return bool(self._bucket[-1] > 0)

    def agree(self, make: Callable[[], T]) -> T:
        box: list[Any] = [make() if self.rank == 0 else None]
        self._all(torch.distributed.broadcast_object_list, box, device=torch.device(self.device))
        return box[0]

    def gather(self, value: T) -> list[T] | None:
        values = self._everywhere(value)
        return None if self.rank else values

    def _everywhere(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        self._all(torch.distributed.all_gather_object, values, value)
        return values

    def together(self, work: Callable[[], T], failure: type[Exception]) -> T:
        done: Any = None
        said = None
        try:
            done = work()
        except failure as error:
            said = str(error)
        for reason in self._everywhere(said):
            if reason is not None:
                raise failure(reason)
        return done

    @torch.no_grad()
    def align(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            self._all(torch.distributed.broadcast, whole, src=0)
            tensor.copy_(whole)
        torch.set_rng_state(self.agree(torch.get_rng_state))
        device = [torch.device(self.device)]
        restore_random_states(self.agree(lambda: random_states(device)), device)

    def check_in_step(self, name: str) -> None:
        own = [hashlib.sha256(state).hexdigest() for state in torch_states(self.device)]
        if own != self.agree(lambda: own):
            raise UsageError(
                f"the processes draw different random numbers: {name} draws as many as its data "
                "ask for, which several processes cannot share; train it in one process"
            )

    def is_first(self) -> bool:
        r"""Whether this process is the first that has something to say; then it may say it."""
        try:
            self.speaks = bool(self._store.add("said", 1) == 1)
        except RuntimeError:  # the store was in process 0, and that is the one that was lost
            self.speaks = self.rank == 1
        return self.speaks

    def part(self, patience: float) -> None:
        r"""Let process 0 leave first, waiting so many seconds; a UsageError if it is lost.

        Another one may have received the last message before process 0 knows so, and would count
        as lost if it left then.
        """
        try:
            if self.rank == 0:
                self._store.set("parted", "1")
            began = time.monotonic()
            while not self._store.check(["parted"]) and time.monotonic() < began + patience:
                time.sleep(0.02)
        except RuntimeError as error:
            raise self.lost() from error

    def lost(self) -> UsageError:
        r"""What is said when a process is lost."""
        return UsageError(
            f"one of the {self.size} processes was lost, or the run was told to end (SIGTERM)"
            f"{self.continues}"
        )

    def _all(self, collective: Callable[..., Any], *args: Any, **options: Any) -> None:
        try:
            collective(*args, **options)
        except RuntimeError as error:
            raise self.lost() from error


@contextmanager
def processes(device: str) -> Iterator[Alone]:
    r"""The processes that torchrun has started, connected; or this one alone.

    In several processes one exception is shown, that of the process which meets it first.

    Arguments:
        device: ``auto``, ``cpu`` or ``cuda``, each process's own GPU; one alone takes any device.

    Raises:
        UsageError: There is no GPU for each process.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Alone(device)
        return
    group = _connected(int(os.environ["RANK"]), size, device)
    release = _on_sigterm(group)
    try:
        yield group
        group.part(math.inf)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            with suppress(UsageError):
                group.part(5)
        # The handler of SIGTERM stays: torchrun sends it as soon as one process has left.
        if group.is_first():
            raise
        status = {UsageError: 2, KeyboardInterrupt: 130, SystemExit: 1}
        raise SystemExit(status.get(type(error), 1)) from None
    release()
    torch.distributed.destroy_process_group()


_CONNECTIONS = count()


def _connected(rank: int, size: int, device: str) -> Processes:
    r"""This process, once all have found one another."""
    try:
        device = _own_device(device, size)
    except UsageError:  # the same in every process
        if rank == 0:
            raise
        time.sleep(3)  # until process 0 has said so: torchrun ends all once one has left
        sys.exit(2)
    store = torch.distributed.PrefixStore(f"pyro_aevb/{next(_CONNECTIONS)}", _store())
    on_cpu = device == "cpu"
    if not on_cpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "gloo" if on_cpu else "nccl",
        store=store,
        rank=rank,
        world_size=size,
        # A lost process is noticed otherwise; the others may have to wait for a compilation.
        timeout=timedelta(days=1),
        device_id=None if on_cpu else torch.device(device),
    )
    return Processes(rank, size, device, store)


@cache
def _store() -> Any:
    store, _, _ = next(torch.distributed.rendezvous("env://"))
    return store


def _own_device(device: str, size: int) -> str:
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if device == "cpu" or (device == "auto" and not on_cuda()):
        return "cpu"
    if device not in ("auto", "cuda"):
        raise UsageError(
            f"--device {device} in {here} processes: each takes a GPU of its own, cuda:0 to "
            f"cuda:{here - 1}; use --device cuda or --device cpu"
        )
    if gpus() < here:
        raise UsageError(
            f"{here} processes need as many GPUs, here are {gpus()}; start fewer, or use "
            "--device cpu"
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _on_sigterm(group: Processes) -> Callable[[], None]:
    r"""End at once on SIGTERM, saying why if no other process has.

    A thread waits for it, as the main one may be waiting for a GPU or a process that is no more.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while number := os.read(reader, 1)[0]:
            if number == signal.SIGTERM and not group.speaks:
                if group.is_first():
                    print(f"error: {group.lost()}", file=sys.stderr, flush=True)
                    time.sleep(0.5)  # the others ask this process, if it holds the store
                os._exit(128 + signal.SIGTERM)
        os.close(reader)

    threading.Thread(target=watch, daemon=True).start()
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def release() -> None:
        signal.signal(signal.SIGTERM, handler)
        signal.set_wakeup_fd(wakeup)
        os.write(writer, b"\0")
        os.close(writer)

    return release
