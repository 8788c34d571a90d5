"""Ids as people type them, on the command line and in CSV files -> ids as the bundle has them."""

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.errors import InputError


def parse_ids(texts: Sequence[str], kind: IdType, where: str) -> list[Any]:
    """Turn ids as typed into ids as the bundle has them.

    Raises:
        InputError: no integer, in a bundle of integer ids.
    """
    if kind == "string":
        return list(texts)
    for text in texts:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", text):
            raise InputError(f"{where}: ids are integers in this bundle, got {text!r}")
    return [int(text) for text in texts]


def read_ids(file: str, columns: Mapping[str, IdType]) -> list[list[Any]]:
    """Read columns of ids from a CSV file.

    Args:
        file: its path; ``-`` is standard input.
        columns: name -> type of its ids; others are not looked at.

    Returns:
        The ids of each column, in the order of ``columns``.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds an id of the wrong type.
    """
    ids: dict[str, list[Any]] = {name: [] for name in columns}
    try:
        with _standard_input() if file == "-" else open(file, newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, strict=True)
            if not columns.keys() <= set(reader.fieldnames or ()):
                raise InputError(
                    f"{file}: the first line must name the column{'s' if len(columns) > 1 else ''} "
                    f"{' and '.join(columns)}, got {', '.join(reader.fieldnames or ()) or 'nothing'}"
                )
            for row in reader:
                for column, kind in columns.items():
                    where = f"{file}: line {reader.line_num}: column {column}"
                    if row[column] is None:
                        raise InputError(f"{where}: must hold an id, is missing")
                    ids[column] += parse_ids([row[column]], kind, where)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: must be CSV in UTF-8, is not: {error}") from error
    return list(ids.values())


@contextmanager
def _standard_input() -> Iterator[TextIO]:
    """Standard input as UTF-8, whatever the locale says, without the mark that some programs put before it."""
    if (raw := getattr(sys.stdin, "buffer", None)) is None:  # a stand-in without bytes
        yield sys.stdin
        return
    lines = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
    try:
        yield lines
    finally:
        lines.detach()  # standard input stays open
