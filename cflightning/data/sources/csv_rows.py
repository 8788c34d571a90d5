"""Rows of delimited text, parsed by pyarrow, and detection of unbalanced quotes."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from cflightning.data.sources.limits import MAX_LINE
from cflightning.errors import DataError

log = logging.getLogger(__name__)

MOST_BAD = 10_000
"""Maximum number of malformed rows that are collected."""


class Shape(NamedTuple):
    """Syntax of a text table.

    Attributes:
        source: Name of the table in messages.
        names: Column names.
        skip: Lines before the first row.
        delimiter: One character.
        quoting: Whether double quotes may enclose values.
        spaced: Whether blanks follow delimiters.
    """

    source: str
    names: list[str]
    skip: int
    delimiter: str
    quoting: bool
    spaced: bool


class Parsed(NamedTuple):
    """Result of parsing a text.

    Attributes:
        table: Columns of strings; None if there are too many malformed rows.
        bad: Rows whose length differs from the header's; not in `table`.
    """

    table: pa.Table | None
    bad: list[pa.csv.InvalidRow]


def parse_rows(raw: bytes, shape: Shape, columns: Sequence[str]) -> Parsed | None:
    """Parse columns; None if a line or a quoted value is longer than pyarrow's blocks."""
    bad: list[pa.csv.InvalidRow] = []

    def parse(threads: bool, max_bad: int) -> pa.Table:
        def note(row: pa.csv.InvalidRow) -> str:
            bad.append(row)
            return "skip" if len(bad) < max_bad else "error"

        return pyarrow.csv.read_csv(
            pa.BufferReader(raw),
            read_options=pyarrow.csv.ReadOptions(column_names=shape.names, skip_rows=shape.skip, use_threads=threads),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=shape.delimiter,
                quote_char='"' if shape.quoting else False,
                newlines_in_values=shape.quoting,
                invalid_row_handler=note,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=False,
            ),
        )

    for threads, max_bad in ((True, 1), (False, MOST_BAD)):  # only a single thread reports row numbers
        bad.clear()
        try:
            return Parsed(parse(threads, max_bad), bad)
        except pa.ArrowInvalid as error:
            if not bad and ("straddl" in str(error) or "block" in str(error)):
                return None
            if not bad:
                raise DataError(
                    f"{shape.source}: cannot be read as delimited text ({str(error)[:150]}); check the file and its "
                    "delimiter"
                ) from error
    return Parsed(None, bad)


def may_hold_line_ends(raw: bytes, shape: Shape, parsed: Parsed) -> bool:
    """Return whether there are more lines than rows, because of empty lines or of line ends inside quotes."""
    if parsed.table is None:
        return True
    lines = raw.count(b"\n") + (raw[-1:] != b"\n")
    return lines != len(parsed.table) + len(parsed.bad) + shape.skip or raw.count(b"\r") not in (0, lines, lines - 1)


def without_open_quotes(raw: bytes, shape: Shape, parsed: Parsed | None) -> tuple[Parsed, Shape]:
    """Treat double quotes as plain characters if they would swallow whole rows.

    They would if the lines of a quoted value are rows themselves, or if a row that is too long or has another length
    than the header holds line ends. Quotes are plain if every line then has the length of the header.

    Raises:
        DataError: Quotes swallow rows, but cannot be plain characters everywhere.
    """
    sure = True
    if parsed is None:
        line = next((n for n, text in enumerate(_lines(raw), 1) if text.count('"') % 2), 0)
    elif not may_hold_line_ends(raw, shape, parsed):
        return parsed, shape
    else:
        swallowing, sure = (
            (None, False) if parsed.table is None else _find_swallowing_row(parsed.table, shape.delimiter)
        )
        broken = next((bad.number - shape.skip - 1 for bad in parsed.bad if "\n" in bad.text), None)
        row = swallowing if swallowing is not None else broken
        if row is None:
            return parsed, shape
        line = find_line(raw, row, shape)
    plain = shape._replace(quoting=False)
    unquoted = parse_rows(raw, plain, shape.names)
    if unquoted is None:
        raise too_long(raw, shape)
    if unquoted.bad:
        if parsed is not None and not sure:
            return parsed, shape
        raise DataError(
            f"{shape.source}: line {line}: must close the double quote that opens here, which takes in the rows below "
            "it; close it, or write a quote that belongs to a value as two, in double quotes"
        )
    log.warning(
        "%s: line %d: a double quote opens here that would take in the rows below it; every line has %d values if "
        "quotes are plain characters, so they are read as such", shape.source, line, len(shape.names),
    )  # fmt: skip
    table = unquoted.table
    assert table is not None  # no row is malformed
    for place, name in enumerate(shape.names):
        column = pc.replace_substring_regex(table[name], r'^"(.*)"$', r"\1")
        table = table.set_column(place, name, pc.replace_substring(column, '""', '"'))
    return Parsed(table, []), plain


