"""How often two items are with the same user, item by item: as many additions as users have pairs of items."""

from __future__ import annotations

from typing import Any

import numpy as np

from cflightning.kernels.compiling import compiled
from cflightning.kernels.fused_dot import _FAST, _take


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def cooccurrences(
    taken: Any, users: Any, user_offsets: Any, items: Any, item_offsets: Any, first: Any, out: Any
) -> None:
    """``out[a, b] = how many users have both item first + a and item b``; takes rows until none is left.

    Args:
        taken: int64 [1], 0 at first.
        users: int32 [n], the users of every item, one item after the other.
        user_offsets: int64 [num_items + 1], where each item's begin.
        items: int32 [n], the items of every user, one user after the other.
        item_offsets: int64 [num_users + 1], where each user's begin.
        first: item of the first row.
        out: float32 [rows, num_items], overwritten.
    """
    while True:
        a: Any = _take(taken)
        if a >= len(out):
            break
        row = out[a]
        row[:] = 0
        for at in range(user_offsets[first + a], user_offsets[first + a + 1]):
            user = users[at]
            for other in range(item_offsets[user], item_offsets[user + 1]):
                row[items[other]] += 1


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def nearest(
    taken: Any, users: Any, user_offsets: Any, items: Any, item_offsets: Any, root: Any, shrinkage: Any, near: Any,
    similarity: Any,
) -> None:  # fmt: skip
    """For each item a the items b with the largest ``count(a, b) / (root[a] * root[b] + shrinkage)``, in that order.

    Of equal ones the lower row goes first. Takes items until none is left.

    Args:
        taken: int64 [1], 0 at first.
        users: see :func:`cooccurrences`.
        user_offsets: see :func:`cooccurrences`.
        items: see :func:`cooccurrences`.
        item_offsets: see :func:`cooccurrences`.
        root: float32 [num_items], root of the number of each item's users.
        shrinkage: float32.
        near: int64 [num_items, n], zeros at first.
        similarity: float32 [num_items, n], zeros at first.
    """
    counts, met = np.zeros(len(root), np.float32), np.empty(len(root), np.int32)
    last = near.shape[1] - 1
    while True:
        a: Any = _take(taken)
        if a >= len(root):
            break
        found = 0
        for at in range(user_offsets[a], user_offsets[a + 1]):
            user = users[at]
            for other in range(item_offsets[user], item_offsets[user + 1]):
                b = items[other]
                if counts[b] == 0:
                    met[found] = b
                    found += 1
                counts[b] += 1
        best, order = similarity[a], near[a]
        for b in met[:found]:
            value = counts[b] / (root[a] * root[b] + shrinkage)
            counts[b] = 0
            if b == a or value < best[last] or (value == best[last] and b > order[last]):
                continue
            place = last
            while place > 0 and (value > best[place - 1] or (value == best[place - 1] and b < order[place - 1])):
                best[place], order[place] = best[place - 1], order[place - 1]
                place -= 1
            best[place], order[place] = value, b
