"""Layouts: how a data set lies in a folder, a zip archive or a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cflightning.data.sources.archive import Files
from cflightning.data.sources.leave_one_out import CandidateLists
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.table import RatingTable


class Location(NamedTuple):
    """A place where a layout is looked for.

    Attributes:
        path: Path that the user named.
        files: Files of that folder or zip archive, or of the folder of that file.
        name: Name of the file; None for a folder or zip archive.
        table_format: Columns and notation of the table.
        published_split: Name of the published split whose test part is to be marked, or None.
    """

    path: Path
    files: Files
    name: str | None = None
    table_format: TableFormat = PLAIN_TABLE
    published_split: str | None = None


class DataSet(NamedTuple):
    """A recognised data set, not yet read.

    Attributes:
        names: Names inside `Location.files` of all files that `read` opens, by which the cache recognises a change.
        read: Reads the ratings. Raises DataError if they are invalid.
        has_test_part: Whether the test rows are marked.
        has_published_splits: Whether the data set has published splits; `Location.published_split` is one of them.
        read_candidates: Reads the leave-one-out candidate lists; None if there are none.
    """

    names: Sequence[str]
    read: Callable[[], RatingTable]
    has_test_part: bool = False
    has_published_splits: bool = False
    read_candidates: Callable[[], CandidateLists] | None = None


Layout = Callable[[Location], DataSet | None]
"""Function that recognises a layout: the data set, or None if it lies in another layout. Raises DataError if the data
set is recognised but incomplete."""
