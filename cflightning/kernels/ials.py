"""Implicit ALS on the CPU: Gram matrices in registers, a Cholesky factorisation of the same tiles, no library.

For each row of one side, the other side and its Gram matrix given, one Newton step on each block of columns in turn;
see `solvers.ials` for what is minimised. Rows are independent: threads take some each and leave no trace in the result.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cflightning.kernels.compiling import compiled
from cflightning.kernels.fused_dot import _FAST, _load, _prefetch, _take

DOWN, ACROSS = 4, 16
"""A tile: with AVX2 eight registers of sums, as many as multiplications must be under way to keep the units busy."""
ROWS = 96
"""Rows of the other side that are gathered at once: with 64 columns, 24 KiB, most of a first-level cache."""
_AHEAD = 8  # rows that are asked for before they are needed


@intrinsic
def _tile(
    typing: Any, table: Any, at_down: Any, at_across: Any, width: Any, count: Any, sign: Any, out: Any, at_out: Any
) -> Any:
    """``out[a, b] += sign * sum over r of table[r, at_down + a] * table[r, at_across + b]`` for a tile.

    Both are flat and of the same width; `at_out` is the offset of the tile's first number, `count` that of rows.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, long = ir.VectorType(ir.FloatType(), ACROSS), ir.IntType(64)
        data, target = (context.make_array(signature.args[k])(context, builder, arguments[k]).data for k in (0, 6))
        flags = ("contract", "nsz")

        def spread(value: Any) -> Any:
            undefined = ir.Constant(vector, ir.Undefined)
            one = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), ACROSS), [0] * ACROSS)
            return builder.shuffle_vector(one, undefined, zeros)

        totals = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * ACROSS)) for _ in range(DOWN)]
        with cgutils.for_range(builder, arguments[4]) as loop:
            row = builder.gep(data, [builder.mul(loop.index, arguments[3])])
            across = _load(builder, builder.bitcast(builder.gep(row, [arguments[2]]), vector.as_pointer()))
            down = builder.gep(row, [arguments[1]])
            for k, total in enumerate(totals):
                factor = spread(builder.load(builder.gep(down, [ir.Constant(long, k)])))
                product = builder.fmul(factor, across, flags=flags)
                builder.store(builder.fadd(builder.load(total), product, flags=flags), total)
        sign = spread(arguments[5])
        for k, total in enumerate(totals):
            offset = builder.add(arguments[7], builder.mul(ir.Constant(long, k), arguments[3]))
            place = builder.bitcast(builder.gep(target, [offset]), vector.as_pointer())
            change = builder.fmul(sign, builder.load(total), flags=flags)
            stored = builder.store(builder.fadd(_load(builder, place), change, flags=flags), place)
            stored.align = 4
        return context.get_dummy_value()

    signature = types.void(table, at_down, at_across, width, count, sign, out, at_out)
    return signature, generate


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def _add_gram(table, count, width, out):
    """Add the upper triangle of ``table[:count]^T table[:count]`` to `out`, both flat and of `width` columns."""
    for down in range(0, width, DOWN):
        for across in range(down // ACROSS * ACROSS, width, ACROSS):
            _tile(table, down, across, width, count, np.float32(1), out, down * width + across)


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def _solve(a, width, b):
    """Solve ``A x = b`` in place of b, float32 [width]; A is flat, its upper triangle is replaced by U, A = U^T U."""
    for top in range(0, width, DOWN):
        for across in range(top // ACROSS * ACROSS, width, ACROSS):  # what the rows above take from these
            _tile(a, top, across, width, top, np.float32(-1), a, top * width + across)
        for k in range(top, top + DOWN):
            row = a[k * width : (k + 1) * width]
            for above in range(top, k):
                factor = a[above * width + k]
                for m in range(k, width):
                    row[m] -= factor * a[above * width + m]
            inverse = np.float32(1) / math.sqrt(row[k])
            for m in range(k, width):
                row[m] *= inverse
    for k in range(width):
        row = a[k * width : (k + 1) * width]
        b[k] /= row[k]
        for m in range(k + 1, width):
            b[m] -= b[k] * row[m]
    for k in range(width - 1, -1, -1):
        row = a[k * width : (k + 1) * width]
        total = np.float32(0)
        for m in range(k + 1, width):
            total += row[m] * b[m]
        b[k] = (b[k] - total) / row[k]


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def solve_rows(taken, order, rows, offsets, roots, own, other, gram, penalties, block):
    """Move rows of one side to their minimum in each block of columns; takes rows until none is left.

    Args:
        taken: int64 [1], 0 at first.
        order: int64 [m], rows of `own` to do; those with most pairs first.
        rows: int32 [n], rows of `other` that each row meets, one row after the other.
        offsets: int64 [rows of own + 1].
        roots: float32 [n], root of each pair's confidence; or [0], for 1 throughout.
        own: float32 [rows, width], updated.
        other: float32 [rows, width].
        gram: float32 [width, width], ``weight * other^T other``.
        penalties: float32 [rows of own].
        block: columns at a time; a divisor of `width`, and a multiple of 16.
    """
    width = own.shape[1]
    most = 0
    for a in order:
        most = max(most, offsets[a + 1] - offsets[a])
    error = np.empty(most, np.float32)
    near = np.empty(ROWS * block, np.float32)
    matrix = np.empty(block * block, np.float32)
    step = np.empty(block, np.float32)
    while True:
        number: Any = _take(taken)
        if number >= len(order):
            break
        a = order[number]
        begin, count = offsets[a], offsets[a + 1] - offsets[a]
        p = own[a]
        whole = block == width  # then it ends at the minimum wherever it starts
        if whole:
            p[:] = 0
            error[:count] = -1
        else:
            for j in range(count):
                q = other[rows[begin + j]]
                total = np.float32(-1)
                for k in range(width):
                    total += p[k] * q[k]
                error[j] = total
        for left in range(0, width, block):
            for k in range(block):
                line = gram[left + k]
                for m in range(k // ACROSS * ACROSS, block):
                    matrix[k * block + m] = line[left + m]
                matrix[k * block + k] += penalties[a]
                total = np.float32(0)
                if not whole:
                    total = penalties[a] * p[left + k]
                    for m in range(width):
                        total += line[m] * p[m]
                step[k] = total
            for first in range(0, count, ROWS):
                size = min(ROWS, count - first)
                for j in range(size):
                    ahead = np.int64(rows[begin + first + min(j + _AHEAD, size - 1)]) * width + left
                    for k in range(0, block, 16):
                        _prefetch(other, ahead + k)
                    q = other[rows[begin + first + j]]
                    root = roots[begin + first + j] if len(roots) else np.float32(1)
                    e = root * error[first + j]
                    for k in range(block):
                        value = root * q[left + k]
                        near[j * block + k] = value
                        step[k] += e * value
                _add_gram(near, size, block, matrix)
            _solve(matrix, block, step)
            for k in range(block):
                p[left + k] -= step[k]
            if left + block < width:
                for j in range(count):
                    q = other[rows[begin + j]]
                    total = np.float32(0)
                    for k in range(block):
                        total += step[k] * q[left + k]
                    error[j] -= total
