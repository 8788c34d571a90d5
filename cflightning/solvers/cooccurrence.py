"""Co-occurrence counts of items, ``X^T X``, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cflightning.kernels.availability import kernels_available
from cflightning.solvers.interactions import Interactions
from cflightning.solvers.sparse import scaled_product
from cflightning.utils.thread_pool import ThreadPool

BLOCK_ROWS = 256
"""Rows of a block: 40 MB with 40,000 items."""


def cooccurrences(interactions: Interactions, pool: ThreadPool) -> Iterator[tuple[int, Tensor]]:
    """Compute ``X^T X``, X the 0/1 matrix of the interactions, in blocks of rows.

    Args:
        interactions: Interactions of the training part; values are ignored.
        pool: Threads; the result does not depend on their number, bit for bit.

    Yields:
        The item of the first row, and float32 [rows, num_items], which the next block may overwrite.
    """
    users, items = interactions
    out = torch.empty(min(BLOCK_ROWS, items.num_rows), items.num_rows)
    for first in range(0, items.num_rows, BLOCK_ROWS):
        size = min(BLOCK_ROWS, items.num_rows - first)
        if kernels_available():
            from cflightning.kernels import cooccurrence

            arrays = (array.numpy() for array in (items.indices, items.offsets, users.indices, users.offsets))
            pool.run_kernel(cooccurrence.cooccurrences, *arrays, first, out[:size].numpy())
            yield first, out[:size]
        else:
            block = items.part(first, first + size)
            table = torch.zeros(users.num_rows, size)
            item = torch.repeat_interleave(torch.arange(size), block.counts)
            table.view(-1).index_add_(0, block.indices.long() * size + item, torch.ones(len(item)))
            ones = torch.ones(items.num_rows), torch.ones(users.num_rows)
            yield first, scaled_product(items, *ones, table, pool).T
