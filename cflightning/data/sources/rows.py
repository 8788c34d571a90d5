"""The rows of delimited text as pyarrow parses them, and the quotes that would hide some of them."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from cflightning.data.sources.limits import MAX_LINE
from cflightning.errors import DataError

log = logging.getLogger(__name__)

MOST_BAD = 10_000
"""Rows of the wrong length that are looked at; each takes some microseconds."""


class Shape(NamedTuple):
    """How the rows of a text table are written.

    Attributes:
        source: its name for messages.
        names: its columns.
        skip: lines before the first row.
        delimiter: one character.
        quoting: whether double quotes may wrap values.
        spaced: whether blanks stand after delimiters.
    """

    source: str
    names: list[str]
    skip: int
    delimiter: str
    quoting: bool
    spaced: bool


class Parsed(NamedTuple):
    """What pyarrow made of a text.

    Attributes:
        table: columns of strings; None where there are too many bad rows to read on.
        bad: rows of another length than the header, which `table` lacks.
    """

    table: Any
    bad: list[Any]


def parse_rows(raw: bytes, shape: Shape, columns: Sequence[str]) -> Parsed | None:
    """Parse some columns; None where a line or a quoted value is longer than pyarrow's blocks."""
    bad: list[Any] = []

    def parse(threads: bool, most: int) -> Any:
        def note(row: Any) -> str:
            bad.append(row)
            return "skip" if len(bad) < most else "error"

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

    for threads, most in ((True, 1), (False, MOST_BAD)):  # row numbers are known to one thread only
        bad.clear()
        try:
            return Parsed(parse(threads, most), bad)
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
    """Whether there are more lines than rows: because of empty lines, or of line ends inside quotes."""
    if parsed.table is None:
        return True
    lines = raw.count(b"\n") + (raw[-1:] != b"\n")
    return lines != len(parsed.table) + len(parsed.bad) + shape.skip or raw.count(b"\r") not in (0, lines, lines - 1)


def without_open_quotes(raw: bytes, shape: Shape, parsed: Parsed | None) -> tuple[Parsed, Shape]:
    """Read quotes as plain characters where they would take in whole rows.

    They would if a quoted value is made of lines that are rows by themselves, or if a row of another length than the
    header, or of too many bytes, holds line ends. Quotes are plain if every line then has the length of the header.

    Raises:
        DataError: quotes take in rows, but cannot be plain characters everywhere.
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
    for place, name in enumerate(shape.names):
        column = pc.replace_substring_regex(table[name], r'^"(.*)"$', r"\1")
        table = table.set_column(place, name, pc.replace_substring(column, '""', '"'))
    return Parsed(table, []), plain


def _find_swallowing_row(table: Any, delimiter: str) -> tuple[int | None, bool]:
    """Find the first row with a value whose lines have the lengths of rows.

    Returns:
        The row, or None; and whether numbers stand in those lines where the table has numbers.
    """
    last = table.num_columns - 1
    head = table.slice(0, 100)
    numeric = {
        place for place, column in enumerate(head.columns) if sum(map(is_number, column.to_pylist())) > 0.9 * len(head)
    }
    found: dict[int, bool] = {}
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
                found[row] = found.get(row, False) or (all(numbers) and bool(numbers))
    sure = [row for row, certain in found.items() if certain]
    return min(sure or found, default=None), bool(sure)


def too_long(raw: bytes, shape: Shape) -> DataError:
    """Make the error of a text with a line that is longer than `MAX_LINE`."""
    line = next((n for n, text in enumerate(_lines(raw), 1) if len(text) > MAX_LINE), 0)
    return DataError(
        f"{shape.source}: line {line}: must have at most {MAX_LINE:,} bytes, got more; is it the right file?"
    )


def _lines(raw: bytes) -> Iterator[str]:
    """Lines one by one, whatever ends them; characters beyond ASCII are not decoded."""
    yield from io.TextIOWrapper(io.BytesIO(raw), encoding="latin-1")


def find_line(raw: bytes, row: int, shape: Shape) -> int:
    """Return the 1-based line on which a row (0-based) stands; empty lines are no rows. For messages only."""
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
    """Whether a text is written as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
