"""Folders with a predefined test part, and leave-one-out folders with ranking candidates."""

from __future__ import annotations

import re
from typing import NamedTuple

from cflightning.data.sources.archive import Files
from cflightning.data.sources.column_errors import show_names
from cflightning.data.sources.delimited import open_text
from cflightning.data.sources.layout import DataSet, Location
from cflightning.data.sources.leave_one_out import read_candidates
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.sources.tables import read_any, to_ratings
from cflightning.data.table import RatingTable
from cflightning.errors import DataError

FIXED = ["user", "item", "rating", "timestamp"]
"""Columns of a `.rating` file, which has no header line."""
_TABLE = r"(.+\.)?{}\.((csv|tsv|txt|dat|rating|json|jsonl|ndjson)(\.(gz|bz2|xz|zst))?|parquet|pq|feather|arrow|orc)"
_NEGATIVES = r".+\.test\.negative(\.gz)?"


class Parts(NamedTuple):
    """File names of one folder.

    Attributes:
        train: Training table, such as `train.parquet` or `ml-1m.train.rating`.
        test: Test table.
        negatives: Candidate lists, such as `ml-1m.test.negative`, or None.
    """

    train: str
    test: str
    negatives: str | None


def find_predefined(location: Location) -> DataSet | None:
    """Recognise a folder or zip archive with a training and a test table."""
    if location.name is not None or (parts := find_parts(location.files)) is None:
        return None
    negatives = None if parts.negatives is None else location.files.file(parts.negatives)
    return DataSet(
        (parts.train, parts.test),
        lambda: read_parts(location.files, parts, location.table_format),
        has_test_part=True,
        read_candidates=None if negatives is None else lambda: read_candidates(negatives),
    )


def find_parts(files: Files) -> Parts | None:
    """Find the training and the test table of a folder; None if there is neither.

    Raises:
        DataError: One of them is missing, or there are several.
    """
    train, test, negatives = (
        [name for name in files.names() if re.fullmatch(pattern, name)]
        for pattern in (_TABLE.format("train"), _TABLE.format("test"), _NEGATIVES)
    )
    if not train and not test:
        return None
    for what, names in (("train", train), ("test", test)):
        if len(names) != 1:
            raise DataError(
                f"{files.path}: must hold one {what} table beside {(test if what == 'train' else train)[0]} "
                f"({what}.csv, {what}.parquet, NAME.{what}.rating, …), got {show_names(names) or 'none'}; "
                + ("give every data set a folder of its own" if names else "add it, or name the one table itself")
            )
    if len(negatives) > 1:
        raise DataError(
            f"{files.path}: must hold one file of negatives, got {show_names(negatives)}; remove the others"
        )
    return Parts(train[0], test[0], negatives[0] if negatives else None)


def read_parts(files: Files, parts: Parts, table_format: TableFormat = PLAIN_TABLE) -> RatingTable:
    """Read both tables as one whose test rows are marked.

    Raises:
        DataError: One of them has bad rows.
    """
    train, test = (_read(files, name, table_format) for name in (parts.train, parts.test))
    return train.append(test, str(files.path))


def _read(files: Files, name: str, table_format: TableFormat) -> RatingTable:
    if not re.search(r"\.rating(\.(gz|bz2|xz|zst))?$", name):
        return read_any(files.file(name), table_format)
    columns = {role: role for role in FIXED if role != "rating" or table_format.reads_ratings}
    opened = open_text(files.file(name), names=FIXED, delimiter="\t")
    return to_ratings(opened, table_format.with_columns({**columns, "title": None, "categories": None}))
