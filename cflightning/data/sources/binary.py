"""Binary tables: Parquet, Arrow (Feather) and ORC, read by pyarrow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pyarrow as pa

from cflightning.data.sources.archive import SourceFile
from cflightning.data.sources.limits import check_columns, check_size
from cflightning.data.sources.open_table import Columns, OpenTable
from cflightning.errors import DataError


def open_binary(file: SourceFile, kind: str) -> OpenTable:
    """Open a binary table, from which only the requested columns are read.

    Args:
        file: The table.
        kind: `parquet`, `arrow`, `arrow stream`, `feather` (version 1) or `orc`.

    Raises:
        DataError: The file is damaged or does not fit into memory.
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
_BATCH = 1 << 17
"""Rows of a Parquet file that are decoded at a time."""
_Source: TypeAlias = str | pa.BufferReader
_Opened: TypeAlias = tuple[list[str], Callable[[list[str]], pa.Table]]
"""Column names, and a function that reads some of them."""


def _damaged(file: SourceFile, kind: str, error: Exception) -> DataError:
    called = {"parquet": "a Parquet", "orc": "an ORC"}.get(kind, "an Arrow")
    if isinstance(error, OSError) and error.errno is not None:
        return DataError(f"{file}: cannot be read ({error.strerror})")
    return DataError(f"{file}: must be {called} file, but {str(error)[:150]}; write or download it again")


def _check_rows(file: SourceFile, source: _Source, rows: int, schema: pa.Schema, columns: list[str]) -> int:
    """Check the decoded size against the limits before decoding; equal values take next to no space in a file.

    Returns:
        Bytes of the file.
    """
    packed = os.path.getsize(source) if isinstance(source, str) else int(source.size())
    check_size(str(file), rows * sum(_width(schema.field(name).type) for name in columns), packed)
    return packed


def _width(kind: pa.DataType) -> int:
    """Return the least bytes that a value of a type takes in memory."""
    try:
        return int(kind.bit_width) // 8
    except ValueError:
        return 4  # the offset of a string


def _parquet(file: SourceFile) -> _Opened:
    import pyarrow.parquet

    source = file.source()
    opened = pyarrow.parquet.ParquetFile(source)
    schema = opened.schema_arrow

    def read(columns: list[str]) -> pa.Table:
        packed = _check_rows(file, source, opened.metadata.num_rows, schema, columns)
        batches, size = [], 0
        for batch in opened.iter_batches(_BATCH, columns=columns):  # one long text may be repeated in every row
            size += batch.nbytes
            check_size(str(file), size, packed)
            batches.append(batch.select(columns))
        return pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in columns]))

    return schema.names, read


def _arrow(file: SourceFile) -> _Opened:
    import pyarrow.dataset
    import pyarrow.fs

    source = file.source()
    schema = pa.ipc.open_file(_from_start(source)).schema

    def read(columns: list[str]) -> pa.Table:
        disk = pyarrow.fs.LocalFileSystem() if isinstance(source, str) else None
        rows = pyarrow.dataset.IpcFileFormat().make_fragment(source, filesystem=disk).count_rows()
        _check_rows(file, source, rows, schema, columns)
        chosen = pa.ipc.IpcReadOptions(included_fields=[schema.names.index(name) for name in columns])
        return pa.ipc.open_file(_from_start(source), options=chosen).read_all().select(columns)

    return schema.names, read


def _arrow_stream(file: SourceFile) -> _Opened:
    source = file.source()
    schema = pa.ipc.open_stream(_from_start(source)).schema

    def read(columns: list[str]) -> pa.Table:
        batches, size = [], 0
        for batch in pa.ipc.open_stream(_from_start(source)):
            size += batch.nbytes
            check_size(str(file), size)
            batches.append(batch.select(columns))
        return pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in columns]))

    return schema.names, read


def _from_start(source: _Source) -> pa.NativeFile:
    """Return a source as a stream at its start; not memory-mapped, since a mapped file may be truncated meanwhile."""
    if isinstance(source, str):
        return pa.OSFile(source)
    source.seek(0)
    return source


def _feather(file: SourceFile) -> _Opened:
    import pyarrow.feather

    table = pyarrow.feather.read_table(file.source())
    return table.column_names, table.select


def _orc(file: SourceFile) -> _Opened:
    import pyarrow.orc

    source = file.source()
    opened = pyarrow.orc.ORCFile(source)

    def read(columns: list[str]) -> pa.Table:
        _check_rows(file, source, opened.nrows, opened.schema, columns)
        return opened.read(columns=columns)

    return opened.schema.names, read


_OPENERS: dict[str, Callable[[SourceFile], _Opened]] = {
    "parquet": _parquet, "arrow": _arrow, "arrow stream": _arrow_stream, "feather": _feather, "orc": _orc,
}  # fmt: skip
