"""Co-occurrences of items, ``X^T W X``, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cflightning.kernels.availability import kernels_available
from cflightning.solvers.sparse import scaled_product
from cflightning.utils.interactions import Interactions
from cflightning.utils.thread_pool import ThreadPool

BLOCK_ROWS = 256
"""Rows of a block: 40 MB with 40,000 items."""


def cooccurrences(
    interactions: Interactions, pool: ThreadPool, user_weight: Tensor | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Compute ``X^T W X`` in blocks of rows; X is the matrix of the interactions and W has the users' weights.

    Args:
        interactions: Interactions of the training part, with values or without.
        pool: Threads; the result does not depend on their number, bit for bit.
        user_weight: float32 [num_users], diagonal of W; None for ones, which count the users of each pair of items.

    Yields:
        The item of the first row, and float32 [rows, num_items], which the next block may overwrite.
    """
    users, items = interactions
    weight = torch.ones(users.num_rows) if user_weight is None else user_weight
    values = [torch.ones(len(matrix.indices)) if matrix.values is None else matrix.values for matrix in interactions]
    out = torch.empty(min(BLOCK_ROWS, items.num_rows), items.num_rows)
    for first in range(0, items.num_rows, BLOCK_ROWS):
        size = min(BLOCK_ROWS, items.num_rows - first)
        if kernels_available():
            from cflightning.kernels import cooccurrence

            arrays = items.indices, items.offsets, values[1], users.indices, users.offsets, values[0], weight
            pool.run_kernel(cooccurrence.cooccurrences, *(array.numpy() for array in arrays), first, out[:size].numpy())
            yield first, out[:size]
        else:
            table = items.part(first, first + size).dense_columns()
            yield first, scaled_product(items, torch.ones(items.num_rows), weight, table, pool).T
