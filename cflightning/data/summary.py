"""The line that says what was understood of a table."""

from __future__ import annotations

from datetime import UTC, datetime

from cflightning.data.table import RatingTable

_LATEST = 253_402_300_799  # the end of the year 9999
_USEFUL = {
    "title": ("title", "name", "movietitle", "moviename", "booktitle", "itemname", "itemtitle", "productname",
              "producttitle"),
    "categories": ("genres", "genre", "categories", "category"),
    "weight": ("count", "counts", "plays", "playcount", "weight", "hours", "playtime", "listens", "views", "clicks",
               "quantity"),
    "timestamp": ("timestamp", "time", "date", "datetime", "ts", "unixreviewtime", "createdat", "ratedat",
                  "reviewtime"),
}  # fmt: skip
"""Role -> names of columns that look as if they had it."""


def describe_table(table: RatingTable) -> str:
    """Return one line: rows, users, items, ratings, times, the columns they come from, and what else was understood."""
    parts = [f"{table.name}: {table.summary}{_times(table)}"]
    origin = table.origin
    if origin is not None and origin.columns:
        parts.append("columns " + ", ".join(f"{role}={_short(name)}" for role, name in origin.columns.items()))
    if origin is not None:
        parts += origin.notes
        looks = [
            f"column {_short(name)} is not read (--data.{role} {_short(name)})"
            for role, names in _USEFUL.items()
            if role not in origin.columns and (role != "weight" or table.rating is None)
            for name in origin.unread
            if "".join(c for c in name.lower() if c.isalnum()) in names
        ]
        parts += looks[:3]
    return "; ".join(parts)


def _times(table: RatingTable) -> str:
    if table.timestamp is None or not len(table):
        return ", no times"
    first, last = int(table.timestamp.min()), int(table.timestamp.max())
    if not 0 < first <= last <= _LATEST:
        return f", times {first} to {last}"
    return ", " + " to ".join(f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}" for time in (first, last))


def _short(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"
