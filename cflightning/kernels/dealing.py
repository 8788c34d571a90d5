"""Choices dealt into cells that threads can take without meeting, anew in every epoch.

As in `kernels.layout` a stage is `GRID` cells that share no user and no item. There the groups last for a training, and
blocks change their order; here the groups are fresh as well, since an item only ever meets negatives of its own group.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cflightning.kernels.compiling import compiled

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

GRID = 8
"""Stages of an epoch, and cells of a stage. (Numba's cache does not notice when this changes.)"""


class Cells(NamedTuple):
    """An epoch's choices, sorted into cells, and its items, sorted into groups; random inside both.

    Attributes:
        user: int32 [n], rows.
        item: int32 [n], rows.
        starts: int64 [GRID * GRID + 1]; cell (a, b) is ``starts[a * GRID + b] : starts[a * GRID + b + 1]``.
        items: int32 [num_items - 1], all item rows but the unknown one.
        groups: int64 [GRID + 1]; group b is ``items[groups[b] : groups[b + 1]]``.
    """

    user: I32
    item: I32
    starts: I64
    items: I32
    groups: I64


@compiled()
def _sorted(user: Any, item: Any, order: Any, user_group: Any, item_group: Any) -> Any:
    """Both columns by cell, in a given order inside: int32 [n] twice -> the same, and int64 [cells + 1]."""
    starts = np.zeros(GRID * GRID + 1, np.int64)
    for n in range(user.size):
        starts[np.int64(user_group[user[n]]) * GRID + item_group[item[n]] + 1] += 1
    for cell in range(GRID * GRID):
        starts[cell + 1] += starts[cell]
    fill = starts[:-1].copy()
    users, items = np.empty_like(user), np.empty_like(item)
    for n in order:
        cell = np.int64(user_group[user[n]]) * GRID + item_group[item[n]]
        users[fill[cell]], items[fill[cell]] = user[n], item[n]
        fill[cell] += 1
    return users, items, starts


def deal(user: I32, item: I32, num_users: int, num_items: int, rng: np.random.Generator) -> Cells:
    """Deal users and items into groups of equal size, and choices into the cells of both.

    Args:
        user: int32 [n], rows.
        item: int32 [n], rows.
        num_users: rows of the user table.
        num_items: rows of the item table.
        rng: decides the groups and the order.
    """
    shuffled = rng.permutation(num_items - 1).astype(np.int32) + np.int32(1)
    groups = np.arange(GRID + 1) * shuffled.size // GRID
    item_group = np.zeros(num_items, np.uint8)
    item_group[shuffled] = np.repeat(np.arange(GRID, dtype=np.uint8), np.diff(groups))
    user_group = (rng.permutation(num_users) % GRID).astype(np.uint8)
    columns = _sorted(user, item, rng.permutation(user.size), user_group, item_group)
    return Cells(*columns, shuffled, groups)
