"""Compiled steps as code for GPUs that are not here (benchmarks/triton_kernels.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parent.parent


def test_every_step_is_compiled_to_machine_code(tmp_path):
    """All kernels of a step, for the A100 and the H100.

    In a process of its own: what PyTorch is told of a GPU must not reach other tests.
    """
    command = [sys.executable, "-m", "benchmarks.triton_kernels", "--cases", "RBM"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made = json.loads((tmp_path / "triton-kernels.json").read_text())["cases"]["RBM"]
    assert made.keys() == {"80", "90"}
    for steps in made.values():
        assert len(steps) == 1
        for sizes in steps:
            assert len(sizes) > 3 and min(sizes) > 1000
