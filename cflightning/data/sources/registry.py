"""The layouts of data sets, in the order in which they are tried. Another package adds its own by `register`."""

from __future__ import annotations

from pathlib import Path

from cflightning.data.sources.archive import Files
from cflightning.data.sources.column_errors import show_names
from cflightning.data.sources.compression import FORMATS
from cflightning.data.sources.layout import DataSet, Layout, Location
from cflightning.data.sources.movielens import find_movielens
from cflightning.data.sources.partitions import find_partitioned
from cflightning.data.sources.predefined_folder import find_predefined
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.sources.tables import find_file
from cflightning.errors import DataError

_layouts: list[Layout] = [find_movielens, find_predefined, find_partitioned, find_file]


def register(layout: Layout) -> None:
    """Try a layout before all others."""
    _layouts.insert(0, layout)


def unregister(layout: Layout) -> None:
    """Forget a layout."""
    _layouts.remove(layout)


def find_data_set(
    path: Path, table_format: TableFormat = PLAIN_TABLE, published_split: str | None = None
) -> tuple[Location, DataSet]:
    """Recognise the data set at a path.

    Args:
        path: Folder, zip archive, file or pipe.
        table_format: Columns and notation of a table.
        published_split: Name of a published split whose test part is wanted.

    Raises:
        DataError: There is nothing, no layout recognises it, or it lacks the published split.
    """
    if not path.exists():
        raise DataError(f"--data.path: must be a folder, zip or table file, but {path} does not exist")
    if path.is_dir() or (path.is_file() and _is_zip(path)):
        location = Location(path, Files(path), None, table_format, published_split)
    elif published_split is not None:
        raise DataError(
            f"{path}: a file has no predefined split; name the folder, or choose another --data.split.method"
        )
    else:
        location = Location(path, Files(path.parent), path.name, table_format)
    data_set = next((match for layout in _layouts if (match := layout(location)) is not None), None)
    if published_split is not None and (data_set is None or not data_set.has_published_splits):
        raise DataError(
            f"--data.split.fold: is {published_split}, but {path} has "
            f"{'one test part' if data_set is not None and data_set.has_test_part else 'none'}; leave it out"
        )
    if data_set is None:
        raise DataError(
            f"{path}: must hold a MovieLens data set (u.data, ratings.dat or ratings.csv), a train and a test table, "
            f"or parts of one table, found {show_names(location.files.names()) or 'nothing'}; to read another table "
            "name the file itself"
        )
    return location, data_set


def _is_zip(path: Path) -> bool:
    if path.suffix.lower() == ".zip":
        return True
    try:
        with open(path, "rb") as file:
            return FORMATS.get(file.read(4)) == "zip"
    except OSError:
        return False  # the reader reports the error
