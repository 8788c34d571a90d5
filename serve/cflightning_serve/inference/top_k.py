"""The best places of each row of a table, quicker than sorting it."""

import numpy as np
import numpy.typing as npt

_GROUP = 8
"""Numbers of which only the largest is looked at first."""


def top_k_indices(values: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find where the ``k`` largest numbers of each row stand, the largest first, equals in the order of the row.

    The row is cut into groups. The k-th largest of their maxima is no larger than the k-th largest number, since k
    groups hold a number at least as large, so that a few more than k numbers reach it; only these are sorted.

    Args:
        values: float32 [n, m], no NaN; ``-inf`` stands for what must not be found.
        k: how many, at least 1.

    Returns:
        Places, int64 [n, k'] with k' = min(k, m), and how many of each row count: int64 [n]; what follows them in the
        row of places means nothing.
    """
    rows, columns = _candidates(values, k)
    found = np.bincount(rows, minlength=len(values))
    begin = np.cumsum(found) - found
    # One number that sorts as (value descending, place ascending) does: the value's bits above those of the place.
    bits = (values[rows, columns] + np.float32(0)).view(np.uint32)  # adding makes -0 and 0 equal in bits
    descending = np.where(bits >> 31 == 1, bits, np.uint32(0x7FFFFFFF) - bits)
    keys = np.full((len(values), int(found.max(initial=0))), np.iinfo(np.uint64).max)
    keys[rows, np.arange(len(rows)) - begin[rows]] = (descending.astype(np.uint64) << np.uint64(32)) | columns.astype(
        np.uint64
    )
    keys.sort(axis=1)
    wanted = min(k, values.shape[1])
    places = np.zeros((len(values), wanted), np.int64)
    width = min(wanted, keys.shape[1])
    places[:, :width] = keys[:, :width] & np.uint64(0xFFFFFFFF)
    return places, np.minimum(found, wanted)


def _candidates(values: npt.NDArray[np.float32], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column of every number that may be among the best of its row: int64 [c] twice, row by row."""
    n, m = values.shape
    groups = m // _GROUP
    least = np.full((n, 1), np.finfo(np.float32).min)
    if k < groups:
        # The groups lie across the row, number j in group j mod `groups`: whole stretches are compared at a time.
        largest = values[:, :groups].copy()
        for start in range(groups, groups * _GROUP, groups):
            np.maximum(largest, values[:, start : start + groups], out=largest)
        largest.partition(groups - k, axis=1)
        np.maximum(least, largest[:, groups - k, None], out=least)
    found = np.flatnonzero(values >= least)
    rows = found // max(m, 1)
    return rows, found - rows * m
