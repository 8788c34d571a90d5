"""Ratings tables of any format: delimited text, JSON, Parquet and other binary formats, or a pandas frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cflightning.data.sources.archive import SourceFile
from cflightning.data.sources.binary import open_binary
from cflightning.data.sources.columns import choose_columns, to_table
from cflightning.data.sources.csv_rows import is_number
from cflightning.data.sources.delimited import no_header, open_text
from cflightning.data.sources.json_rows import open_json
from cflightning.data.sources.layout import DataSet, Location
from cflightning.data.sources.netflix import is_netflix, open_netflix
from cflightning.data.sources.open_table import Columns, OpenTable
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.table import Origin, RatingTable
from cflightning.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

OPTIONAL_ROLES = {"timestamp", "weight", "title", "categories"}
"""Roles of columns that a table may lack."""


def find_file(location: Location) -> DataSet | None:
    """Recognise a single table file of any format."""
    if location.name is None:
        return None
    file = SourceFile(location.files, location.name)
    return DataSet((location.name,), lambda: read_any(file, location.table_format))


def read_any(file: SourceFile, table_format: TableFormat = PLAIN_TABLE) -> RatingTable:
    """Read one table file of any format, detected by its first bytes.

    Args:
        file: The file.
        table_format: Its columns and notation.

    Raises:
        DataError: Names file, line, column, value and count of what is wrong.
    """
    return to_ratings(open_any(file, table_format), table_format)


def open_any(file: SourceFile, table_format: TableFormat = PLAIN_TABLE) -> OpenTable:
    """Open a table file of any file format; arguments as for `read_any`.

    Raises:
        DataError: The file format is not supported, or contradicts the extension of the file.
    """
    names, delimiter, encoding = table_format.names, table_format.delimiter, table_format.encoding
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


def from_arrow(table: pa.Table, source: str, table_format: TableFormat) -> RatingTable:
    """A ratings table from a pyarrow table with typed columns, such as those of a pandas frame."""

    def read(wanted: Sequence[str]) -> Columns:
        return Columns(table.select(wanted), lambda row: f"{source}: row {row + 1}")

    opened = OpenTable(source, table.column_names, read)
    return to_ratings(opened, table_format)


def to_ratings(opened: OpenTable, table_format: TableFormat) -> RatingTable:
    """Read, check and encode the columns of an open table; arguments as for `read_any`."""
    columns = table_format.columns
    try:
        chosen = choose_columns(opened.names, columns, opened.source, optional_roles(table_format))
    except DataError as error:
        if any(map(is_number, opened.names)) and not any(columns.values()):
            raise no_header(opened.source, opened.names) from error
        raise DataError(f"{error}{opened.hint}") from error
    table, where = opened.read(list(dict.fromkeys(chosen.values())))
    origin = Origin(chosen, tuple(name for name in opened.names if name not in chosen.values()), opened.notes)
    return to_table({role: table[name] for role, name in chosen.items()}, where, opened.source, table_format, origin)


def optional_roles(table_format: TableFormat) -> set[str]:
    """Return the roles of columns that a table may lack."""
    return OPTIONAL_ROLES if table_format.reads_ratings else OPTIONAL_ROLES | {"rating"}
