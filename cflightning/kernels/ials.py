"""Implicit ALS on the CPU: Gram matrices in registers, and a Cholesky factorisation of the same tiles.

For each row of one side, with the other side and its Gram matrix fixed, one Newton step on each block of columns in
turn; see `solvers.ials` for the objective. Rows are independent, so the result does not depend on the number of
threads.
"""

from __future__ import annotations

import math

import numpy as np
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
    prefetch,
    store,
    take_next,
    vector_pointer,
    zero_vector,
)  # fmt: skip

DOWN, ACROSS = 4, 16
"""Height and width of a tile: with AVX2 eight registers of sums, as many as keep the multiplication units busy."""
GATHERED_ROWS = 96
"""Rows of the other side that are gathered at once: with 64 columns, 24 KiB, most of a first-level cache."""
PREFETCH = 8
"""Number of rows between a prefetch and its use."""


@intrinsic
def _add_tile(typing, table, at_down, at_across, width, count, sign, out, at_out):
    """``out[a, b] += sign * sum over r of table[r, at_down + a] * table[r, at_across + b]`` for a tile.

    Both arrays are flat and of the same width; `at_out` is the offset of the tile in `out`, `count` the number of rows.
    """

    def generate(context, builder, signature, arguments):
        data, target = (array_data(context, builder, signature, arguments, at) for at in (0, 6))
        at_down, at_across, width, count, sign, _, at_out = arguments[1:8]
        flags, long = ("contract", "nsz"), ir.IntType(64)
        totals = [zero_vector(builder, ACROSS) for _ in range(DOWN)]
        with cgutils.for_range(builder, count) as loop:
            row = builder.gep(data, [builder.mul(loop.index, width)])
            across = load(builder, vector_pointer(builder, row, at_across, ACROSS))
            down = builder.gep(row, [at_down])
            for k, total in enumerate(totals):
                factor = broadcast(builder, builder.load(builder.gep(down, [long(k)])), ACROSS)
                product = builder.fmul(factor, across, flags=flags)
                builder.store(builder.fadd(builder.load(total), product, flags=flags), total)
        sign = broadcast(builder, sign, ACROSS)
        for k, total in enumerate(totals):
            pointer = vector_pointer(builder, target, builder.add(at_out, builder.mul(long(k), width)), ACROSS)
            change = builder.fmul(sign, builder.load(total), flags=flags)
            store(builder, builder.fadd(load(builder, pointer), change, flags=flags), pointer)
        return context.get_dummy_value()

    signature = types.void(table, at_down, at_across, width, count, sign, out, at_out)
    return signature, generate


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def _add_gram(table: F32, count: int, width: int, out: F32) -> None:
    """Add the upper triangle of ``table[:count]^T table[:count]`` to `out`; both are flat, with `width` columns."""
    for down in range(0, width, DOWN):
        for across in range(down // ACROSS * ACROSS, width, ACROSS):
            _add_tile(table, down, across, width, count, np.float32(1), out, down * width + across)


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def _solve(a: F32, width: int, b: F32) -> None:
    """Solve ``A x = b`` in place of b, float32 [width]; the upper triangle of the flat A becomes U, A = U^T U."""
    for top in range(0, width, DOWN):
        for across in range(top // ACROSS * ACROSS, width, ACROSS):  # subtract the contribution of the rows above
            _add_tile(a, top, across, width, top, np.float32(-1), a, top * width + across)
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


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def solve_rows(
    taken: I64, order: I64, indices: I32, offsets: I64, roots: F32, near: F32, far: F32, gram: F32, penalties: F32,
    block: int,
) -> None:  # fmt: skip
    """Take a Newton step on each block of columns of the rows of one side; process rows until none is left.

    Args:
        taken: int64 [1], 0 at first.
        order: int64 [m], rows of `near` to solve; those with most pairs first.
        indices: int32 [n], rows of `far` of each row's pairs, row by row.
        offsets: int64 [rows of near + 1], first pair of each row.
        roots: float32 [n], square root of each pair's confidence; or [0] if all confidences are 1.
        near: float32 [rows, width], updated.
        far: float32 [rows, width].
        gram: float32 [width, width], ``weight * far^T far``.
        penalties: float32 [rows of near].
        block: Number of columns per step; a divisor of `width` and a multiple of 16.
    """
    width = near.shape[1]
    max_pairs = 0
    for a in order:
        max_pairs = max(max_pairs, offsets[a + 1] - offsets[a])
    error = np.empty(max_pairs, np.float32)
    gathered = np.empty(GATHERED_ROWS * block, np.float32)
    matrix = np.empty(block * block, np.float32)
    step = np.empty(block, np.float32)
    while True:
        number: int = take_next(taken)
        if number >= len(order):
            break
        a = order[number]
        begin, count = offsets[a], offsets[a + 1] - offsets[a]
        p = near[a]
        single = block == width  # a single block reaches the minimum from any start
        if single:
            p[:] = 0
            error[:count] = -1
        else:
            for j in range(count):
                q = far[indices[begin + j]]
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
                if not single:
                    total = penalties[a] * p[left + k]
                    for m in range(width):
                        total += line[m] * p[m]
                step[k] = total
            for first in range(0, count, GATHERED_ROWS):
                size = min(GATHERED_ROWS, count - first)
                for j in range(size):
                    ahead = np.int64(indices[begin + first + min(j + PREFETCH, size - 1)]) * width + left
                    for k in range(0, block, 16):
                        prefetch(far, ahead + k)
                    q = far[indices[begin + first + j]]
                    root = roots[begin + first + j] if len(roots) else np.float32(1)
                    e = root * error[first + j]
                    for k in range(block):
                        value = root * q[left + k]
                        gathered[j * block + k] = value
                        step[k] += e * value
                _add_gram(gathered, size, block, matrix)
            _solve(matrix, block, step)
            for k in range(block):
                p[left + k] -= step[k]
            if left + block < width:
                for j in range(count):
                    q = far[indices[begin + j]]
                    total = np.float32(0)
                    for k in range(block):
                        total += step[k] * q[left + k]
                    error[j] -= total
