"""The log line that describes a table."""

from __future__ import annotations

from datetime import UTC, datetime

from cflightning.data.table import RatingTable
from cflightning.utils.text import truncate

LATEST = 253_402_300_799
"""Latest time that is shown as a date: the end of the year 9999, in seconds."""
MAX_NAME = 30
"""Characters of a column name that are shown."""
SUGGESTED_NAMES = {
    "title": ("title", "name", "movietitle", "moviename", "booktitle", "itemname", "itemtitle", "productname",
              "producttitle"),
    "categories": ("genres", "genre", "categories", "category"),
    "weight": ("count", "counts", "plays", "playcount", "weight", "hours", "playtime", "listens", "views", "clicks",
               "quantity"),
    "timestamp": ("timestamp", "time", "date", "datetime", "ts", "unixreviewtime", "createdat", "ratedat",
                  "reviewtime"),
}  # fmt: skip
"""Role -> usual names of its columns, in lower case without separators; unread ones are mentioned."""


def describe_table(table: RatingTable) -> str:
    """Return one line: rows, users, items, ratings, times, columns and detected properties."""
    parts = [f"{table.name}: {table.summary}{_times(table)}"]
    origin = table.origin
    if origin is not None and origin.columns:
        parts.append(
            "columns " + ", ".join(f"{role}={truncate(name, MAX_NAME)}" for role, name in origin.columns.items())
        )
    if origin is not None:
        parts += origin.notes
        hints = [
            f"column {truncate(name, MAX_NAME)} is not read (--data.table.{role} {truncate(name, MAX_NAME)})"
            for role, names in SUGGESTED_NAMES.items()
            if role not in origin.columns and (role != "weight" or table.rating is None)
            for name in origin.unread
            if "".join(c for c in name.lower() if c.isalnum()) in names
        ]
        parts += hints[:3]
    return "; ".join(parts)


def _times(table: RatingTable) -> str:
    if table.timestamp is None or not len(table):
        return ", no times"
    first, last = int(table.timestamp.min()), int(table.timestamp.max())
    if not 0 < first <= last <= LATEST:
        return f", times {first} to {last}"
    return ", " + " to ".join(f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}" for time in (first, last))
