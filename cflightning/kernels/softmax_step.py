"""The compiled step of the sampled softmax: scores, gradients and updates of a block of interactions at a time."""

from __future__ import annotations

import math

import numpy as np

from cflightning.kernels import F32, I32
from cflightning.kernels.compiling import compiled
from cflightning.kernels.matmul import HIGH, WIDE, multiply
from cflightning.kernels.prng import bounded, next_state, seed_state
from cflightning.kernels.simd import FASTMATH, take_next

GRID = 8
"""Groups of users and of items, stages of an epoch, cells of a stage. (numba's cache does not track this number.)"""
BLOCK = 128
"""Interactions that share negatives, and whose gradients are computed before any of them updates."""
_LOG2E, _HALF, _LEAST = np.float32(math.log2(math.e)), np.float32(0.5), np.float32(-126)
_MASKED = np.float32(-1e4)
"""Score of masked items: its exponential is negligible."""

# Sums are computed in loops without stores. Of a loop with both, LLVM keeps a scalar version for arrays that overlap,
# and chooses it by addresses, which differ between threads, and with them the order of the sum.


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def exponentials(
    scores: F32, low: int, n: int, scale: np.float32, shift: np.float32, exponents: I32, parts: F32, powers: F32
) -> np.float32:
    """``e = 2^(scale x - shift)`` of ``scores[low:][:n]`` in place; returns their sum. Relative error below 3e-7.

    A power of two by its bits, times the polynomial of degree 5 with the smallest relative error on [-1/2, 1/2].
    `exponents` is a view of `powers` as int32: two loops without branches, which vectorise.
    """
    for j in range(n):
        z = max(scores[low + j] * scale - shift, _LEAST)
        floor = math.floor(z)
        parts[j] = z - floor - _HALF
        exponents[j] = (np.int32(floor) + np.int32(127)) << np.int32(23)
    for j in range(n):
        f = parts[j]
        p = np.float32(0.0018775767)
        p = p * f + np.float32(0.013683282)
        p = p * f + np.float32(0.07849894)
        p = p * f + np.float32(0.33972406)
        p = p * f + np.float32(0.98025787)
        p = p * f + np.float32(1.4142137)
        scores[low + j] = p * powers[j]
    total = np.float32(0)
    for j in range(n):
        total += scores[low + j]
    return total


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def _update(vector: F32, gradient: F32, low: int, accumulators: F32, at: int, rate: np.float32) -> None:
    """Update a vector of length 1 (or 0) by the gradient at ``gradient[low:][:dim]``, which is overwritten."""
    dim = vector.size
    along, square, length = np.float32(0), np.float32(0), np.float32(0)
    for k in range(dim):
        along += gradient[low + k] * vector[k]
    for k in range(dim):
        gradient[low + k] -= along * vector[k]
    for k in range(dim):
        square += gradient[low + k] * gradient[low + k]
    accumulators[at] += square / np.float32(dim)
    step = rate / (math.sqrt(accumulators[at]) + np.float32(1e-6))
    for k in range(dim):
        vector[k] -= step * gradient[low + k]
    for k in range(dim):
        length += vector[k] * vector[k]
    shrink = np.float32(1) / math.sqrt(max(length, np.float32(1e-30)))  # a zero vector without a gradient stays zero
    for k in range(dim):
        vector[k] *= shrink


