"""Digests of a ratings table and of its split, by which other data and other rows are recognised."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from cflightning.data.ids import IdColumn

if TYPE_CHECKING:
    from cflightning.data.table import RatingTable

CHUNK = 1 << 20
"""Rows that are hashed at a time."""
DIGITS = 32
"""Hexadecimal digits of a digest."""
COLUMNS = ("rating", "weight", "timestamp", "test_rows")


def digest_table(table: RatingTable) -> str:
    """Return a digest of the rows of a table in their order: ids, ratings, weights, times and the source's test part.

    Two tables have the same digest where every split cuts them alike and every row says the same. Neither names and
    titles count nor ids that occur in no row. The order counts, since most splits draw positions. Columns are hashed
    by threads, about 2 GB of columns a second for each: 100 million rows of 20 bytes take a second.

    Args:
        table: Any table.

    Returns:
        32 hexadecimal digits.
    """
    optional = {name: getattr(table, name) for name in COLUMNS}
    with ThreadPoolExecutor(4) as pool:
        sides = [pool.submit(_digest_ids, column) for column in (table.user, table.item)]
        others = [pool.submit(_digest_array, column) for column in optional.values() if column is not None]
        whole = hashlib.sha256(f"{len(table)}".encode())
        whole.update(",".join(name for name, column in optional.items() if column is not None).encode())
        for part in (*sides, *others):
            whole.update(part.result())
    return whole.hexdigest()[:DIGITS]


def digest_parts(parts: np.ndarray) -> str:
    """Return a digest of the part of every row (uint8 [rows]): 32 hexadecimal digits."""
    return _digest_array(parts).hex()[:DIGITS]


def _digest_ids(column: IdColumn) -> bytes:
    """Return a digest of the ids of all rows, whatever other ids the column was encoded with."""
    present = np.zeros(len(column.ids), dtype=bool)
    for start in range(0, len(column), CHUNK):
        present[column.codes[start : start + CHUNK]] = True
    values = column.ids.values[present]
    digest = hashlib.sha256(f"{column.ids.kind} {len(values)}".encode())
    if column.ids.kind == "int64":
        digest.update(np.ascontiguousarray(values).data)
    else:
        written = [str(value).encode("utf-8", "surrogatepass") for value in values.tolist()]
        digest.update(np.array([len(value) for value in written], dtype=np.int64).data)
        digest.update(b"".join(written))
    place = np.cumsum(present, dtype=np.int32) - np.int32(1)
    for start in range(0, len(column), CHUNK):
        codes = column.codes[start : start + CHUNK]
        digest.update(np.ascontiguousarray(codes if len(values) == len(present) else place[codes]).data)
    return digest.digest()


def _digest_array(column: np.ndarray) -> bytes:
    digest = hashlib.sha256(f"{column.dtype.str} {len(column)}".encode())
    for start in range(0, len(column), CHUNK):
        digest.update(np.ascontiguousarray(column[start : start + CHUNK]).data)
    return digest.digest()
