"""The one error that names place, column, value and count of what is wrong with a column."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from cflightning.errors import DataError

Where = Callable[[int], str]
"""Names a row for messages: ``where(16)`` -> ``"ratings.csv: line 18"``."""


def bad_rows(column: Any, rows: np.ndarray, role: str, where: Where, must: str, remedy: str) -> DataError:
    """Make the error of some rows of a column.

    Args:
        column: pyarrow array.
        rows: int [n], at least one.
        role: of the column.
        where: names a row.
        must: what the values must be.
        remedy: what to do.
    """
    first = int(rows[0])
    return DataError(
        f"{where(first)}, column {role!r}: {must}, got {show(column[first].as_py())}{count_more(len(rows))}; {remedy}"
    )


def show(value: Any) -> str:
    """Return a value for a message, shortened if it is long."""
    if value is None or value == "" or value != value:  # the last is NaN
        return "nothing"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def show_names(names: Iterable[str]) -> str:
    """Return names for a message, as many as fit into it."""
    text = ", ".join(names)
    return text if len(text) <= 160 else f"{text[:159]}…"


def count_more(number: int) -> str:
    """Return how many other rows have the same fault: `` (and 2 more such rows)``, or nothing for a single one."""
    return "" if number < 2 else f" (and {number - 1:,} more such row{'s' if number > 2 else ''})"


def decode(column: Any, distinct: Any, codes: np.ndarray, role: str, where: Where) -> list[str]:
    """Return the distinct texts of a column.

    Args:
        column: pyarrow array of strings.
        distinct: its distinct values.
        codes: int32 [rows], numbers of the values.
        role: of the column.
        where: names a row.

    Raises:
        DataError: a text that is no UTF-8, which Parquet files may hold.
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


def undecodable(column: Any) -> int:
    """Return the first row whose bytes are no UTF-8; 0 if there is none."""
    for row, value in enumerate(column):
        try:
            found = value.as_py()
            _ = found.decode() if isinstance(found, bytes) else found
        except UnicodeDecodeError:
            return row
    return 0
