"""Titles and categories of items, from a file beside the ratings."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cflightning.data.ids import Id, Ids
from cflightning.data.sources.archive import Files
from cflightning.data.sources.columns import USUAL_NAMES, plain_name, split_categories
from cflightning.data.sources.delimited import read_text
from cflightning.errors import DataError

log = logging.getLogger(__name__)

TITLE_FILES = ("movies.csv", "movies.dat", "u.item")
FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Genres of the last columns of `u.item` (ml-100k, README)."""
_FIRST_FLAG = 5
_TABLE = "movies.csv"
_TITLES = (
    "title",
    "name",
    "movietitle",
    "moviename",
    "booktitle",
    "itemtitle",
    "itemname",
    "producttitle",
    "productname",
)
_GENRES = ("genres", "genre", "categories", "category")
_INTEGER = re.compile(r"-?[0-9]{1,19}(\.0*)?")  # pandas writes 7.0 beside missing values


class ItemMetadata(NamedTuple):
    """Metadata of items, which may include items without ratings.

    Attributes:
        titles: Item id -> title.
        categories: Item id -> categories; items without categories are absent.
    """

    titles: dict[Id, str]
    categories: dict[Id, tuple[str, ...]]


def make_item_metadata(ids: Iterable[Id], titles: Iterable[str], categories: Iterable[tuple[str, ...]]) -> ItemMetadata:
    """Combine columns of equal length."""
    ids = list(ids)
    named = {key: names for key, names in zip(ids, categories, strict=True) if names}
    return ItemMetadata(dict(zip(ids, titles, strict=True)), named)


def read_item_metadata(files: Files, items: Ids, item_column: str | None = None) -> ItemMetadata:
    """Read the item file of a MovieLens folder.

    The file is optional: one that cannot be read is skipped with a warning.

    Args:
        files: The folder.
        items: Item ids of the ratings, whose type the item file shares.
        item_column: Name of the ratings' item column, which is tried first in the item file.
    """
    try:
        rows = _rows(files, item_column)
    except DataError as error:
        log.warning("%s: is left out, so there may be no titles (%s)", files.path, error)
        rows = []
    if rows is None:
        log.info("%s: no list of items beside the ratings, so there are no titles", files.path)
        return ItemMetadata({}, {})
    valid = [row for row in rows if row[0] and (items.kind == "string" or _INTEGER.fullmatch(row[0]))]
    ids = [int(row[0].partition(".")[0]) if items.kind == "int64" else row[0] for row in valid]
    metadata = make_item_metadata(ids, (row[1] for row in valid), (row[2] for row in valid))
    if rows and not any(metadata.titles.keys() & set(items.values.tolist())):
        log.warning("%s: the list of items beside the ratings has none of their items, so there are no titles",
                    files.path)  # fmt: skip
    return metadata


def _rows(files: Files, item_column: str | None) -> Sequence[tuple[str, str, tuple[str, ...]]] | None:
    """Return id, title and categories of every line; None if there is no item file."""
    if _TABLE in files:
        return _table_rows(files, item_column)
    name = next((name for name in TITLE_FILES if name in files), None)
    if name is None:
        return None
    raw = files.read(name)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # GroupLens's older files
    # Not splitlines(): to it, latin-1 titles contain line ends.
    lines = [line.rstrip("\r").split("::" if name == "movies.dat" else "|") for line in text.split("\n")]
    return [(line[0], line[1], _categories(name, line)) for line in lines if len(line) > 1]


def _table_rows(files: Files, item_column: str | None) -> Sequence[tuple[str, str, tuple[str, ...]]]:
    """Read an item file with a header line by its column names.

    Raises:
        DataError: The file cannot be read or has no id and title columns.
    """
    table = read_text(files.file(_TABLE))
    plain = {plain_name(name): name for name in reversed(table.column_names)}

    def find(*names: str) -> str | None:
        return next((plain[name] for name in names if name in plain), None)

    item = (
        item_column
        if item_column in table.column_names
        else find(*(n for n in USUAL_NAMES["item"] if n != "title"), "id")
    )
    title = find(*_TITLES)
    if item is None or title is None or item == title:
        raise DataError(
            f"{files.file(_TABLE)}: must have a column of item ids and one of titles (such as movieId and title), got "
            f"{', '.join(map(repr, table.column_names))[:150]}; rename them"
        )
    kinds = find(*_GENRES)
    genres = table[kinds].to_pylist() if kinds else [""] * len(table)
    columns = table[item].to_pylist(), table[title].to_pylist(), map(split_categories, genres)
    return list(zip(*columns, strict=True))


def _categories(name: str, line: list[str]) -> tuple[str, ...]:
    if name == "movies.dat":
        return split_categories(line[2] if len(line) > 2 else "")
    flags = zip(FLAGS, line[_FIRST_FLAG:], strict=False)  # a shortened file may have fewer
    return split_categories("|".join(category for category, flag in flags if flag == "1"))
