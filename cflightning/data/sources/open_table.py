"""A table of any format whose columns are yet to be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cflightning.data.sources.column_errors import Where


class Columns(NamedTuple):
    """Columns as they were read.

    Attributes:
        table: a pyarrow table.
        where: names a row of it for messages.
    """

    table: Any
    where: Where


class OpenTable(NamedTuple):
    """The column names of a table, and the way to its columns.

    Attributes:
        source: its name for messages.
        names: its columns.
        read: reads the columns that are named; to be called once.
        hint: what messages about missing columns end with.
        notes: what was understood of the file, such as its encoding.
    """

    source: str
    names: list[str]
    read: Callable[[Sequence[str]], Columns]
    hint: str = ""
    notes: tuple[str, ...] = ()
