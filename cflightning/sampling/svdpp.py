"""Draws of the vectors of SVD++ terms, without numba; `kernels.gibbs` has the compiled equivalent."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def draw_svdpp_vectors(
    indices: NDArray[np.int32], offsets: NDArray[np.int64], weight: NDArray[np.float32], squares: NDArray[np.float32],
    penalty: float, noise: NDArray[np.float32], vectors: NDArray[np.float32], residual: NDArray[np.float32],
) -> None:  # fmt: skip
    """Draw the vectors y of an SVD++ term, one after the other, each given all others; in place.

    In columns of unit noise: ``residual[u] = x_u - m - weight[u] * sum of vectors[j]`` is standard normal. Columns are
    independent, so the function may be called for some of them at a time.

    Args:
        indices: int32 [n], indices of `residual` whose prior mean depends on each vector, vector by vector.
        offsets: int64 [vectors + 1], first such index of each vector.
        weight: float32 [size].
        squares: float32 [vectors], sum of the squared weights of these indices.
        penalty: Precision of a vector.
        noise: float32 [vectors, k], standard normal.
        vectors: float32 [vectors, k], replaced by the draw.
        residual: float32 [size, k], updated.
    """
    for j in range(len(vectors)):
        near = indices[offsets[j] : offsets[j + 1]]
        if len(near):
            precision = squares[j] + penalty
            mean = (weight[near] @ residual[near] + squares[j] * vectors[j]) / precision
            change = mean + noise[j] / math.sqrt(precision) - vectors[j]
            vectors[j] += change
            residual[near] -= np.outer(weight[near], change)