def _find_swallowing_row(table: pa.Table, delimiter: str) -> tuple[int | None, bool]:
    """Find the first row with a value whose lines have the lengths of rows.

    Returns:
        The row or None, and whether those lines have numbers in the table's numeric columns.
    """
    last = table.num_columns - 1
    head = table.slice(0, 100)
    numeric = {
        place for place, column in enumerate(head.columns) if sum(map(is_number, column.to_pylist())) > 0.9 * len(head)
    }
    is_numeric: dict[int, bool] = {}
    for place, column in enumerate(table.columns):
        ends = pc.count_substring(column, "\n")
        if not pc.any(pc.greater(ends, 0)).as_py():
            continue
        fewest = pc.multiply(pc.subtract(ends, 1), last)  # the last line may be an empty one
        likely = pc.and_(pc.greater(ends, 0), pc.greater_equal(pc.count_substring(column, delimiter), fewest))
        for row, value in zip(pc.indices_nonzero(likely).to_pylist(), column.filter(likely).to_pylist(), strict=True):
            lines = [line.split(delimiter) for line in value.rstrip("\r\n").split("\n")]
            lengths = [last - place, *[last] * (len(lines) - 2), place]
            if len(lines) > 1 and [len(cells) - 1 for cells in lines] == lengths:
                placed = [dict(enumerate(lines[0][1:], place + 1)), *(dict(enumerate(cells)) for cells in lines[1:])]
                placed[-1].pop(place)
                numbers = [is_number(cells[at]) for cells in placed for at in numeric & cells.keys()]
                is_numeric[row] = is_numeric.get(row, False) or (all(numbers) and bool(numbers))
    sure = [row for row, certain in is_numeric.items() if certain]
    return min(sure or is_numeric, default=None), bool(sure)


def too_long(raw: bytes, shape: Shape) -> DataError:
    """Return the error for a line longer than `MAX_LINE`."""
    line = next((n for n, text in enumerate(_lines(raw), 1) if len(text) > MAX_LINE), 0)
    return DataError(
        f"{shape.source}: line {line}: must have at most {MAX_LINE:,} bytes, got more; is it the right file?"
    )


def _lines(raw: bytes) -> Iterator[str]:
    """Iterate over lines with any line ends; characters beyond ASCII are not decoded."""
    yield from io.TextIOWrapper(io.BytesIO(raw), encoding="latin-1")


def find_line(raw: bytes, row: int, shape: Shape) -> int:
    """Return the 1-based line of a 0-based row, for messages; empty lines are not rows."""
    inside_quotes = False
    number = 0
    for number, text in enumerate(_lines(raw), start=1):
        if number <= shape.skip:
            continue
        if text.rstrip("\n") and not inside_quotes:
            if row == 0:
                return number
            row -= 1
        inside_quotes ^= shape.quoting and text.count('"') % 2 == 1
    return number


def is_number(text: str) -> bool:
    """Return whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
