"""`SvdppTerm.step` on the CPU: four passes over its tables instead of twenty."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from cflightning.kernels.compiling import compiled
from cflightning.kernels.fused_dot import _FAST, _load, _row, _take
from cflightning.models.svdpp import Neighbours, SvdppTerm

ROWS = 128
"""Rows that a thread takes at once, and over which sums are taken first: so threads leave no trace in them."""
_AHEAD = 8  # neighbours that are asked for before they are needed


@intrinsic(prefer_literal=True)
def _gather(typing: Any, table: Any, at: Any, out: Any, at_out: Any, rows: Any, begin: Any, end: Any, dim: Any) -> Any:
    """``out[at_out:][:dim] = sum of table[rows[begin:end]]`` of flat arrays; the sum stays in registers."""
    width = dim.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), width)
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        numbers = context.make_array(signature.args[4])(context, builder, arguments[4]).data
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * width))
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        call = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )

        def place(index: Any) -> Any:
            row = builder.sext(builder.load(builder.gep(numbers, [index])), ir.IntType(64))
            return builder.gep(data, [builder.mul(row, ir.Constant(ir.IntType(64), width))])

        with cgutils.for_range(builder, arguments[6], start=arguments[5]) as loop:
            later = builder.add(loop.index, ir.Constant(ir.IntType(64), _AHEAD))
            soon = place(builder.select(builder.icmp_signed("<", later, arguments[6]), later, loop.index))
            for k in range(0, width, 16):
                line = builder.bitcast(builder.gep(soon, [ir.Constant(ir.IntType(64), k)]), byte)
                builder.call(call, [line, *(ir.Constant(word, v) for v in (0, 3, 1))])
            found = _load(builder, builder.bitcast(place(loop.index), vector.as_pointer()))
            builder.store(builder.fadd(builder.load(total), found, flags=("contract", "nsz")), total)
        stored = builder.store(builder.load(total), _row(context, builder, signature, arguments, 2, width))
        stored.align = 4
        return context.get_dummy_value()

    return types.void(table, at, out, at_out, rows, begin, end, dim), generate


class _Passes(NamedTuple):
    pull: Callable[..., None]
    gradient: Callable[..., None]
    effect: Callable[..., None]
    move: Callable[..., None]


_compiled: dict[int, _Passes] = {}


def _passes(dim: int) -> _Passes:
    """The passes for a dim, which is a constant of them. Each takes blocks of rows until none is left."""
    if (found := _compiled.get(dim)) is not None:
        return found

    @compiled(fastmath=_FAST, error_model="numpy", nogil=True)
    def pull(taken, table, share, mean, weight, out):
        while True:
            low: Any = _take(taken) * ROWS
            if low >= table.shape[0]:
                break
            for row in range(low, min(low + ROWS, table.shape[0])):
                w, keep = weight[row], np.float32(1) - share[row]
                for k in range(dim):
                    apart = keep * (table[row, k] - mean[row, k])
                    table[row, k] = mean[row, k] + apart
                    out[row, k] = w * apart

    @compiled(fastmath=_FAST, error_model="numpy", nogil=True)
    def gradient(taken, rows, offsets, pulls, vectors, penalties, inverse, change, along, bend):
        while True:
            block: Any = _take(taken)
            low = block * ROWS
            if low >= vectors.shape[0]:
                break
            for row in range(low, min(low + ROWS, vectors.shape[0])):
                _gather(pulls, 0, change, row * dim, rows, np.int64(offsets[row]), np.int64(offsets[row + 1]), dim)
                penalty, share = penalties[row], inverse[row]
                for k in range(dim):
                    down = change[row, k] - penalty * vectors[row, k]
                    step = down * share
                    change[row, k] = step
                    along[block, k] += down * step
                    bend[block, k] += penalty * step * step

    @compiled(fastmath=_FAST, error_model="numpy", nogil=True)
    def effect(taken, rows, offsets, change, weight, precision, out, bend):
        while True:
            block: Any = _take(taken)
            low = block * ROWS
            if low >= weight.size:
                break
            for row in range(low, min(low + ROWS, weight.size)):
                _gather(change, 0, out, row * dim, rows, np.int64(offsets[row]), np.int64(offsets[row + 1]), dim)
                w, p = weight[row], precision[row]
                for k in range(dim):
                    moved = w * out[row, k]
                    out[row, k] = moved
                    bend[block, k] += p * moved * moved

    @compiled(fastmath=_FAST, error_model="numpy", nogil=True)
    def move(taken, length, change, vectors, effects, mean, table):
        own, other = table.shape[0], vectors.shape[0]
        while True:
            low: Any = _take(taken) * ROWS
            if low >= max(own, other):
                break
            for row in range(low, min(low + ROWS, own)):
                for k in range(dim):
                    moved = length[k] * effects[row, k]
                    mean[row, k] += moved
                    table[row, k] += moved
            for row in range(low, min(low + ROWS, other)):
                for k in range(dim):
                    vectors[row, k] += length[k] * change[row, k]

    return _compiled.setdefault(dim, _Passes(pull, gradient, effect, move))


class CompiledSvdppTerm(SvdppTerm):
    """A `SvdppTerm` whose step is compiled and runs on several threads; any number of them gives the same bits.

    Args:
        own: see `SvdppTerm`.
        other: see `SvdppTerm`.
        dim: see `SvdppTerm`.
        l2_exponent: see `SvdppTerm`.
        penalty: see `SvdppTerm`.
    """

    _pool: Executor | None = None
    _helpers = 0

    def __init__(self, own: Neighbours, other: Neighbours, dim: int, l2_exponent: float, penalty: float = 1.0) -> None:
        super().__init__(own, other, dim, l2_exponent, penalty)
        self._passes = _passes(dim)
        self._ends = [
            torch.cat([side.offsets, torch.tensor([len(side.rows)], dtype=torch.int32)]).numpy()
            for side in (own, other)
        ]
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
        """Run on the threads of a pool, and the own one."""
        self._pool, self._helpers = pool, helpers

    def _run(self, kernel: Callable[..., None], *arguments: Any) -> None:
        taken = np.zeros(1, np.int64)
        pool = self._pool
        others = [pool.submit(kernel, taken, *arguments) for _ in range(self._helpers)] if pool is not None else []
        kernel(taken, *arguments)
        for other in others:
            other.result()

    def step(self, table: Tensor, share: Tensor | None = None) -> None:
        """See `SvdppTerm.step`."""
        pull_weight, weight, precision, penalties, inverse = self._columns
        vectors, mean, rows = self.vectors.numpy(), self.mean.numpy(), table.numpy()
        own, other = (np.zeros((-(-len(side) // ROWS), rows.shape[1]), np.float32) for side in (rows, vectors))
        along, changes, effects = np.zeros_like(other), self._change, self._pulls
        shares = np.zeros(len(rows), np.float32) if share is None else share.numpy()
        self._run(self._passes.pull, rows, shares, mean, pull_weight, self._pulls)
        self._run(
            self._passes.gradient, self.other.rows.numpy(), self._ends[1], self._pulls, vectors, penalties, inverse,
            changes, along, other,
        )  # fmt: skip
        self._run(
            self._passes.effect, self.own.rows.numpy(), self._ends[0], changes, weight, precision, effects, own
        )  # fmt: skip
        bend = own.sum(0, dtype=np.float64) + other.sum(0, dtype=np.float64)
        length = (along.sum(0, dtype=np.float64) / np.maximum(bend, 1e-30)).astype(np.float32)
        self._run(self._passes.move, length, changes, vectors, effects, mean, rows)
