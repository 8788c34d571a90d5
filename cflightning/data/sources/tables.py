"""Any ratings table: delimited text, JSON, Parquet and other binary formats, or a pandas frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cflightning.data.sources.archive import TextFile
from cflightning.data.sources.binary import open_binary
from cflightning.data.sources.columns import choose_columns, to_table
from cflightning.data.sources.csv_rows import is_number
from cflightning.data.sources.delimited import no_header, open_text
from cflightning.data.sources.json_rows import open_json
from cflightning.data.sources.netflix import is_netflix, open_netflix
from cflightning.data.sources.open_table import Columns, OpenTable
from cflightning.data.sources.options import AS_WRITTEN, ValueOptions
from cflightning.data.table import Origin, RatingTable
from cflightning.errors import DataError

ROLES = ("user", "item", "rating", "timestamp", "title", "categories", "weight")
OF_ITEMS = {"title", "categories"}
"""Roles of columns that repeat themselves: each item's first value counts."""


def read_any(
    file: TextFile,
    *,
    columns: dict[str, str | None],
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    need_rating: bool = True,
    values: ValueOptions = AS_WRITTEN,
) -> RatingTable:
    """Read one table file of any format; its first bytes say which.

    Args:
        file: the file.
        columns: role -> column name, or None to go by the usual names.
        names: column names of a text file without a header line.
        delimiter: of a text file; None to go by the header line.
        encoding: of a text file; None for UTF-8, or else a guess.
        need_rating: whether a rating column must be there; if not, it is not read either.
        values: how the values are meant.

    Raises:
        DataError: with file, line, column, value and count of what is wrong.
    """
    return to_ratings(open_any(file, names, delimiter, encoding), columns, need_rating=need_rating, values=values)


def open_any(
    file: TextFile, names: Sequence[str] | None = None, delimiter: str | None = None, encoding: str | None = None
) -> OpenTable:
    """Open a table file of any format; arguments as for `read_any`.

    Raises:
        DataError: a format that is not read, or a file that is not what it seems.
    """
    kind = file.format(encoding)
    if kind == "zip":
        raise DataError(f"{file}: must be a table, but is a zip file; unpack it")
    if kind in ("text", "json") and file.name.lower().endswith((".parquet", ".pq")):
        raise DataError(f"{file}: must be a Parquet file, but is text; write or download it again")
    if kind == "json" and names is None and delimiter is None:
        return open_json(file, encoding)
    if kind in ("text", "json"):
        if names is None and is_netflix(file.head()):
            return open_netflix(file)
        return open_text(file, delimiter=delimiter, names=names, encoding=encoding)
    return open_binary(file, kind)


def from_arrow(
    table: Any,
    source: str,
    columns: dict[str, str | None],
    *,
    need_rating: bool = True,
    values: ValueOptions = AS_WRITTEN,
) -> RatingTable:
    """A ratings table from a pyarrow table with typed columns, such as those of a pandas frame."""

    def read(wanted: Sequence[str]) -> Columns:
        return Columns(table.select(wanted), lambda row: f"{source}: row {row + 1}")

    opened = OpenTable(source, table.column_names, read)
    return to_ratings(opened, columns, need_rating=need_rating, values=values)


def to_ratings(
    opened: OpenTable,
    columns: dict[str, str | None],
    *,
    need_rating: bool = True,
    values: ValueOptions = AS_WRITTEN,
) -> RatingTable:
    """Read the columns of an open table that are asked for, and check and encode them; arguments as for `read_any`."""
    try:
        chosen = choose_columns(
            opened.names, dict.fromkeys(ROLES) | columns, opened.source, optional_roles(need_rating)
        )
    except DataError as error:
        if any(map(is_number, opened.names)) and not any(columns.values()):
            raise no_header(opened.source, opened.names) from error
        raise DataError(f"{error}{opened.hint}") from error
    read = {role: name for role, name in chosen.items() if need_rating or role != "rating"}
    table, where = opened.read(list(dict.fromkeys(read.values())))
    origin = Origin(read, tuple(name for name in opened.names if name not in read.values()), opened.notes)
    return to_table({role: table[name] for role, name in read.items()}, where, opened.source, values, origin)


def optional_roles(need_rating: bool) -> set[str]:
    """Return the roles that a table may lack."""
    return {"timestamp", "weight", *OF_ITEMS} | (set() if need_rating else {"rating"})
