"""One vector against several, in registers: their dot products, and the gradient step that updates all of them.

The single vector is read and written once instead of once for each of the others. LLVM could not do this by itself,
since a vector that is written might be the same one.
"""

from __future__ import annotations

from collections.abc import Iterator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cflightning.kernels.simd import array_data, broadcast, horizontal_sum, load, store, vector_pointer, zero_vector

_FLAGS = ("reassoc", "contract", "nsz")


def _tiles(dim: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut a vector into parts that fit the registers: first element and number of elements of each part."""
    return ((first, min(width, dim - first)) for first in range(0, dim, width))


def _part(builder, data, offset, first, width):
    """Pointer to ``<width x float>`` at ``data[offset + first]``."""
    return vector_pointer(builder, data, builder.add(offset, ir.IntType(64)(first)), width)


@intrinsic(prefer_literal=True)
def dots(typing, users, at_user, items, at, begin, end, z, dim):
    """``z[k] += <p, q_k>`` for k from `begin` to `end`, with p from `users` and q_k from `items`.

    The vectors are at flat offsets: `at_user` int64, `at` int64 [n]; z: float32 [n]; dim: a literal.
    """

    def generate(context, builder, signature, arguments):
        users, items, at, z = (array_data(context, builder, signature, arguments, n) for n in (0, 2, 3, 6))
        for first, width in _tiles(dim.literal_value, 64):
            p = load(builder, _part(builder, users, arguments[1], first, width))
            with cgutils.for_range(builder, arguments[5], start=arguments[4]) as loop:
                offset, out = builder.load(builder.gep(at, [loop.index])), builder.gep(z, [loop.index])
                q = load(builder, _part(builder, items, offset, first, width))
                product = builder.fmul(p, q, flags=_FLAGS)
                builder.store(horizontal_sum(builder, builder.load(out), product, _FLAGS), out)
        return context.get_dummy_value()

    return types.void(users, at_user, items, at, begin, end, z, dim), generate


@intrinsic(prefer_literal=True)
def steps(typing, users, at_user, items, at, begin, end, g, keep_u, keep_i, dim):
    """``q_k = keep_i q_k + g_k p``, one after the other, then ``p = keep_u p + sum of g_k q_k`` of the previous q_k.

    The arguments are those of :func:`dots`; g: float32 [n].
    """

    def generate(context, builder, signature, arguments):
        users, items, at, g = (array_data(context, builder, signature, arguments, n) for n in (0, 2, 3, 6))
        for first, width in _tiles(dim.literal_value, 32):
            user_vector = _part(builder, users, arguments[1], first, width)
            p = load(builder, user_vector)
            keep_u, keep_i = (broadcast(builder, arguments[n], width) for n in (7, 8))
            change = zero_vector(builder, width)
            with cgutils.for_range(builder, arguments[5], start=arguments[4]) as loop:
                offset, step = (builder.load(builder.gep(data, [loop.index])) for data in (at, g))
                item_vector = _part(builder, items, offset, first, width)
                q, step = load(builder, item_vector), broadcast(builder, step, width)
                more = builder.fmul(step, q, flags=_FLAGS)
                builder.store(builder.fadd(builder.load(change), more, flags=_FLAGS), change)
                scaled, more = builder.fmul(keep_i, q, flags=_FLAGS), builder.fmul(step, p, flags=_FLAGS)
                store(builder, builder.fadd(scaled, more, flags=_FLAGS), item_vector)
            scaled = builder.fmul(keep_u, p, flags=_FLAGS)
            store(builder, builder.fadd(scaled, builder.load(change), flags=_FLAGS), user_vector)
        return context.get_dummy_value()

    single = types.float32
    return types.void(users, at_user, items, at, begin, end, g, single, single, dim), generate
