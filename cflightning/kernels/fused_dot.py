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
        for pointer, vector, opposite, keep, g in ((pointers[0], p, q, keep_u, gu), (pointers[1], q, p, keep_i, gi)):
            change = builder.fmul(g, opposite, flags=flags)
            store(builder, builder.fsub(builder.fmul(keep, vector, flags=flags), change, flags=flags), pointer)
        return context.get_dummy_value()

    signature = types.void(users, at_user, items, at_item, *[types.float32] * 4, dim)
    return signature, generate


_kernels: dict[int, Callable[..., None]] = {}


def kernel(dim: int) -> Callable[..., None]:
    """Return the compiled step for a dim, which is a compile-time constant, so that vectors stay in registers.

    numba's cache keys closures by the variables they enclose, so each dim is compiled once per machine.

    Returns:
        A function ``(user, item, target, starts, blocks, order, cells, taken, cell_biases, squared_errors, users,
        items, user_state, item_state, start_bias, gradient_factor, rate_factors, rate_biases, rate_global, eps)`` that
        processes cells until none is left and releases the GIL. It may run on any number of threads with the same
        arguments. The columns and `starts` are those of a `RatingLayout`; `blocks` is int64 [cells + 1] of
        `block_starts`; `order` int32 [blocks] of `shuffled_blocks`; `cells` int64 [m], numbers of the cells to process;
        `taken` int64 [1], 0 at first; `users` float32 [num_users, dim], `items` float32 [num_items, dim] and both state
        tables (see `adagrad`) are updated in place. The outputs are every cell's global bias in `cell_biases` (float32
        [m]) and its sum in `squared_errors` (float64 [m]). `start_bias` is the global bias before the step,
        `gradient_factor` is 2 (1 + 2 m)^2, and the rates are the learning rates of factors, biases and global bias.
    """
    if (compiled_step := _kernels.get(dim)) is not None:
        return compiled_step
    inv_dim = np.float32(1 / dim)

    @compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
    def train_cells(
        user, item, target, starts, blocks, order, cells, taken, cell_biases, squared_errors, users, items, user_state,
        item_state, start_bias, gradient_factor, rate_factors, rate_biases, rate_global, eps,
    ):  # fmt: skip
        work = np.empty((16, GROUP), np.float32)  # a lane per rating: what step 1 gathers
        dot = work[0]
        square_u = work[1]
        square_i = work[2]
        targets = work[3]
        bias_u = work[4]
        v_factors_u = work[5]
        v_bias_u = work[6]
        step_u = work[7]
        l2_u = work[8]
        bias_i = work[9]
        v_factors_i = work[10]
        v_bias_i = work[11]
        step_i = work[12]
        l2_i = work[13]
        l2_bias_u = work[14]
        l2_bias_i = work[15]
        # Step 2 overwrites nine of these rows by the changes that step 3 applies.
        bias_change_u = bias_u
        v_factors_added_u = v_factors_u
        v_bias_added = v_bias_u  # the same for user and item
        gradient_step_u = step_u
        keep_u = l2_u
        bias_change_i = bias_i
        v_factors_added_i = v_factors_i
        gradient_step_i = step_i
        keep_i = l2_i
        while True:
            number: int = take_next(taken)
            if number >= cells.size:
                break
            cell = cells[number]
            low, high = starts[cell], starts[cell + 1]
            bias, cell_error = start_bias, np.float64(0)
            for block in order[blocks[cell] : blocks[cell + 1]]:
                end = min(low + np.int64(block) * BLOCK + BLOCK, high)
                gradient, block_error = np.float32(0), np.float32(0)
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
                        dot[j], square_u[j], square_i[j] = _products(users, a * dim, items, b * dim, dim)
                        at_u, at_i = user_state[a], item_state[b]
                        bias_u[j], v_factors_u[j], v_bias_u[j] = at_u[BIAS], at_u[V_FACTORS], at_u[V_BIAS]
                        step_u[j], l2_u[j] = at_u[STEP], at_u[L2]
                        bias_i[j], v_factors_i[j], v_bias_i[j] = at_i[BIAS], at_i[V_FACTORS], at_i[V_BIAS]
                        step_i[j], l2_i[j] = at_i[STEP], at_i[L2]
                        l2_bias_u[j], l2_bias_i[j] = at_u[L2_BIAS], at_i[L2_BIAS]
                        targets[j] = target[first + j]
                    # 2. Score, error, gradient and step sizes: one SIMD lane per rating.
                    for j in range(size):
                        logit = bias + bias_u[j] + bias_i[j] + dot[j]
                        s = sigmoid(logit)
                        e = s - targets[j]
                        g = gradient_factor * e * s * (_ONE - s)
                        block_error += e * e
                        gradient += g
                        g2 = g * g
                        added_u, added_i = g2 * square_i[j] * inv_dim, g2 * square_u[j] * inv_dim
                        rate_u = rate_factors * step_u[j] / (math.sqrt(v_factors_u[j] + added_u) + eps)
                        rate_i = rate_factors * step_i[j] / (math.sqrt(v_factors_i[j] + added_i) + eps)
                        t_u = rate_biases * step_u[j] / (math.sqrt(v_bias_u[j] + g2) + eps)
                        t_i = rate_biases * step_i[j] / (math.sqrt(v_bias_i[j] + g2) + eps)
                        bias_change_u[j] = t_u * (g + l2_bias_u[j] * bias_u[j]) / (_ONE + t_u * l2_bias_u[j])
                        bias_change_i[j] = t_i * (g + l2_bias_i[j] * bias_i[j]) / (_ONE + t_i * l2_bias_i[j])
                        v_factors_added_u[j], v_factors_added_i[j], v_bias_added[j] = added_u, added_i, g2
                        keep_u[j], keep_i[j] = _ONE - rate_u * l2_u[j], _ONE - rate_i * l2_i[j]
                        gradient_step_u[j], gradient_step_i[j] = rate_u * g, rate_i * g
                    # 3. Update, one rating after the other: an index that occurs twice gets both changes.
                    for j in range(size):
                        a, b = np.int64(user[first + j]), np.int64(item[first + j])
                        _update(
                            users, a * dim, items, b * dim, keep_u[j], gradient_step_u[j], keep_i[j],
                            gradient_step_i[j], dim,
                        )  # fmt: skip
                        at_u, at_i = user_state[a], item_state[b]
                        at_u[BIAS] -= bias_change_u[j]
                        at_i[BIAS] -= bias_change_i[j]
                        at_u[V_FACTORS] += v_factors_added_u[j]
                        at_i[V_FACTORS] += v_factors_added_i[j]
                        at_u[V_BIAS] += v_bias_added[j]
                        at_i[V_BIAS] += v_bias_added[j]
                bias -= rate_global * gradient
                cell_error += block_error
            cell_biases[number], squared_errors[number] = bias, cell_error

    _kernels[dim] = train_cells
    return train_cells
