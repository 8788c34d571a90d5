"""Co-occurrence counts of items over users: as many additions as users have pairs of items."""

from __future__ import annotations

import numpy as np

from cflightning.kernels import F32, I32, I64
from cflightning.kernels.compiling import compiled
from cflightning.kernels.simd import FASTMATH, take_next


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def cooccurrences(
    taken: I64, users: I32, user_offsets: I64, user_values: F32, items: I32, item_offsets: I64, item_values: F32,
    weight: F32, first: int, out: F32,
) -> None:  # fmt: skip
    """Sum, for each pair of items, over the users who have both; take rows of `out` until none is left.

    ``out[a, b]`` is the sum of the weight of a user times the values of the user with item ``first + a`` and item b.

    Args:
        taken: int64 [1], 0 at first.
        users: int32 [n], the users of every item, item by item.
        user_offsets: int64 [num_items + 1], first user of each item.
        user_values: float32 [n], value of each user with the item.
        items: int32 [n], the items of every user, user by user.
        item_offsets: int64 [num_users + 1], first item of each user.
        item_values: float32 [n], value of each item with the user.
        weight: float32 [num_users], weight of each user.
        first: Item of the first line.
        out: float32 [rows, num_items], overwritten.
    """
    while True:
        a: int = take_next(taken)
        if a >= len(out):
            break
        row = out[a]
        row[:] = 0
        for at in range(user_offsets[first + a], user_offsets[first + a + 1]):
            user = users[at]
            factor = weight[user] * user_values[at]
            for other in range(item_offsets[user], item_offsets[user + 1]):
                row[items[other]] += factor * item_values[other]


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def nearest_items(
    taken: I64, users: I32, user_offsets: I64, items: I32, item_offsets: I64, root: F32, shrinkage: np.float32,
    neighbours: I64, similarity: F32,
) -> None:  # fmt: skip
    """Find the nearest items b of each item a, best first; take items until none is left.

    The similarity is ``count(a, b) / (root[a] * root[b] + shrinkage)``; ties are in the order of the index.

    Args:
        taken: int64 [1], 0 at first.
        users: See :func:`cooccurrences`.
        user_offsets: See :func:`cooccurrences`.
        items: See :func:`cooccurrences`.
        item_offsets: See :func:`cooccurrences`.
        root: float32 [num_items], square root of the number of each item's users.
        shrinkage: float32.
        neighbours: int64 [num_items, n], zeros at first.
        similarity: float32 [num_items, n], zeros at first.
    """
    counts, touched = np.zeros(len(root), np.float32), np.empty(len(root), np.int32)
    last = neighbours.shape[1] - 1
    while True:
        a: int = take_next(taken)
        if a >= len(root):
            break
        number = 0
        for at in range(user_offsets[a], user_offsets[a + 1]):
            user = users[at]
            for other in range(item_offsets[user], item_offsets[user + 1]):
                b = items[other]
                if counts[b] == 0:
                    touched[number] = b
                    number += 1
                counts[b] += 1
        best, order = similarity[a], neighbours[a]
        for b in touched[:number]:
            value = counts[b] / (root[a] * root[b] + shrinkage)
            counts[b] = 0
            if b == a or value < best[last] or (value == best[last] and b > order[last]):
                continue
            place = last
            while place > 0 and (value > best[place - 1] or (value == best[place - 1] and b < order[place - 1])):
                best[place], order[place] = best[place - 1], order[place - 1]
                place -= 1
            best[place], order[place] = value, b
