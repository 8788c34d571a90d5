"""Scores of items by those of their neighbours that users have."""

from __future__ import annotations

from typing import Any

from cflightning.kernels.compiling import compiled
from cflightning.kernels.fused_dot import _FAST, _take


@compiled(fastmath=_FAST, error_model="numpy", nogil=True)
def add_up(taken: Any, items: Any, offsets: Any, others: Any, other_offsets: Any, similarity: Any, out: Any) -> None:
    """``out[u, j] = sum of the similarities of j to the items of u``; takes users until none is left.

    Args:
        taken: int64 [1], 0 at first.
        items: int32 [n], the items of every user, one user after the other.
        offsets: int64 [users + 1], where each user's begin.
        others: int32 [m], the items that have each item as a neighbour, one item after the other.
        other_offsets: int64 [num_items + 1], where each item's begin.
        similarity: float32 [m], that goes with it.
        out: float32 [users, num_items], overwritten.
    """
    while True:
        user: Any = _take(taken)
        if user >= len(out):
            break
        row = out[user]
        row[:] = 0
        for at in range(offsets[user], offsets[user + 1]):
            item = items[at]
            for place in range(other_offsets[item], other_offsets[item + 1]):
                row[others[place]] += similarity[place]
