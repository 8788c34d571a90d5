"""The product of a sparse and a dense matrix on the CPU, by strips of columns, which stay in cache."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cflightning.kernels.compiling import compiled
from cflightning.kernels.fused_dot import _FAST, _load, _row, _take

STRIP = 64
"""Columns of a strip: eight registers of eight numbers, the sum of a row."""
ROWS = 256
"""Rows that a thread takes at once."""
_AHEAD = 8  # rows that are asked for before they are needed


@intrinsic
def _add_up(
    typing: Any, table: Any, at: Any, width: Any, rows: Any, weight: Any, begin: Any, end: Any, out: Any, at_out: Any
) -> Any:
    """``out[at_out:][:STRIP] = sum of weight[r] * table[at + r * width:][:STRIP] for r in rows[begin:end]``, flat."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, word = ir.VectorType(ir.FloatType(), STRIP), ir.IntType(32)
        data, numbers, weights = (
            context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 3, 4)
        )
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * STRIP))
        byte = ir.IntType(8).as_pointer()
        call = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )

        def place(index: Any) -> tuple[Any, Any]:
            row = builder.sext(builder.load(builder.gep(numbers, [index])), ir.IntType(64))
            return row, builder.gep(data, [builder.add(arguments[1], builder.mul(row, arguments[2]))])

        with cgutils.for_range(builder, arguments[6], start=arguments[5]) as loop:
            later = builder.add(loop.index, ir.Constant(ir.IntType(64), _AHEAD))
            _, soon = place(builder.select(builder.icmp_signed("<", later, arguments[6]), later, loop.index))
            for k in range(0, STRIP, 16):
                line = builder.bitcast(builder.gep(soon, [ir.Constant(ir.IntType(64), k)]), byte)
                builder.call(call, [line, *(ir.Constant(word, v) for v in (0, 3, 1))])
            row, here = place(loop.index)
            one = builder.insert_element(
                ir.Constant(vector, ir.Undefined), builder.load(builder.gep(weights, [row])), ir.Constant(word, 0)
            )
            zeros = ir.Constant(ir.VectorType(word, STRIP), [0] * STRIP)
            factor = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)
            found = builder.fmul(
                factor, _load(builder, builder.bitcast(here, vector.as_pointer())), flags=("contract",)
            )
            builder.store(builder.fadd(builder.load(total), found, flags=("contract",)), total)
        stored = builder.store(builder.load(total), _row(context, builder, signature, arguments, 7, STRIP))
        stored.align = 4
        return context.get_dummy_value()

    return types.void(table, at, width, rows, weight, begin, end, out, at_out), generate


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def weighted_sums(taken: Any, rows: Any, offsets: Any, own: Any, other: Any, table: Any, out: Any) -> None:
    """``out[a] = own[a] * sum of other[b] * table[b] over the b = rows[offsets[a] : offsets[a + 1]]``.

    Takes strips of columns of blocks of rows until none is left; run it on as many threads as you like with the same
    arguments, any number of which gives the same bits.

    Args:
        taken: int64 [1], 0 at first.
        rows: int32 [n], rows of `table`.
        offsets: int64 [rows of out + 1].
        own: float32 [rows of out].
        other: float32 [rows of table].
        table: float32 [rows, width].
        out: float32 [rows, width], overwritten.
    """
    count, width = out.shape
    blocks = (count + ROWS - 1) // ROWS
    strips = (width + STRIP - 1) // STRIP
    while True:
        number: Any = _take(taken)
        if number >= blocks * strips:
            break
        left = number // blocks * STRIP
        low = number % blocks * ROWS
        for a in range(low, min(low + ROWS, count)):
            begin, end = offsets[a], offsets[a + 1]
            if left + STRIP <= width:
                _add_up(table, left, width, rows, other, begin, end, out, a * width + left)
                for k in range(STRIP):
                    out[a, left + k] *= own[a]
            else:
                for k in range(left, width):
                    out[a, k] = 0
                for at in range(begin, end):
                    b = rows[at]
                    for k in range(left, width):
                        out[a, k] += other[b] * table[b, k]
                for k in range(left, width):
                    out[a, k] *= own[a]
