"""The product of a sparse and a dense matrix on the CPU, by strips of columns that stay in cache."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cflightning.kernels import F32, I32, I64
from cflightning.kernels.compiling import compiled
from cflightning.kernels.simd import (
    FASTMATH,
    array_data,
    broadcast,
    load,
    prefetch_line,
    store,
    take_next,
    vector_pointer,
    zero_vector,
)  # fmt: skip

STRIP = 64
"""Columns of a strip: eight registers of eight numbers hold the sum of a row."""
BLOCK_ROWS = 256
"""Rows that a thread takes at once."""
PREFETCH = 8
"""Number of rows between a prefetch and its use."""


@intrinsic
def _weighted_sum(typing, table, at, width, indices, values, weight, begin, end, out, at_out):
    """``out[at_out:][:STRIP] = sum of values[n] * weight[i] * table[at + i * width:][:STRIP]``, i = indices[n]."""

    def generate(context, builder, signature, arguments):
        long, flags = ir.IntType(64), ("contract",)
        table, indices, values, weights, out = (
            array_data(context, builder, signature, arguments, n) for n in (0, 3, 4, 5, 8)
        )
        at, width, begin, end, at_out = (arguments[n] for n in (1, 2, 6, 7, 9))
        total = zero_vector(builder, STRIP)

        def locate(position):
            index = builder.sext(builder.load(builder.gep(indices, [position])), long)
            return index, builder.gep(table, [builder.add(at, builder.mul(index, width))])

        with cgutils.for_range(builder, end, start=begin) as loop:
            later = builder.add(loop.index, long(PREFETCH))
            _, ahead = locate(builder.select(builder.icmp_signed("<", later, end), later, loop.index))
            for k in range(0, STRIP, 16):
                prefetch_line(builder, builder.gep(ahead, [long(k)]), 0)
            index, here = locate(loop.index)
            value = builder.load(builder.gep(values, [loop.index]))
            factor = builder.fmul(value, builder.load(builder.gep(weights, [index])), flags=flags)
            factor = broadcast(builder, factor, STRIP)
            product = builder.fmul(factor, load(builder, vector_pointer(builder, here, long(0), STRIP)), flags=flags)
            builder.store(builder.fadd(builder.load(total), product, flags=flags), total)
        store(builder, builder.load(total), vector_pointer(builder, out, at_out, STRIP))
        return context.get_dummy_value()

    return types.void(table, at, width, indices, values, weight, begin, end, out, at_out), generate


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def weighted_sums(
    taken: I64, indices: I32, offsets: I64, values: F32, out_scale: F32, table_scale: F32, table: F32, out: F32
) -> None:
    """``out[a] = out_scale[a] * sum of values[n] * table_scale[b] * table[b]``, n from offsets[a] to offsets[a + 1].

    b is ``indices[n]``.

    Processes strips of columns of blocks of rows until none is left. It may run on any number of threads with the same
    arguments; the result does not depend on it, bit for bit.

    Args:
        taken: int64 [1], 0 at first.
        indices: int32 [n], rows of `table`.
        offsets: int64 [rows of out + 1].
        values: float32 [n].
        out_scale: float32 [rows of out].
        table_scale: float32 [rows of table].
        table: float32 [rows, width].
        out: float32 [rows, width], overwritten.
    """
    count, width = out.shape
    blocks = (count + BLOCK_ROWS - 1) // BLOCK_ROWS
    strips = (width + STRIP - 1) // STRIP
    while True:
        number: int = take_next(taken)
        if number >= blocks * strips:
            break
        left = number // blocks * STRIP
        low = number % blocks * BLOCK_ROWS
        for a in range(low, min(low + BLOCK_ROWS, count)):
            begin, end = offsets[a], offsets[a + 1]
            if left + STRIP <= width:
                _weighted_sum(table, left, width, indices, values, table_scale, begin, end, out, a * width + left)
                for k in range(STRIP):
                    out[a, left + k] *= out_scale[a]
            else:
                for k in range(left, width):
                    out[a, k] = 0
                for at in range(begin, end):
                    b = indices[at]
                    factor = values[at] * table_scale[b]
                    for k in range(left, width):
                        out[a, k] += factor * table[b, k]
                for k in range(left, width):
                    out[a, k] *= out_scale[a]