@compiled(error_model="numpy", nogil=True, inline="always")
def _copy(table, index, out, low):
    for k in range(table.shape[1]):
        out[low + k] = table[index, k]


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def train_cells(taken, cells, columns, places, users, items, accumulators, sharpness, rate, seed, negatives, losses):
    """Train on cells until none is left; threads share all arrays.

    Args:
        taken: int64 [1], 0 at first.
        cells: int64 [c], numbers of the cells, which have no user and no item in common.
        columns: `SoftmaxCells`; negatives are drawn from ``columns.items`` by swaps in place.
        places: int32 [num_items], last position of an item in a draw.
        users: float32 [num_users, dim], vectors of length 1.
        items: float32 [num_items, dim], vectors of length 1.
        accumulators: float32 [num_users] and [num_items], AdaGrad's sums of squares.
        sharpness: float32, 1 / temperature.
        rate: float32, learning rate.
        seed: uint64, seed of the draws, with the number of the cell.
        negatives: Number of negatives of a block.
        losses: float64 [c], sum of the losses of each cell.
    """
    dim = users.shape[1]
    width = (dim + WIDE - 1) // WIDE * WIDE
    capacity = (negatives + WIDE - 1) // WIDE * WIDE
    p, user_gradient = np.zeros(BLOCK * width, np.float32), np.empty(BLOCK * width, np.float32)
    q, transposed = np.zeros(capacity * width, np.float32), np.empty(capacity * width, np.float32)
    item_gradient, scores = np.empty(capacity * width, np.float32), np.empty(BLOCK * capacity, np.float32)
    parts, powers = np.empty(capacity, np.float32), np.empty(capacity, np.float32)
    exponents = powers.view(np.int32)
    gradient = np.empty(width, np.float32)
    while True:
        number: int = take_next(taken)
        if number >= cells.size:
            break
        cell = cells[number]
        pool = columns.items[columns.groups[cell % GRID] : columns.groups[cell % GRID + 1]]
        drawn = min(negatives, pool.size)
        n = (drawn + WIDE - 1) // WIDE * WIDE
        state = seed_state(seed + np.uint64(cell) + np.uint64(1))
        loss = 0.0
        for low in range(columns.starts[cell], columns.starts[cell + 1], BLOCK):
            user = columns.user[low : min(low + BLOCK, columns.starts[cell + 1])]
            item = columns.item[low : low + user.size]
            m = (user.size + HIGH - 1) // HIGH * HIGH
            # 1. Draw the negatives, and gather the vectors of the block. The padding stays zero.
            for j in range(drawn):  # the first steps of Fisher-Yates
                state = next_state(state)
                other = j + bounded(state, pool.size - j)
                pool[j], pool[other] = pool[other], pool[j]
                places[pool[j]] = j
                _copy(items, pool[j], q, j * width)
            q[drawn * width : n * width] = 0
            for j in range(n):
                for k in range(dim):
                    transposed[k * n + j] = q[j * width + k]
            for b in range(user.size):
                _copy(users, user[b], p, b * width)
            p[user.size * width : m * width] = 0
            # 2. Scores, and in their place the gradient of the loss by the scores.
            multiply(p, width, 1, transposed, n, scores, n, m, n, dim)
            for b in range(user.size):
                at = b * n
                place = places[item[b]]
                if place < drawn and pool[place] == item[b]:  # an accidental hit
                    scores[at + place] = _MASKED
                scores[at + drawn : at + n] = _MASKED
                score = np.float32(0)
                for k in range(dim):
                    score += p[b * width + k] * items[item[b], k]
                # A cosine is at most 1, so this shift makes the largest term at most 1.
                scale = sharpness * _LOG2E
                total = exponentials(scores, at, n, scale, scale, exponents, parts, powers)
                loss += math.log(total) + sharpness * (np.float32(1) - score)
                share = sharpness / total
                for j in range(n):
                    scores[at + j] *= share
            scores[user.size * n : m * n] = 0
            # 3. Gradients of all vectors at their current values.
            multiply(scores, n, 1, q, width, user_gradient, width, m, width, drawn)
            multiply(scores, 1, n, p, width, item_gradient, width, n, width, user.size)
            for b in range(user.size):
                for k in range(dim):
                    user_gradient[b * width + k] -= sharpness * items[item[b], k]
            # 4. Update, one after the other: an index that occurs twice gets both changes.
            for b in range(user.size):
                for k in range(dim):
                    gradient[k] = -sharpness * p[b * width + k]
                _update(users[user[b]], user_gradient, b * width, accumulators[0], user[b], rate)
                _update(items[item[b]], gradient, 0, accumulators[1], item[b], rate)
            for j in range(drawn):
                _update(items[pool[j]], item_gradient, j * width, accumulators[1], pool[j], rate)
        losses[number] = loss
