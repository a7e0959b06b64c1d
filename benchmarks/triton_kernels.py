r"""Whether compiled steps become CUDA code: ``python -m benchmarks.triton_kernels``, without a GPU.

The step of a case of :data:`~pyro_aevb.reports.proof.CASES` is captured on the CPU; its graph is
then moved to a device that is not there, lowered by Inductor, and the kernels of Triton that come
out are compiled to machine code for a generation of GPUs. Nothing is run. What PyTorch asks of a
driver on the way is answered by :func:`pretending`; the answers stand in one place, as the names
they replace are PyTorch's own and may change.
"""

import importlib.util
import re
import sys
import tempfile
import types
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import report
from pyro_aevb.engine.capture import Captured
from pyro_aevb.reports import proof
from pyro_aevb.training import step

GPU = torch.device("cuda:0")
TARGETS = {80: "A100", 90: "H100"}
CONFIG = {
    "compile_threads": 1,
    "joint_graph_constant_folding": False,  # computes constants on the device
    "shape_padding": False,  # times products on the device
    "use_static_cuda_launcher": False,  # keeps no assembly
    "force_disable_caches": True,
}


def graphs(case: proof.Case) -> list[tuple[Captured, list[Tensor]]]:
    r"""The captured steps of a short training, each with the arguments it is compiled for."""
    found = []

    def keep(captured: Captured, example: Any, same_draws: bool = False) -> Captured:
        found.append((captured, [*example]))
        return captured

    with mock.patch.object(step, "compile_captured", keep):
        proof.trained(case, "cpu", "on")
    return found


def lowered(captured: Captured, example: list[Tensor], target: int) -> str:
    r"""The program that Inductor writes for a graph on a GPU of compute capability target / 10.

    Arguments:
        captured: The graph; it is changed.
        example: Its arguments.
        target: The generation, such as 80.
    """
    from torch._inductor.codecache import PyCodeCache

    written: list[str] = []

    def write(source: str, *more: Any, **others: Any) -> None:
        written.append(source)
        raise _Written

    for node in captured.graph.graph.nodes:
        moved = [torch.fx.node.map_aggregate(x, _on_gpu) for x in (node.args, node.kwargs)]
        node.args, node.kwargs = moved
    captured.graph.recompile()
    with pretending(target), mock.patch.object(PyCodeCache, "write", write):
        with FakeTensorMode():
            fakes = [
                torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=GPU)
                for t in (*example, *captured.lifted)
            ]
        try:
            with torch.no_grad():
                torch._inductor.compile(captured.graph, fakes)
        except Exception:
            if not written:
                raise
    return written[0]


class _Written(Exception):
    r"""Ends Inductor's work, which would go on to load what it has written."""


def _on_gpu(value: Any) -> Any:
    return GPU if isinstance(value, torch.device) else value


def compiled(source: str, target: int) -> dict[str, tuple[str, int]]:
    r"""By kernel of Triton in a program: what it is for, and its machine code in bytes."""
    from torch._inductor.async_compile import AsyncCompile

    codes: dict[str, str] = {}

    def collect(self: Any, name: str, code: str, *more: Any, **others: Any) -> None:
        codes[name] = code

    found = {}
    with pretending(target), tempfile.TemporaryDirectory() as folder:
        with mock.patch.object(AsyncCompile, "triton", collect):
            # What comes before the first call defines the kernels.
            exec(source.partition("async_compile.wait")[0], {})
        for name, code in codes.items():
            path = Path(folder, f"{name}.py")
            path.write_text(code)
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            kernel = getattr(module, name)
            kernel.precompile(warm_cache_only=True)
            assembly = kernel.compile_results[0].kernel.asm
            aim = re.search(r"\.target (\w+)", assembly["ptx"])
            assert aim is not None
            found[name] = (aim[1], len(assembly["cubin"]))
    return found


