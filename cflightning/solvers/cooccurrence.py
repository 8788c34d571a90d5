"""How often two items are with the same user: ``X^T X``, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cflightning.kernels.compiling import usable
from cflightning.solvers.interactions import Interactions
from cflightning.solvers.sparse import product
from cflightning.utils.thread_pool import Threads

ROWS = 256
"""Rows at a time: of 40,000 items 40 MB."""


def cooccurrences(sides: Interactions, threads: Threads) -> Iterator[tuple[int, Tensor]]:
    """Blocks of the rows of ``X^T X``, X the matrix of pairs (values are not looked at).

    Args:
        sides: who has what.
        threads: any number gives the same bits.

    Yields:
        The first row's item, and float32 [rows, num_items]; the next one may be written over it.
    """
    num_users, num_items = len(sides.users.counts), len(sides.items.counts)
    compiled = usable()
    room = torch.empty(min(ROWS, num_items), num_items)
    for first in range(0, num_items, ROWS):
        size = min(ROWS, num_items - first)
        if compiled:
            from cflightning.kernels import cooccurrence

            arrays = (column.numpy() for side in (sides.items, sides.users) for column in (side.rows, side.offsets))
            threads.call(cooccurrence.cooccurrences, *arrays, first, room[:size].numpy())
            yield first, room[:size]
        else:
            some = sides.items.part(first, first + size)
            table = torch.zeros(num_users, size)
            item = torch.repeat_interleave(torch.arange(size), some.counts)
            table.view(-1).index_add_(0, some.rows.long() * size + item, torch.ones(len(item)))
            ones = torch.ones(num_items), torch.ones(num_users)
            yield first, product(sides.items, *ones, table, threads).T
