"""The fused training step of `EmbeddingDot` on the CPU: gather, dot, range, error, gradient and update in one pass.

**Rule.** Row-wise Adagrad (Duchi et al. 2011; one accumulator a row instead of one an entry, as in LIBMF), for a
rating r of user u and item i, in units of the range widened by m on both sides, y = (r - low') / (high' - low')::

    s = sigmoid(b + b_u + b_i + <p_u, q_i>)          g = 2 (1 + 2 m)^2 (s - y) s (1 - s)
    v_u += g^2 |q_i|^2 / dim                          w_u += g^2
    p_u -= lr h_u / (sqrt(v_u) + eps) (g q_i + 2 l2 c_u p_u)
    b_u -= t (g + 2 d_u b_u) / (1 + 2 t d_u)         t = 2.5 lr h_u / (sqrt(w_u) + eps)
    b   -= .01 lr sum of g, once a block

and the same with u and i swapped; c_u = (n_u / 50)^-l2_exponent is the penalty's weight, d_u the bias's
penalty over n_u (an implicit step, since it may be large) and h_u = (n_u / 80)^.15. It minimises what the autograd path
minimises. Gradients of `GROUP` ratings are taken before any of them updates, which
makes the scalar arithmetic a vector's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cflightning.kernels.adagrad import BIAS, L2, L2_BIAS, STEP, V_BIAS, V_FACTORS
from cflightning.kernels.compiling import compiled
from cflightning.kernels.layout import BLOCK

GROUP = 16
"""Ratings whose gradients are taken before any of them updates: one vector of lanes for the scalar arithmetic."""

# Sums may be reordered and contracted; NaN and infinity are not looked for.
_FAST = {"reassoc", "contract", "nsz", "arcp", "nnan", "ninf"}
_ONE, _HALF = np.float32(1), np.float32(0.5)


@intrinsic
def _prefetch(typing: Any, array: Any, offset: Any) -> Any:
    """Ask for the cache line of a flat element offset, to be written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.gep(
            context.make_array(signature.args[0])(context, builder, arguments[0]).data, [arguments[1]]
        )
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        call = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        builder.call(call, [builder.bitcast(pointer, byte), *(ir.Constant(word, v) for v in (1, 3, 1))])

    return types.void(array, offset), generate


