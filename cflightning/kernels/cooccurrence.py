"""How often two items are with the same user, counted row by row: as many additions as there are such pairs."""

from __future__ import annotations

from typing import Any

from numba import njit

from cflightning.kernels.fused_dot import _FAST, _take


@njit(fastmath=_FAST, error_model="numpy", nogil=True, cache=True)
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
