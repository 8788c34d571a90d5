"""Digests of a ratings table and of its split, which identify data and parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cflightning.data.ids import IdColumn

CHUNK = 1 << 20
"""Rows that are hashed at a time."""
DIGITS = 32
"""Hexadecimal digits of a digest."""


def digest_rows(user: IdColumn, item: IdColumn, columns: Mapping[str, np.ndarray | None]) -> str:
    """Return a digest of the rows of a table in their order, as 32 hexadecimal digits.

    Two tables with the same digest have equal rows and, for equal options, equal splits. Ids that occur in no row do
    not count. The order counts, since most splits choose positions. Four threads hash about 2 GB of columns per second
    each: 100 million rows of 20 bytes take a second.

    Args:
        user: User ids.
        item: Item ids.
        columns: Name -> values of the rows, such as ratings; None where the table lacks the column.
    """
    present = {name: column for name, column in columns.items() if column is not None}
    with ThreadPoolExecutor(4) as pool:
        ids = [pool.submit(_digest_ids, column) for column in (user, item)]
        others = [pool.submit(_digest_array, column) for column in present.values()]
        digest = hashlib.sha256(f"{len(user)}".encode())
        digest.update(",".join(present).encode())
        for column in (*ids, *others):
            digest.update(column.result())
    return digest.hexdigest()[:DIGITS]


def digest_parts(parts: np.ndarray) -> str:
    """Return a digest of the part of every row (uint8 [rows]), as 32 hexadecimal digits."""
    return _digest_array(parts).hex()[:DIGITS]


def _digest_ids(column: IdColumn) -> bytes:
    """Return a digest of the ids of all rows, independent of other ids that the column was encoded with."""
    present = np.zeros(len(column.ids), dtype=bool)
    for start in range(0, len(column), CHUNK):
        present[column.codes[start : start + CHUNK]] = True
    values = column.ids.values[present]
    digest = hashlib.sha256(f"{column.ids.kind} {len(values)}".encode())
    if column.ids.kind == "int64":
        digest.update(np.ascontiguousarray(values).data)
    else:
        encoded = [str(value).encode("utf-8", "surrogatepass") for value in values.tolist()]
        digest.update(np.array([len(text) for text in encoded], dtype=np.int64).data)
        digest.update(b"".join(encoded))
    new_codes = np.cumsum(present, dtype=np.int32) - np.int32(1)
    for start in range(0, len(column), CHUNK):
        codes = column.codes[start : start + CHUNK]
        digest.update(np.ascontiguousarray(codes if len(values) == len(present) else new_codes[codes]).data)
    return digest.digest()


def _digest_array(column: np.ndarray) -> bytes:
    digest = hashlib.sha256(f"{column.dtype.str} {len(column)}".encode())
    for start in range(0, len(column), CHUNK):
        digest.update(np.ascontiguousarray(column[start : start + CHUNK]).data)
    return digest.digest()
