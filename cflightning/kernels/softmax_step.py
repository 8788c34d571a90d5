"""What the sampled softmax does with cells: scores, weights, gradients and updates of a block of choices at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cflightning.kernels.compiling import compiled
from cflightning.kernels.dealing import GRID
from cflightning.kernels.fused_dot import _FAST, _take
from cflightning.kernels.layout import _below, _mix, _xorshift
from cflightning.kernels.tiles import HIGH, WIDE, multiply

BLOCK = 128
"""Choices that share negatives, and whose gradients are taken before any of them updates."""
_LOG2E, _HALF, _LEAST = np.float32(math.log2(math.e)), np.float32(0.5), np.float32(-126)
_NEVER = np.float32(-1e4)  # a score that no exponential tells from nothing

# Sums are taken in loops that write nothing: of a loop that does both, LLVM keeps a scalar version for arrays that
# overlap or seem to, by their addresses, which differ between threads, and so would the order of the sum.


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def _exponentials(scores: Any, low: int, n: int, scale: Any, shift: Any, whole: Any, parts: Any, powers: Any) -> Any:
    """``e = 2^(scale x - shift)`` of ``scores[low:][:n]`` in place, and their sum; relative error below 3e-7.

    A power of two by its bits, times the polynomial of degree 5 with the smallest relative error on [-1/2, 1/2].
    `whole` is `powers` as int32: two loops without a branch, that vectorise.
    """
    for j in range(n):
        z = max(scores[low + j] * scale - shift, _LEAST)
        floor = math.floor(z)
        parts[j] = z - floor - _HALF
        whole[j] = (np.int32(floor) + np.int32(127)) << np.int32(23)
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


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def _turn(row: Any, gradient: Any, low: int, memory: Any, at: int, rate: Any) -> None:
    """Update a row of length 1, or 0, by the gradient at ``gradient[low:][:dim]``, which is overwritten."""
    dim = row.size
    along, square, length = np.float32(0), np.float32(0), np.float32(0)
    for k in range(dim):
        along += gradient[low + k] * row[k]
    for k in range(dim):
        gradient[low + k] -= along * row[k]
    for k in range(dim):
        square += gradient[low + k] * gradient[low + k]
    memory[at] += square / np.float32(dim)
    step = rate / (math.sqrt(memory[at]) + np.float32(1e-6))
    for k in range(dim):
        row[k] -= step * gradient[low + k]
    for k in range(dim):
        length += row[k] * row[k]
    shrink = np.float32(1) / math.sqrt(max(length, np.float32(1e-30)))  # a row of zeros without a gradient stays one
    for k in range(dim):
        row[k] *= shrink


@compiled(error_model="numpy", nogil=True, inline="always")
def _copy(table: Any, row: Any, out: Any, low: int) -> None:
    for k in range(table.shape[1]):
        out[low + k] = table[row, k]


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def take_cells(taken, cells, columns, places, users, items, squares, sharpness, rate, seed, negatives, losses):
    """Take cells until none is left; all arrays are shared by the threads.

    Args:
        taken: int64 [1], 0 at first.
        cells: int64 [c], numbers of the cells, which share no user and no item.
        columns: `Cells`; ``columns.items`` is drawn from by exchanging, in place.
        places: int32 [num_items], where in the draw an item was when it came last.
        users: float32 [num_users, dim], unit rows.
        items: float32 [num_items, dim], unit rows.
        squares: float32 [num_users] and [num_items], the accumulators.
        sharpness: float32, 1 / t.
        rate: float32, lr.
        seed: uint64, of the draws, with the cell's number.
        negatives: drawn for a block.
        losses: float64 [c], sums of the losses.
    """
    dim = users.shape[1]
    width = (dim + WIDE - 1) // WIDE * WIDE
    most = (negatives + WIDE - 1) // WIDE * WIDE
    p, user_gradient = np.zeros(BLOCK * width, np.float32), np.empty(BLOCK * width, np.float32)
    q, turned = np.zeros(most * width, np.float32), np.empty(most * width, np.float32)
    item_gradient, scores = np.empty(most * width, np.float32), np.empty(BLOCK * most, np.float32)
    parts, powers = np.empty(most, np.float32), np.empty(most, np.float32)
    whole = powers.view(np.int32)
    own = np.empty(width, np.float32)
    while True:
        number: Any = _take(taken)
        if number >= cells.size:
            break
        cell = cells[number]
        pool = columns.items[columns.groups[cell % GRID] : columns.groups[cell % GRID + 1]]
        drawn = min(negatives, pool.size)
        n = (drawn + WIDE - 1) // WIDE * WIDE
        state = _mix(seed + np.uint64(cell) + np.uint64(1))
        loss = 0.0
        for low in range(columns.starts[cell], columns.starts[cell + 1], BLOCK):
            user = columns.user[low : min(low + BLOCK, columns.starts[cell + 1])]
            item = columns.item[low : low + user.size]
            m = (user.size + HIGH - 1) // HIGH * HIGH
            # 1. Draw, and gather what the block needs. Beyond what is drawn, rows stay zero.
            for j in range(drawn):  # Fisher-Yates, as far as needed
                state = _xorshift(state)
                other = j + _below(state, pool.size - j)
                pool[j], pool[other] = pool[other], pool[j]
                places[pool[j]] = j
                _copy(items, pool[j], q, j * width)
            q[drawn * width : n * width] = 0
            for j in range(n):
                for k in range(dim):
                    turned[k * n + j] = q[j * width + k]
            for b in range(user.size):
                _copy(users, user[b], p, b * width)
            p[user.size * width : m * width] = 0
            # 2. Scores, and what the loss has for a gradient of them, in their place.
            multiply(p, width, 1, turned, n, scores, n, m, n, dim)
            for b in range(user.size):
                at = b * n
                place = places[item[b]]
                if place < drawn and pool[place] == item[b]:
                    scores[at + place] = _NEVER
                scores[at + drawn : at + n] = _NEVER
                score = np.float32(0)
                for k in range(dim):
                    score += p[b * width + k] * items[item[b], k]
                # A cosine is at most 1, so that the largest term is at most 1, too.
                scale = sharpness * _LOG2E
                total = _exponentials(scores, at, n, scale, scale, whole, parts, powers)
                loss += math.log(total) + sharpness * (np.float32(1) - score)
                share = sharpness / total
                for j in range(n):
                    scores[at + j] *= share
            scores[user.size * n : m * n] = 0
            # 3. Gradients of all rows from where the rows were.
            multiply(scores, n, 1, q, width, user_gradient, width, m, width, drawn)
            multiply(scores, 1, n, p, width, item_gradient, width, n, width, user.size)
            for b in range(user.size):
                for k in range(dim):
                    user_gradient[b * width + k] -= sharpness * items[item[b], k]
            # 4. Update, one after the other: a row that comes twice gets both changes.
            for b in range(user.size):
                for k in range(dim):
                    own[k] = -sharpness * p[b * width + k]
                _turn(users[user[b]], user_gradient, b * width, squares[0], user[b], rate)
                _turn(items[item[b]], own, 0, squares[1], item[b], rate)
            for j in range(drawn):
                _turn(items[pool[j]], item_gradient, j * width, squares[1], pool[j], rate)
        losses[number] = loss
