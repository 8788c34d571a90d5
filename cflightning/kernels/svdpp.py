"""The compiled step of an SVD++ term: `models.svdpp.SvdppTerm.step` in four passes over its tables, not twenty."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from cflightning.kernels.compiling import compiled
from cflightning.kernels.simd import (
    FASTMATH,
    array_data,
    load,
    prefetch_line,
    store,
    take_next,
    vector_pointer,
    zero_vector,
)  # fmt: skip
from cflightning.models.svdpp import SvdppTerm
from cflightning.utils.csr import Csr

BLOCK_ROWS = 128
"""Rows that a thread takes at once. Sums are over blocks first, so they do not depend on the number of threads."""
PREFETCH = 8
"""Number of neighbours between a prefetch and its use."""


@intrinsic(prefer_literal=True)
def _gather(typing, table, out, at_out, indices, begin, end, dim):
    """``out[at_out:][:dim] = sum of table[indices[begin:end]]`` of flat arrays; the sum stays in registers."""
    width = dim.literal_value

    def generate(context, builder, signature, arguments):
        long, flags = ir.IntType(64), ("contract", "nsz")
        table, out, indices = (array_data(context, builder, signature, arguments, n) for n in (0, 1, 3))
        at_out, begin, end = (arguments[n] for n in (2, 4, 5))
        total = zero_vector(builder, width)

        def locate(position):
            index = builder.sext(builder.load(builder.gep(indices, [position])), long)
            return builder.mul(index, long(width))

        with cgutils.for_range(builder, end, start=begin) as loop:
            later = builder.add(loop.index, long(PREFETCH))
            ahead = locate(builder.select(builder.icmp_signed("<", later, end), later, loop.index))
            for k in range(0, width, 16):
                prefetch_line(builder, builder.gep(table, [builder.add(ahead, long(k))]), 0)
            row = load(builder, vector_pointer(builder, table, locate(loop.index), width))
            builder.store(builder.fadd(builder.load(total), row, flags=flags), total)
        store(builder, builder.load(total), vector_pointer(builder, out, at_out, width))
        return context.get_dummy_value()

    return types.void(table, out, at_out, indices, begin, end, dim), generate


class _Passes(NamedTuple):
    pull: Callable[..., None]
    gradient: Callable[..., None]
    effect: Callable[..., None]
    move: Callable[..., None]


_compiled: dict[int, _Passes] = {}


def _passes(dim: int) -> _Passes:
    """The passes for a dim, a compile-time constant. Each processes blocks of rows until none is left."""
    if (passes := _compiled.get(dim)) is not None:
        return passes

    @compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
    def pull(taken, table, share, mean, weight, out):
        while True:
            low = take_next(taken) * BLOCK_ROWS
            if low >= table.shape[0]:
                break
            for row in range(low, min(low + BLOCK_ROWS, table.shape[0])):
                w, keep = weight[row], np.float32(1) - share[row]
                for k in range(dim):
                    apart = keep * (table[row, k] - mean[row, k])
                    table[row, k] = mean[row, k] + apart
                    out[row, k] = w * apart

    @compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
    def gradient(taken, indices, offsets, pulls, vectors, penalties, inverse, change, along, bend):
        while True:
            block: int = take_next(taken)
            low = block * BLOCK_ROWS
            if low >= vectors.shape[0]:
                break
            for row in range(low, min(low + BLOCK_ROWS, vectors.shape[0])):
                _gather(pulls, change, row * dim, indices, offsets[row], offsets[row + 1], dim)
                penalty, share = penalties[row], inverse[row]
                for k in range(dim):
                    down = change[row, k] - penalty * vectors[row, k]
                    step = down * share
                    change[row, k] = step
                    along[block, k] += down * step
                    bend[block, k] += penalty * step * step

    @compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
    def effect(taken, indices, offsets, change, weight, precision, out, bend):
        while True:
            block: int = take_next(taken)
            low = block * BLOCK_ROWS
            if low >= weight.size:
                break
            for row in range(low, min(low + BLOCK_ROWS, weight.size)):
                _gather(change, out, row * dim, indices, offsets[row], offsets[row + 1], dim)
                w, p = weight[row], precision[row]
                for k in range(dim):
                    moved = w * out[row, k]
                    out[row, k] = moved
                    bend[block, k] += p * moved * moved

    @compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
    def move(taken, length, change, vectors, effects, mean, table):
        near, far = table.shape[0], vectors.shape[0]
        while True:
            low = take_next(taken) * BLOCK_ROWS
            if low >= max(near, far):
                break
            for row in range(low, min(low + BLOCK_ROWS, near)):
                for k in range(dim):
                    moved = length[k] * effects[row, k]
                    mean[row, k] += moved
                    table[row, k] += moved
            for row in range(low, min(low + BLOCK_ROWS, far)):
                for k in range(dim):
                    vectors[row, k] += length[k] * change[row, k]

    return _compiled.setdefault(dim, _Passes(pull, gradient, effect, move))


class CompiledSvdppTerm(SvdppTerm):
    """An SVD++ term whose step is compiled; the result does not depend on the number of threads, bit for bit.

    Args:
        near: See `SvdppTerm`.
        far: See `SvdppTerm`.
        dim: See `SvdppTerm`.
        l2_exponent: See `SvdppTerm`.
        penalty: See `SvdppTerm`.
    """

    _pool: Executor | None = None
    _helpers = 0

    def __init__(self, near: Csr, far: Csr, dim: int, l2_exponent: float, penalty: float = 1.0) -> None:
        super().__init__(near, far, dim, l2_exponent, penalty)
        self._passes = _passes(dim)
        self._lay_out()
        self._pulls, self._change = torch.empty_like(self.mean).numpy(), torch.empty_like(self.vectors).numpy()

    def _lay_out(self) -> None:
        columns = (
            self.weight * self.precision, self.weight, self.precision, self.penalties, 1 / self.curvature
        )  # fmt: skip
        self._columns = [column.squeeze(-1).contiguous().numpy() for column in columns]

    def scale_penalty(self, multiple: float) -> None:
        """See `SvdppTerm.scale_penalty`."""
        super().scale_penalty(multiple)
        self._lay_out()

    def use_threads(self, pool: Executor | None, helpers: int) -> None:
        """Run on the threads of a pool beside the calling one."""
        self._pool, self._helpers = pool, helpers

    def _run(self, kernel: Callable[..., None], *arguments: object) -> None:
        taken = np.zeros(1, np.int64)
        pool = self._pool
        jobs = [pool.submit(kernel, taken, *arguments) for _ in range(self._helpers)] if pool is not None else []
        kernel(taken, *arguments)
        for job in jobs:
            job.result()

    def step(self, table: Tensor, share: Tensor | None = None) -> None:
        """See `SvdppTerm.step`."""
        pull_weight, weight, precision, penalties, inverse = self._columns
        vectors, mean, values = self.vectors.numpy(), self.mean.numpy(), table.numpy()
        near_bend, far_bend = (
            np.zeros((-(-len(side) // BLOCK_ROWS), values.shape[1]), np.float32) for side in (values, vectors)
        )
        along, changes, effects = np.zeros_like(far_bend), self._change, self._pulls
        shares = np.zeros(len(values), np.float32) if share is None else share.numpy()
        self._run(self._passes.pull, values, shares, mean, pull_weight, self._pulls)
        self._run(
            self._passes.gradient, self.far.indices.numpy(), self.far.offsets.numpy(), self._pulls, vectors,
            penalties, inverse, changes, along, far_bend,
        )  # fmt: skip
        self._run(
            self._passes.effect, self.near.indices.numpy(), self.near.offsets.numpy(), changes, weight, precision,
            effects, near_bend,
        )  # fmt: skip
        bend = near_bend.sum(0, dtype=np.float64) + far_bend.sum(0, dtype=np.float64)
        length = (along.sum(0, dtype=np.float64) / np.maximum(bend, 1e-30)).astype(np.float32)
        self._run(self._passes.move, length, changes, vectors, effects, mean, values)
