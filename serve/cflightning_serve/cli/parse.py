"""Ids and ratings from the command line and from CSV files, converted to the id types of the bundle."""

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO, TypeAlias

from cflightning_serve.bundle.ids import parse_id_texts
from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.errors import InputError

Ids: TypeAlias = list[int | str]
"""Parsed ids, all of the bundle's id type."""


def parse_ratings(ratings: str | None, liked: Sequence[str] | None, id_type: IdType) -> tuple[Ids, list[float] | None]:
    """Parse ``--ratings ITEM:RATING,...`` or ``--liked``; an id may contain colons, the rating follows the last one.

    Returns:
        Item ids, and ratings; None for liked items.

    Raises:
        InputError: a pair has another form, or an id has the wrong type.
    """
    if ratings is None:
        return parse_id_texts(liked or (), id_type, "--liked"), None
    items, values = [], []
    for pair in filter(None, ratings.split(",")):
        item, colon, value = pair.rpartition(":")
        try:
            values.append(float(value))
        except ValueError:
            colon = ""
        if not colon:
            raise InputError(f"--ratings: must be ITEM:RATING,ITEM:RATING,..., got {pair!r}")
        items.append(item)
    return parse_id_texts(items, id_type, "--ratings"), values


def read_ids(file: str, columns: Mapping[str, IdType]) -> list[Ids]:
    """Read columns of ids from a CSV file.

    Args:
        file: path of the file; ``-`` for standard input.
        columns: column -> type of its ids; other columns are ignored.

    Returns:
        The ids of each column, in the order of ``columns``.

    Raises:
        InputError: the file cannot be read, lacks a column, or an id has the wrong type.
    """
    ids: dict[str, Ids] = {name: [] for name in columns}
    try:
        with _standard_input() if file == "-" else open(file, newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, strict=True)
            if not columns.keys() <= set(reader.fieldnames or ()):
                raise InputError(
                    f"{file}: the first line must name the column{'s' if len(columns) > 1 else ''} "
                    f"{' and '.join(columns)}, got {', '.join(reader.fieldnames or ()) or 'nothing'}"
                )
            for row in reader:
                for column, id_type in columns.items():
                    where = f"{file}: line {reader.line_num}: column {column}"
                    if row[column] is None:
                        raise InputError(f"{where}: must be an id, is missing")
                    ids[column] += parse_id_texts([row[column]], id_type, where)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: must be CSV in UTF-8, is not: {error}") from error
    return list(ids.values())


@contextmanager
def _standard_input() -> Iterator[TextIO]:
    """Yield standard input as UTF-8, whatever the locale, without a byte order mark."""
    if (raw := getattr(sys.stdin, "buffer", None)) is None:  # a replacement without bytes
        yield sys.stdin
        return
    lines = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    try:
        yield lines
    finally:
        lines.detach()  # keeps standard input open
