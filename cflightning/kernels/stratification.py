"""Stratification: groups of users and items, and cells of interactions that threads can process without conflicts.

Users and items are divided into `grid` groups each, and interactions into ``grid x grid`` cells (Gemulla et al. 2011,
DSGD; Chin et al. 2015, LIBMF). Cell (a, b) holds the interactions of user group a with item group b and has the number
``a * grid + b``. A *stage* is `grid` cells that have no user and no item in common, so threads update factors without
locks and without races, and the result does not depend on the number of threads, bit for bit. An epoch has `grid`
stages.
"""

from __future__ import annotations

import numpy as np

from cflightning.kernels import F32, I32, I64, U8
from cflightning.kernels.compiling import compiled

LINE_VECTORS = 16
"""Neighbouring vectors that stay in one group: 16 float32 vectors of any dim end at a cache line."""


@compiled()
def count_indices(index: I32, size: int) -> I64:
    """Count how often each index occurs: int32 [n] -> int64 [size]; numpy's bincount would copy the column to int64."""
    counts = np.zeros(size, np.int64)
    for n in range(index.size):
        counts[index[n]] += 1
    return counts


def balanced_groups(counts: I64, grid: int, rng: np.random.Generator) -> U8:
    """Divide indices into groups of about equal numbers of interactions: int64 [n] -> uint8 [n] in [0, grid).

    Blocks of `LINE_VECTORS` indices stay together, so that threads never write to one cache line: false sharing halves
    the speed of two threads.
    """
    chunks = -(-counts.size // LINE_VECTORS)
    weight = np.pad(counts, (0, chunks * LINE_VECTORS - counts.size)).reshape(chunks, LINE_VECTORS).sum(1)
    shuffled = rng.permutation(chunks)
    by_weight = shuffled[np.argsort(-weight[shuffled], kind="stable")]
    snake = np.arange(chunks) % (2 * grid)
    group = np.empty(chunks, np.uint8)
    group[by_weight] = np.where(snake < grid, snake, 2 * grid - 1 - snake)
    return np.repeat(group, LINE_VECTORS)[: counts.size]


def stage_cells(grid: int, shift: int) -> I64:
    """Return the cells of a stage, user group a with item group ``(a + shift) % grid``: int64 [grid], by user group."""
    groups = np.arange(grid)
    return groups * grid + (groups + shift) % grid


@compiled()
def _cell_starts(user: I32, item: I32, user_group: U8, item_group: U8, grid: int) -> I64:
    """First position of every cell, and the end of the last: int64 [cells + 1]."""
    starts = np.zeros(grid * grid + 1, np.int64)
    for n in range(user.size):
        starts[np.int64(user_group[user[n]]) * grid + item_group[item[n]] + 1] += 1
    for cell in range(grid * grid):
        starts[cell + 1] += starts[cell]
    return starts


@compiled()
def gather_cells(user: I32, item: I32, order: I64, user_group: U8, item_group: U8, grid: int) -> tuple[I32, I32, I64]:
    """Copy interactions cell by cell.

    Args:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        order: int64 [n], order of the interactions within each cell, a permutation of all.
        user_group: uint8 [num_users].
        item_group: uint8 [num_items].
        grid: Number of groups.

    Returns:
        int32 [n] and int32 [n], both columns; int64 [cells + 1], start of each cell.
    """
    starts = _cell_starts(user, item, user_group, item_group, grid)
    fill = starts[:-1].copy()
    users, items = np.empty_like(user), np.empty_like(item)
    for n in order:
        cell = np.int64(user_group[user[n]]) * grid + item_group[item[n]]
        users[fill[cell]], items[fill[cell]] = user[n], item[n]
        fill[cell] += 1
    return users, items, starts


@compiled()
def sort_cells(user: I32, item: I32, target: F32, user_group: U8, item_group: U8, grid: int) -> I64:
    """Sort ratings by cell in place, without copies: American flag sort (McIlroy, Bostic & McIlroy 1993).

    Args:
        user: int32 [n], user indices.
        item: int32 [n], item indices.
        target: float32 [n].
        user_group: uint8 [num_users].
        item_group: uint8 [num_items].
        grid: Number of groups.

    Returns:
        int64 [cells + 1], start of each cell.
    """
    starts = _cell_starts(user, item, user_group, item_group, grid)
    fill = starts[:-1].copy()
    for cell in range(grid * grid):
        while fill[cell] < starts[cell + 1]:
            n = fill[cell]
            u, i, t = user[n], item[n], target[n]
            to = np.int64(user_group[u]) * grid + item_group[i]
            while to != cell:  # swap the rating into its cell and continue with the other one
                m = fill[to]
                fill[to] = m + 1
                user[m], u = u, user[m]
                item[m], i = i, item[m]
                target[m], t = t, target[m]
                to = np.int64(user_group[u]) * grid + item_group[i]
            user[n], item[n], target[n] = u, i, t
            fill[cell] = n + 1
    return starts
