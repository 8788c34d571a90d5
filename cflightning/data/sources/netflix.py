"""The Netflix Prize formats `mv_*.txt` and `combined_data_*.txt`: blocks of ratings below a film id."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from cflightning.data.sources.archive import SourceFile
from cflightning.data.sources.csv_rows import MOST_BAD
from cflightning.data.sources.encodings import to_utf8
from cflightning.data.sources.open_table import Columns, OpenTable
from cflightning.errors import DataError

NAMES = re.compile(r"(mv_\d+|combined_data_\d+)\.txt(\.(gz|bz2|xz|zst))?")
"""Names of files with ratings; other files of the data set list pairs without ratings."""
_START = re.compile(rb"\s*\d+:\s*\n\s*\d+\s*,\s*\d+(\.\d+)?\s*,\s*\d{4}-\d\d-\d\d\s")
_FILM = re.compile(r"\s*(\d{1,18}):\s*", re.ASCII)
_COLUMNS = ["user", "rating", "timestamp"]


def is_netflix(head: bytes) -> bool:
    """Return whether a file begins with a film id, a colon and a rating."""
    return _START.match(head) is not None


def open_netflix(file: SourceFile) -> OpenTable:
    """Open a Netflix Prize file with columns user, item, rating and timestamp.

    Raises:
        DataError: When read, a line is neither a film nor a rating.
    """
    return OpenTable(str(file), ["user", "item", "rating", "timestamp"], lambda columns: _read(file, columns),
                     notes=("the format of the Netflix prize",))  # fmt: skip


def _read(file: SourceFile, columns: Sequence[str]) -> Columns:
    films: list[int] = []
    starts: list[int] = []  # lines of film ids; every other line is a row
    wrong: list[tuple[int, str]] = []

    def note(line: pyarrow.csv.InvalidRow) -> str:
        film = _FILM.fullmatch(line.text)
        if film:
            films.append(int(film[1]))
            starts.append(line.number)
        else:
            wrong.append((line.number, line.text))
        return "skip" if len(wrong) < MOST_BAD else "error"

    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(to_utf8(file.read(), str(file))),
            read_options=pyarrow.csv.ReadOptions(column_names=_COLUMNS, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                quote_char=False, ignore_empty_lines=False, invalid_row_handler=note
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(_COLUMNS, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        if not wrong:
            raise DataError(f"{file}: cannot be read as ratings of Netflix ({str(error)[:150]})") from error
    if wrong:
        line, text = wrong[0]
        raise DataError(
            f"{file}: line {line}: must be a film such as 8: or a rating such as 1488844,3,2005-09-06, got "
            f"{text[:60]!r} ({len(wrong):,} such line{'s' if len(wrong) > 1 else ''}); correct or remove them"
        )
    total = len(table) + len(starts)
    items = np.repeat(np.array(films, np.int64), np.diff([*starts, total + 1]) - 1)
    above = len(table) - len(items)  # empty lines above the first film
    table = table.slice(above).append_column("item", pa.array(items))
    filled = pc.indices_nonzero(pc.binary_length(table["user"]))  # the others are empty lines
    if len(filled) < len(table):
        table = table.take(filled)
    else:
        filled = None

    def where(row: int) -> str:
        lines = np.delete(np.arange(1, total + 1), np.array(starts) - 1)[above:]
        return f"{file}: line {lines[row if filled is None else filled[row].as_py()]}"

    return Columns(table.select(columns), where)
