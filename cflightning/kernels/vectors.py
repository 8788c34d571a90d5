"""One row against several, in vector registers: their dot products, and the step that changes them all.

Vectors and loops are explicit: the row that stays is read and written once, not once for each of the others. LLVM
cannot see that this is allowed, since a row that is written might be that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cflightning.kernels.fused_dot import _load

_FLAGS = ("reassoc", "contract", "nsz")
_SINGLE, _LONG, _WORD = ir.FloatType(), ir.IntType(64), ir.IntType(32)


def _tiles(dim: int, width: int) -> Iterator[tuple[int, int]]:
    """Where a row is cut, so that what stays fits the registers: first element and number of elements of each part."""
    return ((first, min(width, dim - first)) for first in range(0, dim, width))


def _data(context: Any, builder: Any, signature: Any, arguments: Any, at: int) -> Any:
    """Pointer to the first element of the array ``arguments[at]``."""
    return context.make_array(signature.args[at])(context, builder, arguments[at]).data


def _part(builder: Any, data: Any, offset: Any, first: int, width: int) -> Any:
    """Pointer to ``<width x float>`` at ``data[offset + first]``."""
    pointer = builder.gep(data, [builder.add(offset, _LONG(first))])
    return builder.bitcast(pointer, ir.VectorType(_SINGLE, width).as_pointer())


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, pointer).align = 4


def _spread(builder: Any, value: Any, width: int) -> Any:
    """A vector of one value throughout."""
    vector = ir.VectorType(_SINGLE, width)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _WORD(0))
    zeros = ir.Constant(ir.VectorType(_WORD, width), [0] * width)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


@intrinsic(prefer_literal=True)
def dots(
    typing: Any, users: Any, at_user: Any, items: Any, at: Any, begin: Any, end: Any, z: Any, dim: Any
) -> Any:  # fmt: skip
    """``z[k] += <p, q_k>`` for k from `begin` to `end`; p a row of `users`, q_k one of `items`.

    The rows lie at flat offsets: `at_user` int64, `at` int64 [n]; z: float32 [n]; dim: a literal.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        users, items, at, z = (_data(context, builder, signature, arguments, n) for n in (0, 2, 3, 6))
        for first, width in _tiles(dim.literal_value, 64):
            p = _load(builder, _part(builder, users, arguments[1], first, width))
            total = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_SINGLE, [_SINGLE, p.type]), f"llvm.vector.reduce.fadd.v{width}f32"
            )
            with cgutils.for_range(builder, arguments[5], start=arguments[4]) as loop:
                offset, out = builder.load(builder.gep(at, [loop.index])), builder.gep(z, [loop.index])
                q = _load(builder, _part(builder, items, offset, first, width))
                product = builder.fmul(p, q, flags=_FLAGS)
                builder.store(builder.call(total, [builder.load(out), product], fastmath=_FLAGS), out)
        return context.get_dummy_value()

    return types.void(users, at_user, items, at, begin, end, z, dim), generate


@intrinsic(prefer_literal=True)
def steps(
    typing: Any, users: Any, at_user: Any, items: Any, at: Any, begin: Any, end: Any, g: Any, keep_u: Any, keep_i: Any,
    dim: Any,
) -> Any:  # fmt: skip
    """``q_k = keep_i q_k + g_k p``, one after the other, and then ``p = keep_u p + sum of g_k q_k`` of the q_k before.

    Arguments as of :func:`dots`; g: float32 [n].
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        users, items, at, g = (_data(context, builder, signature, arguments, n) for n in (0, 2, 3, 6))
        for first, width in _tiles(dim.literal_value, 32):
            own = _part(builder, users, arguments[1], first, width)
            p = _load(builder, own)
            keep_u, keep_i = (_spread(builder, arguments[n], width) for n in (7, 8))
            change = cgutils.alloca_once_value(builder, ir.Constant(p.type, [0.0] * width))  # becomes a register
            with cgutils.for_range(builder, arguments[5], start=arguments[4]) as loop:
                offset, step = (builder.load(builder.gep(data, [loop.index])) for data in (at, g))
                other = _part(builder, items, offset, first, width)
                q, step = _load(builder, other), _spread(builder, step, width)
                more = builder.fmul(step, q, flags=_FLAGS)
                builder.store(builder.fadd(builder.load(change), more, flags=_FLAGS), change)
                kept, more = builder.fmul(keep_i, q, flags=_FLAGS), builder.fmul(step, p, flags=_FLAGS)
                _store(builder, builder.fadd(kept, more, flags=_FLAGS), other)
            kept = builder.fmul(keep_u, p, flags=_FLAGS)
            _store(builder, builder.fadd(kept, builder.load(change), flags=_FLAGS), own)
        return context.get_dummy_value()

    single = types.float32
    return types.void(users, at_user, items, at, begin, end, g, single, single, dim), generate