@intrinsic
def _take(typing: Any, counter: Any) -> Any:
    """The number in ``counter[0]``, which goes up by one for whoever asks next: int64 [1] -> int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate


def _row(context: Any, builder: Any, signature: Any, arguments: Any, at: int, width: int) -> Any:
    """Pointer to ``<width x float>`` at the flat offset ``arguments[at + 1]`` of the array ``arguments[at]``."""
    data = context.make_array(signature.args[at])(context, builder, arguments[at]).data
    return builder.bitcast(builder.gep(data, [arguments[at + 1]]), ir.VectorType(ir.FloatType(), width).as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    loaded = builder.load(pointer)
    loaded.align = 4  # tables of any dim and any caller; aligned rows are as fast as with a promise
    return loaded


@intrinsic(prefer_literal=True)
def _products(typing: Any, users: Any, at_user: Any, items: Any, at_item: Any, dim: Any) -> Any:
    """``(<p, q>, <p, p>, <q, q>)`` of the rows at two flat offsets; dim: a literal.

    Explicit vectors: LLVM's loop vectoriser leaves short loops (dim 16 and below) scalar.
    """
    width = dim.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        p = _load(builder, _row(context, builder, signature, arguments, 0, width))
        q = _load(builder, _row(context, builder, signature, arguments, 2, width))
        single = ir.FloatType()
        total = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(single, [single, p.type]), f"llvm.vector.reduce.fadd.v{width}f32"
        )
        flags = ("reassoc", "contract", "nsz")
        sums = [
            builder.call(total, [ir.Constant(single, 0.0), builder.fmul(x, y, flags=flags)], fastmath=flags)
            for x, y in ((p, q), (p, p), (q, q))
        ]
        return context.make_tuple(builder, signature.return_type, sums)

    return types.UniTuple(types.float32, 3)(users, at_user, items, at_item, dim), generate


@intrinsic(prefer_literal=True)
def _update(
    typing: Any,
    users: Any,
    at_user: Any,
    items: Any,
    at_item: Any,
    keep_u: Any,
    gu: Any,
    keep_i: Any,
    gi: Any,
    dim: Any,
) -> Any:
    """``p, q = keep_u p - gu q, keep_i q - gi p`` of the rows at two flat offsets."""
    width = dim.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), width)

        def spread(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
            return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

        rows = [_row(context, builder, signature, arguments, at, width) for at in (0, 2)]
        p, q = (_load(builder, row) for row in rows)
        keep_u, gu, keep_i, gi = (spread(v) for v in arguments[4:8])
        flags = ("contract", "nsz")
        for row, own, other, keep, g in ((rows[0], p, q, keep_u, gu), (rows[1], q, p, keep_i, gi)):
            change = builder.fmul(g, other, flags=flags)
            stored = builder.store(builder.fsub(builder.fmul(keep, own, flags=flags), change, flags=flags), row)
            stored.align = 4
        return context.get_dummy_value()

    signature = types.void(users, at_user, items, at_item, *[types.float32] * 4, dim)
    return signature, generate


@compiled(fastmath=_FAST, error_model="numpy", inline="always", cache=False)
def _sigmoid(z: Any) -> Any:
    """Logistic function by the rational approximation of tanh that Eigen uses; within 3e-7, no table, no branch."""
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


_kernels: dict[int, Callable[..., Any]] = {}
_PREFETCH = 6  # ratings ahead


def kernel(dim: int) -> Callable[..., Any]:
    """The step for a dim, which is a constant of it, so that rows are vectors in registers.

    Numba's cache keys closures by what they enclose, so each dim is compiled once per machine.

    Returns:
        A function ``(user, item, target, starts, blocks, order, cells, taken, biases, squares, users, items, user_side,
        item_side, bias, c, lr, lrb, lrg, eps)`` that takes cells until none is left; run it on as many threads
        as you like with the same arguments. `order` is int32 [blocks] of the whole epoch, `cells` int64 [cells] the
        numbers of those to be done, `taken` int64 [1], 0 at first; into `biases` (float32 [cells]) and `squares`
        (float64 [cells]) go every cell's global bias and sum of squared errors. It lets go of Python's lock.
    """
    if (found := _kernels.get(dim)) is not None:
        return found
    inv_dim = np.float32(1 / dim)

    @compiled(fastmath=_FAST, error_model="numpy", nogil=True)
    def take_cells(
        user, item, target, starts, blocks, order, cells, taken, biases, squares, users, items, user_side, item_side,
        start_bias, c, lr, lrb, lrg, eps,
    ):  # fmt: skip
        work = np.empty((16, GROUP), np.float32)
        z = work[0]
        pp = work[1]
        qq = work[2]
        y = work[3]
        bu = work[4]
        vu = work[5]
        wu = work[6]
        hu = work[7]
        cu = work[8]
        bi = work[9]
        vi = work[10]
        wi = work[11]
        hi = work[12]
        ci = work[13]
        du = work[14]
        di = work[15]
        while True:
            number: Any = _take(taken)
            if number >= cells.size:
                break
            cell = cells[number]
            low, high = starts[cell], starts[cell + 1]
            bias, loss = start_bias, np.float64(0)
            for block in order[blocks[cell] : blocks[cell + 1]]:
                end = min(low + np.int64(block) * BLOCK + BLOCK, high)
                total, errors = np.float32(0), np.float32(0)
                for first in range(low + np.int64(block) * BLOCK, end, GROUP):
                    size = min(end - first, GROUP)
                    # 1. Gather: independent of each other, so that loads overlap.
                    for j in range(size):
                        a, b = np.int64(user[first + j]), np.int64(item[first + j])
                        ahead = first + j + _PREFETCH
                        if ahead < end:
                            ahead_a, ahead_b = np.int64(user[ahead]), np.int64(item[ahead])
                            for k in range(0, dim, 16):
                                _prefetch(users, ahead_a * dim + k)
                                _prefetch(items, ahead_b * dim + k)
                        z[j], pp[j], qq[j] = _products(users, a * dim, items, b * dim, dim)
                        su, si = user_side[a], item_side[b]
                        bu[j], vu[j], wu[j], hu[j], cu[j] = su[BIAS], su[V_FACTORS], su[V_BIAS], su[STEP], su[L2]
                        bi[j], vi[j], wi[j], hi[j], ci[j] = si[BIAS], si[V_FACTORS], si[V_BIAS], si[STEP], si[L2]
                        du[j], di[j] = su[L2_BIAS], si[L2_BIAS]
                        y[j] = target[first + j]
                    # 2. Link, error, gradient and steps: a vector lane per rating.
                    for j in range(size):
                        logit = bias + bu[j] + bi[j] + z[j]
                        s = _sigmoid(logit)
                        e = s - y[j]
                        g = c * e * s * (_ONE - s)
                        errors += e * e
                        total += g
                        g2 = g * g
                        dvu, dvi = g2 * qq[j] * inv_dim, g2 * pp[j] * inv_dim
                        fu = lr * hu[j] / (math.sqrt(vu[j] + dvu) + eps)
                        fi = lr * hi[j] / (math.sqrt(vi[j] + dvi) + eps)
                        tu = lrb * hu[j] / (math.sqrt(wu[j] + g2) + eps)
                        ti = lrb * hi[j] / (math.sqrt(wi[j] + g2) + eps)
                        bu[j] = tu * (g + du[j] * bu[j]) / (_ONE + tu * du[j])  # from here on: changes
                        bi[j] = ti * (g + di[j] * bi[j]) / (_ONE + ti * di[j])
                        vu[j], vi[j], wu[j] = dvu, dvi, g2
                        cu[j], ci[j] = _ONE - fu * cu[j], _ONE - fi * ci[j]  # kept shares
                        hu[j], hi[j] = fu * g, fi * g
                    # 3. Update, one rating after the other: a row that comes twice gets both changes.
                    for j in range(size):
                        a, b = np.int64(user[first + j]), np.int64(item[first + j])
                        _update(users, a * dim, items, b * dim, cu[j], hu[j], ci[j], hi[j], dim)
                        su, si = user_side[a], item_side[b]
                        su[BIAS] -= bu[j]
                        si[BIAS] -= bi[j]
                        su[V_FACTORS] += vu[j]
                        si[V_FACTORS] += vi[j]
                        su[V_BIAS] += wu[j]
                        si[V_BIAS] += wu[j]
                bias -= lrg * total
                loss += errors
            biases[number], squares[number] = bias, loss

    _kernels[dim] = take_cells
    return take_cells
