"""Indices of the k largest values of each row of a matrix, faster than sorting."""

import numpy as np
import numpy.typing as npt

GROUP_SIZE = 8
"""Size of the groups of values whose largest one alone is compared at first."""


def top_k_indices(values: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the column indices of the ``k`` largest values of each row, largest first, equal values by index.

    Each row is split into groups. The k-th largest of the groups' maxima is at most the k-th largest value, since k
    groups have a value at least as large. So only few values beside the k largest reach it, and only these are sorted.

    Args:
        values: float32 [n, m], without NaN; ``-inf`` marks values to leave out.
        k: number of indices, at least 1.

    Returns:
        Indices, int64 [n, k'] with k' = min(k, m), and how many of each row are valid: int64 [n].
    """
    rows, columns = _candidates(values, k)
    counts = np.bincount(rows, minlength=len(values))
    begin = np.cumsum(counts) - counts
    # Sort keys of 64 bits, value descending and then index ascending: the value's bits above those of the index.
    bits = (values[rows, columns] + np.float32(0)).view(np.uint32)  # adding 0 turns -0 into 0
    descending = np.where(bits >> 31 == 1, bits, np.uint32(0x7FFFFFFF) - bits)
    keys = np.full((len(values), int(counts.max(initial=0))), np.iinfo(np.uint64).max)
    keys[rows, np.arange(len(rows)) - begin[rows]] = (descending.astype(np.uint64) << np.uint64(32)) | columns.astype(
        np.uint64
    )
    keys.sort(axis=1)
    length = min(k, values.shape[1])
    indices = np.zeros((len(values), length), np.int64)
    width = min(length, keys.shape[1])
    indices[:, :width] = keys[:, :width] & np.uint64(0xFFFFFFFF)
    return indices, np.minimum(counts, length)


def _candidates(values: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return row and column of each value that may be among the largest of its row: int64 [c] twice, row by row."""
    n, m = values.shape
    groups = m // GROUP_SIZE
    threshold = np.full((n, 1), np.finfo(np.float32).min)
    if k < groups:
        # Column j belongs to group j mod `groups`, so that contiguous ranges are compared.
        maxima = values[:, :groups].copy()
        for start in range(groups, groups * GROUP_SIZE, groups):
            np.maximum(maxima, values[:, start : start + groups], out=maxima)
        maxima.partition(groups - k, axis=1)
        np.maximum(threshold, maxima[:, groups - k, None], out=threshold)
    flat = np.flatnonzero(values >= threshold)
    rows = flat // max(m, 1)
    return rows, flat - rows * m
