"""Integer ids that lie close together: rows are found in a table with a place for every integer among them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cflightning.data.ids import Ids

SPARSEST = 8
"""Places for each id, at most: so many take less than the keys of the LabelEncoders that they replace."""


class Dense(NamedTuple):
    """A table of rows.

    Attributes:
        first: the integer at place 0.
        last: the largest id.
        rows: int64 [last - first + 2]; 0 where there is no id, as at the last place, which is of no integer.
    """

    first: int
    last: int
    rows: NDArray[np.int64]


def dense(ids: Ids) -> Dense | None:
    """The table of some ids, from 0 where they begin near it; None for strings, none at all, and integers far apart."""
    if ids.kind != "int64" or not len(ids):
        return None
    low, last = int(ids.values[0]), int(ids.values[-1])
    if last - low >= SPARSEST * len(ids) or low == -(2**63) or last == 2**63 - 1:  # integers beyond both ends exist
        return None
    first = 0 if 0 <= low <= len(ids) else low
    rows = np.zeros(last - first + 2, np.int64)
    rows[ids.values - first] = np.arange(1, len(ids) + 1)
    return Dense(first, last, rows)


def narrowest(values: NDArray[np.int64]) -> type[np.integer[Any]]:
    """The smallest of uint16, int32 and int64 that holds integers."""
    for kind in (np.uint16, np.int32):
        if np.iinfo(kind).min <= values.min(initial=0) and values.max(initial=0) <= np.iinfo(kind).max:
            return kind
    return np.int64
