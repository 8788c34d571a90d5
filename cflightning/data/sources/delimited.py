"""Delimited text (CSV, TSV and others): delimiter, header, rows and unbalanced quotes."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cflightning.data.sources.archive import SourceFile
from cflightning.data.sources.column_errors import show_names
from cflightning.data.sources.csv_rows import (
    MOST_BAD,
    Shape,
    find_line,
    is_number,
    may_hold_line_ends,
    parse_rows,
    too_long,
    without_open_quotes,
)
from cflightning.data.sources.encodings import recode, to_utf8
from cflightning.data.sources.limits import MAX_LINE, check_columns
from cflightning.data.sources.open_table import Columns, OpenTable
from cflightning.errors import DataError

log = logging.getLogger(__name__)

_DELIMITERS = ("\t", ";", "|", ",")
USUAL_ORDER = ("user", "item", "rating", "timestamp")


def open_text(
    file: SourceFile,
    *,
    delimiter: str | None = None,
    names: Sequence[str] | None = None,
    encoding: str | None = None,
    quoting: bool = True,
) -> OpenTable:
    """Open delimited text; its columns are uninterpreted strings.

    Args:
        file: The text file.
        delimiter: One character, or MovieLens' ``::``; None to detect it in the header line.
        names: Column names of a file without a header line.
        encoding: As for `to_utf8`.
        quoting: Whether double quotes may enclose values.

    Raises:
        DataError: The file is empty or has no header line; when read, rows of different lengths.
    """
    raw, known_as = recode(file.read(), str(file), encoding)
    if not raw.strip():
        raise DataError(f"{file}: must be a table, got an empty file; is it the right one?")
    first, skip = _find_first_line(raw, str(file))
    if delimiter is None:
        delimiter = "::" if first.count("::") >= 2 else max(reversed(_DELIMITERS), key=first.count)
    if delimiter == "::":
        raw, first, delimiter = raw.replace(b"::", b"\t"), first.replace("::", "\t"), "\t"
    if len(delimiter) != 1 or not delimiter.isascii():
        raise DataError(f"--data.table.delimiter: must be one character of ASCII or '::', got {delimiter[:40]!r}")
    check_columns(str(file), first.count(delimiter) + 1)
    if names is not None:
        header, skip = list(names), 0
    else:
        header = _header(first, delimiter, quoting)
    if names is None and all(is_number(name) for name in header):
        raise no_header(str(file), header)
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise DataError(
            f"{file}: must have columns of different names, got {', '.join(twice[:3])[:100]} more than once; rename"
        )
    shape = Shape(str(file), header, skip, delimiter, quoting, f"{delimiter} " in first)
    content = [raw]  # released when read: columns and text need not be in memory together

    def read(columns: Sequence[str]) -> Columns:
        return _read(content.pop(), file, shape, columns, encoding)

    notes = (known_as, f"delimiter {delimiter!r}", *(() if names is None else ("no header line",)))
    return OpenTable(str(file), header, read, notes=notes)


def read_text(file: SourceFile, delimiter: str | None = None) -> pa.Table:
    """Read all columns of a text table with a header line; arguments and errors as for `open_text`."""
    opened = open_text(file, delimiter=delimiter)
    return opened.read(opened.names).table


def no_header(source: str, names: Sequence[str]) -> DataError:
    """Return the error for a table whose first line is a row."""
    usual = ",".join([*USUAL_ORDER, "other1", "other2"][: len(names)]) + (",…" if len(names) > 6 else "")
    return DataError(
        f"{source}: must have a header line, but seems to have none: the first line is {', '.join(names)[:60]!r}; "
        f"add one, or name the columns in their order, for example --data.table.column_names {usual}"
    )


def _find_first_line(raw: bytes, source: str) -> tuple[str, int]:
    """Return the first line that is not empty, and its 1-based number."""
    start = raw[:MAX_LINE]
    lines = start.splitlines()
    number = next((n for n, line in enumerate(lines) if line.strip()), None)
    if number is None or (number == len(lines) - 1 and len(raw) > MAX_LINE and start[-1:] not in b"\r\n"):
        raise DataError(f"{source}: must have lines of at most {MAX_LINE:,} bytes, got a longer one at its start")
    return lines[number].decode("utf-8"), number + 1


def _header(line: str, delimiter: str, quoting: bool) -> list[str]:
    try:
        names = (
            next(csv.reader([line], delimiter=delimiter, skipinitialspace=True)) if quoting else line.split(delimiter)
        )
    except csv.Error:
        names = line.split(delimiter)
    return [name.strip() for name in names]


def _read(raw: bytes, file: SourceFile, shape: Shape, columns: Sequence[str], encoding: str | None) -> Columns:
    quoted = shape.quoting and b'"' in raw
    shape = shape._replace(quoting=quoted)
    # An unbalanced quote in any column could swallow rows, so all columns are parsed.
    parsed = parse_rows(raw, shape, shape.names if quoted else columns)
    if quoted and (shape.spaced or (parsed is not None and parsed.bad)):
        closer = re.sub(re.escape(shape.delimiter.encode()) + rb' +"', shape.delimiter.encode() + b'"', raw)
        if len(closer) < len(raw):
            again = parse_rows(closer, shape, shape.names)
            if again is not None and not again.bad:
                raw, parsed = closer, again
    if quoted:
        parsed, shape = without_open_quotes(raw, shape, parsed)
    elif parsed is None:
        raise too_long(raw, shape)
    assert parsed is not None
    if parsed.bad:
        raise _bad_rows(raw, shape, parsed.bad)
    assert parsed.table is not None
    table = parsed.table.select(columns)
    if shape.quoting and may_hold_line_ends(raw, shape, parsed):
        _warn_of_line_ends(raw, shape, table)
    if _may_have_blanks(raw, shape.delimiter):
        table = pa.table({name: _trim(table[name]) for name in columns})

    def where(row: int) -> str:
        return f"{file}: line {find_line(to_utf8(file.read(), str(file), encoding), row, shape)}"

    return Columns(table, where)


def _warn_of_line_ends(raw: bytes, shape: Shape, table: pa.Table) -> None:
    for name in table.column_names:
        rows = pc.indices_nonzero(pc.match_substring_regex(table[name], "[\r\n]"))
        if len(rows):
            log.warning("%s: line %d, column %r: holds a line end inside quotes (%d such value(s))",
                        shape.source, find_line(raw, rows[0].as_py(), shape), name, len(rows))  # fmt: skip


def _bad_rows(raw: bytes, shape: Shape, bad: list[pa.csv.InvalidRow]) -> DataError:
    row = bad[0]
    line = f"line {find_line(raw, row.number - shape.skip - 1, shape)}"
    opened = ", where a double quote opens that does not close" if "\n" in row.text else ""
    like = " like the first line" if shape.skip else f" ({show_names(shape.names)})"
    count = f"{'at least ' if len(bad) == MOST_BAD else ''}{len(bad):,} such line{'s' if len(bad) > 1 else ''}"
    return DataError(
        f"{shape.source}: {line}{opened}: must have {row.expected_columns} values{like}, got "
        f"{row.actual_columns} ({row.text[:80]!r}; {count}, delimiter {shape.delimiter!r}); correct the lines, or "
        "give another --data.table.delimiter"
    )


def _may_have_blanks(raw: bytes, delimiter: str) -> bool:
    """Return whether blanks stand beside delimiters or line ends, quoted text included."""
    mark = delimiter.encode()
    if mark == b" " or not (b" " in raw or (mark != b"\t" and b"\t" in raw)):
        return False
    return (
        any(
            blank + other in raw or other + blank in raw
            for blank in (b" ", b"\t")
            if blank != mark
            for other in (mark, b"\n")
        )
        or b" \r" in raw
    )


def _trim(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strip blanks around values."""
    beside = (test(column, blank) for blank in " \t" for test in (pc.starts_with, pc.ends_with))
    return pc.utf8_trim_whitespace(column) if any(pc.any(matches).as_py() for matches in beside) else column
