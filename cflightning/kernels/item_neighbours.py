"""Scores of an item-neighbour model: sums of similarities over the items of a user."""

from __future__ import annotations

from cflightning.kernels import F32, I32, I64
from cflightning.kernels.compiling import compiled
from cflightning.kernels.simd import FASTMATH, take_next


@compiled(fastmath=FASTMATH, error_model="numpy", nogil=True)
def sum_similarities(
    taken: I64, items: I32, offsets: I64, others: I32, other_offsets: I64, similarity: F32, out: F32
) -> None:
    """Sum the similarities of each item to the items of a user; take users until none is left.

    ``out[u, j]`` is the sum of the similarities of item j to the items of user u.

    Args:
        taken: int64 [1], 0 at first.
        items: int32 [n], the items of every user, user by user.
        offsets: int64 [users + 1], first item of each user.
        others: int32 [m], the items that have each item as a neighbour, item by item.
        other_offsets: int64 [num_items + 1], first such item of each item.
        similarity: float32 [m], similarity of each of them.
        out: float32 [users, num_items], overwritten.
    """
    while True:
        user: int = take_next(taken)
        if user >= len(out):
            break
        row = out[user]
        row[:] = 0
        for at in range(offsets[user], offsets[user + 1]):
            item = items[at]
            for place in range(other_offsets[item], other_offsets[item + 1]):
                row[others[place]] += similarity[place]
