"""Any ratings table: CSV, TSV, other delimited text, Parquet, or a pandas frame."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from cflightning.data.ids import Id, IdColumn
from cflightning.data.sources.columns import choose_columns, split_categories, to_table
from cflightning.data.sources.files import TextFile, single_file
from cflightning.data.table import RatingTable
from cflightning.errors import DataError

_DELIMITERS = ("\t", ";", "|", ",")
ROLES = ("user", "item", "rating", "timestamp", "title", "categories", "weight")
OF_ITEMS = {"title", "categories"}
"""Roles of columns that repeat themselves: each item's first value counts."""


def read_any(
    path: Path,
    *,
    columns: dict[str, str | None],
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    need_rating: bool = True,
) -> RatingTable:
    """Read one table file; the ending says whether it is Parquet, anything else is delimited text.

    Args:
        path: the file.
        columns: role -> column name, or None to go by the usual names.
        names: column names of a file without a header line.
        delimiter: None to go by the header line.
        need_rating: whether a rating column must be there; if not, it is not read either.

    Raises:
        DataError: with file, line, column, value and count of what is wrong.
    """
    if path.suffix.lower() in {".parquet", ".pq"}:
        try:
            table = pyarrow.parquet.read_table(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        except pa.ArrowInvalid as error:
            raise DataError(f"{path}: must be a Parquet file, {error}; write or download it again") from error
        return from_arrow(table, str(path), columns, need_rating=need_rating)
    return from_text(single_file(path), columns, names=names, delimiter=delimiter, need_rating=need_rating)


def from_text(
    file: TextFile,
    columns: dict[str, str | None],
    *,
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    need_rating: bool = True,
) -> RatingTable:
    """Read a text table from a folder or zip; arguments as for `read_any`."""
    table = read_text(file, delimiter, names)
    return _with_titles(file, table, columns, str(file), need_rating, header=names is None)


def from_arrow(table: Any, source: str, columns: dict[str, str | None], *, need_rating: bool = True) -> RatingTable:
    """A ratings table from a pyarrow table with typed columns (Parquet, a pandas frame)."""
    return _with_titles(None, table, columns, source, need_rating, header=True)


def read_text(
    file: TextFile, delimiter: str | None = None, names: Sequence[str] | None = None, *, quoting: bool = True
) -> Any:
    """Delimited text as a pyarrow table of strings, nothing interpreted.

    Args:
        file: UTF-8, or else latin-1.
        delimiter: one character, or ``::`` as MovieLens has it; None to go by the header line.
        names: column names of a file without a header line.
        quoting: whether double quotes may wrap values.

    Raises:
        DataError: empty file, rows of different lengths.
    """
    raw = file.read()
    if not raw.strip():
        raise DataError(f"{file}: must be a table, got an empty file; is it the right one?")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{file}: must be UTF-8 or latin-1, got UTF-16; save it as UTF-8")
    if delimiter is None:
        delimiter = _guess_delimiter(raw)
    if delimiter == "::":
        raw, delimiter = raw.replace(b"::", b"\t"), "\t"
    if len(delimiter) != 1 or not delimiter.isascii():
        raise DataError(f"--data.delimiter: must be one character of ASCII or '::', got {delimiter!r}")
    encoding = "utf-8"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        encoding = "latin-1"
    header, skip = _header(raw, encoding, delimiter, quoting)
    if names is not None:
        header, skip = list(names), 0
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise DataError(f"{file}: must have columns of different names, got {', '.join(twice)} more than once; rename")
    bad: list[Any] = []

    def note(row: Any) -> str:
        bad.append(row)
        return "skip"

    def parse(encoding: str, threads: bool) -> Any:
        bad.clear()
        return pyarrow.csv.read_csv(
            pa.BufferReader(raw),
            read_options=pyarrow.csv.ReadOptions(
                column_names=header, skip_rows=skip, encoding=encoding, use_threads=threads
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quoting else False,
                newlines_in_values=quoting,
                invalid_row_handler=note,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )

    try:
        table = parse(encoding, threads=True)
        if bad:
            table = parse(encoding, threads=False)  # row numbers are known to one thread only
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{file}: cannot be read as delimited text ({error}); check the file and its delimiter"
        ) from error
    if bad:
        row = bad[0]
        line = f"line {row.number}" if row.number is not None else "one line"
        raise DataError(
            f"{file}: {line}: must have {row.expected_columns} values like the first line, got {row.actual_columns} "
            f"({row.text[:80]!r}; {len(bad):,} such line{'s' if len(bad) > 1 else ''}, delimiter {delimiter!r}); "
            "correct the lines, or give another --data.delimiter"
        )
    if names is None and all(_is_number(name) for name in table.column_names):
        raise DataError(
            f"{file}: must have a header line, but the first line holds only numbers ({', '.join(header)[:60]!r}); "
            "add one, or name the columns: --data.columns '[user, item, rating]'"
        )
    return table


def _with_titles(
    file: TextFile | None, table: Any, columns: dict[str, str | None], source: str, need_rating: bool, *, header: bool
) -> RatingTable:
    def where(row: int) -> str:
        return f"{file}: line {file.line(row, header=header)}" if file else f"{source}: row {row + 1}"

    chosen = choose_columns(table.column_names, dict.fromkeys(ROLES) | columns, source, optional_roles(need_rating))
    unread = OF_ITEMS | (set() if need_rating else {"rating"})
    made = to_table({role: table[name] for role, name in chosen.items() if role not in unread}, where, source)
    of_items = {role: _first_of_items(made.item, table[chosen[role]]) for role in OF_ITEMS if role in chosen}
    named = ((key, split_categories(text)) for key, text in of_items.get("categories", {}).items())
    categories = {key: names for key, names in named if names}
    return replace(made, titles=of_items.get("title", {}), categories=categories)


def _first_of_items(item: IdColumn, column: Any) -> dict[Id, str]:
    """Item id -> the first value that its rows have in a column of text."""
    import pandas as pd

    first = pd.DataFrame({"item": item.codes, "value": column.to_pandas()}).dropna().drop_duplicates("item")
    ids = item.ids.values[first["item"].to_numpy()].tolist()
    return dict(zip(ids, first["value"].astype(str).tolist(), strict=True))


def optional_roles(need_rating: bool) -> set[str]:
    """Return the roles that a table may lack."""
    return {"timestamp", "weight", *OF_ITEMS} | (set() if need_rating else {"rating"})


def _first_line(raw: bytes) -> tuple[bytes, int]:
    """The first line that is not empty, and how many lines it ends."""
    lines = raw[:1_000_000].splitlines()
    number = next(n for n, line in enumerate(lines) if line.strip())
    return lines[number], number + 1


def _guess_delimiter(raw: bytes) -> str:
    """The delimiter of the first line: ``::``, or the candidate that stands there most often."""
    line = _first_line(raw)[0].decode("latin-1")
    if line.count("::") >= 2:
        return "::"
    return max(reversed(_DELIMITERS), key=line.count)


def _header(raw: bytes, encoding: str, delimiter: str, quoting: bool) -> tuple[list[str], int]:
    """Column names of the first line, and the lines to skip to get behind it."""
    line, skip = _first_line(raw)
    text = line.decode(encoding).removeprefix("\ufeff")
    names = next(csv.reader([text], delimiter=delimiter)) if quoting else text.split(delimiter)
    return [name.strip() for name in names], skip


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
