"""The product of a matrix of interactions and a dense table."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from cflightning.kernels.compiling import usable
from cflightning.solvers.interactions import Side
from cflightning.utils.thread_pool import Threads


def product(side: Side, own: Tensor, other: Tensor, table: Tensor, threads: Threads) -> Tensor:
    """``out[a] = own[a] * sum of other[b] * table[b]`` over the rows b that each row a of a side meets.

    Compiled where numba is there and the table is as wide as the kernel likes, which halves the time.

    Args:
        side: of which the values are not looked at.
        own: float32 [size], multiplies the rows that come out.
        other: float32 [rows of the other side], multiplies those that go in.
        table: float32 [rows of the other side, width].
        threads: any number gives the same bits.

    Returns:
        float32 [size, width].
    """
    if not usable():
        weights = other[side.rows]
        return own[:, None] * embedding_bag(
            side.rows.long(), table, side.offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )
    from cflightning.kernels.sparse import weighted_sums

    out = torch.empty(len(own), table.shape[1])
    arrays = side.rows, side.offsets, own.float(), other.float(), table.contiguous(), out
    threads.call(weighted_sums, *(array.numpy() for array in arrays))
    return out
