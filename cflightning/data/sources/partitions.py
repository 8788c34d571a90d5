"""A table in one or several files of a folder or zip archive, as Spark, Hive and the Netflix Prize write it."""

from __future__ import annotations

import bisect
import itertools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from cflightning.data.sources.archive import Files, SourceFile
from cflightning.data.sources.layout import DataSet, Location
from cflightning.data.sources.netflix import NAMES
from cflightning.data.sources.open_table import Columns, OpenTable
from cflightning.data.sources.tables import open_any, to_ratings
from cflightning.data.table import RatingTable
from cflightning.errors import DataError

log = logging.getLogger(__name__)

_TABLE = re.compile(
    r"(?i).+\.(csv|tsv|tab|txt|dat|data|json|jsonl|ndjson|parquet|pq|feather|arrow|arrows|ipc|orc)(\.(gz|bz2|xz|zst|lz4))?|part-\d.*"
)
_NO_TABLE = re.compile(r"(?i)readme.*|licen[sc]e.*|changelog.*|requirements\.txt|.*\.crc")
_HIVE = re.compile(r"([^=/]+)=([^/]*)")
_MISSING = "__HIVE_DEFAULT_PARTITION__"
_DEPTH = 8
"""Maximum depth of nested partition folders."""


def find_partitioned(location: Location) -> DataSet | None:
    """Recognise a folder or zip archive with one table in one or several files."""
    if location.name is not None or not (names := find_tables(location.files)):
        return None

    def read() -> RatingTable:
        opened = open_parts(location.files, names, lambda file: open_any(file, location.table_format))
        return to_ratings(opened, location.table_format)

    return DataSet(names, read)


def find_tables(files: Files) -> list[str]:
    """Find the files of a folder or zip archive that may hold the table, by their extensions.

    Subfolders are searched only if they are named as Hive partitions, such as ``year=2024``. Names that begin with
    ``_`` or ``.`` are skipped.

    Returns:
        Paths inside, sorted.
    """
    paths = files.paths if files.is_zip else list(_below(files.path, files.path, _DEPTH))
    named = [path for path in paths if not any(part.startswith(("_", ".")) for part in path.split("/"))]
    ratings_of_netflix = [path for path in named if NAMES.fullmatch(path.rsplit("/", 1)[-1])]
    tables = [path for path in named if _TABLE.fullmatch(path.rsplit("/", 1)[-1])]
    return sorted(ratings_of_netflix or [path for path in tables if not _NO_TABLE.fullmatch(path.rsplit("/", 1)[-1])])


def _below(top: Path, folder: Path, depth: int) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_file():
            yield entry.relative_to(top).as_posix()
        elif depth and _HIVE.fullmatch(entry.name) and entry.is_dir():
            yield from _below(top, entry, depth - 1)


def open_parts(files: Files, names: Sequence[str], open_file: Callable[[SourceFile], OpenTable]) -> OpenTable:
    """Open files with the same columns as one table; partition keys become columns.

    Args:
        files: Folder or zip archive.
        names: Paths inside, from `find_tables`.
        open_file: Opens one file.

    Raises:
        DataError: The files have different columns.
    """
    files.check_sizes(names)
    parts = [SourceFile(files, name) for name in names]
    filled = [part for part in parts if part.head()]
    if not filled:
        raise DataError(f"{files.path}: must hold a table, got {len(parts):,} empty files; is it the right folder?")
    first = open_file(filled[0])
    keys = dict(_HIVE.findall(filled[0].name))
    columns = [*first.names, *(key for key in keys if key not in first.names)]
    if len(filled) > 1:
        log.info("%s: %d files are read as one table", files.path, len(filled))
    if len(filled) < len(parts):
        log.info("%s: %d empty files are left out", files.path, len(parts) - len(filled))

    def read(wanted: Sequence[str]) -> Columns:
        tables: list[Columns] = []
        for part in filled:
            opened = first if part is filled[0] else open_file(part)
            values = dict(_HIVE.findall(part.name))
            if sorted(opened.names) != sorted(first.names) or values.keys() != keys.keys():
                raise _different(files, first, opened, filled[0], part)
            read = opened.read([name for name in wanted if name in opened.names])
            table = read.table
            for key in wanted:
                if key not in opened.names:
                    value = None if values[key] == _MISSING else unquote(values[key])
                    table = table.append_column(key, pa.repeat(pa.scalar(value, pa.string()), len(table)))
            tables.append(Columns(table.select(wanted), read.where))
        ends = list(itertools.accumulate(len(read.table) for read in tables))

        def where(row: int) -> str:
            part = bisect.bisect_right(ends, row)
            return tables[part].where(row - (ends[part - 1] if part else 0))

        try:
            table = pa.concat_tables([read.table for read in tables], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"{files.path}: must have columns of one type in all {len(tables):,} files, but {str(error)[:150]}"
            ) from error
        return Columns(table, where)

    hint = f"; {len(filled):,} files lie there: name that of the ratings itself" if len(filled) > 1 else ""
    return OpenTable(str(files.path), columns, read, hint, first.notes)


def _different(files: Files, first: OpenTable, other: OpenTable, first_part: SourceFile, part: SourceFile) -> DataError:
    shown = [f"{at.name} ({', '.join(table.names)[:60]})" for at, table in ((first_part, first), (part, other))]
    return DataError(
        f"{files.path}: must hold a MovieLens data set, a train and a test table, or parts of one table, but its files "
        f"have different columns: {' and '.join(shown)}; name the file of the ratings itself"
    )
