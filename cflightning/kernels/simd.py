"""Building blocks of the compiled kernels: SIMD vectors, prefetch, an atomic counter and the sigmoid.

Functions that compiled code calls are numba intrinsics. The others emit LLVM code and are called by the intrinsics of
the kernels; their `builder` is llvmlite's. Vectors are explicit because LLVM's loop vectoriser leaves short loops (dim
16 and below) scalar, and cannot know that the arrays of a kernel do not overlap.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cflightning.kernels.compiling import compiled

FASTMATH = {"reassoc", "contract", "nsz", "arcp", "nnan", "ninf"}
"""LLVM's fast-math flags of the kernels: sums may be reordered and contracted; NaN and infinity need not be handled."""
_BYTE, _SINGLE, _WORD, _LONG = ir.IntType(8), ir.FloatType(), ir.IntType(32), ir.IntType(64)


def array_data(context, builder, signature, arguments, position):
    """Return the pointer to the first element of the array argument at a position of an intrinsic."""
    return context.make_array(signature.args[position])(context, builder, arguments[position]).data


def vector_pointer(builder, data, offset, width):
    """Return the pointer to ``<width x float>`` at a flat offset of an array."""
    return builder.bitcast(builder.gep(data, [offset]), ir.VectorType(_SINGLE, width).as_pointer())


def load(builder, pointer):
    """Load a vector whose address is a multiple of 4: tables have any dim. Aligned addresses are not slower."""
    loaded = builder.load(pointer)
    loaded.align = 4
    return loaded


def store(builder, value, pointer):
    """Store a vector at an address that is a multiple of 4."""
    builder.store(value, pointer).align = 4


def broadcast(builder, value, width):
    """Return a vector whose elements all are one number."""
    vector = ir.VectorType(_SINGLE, width)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _WORD(0))
    zeros = ir.Constant(ir.VectorType(_WORD, width), [0] * width)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def zero_vector(builder, width):
    """Allocate a vector of zeros, which becomes a register."""
    return cgutils.alloca_once_value(builder, ir.Constant(ir.VectorType(_SINGLE, width), [0.0] * width))


def horizontal_sum(builder, start, vector, flags):
    """Return ``start + sum of the elements of a vector``; `start` may be a Python number."""
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(_SINGLE, [_SINGLE, vector.type]),
        f"llvm.vector.reduce.fadd.v{vector.type.count}f32",
    )
    start = _SINGLE(start) if isinstance(start, float) else start
    return builder.call(function, [start, vector], fastmath=flags)


def prefetch_line(builder, pointer, write):
    """Prefetch the cache line of an address, for reading (0) or writing (1)."""
    line = _BYTE.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [line, _WORD, _WORD, _WORD])
    function = builder.module.declare_intrinsic("llvm.prefetch", [line], kind)
    builder.call(function, [builder.bitcast(pointer, line), *(ir.Constant(_WORD, v) for v in (write, 3, 1))])


@intrinsic
def prefetch(typing, array, offset):
    """Prefetch the cache line at a flat offset of an array, for writing."""

    def generate(context, builder, signature, arguments):
        prefetch_line(builder, builder.gep(array_data(context, builder, signature, arguments, 0), [arguments[1]]), 1)

    return types.void(array, offset), generate


@intrinsic
def take_next(typing, counter):
    """Return ``counter[0]`` and increment it, atomically: int64 [1] -> int64. Threads share work by it."""

    def generate(context, builder, signature, arguments):
        pointer = array_data(context, builder, signature, arguments, 0)
        return builder.atomic_rmw("add", pointer, ir.Constant(_LONG, 1), "monotonic")

    return types.int64(counter), generate


_HALF = np.float32(0.5)


@compiled(fastmath=FASTMATH, error_model="numpy", inline="always", cache=False)
def sigmoid(z):
    """Logistic function, float32, by Eigen's rational approximation of tanh: within 3e-7, without table or branch."""
    x = min(max(_HALF * z, np.float32(-7.9)), np.float32(7.9))
    t = x * x
    p = np.float32(-2.76076847742355e-16)
    p = p * t + np.float32(2.00018790482477e-13)
    p = p * t + np.float32(-8.60467152213735e-11)
    p = p * t + np.float32(5.12229709037114e-08)
    p = p * t + np.float32(1.48572235717979e-05)
    p = p * t + np.float32(6.37261928875436e-04)
    p = p * t + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06)
    q = q * t + np.float32(1.18534705686654e-04)
    q = q * t + np.float32(2.26843463243900e-03)
    q = q * t + np.float32(4.89352518554385e-03)
    return _HALF + _HALF * (x * p / q)
