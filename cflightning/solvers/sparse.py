"""The product of a sparse matrix of interactions and a dense table."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from cflightning.kernels.availability import kernels_available
from cflightning.utils.csr import Csr
from cflightning.utils.thread_pool import ThreadPool


def scaled_product(matrix: Csr, row_scale: Tensor, column_scale: Tensor, table: Tensor, pool: ThreadPool) -> Tensor:
    """``diag(row_scale) X diag(column_scale) table``, X the matrix of the interactions.

    Compiled if kernels are available, which halves the time.

    Args:
        matrix: X.
        row_scale: float32 [num_rows].
        column_scale: float32 [num_columns].
        table: float32 [num_columns, width].
        pool: Threads; the result does not depend on their number, bit for bit.

    Returns:
        float32 [num_rows, width].
    """
    if not kernels_available():
        weights = column_scale[matrix.indices]
        if matrix.values is not None:
            weights = weights * matrix.values
        return row_scale[:, None] * embedding_bag(
            matrix.indices.long(), table, matrix.offsets, mode="sum", per_sample_weights=weights,
            include_last_offset=True,
        )  # fmt: skip
    from cflightning.kernels.sparse import weighted_sums

    out = torch.empty(len(row_scale), table.shape[1])
    values = torch.ones(len(matrix.indices)) if matrix.values is None else matrix.values
    arrays = matrix.indices, matrix.offsets, values, row_scale.float(), column_scale.float(), table.contiguous(), out
    pool.run_kernel(weighted_sums, *(array.numpy() for array in arrays))
    return out
