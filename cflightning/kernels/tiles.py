"""Products of small matrices that lie in a core's caches, in compiled steps: what numba has needs scipy."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cflightning.kernels.compiling import compiled
from cflightning.kernels.fused_dot import _load

HIGH, WIDE = 4, 16
"""Rows and columns of a tile: eight vectors of eight lanes, as many as their latency takes, and half the registers."""


@intrinsic
def _tile(
    typing: Any, a: Any, at_a: Any, down_a: Any, along_a: Any, b: Any, at_b: Any, down_b: Any, c: Any, at_c: Any,
    down_c: Any, depth: Any,
) -> Any:  # fmt: skip
    """A tile of `multiply`'s result, from flat arrays at flat offsets; its sums stay in registers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, c = (context.make_array(signature.args[at])(context, builder, arguments[at]).data for at in (0, 4, 7))
        at_a, down_a, along_a, at_b, down_b, at_c, down_c, depth = (arguments[at] for at in (1, 2, 3, 5, 6, 8, 9, 10))
        vector, lane = ir.VectorType(ir.FloatType(), WIDE), ir.IntType(32)
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * WIDE)) for _ in range(HIGH)]
        offsets = [builder.add(at_a, builder.mul(down_a, ir.Constant(ir.IntType(64), i))) for i in range(HIGH)]

        def spread(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(lane, 0))
            zeros = ir.Constant(ir.VectorType(lane, WIDE), [0] * WIDE)
            return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

        with cgutils.for_range(builder, depth) as loop:
            row = builder.gep(b, [builder.add(at_b, builder.mul(loop.index, down_b))])
            found = _load(builder, builder.bitcast(row, vector.as_pointer()))
            step = builder.mul(loop.index, along_a)
            for total, offset in zip(sums, offsets, strict=True):
                value = spread(builder.load(builder.gep(a, [builder.add(offset, step)])))
                product = builder.fmul(value, found, flags=("contract", "nsz"))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract", "nsz")), total)
        for i, total in enumerate(sums):
            at = builder.add(at_c, builder.mul(down_c, ir.Constant(ir.IntType(64), i)))
            pointer = builder.bitcast(builder.gep(c, [at]), vector.as_pointer())
            builder.store(builder.load(total), pointer).align = 4
        return context.get_dummy_value()

    whole = types.int64
    signature = types.void(a, whole, whole, whole, b, whole, whole, c, whole, whole, whole)
    return signature, generate


@compiled(error_model="numpy", nogil=True)
def multiply(
    a: Any, down_a: int, along_a: int, b: Any, down_b: int, c: Any, down_c: int, m: int, n: int, k: int
) -> None:
    """``c = a b`` of flat arrays, each value as a sum in the order of k.

    Args:
        a: float32, element (i, k) at ``i * down_a + k * along_a``; so a transpose is taken as it lies.
        down_a: from a row of a to the next.
        along_a: from a column of a to the next.
        b: float32, element (k, j) at ``k * down_b + j``.
        down_b: from a row of b to the next.
        c: float32, element (i, j) at ``i * down_c + j``.
        down_c: from a row of c to the next.
        m: rows of the result, a multiple of `HIGH`.
        n: columns of the result, a multiple of `WIDE`.
        k: what is summed over.
    """
    for j in range(0, n, WIDE):
        for i in range(0, m, HIGH):
            _tile(a, i * down_a, down_a, along_a, b, j, down_b, c, i * down_c + j, down_c, k)
