"""Folders with a predefined test part, and leave-one-out folders with ranking candidates."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from cflightning.data.ids import IdColumn
from cflightning.data.sources.archive import Files, TextFile
from cflightning.data.sources.column_errors import show_names
from cflightning.data.sources.columns import read_ids
from cflightning.data.sources.delimited import open_text
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.sources.tables import read_any, to_ratings
from cflightning.data.table import RatingTable
from cflightning.errors import DataError

FIXED = ["user", "item", "rating", "timestamp"]
"""Columns of a `.rating` file, which has no header line."""
_TABLE = r"(.+\.)?{}\.((csv|tsv|txt|dat|rating|json|jsonl|ndjson)(\.(gz|bz2|xz|zst))?|parquet|pq|feather|arrow|orc)"
_NEGATIVES = r".+\.test\.negative(\.gz)?"
_PAIR = re.compile(r"\((.+),(.+)\)")


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


class CandidateLists(NamedTuple):
    """Candidate lists, one per test row.

    Attributes:
        file: The file, for messages.
        user: User ids [lines].
        item: Item ids [lines * width], line by line: first the test item, then items without interaction.
        width: Items per line.
    """

    file: TextFile
    user: IdColumn
    item: IdColumn
    width: int


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
    for what, found in (("train", train), ("test", test)):
        if len(found) != 1:
            raise DataError(
                f"{files.path}: must hold one {what} table beside {(test if what == 'train' else train)[0]} "
                f"({what}.csv, {what}.parquet, NAME.{what}.rating, …), got {show_names(found) or 'none'}; "
                + ("give every data set a folder of its own" if found else "add it, or name the one table itself")
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
    columns: dict[str, Any] = {role: role for role in FIXED if role != "rating" or table_format.reads_ratings}
    opened = open_text(files.file(name), names=FIXED, delimiter="\t")
    return to_ratings(opened, replace(table_format, **columns, title=None, categories=None))


def read_candidates(file: TextFile) -> CandidateLists:
    """Read leave-one-out candidate lists, one line ``(user,item)<tab>negative<tab>negative…`` per test row.

    The format is that of He et al. 2017, "Neural Collaborative Filtering".

    Raises:
        DataError: The file is damaged, a line is malformed or has another number of negatives than the first, or ids
            are decimals.
    """
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []
    width = 0
    for number, raw in enumerate(io.BytesIO(file.read()), start=1):
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line.strip():
            continue
        head, *negatives = line.split("\t")
        pair = _PAIR.fullmatch(head)
        if pair is None or not negatives or not all(negatives):
            raise DataError(
                f"{file}: line {number}: must be (user,item) and its negatives, all behind tabs, got {line[:60]!r}; "
                "correct the line, or remove the file to do without candidates"
            )
        width = width or 1 + len(negatives)
        if 1 + len(negatives) != width:
            raise DataError(
                f"{file}: line {number}: must have {width - 1} negatives like the first line, got {len(negatives)}; "
                "it is probably cut off: download it again"
            )
        lines.append(number)
        users.append(pair[1])
        items += [pair[2], *negatives]
    if not lines:
        raise DataError(f"{file}: must have a line for each test row, got an empty file; is it the right one?")
    user = read_ids(pa.array(users, pa.string()), "user", lambda row: f"{file}: line {lines[row]}")
    item = read_ids(pa.array(items, pa.string()), "item", lambda row: f"{file}: line {lines[row // width]}")
    return CandidateLists(file, user, item, width)
