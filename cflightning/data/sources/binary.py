"""Binary tables that Arrow reads: Parquet, Arrow (Feather) and ORC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from cflightning.data.sources.files import TextFile
from cflightning.data.sources.limits import check_columns, check_size
from cflightning.data.sources.opened import Columns, OpenTable
from cflightning.errors import DataError

_ROW = 12
"""Bytes that a row of a ratings table takes at least: two codes and a rating."""


def open_binary(file: TextFile, kind: str) -> OpenTable:
    """Open a binary table, of which only the columns that are asked for are read.

    Args:
        file: the table.
        kind: `parquet`, `arrow`, `arrow stream`, `feather` (its first version) or `orc`.

    Raises:
        DataError: a damaged file, or one that does not fit into memory.
    """
    try:
        names, read = _OPENERS[kind](file)
    except _ERRORS as error:
        raise _damaged(file, kind, error) from error
    check_columns(str(file), len(names))

    def read_columns(columns: Sequence[str]) -> Columns:
        try:
            return Columns(read(list(columns)), lambda row: f"{file}: row {row + 1}")
        except _ERRORS as error:
            raise _damaged(file, kind, error) from error

    return OpenTable(str(file), names, read_columns)


_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowSerializationError, pa.ArrowKeyError, OSError)
_Opened = tuple[list[str], Callable[[list[str]], Any]]


def _damaged(file: TextFile, kind: str, error: Exception) -> DataError:
    called = {"parquet": "a Parquet", "orc": "an ORC"}.get(kind, "an Arrow")
    if isinstance(error, OSError) and error.errno is not None:
        return DataError(f"{file}: cannot be read ({error.strerror})")
    return DataError(f"{file}: must be {called} file, but {str(error)[:150]}; write or download it again")


def _parquet(file: TextFile) -> _Opened:
    import pyarrow.parquet

    opened = pyarrow.parquet.ParquetFile(file.source())
    check_size(str(file), opened.metadata.num_rows * _ROW)
    return opened.schema_arrow.names, lambda columns: opened.read(columns=columns)


def _arrow(file: TextFile) -> _Opened:
    names = pa.ipc.open_file(file.source()).schema.names

    def batches(columns: list[str]) -> Any:
        chosen = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
        opened = pa.ipc.open_file(file.source(), options=chosen)
        return opened.schema, (opened.get_batch(n) for n in range(opened.num_record_batches))

    return names, partial(_collect, str(file), batches)


def _arrow_stream(file: TextFile) -> _Opened:
    names = pa.ipc.open_stream(file.source()).schema.names

    def batches(columns: list[str]) -> Any:
        chosen = pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns])
        opened = pa.ipc.open_stream(file.source(), options=chosen)
        return opened.schema, opened

    return names, partial(_collect, str(file), batches)


def _collect(source: str, batches: Callable[[list[str]], Any], columns: list[str]) -> Any:
    """Put record batches together, within the limits."""
    schema, stream = batches(columns)
    found, size = [], 0
    for batch in stream:
        size += batch.nbytes
        check_size(source, size)
        found.append(batch)
    return pa.Table.from_batches(found, schema).select(columns)


def _feather(file: TextFile) -> _Opened:
    import pyarrow.feather

    table = pyarrow.feather.read_table(file.source())
    return table.column_names, table.select


def _orc(file: TextFile) -> _Opened:
    import pyarrow.orc

    opened = pyarrow.orc.ORCFile(file.source())
    check_size(str(file), opened.nrows * _ROW)
    return opened.schema.names, lambda columns: opened.read(columns=columns)


_OPENERS: dict[str, Callable[[TextFile], _Opened]] = {
    "parquet": _parquet, "arrow": _arrow, "arrow stream": _arrow_stream, "feather": _feather, "orc": _orc,
}  # fmt: skip
