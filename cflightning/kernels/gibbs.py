"""The compiled draw of SVD++ vectors in Gibbs sampling; see `sampling.svdpp`."""

from __future__ import annotations

import math

import numpy as np

from cflightning.kernels import F32, I32, I64
from cflightning.kernels.compiling import compiled

_EXACT = {"nsz", "nnan", "ninf"}
"""Fast-math flags that keep every rounding: the vectorised part of a loop must round as its scalar rest does, since
threads divide the columns anywhere."""


@compiled(fastmath=_EXACT, error_model="numpy", nogil=True)
def draw_svdpp_vectors(
    indices: I32, offsets: I64, weight: F32, squares: F32, penalty: np.float32, noise: F32, vectors: F32, residual: F32
) -> None:
    """Compute `sampling.svdpp.draw_svdpp_vectors`, in place, for some columns of `vectors` and `residual`.

    Columns are independent, so threads may divide them in any way.
    """
    width = vectors.shape[1]
    total = np.empty(width, np.float32)
    for j in range(vectors.shape[0]):
        begin, end = offsets[j], offsets[j + 1]
        if begin == end:
            continue
        total[:] = 0
        for at in range(begin, end):
            u = indices[at]
            w = weight[u]
            for k in range(width):
                total[k] += w * residual[u, k]
        precision = squares[j] + penalty
        share, sd = np.float32(1 / precision), np.float32(1 / math.sqrt(precision))
        for k in range(width):
            new = share * (total[k] + squares[j] * vectors[j, k]) + sd * noise[j, k]
            total[k] = new - vectors[j, k]
            vectors[j, k] = new
        for at in range(begin, end):
            u = indices[at]
            w = weight[u]
            for k in range(width):
                residual[u, k] -= w * total[k]
