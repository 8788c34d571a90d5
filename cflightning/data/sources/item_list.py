"""What a list of items beside the ratings says of them: titles and categories."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cflightning.data.ids import Id, Ids
from cflightning.data.sources.columns import split_categories
from cflightning.data.sources.files import Files
from cflightning.data.sources.tables import read_text

log = logging.getLogger(__name__)

TITLE_FILES = ("movies.csv", "movies.dat", "u.item")
FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""What the last columns of `u.item` (ml-100k) stand for, as its README has it."""
_FIRST_FLAG = 5


class ItemList(NamedTuple):
    """Of the items that a list has, known ones or not.

    Attributes:
        titles: item id -> title.
        categories: item id -> its categories; items of none are left out.
    """

    titles: dict[Id, str]
    categories: dict[Id, tuple[str, ...]]


def make_item_list(ids: Iterable[Id], titles: Iterable[str], categories: Iterable[tuple[str, ...]]) -> ItemList:
    """From columns of equal length."""
    ids = list(ids)
    named = {key: names for key, names in zip(ids, categories, strict=True) if names}
    return ItemList(dict(zip(ids, titles, strict=True)), named)


def read_item_list(files: Files, items: Ids) -> ItemList:
    """Read whichever list lies beside the ratings of a MovieLens folder; ids of the same type as `items`."""
    rows = _rows(files)
    if rows is None:
        log.info("%s: no list of items beside the ratings, so there are no titles", files.path)
        return ItemList({}, {})
    if items.kind == "int64":
        rows = [row for row in rows if row[0].isdigit()]
    ids = [int(row[0]) if items.kind == "int64" else row[0] for row in rows]
    return make_item_list(ids, (row[1] for row in rows), (row[2] for row in rows))


def _rows(files: Files) -> Sequence[tuple[str, str, tuple[str, ...]]] | None:
    """Id, title and categories of every line; None where there is no list."""
    if "movies.csv" in files:
        table = read_text(files.file("movies.csv"), ",")
        if table.num_columns < 2:
            return []
        genres = table["genres"].to_pylist() if "genres" in table.column_names else [""] * len(table)
        columns = table.column(0).to_pylist(), table.column(1).to_pylist(), map(split_categories, genres)
        return list(zip(*columns, strict=True))
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


def _categories(name: str, line: list[str]) -> tuple[str, ...]:
    if name == "movies.dat":
        return split_categories(line[2] if len(line) > 2 else "")
    flags = zip(FLAGS, line[_FIRST_FLAG:], strict=False)  # fewer in a list that was cut down
    return split_categories("|".join(category for category, flag in flags if flag == "1"))
