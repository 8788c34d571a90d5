"""Candidate lists of leave-one-out evaluation, as published with "Neural Collaborative Filtering" (He et al. 2017)."""

from __future__ import annotations

import io
import re
from typing import NamedTuple

import pyarrow as pa

from cflightning.data.ids import IdColumn
from cflightning.data.sources.archive import SourceFile
from cflightning.data.sources.columns import read_ids
from cflightning.errors import DataError

_PAIR = re.compile(r"\((.+),(.+)\)")


class CandidateLists(NamedTuple):
    """Candidate lists, one per test row.

    Attributes:
        file: The file, for messages.
        user: User ids [lines].
        item: Item ids [lines * width], line by line: first the test item, then items without interaction.
        width: Items per line.
    """

    file: SourceFile
    user: IdColumn
    item: IdColumn
    width: int


def read_candidates(file: SourceFile) -> CandidateLists:
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
