"""The Triton kernel compiled for a Hopper GPU; no GPU is needed. Started by test_fused_gpu.py in its own process."""

import re

import pytest

pytest.importorskip("triton", reason="the kernel needs Triton, which torch with CUDA or the extra `gpu` brings")
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cflightning.kernels import fused_dot_gpu
from cflightning.kernels.adagrad import GPU_BLOCK

pytestmark = pytest.mark.skipif(
    tuple(map(int, triton.__version__.split(".")[:2])) < (3, 5),
    reason="this version of Triton has another compile interface",
)

TYPES = {
    **dict.fromkeys(("user", "item", "order"), "*i32"),
    **dict.fromkeys(("target", "users", "items", "user_state", "item_state", "bias"), "*fp32"),
    **dict.fromkeys(("n", "units"), "i32"),
    "partials": "*fp64",
}


def compiled(dim, capability=90):
    ratings, warps = fused_dot_gpu.shape(dim)
    given = {"DIM": dim, "WIDTH": triton.next_power_of_2(dim), "BLOCK": GPU_BLOCK, "R": ratings}
    names = fused_dot_gpu.train_units.arg_names
    types = {name: "constexpr" if name in given else TYPES.get(name, "fp32") for name in names}
    aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if types[name].startswith("*")}
    constants = {(names.index(name),): value for name, value in given.items()}
    source = ASTSource(fn=fused_dot_gpu.train_units, signature=types, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]


@pytest.mark.parametrize("dim", [16, 64, 256])
def test_on_hopper(dim):
    text = compiled(dim)
    atomics = re.findall(r"\b(?:atom|red)\.global\S*", text)
    assert any("v4.f32" in name for name in atomics)  # 16 bytes of a row at a time
    assert all("relaxed" in name for name in atomics)
    assert re.search(r"ld\.global\.cg\.v4", text)  # rows: 16 bytes at a time, past L1
    assert re.search(r"ld\.volatile\.global", text)  # the global bias
    assert ".local" not in text


@pytest.mark.parametrize(("dim", "capability"), [(1, 90), (50, 90), (1000, 90), (64, 80), (64, 100)])
def test_compiles(dim, capability):
    assert re.search(r"\b(?:atom|red)\.global", compiled(dim, capability))
