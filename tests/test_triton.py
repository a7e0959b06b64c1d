"""Compiled steps as code for GPUs that are not here (benchmarks/triton_kernels.py)."""

import pytest

from benchmarks.triton_kernels import compiled, graphs, lowered
from pyro_aevb.reports.proof import CASES

pytest.importorskip("triton")


@pytest.mark.parametrize(
    "case", ["FactorVAE", "BayesianVAE", "BayesianAutoencoder", "DeepBeliefNet"]
)
def test_every_step_is_lowered_to_kernels_of_triton(case):
    """Nothing is left to the CPU: neither a kernel of C++ nor a tensor of its memory."""
    steps = graphs(CASES[case])
    assert steps
    for step in steps:
        source = lowered(*step, 80)
        assert source.count("async_compile.triton(") > 3
        assert "async_compile.cpp" not in source and "device='cpu'" not in source


@pytest.mark.parametrize(("target", "aim"), [(80, "sm_80"), (90, "sm_90a")])
def test_the_kernels_are_compiled_to_machine_code(target, aim):
    (step,) = graphs(CASES["VAE"])
    kernels = compiled(lowered(*step, target), target)
    assert len(kernels) > 3
    assert {kind for kind, _ in kernels.values()} == {aim}
    assert min(size for _, size in kernels.values()) > 1000
