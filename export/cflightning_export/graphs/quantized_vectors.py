"""Item and user vectors in 7 and 8 bits, with a bound on the error of a score.

The last coordinate of a vector is the bias, which has weight 1 for every user, so that a score is one dot product.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cflightning.models.network import DotProductTables

ITEM_LIMIT = 63
"""Largest item code. Two products of a 7-bit and an 8-bit code fit into the 16 bits in which AVX2 adds them."""
USER_LIMIT, USER_OFFSET = 127, 128
"""Largest user code, and the offset that makes it positive: the fast kernels read unsigned codes without zero point."""
MASKED = -(2**30)
"""Approximate score of an item that must not be found; approximate scores stay within 255 x 63 x (dim + 1)."""
_EPSILON = float(np.finfo(np.float32).eps)

CHUNK = 1 << 14
"""Users that are quantised together."""

Floats = NDArray[np.float64]


class QuantizedVectors(NamedTuple):
    """Codes with ``<u, i> + bias_i <= step_u * approximate + slack_u`` for every user u and item i.

    ``approximate = user . item + shift``, all integers; the bias of the user is left out on both sides.

    Attributes:
        user: uint8 [1 + users, dim + 1].
        item: int8 [dim + 1, 1 + items], a column for each item.
        shift: int32 [1 + items]; takes off what `USER_OFFSET` adds; `MASKED` for the unknown item.
        step: float32 [1 + users], logits for one unit of the approximate score.
        slack: float32 [1 + users], logits: the constant that centring took off, plus the largest error.
    """

    user: NDArray[np.uint8]
    item: NDArray[np.int8]
    shift: NDArray[np.int32]
    step: NDArray[np.float32]
    slack: NDArray[np.float32]


def quantize(tables: DotProductTables) -> QuantizedVectors:
    """Round each coordinate of the items by a step of its own, and each user, in these steps, by a step of the user's.

    The bound is the Cauchy-Schwarz inequality twice: on the rounding errors of the items, weighted by the mean error of
    each coordinate, and on those of the user. The rounding of float32 is added at its largest.

    Args:
        tables: tables with at least one known item.
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
    mean_error = np.sqrt((error**2).mean(0)) + 1e-12

    largest_error = np.linalg.norm(error / mean_error, axis=1).max()
    longest_code = np.linalg.norm(item, axis=1).max()
    longest_item = np.linalg.norm(known, axis=1).max() + np.linalg.norm(middle)
    number, width = len(tables.user_vectors), items.shape[1]
    user_codes, user_steps = np.empty((number, width), np.uint8), np.empty(number, np.float32)
    slack = np.empty(number, np.float32)
    for start in range(0, number, CHUNK):  # together, millions of users would take twenty times the memory of codes
        chunk = slice(start, start + CHUNK)
        users = _with_bias(tables.user_vectors[chunk], None)
        scaled = users * steps
        largest = np.abs(scaled).max(1)
        step = np.where(largest > 0, largest / USER_LIMIT, 1.0)
        codes = np.rint(scaled / step[:, None])
        bound = np.linalg.norm(users * mean_error, axis=1) * largest_error
        bound += np.linalg.norm(scaled - codes * step[:, None], axis=1) * longest_code
        bound += _EPSILON * (width + 8) * np.linalg.norm(users, axis=1) * longest_item
        user_codes[chunk], user_steps[chunk], slack[chunk] = codes + USER_OFFSET, step, users @ middle + bound
    shift = -USER_OFFSET * item.sum(1)
    shift[0] = MASKED
    item_codes = np.ascontiguousarray(item.T.astype(np.int8))
    return QuantizedVectors(user_codes, item_codes, shift.astype(np.int32), user_steps, slack)


def required_candidates(
    vectors: QuantizedVectors, tables: DotProductTables, users: NDArray[np.int64], lengths: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return the number of best approximate scores that prove the k best exact ones.

    Args:
        vectors: quantised vectors of the tables.
        tables: the exact tables.
        users: int64 [n], indices.
        lengths: each k, at most the number of known items.

    Returns:
        int64 [lengths, n].
    """
    item_vectors, item_bias = tables.item_vectors.numpy()[1:], tables.item_bias.numpy()[1:]
    item_codes = vectors.item[:, 1:].astype(np.float32)  # sums stay below 2^24: exact
    required = np.empty((len(lengths), len(users)), np.int64)
    for begin in range(0, len(users), 16):
        some = users[begin : begin + 16]
        exact = tables.user_vectors.numpy()[some] @ item_vectors.T + item_bias
        approximate = vectors.user[some].astype(np.float32) @ item_codes + vectors.shift[1:]
        bound = approximate * vectors.step[some, None] + vectors.slack[some, None]
        exact.partition([-length for length in lengths], axis=1)
        for counts, length in zip(required, lengths, strict=True):
            counts[begin : begin + 16] = (bound >= exact[:, -length, None]).sum(1) + 1
    return required


def _with_bias(vectors: object, bias: object) -> Floats:
    """[n, dim + 1]: the last coordinate is the bias, or 1 if there is none."""
    table = np.asarray(vectors, np.float64)
    last = np.ones(len(table)) if bias is None else np.asarray(bias, np.float64)
    return np.column_stack([table, last])
