"""Products of small matrices that fit a core's caches, for compiled code; numba's own products need scipy."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cflightning.kernels import F32
from cflightning.kernels.compiling import compiled
from cflightning.kernels.simd import array_data, broadcast, load, store, vector_pointer, zero_vector

HIGH, WIDE = 4, 16
"""Height and width of a tile: eight vectors of eight lanes, as many as hide the latency, and half the registers."""


@intrinsic
def _tile(typing, a, at_a, down_a, along_a, b, at_b, down_b, c, at_c, down_c, depth):
    """A tile of `multiply`'s result, from flat arrays at flat offsets; its sums stay in registers."""

    def generate(context, builder, signature, arguments):
        a, b, c = (array_data(context, builder, signature, arguments, at) for at in (0, 4, 7))
        at_a, down_a, along_a, at_b, down_b, at_c, down_c, depth = (arguments[at] for at in (1, 2, 3, 5, 6, 8, 9, 10))
        flags, long = ("contract", "nsz"), ir.IntType(64)
        sums = [zero_vector(builder, WIDE) for _ in range(HIGH)]
        offsets = [builder.add(at_a, builder.mul(down_a, long(i))) for i in range(HIGH)]
        with cgutils.for_range(builder, depth) as loop:
            at_row = builder.add(at_b, builder.mul(loop.index, down_b))
            row = load(builder, vector_pointer(builder, b, at_row, WIDE))
            step = builder.mul(loop.index, along_a)
            for total, offset in zip(sums, offsets, strict=True):
                value = broadcast(builder, builder.load(builder.gep(a, [builder.add(offset, step)])), WIDE)
                product = builder.fmul(value, row, flags=flags)
                builder.store(builder.fadd(builder.load(total), product, flags=flags), total)
        for i, total in enumerate(sums):
            at = builder.add(at_c, builder.mul(down_c, long(i)))
            store(builder, builder.load(total), vector_pointer(builder, c, at, WIDE))
        return context.get_dummy_value()

    int64 = types.int64
    signature = types.void(a, int64, int64, int64, b, int64, int64, c, int64, int64, int64)
    return signature, generate


@compiled(error_model="numpy", nogil=True)
def multiply(
    a: F32, down_a: int, along_a: int, b: F32, down_b: int, c: F32, down_c: int, m: int, n: int, k: int
) -> None:
    """``c = a b`` of flat arrays, each value as a sum in the order of k.

    Args:
        a: float32, element (i, k) at ``i * down_a + k * along_a``; so a transpose needs no copy.
        down_a: Stride of the rows of a.
        along_a: Stride of the columns of a.
        b: float32, element (k, j) at ``k * down_b + j``.
        down_b: Stride of the rows of b.
        c: float32, element (i, j) at ``i * down_c + j``.
        down_c: Stride of the rows of c.
        m: Rows of the result, a multiple of `HIGH`.
        n: Columns of the result, a multiple of `WIDE`.
        k: Number of terms of each sum.
    """
    for j in range(0, n, WIDE):
        for i in range(0, m, HIGH):
            _tile(a, i * down_a, down_a, along_a, b, j, down_b, c, i * down_c + j, down_c, k)
