"""Item and user vectors in 7 and 8 bits, with a bound on what the rounding can do to a score.

A vector's last coordinate here is the bias, which every user weighs by 1, so that a score is one product.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cflightning.models.network import FoldedTables

ITEM_LIMIT = 63
"""Of an item code. Two products of a 7-bit and an 8-bit code fit into the 16 bits that AVX2 adds them in."""
USER_LIMIT, USER_ZERO = 127, 128
"""Of a user code, and what is added to make it positive: the quick kernels read unsigned users without a zero point."""
MASKED = -(2**30)
"""The rough score of what must not be found; rough scores stay within 255 x 63 x (dim + 1)."""
_EPSILON = float(np.finfo(np.float32).eps)

CHUNK = 1 << 14
"""Users that are coded together."""

Floats = NDArray[np.float64]


class Codes(NamedTuple):
    """For every user u and item i: ``<u, i> + bias_i <= step_u * rough + slack_u``, rough the scores of codes.

    ``rough = user . item + shift``, all integers; the item's part of the score alone, without the user's bias.

    Attributes:
        user: uint8 [num_users, dim + 1].
        item: int8 [dim + 1, num_items], a column for each item.
        shift: int32 [num_items]; takes off what `USER_ZERO` adds; `MASKED` for the unknown item.
        step: float32 [num_users], logits for one unit of the rough score.
        slack: float32 [num_users], logits: the constant that centring took off, and the most that rounding hides.
    """

    user: NDArray[np.uint8]
    item: NDArray[np.int8]
    shift: NDArray[np.int32]
    step: NDArray[np.float32]
    slack: NDArray[np.float32]


def encode(tables: FoldedTables) -> Codes:
    """Round each coordinate of the items by a step of its own, and each user, in these steps, by one of the user's.

    The bound is the Cauchy-Schwarz inequality twice: on the items' rounding errors, weighted by what each coordinate
    usually errs, and on the user's. Float32's own rounding, of exact scores and of the bound, is added at its worst.

    Args:
        tables: of at least one known item.
    """
    items = _with_bias(tables.item_vectors, tables.item_bias)
    known = items[1:].copy()
    middle = (known.max(0) + known.min(0)) / 2  # the same for all items of a user: it does not change their order
    items -= middle
    spread = np.abs(items[1:]).max(0)
    steps = np.where(spread > 0, spread / ITEM_LIMIT, 1.0)
    item = np.rint(items / steps)
    item[0] = 0
    error = items[1:] - item[1:] * steps
    usual = np.sqrt((error**2).mean(0)) + 1e-12

    farthest = np.linalg.norm(error / usual, axis=1).max()
    longest_code = np.linalg.norm(item, axis=1).max()
    longest = np.linalg.norm(known, axis=1).max() + np.linalg.norm(middle)
    number, width = len(tables.user_vectors), items.shape[1]
    code, steps_of = np.empty((number, width), np.uint8), np.empty(number, np.float32)
    slack = np.empty(number, np.float32)
    for start in range(0, number, CHUNK):  # of millions of users the work would take twenty times the codes
        chunk = slice(start, start + CHUNK)
        users = _with_bias(tables.user_vectors[chunk], None)
        weights = users * steps
        largest = np.abs(weights).max(1)
        step = np.where(largest > 0, largest / USER_LIMIT, 1.0)
        user = np.rint(weights / step[:, None])
        hidden = np.linalg.norm(users * usual, axis=1) * farthest
        hidden += np.linalg.norm(weights - user * step[:, None], axis=1) * longest_code
        hidden += _EPSILON * (width + 8) * np.linalg.norm(users, axis=1) * longest
        code[chunk], steps_of[chunk], slack[chunk] = user + USER_ZERO, step, users @ middle + hidden
    shift = -USER_ZERO * item.sum(1)
    shift[0] = MASKED
    return Codes(code, np.ascontiguousarray(item.T.astype(np.int8)), shift.astype(np.int32), steps_of, slack)


def needed(codes: Codes, tables: FoldedTables, rows: NDArray[np.int64], lengths: tuple[int, ...]) -> NDArray[np.int64]:
    """How many of the best rough scores must be looked at before the best exact ones are proven.

    Args:
        codes: of the tables.
        tables: the exact ones.
        rows: int64 [n] of users.
        lengths: of the lists, each at most the number of known items.

    Returns:
        int64 [lengths, n].
    """
    vectors, bias = tables.item_vectors.numpy()[1:], tables.item_bias.numpy()[1:]
    item = codes.item[:, 1:].astype(np.float32)  # sums stay below 2^24: exact
    found = np.empty((len(lengths), len(rows)), np.int64)
    for low in range(0, len(rows), 16):
        some = rows[low : low + 16]
        exact = tables.user_vectors.numpy()[some] @ vectors.T + bias
        rough = codes.user[some].astype(np.float32) @ item + codes.shift[1:]
        bound = rough * codes.step[some, None] + codes.slack[some, None]
        exact.partition([-length for length in lengths], axis=1)
        for counts, length in zip(found, lengths, strict=True):
            counts[low : low + 16] = (bound >= exact[:, -length, None]).sum(1) + 1
    return found


def _with_bias(vectors: object, bias: object) -> Floats:
    """[rows, dim + 1]; the bias, or 1 where there is none, is the last coordinate."""
    table = np.asarray(vectors, np.float64)
    last = np.ones(len(table)) if bias is None else np.asarray(bias, np.float64)
    return np.column_stack([table, last])
