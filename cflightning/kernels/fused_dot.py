"""The fused training step of `EmbeddingDot` on the CPU: gather, dot product, error, gradient and update in one pass.

**Rule.** Row-wise AdaGrad (Duchi et al. 2011; one accumulator per vector instead of one per entry, as in LIBMF). For a
rating r of user u and item i, y = (r - low') / (high' - low') in units of the range widened by m on both sides::

    s = sigmoid(b + b_u + b_i + <p_u, q_i>)          g = 2 (1 + 2 m)^2 (s - y) s (1 - s)
    v_u += g^2 |q_i|^2 / dim                          w_u += g^2
    p_u -= lr h_u / (sqrt(v_u) + eps) (g q_i + 2 l2 c_u p_u)
    b_u -= t (g + 2 d_u b_u) / (1 + 2 t d_u)         t = 2.5 lr h_u / (sqrt(w_u) + eps)
    b   -= .01 lr sum of g, once per block

and the same with u and i swapped. c_u = (n_u / 50)^-l2_exponent is the weight of the penalty, d_u the penalty of the
bias over n_u (an implicit step, since it may be large) and h_u = (n_u / 80)^.15. The objective is that of autograd.
The gradients of `GROUP` ratings are computed before any of them updates, which vectorises the scalar arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import types
from numba.extending import intrinsic

from cflightning.kernels.adagrad import BIAS, L2, L2_BIAS, STEP, V_BIAS, V_FACTORS
from cflightning.kernels.compiling import compiled
from cflightning.kernels.rating_layout import BLOCK
from cflightning.kernels.simd import (
    FASTMATH,
    array_data,
    broadcast,
    horizontal_sum,
    load,
    prefetch,
    sigmoid,
    store,
    take_next,
    vector_pointer,
)  # fmt: skip

GROUP = 16
"""Ratings whose gradients are computed before any of them updates: one SIMD lane per rating in scalar arithmetic."""
PREFETCH = 6
"""Number of ratings between a prefetch and its use."""
_ONE = np.float32(1)


@intrinsic(prefer_literal=True)
def _products(typing, users, at_user, items, at_item, dim):
    """``(<p, q>, <p, p>, <q, q>)`` of the vectors at two flat offsets; dim: a literal."""
    width = dim.literal_value

    def generate(context, builder, signature, arguments):
        p, q = (
            load(
                builder, vector_pointer(builder, array_data(context, builder, signature, arguments, at), offset, width)
            )
            for at, offset in ((0, arguments[1]), (2, arguments[3]))
        )
        flags = ("reassoc", "contract", "nsz")
        sums = [
            horizontal_sum(builder, 0.0, builder.fmul(x, y, flags=flags), flags) for x, y in ((p, q), (p, p), (q, q))
        ]
        return context.make_tuple(builder, signature.return_type, sums)

    return types.UniTuple(types.float32, 3)(users, at_user, items, at_item, dim), generate


@intrinsic(prefer_literal=True)
def _update(typing, users, at_user, items, at_item, keep_u, gu, keep_i, gi, dim):
    """``p, q = keep_u p - gu q, keep_i q - gi p`` of the vectors at two flat offsets; dim: a literal."""
    width = dim.literal_value

    def generate(context, builder, signature, arguments):
        pointers = [
            vector_pointer(builder, array_data(context, builder, signature, arguments, at), offset, width)
            for at, offset in ((0, arguments[1]), (2, arguments[3]))
        ]
        p, q = (load(builder, pointer) for pointer in pointers)
        keep_u, gu, keep_i, gi = (broadcast(builder, value, width) for value in arguments[4:8])
        flags = ("contract", "nsz")
        for pointer, own, other, keep, g in ((pointers[0], p, q, keep_u, gu), (pointers[1], q, p, keep_i, gi)):
            change = builder.fmul(g, other, flags=flags)
            store(builder, builder.fsub(builder.fmul(keep, own, flags=flags), change, flags=flags), pointer)
        return context.get_dummy_value()

    signature = types.void(users, at_user, items, at_item, *[types.float32] * 4, dim)
    return signature, generate


_kernels: dict[int, Callable[..., None]] = {}


def kernel(dim: int) -> Callable[..., None]:
    """Return the compiled step for a dim, which is a compile-time constant, so that vectors stay in registers.

    numba's cache keys closures by the variables they enclose, so each dim is compiled once per machine.

    Returns:
        A function ``(user, item, target, starts, blocks, order, cells, taken, biases, squares, users, items,
        user_state, item_state, start_bias, c, lr, lrb, lrg, eps)`` that processes cells until none is left and releases
        the GIL. It may run on any number of threads with the same arguments. The columns and `starts` are those of a
        `RatingLayout`; `blocks` is int64 [cells + 1] of `block_starts`; `order` int32 [blocks] of `shuffled_blocks`;
        `cells` int64 [m], numbers of the cells to process; `taken` int64 [1], 0 at first; `users` float32 [num_users,
        dim], `items` float32 [num_items, dim] and both state tables (see `adagrad`) are updated in place. The outputs
        are every cell's global bias in `biases` (float32 [m]) and its sum of squared errors in `squares` (float64 [m]).
        `start_bias` is the global bias before the step. c is the factor of the gradient, and lr, lrb and lrg are the
        learning rates of factors, biases and global bias.
    """
    if (found := _kernels.get(dim)) is not None:
        return found
    inv_dim = np.float32(1 / dim)

    @compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
    def train_cells(
        user, item, target, starts, blocks, order, cells, taken, biases, squares, users, items, user_state, item_state,
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
            number: int = take_next(taken)
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
                    # 1. Gather: the loads are independent, so they overlap.
                    for j in range(size):
                        a, b = np.int64(user[first + j]), np.int64(item[first + j])
                        ahead = first + j + PREFETCH
                        if ahead < end:
                            ahead_a, ahead_b = np.int64(user[ahead]), np.int64(item[ahead])
                            for k in range(0, dim, 16):
                                prefetch(users, ahead_a * dim + k)
                                prefetch(items, ahead_b * dim + k)
                        z[j], pp[j], qq[j] = _products(users, a * dim, items, b * dim, dim)
                        su, si = user_state[a], item_state[b]
                        bu[j], vu[j], wu[j], hu[j], cu[j] = su[BIAS], su[V_FACTORS], su[V_BIAS], su[STEP], su[L2]
                        bi[j], vi[j], wi[j], hi[j], ci[j] = si[BIAS], si[V_FACTORS], si[V_BIAS], si[STEP], si[L2]
                        du[j], di[j] = su[L2_BIAS], si[L2_BIAS]
                        y[j] = target[first + j]
                    # 2. Score, error, gradient and step sizes: one SIMD lane per rating.
                    for j in range(size):
                        logit = bias + bu[j] + bi[j] + z[j]
                        s = sigmoid(logit)
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
                        # From here on the variables hold changes.
                        bu[j] = tu * (g + du[j] * bu[j]) / (_ONE + tu * du[j])
                        bi[j] = ti * (g + di[j] * bi[j]) / (_ONE + ti * di[j])
                        vu[j], vi[j], wu[j] = dvu, dvi, g2
                        cu[j], ci[j] = _ONE - fu * cu[j], _ONE - fi * ci[j]  # factors of weight decay
                        hu[j], hi[j] = fu * g, fi * g
                    # 3. Update, one rating after the other: an index that occurs twice gets both changes.
                    for j in range(size):
                        a, b = np.int64(user[first + j]), np.int64(item[first + j])
                        _update(users, a * dim, items, b * dim, cu[j], hu[j], ci[j], hi[j], dim)
                        su, si = user_state[a], item_state[b]
                        su[BIAS] -= bu[j]
                        si[BIAS] -= bi[j]
                        su[V_FACTORS] += vu[j]
                        si[V_FACTORS] += vi[j]
                        su[V_BIAS] += wu[j]
                        si[V_BIAS] += wu[j]
                bias -= lrg * total
                loss += errors
            biases[number], squares[number] = bias, loss

    _kernels[dim] = train_cells
    return train_cells
