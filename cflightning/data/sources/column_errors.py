"""Errors about the values of a column: place, column, value and number of bad rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from cflightning.errors import DataError

Where = Callable[[int], str]
"""Function from a row to its place in messages: ``where(16)`` -> ``"ratings.csv: line 18"``."""


def bad_rows(column: pa.ChunkedArray, rows: np.ndarray, role: str, where: Where, must: str, remedy: str) -> DataError:
    """Return the error for bad rows of a column.

    Args:
        column: The column.
        rows: Bad rows, int [n], at least one.
        role: Role of the column, such as `rating`.
        where: Names a row.
        must: Requirement that the values violate.
        remedy: Advice to the user.
    """
    first = int(rows[0])
    return DataError(
        f"{where(first)}, column {role!r}: {must}, got {show(column[first].as_py())}{count_more(len(rows))}; {remedy}"
    )


def show(value: object) -> str:
    """Format a value for a message, at most 80 characters."""
    if value is None or value == "" or value != value:  # the last is NaN
        return "nothing"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def show_names(names: Iterable[str]) -> str:
    """Format names for a message, at most 160 characters."""
    text = ", ".join(names)
    return text if len(text) <= 160 else f"{text[:159]}…"


def count_more(number: int) -> str:
    """Format the number of further bad rows: `` (and 2 more such rows)``, or nothing for a single one."""
    return "" if number < 2 else f" (and {number - 1:,} more such row{'s' if number > 2 else ''})"


def decode(column: pa.ChunkedArray, distinct: pa.Array, codes: np.ndarray, role: str, where: Where) -> list[str]:
    """Decode the distinct texts of a column.

    Args:
        column: Column of strings.
        distinct: Distinct values.
        codes: Indices of the values, int32 [rows].
        role: Role of the column.
        where: Names a row.

    Raises:
        DataError: A text is not UTF-8; Parquet files may hold such bytes.
    """
    try:
        texts: list[str] = distinct.to_pylist()
    except UnicodeDecodeError as error:
        row = int(np.flatnonzero(codes == undecodable(distinct))[0])
        raise DataError(
            f"{where(row)}, column {role!r}: must be UTF-8, got bytes that are not ({error.reason}); "
            "write the column as text"
        ) from error
    return texts


def undecodable(column: pa.ChunkedArray | pa.Array) -> int:
    """Return the first row that is not UTF-8, or 0."""
    for row, value in enumerate(column):
        try:
            content = value.as_py()
            _ = content.decode() if isinstance(content, bytes) else content
        except UnicodeDecodeError:
            return row
    return 0
