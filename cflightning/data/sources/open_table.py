"""Tables whose header is known and whose columns are read on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from cflightning.data.sources.column_errors import Where


class Columns(NamedTuple):
    """Columns of a table.

    Attributes:
        table: The columns.
        where: Names a row in messages.
    """

    table: pa.Table
    where: Where


class OpenTable(NamedTuple):
    """Column names of a table and a function that reads columns.

    Attributes:
        source: Name of the table in messages.
        names: Column names.
        read: Function that reads the named columns; it may be called once.
        hint: Advice that ends messages about missing columns.
        notes: Detected properties of the file, such as its encoding.
    """

    source: str
    names: list[str]
    read: Callable[[Sequence[str]], Columns]
    hint: str = ""
    notes: tuple[str, ...] = ()
