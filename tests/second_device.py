"""A device that is not the CPU, computed by the CPU, for tests without a GPU.

Its tensors say that they lie elsewhere, an operation that mixes them with tensors of the CPU is an
error as on a GPU, and what the host reads of them is counted. It stands on PyTorch's registration
of backends that are written in Python, and changes nothing of how the CPU computes: a result there
is that of the CPU bit for bit.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
# It draws from the CPU's generator; without these nothing in the process could fork generators.
torch.elsewhere.get_rng_state = lambda device=None: torch.zeros(0)
torch.elsewhere.set_rng_state = lambda state, device=None: None
DEVICE = torch.device("elsewhere:0")
READS: list[str] = []
"""What the host has read, an entry for each value or list of values."""
MIXING = {
    *("aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put_"),
    "aten::_index_put_impl_",
}
"""Operations that a GPU allows on tensors of both devices."""


class Elsewhere(torch.Tensor):
    """A tensor of the CPU, `v`, that says that it lies on :data:`DEVICE`."""

    @staticmethod
    def __new__(cls, v):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            v.size(),
            strides=v.stride(),
            storage_offset=v.storage_offset(),
            dtype=v.dtype,
            device=DEVICE,
            requires_grad=False,
        )
        made.v = v
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})

    def tolist(self):
        READS.append("tolist")
        return self.v.detach().tolist()

    def __reduce_ex__(self, protocol):  # saved as a plain tensor
        return self.v.detach().__reduce_ex__(protocol)


def here(x):
    """The tensor of the CPU that a value is computed with."""
    return x.v if isinstance(x, Elsewhere) else x


def computed(func, args, kwargs):
    """An operation on tensors of one device, or a copy between the two."""
    flat, _ = pytree.tree_flatten((args, kwargs))
    name = func._schema.name
    tensors = [a for a in flat if isinstance(a, torch.Tensor)]
    there = [a for a in tensors if isinstance(a, Elsewhere)]
    others = [a for a in tensors if not isinstance(a, Elsewhere) and a.dim() > 0]
    wanted = kwargs.get("device")
    wanted = None if wanted is None else torch.device(wanted).type
    if there and others and name not in MIXING:
        shapes = [tuple(a.shape) for a in others]
        raise RuntimeError(f"{name}: tensors on two devices, of shape {shapes} on the CPU")
    if there and name == "aten::_local_scalar_dense":
        READS.append("item")
    if wanted in ("cpu", DEVICE.type):
        kwargs = {k: v for k, v in kwargs.items() if k not in ("device", "pin_memory")}
        if wanted == "cpu" and there:
            READS.append("copy")
    out = func(*pytree.tree_map(here, args), **pytree.tree_map(here, kwargs))
    if wanted == "cpu" or not (there or wanted == DEVICE.type):
        return out
    if func._schema.is_mutable:
        places = zip(args, func._schema.arguments, strict=False)
        written = [a for a, s in places if s.alias_info is not None and s.alias_info.is_write]
        return written[0] if len(written) == 1 and isinstance(out, torch.Tensor) else out
    return pytree.tree_map(lambda o: Elsewhere(o) if isinstance(o, torch.Tensor) else o, out)


class Factory(TorchDispatchMode):
    """Inside this, functions that make tensors and ``.to()`` know the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def _copy(self, source, non_blocking=False):
    here(self).copy_(here(source))
    return self


def _to(
    x, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=0, memory_format=None
):
    value = here(x)
    value = value.to(dtype) if dtype is not None else value.clone()
    return Elsewhere(value) if torch.device(device).type == DEVICE.type else value


def _strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return Elsewhere(torch.empty_strided(size, stride, dtype=dtype))


def _empty(size, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return Elsewhere(torch.empty(size, dtype=dtype))


# torch.tensor(..., device=...) goes round dispatch modes, so a few kernels are registered.
_LIBRARY = torch.library.Library("aten", "IMPL")
_LIBRARY.impl("empty_strided", _strided, "PrivateUse1")
_LIBRARY.impl("empty.memory_format", _empty, "PrivateUse1")
_LIBRARY.impl("copy_", _copy, "PrivateUse1")
_LIBRARY.impl("_to_copy", _to, "PrivateUse1")


@contextmanager
def reads():
    """What the host reads inside this."""
    before = len(READS)
    found = []
    yield found
    found += READS[before:]


@contextmanager
def known():
    """Inside this, the package knows the device by the name "elsewhere"."""
    from pyro_aevb.device import choose_device
    from pyro_aevb.pairs.pair import Pair
    from pyro_aevb.runs import prepare

    move = Pair.move

    def to(pair, device):
        return moved(pair) if torch.device(device) == DEVICE else move(pair, device)

    def chosen(name):
        return DEVICE if name == "elsewhere" else choose_device(name)

    with mock.patch.object(prepare, "choose_device", chosen), mock.patch.object(Pair, "move", to):
        yield


def moved(pair):
    """A pair whose tensors lie on the device; modules cannot do it by ``.to()`` in place."""
    pair._device = DEVICE
    for module in pair.modules():
        for held in (module._parameters, module._buffers):
            held.update({name: _there(value) for name, value in held.items()})
    store = pair._store["params"]
    store.update({name: _there(value) for name, value in store.items()})
    return pair


def _there(value):
    """A tensor on the device, itself where it lies there already."""
    if value is None or isinstance(value, Elsewhere):
        return value
    return Elsewhere(value.detach().clone()).requires_grad_(value.requires_grad)
