"""JSON lines and JSON arrays with one object per row."""

from __future__ import annotations

import codecs
import io
import itertools
import json
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.json

from cflightning.data.sources.archive import SourceFile
from cflightning.data.sources.encodings import to_utf8
from cflightning.data.sources.limits import check_columns
from cflightning.data.sources.open_table import Columns, OpenTable
from cflightning.errors import DataError

_SAMPLE = 1000
"""Number of objects whose keys are the columns."""
_BLOCK, _LARGEST = 1 << 20, 1 << 26
"""Bytes that are decoded at a time, and the maximum size of one object."""
_REMEDY = "write one object for each row, as pandas does with frame.to_json(path, orient='records', lines=True)"


def open_json(file: SourceFile, encoding: str | None = None) -> OpenTable:
    """Open JSON lines or an array of objects; values are texts, numbers, booleans or lists of texts.

    Args:
        file: The text file.
        encoding: As for `to_utf8`.

    Raises:
        DataError: The file is not JSON, or its values are not objects.
    """
    raw = to_utf8(file.read(), str(file), encoding)
    sample = list(itertools.islice(_objects(raw, str(file)), _SAMPLE))
    names = list(dict.fromkeys(name for _, row in sample for name in row))
    check_columns(str(file), len(names))
    if not names:
        raise DataError(f"{file}: must be a table, got no row in it; {_REMEDY}")
    content = [raw]  # released when read

    def where(row: int) -> str:
        again = _objects(to_utf8(file.read(), str(file), encoding), str(file))
        return f"{file}: {next(itertools.islice(again, row, None))[0]}"

    def read(columns: Sequence[str]) -> Columns:
        return Columns(_read(content.pop(), str(file), [row for _, row in sample], columns), where)

    return OpenTable(str(file), names, read)


def _read(raw: bytes, source: str, sample: list[dict[str, object]], columns: Sequence[str]) -> pa.Table:
    table = _read_lines(raw, sample, columns)
    if table is not None:
        return table
    values: dict[str, list[object]] = {name: [] for name in columns}
    for place, row in _objects(raw, source):
        for name in columns:
            values[name].append(_plain(row.get(name), name, f"{source}: {place}"))
    return pa.table({name: _column(column) for name, column in values.items()})


def _read_lines(raw: bytes, sample: list[dict[str, object]], columns: Sequence[str]) -> pa.Table | None:
    """Read JSON lines by pyarrow; None if it fails, and the slower reader then succeeds or reports the error."""
    types = {name: _type({type(row.get(name)) for row in sample}) for name in columns}
    if raw.lstrip()[:1] != b"{" or None in types.values():
        return None
    try:
        return pyarrow.json.read_json(
            pa.BufferReader(raw),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore"
            ),
        ).select(columns)
    except (pa.ArrowInvalid, KeyError):
        return None


def _type(kinds: set[type]) -> pa.DataType | None:
    """Return the Arrow type of a column with values of these types; None if they are mixed or unknown."""
    kinds = kinds - {type(None)}
    if kinds in ({int, float}, {float}):
        return pa.float64()
    return {int: pa.int64(), str: pa.string(), bool: pa.bool_()}.get(next(iter(kinds))) if len(kinds) == 1 else None


def _column(values: list[object]) -> pa.Array:
    """Make a column of the values' common type, else of text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value: object, name: str, where: str) -> object:
    """Check one value; a list of texts, such as genres, is joined by ``|``."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "|".join(value)
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}, column {name!r}: must be text, got half of a character (a lone \\ud800 or its like); "
                "correct or remove it"
            ) from error
    if isinstance(value, (list, dict)):
        kind = "a list" if isinstance(value, list) else "an object"
        raise DataError(f"{where}, column {name!r}: must be text or a number, got {kind}; {_REMEDY}")
    return value


def _objects(raw: bytes, source: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Iterate over the objects and their places: lines, or numbers in the array.

    Raises:
        DataError: A value is not an object.
    """
    values = _parse_array(raw, source) if raw.lstrip()[:1] == b"[" else _parse_lines(raw, source)
    for place, row in values:
        if not isinstance(row, dict):
            raise DataError(f"{source}: {place}: must be a JSON object, got {str(row)[:60]!r}; {_REMEDY}")
        yield place, row


def _parse_lines(raw: bytes, source: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(io.BytesIO(raw), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _not_json(source, f"line {number}", line.decode(), error) from error


def _parse_array(raw: bytes, source: str) -> Iterator[tuple[str, object]]:
    """Iterate over the values of an array; decoding by blocks keeps time linear and memory small."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    parse = json.JSONDecoder().raw_decode
    text, at, taken = "", 0, raw.index(b"[") + 1
    for number in itertools.count(1):
        while True:
            at += len(text[at : at + 100]) - len(text[at : at + 100].lstrip(", \t\r\n"))
            try:
                if text[at] == "]":
                    if text[at + 1 :].strip() or raw[taken:].strip():
                        raise DataError(f"{source}: must end where its array ends, but something follows; {_REMEDY}")
                    return
                value, at = parse(text, at)
                break
            except (IndexError, ValueError, RecursionError) as error:
                if isinstance(error, DataError):
                    raise
                if taken == len(raw) or len(text) - at > _LARGEST:
                    raise _not_json(source, f"row {number}", text[at:], error) from error
            end = min(taken + max(_BLOCK, len(text) - at), len(raw))
            text, at, taken = text[at:] + decode(raw[taken:end], end == len(raw)), 0, end
        yield f"row {number}", value


def _not_json(source: str, place: str, text: str, error: Exception) -> DataError:
    reason = getattr(error, "msg", str(error))[:80]  # without positions, which count from the block's start
    return DataError(f"{source}: {place}: must be a JSON object, got {text.rstrip()[:60]!r} ({reason}); {_REMEDY}")