@contextmanager
def pretending(target: int) -> Iterator[None]:
    r"""PyTorch and Triton believe, inside this, that there is such a GPU, to compile for it."""
    import torch._inductor.config
    import torch._inductor.fx_passes.fuse_attention
    import torch._inductor.fx_passes.pad_mm
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor.runtime.hints import DeviceProperties
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    major, minor = divmod(target, 10)
    gpu = types.SimpleNamespace(
        name=TARGETS[target],
        major=major,
        minor=minor,
        multi_processor_count=108,
        warp_size=32,
        total_memory=80 << 30,
        L2_cache_size=40 << 20,
        regs_per_multiprocessor=65536,
        max_threads_per_multi_processor=2048,
        max_threads_per_block=1024,
        shared_memory_per_block=48 << 10,
        shared_memory_per_block_optin=163 << 10,
        gcnArchName="",
    )
    answers: dict[str, Callable[..., Any]] = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.get_device_properties": lambda device=None: gpu,
        "torch.cuda.get_device_capability": lambda device=None: (major, minor),
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.synchronize": lambda device=None: None,
        "torch.cuda._exchange_device": lambda device: 0,
        "torch.cuda._maybe_exchange_device": lambda device: 0,
        "torch.cuda.get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "torch.cuda.set_rng_state": lambda state, device=None: None,
        "torch._inductor.utils.is_big_gpu": lambda device=None: False,
        "torch._inductor.fx_passes.fuse_attention._sfdp_init": lambda *_, **__: None,
        "torch._inductor.fx_passes.pad_mm._pad_mm_init": lambda *_, **__: None,
        "torch._inductor.runtime.triton_helpers.set_driver_to_gpu": lambda: None,
    }
    of_interface = {
        "get_device_properties": lambda device=None: gpu,
        "current_device": lambda: 0,
        "get_compute_capability": lambda device=None: target,
    }
    asked = types.SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", target, 32), get_current_device=lambda: 0
    )
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch(name, answer))
        for place in (CudaInterface, CudaInterface.Worker):
            for name, answer in of_interface.items():
                if hasattr(place, name):
                    stack.enter_context(mock.patch.object(place, name, staticmethod(answer)))
        stack.enter_context(torch._inductor.config.patch(CONFIG))
        DeviceProperties.create.cache_clear()
        stack.callback(DeviceProperties.create.cache_clear)
        stack.enter_context(mock.patch.object(driver, "_active", asked))
        yield


def page(results: Mapping[str, Any]) -> str:
    rows = []
    for name, found in results["cases"].items():
        cells = [", ".join(str(len(kernels)) for kernels in found["80"])]
        cells += [f"{sum(map(sum, found[str(t)])) / 1024:.0f}" for t in TARGETS]
        rows.append([name, *cells])
    titles = [f"sm_{target} ({gpu}), KiB" for target, gpu in TARGETS.items()]
    return (
        "# CUDA code without a GPU\n\nThe compiled steps of each case (one for each phase, and "
        "for each stage of layers), lowered by Inductor on a machine without a GPU: the "
        "number of Triton's kernels in it beside the products of matrices, which are the "
        "library's, and their machine code for two generations. Nothing of it was run.\n\n"
        f"{report.table(['', 'kernels', *titles], rows)}\n{report.circumstances_line(results)}\n"
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="*", choices=[*proof.CASES], default=[*proof.CASES])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    args = parser.parse_args()
    cases: dict[str, dict[str, list[list[int]]]] = {}
    for name in args.cases:
        cases[name] = {}
        for target in TARGETS:
            steps = graphs(proof.CASES[name])
            made = [compiled(lowered(*one, target), target) for one in steps]
            aims = {aim for found in made for aim, _ in found.values()}
            assert all(aim.startswith(f"sm_{target}") for aim in aims), aims
            cases[name][str(target)] = [[size for _, size in found.values()] for found in made]
            print(name, target, [len(found) for found in made], file=sys.stderr, flush=True)
    results = {"cases": cases, **report.circumstances("benchmarks.triton_kernels", "cpu")}
    path = args.out / "triton-kernels.json"
    report.merge(path, results)
    path.with_suffix(".md").write_text(page(results))


if __name__ == "__main__":
    main()
