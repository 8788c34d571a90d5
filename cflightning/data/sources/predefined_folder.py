"""Folders that bring a test part of their own, and the leave-one-out ones that bring candidates to rank it among."""

from __future__ import annotations

import io
import re
from typing import Any, NamedTuple

import pyarrow as pa

from cflightning.data.ids import IdColumn
from cflightning.data.sources.archive import Files, TextFile
from cflightning.data.sources.column_errors import show_names
from cflightning.data.sources.columns import read_ids
from cflightning.data.sources.delimited import open_text
from cflightning.data.sources.tables import read_any, to_ratings
from cflightning.data.table import RatingTable
from cflightning.errors import DataError

FIXED = ["user", "item", "rating", "timestamp"]
"""Columns of a `.rating` file, which has no header."""
_TABLE = r"(.+\.)?{}\.((csv|tsv|txt|dat|rating|json|jsonl|ndjson)(\.(gz|bz2|xz|zst))?|parquet|pq|feather|arrow|orc)"
_NEGATIVES = r".+\.test\.negative(\.gz)?"
_PAIR = re.compile(r"\((.+),(.+)\)")


class Parts(NamedTuple):
    """Names of the files of one folder.

    Attributes:
        train: `train.parquet`, `ml-1m.train.rating` and so on.
        test: likewise.
        negatives: `ml-1m.test.negative`, gzipped or not; None where there is none.
    """

    train: str
    test: str
    negatives: str | None


class CandidateLists(NamedTuple):
    """Candidate lists as the file has them, a line a row.

    Attributes:
        file: for messages.
        user: of [lines].
        item: of [lines * width], line by line: first the test item, then the items that the user has not chosen.
        width: items of each line.
    """

    file: TextFile
    user: IdColumn
    item: IdColumn
    width: int


def find_parts(files: Files) -> Parts | None:
    """The train and the test table of a folder; None where there is neither.

    Raises:
        DataError: one of them is missing, or there are several.
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


def read_parts(files: Files, parts: Parts, **options: Any) -> RatingTable:
    """Both tables as one that marks the test rows; options as for `read_any`.

    Raises:
        DataError: one of them has bad rows.
    """
    train, test = (_read(files, name, **options) for name in (parts.train, parts.test))
    return train.append(test, str(files.path))


def _read(files: Files, name: str, *, columns: dict[str, str | None], **options: Any) -> RatingTable:
    if not re.search(r"\.rating(\.(gz|bz2|xz|zst))?$", name):
        return read_any(files.file(name), columns=columns, **options)
    fixed = {**dict(zip(FIXED, FIXED, strict=True)), "weight": columns.get("weight")}
    opened = open_text(files.file(name), names=FIXED, delimiter="\t")
    shared = {name: options[name] for name in ("need_rating", "values") if name in options}
    return to_ratings(opened, fixed, **shared)


def read_candidates(file: TextFile) -> CandidateLists:
    """Candidate lists of leave-one-out, one line ``(user,item)<tab>negative<tab>negative…`` for each test row.

    The format of He et al. 2017, "Neural Collaborative Filtering".

    Raises:
        DataError: a damaged file, a line of another form or with another number of negatives than the first, or ids
            written as decimals.
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
