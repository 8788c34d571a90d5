"""A pass of Gibbs sampling over the vectors of a bag, compiled; see `objectives.posterior`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cflightning.kernels.compiling import compiled

_EXACT = {"nsz", "nnan", "ninf"}
"""Flags that change no result: columns may be cut anywhere, and a loop's vector body must round as its scalar rest."""


@compiled(fastmath=_EXACT, error_model="numpy", nogil=True)
def bag_pass(
    rows: Any, ends: Any, weight: Any, squares: Any, penalty: Any, noise: Any, vectors: Any, rest: Any
) -> None:
    """What `objectives.posterior.bag_pass` does, in place, for a few columns of `vectors` and `rest`.

    Columns do not meet, so threads take some each and leave no trace in the result.
    """
    width = vectors.shape[1]
    total = np.empty(width, np.float32)
    for j in range(vectors.shape[0]):
        begin, end = ends[j], ends[j + 1]
        if begin == end:
            continue
        total[:] = 0
        for at in range(begin, end):
            u = rows[at]
            w = weight[u]
            for k in range(width):
                total[k] += w * rest[u, k]
        precision = squares[j] + penalty
        share, sd = np.float32(1 / precision), np.float32(1 / math.sqrt(precision))
        for k in range(width):
            new = share * (total[k] + squares[j] * vectors[j, k]) + sd * noise[j, k]
            total[k] = new - vectors[j, k]
            vectors[j, k] = new
        for at in range(begin, end):
            u = rows[at]
            w = weight[u]
            for k in range(width):
                rest[u, k] -= w * total[k]
