"""The fused step on a GPU: under Triton's interpreter, compiled for Hopper, and on a GPU if there is one."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from gpu_tables import CONSTANTS, make
from reference_fused_dot_gpu import reference_stage

from cflightning.kernels.adagrad import GPU_BLOCK

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="the kernel needs Triton, which torch with CUDA or the extra `gpu` brings"
)


def run_tests(name, folder, **variables):
    """Run a file of tests in its own process: Triton reads its environment when it is imported."""
    kept = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(Path(__file__).with_name(name))],
        capture_output=True,
        text=True,
        timeout=600,
        env={**kept, "TRITON_CACHE_DIR": str(folder), **variables},
    )
    report = done.stdout[-6000:] + done.stderr[-2000:]
    assert done.returncode == 0, report
    if "passed" not in done.stdout:
        pytest.skip(report)


@pytest.mark.slow
@needs_triton
def test_under_tritons_interpreter(tmp_path):
    run_tests("interpreted_fused_gpu.py", tmp_path, TRITON_INTERPRET="1")


@pytest.mark.slow
@needs_triton
def test_compiled_for_hopper(tmp_path):
    run_tests("compiled_fused_gpu.py", tmp_path)


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize(("n", "dim"), [(1000, 3), (3000, 16), (3000, 64), (1000, 50), (1000, 256), (1, 8), (0, 8)])
def test_kernel_on_a_gpu_equals_the_reference(n, dim):
    from cflightning.kernels import fused_dot_gpu

    given, fast = make(n, dim, "cuda")
    slow = [table.clone() for table in fast]
    losses = []
    for step, options in ((fused_dot_gpu.train_stage, {"warps": 4}), (reference_stage, {})):
        tables = fast if step is fused_dot_gpu.train_stage else slow
        # One block per launch: within a launch, loads may overtake the additions of the previous block.
        parts = [[*given[:3], block] for block in given[3].split(1)] or [given]
        options = {"programs": 1, "ratings": GPU_BLOCK, **options}
        losses.append(sum(step(*part, *tables, *CONSTANTS, **options) for part in parts))
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)
